"""What all charts share: a transparent sheet of fixed width, its heading, key and axes, and the way to a small PNG.

No state of matplotlib's is shared: nothing here goes through pyplot, so threads can draw side by side. Lengths are in
the pixels of a page; the PNG has two for each, for screens that are finer.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# Many of matplotlib's functions have arguments without types.

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twitter_pipeline.charts.palette import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

WIDTH = 920
"""Fits the dialog in which Dagster shows a picture (80 % of the window) from a window of 1,200 pixels on."""

SCALE = 2
_PIXELS_PER_INCH = 96
_POINTS_PER_PIXEL = 72 / _PIXELS_PER_INCH

FONT = "DejaVu Sans"
"""Comes with matplotlib, so that pictures are the same everywhere."""

TITLE_SIZE = 14
TEXT_SIZE = 12
SMALL_SIZE = 11

HEADING = 44
KEY_ROW = 22
MARGIN = 14
AXIS_LEFT = 58
AXIS_RIGHT = WIDTH - 26
"""Of axes without a key beside them; room for half a label of time."""

AXIS_BOTTOM = 34

_COLOURS = 64
"""A PNG of a chart needs few colours; a palette of so many, with their transparency, makes it a third as large."""

_NOT_SHOWN = re.compile(r"[^ -~…·]")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One line of a key: a colour, what it stands for, and a number beside it."""

    colour: str
    name: str
    value: str = ""
    alpha: float = 1.0
    is_line: bool = False


class Sheet:
    """A transparent picture of WIDTH by `height`, counted from its top left corner."""

    def __init__(self, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.height = height
        self._figure = Figure(
            figsize=(WIDTH / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), dpi=_PIXELS_PER_INCH * SCALE, frameon=False
        )
        self._canvas = FigureCanvasAgg(self._figure)

    def axes(self, *, left: float, top: float, right: float, bottom: float) -> Axes:
        """Make axes between these edges, with lines that guide the eye along y."""
        axes = self._figure.add_axes(
            (left / WIDTH, 1 - bottom / self.height, (right - left) / WIDTH, (bottom - top) / self.height)
        )
        axes.patch.set_visible(False)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(INK)
            spine.set_linewidth(points(1))
        for axis in ("x", "y"):
            axes.tick_params(
                axis=axis,
                colors=INK,
                labelsize=points(SMALL_SIZE),
                labelfontfamily=FONT,
                width=points(1),
                length=points(4 if axis == "x" else 0),
                pad=points(5),
            )
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=INK, alpha=0.3, linewidth=points(1))
        axes.margins(0)
        return axes

    def write(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = TEXT_SIZE,
        bold: bool = False,
        align: str = "left",
    ) -> Text:
        """Write one line, its middle at `y`; a `$` stands for itself."""
        return self._figure.text(
            x / WIDTH,
            1 - y / self.height,
            shown(text),
            color=INK,
            family=FONT,
            fontsize=points(size),
            fontweight="bold" if bold else "normal",
            ha=align,
            va="center_baseline",
            parse_math=False,
        )

    def head(self, title: str, subtitle: str) -> None:
        """Say what the chart shows, and below it what it comes to."""
        self.write(MARGIN, 15, title, size=TITLE_SIZE, bold=True)
        self.write(MARGIN, 34, subtitle)

    def key_row(self, entries: Sequence[KeyEntry], *, top: float) -> None:
        """Put the key on one line."""
        x = float(MARGIN)
        for entry in entries:
            self._swatch(entry, x, top + KEY_ROW / 2)
            text = self.write(x + 18, top + KEY_ROW / 2, entry.name)
            x += 18 + text.get_window_extent().width / SCALE + 20

    def key_column(self, entries: Sequence[KeyEntry], *, left: float, top: float) -> None:
        """Put the key into a column that ends at the right margin, the numbers below each other."""
        for row, entry in enumerate(entries):
            y = top + (row + 0.5) * KEY_ROW
            self._swatch(entry, left, y)
            self.write(left + 18, y, entry.name)
            self.write(WIDTH - MARGIN, y, entry.value, align="right")

    def png(self) -> bytes:
        """Return the picture; the same picture is always the same bytes."""
        from numpy import asarray
        from PIL.Image import Quantize, fromarray

        self._canvas.draw()
        image = fromarray(asarray(self._canvas.buffer_rgba()))
        file = BytesIO()
        image.quantize(_COLOURS, method=Quantize.FASTOCTREE).save(file, "PNG", optimize=True)
        return file.getvalue()

    def _swatch(self, entry: KeyEntry, x: float, y: float) -> None:
        from matplotlib.patches import Rectangle

        height = 2 if entry.is_line else 12
        self._figure.add_artist(
            Rectangle(
                (x / WIDTH, 1 - (y + height / 2) / self.height),
                12 / WIDTH,
                height / self.height,
                facecolor=entry.colour,
                alpha=entry.alpha,
                linewidth=0,
            )
        )


