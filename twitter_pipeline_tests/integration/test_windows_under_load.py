"""Many workers against an X that counts: no call that could have been spared is refused, and nothing is left unused."""

import heapq
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, cycle, product
from math import ceil, floor

import pytest

from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import register_tokens
from twitter_pipeline.store.windows import Lease, Settlement, lease_call, load_windows, settle_call
from twitter_pipeline.tokens import waits_until
from twitter_pipeline.words import CallOutcome
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.rate_limit import RateLimits, RateLimitWindow

ENDPOINT = Endpoint.USER_TWEETS
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
LEASE_S = 60.0
LENGTH_S = 900.0

Window = tuple[str, Endpoint]
"""A token at an endpoint."""


@dataclass(frozen=True)
class Answered:
    """What X says to a call; `decided_at` is when it counted it."""

    window: Window
    decided_at: float
    refused: bool
    limits: RateLimits
    epoch: int


@dataclass
class CountingX:
    """Fixed windows of each token and endpoint, by a clock that is wrong by `skew_s`; instants in seconds from noon."""

    limit: int
    offsets: dict[Window, float]
    skew_s: float
    used: Counter[tuple[Window, int]] = field(default_factory=Counter[tuple[Window, int]])
    foreign: defaultdict[Window, list[float]] = field(default_factory=lambda: defaultdict(list))

    def number(self, window: Window, seconds: float) -> int:
        """Number the windows of a token at an endpoint."""
        return floor((seconds - self.offsets[window]) / LENGTH_S)

    def count(self, window: Window, seconds: float) -> Answered:
        number = self.number(window, seconds)
        refused = self.used[window, number] >= self.limit
        self.used[window, number] += not refused
        by_its_clock = NOON + timedelta(seconds=seconds + self.skew_s)
        resets_at = self.offsets[window] + (number + 1) * LENGTH_S + self.skew_s
        epoch = int(NOON.timestamp()) + ceil(resets_at)
        said = RateLimitWindow(self.limit, self.limit - self.used[window, number], epoch)
        return Answered(window, seconds, refused, RateLimits(said, None, by_its_clock.replace(microsecond=0)), number)

    def count_foreign(self, window: Window, seconds: float) -> None:
        if not self.count(window, seconds).refused:
            self.foreign[window].append(seconds)


@dataclass(frozen=True)
class Refusal:
    """A call that X refused, and what was known when it was leased."""

    answered: Answered
    leased_at: float
    known_at: float


@dataclass(frozen=True)
class Monitored:
    """A call of monitoring: when it was wanted, and when it could be sent."""

    wanted_at: float
    leased_at: float


