"""Intervals and sets of ids as PostgreSQL reads them."""

from twitter_pipeline.coverage import Coverage, IdRange


def coverage_literal(coverage: Coverage) -> str:
    """Return a set of ids as PostgreSQL reads an int8multirange."""
    return "{" + ",".join(map(range_literal, coverage)) + "}"


def range_literal(ids: IdRange | None) -> str:
    """Return ids as PostgreSQL reads an int8range."""
    return "empty" if ids is None else f"[{ids.lo},{ids.hi})"
