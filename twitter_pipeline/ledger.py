"""The ledger of an account: what is kept of it, and each hole with its time, its probable size, its cause and its cure.

All of it follows from what is stored. Bounds in time come from ids, sizes are estimates, and a cause is what the latest
run that asked for these ids has met.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from twitter_pipeline.account_status import AccountStatus
from twitter_pipeline.coverage import (
    EVERYTHING,
    FIRST_TWEET_AT,
    LOWEST_ID,
    Coverage,
    IdRange,
    id_at,
    is_dated,
    time_at,
)
from twitter_pipeline.months import Months, month_of, read_month
from twitter_pipeline.planning import floor_of_new
from twitter_pipeline.walks.evidence import CLEARLY_WITHIN_REACH
from twitter_pipeline.words import DoubtKind, HoleCause

NEAREST = 50
"""So many stored tweets on each side of a gap tell how dense they would lie in it."""

PRIOR_HOURS = 24.0
"""To what is stored on a side of a gap so many hours at the account's own average are added, so that a few tweets that
were written close together do not speak for a month."""

_IN_WORDS = {
    HoleCause.NOT_ASKED: "not asked for",
    HoleCause.BEYOND_REACH: "beyond the newest 3,200",
    HoleCause.CAPPED: "no token could go on",
    HoleCause.INTERRUPTED: "the run was stopped or killed",
    HoleCause.PROTECTED: "could not be read then",
    HoleCause.FAULT: "the API or the database failed",
    HoleCause.BUDGET: "a budget was used up",
    HoleCause.UNCONFIRMED: "X showed an end only once so far",
    HoleCause.UNREADABLE: "X sent an item that cannot be read",
    None: "asked for, X shows no more",
}

_LAST_UNDATED_AT = time_at(30_000_000_000)
_MONTHS = re.compile(r"months:([0-9]{4}-[0-9]{2})\.\.([0-9]{4}-[0-9]{2})( by [a-z]+)?")
_HOUR = timedelta(hours=1)
_SHORTEST_H = 1.0
"""Without an average, a side that is shorter tells nothing."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Ids in a row, and from when until when their tweets were written; `is_first` begins with the account itself.

    The times are bounds: ids from before November 2010 carry none, and theirs are as wide as can be.
    """

    ids: IdRange
    since: datetime
    until: datetime
    is_first: bool = False

    @property
    def hours(self) -> float:
        """How long it is."""
        return (self.until - self.since) / _HOUR

    @property
    def months(self) -> Months:
        """The months in which its tweets were written."""
        last = self.ids.hi - 1
        return Months(month_of(self.since), max(month_of(self.since), month_of(_time_of(last, self.until))))


@dataclass(frozen=True, slots=True)
class Gap:
    """Ids in a row that are not known to be whole, and the whole stretches around them.

    `below` is None for the gap at the account's beginning. A gap `is_interior` when the timeline was read above it and
    below it: such a one was left open, whereas below the lowest nobody may have looked yet.
    """

    at: Stretch
    above: Stretch
    below: Stretch | None
    is_interior: bool


@dataclass(frozen=True, slots=True)
class Side:
    """The stored tweets next to a gap on one side, at most NEAREST.

    `furthest_at` is when the last of them was written, `nearest_read_at` when the first of them was read.
    """

    tweets: int = 0
    furthest_at: datetime | None = None
    nearest_read_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is stored in a gap and around it.

    `inside` counts tweets that are stored in the gap all the same, such as those of an import; `stored_above` those
    above it, up to the reach of a timeline. `read_by` are the runs that read the tweet at its upper end.
    """

    inside: int = 0
    stored_above: int = 0
    above: Side = Side()
    below: Side = Side()
    read_by: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run was asked for an account, until when it asked, and why something is missing of it; None if nothing."""

    fetch_run_id: int
    fetch_mode: str
    until: datetime
    cause: HoleCause | None


@dataclass(frozen=True, slots=True)
class Hole:
    """A gap, or the part of one that has a cause of its own.

    `size` is how many tweets are probably missing, an estimate; None where there is nothing to estimate it by. A
    `cause` of None means that all was asked for, and X shows no more although it counts more. `fill` is the command
    that fills it, None while nobody knows the account's name. `known_since` is since when the tweets around it have
    been stored, None where there are none.
    """

    at: Stretch
    cause: HoleCause | None
    size: int | None
    fill: str | None
    is_interior: bool
    known_since: datetime | None

    @property
    def why(self) -> str:
        """The cause as a person reads it."""
        return _IN_WORDS[self.cause]

    @property
    def partitions(self) -> tuple[str, ...]:
        """The partitions of the asset of months that fill it, oldest first."""
        return tuple(f"{month.first:%Y-%m}" for month in self.at.months)

    @property
    def span(self) -> str:
        """The first and the last of the partitions, as the UI takes them."""
        first, last = self.at.months.first, self.at.months.last
        return f"{first:%Y-%m}" if first == last else f"[{first:%Y-%m}...{last:%Y-%m}]"


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is kept of an account and what is missing, newest first.

    `whole` are the stretches of which all is stored that the timeline serves, `searched` those of which all is stored
    that the archive search shows: retweets may be missing there. What was written since `asked_until` has not been
    asked for yet, which is the watch's work and no hole; None before anything was.
    """

    account: AccountStatus
    whole: tuple[Stretch, ...]
    searched: tuple[Stretch, ...]
    holes: tuple[Hole, ...]
    asked_until: datetime | None

    @property
    def missing(self) -> int | None:
        """How many tweets are probably missing, None where that is not known of some hole."""
        sizes = [hole.size for hole in self.holes if hole.size is not None]
        return sum(sizes) if len(sizes) == len(self.holes) else None


