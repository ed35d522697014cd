"""Where output goes: results to stdout, everything else to stderr, and nothing that could disturb a terminal."""

import os
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, TextIO, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

# So wide that nothing is ever wrapped: what is not a terminal is a file or a program, which want whole lines.
_UNBOUNDED = 10_000

# Emoji are joined with these; every other invisible character is shown by its code.
_JOINERS = "\u200c\u200d"


@dataclass(slots=True)
class Terminal:
    """The two outputs of a command, and whether tracebacks are wanted."""

    out: Console
    err: Console
    debug: bool = False

    @classmethod
    def open(cls) -> Self:
        """Use this process's stdout and stderr; colours only where a person looks."""
        for stream in (sys.stdout, sys.stderr):
            # A terminal that cannot show a character gets a question mark, not a traceback.
            if hasattr(stream, "reconfigure"):
                cast("_Reconfigurable", stream).reconfigure(errors="replace")
        return cls(_console(sys.stdout), _console(_own_stderr()))

    def say(self, message: str) -> None:
        """Write a message to stderr; line breaks stay, other control characters are shown by their codes."""
        self.err.print(Text("\n".join(map(printable, message.split("\n")))), soft_wrap=True)

    def write(self, message: str) -> None:
        """Write lines of a result to stdout."""
        self.out.print(Text("\n".join(map(printable, message.split("\n")))), soft_wrap=True)

    def show(self, renderable: RenderableType) -> None:
        """Write a table to stdout."""
        self.out.print(renderable)


class _Reconfigurable(TextIO):
    def reconfigure(self, *, errors: str) -> None: ...


def _own_stderr() -> TextIO:
    """Return a stderr of our own: what a library does to the process's while it runs leaves it alone."""
    if sys.stderr is not sys.__stderr__:
        return sys.stderr
    return open(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace", buffering=1)


def _console(file: TextIO) -> Console:
    width = None if file.isatty() else _UNBOUNDED
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False)


def table(*columns: str, right: Iterable[str] = (), title: str | None = None) -> Table:
    """Return an empty table; the columns named in `right` hold numbers."""
    empty = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", header_style="bold")
    numbers = set(right)
    for name in columns:
        is_number = name in numbers
        empty.add_column(
            Text(printable(name)), justify="right" if is_number else "left", no_wrap=is_number, overflow="fold"
        )
    return empty


def cell(text: str, style: str = "") -> Text:
    """Return text from anywhere as a table's cell that cannot break the table."""
    safe = printable(text)
    if any(unicodedata.bidirectional(char) in ("R", "AL") for char in safe):
        # Isolated, so that a right-to-left name does not turn its neighbours around.
        safe = f"\u2068{safe}\u2069"
    return Text(safe, style=style)


def printable(text: str) -> str:
    """Return the text in one line, with all that does not print shown by its code, such as \\x1b."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _JOINERS else _code(char) for char in text)


def shortened(text: str, longest: int = 200) -> str:
    """Return what a person gave, printable and short enough to be repeated in a message."""
    shown = printable(text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


def _code(char: str) -> str:
    if unicodedata.category(char) == "Zs":
        return " "
    return char.encode("unicode_escape").decode("ascii")