class Simulation:
    """Workers that lease, call and settle, in a time of their own; the database is real.

    Workers take calls by a `share`, each at one of the endpoints; beside them monitoring may want a call every so many
    seconds. Of the window that is `lied_of` every tenth response is false.
    """

    def __init__(
        self,
        database: Database,
        *,
        seed: int,
        tokens: int = 2,
        endpoints: Sequence[Endpoint] = (ENDPOINT,),
        limit: int = 20,
        workers: int = 7,
        share: float = 1.0,
        death_rate: float = 0.0,
        fault_rate: float = 0.0,
        lied_of: Window | None = None,
        foreign_every_s: float | None = None,
        monitored_every_s: float | None = None,
    ) -> None:
        self.database = database
        self.random = random.Random(seed)
        self.env_keys = [f"TWITTER_BEARER_{number}" for number in range(1, tokens + 1)]
        self.windows = list(product(self.env_keys, endpoints))
        self.x = CountingX(
            limit,
            {window: self.random.uniform(-LENGTH_S, 0) for window in self.windows},
            self.random.uniform(-1e6, 1e6),
        )
        self.lied_of = lied_of
        self.share = share
        self.death_rate = death_rate
        self.fault_rate = fault_rate
        self.foreign_every_s = foreign_every_s
        self.monitored_every_s = monitored_every_s
        self.monitored: list[Monitored] = []
        self.deaths = 0
        self.refusals: list[Refusal] = []
        self.known: list[tuple[float, Answered]] = []
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()
        self._waiting: dict[int, Callable[[float], None]] = {}
        register_tokens(database, self.env_keys, endpoints)
        for _, endpoint in zip(range(workers), cycle(endpoints), strict=False):
            self._at(self.random.uniform(0, 1), partial(self._work, endpoint))
        if foreign_every_s is not None:
            self._at(self.random.uniform(0, foreign_every_s), self._use_elsewhere)
        if monitored_every_s is not None:
            self._at(self.random.uniform(0, monitored_every_s), self._monitor)

    def run(self, until: float) -> None:
        while self._events[0][0] <= until:
            seconds, _, act = heapq.heappop(self._events)
            act(seconds)

    def used_share(self, until: float) -> float:
        """Return which share of the calls was used in whole windows of the time simulated, false ones left out."""
        shares = [
            self.x.used[window, number] / self.x.limit
            for window in self.windows
            if window != self.lied_of
            for number in range(self.x.number(window, 0) + 1, self.x.number(window, until))
        ]
        return sum(shares) / len(shares)

    def avoidable_refusals(self) -> list[Refusal]:
        """Return the refusals that nothing explains which could not be known.

        Not known is what another program used since X counted the latest call that was answered when the refused one
        was leased.
        """
        return [
            refusal
            for refusal in self.refusals
            if not any(
                refusal.known_at < used_at <= refusal.answered.decided_at
                for used_at in self.x.foreign[refusal.answered.window]
            )
        ]

    def _at(self, seconds: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (seconds, next(self._numbers), act))

    def _work(self, endpoint: Endpoint, seconds: float) -> None:
        now = NOON + timedelta(seconds=seconds)
        work_on = partial(self._work, endpoint)
        lease = lease_call(self.database, endpoint, self.env_keys, lease_s=LEASE_S, share=self.share, now=now)
        if lease is None:
            self._wait(endpoint, seconds, now, work_on, share=self.share)
        elif self.random.random() < self.death_rate:
            self.deaths += 1
            self._at(seconds + 20, work_on)
            if self.random.random() < 0.5:
                self._send(seconds, lease, then=None)
        else:
            self._send(seconds, lease, then=work_on)

    def _monitor(self, wanted_at: float) -> None:
        assert self.monitored_every_s is not None
        self._at(wanted_at + self.monitored_every_s, self._monitor)

        def ask(seconds: float) -> None:
            now = NOON + timedelta(seconds=seconds)
            lease = lease_call(self.database, ENDPOINT, self.env_keys, lease_s=LEASE_S, now=now)
            if lease is None:
                self._wait(ENDPOINT, seconds, now, ask, share=1.0)
                return
            self.monitored.append(Monitored(wanted_at, seconds))
            self._send(seconds, lease, then=lambda _: None)

        ask(wanted_at)

    def _send(self, seconds: float, lease: Lease, *, then: Callable[[float], None] | None) -> None:
        """Let a call reach X; it is settled when the answer comes, unless whoever sent it is dead by then."""
        connected_in, answered_in = self._latencies()

        def arrive(arrived: float) -> None:
            answered = self.x.count((lease.env_key, lease.endpoint), arrived)
            if then is not None:
                self._at(arrived + answered_in, lambda settled: self._settle(settled, seconds, lease, answered, then))

        self._at(seconds + connected_in, arrive)

    def _latencies(self) -> tuple[float, float]:
        """Choose how long a call takes to X, and back; few take nearly as long as a call may."""
        slow = self.random.random() < 0.05
        connected_in = self.random.uniform(0, 9.5) if slow else self.random.expovariate(10)
        return min(connected_in, 9.5), self.random.uniform(5, 20) if slow else self.random.uniform(0.05, 1.5)

    def _settle(
        self, settled: float, leased: float, lease: Lease, answered: Answered, then: Callable[[float], None]
    ) -> None:
        outcome = CallOutcome.TOO_MANY_REQUESTS if answered.refused else CallOutcome.OK
        settlement = Settlement(outcome, 429 if answered.refused else 200, answered.limits)
        if not answered.refused and self.random.random() < self.fault_rate:
            settlement = self._fault(answered)
        if answered.window == self.lied_of and self.random.random() < 0.1:
            settlement = self._lie(answered)
        settle_call(self.database, lease, settlement, now=NOON + timedelta(seconds=settled))
        if answered.refused:
            self.refusals.append(Refusal(answered, leased, self._known_at(leased, answered)))
        self.known.append((settled, answered))
        for number in list(self._waiting)[:2]:
            self._waiting.pop(number)(settled)
        then(settled)

    def _fault(self, answered: Answered) -> Settlement:
        """A fault of X, with the headers of another limiter or with none; what X has counted stays counted."""
        assert answered.limits.window is not None
        general = RateLimitWindow(40_000, 39_990, answered.limits.window.reset_epoch + self.random.randint(-900, 900))
        limits = self.random.choice([None, RateLimits(general, None, answered.limits.answered_at)])
        return Settlement(CallOutcome.SERVER_FAULT, self.random.choice([500, 502, 503, 401]), limits)

    def _lie(self, answered: Answered) -> Settlement:
        """A response whose headers are false: what is left, the reset, or X's Date."""
        assert answered.limits.window is not None
        assert answered.limits.answered_at is not None
        epoch = answered.limits.window.reset_epoch + self.random.choice([0, 0, -600, 900, -86_400, 86_400])
        window = RateLimitWindow(self.x.limit, self.random.choice([0, 1, 7, 40_000]), epoch)
        date = answered.limits.answered_at + timedelta(seconds=self.random.choice([0, 0, 1, -86_400, 86_400]))
        outcome, status = self.random.choice([(CallOutcome.OK, 200), (CallOutcome.TOO_MANY_REQUESTS, 429)])
        return Settlement(outcome, status, RateLimits(window, None, date))

    def _known_at(self, leased: float, answered: Answered) -> float:
        opened = self.x.offsets[answered.window] + answered.epoch * LENGTH_S
        decided = (
            other.decided_at
            for settled, other in self.known
            if settled <= leased and (other.window, other.epoch) == (answered.window, answered.epoch)
        )
        return max(decided, default=opened)

    def _wait(
        self, endpoint: Endpoint, seconds: float, now: datetime, ask: Callable[[float], None], *, share: float
    ) -> None:
        states = load_windows(self.database, endpoint, self.env_keys, now=now)
        until = waits_until(states, lease_s=LEASE_S, share=share)
        number = next(self._numbers)
        self._waiting[number] = ask

        def look_again(later: float) -> None:
            if self._waiting.pop(number, None) is not None:
                ask(later)

        self._at(seconds + 5 if until is None else (until - NOON).total_seconds(), look_again)

    def _use_elsewhere(self, seconds: float) -> None:
        assert self.foreign_every_s is not None
        for _ in range(self.random.randint(1, 4)):
            self.x.count_foreign(self.random.choice(self.windows), seconds)
        self._at(seconds + self.random.expovariate(1 / self.foreign_every_s), self._use_elsewhere)


