"""The calls of a run against the limits of its tokens, and when it had to wait."""
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from twitter_pipeline.charts.canvas import (
    AXIS_RIGHT,
    HEADING,
    KEY_ROW,
    MARGIN,
    SMALL_SIZE,
    KeyEntry,
    Sheet,
    compact,
    dates,
    in_order,
    points,
    shortened,
    span_in_words,
    time_axis,
)
from twitter_pipeline.charts.palette import AMBER, BLUE, INK, REST, RUST
from twitter_pipeline.charts.series import RunCalls
from twitter_pipeline.charts.waits import Wait, WindowUse, find_waits, find_windows, waited

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LANES = 8
"""So many windows (token and endpoint) are drawn, those of which the largest part was used."""

_FEW = 0.02
"""A lane of which less was used is only counted, as the look-up of names often is."""

_DETAILED = 40
"""In more windows than so many nobody could follow the calls: of each the sum is drawn."""

_LEFT = 52
_LANE_HEAD = 20
_LANE_HEIGHTS = (64, 52, 42)
_LIMIT_AT = 0.92
"""Of a lane's height."""

_FILL_ALPHA = 0.4
_WAIT_ALPHA = 0.55


@dataclass(frozen=True, slots=True)
class _Lane:
    env_key: str
    endpoint: str
    windows: tuple[WindowUse, ...]

    @property
    def limit(self) -> int:
        return max((window.limit for window in self.windows if window.limit), default=0)

    @property
    def most(self) -> int:
        return self.limit or max(1, *(window.moments[-1].used for window in self.windows))

    @property
    def own(self) -> int:
        return sum(window.moments[-1].own for window in self.windows)

    @property
    def share(self) -> float:
        return max(window.moments[-1].used for window in self.windows) / self.limit if self.limit else 0.0


@dataclass(frozen=True, slots=True)
class _Strip:
    """A lane and its place on the page."""

    lane: _Lane
    top: float
    height: float

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def y(self, calls: float) -> float:
        return self.bottom - self.height * _LIMIT_AT * calls / self.lane.most


def draw_calls(calls: RunCalls) -> bytes | None:
    """Draw how each token's windows were used during a run, as a PNG; None when it sent no call.

    Within each window the line rises with the calls, of this run and of whoever else uses the token, and falls when
    the window resets. The times are shaded in which the run waited for a reset.
    """
    windows = find_windows(calls)
    waits = find_waits(calls, windows)
    lanes = _lanes(windows, calls.begins_at)
    if not lanes:
        return None
    drawn, left_out = _choose(lanes)
    height = _LANE_HEIGHTS[0 if len(drawn) <= 3 else 1 if len(drawn) <= 6 else 2]
    top = HEADING + KEY_ROW + 8
    strips = [
        _Strip(lane, top + place * (_LANE_HEAD + height) + _LANE_HEAD, height) for place, lane in enumerate(drawn)
    ]
    bottom = strips[-1].bottom
    sheet = Sheet(bottom + 34 + (20 if left_out else 0))
    sheet.head("Calls against the tokens' limits", _subtitle(calls, lanes, waits))
    sheet.key_row(_key(drawn, waits), top=HEADING)
    for strip in strips:
        sheet.write(_LEFT, strip.top - _LANE_HEAD / 2 + 1, _title(strip.lane), size=SMALL_SIZE)
        sheet.write(_LEFT - 5, strip.y(strip.lane.most), compact(strip.lane.most), size=SMALL_SIZE, align="right")
        sheet.write(_LEFT - 5, strip.bottom, "0", size=SMALL_SIZE, align="right")
    axes = sheet.axes(left=_LEFT, top=top, right=AXIS_RIGHT, bottom=bottom)
    # One pair of axes for all lanes, y being the page's: a pair for each takes most of the time of drawing.
    axes.set_ylim(bottom, top)
    axes.yaxis.set_visible(False)
    time_axis(axes, calls.begins_at, calls.ends_at)
    _draw(axes, strips, waits)
    if left_out:
        sheet.write(MARGIN, bottom + 44, _others(left_out), size=SMALL_SIZE)
    return sheet.png()


def _lanes(windows: Sequence[WindowUse], begins_at: datetime) -> list[_Lane]:
    """Group the windows by token and endpoint; what ended before the run began is left out."""
    lanes: dict[tuple[str, str], list[WindowUse]] = {}
    for window in windows:
        if window.ends_at > begins_at:
            lanes.setdefault((window.env_key, window.endpoint), []).append(window)
    return [_Lane(*key, tuple(of_lane)) for key, of_lane in lanes.items() if any(w.moments[-1].own for w in of_lane)]


def _choose(lanes: Sequence[_Lane]) -> tuple[list[_Lane], list[_Lane]]:
    """Return the lanes that are drawn, in their order, and the others."""
    by_share = sorted(lanes, key=lambda lane: (-lane.share, -lane.own))
    own = _calls_by_endpoint(lanes)
    busiest = max(own, key=lambda endpoint: own[endpoint])
    # A short run uses little of any window: then those are drawn in which it did its work.
    drawn = [lane for lane in by_share if lane.share >= _FEW] or [lane for lane in by_share if lane.endpoint == busiest]
    drawn = drawn[:LANES]
    keys = {(lane.env_key, lane.endpoint) for lane in drawn}
    drawn.sort(key=lambda lane: (-own[lane.endpoint], lane.endpoint, in_order(lane.env_key)))
    return drawn, [lane for lane in lanes if (lane.env_key, lane.endpoint) not in keys]


