"""What to ask for next: one account's walk down its timeline, decided without any I/O.

A target is a set of ids; the work is `target - covered`. `Walk` turns that into one request after another and
judges each answer. It keeps no bookmark that outlives it: whatever happens to it, the next walk starts from what is
stored.
"""

import heapq
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from twitter_pipeline.coverage import BEYOND_ALL_IDS, LOWEST_ID, Coverage, IdRange, time_at
from twitter_pipeline.request import FetchMode
from twitter_pipeline.walks.chain import Chain, most_pages
from twitter_pipeline.walks.doubts import Doubt, overlaps
from twitter_pipeline.walks.evidence import (
    CLEARLY_WITHIN_REACH,
    REACH,
    EndFacts,
    EndVerdict,
    Item,
    OddInterval,
    judge_end,
)
from twitter_pipeline.words import DoubtKind

SMALLEST_PAGE = 5
"""The API refuses max_results below 5 on timelines (docs.x.com, GET /2/users/:id/tweets)."""

RECENT_COUNT = timedelta(days=1)
"""So old at most may be X's count of an account's tweets to show that all of them are within the timeline's reach."""

CONFIRM_AFTER = timedelta(minutes=2)
"""An end that is shown again so much later is believed: a replica that lags, or an outage, has passed by then."""

DELETED_AFTER = 3
"""After so many responses that lack the stored tweet right above an end, X is taken to have deleted that tweet."""


@dataclass(frozen=True, slots=True)
class TimelineRequest:
    """One call of the timeline endpoint; since_id and until_id are exclusive, as the API takes them."""

    max_results: int
    since_id: int | None = None
    until_id: int | None = None
    pagination_token: str | None = None


@dataclass(frozen=True, slots=True)
class StoredTweet:
    """A stored tweet and when it was last read: on the same UTC day X shows it again for free."""

    id: int
    read_at: datetime

    def is_free(self, now: datetime) -> bool:
        """Return whether X would not bill it now."""
        return self.read_at.astimezone(UTC).date() == now.astimezone(UTC).date()


@dataclass(frozen=True, slots=True)
class AccountState:
    """What is stored of one account: `covered` as its timeline serves it, `searched` as the archive search shows it.

    `doubts` are the intervals that responses left open. `count_from(id)` counts the stored tweets with that id or a
    higher one, `count_below(id)` those with a lower one that X has not removed. `stored_among(ids)` returns those that
    are stored. `below(id)` and `above(id)` return up to five stored tweets next to an id, the nearest first; `above`
    includes the id itself.
    """

    covered: Coverage
    unreachable: Coverage
    count_from: Callable[[int], int]
    count_below: Callable[[int], int]
    stored_among: Callable[[Collection[int]], set[int]]
    below: Callable[[int], Sequence[StoredTweet]]
    above: Callable[[int], Sequence[StoredTweet]]
    searched: Coverage = field(default_factory=Coverage)
    doubts: tuple[Doubt, ...] = ()

    @property
    def kept(self) -> Coverage:
        """The ids that are no hole."""
        return self.covered | self.searched if self.searched else self.covered


@dataclass(frozen=True, slots=True)
class PageVerdict:
    """What a page changes in what is known of an account.

    `proved`: every tweet that X serves there is stored with the page. `retracted`: an earlier page of the walk has
    claimed it, and this one shows that it was not complete; it is taken away before `proved` is added. `unreachable`:
    the timeline ends above it. `noted` are doubts to store, new ones and changed ones; `ended` those to delete, by id.
    """

    proved: Coverage = field(default_factory=Coverage)
    unreachable: IdRange | None = None
    retracted: IdRange | None = None
    noted: tuple[Doubt, ...] = ()
    ended: tuple[int, ...] = ()

    @property
    def touches_doubts(self) -> bool:
        """Whether doubts change."""
        return bool(self.noted or self.ended)


def page_size_for(wanted: int | None, *, page_size: int) -> int:
    """Return max_results for the next page when `wanted` more tweets are needed (None: all there are).

    Asks for no more than needed, in the fewest pages: where the page after this one would want fewer than the
    smallest page the API gives, this one leaves it that many.
    """
    if wanted is None or wanted >= page_size + SMALLEST_PAGE:
        return page_size
    if wanted <= page_size:
        return max(wanted, SMALLEST_PAGE)
    return max(wanted - SMALLEST_PAGE, SMALLEST_PAGE)


