"""What a request would read, send and cost: estimated from X's counts and from what is stored, without any I/O.

Each account is cut into parts: what was written since the last look, and its holes, as the ledger has them. A walk over
the parts, in the order of the timeline, tells how many pages it takes. Every figure comes twice: what is likely, and
the most that it can be, short of an account that has written over twice as much as it is known for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from math import sqrt

from twitter_pipeline.account_status import AccountStatus
from twitter_pipeline.archive import missing_of, plan_searches
from twitter_pipeline.coverage import (
    BEYOND_ALL_IDS,
    EVERYTHING,
    FIRST_TWEET_AT,
    LOWEST_ID,
    Coverage,
    IdRange,
    id_at,
    is_dated,
    time_at,
)
from twitter_pipeline.ledger import Ledger
from twitter_pipeline.months import Months
from twitter_pipeline.planning import floor_of_new, page_size_for
from twitter_pipeline.polling.prior import BURST
from twitter_pipeline.prices import Prices
from twitter_pipeline.progress import WINDOW, Budget, expected_end
from twitter_pipeline.request import FetchMode, FetchRequest
from twitter_pipeline.store.windows import WindowState
from twitter_pipeline.walks.evidence import REACH
from twitter_pipeline.words import HoleCause

USUAL_CALL_S = 0.3
"""How long a call takes where none was sent yet that could tell."""

CONFIRMING_CALLS = 1
"""The end of a search is requested again before the run finishes, unless something else confirms it."""

SHORTEST_SPAN = timedelta(hours=1)
"""Tweets that span less than this tell no rate."""

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Part:
    """Ids in a row that are not known to be whole, and how many tweets of them are missing.

    `since` and `until` are when they were written. The newest part `is_head`: what was written since the last look, or
    the whole of an account that was never looked at. `is_bottom` is the part at the account's beginning. What is
    `out_of_reach` no timeline serves, and of what is `in_doubt` X has shown an end already. `stored` tweets lie in it
    all the same, of which `free` were read on this UTC day; `stored_above` lie above it, up to the reach of a timeline.
    `witnesses` are the stored tweets right below it that may be read again, and billed, to confirm an end.
    """

    ids: IdRange
    since: datetime
    until: datetime
    likely: int
    most: int
    is_head: bool = False
    is_bottom: bool = False
    out_of_reach: bool = False
    in_doubt: bool = False
    stored: int = 0
    free: int = 0
    stored_above: int = 0
    witnesses: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done: tweets that are missing and will be stored, posts that will be billed for it, and calls."""

    tweets: int = 0
    posts: int = 0
    calls: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.tweets + other.tweets, self.posts + other.posts, self.calls + other.calls)

    def at_least(self, other: "Work") -> "Work":
        """Return the larger of each figure."""
        return Work(max(self.tweets, other.tweets), max(self.posts, other.posts), max(self.calls, other.calls))


