"""Pieces of sentences that several parts of the program tell a person."""

import re


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """Return a count with its noun."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; the name of its type where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def as_code(text: str) -> str:
    """Return Markdown that shows a text as it is, in one line, whoever wrote it.

    A code span is the only place where Dagster's Markdown makes nothing of the text: neither images and HTML, nor links
    of bare addresses and names with an @, which no backslash prevents.
    """
    line = " ".join(text.split())
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    blank = " " if "`" in line[:1] + line[-1:] else ""
    return f"{fence}{blank}{line}{blank}{fence}" if line else ""
