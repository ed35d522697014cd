"""A timeline as the API serves it, and a store, both as plain sets: what the planning properties run against."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from twitter_pipeline.coverage import BEYOND_ALL_IDS, EVERYTHING, REACH, Coverage, IdRange, id_at
from twitter_pipeline.planning import AccountState, TimelineRequest, Walk
from twitter_pipeline.request import FULL, FetchMode

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SETTLE = timedelta(seconds=30)


def ids_of(count: int, *, newest: datetime = NOW - timedelta(days=1), step_s: int = 3600) -> list[int]:
    """Ids of `count` tweets, one a `step_s` seconds, newest first."""
    return [id_at(newest - timedelta(seconds=step_s * n)) + n % 7 for n in range(count)]


@dataclass
class Timeline:
    """An account's tweets and how the API pages through the newest 3,200 of them."""

    ids: list[int]
    random: Random = field(default_factory=lambda: Random(0))
    short_pages: float = 0.0
    empty_pages: float = 0.0
    calls: int = 0
    billed: list[int] = field(default_factory=list)

    @property
    def served(self) -> list[int]:
        return sorted(self.ids, reverse=True)[:REACH]

    def ask(self, request: TimelineRequest) -> tuple[list[int], str | None]:
        self.calls += 1
        lo = request.since_id or 0
        hi = request.until_id or 2**63
        matching = [each for each in self.served if lo < each < hi]
        if request.pagination_token:
            matching = [each for each in matching if each < int(request.pagination_token.split(".")[0])]
        size = request.max_results
        if self.random.random() < self.empty_pages and matching:
            # The position stays, so the token must differ or a walker could not tell it from a loop.
            return [], f"{matching[0] + 1}.{self.calls}"
        if self.random.random() < self.short_pages:
            size = self.random.randint(1, size)
        page = matching[:size]
        self.billed.extend(page)
        return page, (f"{page[-1]}.{self.calls}" if len(matching) > len(page) else None)


class Interrupted(Exception):
    """The run was killed."""


@dataclass
class Store:
    """What is stored of one account."""

    ids: set[int] = field(default_factory=set)
    covered: Coverage = field(default_factory=Coverage)
    unreachable: Coverage = field(default_factory=Coverage)
    searched: Coverage = field(default_factory=Coverage)

    def state(self) -> AccountState:
        return AccountState(
            self.covered,
            self.unreachable,
            lambda lo: sum(1 for each in self.ids if each >= lo),
            lambda hi: min(sorted((each for each in self.ids if each < hi), reverse=True)[:5], default=None),
            self.searched,
        )

    def assert_true_to(self, timeline: Timeline) -> None:
        """Everything the API serves inside what is called covered is stored."""
        assert {each for each in timeline.served if each in self.covered} <= self.ids


def run(
    timeline: Timeline,
    store: Store,
    mode: FetchMode = FULL,
    *,
    page_size: int = 50,
    tweet_count: int | None = None,
    counted_below: int = BEYOND_ALL_IDS,
    span: IdRange = EVERYTHING,
    now: datetime = NOW,
    before_call: Callable[[int], None] = lambda _: None,
    before_save: Callable[[int], None] = lambda _: None,
) -> Walk:
    count = len(timeline.ids) if tweet_count is None else tweet_count
    walk = Walk(mode, page_size, count, counted_below, floor=span.lo, ceiling=span.hi)
    for turn in range(20_000):
        state = store.state()
        request = walk.next_request(state)
        if request is None:
            return walk
        before_call(turn)
        ids, token = timeline.ask(request)
        verdict = walk.judge(state, ids=ids, next_token=token, settled_below=id_at(now - SETTLE))
        before_save(turn)
        store.ids |= set(ids)
        store.covered |= verdict.proved
        store.unreachable |= verdict.unreachable
    raise AssertionError("the walk does not end")


def kill_at(turns: Iterable[int]) -> Callable[[int], None]:
    chosen = set(turns)

    def kill(turn: int) -> None:
        if turn in chosen:
            raise Interrupted

    return kill
