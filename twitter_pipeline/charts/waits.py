"""What the calls of a run tell: how its tokens' windows were used up, and when it had to wait.

The database keeps how long accounts waited, not from when to when. It follows from the calls: a run that is stopped by
the limits sends nothing to an endpoint while every token's window there is used up, until the first of them resets.
Not seen are waits that leave calls to others (a share below 1), a last one in which the run was cancelled, and those
shorter than the times that calls are counted in.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pandas' stubs leave the types of a row's values open.

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from twitter_pipeline.charts.series import RunCalls

if TYPE_CHECKING:
    from pandas import DataFrame


class Moment(NamedTuple):
    """A short time in a window: how much was used when it ended, and of that by the run; calls sent in it."""

    begins_at: datetime
    ends_at: datetime
    used: int
    own: int
    calls: int
    own_begins_at: datetime | None
    own_ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class WindowUse:
    """One window of a token at an endpoint, until it was reset or the run ended."""

    env_key: str
    endpoint: str
    limit: int | None
    moments: tuple[Moment, ...]
    ends_at: datetime
    used_up_at: datetime | None
    refused_at: tuple[datetime, ...]
    """When calls were answered 429."""

    @property
    def begins_at(self) -> datetime:
        """When its first call was sent that we know of."""
        return self.moments[0].begins_at


@dataclass(frozen=True, slots=True)
class Wait:
    """From when to when a run waited for an endpoint."""

    endpoint: str
    begins_at: datetime
    ends_at: datetime

    @property
    def span(self) -> timedelta:
        """How long it was."""
        return self.ends_at - self.begins_at


class _Row(NamedTuple):
    """A row of RunCalls.frame; what is missing is None."""

    env_key: str
    endpoint: str
    first_at: datetime
    last_at: datetime
    resets_at: datetime | None
    limit: int | None
    used: int | None
    calls: int
    own: int
    own_first_at: datetime | None
    own_last_at: datetime | None
    used_up_at: datetime | None
    refused: int


class _Busy(NamedTuple):
    """A time in which the run had calls to an endpoint under way."""

    begins_at: datetime
    ends_at: datetime
    endpoint: str


class _Lane:
    """The windows of a token at an endpoint, oldest first."""

    def __init__(self, windows: Sequence[WindowUse]) -> None:
        self._windows = windows
        self._begins = [window.begins_at for window in windows]

    def closed(self, begins_at: datetime, ends_at: datetime) -> tuple[datetime, datetime] | None:
        """Return from when to when no call was left in a silence; None when there was one, or nothing is known."""
        place = bisect_right(self._begins, begins_at) - 1
        if place < 0:
            return None
        window = self._windows[place]
        if window.used_up_at is None or window.used_up_at > ends_at:
            return None
        return window.used_up_at, window.ends_at


def find_windows(calls: RunCalls) -> list[WindowUse]:
    """Return the windows that the calls tell of, by token and endpoint, the oldest of each first."""
    lanes: dict[tuple[str, str], list[_Row]] = {}
    for row in _rows(calls.frame):
        lanes.setdefault((row.env_key, row.endpoint), []).append(row)
    return [window for lane in lanes.values() for window in _windows_of_lane(lane, calls.ends_at)]


def find_waits(calls: RunCalls, windows: Sequence[WindowUse]) -> list[Wait]:
    """Return when the run waited, by endpoint, the oldest first; `windows` are those that its calls tell of."""
    own = [
        _Busy(moment.own_begins_at, moment.own_ends_at, window.endpoint)
        for window in windows
        for moment in window.moments
        if moment.own_begins_at and moment.own_ends_at
    ]
    return [
        wait
        for endpoint in sorted({busy.endpoint for busy in own})
        for wait in _waits_at(endpoint, calls, sorted(own), [each for each in windows if each.endpoint == endpoint])
    ]


def waited(waits: Iterable[Wait]) -> timedelta:
    """Return for how long a run waited for one endpoint at least."""
    total, reached = timedelta(0), None
    for wait in sorted(waits, key=lambda each: each.begins_at):
        begins_at = wait.begins_at if reached is None else max(wait.begins_at, reached)
        total += max(timedelta(0), wait.ends_at - begins_at)
        reached = wait.ends_at if reached is None else max(reached, wait.ends_at)
    return total


def _rows(frame: DataFrame) -> list[_Row]:
    columns = frame[list(_Row._fields)].astype(object)
    return [_Row(*row) for row in columns.where(columns.notna(), None).itertuples(index=False)]


def _windows_of_lane(rows: Sequence[_Row], run_ends_at: datetime) -> Iterator[WindowUse]:
    """Group the rows of one token at one endpoint by window; an answer without headers counts in the one then open.

    The reset is told by X's clock, which may differ: a window ends there, but not before its last answer, and not after
    the first call of the next.
    """
    resets_at = next((row.resets_at for row in rows if row.resets_at is not None), run_ends_at)
    groups: dict[datetime, list[_Row]] = {}
    for row in rows:
        resets_at = row.resets_at or resets_at
        groups.setdefault(resets_at, []).append(row)
    ordered = sorted(groups.items())
    nexts = [group[0].first_at for _, group in ordered[1:]] + [run_ends_at]
    for (reset, group), next_at in zip(ordered, nexts, strict=True):
        last_at = max(row.last_at for row in group)
        yield _window(group, min(max(reset, last_at), next_at, run_ends_at))


def _window(rows: Sequence[_Row], ends_at: datetime) -> WindowUse:
    limit = max((row.limit for row in rows if row.limit is not None), default=None)
    moments: list[Moment] = []
    used = own = calls = 0
    used_up_at = min((row.used_up_at for row in rows if row.used_up_at is not None), default=None)
    for row in rows:
        calls, own = calls + row.calls, own + row.own
        # A call whose answer told nothing may have been counted all the same: the token pool counts it, too.
        used = max(used, row.used or 0, calls if limit is None else min(calls, limit))
        moments.append(
            Moment(row.first_at, row.last_at, used, min(own, used), row.calls, row.own_first_at, row.own_last_at)
        )
        if used_up_at is None and limit is not None and used >= limit:
            used_up_at = row.last_at
    refused_at = tuple(row.first_at for row in rows if row.refused)
    return WindowUse(rows[0].env_key, rows[0].endpoint, limit, tuple(moments), ends_at, used_up_at, refused_at)


def _waits_at(endpoint: str, calls: RunCalls, own: Sequence[_Busy], windows: Sequence[WindowUse]) -> Iterator[Wait]:
    tokens = {window.env_key for window in windows if window.moments[-1].own}
    lanes = [_Lane([window for window in windows if window.env_key == token]) for token in tokens]
    for begins_at, ends_at in _silences(endpoint, calls, own):
        closed = [lane.closed(begins_at, ends_at) for lane in lanes]
        spans = [span for span in closed if span is not None]
        if len(spans) == len(closed):
            begin = max(begins_at, *(since for since, _ in spans))
            end = min(ends_at, *(until for _, until in spans))
            if begin < end:
                yield Wait(endpoint, begin, end)


def _silences(endpoint: str, calls: RunCalls, own: Sequence[_Busy]) -> Iterator[tuple[datetime, datetime]]:
    """Give the times in which a run had no call to an endpoint under way and then sent one, or still waits to."""
    here = [(busy.begins_at, busy.ends_at) for busy in own if busy.endpoint == endpoint]
    before_it = [busy.ends_at for busy in own if busy.ends_at <= here[0][0]]
    if calls.waiting_for == endpoint:
        here.append((calls.ends_at, calls.ends_at))
    reached = max(before_it, default=calls.begins_at)
    for begins_at, ends_at in here:
        if begins_at > reached:
            yield reached, begins_at
        reached = max(reached, ends_at)