def _calls_by_endpoint(lanes: Sequence[_Lane]) -> dict[str, int]:
    own: dict[str, int] = {}
    for lane in lanes:
        own[lane.endpoint] = own.get(lane.endpoint, 0) + lane.own
    return own


def _draw(axes: Axes, strips: Sequence[_Strip], waits: Sequence[Wait]) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    is_detailed = max(len(strip.lane.windows) for strip in strips) <= _DETAILED
    for colour, of_run in ((REST, False), (BLUE, True)):
        shapes = [
            _shape(strip, window, of_run=of_run, is_detailed=is_detailed)
            for strip in strips
            for window in strip.lane.windows
            if of_run or _has_others(window)
        ]
        width, fill = points(1.5 if is_detailed else 1), to_rgba(colour, _FILL_ALPHA)
        axes.add_collection(PolyCollection(shapes, facecolors=fill, edgecolors=colour, linewidths=width), autolim=False)
    shaded = [
        ((begin, strip.top), (begin, strip.bottom), (end, strip.bottom), (end, strip.top))
        for wait in waits
        for begin, end in [dates([wait.begins_at, wait.ends_at])]
        for strip in strips
        if strip.lane.endpoint == wait.endpoint
    ]
    axes.add_collection(PolyCollection(shaded, facecolors=AMBER, alpha=_WAIT_ALPHA, linewidths=0), autolim=False)
    left, right = axes.get_xlim()
    axes.hlines([strip.bottom for strip in strips], left, right, colors=INK, linewidths=points(1))
    limits = [strip.y(strip.lane.limit) for strip in strips if strip.lane.limit]
    axes.hlines(limits, left, right, colors=INK, linewidths=points(1.5), linestyles=(0, (4, 2)))
    refused = [
        (moment, strip.y(strip.lane.most))
        for strip in strips
        for window in strip.lane.windows
        for moment in window.refused_at
    ]
    axes.scatter(
        dates([moment for moment, _ in refused]),
        [y for _, y in refused],
        s=points(9) ** 2,
        marker="x",
        color=RUST,
        zorder=4,
    )


def _shape(strip: _Strip, window: WindowUse, *, of_run: bool, is_detailed: bool) -> list[tuple[float, float]]:
    """Return what a run's calls fill of a window, up with the calls, down at the reset; or all others' above them."""
    moments = window.moments if is_detailed else window.moments[-1:]
    known_before = max(0, moments[0].used - moments[0].calls) if is_detailed else moments[0].used
    times, own, used = [window.begins_at], [0 if is_detailed else moments[0].own], [known_before]
    for moment in moments:
        for instant in (moment.begins_at, moment.ends_at):
            times.append(max(instant, times[-1]))
        own += [own[-1], moment.own]
        used += [used[-1], moment.used]
    # Where nobody could tell windows by their lines, a gap does.
    gap = timedelta(0) if is_detailed else (window.ends_at - window.begins_at) / 10
    times.append(max(window.ends_at - gap, times[-1] - gap))
    own.append(own[-1])
    used.append(used[-1])
    x = dates(times)
    upper, lower = (own, [0] * len(own)) if of_run else (used, own)
    line = list(zip(x, map(strip.y, upper), strict=True))
    return line + list(zip(reversed(x), map(strip.y, reversed(lower)), strict=True))


def _has_others(window: WindowUse) -> bool:
    return window.moments[-1].used > window.moments[-1].own


def _key(lanes: Sequence[_Lane], waits: Sequence[Wait]) -> list[KeyEntry]:
    entries = [KeyEntry(BLUE, "calls of this run", alpha=_FILL_ALPHA)]
    if any(_has_others(window) for lane in lanes for window in lane.windows):
        entries.append(KeyEntry(REST, "other calls with the token", alpha=_FILL_ALPHA))
    entries.append(KeyEntry(INK, "limit", is_line=True))
    if waits:
        entries.append(KeyEntry(AMBER, "the run waits for a reset", alpha=_WAIT_ALPHA))
    if any(window.refused_at for lane in lanes for window in lane.windows):
        entries.append(KeyEntry(RUST, "refused (429)"))
    return entries


def _title(lane: _Lane) -> str:
    return f"{shortened(lane.env_key, 48)} · {lane.endpoint} · {_count(lane.own)}"


def _subtitle(calls: RunCalls, lanes: Sequence[_Lane], waits: Sequence[Wait]) -> str:
    took = span_in_words(calls.ends_at - calls.begins_at)
    tokens = len({lane.env_key for lane in lanes})
    told = f"{_count(sum(lane.own for lane in lanes))} with {tokens:,} token{'' if tokens == 1 else 's'} in {took}"
    told += f", of which about {span_in_words(waited(waits))} waiting" if waits else ", without a wait for a reset"
    return f"{told} (from {calls.begins_at:%Y-%m-%d %H:%M} UTC)"


def _others(lanes: Sequence[_Lane]) -> str:
    ordered = sorted(_calls_by_endpoint(lanes).items(), key=lambda each: (-each[1], each[0]))
    told = ", ".join(f"{_count(own)} to {endpoint}" for endpoint, own in ordered)
    windows = "1 lane" if len(lanes) == 1 else f"{len(lanes):,} lanes"
    return f"Not drawn: {windows} of which less was used ({told})"


def _count(calls: int) -> str:
    return f"{calls:,} call{'' if calls == 1 else 's'}"
