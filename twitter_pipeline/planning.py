"""What to ask for next: one account's walk down its timeline, decided without any I/O.

A target is a set of ids; the work is `target - covered`. `Walk` turns that into one request after another and
judges each answer. It keeps no bookmark that outlives it: whatever happens to it, the next walk starts from what is
stored.
"""

import heapq
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from twitter_pipeline.coverage import (
    BEYOND_ALL_IDS,
    CLEARLY_WITHIN_REACH,
    LOWEST_ID,
    REACH,
    Coverage,
    IdRange,
    PageVerdict,
    WalkEnd,
    judge_page,
)
from twitter_pipeline.request import FetchMode

SMALLEST_PAGE = 5
"""The API refuses max_results below 5 on timelines (docs.x.com, GET /2/users/:id/tweets)."""


@dataclass(frozen=True, slots=True)
class TimelineRequest:
    """One call of the timeline endpoint; since_id and until_id are exclusive, as the API takes them."""

    max_results: int
    since_id: int | None = None
    until_id: int | None = None
    pagination_token: str | None = None


@dataclass(frozen=True, slots=True)
class AccountState:
    """What is stored of one account: `covered` as its timeline serves it, `searched` as the archive search shows it.

    `count_from(id)` tells how many of its tweets with that id or a higher one are stored, `witness_below(id)` names a
    stored tweet a little below that id: the fifth from there, so that one that was deleted since does not matter; None
    when nothing is stored there.
    """

    covered: Coverage
    unreachable: Coverage
    count_from: Callable[[int], int]
    witness_below: Callable[[int], int | None]
    searched: Coverage = field(default_factory=Coverage)

    @property
    def kept(self) -> Coverage:
        """The ids that are no hole."""
        return self.covered | self.searched if self.searched else self.covered


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
    `floor` is not asked for: a watch wants what is new, not the history. With a `ceiling` nothing is asked for from it
    on, and there is no head: a backfill wants some months. How many tweets lie above is not known then, so that an end
    may be that of the timeline's reach: it is believed when tweets from below the hole are shown too.

    Use it in turns: `next_request(state)`, then `judge(...)` of the answer with the same state, then store the page
    and what the verdict proves in one transaction, and go on with the new state.
    """

    mode: FetchMode
    page_size: int
    tweet_count: int | None
    counted_below: int = BEYOND_ALL_IDS
    floor: int = LOWEST_ID
    ceiling: int = BEYOND_ALL_IDS
    _hole: IdRange | None = None
    _upper: int = BEYOND_ALL_IDS
    _token: str | None = None
    _head_asked: bool = False
    _empty_answers: int = 0
    _empty_heads: int = 0
    _wants_witness: bool = False
    _goes_round: bool = False
    _ended_short: bool = False
    _holes_below: int = field(init=False)

    def __post_init__(self) -> None:
        self._head_asked = self._has_ceiling
        self._holes_below = self.ceiling

    @property
    def _has_ceiling(self) -> bool:
        return self.ceiling < BEYOND_ALL_IDS

    @property
    def rest(self) -> IdRange | None:
        """The ids that it is walking down to: what is left of its hole; None between two holes."""
        return None if self._hole is None else self._hole.clipped(hi=self._upper)

    @property
    def ended_short(self) -> bool:
        """Whether the timeline ended, twice, before as many tweets as X counts; what lies below stays a hole."""
        return self._ended_short

    @property
    def goes_round(self) -> bool:
        """Whether a page token came twice: the walk was ended there, and what lies below is missing."""
        return self._goes_round

    @property
    def came_out_empty(self) -> bool:
        """Whether a whole timeline had nothing although the API counts tweets: suspicious, and not complete."""
        return self._empty_heads > 0 and self.tweet_count != 0

    def next_request(self, state: AccountState) -> TimelineRequest | None:
        """Decide the next call, or None when the mode is satisfied or nothing more can be had."""
        missing = self._missing(state)
        if missing == 0 or self._goes_round or self._ended_short:
            return None
        if self._hole is None or self._taken_over(state):
            self._start(self._next_hole(state))
        if self._hole is None:
            return None
        lowest = self._lowest_to_ask_for(self._hole, state)
        return TimelineRequest(
            max_results=SMALLEST_PAGE if self._wants_witness else page_size_for(missing, page_size=self.page_size),
            since_id=lowest - 1 if lowest > LOWEST_ID else None,
            until_id=self._hole.hi if self._hole.hi < BEYOND_ALL_IDS else None,
            pagination_token=self._token,
        )

    def start_over(self) -> None:
        """Forget the hole it is at: the next request is planned from what is stored then."""
        self._start(None)

    def judge(
        self, state: AccountState, *, ids: Sequence[int], next_token: str | None, settled_below: int
    ) -> PageVerdict:
        """Tell what the answer to the last request proves, and move on below it."""
        hole = self._hole
        if hole is None:
            raise ValueError("an answer is judged after the request for it was planned")
        inside = {each for each in ids if hole.lo <= each < self._upper}
        verdict = judge_page(
            hole=hole,
            upper=self._upper,
            ids=ids,
            has_next=next_token is not None,
            settled_below=settled_below,
            end=None if next_token is not None else self._end(state, inside),
        )
        lowest = min(inside, default=None)
        if any(each < hole.lo for each in ids):
            lowest, next_token = hole.lo, None  # the answer goes on below the hole, which is done
        self._move_on(hole, verdict, lowest=lowest, next_token=next_token, state=state)
        return verdict

    def _missing(self, state: AccountState) -> int | None:
        """How many tweets of a `limit:N` are still missing; None for `full`."""
        if self.mode.limit is None:
            return None
        if not self._head_asked:
            return self.mode.limit
        return max(0, self.mode.limit - state.count_from(self._piece_floor(state)))

    def _piece_floor(self, state: AccountState) -> int:
        """The lowest id down to which the newest tweets lie in one piece."""
        if self._hole is not None and self._hole.hi == BEYOND_ALL_IDS:
            return self._upper
        return state.kept.ranges[-1].lo if state.kept else BEYOND_ALL_IDS

    def _taken_over(self, state: AccountState) -> bool:
        """Whether another run has stored what lies right below, so that the page token would buy it twice."""
        return self._token is not None and (self._upper - 1) in state.kept

    def _lowest_to_ask_for(self, hole: IdRange, state: AccountState) -> int:
        """Where a page ends at the bottom: with the hole, or with a witness below it where one is needed."""
        if hole.lo == LOWEST_ID or not (self._empty_answers or self._wants_witness):
            return hole.lo
        witness = state.witness_below(hole.lo)
        if witness is None:
            return LOWEST_ID if self._wants_witness else hole.lo
        return witness

    def _next_hole(self, state: AccountState) -> IdRange | None:
        kept = state.kept
        top = kept.top
        if not self._head_asked:
            return IdRange(max(top or LOWEST_ID, self.floor), BEYOND_ALL_IDS)
        if self._has_ceiling:
            top = self._holes_below
        if top is None or top <= self.floor:
            return None
        if self.mode.limit is not None and kept and (kept.ranges[-1].lo - 1) in state.unreachable:
            return None  # the newest tweets end there: more would not lie in one piece with them
        holes = (kept | state.unreachable).gaps(IdRange(self.floor, top))
        return holes[-1] if holes else None

    def _start(self, hole: IdRange | None) -> None:
        self._hole = hole
        self._upper = hole.hi if hole else BEYOND_ALL_IDS
        self._token = None
        self._empty_answers = 0
        self._wants_witness = False

    def _end(self, state: AccountState, inside: Collection[int]) -> WalkEnd:
        stored = state.count_from(self._upper)
        # Newer tweets would make up for as many that are missing.
        newer = state.count_from(max(self._upper, self.counted_below)) + sum(
            each >= self.counted_below for each in inside
        )
        return WalkEnd(
            stored_from_here=stored + len(inside),
            stored_when_counted=stored + len(inside) - newer,
            tweet_count=self.tweet_count,
            empty_before=self._empty_answers,
            reach_known=self._reach_is_known,
        )

    @property
    def _reach_is_known(self) -> bool:
        """Whether an end can be told from that of the timeline's reach by what is stored."""
        is_small = self.tweet_count is not None and self.tweet_count < CLEARLY_WITHIN_REACH
        return is_small or not self._has_ceiling

    def _move_on(
        self, hole: IdRange, verdict: PageVerdict, *, lowest: int | None, next_token: str | None, state: AccountState
    ) -> None:
        is_head = hole.hi == BEYOND_ALL_IDS
        nothing_came = lowest is None and next_token is None
        if is_head and nothing_came and not (state.covered or self._head_asked or self.floor > LOWEST_ID):
            # A replica that answered empty gets one more chance before the account is called suspicious.
            self._empty_heads += 1
            self._head_asked = self._empty_heads > 1 or self.tweet_count == 0
            self._hole = None
            return
        if is_head:
            self._head_asked = True
            self._empty_heads = 0 if lowest is not None else self._empty_heads
        elif nothing_came and verdict == PageVerdict():
            # Only the lowest hole can end so, and it comes last.
            self._ended_short = True
        self._upper = lowest if lowest is not None else self._upper
        self._goes_round = next_token is not None and next_token == self._token
        self._token = next_token
        self._empty_answers = self._empty_answers + 1 if verdict.ask_again else 0
        if verdict.ask_again:
            self._hole = IdRange(hole.lo, self._upper)
        elif self._token is None:
            self._hole = None
        if self._has_ceiling:
            self._seek_witness(hole, verdict, is_empty=nothing_came)

    def _seek_witness(self, hole: IdRange, verdict: PageVerdict, *, is_empty: bool) -> None:
        """Go on with what is left of a hole, or below it; where the end is unsure, with a few tweets from below it."""
        left = hole.clipped(hi=self._upper)
        is_done = verdict.unreachable is not None or (verdict.proved is not None and verdict.proved.lo <= hole.lo)
        if self._token is not None and not self._wants_witness:
            return
        if is_done or left is None:
            self._holes_below = hole.lo
            return
        # Tweets came where the end was thought to be: they are followed down in whole pages again.
        self._hole, self._token = left, None
        self._wants_witness = not self._reach_is_known and (is_empty or not self._wants_witness)


def floor_of_new(covered: Coverage, watched_from: int | None) -> int | None:
    """Return the id from which on an account's tweets are new, given what is stored and the id of the watch's begin.

    A watch goes on where the stretch ends that was stored before it began, and leaves no hole above: what a poll that
    was broken off has left open is still new. An account that is not watched has its news above all that is stored.
    None when nothing is stored and nothing watched, so that nothing tells what is new.
    """
    if watched_from is None:
        return covered.top
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
