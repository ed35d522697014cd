"""What is under way, on stderr: a live line with a bar on a terminal, a plain line now and then elsewhere."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID
from rich.text import Text

from twitter_pipeline.cli.safe_text import printable
from twitter_pipeline.progress import rate

PLAIN_LINE_S = 5.0
UNCHANGED_LINE_S = 60.0
RATE_OVER_S = 10.0

BETWEEN = " | "

_WIDE_BAR, _NARROW_BAR = 16, 8
_WIDE = 80
"""In so many columns there is room for the wide bar."""


class Display:
    """Shows how far something is while the context lasts, and leaves no trace of it on a terminal.

    What is shown is a list of parts, the most important one first: those that do not fit the terminal are left out.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._said, self._said_at = "", clock()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    @property
    def is_live(self) -> bool:
        """Whether a person watches it move."""
        return self._console.is_interactive

    def __enter__(self) -> Self:
        if self.is_live:
            width = _WIDE_BAR if self._console.width >= _WIDE else _NARROW_BAR
            # Beside it there are the spinner and the blanks between the three.
            parts = _Parts(self._console, taken=width + 3)
            self._bar = Progress(
                SpinnerColumn(),
                BarColumn(width),
                parts,
                console=self._console,
                transient=True,
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._bar.add_task("", total=None, parts=())
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def announce(self, line: str) -> None:
        """Tell a log at once that something begins; on a terminal it is shown until there is more to show."""
        if self._bar is not None:
            self._bar.update(self._task, parts=(line,))
        else:
            self._say(line)

    def show(self, parts: Sequence[str], *, done: float = 0, total: float | None = None) -> None:
        """Show how far it is; without a total the bar only moves to and fro."""
        if self._bar is not None:
            # More may come than was expected: a bar that is full says that it is over.
            expected = None if total is None else max(total, done + 1)
            self._bar.update(self._task, parts=parts, completed=done, total=expected)
            return
        line = BETWEEN.join(parts)
        passed_s = self._clock() - self._said_at
        if passed_s >= (UNCHANGED_LINE_S if line == self._said else PLAIN_LINE_S):
            self._say(line)

    def _say(self, line: str) -> None:
        self._console.print(Text(printable(line)), soft_wrap=True)
        self._said, self._said_at = line, self._clock()


class Meter:
    """How fast something goes: the rate of the last seconds, of counts that each begin at nothing."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])

    def note(self, name: str, count: int) -> None:
        """Note how high a count is by now."""
        self._counts[name] = count
        now = self._clock()
        self._samples.append((now, sum(self._counts.values())))
        while len(self._samples) > 2 and self._samples[0][0] < now - RATE_OVER_S:
            self._samples.popleft()

    def rate_in_words(self, things: str) -> list[str]:
        """Return the rate as a part of a display, none while there is none."""
        per_s = rate(self._samples)
        return [] if per_s is None else [f"{per_s:,.0f} {things}/s"]


class _Parts(ProgressColumn):
    """The parts that fit into one line."""

    def __init__(self, console: Console, *, taken: int) -> None:
        super().__init__()
        self._console = console
        self._taken = taken

    def render(self, task: Task) -> Text:
        return Text(fitting(task.fields["parts"], self._console.width - self._taken - 1), no_wrap=True, overflow="crop")


def fitting(parts: Sequence[str], width: int) -> str:
    """Return the parts that fit into a line of so many cells, the first ones before others; the first one always."""
    line = ""
    for part in map(printable, parts):
        longer = f"{line}{BETWEEN}{part}" if line else part
        if not line or cell_len(longer) <= width:
            line = longer
    return line