@pytest.mark.parametrize("seed", range(3))
def test_all_that_the_limits_allow_is_used_and_nothing_is_refused(database: Database, seed: int) -> None:
    simulation = Simulation(database, seed=seed)
    simulation.run(until=5 * LENGTH_S)

    assert (simulation.refusals, simulation.used_share(5 * LENGTH_S)) == ([], pytest.approx(1, abs=0.02))


@pytest.mark.parametrize("seed", [1, 6])
def test_faults_with_the_headers_of_another_limiter_cost_no_refusal_and_next_to_nothing(
    database: Database, seed: int
) -> None:
    simulation = Simulation(database, seed=seed, fault_rate=0.2, limit=100)
    simulation.run(until=3 * LENGTH_S)

    # Whether X has counted a call before or after one beside it that failed cannot be known: some stay unused for that.
    assert (simulation.refusals, simulation.used_share(3 * LENGTH_S)) == ([], pytest.approx(1, abs=0.02))


@pytest.mark.parametrize("seed", [4, 7])
def test_false_headers_of_one_window_cost_the_others_nothing(database: Database, seed: int) -> None:
    lied_of = ("TWITTER_BEARER_1", Endpoint.USERS)
    simulation = Simulation(
        database, seed=seed, endpoints=(ENDPOINT, Endpoint.USERS), limit=60, fault_rate=0.05, lied_of=lied_of
    )
    simulation.run(until=3 * LENGTH_S)

    assert [each for each in simulation.refusals if each.answered.window != lied_of] == []
    assert simulation.used_share(3 * LENGTH_S) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("seed", range(2))