@dataclass(frozen=True, slots=True)
class AccountEstimate:
    """What one account of a request takes; calls that accounts share are not among its own.

    `beyond_reach` tweets are probably missing besides, which the request cannot bring. `seconds` is how long it would
    take by itself, None when no token can be used.
    """

    request: FetchRequest
    tweet_count: int | None
    stored: int
    likely: Work
    most: Work
    beyond_reach: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LookUps:
    """Names that were looked up at X, with so many calls, and the profiles that are billed for it."""

    names: int = 0
    calls: int = 0
    users: int = 0

    def cost_usd(self, prices: Prices) -> Decimal:
        """What X bills for it."""
        return self.users * prices.user_usd


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be sent to an endpoint: the budgets of the usable tokens, and calls a second without waiting for any."""

    budgets: tuple[Budget, ...]
    call_s: float
    side_by_side: int
    spacing_s: float | None = None

    def seconds(self, calls: int, now: datetime, *, in_a_row: int = 0) -> float | None:
        """Return how long calls take, of which so many follow one after the other; None without a usable token."""
        if not calls:
            return 0.0
        if not self.budgets:
            return None
        per_s = self.side_by_side / self.call_s
        if self.spacing_s is not None:
            per_s = min(per_s, len(self.budgets) / self.spacing_s)
        whole = (expected_end(calls, per_s, self.budgets, now) - now).total_seconds()
        return max(whole, in_a_row * self.call_s)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request takes, account by account and in all.

    `absent` are names that cannot be had, `failed` those whose look-up failed, each with the reason. `shared` are calls
    that accounts share: the searches of a backfill, and look-ups that the run will have to make again. `profiles` are
    read, and billed, to learn who has news, or come along with tweets. `looked_up` is what the estimate itself has
    spent.
    `seconds` is None when no token can be used.
    """

    accounts: tuple[AccountEstimate, ...]
    prices: Prices
    at: datetime
    absent: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    shared: int = 0
    shared_most: int = 0
    profiles: int = 0
    looked_up: LookUps = field(default_factory=LookUps)
    seconds: float | None = 0.0

    @property
    def likely(self) -> Work:
        """The likely figures of all accounts together."""
        return sum((each.likely for each in self.accounts), Work(calls=self.shared))

    @property
    def most(self) -> Work:
        """The most that all accounts together can take."""
        return sum((each.most for each in self.accounts), Work(calls=self.shared_most))

    @property
    def by_cost(self) -> list[AccountEstimate]:
        """The accounts, the most expensive first."""
        return sorted(self.accounts, key=lambda each: (-each.likely.posts, -each.most.posts, each.request.username))

    @property
    def cost_usd(self) -> Decimal:
        """What X will probably bill."""
        return self.cost_of(self.likely) + self.profiles * self.prices.user_usd

    @property
    def most_usd(self) -> Decimal:
        """The most that X can bill."""
        return self.cost_of(self.most) + self.profiles * self.prices.user_usd

    def cost_of(self, work: Work) -> Decimal:
        """Return what X bills for the posts of some work."""
        return work.posts * self.prices.post_usd


# Where tweets are missing, and how many.


def parts_of(ledger: Ledger, now: datetime) -> list[Part]:
    """Return the parts of an account, newest first, without what is stored in and around them."""
    account = ledger.account
    top = (account.covered | account.searched).top
    if ledger.asked_until is None or top is None:
        return [_whole_life(account, now)]
    holes = _joined([_of_hole(account, ledger, number) for number in range(len(ledger.holes))])
    news = _news(ledger, holes, now)
    if holes and holes[-1].is_bottom and not holes[-1].out_of_reach and holes[-1].likely:
        # X's count holds what was written since the last look: what is news is not missing at the beginning.
        rest = max(0, holes[-1].likely - news.counted)
        holes[-1] = replace(holes[-1], likely=rest)
    seen_at = last_seen_at(ledger)
    head = Part(IdRange(top, BEYOND_ALL_IDS), min(seen_at, now), now, news.likely, news.most, is_head=True)
    lowest = (account.covered | account.searched).ranges[0].lo
    if lowest > LOWEST_ID and not (holes and holes[-1].is_bottom):
        # From before the account was made: a timeline is asked all the same, and has nothing.
        birth = account.created_at or FIRST_TWEET_AT
        holes.append(Part(IdRange(LOWEST_ID, lowest), birth, birth, 0, 0, is_bottom=True))
    return [head, *holes]


def last_seen_at(ledger: Ledger) -> datetime:
    """Return up to when it is known what an account has written: the last look, or the newest that is stored."""
    looks = [each for each in (ledger.asked_until, ledger.account.last_polled_at) if each is not None]
    return max(looks, default=FIRST_TWEET_AT)


@dataclass(frozen=True, slots=True)
class _News:
    """Tweets since the last look; `counted` are those of the likely ones that X's count has in it."""

    likely: int
    most: int
    counted: int


def _whole_life(account: AccountStatus, now: datetime) -> Part:
    """Return an account of which nothing is known to be whole."""
    since = min(account.created_at or FIRST_TWEET_AT, now)
    if account.tweet_count is None:
        return Part(EVERYTHING, since, now, REACH, REACH, is_head=True, is_bottom=True)
    written_since = _expected(account, account.profile_read_at or now, now)
    missing = max(0, account.tweet_count - account.kept_when_counted)
    # What is stored above or below nothing that is whole came from a stream or a file, and is read again.
    return Part(
        EVERYTHING,
        since,
        now,
        missing + round(written_since),
        missing + _most_of(written_since),
        is_head=True,
        is_bottom=True,
    )


