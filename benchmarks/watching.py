"""How late tweets are found by polling, for the same number of calls: three ways to share the calls out.

Everything runs on a virtual clock. The accounts are made up, but not to suit the planner: their rates follow a heavy
tail, each has its own time zone, waking hours and better and worse days, and a tweet is often followed by more within
minutes, which the planner knows nothing of. It learns from nothing but what its own polls brought.
"""

import heapq
import random
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import cos, exp, pi
from statistics import fmean, median

from benchmarks.place import Place
from benchmarks.printing import Sheet
from twitter_pipeline.polling.plan import Bounds, Plan, allocate, next_poll
from twitter_pipeline.polling.prior import learn_prior
from twitter_pipeline.polling.rates import HOURS, Memory, Rate

ACCOUNTS = 1_000
POLLS_PER_HOUR = 250
BOUNDS = Bounds(shortest=timedelta(minutes=1), longest=timedelta(hours=12))
START = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = timedelta(days=7)
MONTH = timedelta(days=30)
PLANNED_EVERY = timedelta(hours=1)

MEDIAN_A_DAY = 2.0
TAIL = 1.5
"""Sigma of the log-normal rates: the busiest of a thousand accounts tweets some 100 times as often as the median."""
UNEVEN_DAYS = 0.5
THREADS_UP_TO = 0.5
"""An account's chance that a tweet is followed by another lies between 0 and this; that comes 15 minutes later on
average."""
FOLLOWS_PER_HOUR = 4.0

BELOW_FIXED = 0.70
SAME_CALLS = 1.015
"""A plan changes while it is carried out, and jitter at the longest interval only shortens: both cost a few calls more
than were shared out."""
SMALLER = 100
SEEDS = (1, 2, 3, 4, 5, 6)
EVERY_H = (8.0, 2.0, 1.0)
MANY = 10_000
PLANNED_WITHIN_S = 0.1

Hours = list[float]


@dataclass(frozen=True, slots=True)
class Policy:
    """A way to share calls out: as what the planner is shown a rate; where it is shown none, all are polled alike."""

    name: str
    shown_as: Callable[[Rate], Rate] | None
    knows_month: bool = False


def _as_it_is(rate: Rate) -> Rate:
    return rate


def _squared(rate: Rate) -> Rate:
    # The planner polls by the root of a rate, so this makes it poll in proportion.
    return Rate(((rate.per_day / HOURS) ** 2,) * HOURS)


def _alike(_: Rate) -> Rate:
    return Rate((1.0,) * HOURS)