@dataclass(slots=True)
class Walk:
    """One account's walk: the head first, then each hole from the top down, until the mode is satisfied.

    `tweet_count` is X's own count, None when unknown, of the tweets with ids below `counted_below`. What lies below
    `floor` is not requested: monitoring wants what is new, not the history. With a `ceiling` nothing is requested from
    it on, and there is no head: a backfill wants some months. How many tweets lie above is not known then, so that an
    end may be that of the timeline's reach. With `only_due` a doubt is not requested before it is due. Without
    `asks_head` only holes are walked.

    An end without a token is believed when X's count agrees or a stored tweet from below comes in order after it.
    Otherwise the rest is requested once more, and stays a doubt until a response shows the same end `confirm_after`
    later, together with stored tweets.

    Use it in turns: `next_request(state)`, then `judge(...)` of the answer with the same state, then store the page
    and what the verdict proves in one transaction, and go on with the new state.
    """

    mode: FetchMode
    page_size: int
    tweet_count: int | None
    counted_below: int = BEYOND_ALL_IDS
    floor: int = LOWEST_ID
    ceiling: int = BEYOND_ALL_IDS
    confirm_after: timedelta = CONFIRM_AFTER
    only_due: bool = False
    asks_head: bool = True
    unconfirmed: Coverage = field(default_factory=Coverage)
    """What this walk has left open because an end or an item is not confirmed yet."""
    can_be_confirmed: bool = False
    """Whether an end is among it that showing it again would settle."""
    lacks_much: bool = False
    """Whether an end was left open above which X counts more than a tenth more than is stored."""
    stuck: bool = False
    """Whether the walk made no progress and was ended there; what lies below is missing."""
    stays_empty: bool = False
    """Whether a whole timeline had nothing on two UTC days although the API counts tweets, which it does not serve."""
    _chain: Chain | None = None
    _request_from: int = LOWEST_ID
    _request_below: int = BEYOND_ALL_IDS
    _head_asked: bool = False
    _empty_heads: int = 0
    _doubt: Doubt | None = None
    _requested_again: bool = False
    _witness_requested: bool = False
    _right_above: int | None = None

    def __post_init__(self) -> None:
        self._head_asked = self._has_ceiling or not self.asks_head

    @property
    def _has_ceiling(self) -> bool:
        return self.ceiling < BEYOND_ALL_IDS

    @property
    def rest(self) -> IdRange | None:
        """The ids that it is walking down to: what is left of its hole; None between two holes."""
        return None if self._chain is None else self._chain.rest

    @property
    def until_id(self) -> int | None:
        """The id below which it requests tweets; None for all."""
        return self._request_below if self._request_below < BEYOND_ALL_IDS else None

    @property
    def came_out_empty(self) -> bool:
        """Whether a whole timeline had nothing although the API counts tweets: suspicious, and not complete."""
        return self._empty_heads > 0 and self.tweet_count != 0 and not self.stays_empty

    def next_request(self, state: AccountState, now: datetime) -> TimelineRequest | None:
        """Decide the next call, or None when the mode is satisfied or nothing more can be had."""
        missing = self._missing(state)
        if missing == 0 or self.stuck:
            return None
        if self._chain is None or self._taken_over(state):
            self._start(self._next_hole(state, now), state, now)
        if self._chain is None:
            return None
        # What lies between a hole and a stored tweet far below it need not come along.
        wants_few = self._request_from < self._chain.hole.lo and self._chain.pages == 0
        return TimelineRequest(
            max_results=SMALLEST_PAGE if wants_few else page_size_for(missing, page_size=self.page_size),
            since_id=self._request_from - 1 if self._request_from > LOWEST_ID else None,
            until_id=self.until_id,
            pagination_token=self._chain.token,
        )

    def drop_token(self) -> None:
        """Continue below the last tweet that was shown, without the page token: X does not take it."""
        if self._chain is not None:
            self._request_below = min(self._request_below, self._chain.drop_token())

    def start_over(self) -> None:
        """Forget the hole it is at: the next request is planned from what is stored then."""
        self._chain = None

    def judge(
        self,
        state: AccountState,
        *,
        items: Sequence[Item],
        next_token: str | None,
        answered_at: datetime,
        settled_below: int,
    ) -> PageVerdict:
        """Return what the response to the last request proves, and continue below it."""
        chain = self._chain
        if chain is None:
            raise ValueError("a response is judged after the request for it was planned")
        is_head = chain.hole.hi == BEYOND_ALL_IDS
        begins = chain.upper
        if self._has_ceiling:
            # By X's clock: what it cannot have settled yet would be requested until it has.
            self.ceiling = min(self.ceiling, settled_below)
        proof, retracted = chain.judge(
            items, next_token=next_token, requested_from=self._request_from, settled_below=settled_below
        )
        page = _Page(
            answered_at,
            settled_below,
            shown=frozenset(each for each in items if isinstance(each, int)),
            state=state,
            proved=proof.proved,
        )
        for odd in proof.odd:
            self._judge_oddity(page, odd)
        if is_head and chain.upper == BEYOND_ALL_IDS and next_token is None and not chain.tail:
            self._judge_empty_head(page)
            return page.verdict(retracted)
        self._head_asked = self._head_asked or is_head
        self._empty_heads = 0 if is_head and page.shown else self._empty_heads
        self._refute_doubt(page, chain.hole.clipped(hi=begins))
        is_below = proof.lowest is not None and proof.lowest <= chain.hole.lo
        if is_below:
            self._chain = None
        elif next_token is not None:
            self.stuck = chain.stuck
        elif is_head and chain.upper >= settled_below:
            self._chain = None  # all of it is too recent to be claimed, and requested again
        else:
            self._judge_end(page, chain)
        return page.verdict(retracted)

    def _missing(self, state: AccountState) -> int | None:
        """How many tweets of a `limit:N` are still missing; None for `full`."""
        if self.mode.limit is None:
            return None
        if not self._head_asked:
            return self.mode.limit
        return max(0, self.mode.limit - state.count_from(self._piece_floor(state)))

    def _piece_floor(self, state: AccountState) -> int:
        """The lowest id down to which the newest tweets lie in one piece, but for what is left unconfirmed."""
        if self._chain is not None and self._chain.hole.hi == BEYOND_ALL_IDS:
            return self._chain.upper
        known = state.kept | self.unconfirmed
        return known.ranges[-1].lo if known else BEYOND_ALL_IDS

    def _taken_over(self, state: AccountState) -> bool:
        """Whether another run has stored what lies right below, so that the page token would buy it twice."""
        chain = self._chain
        return chain is not None and chain.token is not None and (chain.upper - 1) in state.kept

    def _next_hole(self, state: AccountState, now: datetime) -> IdRange | None:
        kept = state.kept
        if not self._head_asked:
            return IdRange(max(kept.top or LOWEST_ID, self.floor), BEYOND_ALL_IDS)
        top = self.ceiling if self._has_ceiling else kept.top
        if top is None or top <= self.floor:
            return None
        if self.mode.limit is not None and kept and (kept.ranges[-1].lo - 1) in state.unreachable:
            return None  # the newest tweets end there: more would not lie in one piece with them
        done = kept | state.unreachable | self.unconfirmed
        if self.only_due:
            done |= Coverage.of(each.ids for each in state.doubts if each.is_open and each.next_at > now)
        holes = done.gaps(IdRange(self.floor, top))
        return holes[-1] if holes else None

    def _start(self, hole: IdRange | None, state: AccountState, now: datetime) -> None:
        self._chain = None
        if hole is None:
            return
        self._walk_down(hole)
        self._requested_again = self._witness_requested = False
        self._doubt = next(
            (
                each
                for each in state.doubts
                if each.is_open and each.kind is DoubtKind.END and each.ids.hi == hole.hi and overlaps(each.ids, hole)
            ),
            None,
        )
        if self._doubt is not None:
            self._request_stored_tweets_too(hole, self._doubt, state, now)

    def _walk_down(self, hole: IdRange, *, request_from: int | None = None) -> None:
        self._chain = Chain(hole, max_pages=most_pages(self.page_size))
        self._request_from = hole.lo if request_from is None else request_from
        self._request_below = hole.hi
        self._right_above = None

    def _request_stored_tweets_too(self, hole: IdRange, doubt: Doubt, state: AccountState, now: datetime) -> None:
        """Have stored tweets come along with the end of a hole: five that are free, else one once that can settle it.

        From below they show in order that nothing lies between; from above they show that the response is no empty one.
        """
        self._requested_again = self._witness_requested = True
        stored_below = state.below(hole.lo) if hole.lo > LOWEST_ID else ()
        stored_above = state.above(hole.hi)
        below, above = _free_among(stored_below, now), _free_among(stored_above, now)
        if not below and not above and doubt.is_confirmed_by(now, self.confirm_after):
            paid = 1 if doubt.times <= DELETED_AFTER else None
            below, above = [each.id for each in stored_below[:paid]], [each.id for each in stored_above[:paid]]
        if below:
            self._request_from = below[-1]
        # If those from below did not come the last time, X may have deleted them.
        if above and (not below or doubt.times > 1):
            self._request_below, self._right_above = above[-1] + 1, above[0]

    def _judge_empty_head(self, page: "_Page") -> None:
        """Take an empty response at the open top, which proves nothing: there is nothing new, or it was a mistake."""
        self._chain = None
        kept = page.state.kept
        of_all = next((each for each in page.state.doubts if each.is_open and each.ids.lo == LOWEST_ID), None)
        emptiness = None if kept else of_all
        # What lies above all that is stored is requested by each run: no doubt of a month is needed there.
        top = kept.top or LOWEST_ID
        page.end(*(each for each in page.state.doubts if each.is_open and each.ids.hi > top and each is not emptiness))
        if kept or self.floor > LOWEST_ID:
            self._head_asked = True
            return
        # A replica that answered empty gets one more chance before the account is called suspicious.
        self._empty_heads += 1
        self._head_asked = self._empty_heads > 1 or self.tweet_count == 0
        if not self._head_asked:
            return
        if self.came_out_empty:
            self._doubt_emptiness(page, emptiness)
        elif emptiness is not None:
            page.end(emptiness)

    def _doubt_emptiness(self, page: "_Page", known: Doubt | None) -> None:
        """Note that X shows nothing of an account whose tweets it counts; on another UTC day that is believed."""
        if known is None:
            page.noted.append(Doubt.begin(DoubtKind.END, IdRange(LOWEST_ID, page.settled_below), page.answered_at))
            return
        self.stays_empty = known.is_days_apart_from(page.answered_at) and known.is_confirmed_by(
            page.answered_at, self.confirm_after
        )
        page.noted.append(known.shown_again(page.answered_at, self.confirm_after))

    def _judge_oddity(self, page: "_Page", odd: OddInterval) -> None:
        """Claim the place of an item that came back as odd, long enough after the first time; else note the doubt."""
        known = page.doubt_about(odd)
        if known is not None and any(each in known.ids for each in page.new):
            # A tweet has come from there, so this is another item.
            page.end(known)
            known = None
        if known is None:
            raws = [each.raw for each in odd.oddities]
            page.noted.append(Doubt.begin(odd.kind, odd.ids, page.answered_at, items=raws))
        elif known.is_confirmed_by(page.answered_at, self.confirm_after):
            page.proved |= odd.ids.clipped(hi=page.settled_below)
            if odd.kind is DoubtKind.UNREADABLE:
                page.noted.append(known.recorded(odd.ids, page.answered_at))
            else:
                page.end(known)
            return
        else:
            page.noted.append(known.shown_again(page.answered_at, self.confirm_after))
        self.unconfirmed |= odd.ids
        self.can_be_confirmed = True

    def _refute_doubt(self, page: "_Page", asked: IdRange | None) -> None:
        """Give up the doubt about an end below which new tweets have come."""
        is_doubted = self._doubt is not None or self._requested_again or self._witness_requested
        if not is_doubted or asked is None or not any(each in asked for each in page.new):
            return
        self._requested_again = self._witness_requested = False
        if self._doubt is not None:
            page.end(self._doubt)
        self._doubt = None

    def _judge_end(self, page: "_Page", chain: Chain) -> None:
        """Judge what lies below the last tweet that was shown; request it again where that is not sure."""
        rest = chain.rest
        claimable = None if rest is None else rest.clipped(hi=page.settled_below)
        if rest is None or claimable is None:
            self._chain = None
            return
        if chain.tail:
            self._judge_odd_end(page, OddInterval(rest, chain.tail))
            self._chain = None
            return
        facts = self._end_facts(page, rest, self._doubt)
        verdict = judge_end(facts)
        if verdict is EndVerdict.COMPLETE:
            page.proved |= claimable
        elif verdict is EndVerdict.BEYOND_REACH:
            page.unreachable = rest
            if self._doubt is not None:
                page.end(self._doubt)
        elif self._request_rest_again(page, rest):
            return
        else:
            self._leave_unconfirmed(page, rest, facts)
        self._chain = None

    def _judge_odd_end(self, page: "_Page", odd: OddInterval) -> None:
        """Judge an end below which an odd item stands: the item must have come before, and the end must be one."""
        known = page.doubt_about(odd)
        if known is None or not known.is_confirmed_by(page.answered_at, self.confirm_after):
            self._judge_oddity(page, odd)
            return
        # The item that came again shows that the response is not empty by mistake.
        facts = replace(self._end_facts(page, odd.ids, known), shown_again=True)
        verdict = judge_end(facts)
        if verdict is EndVerdict.COMPLETE:
            self._judge_oddity(page, odd)
        elif verdict is EndVerdict.BEYOND_REACH:
            page.unreachable = odd.ids
            page.end(known)
        else:
            page.noted.append(known.shown_again(page.answered_at, self.confirm_after))
            self._note_unconfirmed(odd.ids, facts)

    def _request_rest_again(self, page: "_Page", rest: IdRange) -> bool:
        """Request what lies below an end once more, with a stored tweet from below where that is free."""
        if not self._witness_requested and rest.lo > LOWEST_ID:
            self._witness_requested = True
            if free := _free_among(page.state.below(rest.lo), page.answered_at):
                self._requested_again = True
                self._walk_down(rest, request_from=free[-1])
                return True
        if not self._requested_again:
            self._requested_again = True
            self._walk_down(rest)
            return True
        return False

    def _leave_unconfirmed(self, page: "_Page", rest: IdRange, facts: EndFacts) -> None:
        self._note_unconfirmed(rest, facts)
        if self._doubt is not None:
            page.noted.append(self._doubt.shown_again(page.answered_at, self.confirm_after))
            return
        page.noted.append(Doubt.begin(DoubtKind.END, rest, page.answered_at))
        ends = (each for each in page.state.doubts if each.is_open and each.kind is DoubtKind.END)
        page.end(*(each for each in ends if overlaps(each.ids, rest)))

    def _note_unconfirmed(self, rest: IdRange, facts: EndFacts) -> None:
        self.unconfirmed |= rest
        # Only at the bottom: elsewhere X's count speaks of tweets that were not asked for.
        self.lacks_much = self.lacks_much or (facts.at_bottom and facts.lacks_much)
        self.can_be_confirmed = self.can_be_confirmed or facts.above is not None

    def _end_facts(self, page: "_Page", rest: IdRange, doubt: Doubt | None) -> EndFacts:
        # A count speaks for what had been written by then. Newer tweets would make up for as many that are missing.
        tweet_count = self.tweet_count if rest.hi <= self.counted_below else None
        counted = 0
        if tweet_count is not None:
            counted = page.state.count_below(self.counted_below) + sum(each < self.counted_below for each in page.new)
        has_passed = doubt is not None and doubt.is_confirmed_by(page.answered_at, self.confirm_after)
        # Of the same response: one that follows it with a page token may be empty by mistake.
        stored = page.shown - page.new
        came_along = any(self._request_from <= each < self._request_below for each in stored)
        were_requested = self._request_from < rest.lo or self._request_below > rest.hi
        # Without the tweet right above, the response may have broken off before the end.
        is_same_end = self._right_above in stored or (doubt is not None and doubt.times > DELETED_AFTER)
        return EndFacts(
            at_bottom=rest.lo == LOWEST_ID,
            counted=counted,
            tweet_count=tweet_count,
            above=self._count_above(page, rest),
            shown_again=has_passed and came_along and is_same_end,
            hidden_again=doubt is not None
            and doubt.times > 1
            and page.answered_at - doubt.seen_at >= self.confirm_after
            and were_requested
            and not came_along,
            days_apart=doubt is not None and doubt.is_days_apart_from(page.answered_at),
        )

    def _count_above(self, page: "_Page", rest: IdRange) -> int | None:
        """Count the stored tweets above an end, to distinguish it from that of the timeline's reach; None if unsure."""
        if any(each.hi > rest.hi for each in page.state.unreachable):
            return REACH  # the timeline ends above it
        is_small = self._is_small(page.answered_at)
        kept = page.state.kept | page.proved
        above = IdRange(rest.hi, kept.top) if kept.top is not None and kept.top > rest.hi else None
        if not is_small and (self._has_ceiling or (above is not None and kept.gaps(above))):
            return None
        stored = page.state.count_from(rest.hi) + sum(each >= rest.hi for each in page.new)
        if not is_small and above is not None and (page.state.covered | page.proved).gaps(above):
            # The search leaves out retweets: the timeline may hold as many as it reaches.
            return max(stored, CLEARLY_WITHIN_REACH)
        return stored

    def _is_small(self, now: datetime) -> bool:
        """Whether X's count is too small for the timeline's reach; of a count from long before, nobody knows."""
        is_recent = now - time_at(self.counted_below) < RECENT_COUNT
        return self.tweet_count is not None and self.tweet_count < CLEARLY_WITHIN_REACH and is_recent