def find_gaps(account: AccountStatus) -> tuple[Gap, ...]:
    """Return what is not whole between the account's beginning and the newest id that is, newest first."""
    life, kept = _life(account), _kept(account)
    return () if life is None else tuple(_gap(account, life, ids) for ids in reversed(kept.gaps(life)))


def write_ledger(
    account: AccountStatus, gaps: Sequence[tuple[Gap, Surroundings]], asked: Sequence[Asked] = ()
) -> Ledger:
    """Write an account's ledger, given its gaps and what is stored around each, and what runs asked for.

    The gaps are newest first, as `find_gaps` gives them, and the latest run is first.
    """
    life = _life(account)
    return Ledger(
        account,
        whole=_stretches(account, life, account.covered),
        searched=_stretches(account, life, account.searched - account.covered),
        holes=tuple(_holes(account, gaps, asked)),
        asked_until=None if life is None else _stretch(account, life).until,
    )


def _kept(account: AccountStatus) -> Coverage:
    return account.covered | account.searched


def _life(account: AccountStatus) -> IdRange | None:
    """Return the ids from the account's beginning to the newest that is whole; None before anything is."""
    top, first = _kept(account).top, _first_id(account)
    return None if top is None or top <= first else IdRange(first, top)


def _first_id(account: AccountStatus) -> int:
    """Return the lowest id that a tweet of the account can have."""
    return LOWEST_ID if account.created_at is None else id_at(account.created_at)


def _gap(account: AccountStatus, life: IdRange, ids: IdRange) -> Gap:
    kept, covered = _kept(account), account.covered
    above = kept.range_with(ids.hi) or ids
    below = None if ids.lo == life.lo else kept.range_with(ids.lo - 1)
    return Gap(
        at=_stretch(account, ids),
        above=_stretch(account, above),
        below=None if below is None else _stretch(account, below.clipped(lo=life.lo) or below),
        is_interior=below is not None and bool(covered) and covered.ranges[0].lo < ids.lo < covered.ranges[-1].lo,
    )


def _stretches(account: AccountStatus, life: IdRange | None, coverage: Coverage) -> tuple[Stretch, ...]:
    if life is None:
        return ()
    inside = [each.clipped(lo=life.lo, hi=life.hi) for each in reversed(coverage.ranges)]
    return tuple(_stretch(account, ids) for ids in inside if ids is not None)


