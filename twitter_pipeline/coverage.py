"""Sets of tweet-id intervals.

Tweet ids grow with time and timelines come newest first, so "everything between these two ids is stored" is a
statement about an interval. `Coverage` is a set of such intervals; it is what `user_state.covered` holds. Intervals
are half-open, `[lo, hi)`, like PostgreSQL's canonical `int8range`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

LOWEST_ID = 1
"""No tweet has a lower id (id 20 is the oldest known); since_id=0 is refused by the API."""

BEYOND_ALL_IDS = 2**63 - 1
"""The open upper end of "everything newer": ids are signed 64-bit numbers in PostgreSQL."""

_SNOWFLAKE_EPOCH = datetime(2010, 11, 4, 1, 42, 54, 657000, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_DAY = timedelta(days=1)

FIRST_TWEET_AT = datetime(2006, 3, 21, tzinfo=UTC)
"""The day of the first tweet (id 20): nothing is missing from before."""


def id_at(instant: datetime) -> int:
    """Return the lowest id a tweet written at `instant` can have.

    Ids are `(milliseconds since 1288834974657) << 22` plus machine and sequence bits since November 2010
    (github.com/twitter-archive/snowflake). Earlier ids are small sequence numbers and carry no time: the answer is
    `LOWEST_ID` for instants before the epoch.
    """
    return max(LOWEST_ID, ((instant - _SNOWFLAKE_EPOCH) // _MILLISECOND) << 22)


def time_at(tweet_id: int) -> datetime:
    """Return when the tweet with this id was written, to the millisecond; for ids before November 2010, the epoch.

    A bound, not a fact about an old tweet: take the time of a tweet from its `created_at`.
    """
    return _SNOWFLAKE_EPOCH + (tweet_id >> 22) * _MILLISECOND


def is_dated(tweet_id: int) -> bool:
    """Whether an id carries its time: those from before November 2010 are sequence numbers below 30 billion."""
    return tweet_id >> 22 > 30_000_000_000 >> 22


def written_at(tweet_id: int, created_at: datetime | None) -> datetime | None:
    """Return when a tweet was written, by its `created_at` unless that is impossible.

    X gives it in whole seconds of the time in the id: where they are more than a day apart, the id counts, by which
    everything else goes. An id without a time leaves what can have been.
    """
    if created_at is None or not is_dated(tweet_id):
        return past(created_at)
    by_id = time_at(tweet_id)
    return created_at if abs(created_at - by_id) <= _DAY else by_id


def past(instant: datetime | None) -> datetime | None:
    """Return an instant at which something can have happened on X, None for any other."""
    if instant is None or not FIRST_TWEET_AT - _DAY <= instant <= datetime.now(UTC) + _DAY:
        return None
    return instant


@dataclass(frozen=True, slots=True, order=True)
class IdRange:
    """The ids from `lo` up to but not including `hi`; never empty."""

    lo: int
    hi: int

    def __post_init__(self) -> None:
        if not self.lo < self.hi:
            raise ValueError(f"an id range needs lo < hi, got [{self.lo}, {self.hi})")

    def __contains__(self, tweet_id: int) -> bool:
        return self.lo <= tweet_id < self.hi

    def clipped(self, *, lo: int = LOWEST_ID, hi: int = BEYOND_ALL_IDS) -> "IdRange | None":
        """Return the part inside `[lo, hi)`, None where nothing is left."""
        low, high = max(self.lo, lo), min(self.hi, hi)
        return IdRange(low, high) if low < high else None


EVERYTHING = IdRange(LOWEST_ID, BEYOND_ALL_IDS)


@dataclass(frozen=True, slots=True)
class Coverage:
    """A set of ids as disjoint, non-adjacent, ascending ranges. Build it with `of`; it is immutable."""

    ranges: tuple[IdRange, ...] = ()

    @classmethod
    def of(cls, ranges: Iterable[IdRange]) -> Self:
        """Build the union of any ranges, in any order."""
        merged: list[IdRange] = []
        for each in sorted(ranges):
            if merged and each.lo <= merged[-1].hi:
                merged[-1] = IdRange(merged[-1].lo, max(merged[-1].hi, each.hi))
            else:
                merged.append(each)
        return cls(tuple(merged))

    def __or__(self, other: "Coverage | IdRange | None") -> "Coverage":
        if other is None:
            return self
        added = (other,) if isinstance(other, IdRange) else other.ranges
        return Coverage.of((*self.ranges, *added))

    def __sub__(self, other: "Coverage") -> "Coverage":
        left: list[IdRange] = []
        for each in self.ranges:
            left.extend(other.gaps(each))
        return Coverage(tuple(left))

    def __contains__(self, tweet_id: int) -> bool:
        return self.range_with(tweet_id) is not None

    def __iter__(self) -> Iterator[IdRange]:
        return iter(self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    @property
    def top(self) -> int | None:
        """The upper end of the highest range, None when empty."""
        return self.ranges[-1].hi if self.ranges else None

    def range_with(self, tweet_id: int) -> IdRange | None:
        """Return the range that holds this id."""
        return next((each for each in self.ranges if tweet_id in each), None)

    def gaps(self, within: IdRange) -> tuple[IdRange, ...]:
        """Return the ranges inside `within` that are not covered, ascending."""
        gaps: list[IdRange] = []
        lo = within.lo
        for each in self.ranges:
            if each.hi <= lo:
                continue
            if each.lo >= within.hi:
                break
            if each.lo > lo:
                gaps.append(IdRange(lo, each.lo))
            lo = each.hi
        if lo < within.hi:
            gaps.append(IdRange(lo, within.hi))
        return tuple(gaps)