def _of_hole(account: AccountStatus, ledger: Ledger, number: int) -> Part:
    hole = ledger.holes[number]
    size = REACH if hole.size is None else hole.size
    return Part(
        hole.at.ids,
        hole.at.since,
        hole.at.until,
        # A hole without a cause was requested, and X showed no more; so was one whose end is unconfirmed.
        likely=0 if hole.cause in (None, HoleCause.UNCONFIRMED) else size,
        most=size,
        is_bottom=hole.at.is_first,
        out_of_reach=(hole.at.ids.hi - 1) in account.unreachable,
        in_doubt=hole.cause is HoleCause.UNCONFIRMED,
    )


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Join parts that touch, which the ledger tells apart by their cause: a walk does not."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if last is not None and last.ids.lo == part.ids.hi and last.out_of_reach == part.out_of_reach:
            joined[-1] = replace(
                last,
                ids=IdRange(part.ids.lo, last.ids.hi),
                since=part.since,
                likely=last.likely + part.likely,
                most=last.most + part.most,
                is_bottom=part.is_bottom,
                in_doubt=last.in_doubt and part.in_doubt,
            )
        else:
            joined.append(part)
    return joined


def _news(ledger: Ledger, holes: Sequence[Part], now: datetime) -> _News:
    """Estimate what was written since the last look.

    X's count tells exactly where it is younger than that, and nothing is missing at the beginning that could be meant
    by it too; else the rate does.
    """
    account, seen_at = ledger.account, last_seen_at(ledger)
    counted_at = account.profile_read_at
    if account.tweet_count is None or counted_at is None or counted_at <= seen_at:
        expected = _expected(account, seen_at, now)
        return _News(round(expected), _most_of(expected), 0)
    lacking = max(0, account.tweet_count - account.kept_when_counted)
    until_count, since_count = _expected(account, seen_at, counted_at), _expected(account, counted_at, now)
    if holes and holes[-1].is_bottom:
        counted = min(lacking, round(until_count))
        most = min(lacking, _most_of(until_count))
    else:
        counted = max(0, lacking - sum(hole.size or 0 for hole in ledger.holes))
        # Tweets that were deleted since they were stored hide as many new ones in the count.
        most = max(counted, _most_of(until_count))
    return _News(counted + round(since_count), most + _most_of(since_count), counted)


def _expected(account: AccountStatus, since: datetime, until: datetime) -> float:
    """Return how many tweets an account writes in a time: by what the watch has learned, else as densely as before."""
    hours = max(0.0, (until - since) / _HOUR)
    return hours * _rate_per_hour(account, until)


def _rate_per_hour(account: AccountStatus, now: datetime) -> float:
    if account.tweets_per_hour is not None:
        return account.tweets_per_hour
    first, last = account.first_tweet_at, account.last_tweet_at
    if first is not None and last is not None:
        span = max(last, account.last_polled_at or last) - first
        if span >= SHORTEST_SPAN:
            return account.tweets_stored / (span / _HOUR)
    age = now - (account.created_at or now)
    return 0.0 if age < SHORTEST_SPAN or not account.tweet_count else account.tweet_count / (age / _HOUR)


def _most_of(expected: float) -> int:
    """Return the most tweets to reckon with: twice the usual, and three times by how much bursts scatter."""
    return round(2 * expected + 3 * sqrt(BURST * expected))


# What reading them takes.


def estimate_timeline(
    request: FetchRequest, ledger: Ledger, parts: Sequence[Part], *, page_size: int, now: datetime, settle: timedelta
) -> AccountEstimate:
    """Estimate what a request for one account reads of its timeline; the parts are newest first."""
    account, mode = ledger.account, request.fetch_mode
    mode, asked = _asked(mode, account, page_size=page_size, now=now, settle=settle)
    likely = _walk(mode, parts, asked, page_size=page_size, pessimistic=False)
    most = _walk(mode, parts, asked, page_size=page_size, pessimistic=True)
    # A `limit:N` leaves alone what it does not ask for: only what lies too deep is beyond its reach.
    missing = sum(_likely_in(part, asked) for part in parts)
    beyond = max(0, missing - likely.tweets) if mode.limit is None else 0
    return AccountEstimate(
        request, account.tweet_count, account.tweets_stored, likely, most.at_least(likely), beyond_reach=beyond
    )


def _asked(
    mode: FetchMode, account: AccountStatus, *, page_size: int, now: datetime, settle: timedelta
) -> tuple[FetchMode, IdRange | None]:
    """Return what a walk is asked for and between which ids, as the run will plan it; None for none."""
    if mode.months is not None:
        return mode, mode.months.ids.clipped(hi=id_at(now - settle))
    if not mode.only_new:
        return mode, EVERYTHING
    watched_from = id_at(account.tracked_since) if account.is_tracked and account.tracked_since else None
    floor = floor_of_new(account.covered, watched_from, account.doubts)
    # Nothing tells what is new of an account that was never seen: the newest page.
    return (FetchMode(page_size), EVERYTHING) if floor is None else (mode, EVERYTHING.clipped(lo=floor))