def test_dying_workers_cost_their_leases_and_no_refusal(database: Database, seed: int) -> None:
    simulation = Simulation(database, seed=seed, death_rate=0.05)
    simulation.run(until=5 * LENGTH_S)

    assert simulation.deaths > 0
    assert simulation.refusals == []
    assert simulation.used_share(5 * LENGTH_S) > 0.9


@pytest.mark.parametrize("seed", range(2))
def test_beside_another_program_only_what_could_not_be_known_is_refused(database: Database, seed: int) -> None:
    simulation = Simulation(database, seed=seed, foreign_every_s=1, death_rate=0.02)
    simulation.run(until=4 * LENGTH_S)

    assert sum(map(len, simulation.x.foreign.values())) > 20
    assert simulation.avoidable_refusals() == []


@pytest.mark.parametrize("share", [0.1, 0.8])
def test_a_backfill_alone_uses_all_that_the_limits_allow_whatever_its_share(database: Database, share: float) -> None:
    simulation = Simulation(database, seed=1, share=share, limit=40)
    simulation.run(until=4 * LENGTH_S)

    assert (simulation.refusals, simulation.used_share(4 * LENGTH_S)) == ([], pytest.approx(1, abs=0.02))


@pytest.mark.parametrize("seed", range(2))
def test_beside_a_backfill_monitoring_gets_the_calls_of_its_part_at_once(database: Database, seed: int) -> None:
    # 20 calls a window of the 40 that are kept for it by two tokens; the backfill wants more than there are.
    simulation = Simulation(database, seed=seed, share=0.8, limit=100, monitored_every_s=45)
    simulation.run(until=4 * LENGTH_S)
    waits = [each.leased_at - each.wanted_at for each in simulation.monitored]

    assert len(waits) >= 79
    # A call waits that is wanted just before a reset, or while the first answer of a new window is awaited.
    assert (sum(wait == 0 for wait in waits) / len(waits) > 0.95, max(waits) < 30) == (True, True)
    assert (simulation.refusals, simulation.used_share(4 * LENGTH_S)) == ([], pytest.approx(1, abs=0.02))


def test_without_a_share_the_same_monitoring_waits_for_the_reset(database: Database) -> None:
    simulation = Simulation(database, seed=0, limit=100, monitored_every_s=45)
    simulation.run(until=4 * LENGTH_S)
    waits = [each.leased_at - each.wanted_at for each in simulation.monitored]

    assert sum(wait > 60 for wait in waits) / len(waits) > 0.3


def test_sixteen_threads_never_overdraw_eight_tokens(database: Database) -> None:
    env_keys = [f"TWITTER_BEARER_{number}" for number in range(1, 9)]
    register_tokens(database, env_keys, [ENDPOINT.value])
    limit, resets_at = 12, datetime.now(UTC) + timedelta(minutes=10)
    used: Counter[str] = Counter()
    lock = threading.Lock()

    def call(env_key: str) -> RateLimits:
        with lock:
            used[env_key] += 1
            left = limit - used[env_key]
        window = RateLimitWindow(limit, max(0, left), int(resets_at.timestamp()))
        time.sleep(random.uniform(0, 0.005))
        return RateLimits(window, None, datetime.now(UTC).replace(microsecond=0))

    def work(_: int) -> int:
        calls = 0
        while used.total() < limit * len(env_keys):
            lease = lease_call(database, ENDPOINT, env_keys, lease_s=LEASE_S)
            if lease is None:
                time.sleep(0.005)
                continue
            settle_call(database, lease, Settlement(CallOutcome.OK, 200, call(lease.env_key)))
            calls += 1
        return calls

    with ThreadPoolExecutor(16) as threads:
        calls = sum(threads.map(work, range(16)))

    states = load_windows(database, ENDPOINT, env_keys)
    assert calls == limit * len(env_keys)
    assert dict(used) == dict.fromkeys(env_keys, limit)
    assert [(state.remaining, state.in_flight) for state in states] == [(0, 0)] * 8
