"""Texts from anywhere, made safe to show: nothing in them moves a cursor or turns its neighbours around."""

import re
import unicodedata

from rich.text import Text

_JOINERS = "\u200c\u200d"
"""Emoji are joined with these; every other invisible character is shown by its code."""

_MARKS_KEPT = 4
"""So many marks on one letter are writing; more of them run over the lines above and below."""

_MARKS = re.compile(r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{5,}")


def printable(text: str) -> str:
    """Return the text in one line, with all that does not print shown by its code, such as \\x1b."""
    if text.isascii() and text.isprintable():
        return text
    shown = "".join(char if char.isprintable() or char in _JOINERS else _code(char) for char in text)
    return _MARKS.sub(lambda marks: marks[0][:_MARKS_KEPT], shown)


def isolated(line: Text) -> Text:
    """Return a line of text that keeps its right-to-left letters, if it has any, from turning its neighbours around."""
    if any(unicodedata.bidirectional(char) in ("R", "AL") for char in line.plain):
        return Text.assemble("\u2068", line, "\u2069")
    return line


def _code(char: str) -> str:
    if unicodedata.category(char) == "Zs":
        return " "
    return char.encode("unicode_escape").decode("ascii")