def _walk(mode: FetchMode, parts: Sequence[Part], asked: IdRange | None, *, page_size: int, pessimistic: bool) -> Work:
    """Add up the pages of a walk: the newest part first, then each hole, as far as the timeline reaches."""
    done = Work()
    newer = 0
    for number, part in enumerate(parts):
        missing = part.most if pessimistic else part.likely
        inside, above = _split(part, asked, missing, pessimistic=pessimistic)
        if asked is None or inside is None:
            newer += missing
            continue
        # What the most is depends on as few as possible lying above.
        reach = REACH - (done.tweets if pessimistic else part.stored_above + newer + above)
        newer += missing
        wanted = None if mode.limit is None else mode.limit - (0 if part.is_head else part.stored_above) - done.tweets
        if wanted is not None and (wanted <= 0 or part.out_of_reach):
            break
        if part.out_of_reach:
            continue
        work = _read(part, inside, max(0, reach), wanted, page_size=page_size, pessimistic=pessimistic)
        is_cut_off = reach < inside + part.stored or (wanted is not None and work.tweets >= wanted)
        if not pessimistic and not is_cut_off:
            is_last = inside == missing and not any(each.likely for each in parts[number + 1 :])
            work += Work(calls=_repeats(part, inside, is_last=is_last))
        done += work
    return done


def _read(part: Part, missing: int, reach: int, wanted: int | None, *, page_size: int, pessimistic: bool) -> Work:
    """Return what it takes to read one part of which so many tweets are missing."""
    there = min(missing + part.stored, reach)
    calls, read = pages_of(there, wanted, page_size=page_size)
    tweets = max(0, min(missing, read - part.stored))
    # Of a part that is not read to its end, the free ones may be the rest.
    posts = read - (max(0, part.free - (there - read)) if pessimistic else min(part.free, read))
    if pessimistic:
        # The end is requested again, and confirmed later, with a stored tweet.
        return Work(tweets, posts + min(1, part.witnesses), calls + 2)
    return Work(tweets, posts, calls)


def _repeats(part: Part, missing: int, *, is_last: bool) -> int:
    """Return how often the end of a part is requested again: not where X's count will agree, nor without new tweets.

    It will agree where no tweet is missing further below, if any was missing here.
    """
    if part.in_doubt:
        return 0
    return int(not is_last if missing + part.stored else not part.is_head)