def points(pixels: float) -> float:
    """Return a length in matplotlib's unit."""
    return pixels * _POINTS_PER_PIXEL


def shown(text: str) -> str:
    """Return a text as the font can show it: names are ASCII, and what is not becomes a question mark."""
    return _NOT_SHOWN.sub("?", text)


def shortened(text: str, length: int) -> str:
    """Return at most `length` characters of a name, its beginning and its end."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[len(text) - end :]}"


def in_order(name: str) -> list[tuple[int, str]]:
    """Return what names are sorted by: BEARER_2 before BEARER_10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"([0-9]+)", name)]


def dates(times: object) -> list[float]:
    """Return times, aware or a column of them, as numbers on a time axis."""
    from matplotlib.dates import date2num

    return [float(number) for number in date2num(times)]


def time_axis(axes: Axes, begins_at: datetime, ends_at: datetime) -> None:
    """Make x the time between two instants, in UTC."""
    from matplotlib.dates import AutoDateLocator, num2date
    from matplotlib.ticker import FixedFormatter, FixedLocator

    low, high = dates([begins_at, ends_at])
    # It takes instants, which its types do not say.
    locator: Any = AutoDateLocator(tz="UTC", minticks=4, maxticks=11)
    ticks = [float(tick) for tick in locator.tick_values(begins_at, ends_at)]
    seen = [tick for tick in ticks if low <= tick <= high]
    step = timedelta(days=min((later - tick for tick, later in pairwise(ticks)), default=1))
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(seen))
    axes.xaxis.set_major_formatter(FixedFormatter([_instant(num2date(tick), step) for tick in seen]))


def _instant(instant: datetime, step: timedelta) -> str:
    """Write an instant as exactly as instants that lie `step` apart need it."""
    if step > timedelta(days=300):
        return f"{instant:%Y}"
    if step > timedelta(days=27):
        return f"{instant:%b %Y}"
    if step >= timedelta(days=1) or (step >= timedelta(hours=1) and not instant.hour):
        return f"{instant.day} {instant:%b}"
    if step >= timedelta(minutes=1):
        return f"{instant:%H:%M}"
    return f"{instant:%H:%M:%S}" if step >= timedelta(seconds=1) else f"{instant:%H:%M:%S.%f}".rstrip("0").rstrip(".")


def amount_axis(axes: Axes, most: float, words: Callable[[float], str], *, whole: bool = True) -> None:
    """Make y an amount from 0 to a little above `most`, told in `words`; `whole` when it is counted."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def label(value: float, _: int) -> str:
        return words(value)

    axes.set_ylim(0, most * 1.06 or 1)
    locator = MaxNLocator(nbins=6, integer=whole, steps=[1, 2, 2.5, 5, 10])
    axes.yaxis.set_major_locator(locator)
    axes.yaxis.set_major_formatter(FuncFormatter(label))


def compact(amount: float) -> str:
    """Write an amount in few characters: 950, 12,500, 130k, 2.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if abs(amount) >= size:
            return f"{amount / (1e3 if letter == 'k' else size):,.4g}{letter}"
    return f"{amount:,.0f}" if amount == int(amount) else f"{amount:,.4g}"


def span_in_words(span: timedelta) -> str:
    """Write how long something took, in its two largest units."""
    seconds = span.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    parts = ((whole // 86_400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def as_markdown(png: bytes, alt: str) -> str:
    """Return Markdown that shows a picture at half its pixels, as it is meant to be seen.

    Markdown has no word for the size of a picture, and browsers take none from a PNG: put there by itself it would be
    twice as large as the page. So it is wrapped in an SVG, which has a size; `alt` is what is read aloud.
    """
    width, height = (pixels // SCALE for pixels in struct.unpack(">II", png[16:24]))
    data = base64.b64encode(png).decode()
    svg = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}'>"
        f"<image width='{width}' height='{height}' href='data:image/png;base64,{data}'/></svg>"
    )
    words = re.sub(r"([\\\[\]])", r"\\\1", " ".join(alt.split()))
    return f"![{words}](data:image/svg+xml,{quote(svg, safe='/:;,=+')})"
