"""What X does every day, and what that costs: calls, posts billed, posts bought twice, and no doubt in the end."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pytest

from twitter_pipeline.months import Months
from twitter_pipeline.request import FULL, NEW, FetchMode
from twitter_pipeline.store.database import Database
from twitter_pipeline.words import Source
from twitter_pipeline_tests.faulty_runs import Runs
from twitter_pipeline_tests.faulty_x import Clock, Fault, FaultyX, Kind, XAccount

START = datetime(2026, 11, 15, 9, tzinfo=UTC)
NOW, TWO_MINUTES, NEXT_DAY = timedelta(), timedelta(minutes=2, seconds=10), timedelta(days=1)
SHORT_PAGES = (Fault(frozenset({Kind.CUT}), 20),) * 3
YEAR = Months(date(2026, 1, 1), date(2026, 11, 1))
SEARCH = FetchMode(months=YEAR, source=Source.SEARCH)


@dataclass(frozen=True)
class Took:
    """What a run took: calls for tweets, posts that X billed, and those of them that it had billed before."""

    calls: int
    billed: int
    twice: int = 0
    outcome: str = "done"
    open_doubts: int = 0
    out_of_reach: bool = False


@dataclass(frozen=True)
class Run:
    """A run after a pause in which new tweets were written, an hour before it."""

    took: Took
    pause: timedelta = NOW
    new: int = 0
    mode: FetchMode = FULL
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Row:
    """An account with so many tweets, an hour apart, and the runs over it one after another."""

    tweets: int
    runs: list[Run]
    retweet_each: int = 0
    uncounted: int = 0
    last_page_has_token: bool = False
    gap: timedelta = timedelta(hours=1)
    silent_for: timedelta = timedelta(hours=1)


QUIET = Run(Took(1, 0), TWO_MINUTES)
QUIET_POLL = Run(Took(1, 0), TWO_MINUTES, mode=NEW)

ROWS = {
    "no tweets": Row(0, [Run(Took(1, 0)), QUIET, Run(Took(1, 0), NEXT_DAY)]),
    "one tweet": Row(1, [Run(Took(1, 1)), QUIET]),
    "fewer than a page": Row(30, [Run(Took(1, 30)), QUIET, Run(Took(1, 0), NEXT_DAY)]),
    "a page": Row(50, [Run(Took(1, 50)), QUIET]),
    "two pages": Row(100, [Run(Took(2, 100)), QUIET]),
    "the token of the last page leads to an empty one": Row(100, [Run(Took(3, 100)), QUIET], last_page_has_token=True),
    "short pages with a token": Row(100, [Run(Took(4, 100), faults=SHORT_PAGES), QUIET]),
    "X counts a few deleted tweets": Row(
        80, [Run(Took(3, 80, open_doubts=1)), Run(Took(2, 0), TWO_MINUTES), QUIET], uncounted=5
    ),
    "X counts many deleted tweets": Row(
        80,
        [
            Run(Took(3, 80, outcome="partial", open_doubts=1)),
            Run(Took(2, 0, outcome="partial", open_doubts=1), TWO_MINUTES),
            # Of the last tweet above the end, to see that the response is not empty by mistake.
            Run(Took(2, 1, twice=1), NEXT_DAY),
            QUIET,
        ],
        uncounted=50,
    ),
    "2,900 tweets": Row(2_900, [Run(Took(58, 2_900)), QUIET]),
    "2,900 tweets, and X counts more": Row(
        2_900,
        [Run(Took(59, 2_900, open_doubts=1)), Run(Took(2, 0, out_of_reach=True), TWO_MINUTES)],
        uncounted=10,
    ),
    "3,199 tweets": Row(3_199, [Run(Took(64, 3_199)), QUIET]),
    "3,200 tweets": Row(3_200, [Run(Took(64, 3_200)), QUIET]),
    "3,200 tweets, and X counts more": Row(3_200, [Run(Took(64, 3_200, out_of_reach=True))], uncounted=10),
    "3,300 tweets": Row(
        3_300, [Run(Took(64, 3_200, out_of_reach=True)), Run(Took(1, 0, out_of_reach=True), TWO_MINUTES)]
    ),
    "polls without news": Row(30, [Run(Took(1, 30)), QUIET_POLL, Run(Took(1, 0), NEXT_DAY, mode=NEW)]),
    "a poll with news on the same day": Row(
        30, [Run(Took(1, 30)), Run(Took(2, 3), timedelta(hours=1), new=3, mode=NEW), QUIET_POLL]
    ),
    "a poll with two pages of news on the same day": Row(
        30, [Run(Took(1, 30)), Run(Took(3, 60), timedelta(hours=1), new=60, mode=NEW), QUIET_POLL]
    ),
    "a poll with news on the next day": Row(
        30,
        [
            Run(Took(1, 30)),
            Run(Took(2, 3, open_doubts=1), NEXT_DAY, new=3, mode=NEW),
            Run(Took(2, 0), TWO_MINUTES, mode=NEW),
            QUIET_POLL,
        ],
    ),
    "a full run with news on the next day": Row(
        30,
        [
            Run(Took(1, 30)),
            Run(Took(2, 3, open_doubts=1), NEXT_DAY, new=3),
            Run(Took(2, 0), TWO_MINUTES),
            QUIET,
        ],
    ),
    "the newest 20, then two more": Row(
        100,
        [
            Run(Took(1, 20), mode=FetchMode(20)),
            Run(Took(2, 2), timedelta(hours=1), new=2, mode=FetchMode(20)),
            Run(Took(1, 0), TWO_MINUTES, mode=FetchMode(20)),
        ],
    ),
    "months by search of which X's count agrees": Row(
        30, [Run(Took(1, 30), mode=SEARCH), Run(Took(2, 0), TWO_MINUTES, mode=SEARCH)], gap=timedelta(days=1)
    ),
    "months by search, the newest without tweets": Row(
        30, [Run(Took(1, 30), mode=SEARCH)], gap=timedelta(days=1), silent_for=timedelta(days=100)
    ),
    "months by search of a longer past": Row(
        30, [Run(Took(2, 16), mode=SEARCH), Run(Took(2, 0), TWO_MINUTES, mode=SEARCH)], gap=timedelta(days=20)
    ),
    "months by search without tweets": Row(
        30, [Run(Took(2, 0), mode=SEARCH)], gap=timedelta(days=1), silent_for=timedelta(days=400)
    ),
    "months by search of an account that retweets": Row(
        30,
        [Run(Took(2, 20), mode=SEARCH), Run(Took(2, 0), TWO_MINUTES, mode=SEARCH)],
        gap=timedelta(days=1),
        retweet_each=3,
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_what_x_does_every_day_leaves_no_doubt_and_is_paid_once(database: Database, row: Row) -> None:
    clock = Clock(START)
    account = XAccount(1_001, "one", START - timedelta(days=1_000), uncounted=row.uncounted)
    for number in range(row.tweets):
        account.write(START - row.silent_for - number * row.gap, is_retweet=_is_each(number, row.retweet_each))
    runs = Runs(database, FaultyX(clock, [account], last_page_has_token=row.last_page_has_token))

    took = [take(runs, account, each) for each in row.runs]

    assert took == [each.took for each in row.runs]
    assert took[-1].open_doubts == 0
    runs.assert_claims_hold()


def take(runs: Runs, account: XAccount, run: Run) -> Took:
    runs.x.clock.advance(run.pause)
    for number in range(run.new):
        account.write(runs.x.clock.now - timedelta(minutes=5, seconds=number))
    calls, billed, twice = len(runs.x.calls), len(runs.x.billed), runs.x.bought_twice()
    runs.run("one", mode=run.mode, faults=run.faults)
    stored = runs.stored(account)
    return Took(
        sum("/tweets" in each.path for each in runs.x.calls[calls:]),
        len(runs.x.billed) - billed,
        runs.x.bought_twice() - twice,
        runs.outcomes[0],
        len(stored.open_doubts),
        bool(stored.unreachable),
    )


def _is_each(number: int, each: int) -> bool:
    return bool(each) and number % each == each - 1
