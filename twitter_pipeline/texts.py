"""Pieces of sentences that several parts of the program tell a person."""


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """Return a count with its noun."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; the name of its type where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)