def _stretch(account: AccountStatus, ids: IdRange) -> Stretch:
    until = _time_of(ids.hi, _LAST_UNDATED_AT)
    since = _time_of(ids.lo, max(account.created_at or FIRST_TWEET_AT, FIRST_TWEET_AT))
    return Stretch(ids, min(since, until), until, is_first=ids.lo <= _first_id(account))


def _time_of(tweet_id: int, otherwise: datetime) -> datetime:
    """Return when a tweet of this id was written, or what is known otherwise of one whose id does not tell."""
    return time_at(tweet_id) if is_dated(tweet_id) else otherwise


def _holes(account: AccountStatus, gaps: Sequence[tuple[Gap, Surroundings]], asked: Sequence[Asked]) -> Iterator[Hole]:
    missing_above = 0
    for (gap, around), size in zip(gaps, _sizes(account, gaps), strict=True):
        missing_above += size or 0
        within_reach = around.stored_above + missing_above < CLEARLY_WITHIN_REACH
        reads = [each for each in (around.above.nearest_read_at, around.below.nearest_read_at) if each is not None]
        pieces = _pieces(account, gap, around, asked)
        for (at, cause), share in zip(pieces, _shares(size, [at.hours for at, _ in pieces]), strict=True):
            by_timeline = within_reach and cause is not HoleCause.BEYOND_REACH
            yield Hole(
                at,
                cause,
                share,
                fill=_command(account.username, at, by_timeline=by_timeline),
                is_interior=gap.is_interior,
                known_since=max(reads, default=None),
            )


def _command(username: str | None, at: Stretch, *, by_timeline: bool) -> str | None:
    if username is None:
        return None
    if by_timeline:
        return f"twitter-pipeline fetch @{username}"
    return f"twitter-pipeline backfill {username} --from {at.months.first:%Y-%m} --to {at.months.last:%Y-%m}"


def _pieces(
    account: AccountStatus, gap: Gap, around: Surroundings, asked: Sequence[Asked]
) -> list[tuple[Stretch, HoleCause | None]]:
    """Cut a gap by cause, newest first: each of its ids has the cause of the latest run that asked for it.

    Where a response left a doubt, that is the cause. A timeline cannot be asked for what lies beyond its reach; a
    backfill can, by the archive search.
    """
    left = Coverage((gap.at.ids,))
    found: list[tuple[IdRange, HoleCause | None]] = []
    for doubt in account.doubts:
        cause = HoleCause.UNREADABLE if doubt.kind is DoubtKind.UNREADABLE else HoleCause.UNCONFIRMED
        doubted = _common(left, Coverage((doubt.ids,))) if doubt.is_open else Coverage()
        found.extend((part, cause) for part in doubted)
        left -= doubted
    for each in asked:
        ids = _asked_for(account, gap, around, each)
        if ids is None:
            continue
        open_to_it = left if _months_of(each.fetch_mode) else left - account.unreachable
        claimed = _common(open_to_it, Coverage((ids,)))
        found.extend((part, each.cause) for part in claimed)
        left -= claimed
    found.extend((part, HoleCause.BEYOND_REACH) for part in _common(left, account.unreachable))
    found.extend((part, HoleCause.NOT_ASKED) for part in left - account.unreachable)
    return [(_stretch(account, ids), cause) for ids, cause in _joined(found)]


def _asked_for(account: AccountStatus, gap: Gap, around: Surroundings, asked: Asked) -> IdRange | None:
    """Return which ids a run asked for, as far as that can be told; None for none of the gap.

    What `limit:N`, and `new` of an account that is not tracked, reach down to depends on what was stored then. But the
    run that read the tweet right above a gap was on its way down, and was to go on if something is missing of it.
    """
    until = id_at(asked.until)
    if asked.fetch_mode == "full":
        return EVERYTHING.clipped(hi=until)
    if (months := _months_of(asked.fetch_mode)) is not None:
        return months.ids.clipped(hi=until)
    if asked.fetch_mode == "new" and account.tracked_since is not None:
        floor = floor_of_new(account.covered, id_at(account.tracked_since)) or LOWEST_ID
        return EVERYTHING.clipped(lo=floor, hi=until)
    return gap.at.ids if asked.cause is not None and asked.fetch_run_id in around.read_by else None