FIXED = Policy("fixed interval", None)
ALIKE = Policy("all alike, at other moments", _alike)
OURS_NEW = Policy("ours, nothing known before", _as_it_is)
OURS_MONTH = Policy("ours, a month of history", _as_it_is, knows_month=True)
POLICIES = (
    FIXED,
    Policy("in proportion to the rate, a month of history", _squared, knows_month=True),
    OURS_NEW,
    OURS_MONTH,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy did in its week: the calls it took, and how late each tweet was found, in ascending minutes."""

    calls: int
    delays: Hours

    @property
    def mean(self) -> float:
        """The mean delay in minutes."""
        return fmean(self.delays)

    @property
    def p95(self) -> float:
        """The delay in minutes within which 95 % of the tweets were found."""
        return self.delays[int(len(self.delays) * 0.95)]


def run(place: Place) -> list[str]:
    """Simulate the week for every policy, then smaller ones for several seeds and budgets; return the misses.

    Neither a server nor the sandbox is needed.
    """
    sheet = Sheet("6. Watching: how late tweets are found, for the same number of calls")
    world = [tweets_of(random.Random(f"0 {number}"), TAIL) for number in range(ACCOUNTS)]
    outcomes = {policy: simulate(world, policy, POLLS_PER_HOUR) for policy in POLICIES}
    _show(sheet, outcomes)
    for policy in (OURS_NEW, OURS_MONTH):
        share = outcomes[policy].mean / outcomes[FIXED].mean
        wanted = f"at most {BELOW_FIXED:.0%} of fixed"
        sheet.judge(f"mean delay, {policy.name}", f"{share:.0%} of fixed", wanted, ok=share <= BELOW_FIXED)
    most = _judge_others(sheet)
    most = max(most, *(outcome.calls / outcomes[FIXED].calls for outcome in outcomes.values()))
    sheet.judge("most calls of any", f"{most:.1%} of fixed", f"at most {SAME_CALLS:.1%}", ok=most <= SAME_CALLS)
    _judge_planning(sheet)
    return sheet.misses


def tweets_of(rng: random.Random, tail: float) -> Hours:
    """Make up when one account tweets, a month before the start and a week after, in hours from the start."""
    per_hour = MEDIAN_A_DAY / HOURS * exp(rng.gauss(0, tail))
    peak, narrow = rng.uniform(0, HOURS), rng.uniform(0.5, 2.5)
    habit = [exp(narrow * cos(2 * pi * (hour + 0.5 - peak) / HOURS)) for hour in range(HOURS)]
    goes_on = rng.uniform(0, THREADS_UP_TO)
    base = per_hour * (1 - goes_on) / fmean(habit)
    tweets: Hours = []
    for day in range(-MONTH.days, WEEK.days):
        good = exp(rng.gauss(-(UNEVEN_DAYS**2) / 2, UNEVEN_DAYS))
        for hour, share in enumerate(habit):
            for first in _poisson(rng, base * share * good):
                tweets.extend(_thread(rng, day * HOURS + hour + first, goes_on))
    return sorted(tweet for tweet in tweets if tweet < WEEK.days * HOURS)


def _poisson(rng: random.Random, per_hour: float) -> Iterator[float]:
    at = rng.expovariate(per_hour)
    while at < 1:
        yield at
        at += rng.expovariate(per_hour)


def _thread(rng: random.Random, at: float, goes_on: float) -> Iterator[float]:
    yield at
    while rng.random() < goes_on:
        at += rng.expovariate(FOLLOWS_PER_HOUR)
        yield at


def simulate(world: Sequence[Hours], policy: Policy, polls_per_hour: float) -> Outcome:
    """Watch the accounts for a week; a tweet not found by then is found by the account's next poll."""
    watch = _Watch(world, policy, polls_per_hour)
    calls = 0
    delays: Hours = []
    end = START + WEEK
    while watch.due:
        at, number = heapq.heappop(watch.due)
        found = watch.poll(number, at)
        delays += [((at - START) / timedelta(hours=1) - tweet) * 60 for tweet in found]
        if at < end:
            calls += 1
            watch.learn(number, at, found)
    return Outcome(calls, sorted(delays))


class _Watch:
    """The accounts of one simulation: what each has tweeted, what is known of it, and when it is polled next."""

    def __init__(self, world: Sequence[Hours], policy: Policy, polls_per_hour: float) -> None:
        self._world = world
        self._policy = policy
        self._polls_per_hour = polls_per_hour
        self._found = [bisect_right(tweets, 0.0) for tweets in world]
        self._memories = [self._memory(number) for number in range(len(world))]
        self._prior = learn_prior([memory.halves() for memory in self._memories])
        self._rates = [self._shown(memory) for memory in self._memories]
        self._plan = self._planned()
        self._planned_at = START
        self.due = [(self._next(number, START, joins=True), number) for number in range(len(world))]
        heapq.heapify(self.due)

    def poll(self, number: int, at: datetime) -> Hours:
        """Return what the account has tweeted since its last poll."""
        begin = self._found[number]
        self._found[number] = bisect_right(self._world[number], (at - START) / timedelta(hours=1), begin)
        return self._world[number][begin : self._found[number]]

    def learn(self, number: int, at: datetime, found: Hours) -> None:
        """Take in what a poll brought, and put down the next one."""
        if self._policy.shown_as is not None:
            self._memories[number] = self._memories[number].observe(_counted(found), at)
            self._rates[number] = self._shown(self._memories[number])
            if at - self._planned_at >= PLANNED_EVERY:
                self._prior = learn_prior([memory.halves() for memory in self._memories])
                self._plan, self._planned_at = self._planned(), at
        heapq.heappush(self.due, (self._next(number, at, joins=False), number))

    def _memory(self, number: int) -> Memory:
        if not self._policy.knows_month:
            return Memory(START)
        return Memory(START - MONTH).observe(_counted(self._world[number][: self._found[number]]), START)

    def _shown(self, memory: Memory) -> Rate:
        rate = memory.rate(self._prior)
        return self._policy.shown_as(rate) if self._policy.shown_as else rate

    def _planned(self) -> Plan:
        if self._policy.shown_as is None:
            every_h = len(self._world) / self._polls_per_hour
            return Plan(0.0, every_h, every_h)
        rates = [rate.even for rate in self._rates]
        return allocate(rates, polls_per_hour=self._polls_per_hour, bounds=BOUNDS)

    def _next(self, number: int, at: datetime, *, joins: bool) -> datetime:
        return next_poll(self._plan, self._rates[number], user_id=number, after=at, joins=joins)


def _counted(tweets: Hours) -> Counter[datetime]:
    return Counter(START + timedelta(hours=tweet) for tweet in tweets)


def _show(sheet: Sheet, outcomes: dict[Policy, Outcome]) -> None:
    found = len(outcomes[FIXED].delays)
    sheet.say(
        f"{ACCOUNTS:,} accounts, {found:,} tweets in a week, {POLLS_PER_HOUR} calls an hour, one account a call, "
        f"polled every {BOUNDS.shortest.seconds // 60} min to {BOUNDS.longest.seconds // 3600} h; delays in minutes"
    )
    rows = [
        (policy.name, outcome.calls, outcome.mean, median(outcome.delays), outcome.p95)
        for policy, outcome in outcomes.items()
    ]
    sheet.table(("policy", "calls", "mean delay", "median", "95 %"), rows)


def _judge_others(sheet: Sheet) -> float:
    """Hold ours against fixed for several seeds and budgets, also where all accounts have the same rate.

    What one small world shows is partly chance, so all worlds of a case are judged together; how much is chance is
    shown by polling all alike, only at other moments. Returns the most calls, as a share of those of fixed.
    """
    sheet.say(f"{SMALLER} accounts, in % of fixed: the best, all together and the worst of {len(SEEDS)} worlds each")
    rows: list[tuple[str, float, float, float, float]] = []
    judged = 0.0
    for name, tail in (("heavy tail", TAIL), ("same rate", 0.0)):
        worlds = [[tweets_of(random.Random(f"{seed} {each}"), tail) for each in range(SMALLER)] for seed in SEEDS]
        for every_h in EVERY_H:
            fixed = [simulate(world, FIXED, SMALLER / every_h) for world in worlds]
            for policy in (ALIKE, OURS_NEW, OURS_MONTH):
                others = [simulate(world, policy, SMALLER / every_h) for world in worlds]
                means = [100 * one.mean / other.mean for one, other in zip(others, fixed, strict=True)]
                together = 100 * _mean_of_all(others) / _mean_of_all(fixed)
                calls = [100 * one.calls / other.calls for one, other in zip(others, fixed, strict=True)]
                case = f"{name}, a poll every {every_h:g} h, {policy.name}"
                rows.append((case, min(means), together, max(means), max(calls)))
                judged = max(judged, together if policy is not ALIKE else 0.0)
    sheet.table(("accounts and policy", "mean delay, best", "together", "worst", "most calls"), rows)
    sheet.judge("worst mean delay of ours", f"{judged:.0f} % of fixed", "never above fixed", ok=judged <= 100)
    return max(row[4] for row in rows) / 100


def _mean_of_all(outcomes: Sequence[Outcome]) -> float:
    return fmean(delay for outcome in outcomes for delay in outcome.delays)


def _judge_planning(sheet: Sheet) -> None:
    rng = random.Random(1)
    rates = [MEDIAN_A_DAY / HOURS * exp(rng.gauss(0, TAIL)) for _ in range(MANY)]
    took: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        allocate(rates, polls_per_hour=MANY / 4, bounds=BOUNDS)
        took.append(time.perf_counter() - began)
    sheet.judge(
        f"sharing out among {MANY:,} accounts",
        f"{min(took) * 1000:.0f} ms",
        f"below {PLANNED_WITHIN_S * 1000:.0f} ms",
        ok=min(took) < PLANNED_WITHIN_S,
    )