def pages_of(tweets: int, wanted: int | None, *, page_size: int) -> tuple[int, int]:
    """Return the calls that reading so many tweets takes, at least one, and how many are read.

    With `wanted` no more are asked for than that, but for the smallest page.
    """
    if wanted is None:
        return max(1, -(-tweets // page_size)), tweets
    calls = read = 0
    while calls == 0 or (read < tweets and read < wanted):
        calls += 1
        read += min(page_size_for(wanted - read, page_size=page_size), tweets - read)
    return calls, read


def _likely_in(part: Part, asked: IdRange | None) -> int:
    return _split(part, asked, part.likely, pessimistic=False)[0] or 0


def _split(part: Part, asked: IdRange | None, missing: int, *, pessimistic: bool) -> tuple[int | None, int]:
    """Return how many of a part's missing tweets are asked for, None where none of its ids are, and how many lie above.

    By time, as if they lay evenly; at most all of them.
    """
    common = None if asked is None else part.ids.clipped(lo=asked.lo, hi=asked.hi)
    if common is None:
        return None, missing
    if common == part.ids:
        return missing, 0
    if pessimistic:
        return missing, 0
    begin, end = _time_in(part, common.lo), _time_in(part, common.hi)
    length = part.until - part.since
    if length <= timedelta(0):
        return missing, 0
    return round(missing * ((end - begin) / length)), round(missing * ((part.until - end) / length))


def _time_in(part: Part, tweet_id: int) -> datetime:
    """Return when a bound lies within a part's time."""
    at = time_at(tweet_id) if is_dated(tweet_id) else part.since
    return min(max(at, part.since), part.until)


# Backfills from the archive search: accounts share its queries.


@dataclass(frozen=True, slots=True)
class Searched:
    """What a backfill from the archive search takes: its accounts, and the calls that they share."""

    accounts: tuple[AccountEstimate, ...]
    calls: int
    calls_most: int


def estimate_searches(
    wanted: Sequence[tuple[FetchRequest, Ledger, Sequence[Part]]],
    *,
    page_size: int,
    characters: int,
    settled_below: int,
) -> Searched:
    """Estimate what it takes to search for the months of accounts: what they miss, each tweet of it read once."""
    by_name: dict[str, _Searchable] = {}
    months: list[Months] = []
    accounts: list[AccountEstimate] = []
    for request, ledger, parts in wanted:
        account, asked = ledger.account, request.fetch_mode.months
        if asked is None:
            continue
        months.append(asked)
        born = LOWEST_ID if account.created_at is None else id_at(account.created_at)
        kept = account.covered | account.searched
        ids = missing_of(kept, asked, born=born, settled_below=settled_below)
        likely = _searched(parts, list(ids), pessimistic=False)
        most = _searched(parts, list(ids), pessimistic=True)
        accounts.append(
            AccountEstimate(request, account.tweet_count, account.tweets_stored, likely, most.at_least(likely))
        )
        if ids:
            count_agrees = account.tweet_count is not None and likely.tweets == sum(part.likely for part in parts)
            name = (account.username or request.username).lower()
            by_name[name] = _Searchable(parts, ids, kept, born if count_agrees else None)
    if not by_name:
        return Searched(tuple(accounts), 0, 0)
    whole = Months(min(each.first for each in months), max(each.last for each in months))
    begins = {month.ids.lo for month in whole}
    missing = {name: each.missing for name, each in by_name.items()}
    calls = calls_most = 0
    for search in plan_searches(missing, months=whole, characters=characters):
        together = [by_name[name] for name in search.usernames]
        tweets = sum(_searched(each.parts, [search.ids], pessimistic=False).tweets for each in together)
        lo = search.ids.lo
        # X takes whole seconds, so that a stored tweet right below comes along.
        is_witnessed = lo not in begins and all((lo - 1) in each.kept for each in together)
        is_counted = all(each.counted_from is not None and lo <= each.counted_from for each in together)
        pages = max(1, -(-tweets // page_size)) + (0 if is_witnessed or is_counted else CONFIRMING_CALLS)
        at_most = sum(_searched(each.parts, [search.ids], pessimistic=True).tweets for each in together)
        calls += pages
        calls_most += max(pages, -(-at_most // page_size) + 2 * CONFIRMING_CALLS)
    return Searched(tuple(accounts), calls, calls_most)


@dataclass(frozen=True, slots=True)
class _Searchable:
    """What an account misses of its months, and what is kept of it.

    Once that is stored, X's count will agree with the tweets from `counted_from` on; None where it will not.
    """

    parts: Sequence[Part]
    missing: Coverage
    kept: Coverage
    counted_from: int | None


def _searched(parts: Sequence[Part], asked: Sequence[IdRange], *, pessimistic: bool) -> Work:
    """Return what a search over these ids finds of one account."""
    tweets = posts = 0
    for part in parts:
        found = _in_all(part, asked, part.most if pessimistic else part.likely, pessimistic=pessimistic)
        again = _in_all(part, asked, part.stored - part.free, pessimistic=pessimistic)
        tweets, posts = tweets + found, posts + found + again
    return Work(tweets, posts)


def _in_all(part: Part, asked: Sequence[IdRange], count: int, *, pessimistic: bool) -> int:
    """Return how many of a part's tweets lie in any of these ids, which have none in common."""
    return min(count, sum(_split(part, ids, count, pessimistic=pessimistic)[0] or 0 for ids in asked))


# How long it takes.


def budgets_now(windows: Sequence[WindowState], *, documented: int) -> tuple[Budget, ...]:
    """Return what each usable token may send from now on; a window that is over, or unknown, counts as a new one.

    `documented` is X's limit for tokens that it has told nothing of.
    """
    return tuple(_budget(window, documented) for window in windows if window.usable)


def _budget(window: WindowState, documented: int) -> Budget:
    limit = max(1, window.limit or documented)
    if window.remaining is None or window.reset_at is None or window.reset_at <= window.now:
        return Budget(limit, limit, window.now + WINDOW)
    return Budget(max(0, window.remaining - window.in_flight), limit, window.reset_at)
