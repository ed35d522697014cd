"""A timeline as the API serves it, and a store, both as plain sets: what the planning properties run against."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from random import Random

from twitter_pipeline.coverage import BEYOND_ALL_IDS, EVERYTHING, Coverage, IdRange, id_at
from twitter_pipeline.planning import CONFIRM_AFTER, AccountState, PageVerdict, StoredTweet, TimelineRequest, Walk
from twitter_pipeline.request import FULL, FetchMode
from twitter_pipeline.walks.doubts import Doubt
from twitter_pipeline.walks.evidence import REACH, Item, Oddity

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SETTLE = timedelta(seconds=30)
LONG_AGO = NOW - timedelta(days=100)


def ids_of(count: int, *, newest: datetime = NOW - timedelta(days=1), step_s: int = 3600) -> list[int]:
    """Ids of `count` tweets, one a `step_s` seconds, newest first."""
    return [id_at(newest - timedelta(seconds=step_s * n)) + n % 7 for n in range(count)]


class TokenRefused(Exception):
    """The API does not take a page token."""


@dataclass
class Timeline:
    """An account's tweets and how the API pages through the newest 3,200 of them.

    `odd` are ids in whose place something else is shown. `shown` lists every tweet as often as it was on a page,
    `billed` what is paid for: each tweet once a UTC day.
    """

    ids: list[int]
    random: Random = field(default_factory=lambda: Random(0))
    short_pages: float = 0.0
    empty_pages: float = 0.0
    refused_tokens: float = 0.0
    odd: dict[int, Oddity] = field(default_factory=dict)
    calls: int = 0
    shown: list[int] = field(default_factory=list)
    billed: list[int] = field(default_factory=list)
    _billed_on: set[tuple[date, int]] = field(default_factory=set)

    @property
    def served(self) -> list[int]:
        return sorted(self.ids, reverse=True)[:REACH]

    @property
    def readable(self) -> list[int]:
        return [each for each in self.served if each not in self.odd]

    def ask(self, request: TimelineRequest, now: datetime = NOW) -> tuple[list[Item], str | None]:
        self.calls += 1
        lo = request.since_id or 0
        hi = request.until_id or 2**63
        matching = [each for each in self.served if lo < each < hi]
        if request.pagination_token:
            if self.random.random() < self.refused_tokens:
                raise TokenRefused
            matching = [each for each in matching if each < int(request.pagination_token.split(".")[0])]
        size = request.max_results
        if self.random.random() < self.empty_pages and matching:
            # The position stays, so the token must differ or a walker could not tell it from a loop.
            return [], f"{matching[0] + 1}.{self.calls}"
        if self.random.random() < self.short_pages:
            size = self.random.randint(1, size)
        page = matching[:size]
        for each in page:
            if each not in self.odd:
                self.shown.append(each)
                if (now.date(), each) not in self._billed_on:
                    self._billed_on.add((now.date(), each))
                    self.billed.append(each)
        items: list[Item] = [self.odd.get(each, each) for each in page]
        return items, (f"{page[-1]}.{self.calls}" if len(matching) > len(page) else None)


class Interrupted(Exception):
    """The run was killed."""


@dataclass
class Store:
    """What is stored of one account, and the clock that its runs read.

    What was stored by no call of a run was read long ago.
    """

    ids: set[int] = field(default_factory=set)
    covered: Coverage = field(default_factory=Coverage)
    unreachable: Coverage = field(default_factory=Coverage)
    searched: Coverage = field(default_factory=Coverage)
    doubts: dict[int, Doubt] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    now: datetime = NOW
    _read_at: dict[int, datetime] = field(default_factory=dict)
    _doubts_begun: int = 0

    @property
    def open_doubts(self) -> list[Doubt]:
        return [each for each in self.doubts.values() if each.is_open]

    def state(self) -> AccountState:
        return AccountState(
            self.covered,
            self.unreachable,
            count_from=lambda lo: sum(each >= lo for each in self.ids),
            count_below=lambda hi: sum(each < hi for each in self.ids - self.removed),
            stored_among=lambda ids: self.ids & set(ids),
            below=lambda hi: self._stored(each for each in sorted(self.ids, reverse=True) if each < hi),
            above=lambda lo: self._stored(each for each in sorted(self.ids) if each >= lo),
            searched=self.searched,
            doubts=tuple(self.doubts.values()),
        )

    def _stored(self, ids: Iterable[int]) -> list[StoredTweet]:
        kept = [each for each in ids if each not in self.removed]
        return [StoredTweet(each, self._read_at.get(each, LONG_AGO)) for each in kept[:5]]

    def save(self, ids: Collection[int], verdict: PageVerdict) -> None:
        """Store a page and what it proves, as the database does in one transaction."""
        self.ids |= set(ids)
        self._read_at |= dict.fromkeys(ids, self.now)
        if verdict.retracted is not None:
            self.covered -= Coverage((verdict.retracted,))
        self.covered |= verdict.proved
        self.unreachable = (self.unreachable | verdict.unreachable) - self.covered
        noted = {each.id for each in verdict.noted}
        settled = {each.id for each in self.open_doubts if not Coverage((each.ids,)) - self.covered}
        for gone in (settled | set(verdict.ended)) - noted:
            self.doubts.pop(gone or 0, None)
        for doubt in verdict.noted:
            if doubt.id is None:
                self._doubts_begun += 1
                self.doubts[self._doubts_begun] = replace(doubt, id=self._doubts_begun)
            else:
                self.doubts[doubt.id] = doubt

    def assert_true_to(self, timeline: Timeline) -> None:
        """Everything the API serves inside what is called covered is stored."""
        assert {each for each in timeline.readable if each in self.covered} <= self.ids


def run(
    timeline: Timeline,
    store: Store,
    mode: FetchMode = FULL,
    *,
    page_size: int = 50,
    tweet_count: int | None = None,
    counted_below: int = BEYOND_ALL_IDS,
    span: IdRange = EVERYTHING,
    only_due: bool = False,
    asks_head: bool = True,
    before_call: Callable[[int], None] = lambda _: None,
    before_save: Callable[[int], None] = lambda _: None,
) -> Walk:
    """Walk down a timeline until nothing more is to be requested. X's count is that of the timeline unless given."""
    walk = Walk(
        mode,
        page_size,
        len(timeline.ids) if tweet_count is None else tweet_count,
        counted_below,
        floor=span.lo,
        ceiling=span.hi,
        only_due=only_due,
        asks_head=asks_head,
    )
    for turn in range(20_000):
        state = store.state()
        request = walk.next_request(state, store.now)
        if request is None:
            return walk
        before_call(turn)
        try:
            items, token = timeline.ask(request, store.now)
        except TokenRefused:
            walk.drop_token()
            continue
        verdict = walk.judge(
            state,
            items=items,
            next_token=token,
            answered_at=store.now,
            settled_below=id_at(store.now - SETTLE),
        )
        before_save(turn)
        store.save(ids_among(items), verdict)
    raise AssertionError("the walk does not end")


def run_until_confirmed(timeline: Timeline, store: Store, mode: FetchMode = FULL, **options: object) -> Walk:
    """Run, and once more when what it left open can be confirmed, as a fetch run does before it finishes."""
    walk = run(timeline, store, mode, **options)  # type: ignore[arg-type]
    if walk.can_be_confirmed:
        store.now += CONFIRM_AFTER
        walk = run(timeline, store, mode, asks_head=False, **options)  # type: ignore[arg-type]
    return walk


def ids_among(items: Sequence[Item]) -> list[int]:
    return [each for each in items if isinstance(each, int)]


def kill_at(turns: Iterable[int]) -> Callable[[int], None]:
    chosen = set(turns)

    def kill(turn: int) -> None:
        if turn in chosen:
            raise Interrupted

    return kill