def _free_among(nearest: Sequence[StoredTweet], now: datetime) -> list[int]:
    """Return the tweets that are free up to the first that is not: it would come along, and be billed."""
    return [each.id for each in takewhile(lambda each: each.is_free(now), nearest)]


@dataclass(slots=True)
class _Page:
    """One response while it is judged, and what comes of it."""

    answered_at: datetime
    settled_below: int
    shown: frozenset[int]
    state: AccountState
    proved: Coverage
    unreachable: IdRange | None = None
    noted: list[Doubt] = field(default_factory=list[Doubt])
    ended: list[int] = field(default_factory=list[int])
    _new: frozenset[int] | None = None

    @property
    def new(self) -> frozenset[int]:
        """The shown tweets that were not stored before the call."""
        if self._new is None:
            self._new = self.shown - self.state.stored_among(self.shown) if self.shown else frozenset()
        return self._new

    def doubt_about(self, odd: OddInterval) -> Doubt | None:
        """Return the open doubt that an odd item of the same kind has left at its place."""
        return next(
            (
                each
                for each in self.state.doubts
                if each.is_open
                and each.kind is odd.kind
                and overlaps(each.ids, odd.ids)
                and not any(each.id == noted.id for noted in self.noted)
            ),
            None,
        )

    def end(self, *doubts: Doubt) -> None:
        """Give up doubts that are stored."""
        self.ended += [each.id for each in doubts if each.id is not None]

    def verdict(self, retracted: IdRange | None) -> PageVerdict:
        return PageVerdict(self.proved, self.unreachable, retracted, tuple(self.noted), tuple(self.ended))


