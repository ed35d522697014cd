"""Tables for the width there is: a number, a name or a time is never broken, prose wraps at words.

What does not fit gives way in this order: columns that may be left out; prose, which then stands under the table;
and at last the table itself, whose rows become lists of names and values.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from twitter_pipeline.cli.safe_text import isolated, printable

NARROWEST_PROSE = 16
"""Prose in fewer columns is harder to read than under the table."""

NOTES_SAVE = 3
"""Sentences go under the table when it keeps so many columns more for it."""

_PADDING = 3
"""Cells between two columns; one more stands at the edge."""


@dataclass(slots=True)
class FittedTable:
    """Rows under headings, drawn for the width that the console has.

    `right` are the columns with numbers, `prose` those with sentences; `drop` are those that may be left out where
    there is no room, the first one first.
    """

    columns: Sequence[str]
    right: Collection[str] = ()
    prose: Collection[str] = ()
    drop: Sequence[str] = ()
    title: str | None = None
    rows: list[list[Text]] = field(default_factory=list[list[Text]])

    def add_row(self, *cells: str | Text) -> None:
        """Add a row with a cell for each column."""
        texts = [each if isinstance(each, Text) else Text(printable(each)) for each in cells]
        if len(texts) != len(self.columns):
            raise ValueError(f"a row of {len(texts)} cells for {len(self.columns)} columns")
        self.rows.append(texts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table."""
        yield self._fitted(console, options.max_width)

    def _fitted(self, console: Console, width: int) -> RenderableType:
        columns = list(range(len(self.columns)))
        if not self._fits(columns, width):
            columns = [at for at in columns if self.columns[at] not in self.prose or self._holds_something(at)]
        shown, noted = self._dropped(columns, width), list[int]()
        sentences = [at for at in shown if self.columns[at] in self.prose]
        if len(sentences) == 1:
            without = self._dropped([at for at in columns if at not in sentences], width)
            if not self._fits(shown, width) or len(without) >= len(shown) + NOTES_SAVE - 1:
                shown, noted = without, sentences
        if not self._fits(shown, width):
            return self._records(columns)
        left_out = [self.columns[at] for at in columns if at not in (*shown, *noted)]
        parts: list[RenderableType] = [self._table(console, shown, width)]
        if left_out:
            parts.append(Text(f"(no room for: {', '.join(left_out)})", style="dim"))
        return Group(*parts, *(note for at in noted for note in self._notes(at)))

    def _dropped(self, columns: Sequence[int], width: int) -> list[int]:
        """Return the columns without as many of `drop` as it takes to fit, if it can."""
        shown = list(columns)
        for name in self.drop:
            if self._fits(shown, width):
                break
            at = self.columns.index(name)
            if at in shown:
                shown.remove(at)
        return shown

    def _fits(self, shown: Sequence[int], width: int) -> bool:
        return self._least_width(shown) <= width

    def _holds_something(self, at: int) -> bool:
        return any(row[at].plain for row in self.rows)

    def _longest(self, at: int) -> int:
        return max((cell_len(row[at].plain) for row in self.rows), default=0)

    def _least(self, at: int) -> int:
        """Return the fewest cells that a column can do with; headings wrap at blanks."""
        heading = max(map(cell_len, self._heading(at).split()), default=0)
        longest = self._longest(at)
        return max(heading, min(longest, NARROWEST_PROSE) if self.columns[at] in self.prose else longest)

    def _heading(self, at: int) -> str:
        return printable(self.columns[at])

    def _least_width(self, shown: Iterable[int]) -> int:
        return 1 + sum(self._least(at) + _PADDING for at in shown)

    def _widths(self, shown: Sequence[int], width: int) -> Mapping[int, int]:
        """Share what room there is: headings get theirs first, prose the rest."""
        widths = {at: self._least(at) for at in shown}
        spare = width - self._least_width(shown)
        headings = [(at, cell_len(self._heading(at))) for at in shown]
        for at, wanted in (*headings, *((at, self._longest(at)) for at in shown)):
            more = min(spare, max(0, wanted - widths[at]))
            widths[at] += more
            spare -= more
        return widths

    def _table(self, console: Console, shown: Sequence[int], width: int) -> Table:
        drawn = Table(
            box=SIMPLE_HEAD,
            title=None if self.title is None else printable(self.title),
            title_justify="left",
            title_style="bold",
            header_style="bold",
        )
        widths = self._widths(shown, width)
        for at in shown:
            justify = "right" if self.columns[at] in self.right else "left"
            drawn.add_column(Text(self._heading(at)), justify=justify, width=widths[at], overflow="fold")
        for row in self.rows:
            drawn.add_row(*(_wrapped(row[at], console, widths[at]) for at in shown))
        return drawn

    def _notes(self, at: int) -> list[Text]:
        """Return the sentences of a column, each with the first cell of its row."""
        return [Text.assemble(isolated(row[0]), ": ", isolated(row[at])) for row in self.rows if row[at].plain]

    def _records(self, shown: Iterable[int]) -> RenderableType:
        """Return each row as a list of its own."""
        return Group(
            *(Facts([(self.columns[at], row[at]) for at in shown if row[at].plain], space=1) for row in self.rows)
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values below each other; a value that is too long goes on below itself."""

    facts: Sequence[tuple[str, Text]]
    space: int = 0
    """How many empty lines come first."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the list."""
        yield from [""] * self.space
        names = [Text(printable(name), style="bold") for name, _ in self.facts]
        room = options.max_width - max(map(cell_len, map(str, names)), default=0) - 2
        if room < NARROWEST_PROSE:
            # Each value begins a line of its own.
            for name, (_, value) in zip(names, self.facts, strict=True):
                yield from (name, _wrapped(value, console, options.max_width))
            return
        grid = Table.grid(padding=(0, 2))
        for name, (_, value) in zip(names, self.facts, strict=True):
            grid.add_row(name, _wrapped(value, console, room))
        yield grid


def _wrapped(text: Text, console: Console, width: int) -> Text:
    """Return a text in lines of a width, each of which keeps its right-to-left letters to itself."""
    lines = text.wrap(console, width, overflow="fold")
    for line in lines:
        line.rstrip()
    return Text("\n").join(map(isolated, lines))