def _months_of(fetch_mode: str) -> Months | None:
    found = _MONTHS.fullmatch(fetch_mode)
    return None if found is None else Months(read_month(found[1]), read_month(found[2]))


def _common(one: Coverage, other: Coverage) -> Coverage:
    return one - (one - other)


def _joined(pieces: Sequence[tuple[IdRange, HoleCause | None]]) -> list[tuple[IdRange, HoleCause | None]]:
    """Put pieces in order, newest first, those of the same cause that touch as one."""
    joined: list[tuple[IdRange, HoleCause | None]] = []
    for ids, cause in sorted(pieces, key=lambda piece: piece[0], reverse=True):
        if joined and joined[-1] == (joined[-1][0], cause) and joined[-1][0].lo == ids.hi:
            joined[-1] = (IdRange(ids.lo, joined[-1][0].hi), cause)
        else:
            joined.append((ids, cause))
    return joined


def _sizes(account: AccountStatus, gaps: Sequence[tuple[Gap, Surroundings]]) -> list[int | None]:
    """Estimate how many tweets are missing in each gap.

    By how dense they lie around it; at the account's beginning X's count tells: it less what is kept and less the other
    gaps. No gap can lack more than X counts and is not kept, but for one that is younger than the count.
    """
    counted_at = account.profile_read_at
    lacking = None if account.tweet_count is None else max(0, account.tweet_count - account.kept_when_counted)
    sizes: list[int | None] = []
    for gap, around in gaps:
        was_counted = lacking is not None and counted_at is not None and gap.at.since < counted_at
        if gap.below is None and was_counted:
            size = lacking
        else:
            size = _size_by_density(account, gap, around)
            size = min(size, lacking or 0) if was_counted and size is not None else size
        sizes.append(size)
        if was_counted and lacking is not None:
            lacking = max(0, lacking - (size or 0))
    return sizes


def _size_by_density(account: AccountStatus, gap: Gap, around: Surroundings) -> int | None:
    """Estimate that each half of a gap is as dense as the side that it lies on."""
    sides = [(around.above.tweets, _seen_hours(gap.at.until, around.above, gap.above.until))]
    if gap.below is not None:
        sides.append((around.below.tweets, _seen_hours(gap.at.since, around.below, gap.below.since)))
    average = _average_per_hour(account)
    prior_tweets, prior_hours = (0.0, 0.0) if average is None else (average * PRIOR_HOURS, PRIOR_HOURS)
    rates = [
        (tweets + prior_tweets) / (hours + prior_hours) for tweets, hours in sides if hours + prior_hours >= _SHORTEST_H
    ]
    return max(0, round(sum(rates) / len(rates) * gap.at.hours) - around.inside) if rates else None


def _seen_hours(edge: datetime, side: Side, end: datetime) -> float:
    """Return over how many hours the tweets on one side of a gap are spread: to the furthest, or all of the stretch."""
    furthest = side.furthest_at if side.tweets >= NEAREST and side.furthest_at is not None else end
    return abs(furthest - edge) / _HOUR


def _average_per_hour(account: AccountStatus) -> float | None:
    """Return how many tweets an hour the account has written by X's count, else by what the watch has learned."""
    if account.tweet_count is None or account.created_at is None or account.profile_read_at is None:
        return account.tweets_per_hour
    hours = (account.profile_read_at - account.created_at) / _HOUR
    return account.tweet_count / hours if hours >= 1 else account.tweets_per_hour


def _shares(size: int | None, hours: Sequence[float]) -> list[int | None]:
    """Share a gap's size out among its pieces by their length, so that they add up to it."""
    if size is None:
        return [None] * len(hours)
    total = sum(hours)
    shares: list[int | None] = []
    passed, given = 0.0, 0
    for position, each in enumerate(hours, start=1):
        passed += each
        upto = size if position == len(hours) else round(size * passed / total) if total > 0 else 0
        shares.append(upto - given)
        given = upto
    return shares
