"""Sets of tweet-id intervals, and what one page of a timeline proves.

Tweet ids grow with time and timelines come newest first, so "everything between these two ids is stored" is a
statement about an interval. `Coverage` is a set of such intervals; it is what `user_state.covered` holds. Intervals
are half-open, `[lo, hi)`, like PostgreSQL's canonical `int8range`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

LOWEST_ID = 1
"""No tweet has a lower id (id 20 is the oldest known); since_id=0 is refused by the API."""

BEYOND_ALL_IDS = 2**63 - 1
"""The open upper end of "everything newer": ids are signed 64-bit numbers in PostgreSQL."""

_SNOWFLAKE_EPOCH = datetime(2010, 11, 4, 1, 42, 54, 657000, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


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


@dataclass(frozen=True, slots=True)
class WalkEnd:
    """What is known of an account when a walk ended, that is when a page came without a next_token.

    `stored_from_here` counts the account's stored tweets from the lowest id read so far upwards, this page included.
    A walk goes from the top down, so there is no hole above that it could have filled, and the count tells how much of
    the endpoint's reach is used up. `tweet_count` is the API's own count, None when unknown, and
    `stored_when_counted` are those of the stored tweets that were written when the API counted. `empty_before` counts
    how often the same range was asked for already and came back empty. `reach_known` is false where it is not known how
    many tweets lie above that are not stored: the end may then be that of the timeline's reach.
    """

    stored_from_here: int
    stored_when_counted: int
    tweet_count: int | None
    empty_before: int = 0
    reach_known: bool = True


@dataclass(frozen=True, slots=True)
class PageVerdict:
    """What a page proves, what it shows to be out of reach, and whether to ask once more.

    `proved`: every tweet the API serves there is on the pages read. `unreachable`: the timeline ends above it.
    `ask_again`: an empty answer that would close a hole. Replicas sometimes answer empty, so it is asked for again
    together with tweets that are known to lie below, which an honest answer shows.
    """

    proved: IdRange | None = None
    unreachable: IdRange | None = None
    ask_again: bool = False


EMPTY_ANSWERS_BELIEVED = 4
"""So many in a row are believed where nothing else speaks for it: no tweet that is known to lie below came along (it
may have been deleted, or lie out of reach), and no count of X's agrees."""

REACH = 3200
"""A timeline serves the newest 3,200 tweets, whatever since_id says (docs.x.com, timelines: integrate)."""

CLEARLY_WITHIN_REACH = REACH * 9 // 10
"""Below this many tweets an end is an end. Deleted, withheld and orphaned tweets use up places of the 3,200, so a
timeline that was cut off comes out short of it; a tenth is our margin."""


def judge_page(
    *,
    hole: IdRange,
    upper: int,
    ids: Sequence[int],
    has_next: bool,
    settled_below: int,
    end: WalkEnd | None = None,
) -> PageVerdict:
    """Tell what one page proves about the hole that is being walked down.

    `upper` is where this page was asked from: the top of the hole, then each page's lowest id. `ids` may be in any
    order and may lie outside; those below the hole are witnesses that the answer is not empty by mistake.
    `settled_below` is the id of now minus the settling time: above it tweets may still become visible, so nothing is
    proved there. `end` is needed when `has_next` is false.
    """
    inside = [each for each in ids if hole.lo <= each < upper]
    if any(each < hole.lo for each in ids):
        # The answer goes on below the hole, so it has shown all of it; an empty answer never raises the top.
        is_empty_head = not inside and upper == BEYOND_ALL_IDS
        newest = max(inside, default=upper)
        return PageVerdict(proved=None if is_empty_head else _settled(hole.lo, upper, newest, settled_below))
    if has_next:
        return PageVerdict(proved=_settled(min(inside), upper, max(inside), settled_below) if inside else None)
    if end is None:
        raise ValueError("the last page of a walk is judged with what is known of its end")
    if inside:
        return _judge_last_page(hole, upper, min(inside), max(inside), settled_below, end)
    return _judge_empty_end(hole, upper, settled_below, end)


def _settled(lo: int, upper: int, newest: int, settled_below: int) -> IdRange | None:
    # At the open top nothing above the newest tweet is proved; inside a hole everything up to its bound is.
    top = newest + 1 if upper == BEYOND_ALL_IDS else upper
    hi = min(top, settled_below)
    return IdRange(lo, hi) if lo < hi else None


def _judge_last_page(
    hole: IdRange, upper: int, lowest: int, newest: int, settled_below: int, end: WalkEnd
) -> PageVerdict:
    read = _settled(lowest, upper, newest, settled_below)
    if end.stored_from_here >= CLEARLY_WITHIN_REACH:
        return PageVerdict(proved=read, unreachable=IdRange(hole.lo, lowest) if hole.lo < lowest else None)
    if not end.reach_known or (hole.lo == LOWEST_ID and not _count_agrees(end)):
        # The rest stays a hole: the next request asks below this page, and finds more or an empty answer twice.
        return PageVerdict(proved=read)
    return PageVerdict(proved=_settled(hole.lo, upper, newest, settled_below))


def _judge_empty_end(hole: IdRange, upper: int, settled_below: int, end: WalkEnd) -> PageVerdict:
    if upper == BEYOND_ALL_IDS:
        return PageVerdict()  # an empty answer never raises the top
    rest = IdRange(hole.lo, upper)
    beyond_reach = end.stored_from_here >= CLEARLY_WITHIN_REACH
    by_count = hole.lo == LOWEST_ID and not beyond_reach
    if end.empty_before + 1 < (2 if by_count else EMPTY_ANSWERS_BELIEVED):
        return PageVerdict(ask_again=True)
    if beyond_reach:
        return PageVerdict(unreachable=rest)
    if not end.reach_known or (by_count and not _count_agrees(end)):
        return PageVerdict()  # X counts more than it gave: the rest stays a hole, and the next run asks again
    return PageVerdict(proved=rest.clipped(hi=settled_below))


def _count_agrees(end: WalkEnd) -> bool:
    return end.tweet_count is not None and end.stored_when_counted >= end.tweet_count
