"""Whatever X answers, and whenever the process is killed: no claim is false, and all comes in the end.

`make test` tries a fixed number of examples, `make soak` as many random ones as wanted (SOAK_EXAMPLES).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
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
REACHES = (evidence.REACH, SMALL_REACH)

FEW = 5
"""So many stored tweets beside an end are requested with it: of fewer deleted ones another is left."""

A_DAY = 24 * 60

WITNESSES = 4
"""Stored tweets that may be paid for again to settle a hole: one from either side, on two days."""

GAPS_S = (1, 40, 3_600, 86_400, 6 * 86_400)
"""Seconds between two tweets."""

ENDS = (Kind.CUT, Kind.CUT_END, Kind.BREAK_OFF, Kind.EMPTY_PAGE)
ORDERS = (Kind.SHUFFLE, Kind.SWAP, Kind.PINNED, Kind.PINNED_BELOW, Kind.REPEAT, Kind.REPEAT_ANEW, Kind.GO_BACK)
ORDERS += (Kind.EXPIRED,)
ODDITIES = (Kind.UNREADABLE, Kind.NOT_AN_OBJECT, Kind.ODD_TEXT, Kind.FOREIGN, Kind.FOREIGN_TOO)
OUTAGES = (Kind.HTTP_503, Kind.TRUNCATED, Kind.EMPTY_OBJECT, Kind.BARE_META, Kind.FLAT_PROBLEM, Kind.ONLY_ERRORS)
TIMELINES = ("full", "full", "full", "limit", "new", "timeline", "sweep")
SEARCHES = ("search",)


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


WRITES = st.builds(
    Write,
    tweets=st.integers(1, 30),
    gap_s=st.sampled_from(GAPS_S[:3]),
    delay_s=st.integers(0, 25),
    name=st.sampled_from(NAMES),
)
WAITS = st.builds(Wait, st.sampled_from([1, 20, 60, 130, 130, 130, 1_000, 20_000, 86_400, 5 * 86_400]))
DELETIONS = st.builds(Delete, st.integers(1, 4), st.booleans(), st.sampled_from(NAMES))
TRACKS = st.builds(Track, st.sampled_from(NAMES))
Step = Run | Write | Delete | Track | Wait


def runs_of(modes: Sequence[str], kinds: Sequence[Kind]) -> st.SearchStrategy[Run]:
    """Choose a run in one of these modes, in which X does some of these things."""
    fault = st.builds(Fault, st.frozensets(st.sampled_from(kinds), min_size=1, max_size=2), st.integers(0, 20))
    return st.builds(
        Run,
        mode=st.sampled_from(modes),
        limit=st.integers(1, 30),
        months=st.integers(1, 4),
        names=st.sampled_from([NAMES[:1], NAMES[:1], NAMES]),
        page_size=st.sampled_from([5, 10, 50]),
        faults=st.lists(st.one_of(st.none(), fault, fault), max_size=6).map(tuple),
        dies_after=st.one_of(st.none(), st.none(), st.integers(0, 60)),
    )


def steps_of(modes: Sequence[str], kinds: Sequence[Kind]) -> st.SearchStrategy[list[Step]]:
    """Choose steps: mostly runs, with new tweets before them and time between them."""
    runs = runs_of(modes, kinds)
    rounds = st.tuples(st.one_of(WRITES, WAITS, WAITS, DELETIONS, TRACKS), runs)
    return st.tuples(runs, st.lists(rounds, max_size=4)).map(lambda drawn: [drawn[0], *chain_of(drawn[1])])


def chain_of(rounds: Sequence[tuple[Step, Step]]) -> list[Step]:
    return [step for each in rounds for step in each]


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
    pauses_min = (3, 3, A_DAY, 3, 3, 3, A_DAY) if any(each.deleted for each in accounts) else (3, 3, A_DAY, 3)
    for pause_min in pauses_min:
        runs.x.clock.advance(timedelta(minutes=pause_min))
        runs.run(*NAMES)
        runs.assert_claims_hold()
        assert "failed" not in runs.outcomes
    claimed = {
        each.id
        for account, one in zip(accounts, before, strict=True)
        for each in account.items
        if each.id in one.covered | one.searched
    }
    not_claimed = len({post for post, _ in billed} - claimed)
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

        assert [each for each in readable if each not in stored.ids] == []
        assert [each for each in readable if each not in stored.covered | stored.searched] == []
        assert [each.id for each in served if each.id not in known] == []
        # Without a tweet to be shown, an empty response may be one by mistake.
        if (served or not account.uncounted) and len(account.deleted) < FEW:
            assert stored.open_doubts == []


def check(
    database: Database, pasts: Sequence[Past], steps: Sequence[Step], *, reach: int, last_page_has_token: bool = False
) -> None:
    """Take the steps, and see after each that no claim is false, and in the end that all comes."""
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


@dataclass(frozen=True)
class History:
    """Steps that once led to a false claim or to a doubt without end, or would if a rule were left out."""

    steps: tuple[Step, ...]
    pasts: tuple[Past, Past] = (Past(), Past())
    reach: int = evidence.REACH


def fault(*kinds: Kind, number: int = 0) -> Fault:
    return Fault(frozenset(kinds), number)


BREAKS_OFF = Run("full", page_size=10, faults=(fault(Kind.BREAK_OFF), fault(Kind.CUT_END)))
ELEVEN = (Past(11), Past())

HISTORIES = {
    "an end is shown again by an empty response": History(
        (BREAKS_OFF, Wait(130), Run("full", faults=(None, fault(Kind.CUT_END)))), ELEVEN
    ),
    "a response that should show an end again breaks off above it": History(
        (BREAKS_OFF, Wait(130), Run("full", faults=(None, fault(Kind.CUT_END, number=2)))), ELEVEN
    ),
    "an end is shown again seconds later": History(
        (BREAKS_OFF, Run("full", page_size=10, faults=(None, fault(Kind.CUT_END, number=5)))), ELEVEN
    ),
    "a tweet becomes visible after one that is newer": History(
        (Write(1, 1, delay_s=25), Write(1, 1), Run("full")), (Past(1), Past())
    ),
    "a search is answered by problems again and again": History(
        (Run("search", months=1, faults=(fault(Kind.FLAT_PROBLEM),) * 4),), ELEVEN
    ),
    "X counted before a tweet that a search hides": History(
        (Run("full"), Write(1, 40), Run("search", months=1, faults=(fault(Kind.CUT_END),)))
    ),
    "a search shows a tweet by another author instead": History(
        (Run("search", months=1), Run("search", months=1, faults=(fault(Kind.FOREIGN),))), (Past(4), Past())
    ),
    "an unreadable item and a tweet of the same second": History(
        (Run("search", months=1, names=NAMES),), (Past(25, unreadable_each=25), Past(3, 86_400))
    ),
    "an unreadable item among tweets in any order": History(
        (Run("full", faults=(fault(Kind.SHUFFLE, Kind.UNREADABLE, number=1),)),), (Past(4), Past())
    ),
    "a page from above again, then a pinned tweet": History(
        (
            Write(12, 40),
            Run("full", faults=(None, fault(Kind.GO_BACK), None, fault(Kind.CUT_END, Kind.PINNED, number=1))),
        )
    ),
    "a walk was killed, and the reach has passed its tweets": History(
        (Run("full", dies_after=17), Write(20, 1)), (Past(18, 1), Past()), SMALL_REACH
    ),
    "the search left out retweets that take places of the reach": History(
        (Run("search", months=1),), (Past(21, 1, retweet_each=3), Past()), SMALL_REACH
    ),
    "what the search left open is out of reach": History(
        (Run("search", months=1),), (Past(26, 1, retweet_each=3, unreadable_each=25), Past()), SMALL_REACH
    ),
    "months of an account without tweets": History((Run("full"), Wait(60), Run("timeline", months=1))),
    "months above all that is stored": History(
        (Run("full"), Wait(10_800), Run("timeline", months=1)), (Past(1), Past())
    ),
    "the tweet right above an end is deleted": History(
        (Run("full"), Write(1, 1), Delete(1, oldest=True)), (Past(1, uncounted=2), Past())
    ),
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES.keys())
def test_history(database: Database, history: History) -> None:
    check(database, history.pasts, history.steps, reach=history.reach)


WORLDS = {
    "ends of timelines": (TIMELINES, ENDS),
    "order of timelines": (TIMELINES, ORDERS),
    "oddities of timelines": (TIMELINES, ODDITIES),
    "ends of searches": (SEARCHES, ENDS),
    "order of searches": (SEARCHES, ORDERS),
    "oddities of searches": (SEARCHES, ODDITIES),
    "everything": (TIMELINES + SEARCHES, tuple(Kind)),
}


@pytest.mark.parametrize(("modes", "kinds"), WORLDS.values(), ids=WORLDS.keys())
@settings(
    max_examples=SOAK_EXAMPLES or 80,
    derandomize=not SOAK_EXAMPLES,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=(Phase.generate, Phase.shrink),
)
@given(data=st.data(), pasts=st.tuples(PASTS, PASTS), reach=st.sampled_from(REACHES), last_page_has_token=st.booleans())
@pytest.mark.timeout(0)
def test_no_claim_is_false_and_all_comes_in_the_end(
    database: Database,
    modes: Sequence[str],
    kinds: Sequence[Kind],
    data: st.DataObject,
    pasts: Sequence[Past],
    reach: int,
    last_page_has_token: bool,
) -> None:
    steps = data.draw(steps_of(modes, kinds))
    check(database, pasts, steps, reach=reach, last_page_has_token=last_page_has_token)
