"""Whatever X answers, and whenever the process is killed: no claim is false, and all comes in the end.

`make test` tries a fixed number of examples, `make soak` as many random ones as wanted (SOAK_EXAMPLES).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from twitter_pipeline import history, planning
from twitter_pipeline.months import Months, month_of
from twitter_pipeline.request import FULL, NEW, FetchMode
from twitter_pipeline.store.database import Database
from twitter_pipeline.walks import chain, evidence
from twitter_pipeline.words import Source
from twitter_pipeline_tests.faulty_runs import Runs, empty
from twitter_pipeline_tests.faulty_x import STRANGER, Clock, Fault, FaultyX, Kind, XAccount

SOAK_EXAMPLES = int(os.environ.get("SOAK_EXAMPLES", "0"))
START = datetime(2026, 11, 15, 21, tzinfo=UTC)
NAMES = ("one", "two")
SMALL_REACH = 20

FEW = 5
"""So many stored tweets beside an end are requested with it: of fewer deleted ones another is left."""

WITNESSES = 4
"""Stored tweets that may be paid for again to settle a hole: one from either side, on two days."""

GAPS_S = (1, 40, 3_600, 86_400, 6 * 86_400)
"""Seconds between two tweets."""

FAULTS = st.one_of(
    st.none(),
    st.builds(Fault, st.frozensets(st.sampled_from(Kind), min_size=1, max_size=2), st.integers(0, 20)),
)


@dataclass(frozen=True)
class Run:
    """A run of some mode."""

    mode: str
    limit: int = 10
    months: int = 3
    names: tuple[str, ...] = NAMES[:1]
    page_size: int = 5
    faults: tuple[Fault | None, ...] = ()
    dies_after: int | None = None


@dataclass(frozen=True)
class Write:
    """New tweets of an account, a number of seconds apart."""

    tweets: int
    gap_s: int
    delay_s: int = 0
    name: str = NAMES[0]


@dataclass(frozen=True)
class Delete:
    """An account deletes its oldest or newest tweets."""

    tweets: int
    oldest: bool
    name: str = NAMES[0]


@dataclass(frozen=True)
class Track:
    """An account is tracked from now on."""

    name: str = NAMES[0]


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    seconds: int


@dataclass(frozen=True)
class Past:
    """What an account has written before the first step."""

    tweets: int = 0
    gap_s: int = 3_600
    retweet_each: int = 0
    stranger_each: int = 0
    unreadable_each: int = 0
    uncounted: int = 0


MODES = ("full", "full", "limit", "new", "search", "search", "timeline", "sweep")
RUNS = st.builds(
    Run,
    mode=st.sampled_from(MODES),
    limit=st.integers(1, 30),
    months=st.integers(1, 4),
    names=st.sampled_from([NAMES[:1], NAMES]),
    page_size=st.sampled_from([5, 10, 50]),
    faults=st.lists(FAULTS, max_size=8).map(tuple),
    dies_after=st.one_of(st.none(), st.integers(0, 60)),
)
WRITES = st.builds(
    Write,
    tweets=st.integers(1, 30),
    gap_s=st.sampled_from(GAPS_S[:3]),
    delay_s=st.integers(0, 25),
    name=st.sampled_from(NAMES),
)
WAITS = st.builds(Wait, st.sampled_from([1, 20, 60, 130, 1_000, 20_000, 86_400, 5 * 86_400]))
DELETIONS = st.builds(Delete, st.integers(1, 4), st.booleans(), st.sampled_from(NAMES))
STEPS = st.lists(
    st.one_of(RUNS, RUNS, RUNS, WRITES, WRITES, WAITS, WAITS, DELETIONS, st.builds(Track, st.sampled_from(NAMES))),
    min_size=1,
    max_size=8,
)
Step = Run | Write | Delete | Track | Wait
PASTS = st.builds(
    Past,
    tweets=st.integers(0, 40),
    gap_s=st.sampled_from(GAPS_S),
    retweet_each=st.sampled_from([0, 0, 3]),
    stranger_each=st.sampled_from([0, 0, 0, 25]),
    unreadable_each=st.sampled_from([0, 0, 0, 25]),
    uncounted=st.sampled_from([0, 0, 2, 30]),
)


def account_of(number: int, past: Past, clock: Clock) -> XAccount:
    account = XAccount(1_000 + number, NAMES[number], START - timedelta(days=400), uncounted=past.uncounted)
    for position in range(past.tweets):
        at = clock.now - timedelta(seconds=120 + position * past.gap_s)
        account.write(
            at,
            is_retweet=_is_each(position, past.retweet_each),
            is_readable=not _is_each(position, past.unreadable_each),
            author_id=STRANGER if _is_each(position, past.stranger_each) else None,
        )
    return account


def _is_each(position: int, each: int) -> bool:
    return bool(each) and position % each == each - 1


def mode_of(step: Run, now: datetime) -> FetchMode:
    last = month_of(now)
    first = last
    for _ in range(step.months - 1):
        first = (first - timedelta(days=1)).replace(day=1)
    return {
        "full": FULL,
        "limit": FetchMode(step.limit),
        "new": NEW,
        "search": FetchMode(months=Months(first, last), source=Source.SEARCH),
        "timeline": FetchMode(months=Months(first, last), source=Source.TIMELINE),
        "sweep": FetchMode(swept_day=now.date()),
    }[step.mode]


def take(step: Step, runs: Runs) -> None:
    clock = runs.x.clock
    match step:
        case Run():
            runs.run(
                *step.names,
                mode=mode_of(step, clock.now),
                page_size=step.page_size,
                faults=step.faults,
                dies_after=step.dies_after,
            )
        case Write():
            for _ in range(step.tweets):
                runs.x.accounts[step.name].write(clock.now, delay_s=step.delay_s)
                clock.advance(timedelta(seconds=step.gap_s))
        case Delete() if runs.x.reach > SMALL_REACH:
            # Of a small reach a few would be more than the tenth by which a timeline may be short of it.
            runs.x.accounts[step.name].delete(step.tweets, oldest=step.oldest)
        case Track():
            runs.track(runs.x.accounts[step.name])
        case Wait():
            clock.advance(timedelta(seconds=step.seconds))
        case _:
            pass


def assert_all_comes_in_the_end(runs: Runs) -> None:
    """Once X answers as it should, a few runs fetch all within reach, pay for little again and leave no doubt."""
    accounts = list(runs.x.accounts.values())
    billed, bought_twice = set(runs.x.billed), runs.x.bought_twice()
    before = [runs.stored(account) for account in accounts]
    pauses_min = (3, 3, 24 * 60, 3, 3, 3) if any(account.deleted for account in accounts) else (3, 3, 24 * 60, 3)
    for pause_min in pauses_min:
        runs.x.clock.advance(timedelta(minutes=pause_min))
        runs.run(*NAMES)
        runs.assert_claims_hold()
        assert "failed" not in runs.outcomes
    claimed = [one.covered | one.searched for one in before]
    not_claimed = len({post for post, _ in billed if not any(post in each for each in claimed)})
    holes = sum(len((one.covered | one.searched).ranges) + len(one.open_doubts) + 1 for one in before)

    assert runs.x.bought_twice() - bought_twice <= not_claimed + WITNESSES * holes
    for account in accounts:
        stored = runs.stored(account)
        served = [
            each
            for each in runs.x.served(account)
            # Retweets are left to a run that reads the timeline, where the search has filled a month.
            if each.author_id == account.id and not (each.is_retweet and each.id in stored.searched)
        ]
        readable = [each.id for each in served if each.is_readable]
        known = stored.covered | stored.searched | stored.unreachable
        note(f"{stored}")

        assert [each for each in readable if each not in stored.ids] == []
        assert [each for each in readable if each not in stored.covered | stored.searched] == []
        assert [each.id for each in served if each.id not in known] == []
        # Without a tweet to be shown, an empty response may be one by mistake.
        if (served or not account.uncounted) and len(account.deleted) < FEW:
            assert stored.open_doubts == []


@settings(
    max_examples=SOAK_EXAMPLES or 300,
    derandomize=not SOAK_EXAMPLES,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=(Phase.generate, Phase.shrink),
)
@given(
    pasts=st.tuples(PASTS, PASTS),
    steps=STEPS,
    reach=st.sampled_from([evidence.REACH, SMALL_REACH]),
    last_page_has_token=st.booleans(),
)
@pytest.mark.timeout(0)
def test_no_claim_is_false_and_all_comes_in_the_end(
    database: Database,
    pasts: Sequence[Past],
    steps: Sequence[Step],
    reach: int,
    last_page_has_token: bool,
) -> None:
    empty(database)
    clock = Clock(START)
    accounts = [account_of(number, past, clock) for number, past in enumerate(pasts)]
    x = FaultyX(clock, accounts, reach=reach, last_page_has_token=last_page_has_token)
    runs = Runs(database, x)
    with pytest.MonkeyPatch.context() as patch:
        for module in (evidence, chain, planning, history):
            patch.setattr(module, "REACH", reach)
        for module in (evidence, planning):
            patch.setattr(module, "CLEARLY_WITHIN_REACH", reach * 9 // 10)
        for step in steps:
            take(step, runs)
            runs.assert_claims_hold()
        assert_all_comes_in_the_end(runs)