def floor_of_new(covered: Coverage, watched_from: int | None, doubts: Sequence[Doubt] = ()) -> int | None:
    """Return the id from which on an account's tweets are new, given what is stored and the id of the watch's begin.

    Monitoring continues where the stretch ends that was stored before it began, and leaves no hole above: what a poll
    that was broken off has left open is still new. An account that is not tracked has its new tweets above all that is
    stored, and where the end of what came last is in doubt. None when nothing is stored and nothing tracked, so that
    nothing shows what is new.
    """
    if watched_from is None:
        floor = covered.top
        for each in reversed(covered.ranges):
            doubt = next((doubt for doubt in doubts if doubt.is_open and doubt.ids.hi == each.lo), None)
            if doubt is None or doubt.ids.lo == LOWEST_ID:
                break
            floor = doubt.ids.lo
        return floor
    return next((each.hi for each in reversed(covered.ranges) if each.lo <= watched_from), watched_from)


FEW_ACCOUNTS = 10
"""Up to so many accounts each is a batch, so that each has a step of its own in Dagster; a step costs 25 to 90 ms."""


def deal_batches(pages: Sequence[int], *, per_batch: int) -> list[list[int]]:
    """Deal accounts, given by their expected pages, to batches that end at about the same time.

    Returns positions. Few accounts get a batch each; more are dealt, the largest first, each to the lightest batch
    that has room, so that no batch holds more than `per_batch`.
    """
    if len(pages) <= FEW_ACCOUNTS:
        return [[position] for position in range(len(pages))]
    batches: list[list[int]] = [[] for _ in range(-(-len(pages) // per_batch))]
    loads = [(0, number) for number in range(len(batches))]
    for position in sorted(range(len(pages)), key=lambda each: -pages[each]):
        load, number = heapq.heappop(loads)
        batches[number].append(position)
        if len(batches[number]) < per_batch:
            heapq.heappush(loads, (load + pages[position], number))
    return batches


def expected_pages(mode: FetchMode, tweet_count: int | None, *, page_size: int) -> int:
    """Estimate how many calls an account takes that nothing is stored of; at least one."""
    if mode.only_new or mode.swept_day is not None or mode.months is not None:
        return 1
    tweets = min(REACH, REACH if tweet_count is None else tweet_count, REACH if mode.limit is None else mode.limit)
    return max(1, -(-tweets // page_size))
