"""Where output goes: results to stdout, everything else to stderr, and nothing that could disturb a terminal."""

import json
import logging
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import Self, TextIO, cast

from rich.console import Console, RenderableType
from rich.text import Text

from twitter_pipeline.cli.safe_text import printable
from twitter_pipeline.cli.tables import FittedTable
from twitter_pipeline.logs import JsonLines
from twitter_pipeline.settings import LogFormat, load_log_format

# So wide that nothing is ever wrapped: what is not a terminal is a file or a program, which want whole lines.
_UNBOUNDED = 10_000


_GRAVITY = {"Error:": logging.ERROR, "Traceback": logging.ERROR, "Warning:": logging.WARNING}
"""What the first word of a message tells a person of how grave it is."""


@dataclass(slots=True)
class Terminal:
    """The two outputs of a command, and whether tracebacks are wanted."""

    out: Console
    err: Console
    debug: bool = False

    @classmethod
    def open(cls) -> Self:
        """Use this process's stdout and stderr; colours only where a person looks."""
        _replace_closed_streams()
        for stream in (sys.stdout, sys.stderr):
            # A terminal that cannot show a character gets a question mark, not a traceback.
            if hasattr(stream, "reconfigure"):
                cast("_Reconfigurable", stream).reconfigure(errors="replace")
        return cls(_console(sys.stdout), _console(_log_stream(_own_stderr())))

    def say(self, message: str) -> None:
        """Write a message to stderr; line breaks stay, other control characters are shown by their codes.

        Where logs are wanted as JSON it is one line of a log, as grave as its first word says.
        """
        if isinstance(self.err.file, JsonLines):
            self.err.file.write_line(message, level=_GRAVITY.get(message.partition(" ")[0], logging.INFO))
        else:
            _print(self.err, message)

    def log(self, record: logging.LogRecord) -> None:
        """Write to stderr what was logged."""
        if isinstance(self.err.file, JsonLines):
            self.err.file.write_record(record)
        else:
            self.say(f"{record.levelname.capitalize()}: {record.getMessage()}")

    def write(self, message: str) -> None:
        """Write lines of a result to stdout."""
        _print(self.out, message)

    def write_json(self, values: object) -> None:
        """Write a result to stdout as JSON."""
        self.out.file.write(as_json(values) + "\n")

    def write_json_line(self, values: object) -> None:
        """Write something that happens to stdout, as one line of JSON that is there at once."""
        self.out.file.write(json.dumps(values, default=_plain) + "\n")
        self.out.file.flush()

    def show(self, renderable: RenderableType) -> None:
        """Write a table to stdout."""
        self.out.print(renderable)


class _Reconfigurable(TextIO):
    def reconfigure(self, *, errors: str) -> None: ...


def _replace_closed_streams() -> None:
    """Let what was closed by the shell, as in `>&-`, swallow what is written; its number would go to a connection."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 as long as the process


def _own_stderr() -> TextIO:
    """Return a stderr of our own: what a library does to the process's while it runs leaves it alone."""
    if sys.stderr is not sys.__stderr__:
        return sys.stderr
    return open(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace", buffering=1)


def _log_stream(stream: TextIO) -> TextIO:
    """Return the stream, or one that makes lines of a log of what is written, where these are wanted as JSON."""
    if load_log_format(os.environ) is LogFormat.TEXT:
        return stream
    return cast("TextIO", JsonLines(stream, logger="twitter_pipeline.cli"))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to whoever called: for some commands the end of their reader is no reason to end."""
        raise BrokenPipeError


def _console(file: TextIO) -> Console:
    """Return a console on a stream, in colour where a person looks, or where FORCE_COLOR asks for it.

    What moves is for a terminal that can move: no log gets it, whatever is said about colours.
    """
    is_terminal = file.isatty()
    can_move = is_terminal and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    return _Console(
        file=file,
        width=None if is_terminal else _UNBOUNDED,
        force_interactive=can_move,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _print(console: Console, message: str) -> None:
    """Print lines, on a terminal wrapped at words; what is indented is for copying and stays in one piece."""
    is_terminal = console.file.isatty()
    for line in message.split("\n"):
        console.print(Text(printable(line)), soft_wrap=not is_terminal or line.startswith(" "))


def table(
    *columns: str,
    right: Collection[str] = (),
    prose: Collection[str] = (),
    drop: Sequence[str] = (),
    title: str | None = None,
) -> FittedTable:
    """Return an empty table.

    The columns named in `right` hold numbers, those in `prose` sentences, and those in `drop` may be left out where the
    terminal is narrow, the first one first.
    """
    return FittedTable(columns, right=right, prose=prose, drop=drop, title=title)


def cell(text: str, style: str = "") -> Text:
    """Return text from anywhere as a table's cell that cannot break the table."""
    return Text(printable(text), style=style)


def as_json(values: object) -> str:
    """Return values as JSON text, safe on a terminal: what it would obey is written as an escape."""
    text = json.dumps(values, indent=2, ensure_ascii=False, default=_plain)
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case Decimal():
            return float(value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        case _:
            return str(value)


def shortened(text: str, longest: int = 200) -> str:
    """Return what a person gave, printable and short enough to be repeated in a message."""
    shown = printable(text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."
