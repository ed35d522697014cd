"""Following a run: what is left of it by the estimate, by its accounts, and of a backfill by the ids."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest

from twitter_pipeline import calls as calling
from twitter_pipeline import runs
from twitter_pipeline.following import RunFollower
from twitter_pipeline.months import Months
from twitter_pipeline.request import FetchMode, FetchRequest
from twitter_pipeline.sandbox.faults import Fault, Faults
from twitter_pipeline.sandbox.windows import USER_TWEETS, USERS_BY
from twitter_pipeline.session import FetchSession
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import save_accounts
from twitter_pipeline.words import FetchKind
from twitter_pipeline_tests.conftest import MakeSandbox
from twitter_pipeline_tests.integration.conftest import quiet

RUN = "00000000-0000-0000-0000-000000000001"

OPEN = """
INSERT INTO fetch_runs (dagster_run_id, kind, request) VALUES (%s, %s::fetch_kind, '[]') RETURNING id
"""

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)

HISTORY = [FetchRequest("alpha"), FetchRequest("beta")]


class Clock:
    """A clock that goes ten seconds from look to look."""

    def __init__(self) -> None:
        self.now = NOON - timedelta(seconds=10)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=10)
        return self.now


def follow(database: Database, requests: Sequence[FetchRequest]) -> RunFollower:
    return RunFollower(database, RUN, requests, settings=Settings(), clock=Clock())


def begin(database: Database, kind: FetchKind, requests: Sequence[FetchRequest]) -> int:
    (run_id,) = database.execute(OPEN, (RUN, kind.value))[0]
    save_accounts(database, run_id, requests)
    return run_id


def calls(database: Database, count: int, *, done: bool = False) -> None:
    """Let alpha have sent so many calls in all."""
    database.execute(
        "UPDATE fetch_run_accounts SET calls = %s, outcome = %s::account_outcome WHERE username = 'alpha'",
        (count, "done" if done else "pending"),
    )


def test_what_is_left_is_told_in_calls_once_they_are_estimated_and_in_accounts_before(database: Database) -> None:
    follower = follow(database, HISTORY)
    assert follower.look() is None
    begin(database, FetchKind.HISTORY, HISTORY)
    in_accounts = follower.look()
    database.execute("UPDATE fetch_runs SET estimated_calls = 100")
    calls(database, 20)
    in_calls = follower.look()
    calls(database, 99, done=True)
    nearly = follower.look()

    assert [None if each is None else each.left for each in (in_accounts, in_calls, nearly)] == [2, 80, 1]
    # What was counted in accounts is no part of a reckoning in calls.
    assert [each.left for each in follower.looks] == [100, 80, 1]
    assert "expected end 12:00 UTC" in follower.parts()


def test_more_calls_than_were_estimated_leave_one_for_each_account_that_has_not_ended(database: Database) -> None:
    follower = follow(database, HISTORY)
    begin(database, FetchKind.HISTORY, HISTORY)
    database.execute("UPDATE fetch_runs SET estimated_calls = 10")
    calls(database, 50)
    more = follower.look()
    database.execute("UPDATE fetch_run_accounts SET outcome = 'done'")
    ended = follower.look()

    assert more is not None
    assert ended is not None
    assert (more.left, ended.left) == (2, 0)


def test_of_a_backfill_the_ids_that_are_not_covered_are_left_whatever_was_estimated(database: Database) -> None:
    april = Months(date(2026, 4, 1), date(2026, 4, 1))
    requests = [FetchRequest("alpha", fetch_mode=FetchMode(months=april))]
    begin(database, FetchKind.BACKFILL, requests)
    database.execute("UPDATE fetch_runs SET estimated_calls = 3")
    database.execute("INSERT INTO users (id, username) VALUES (7, 'Alpha')")
    follower = follow(database, requests)
    whole = follower.look()
    middle = (april.ids.lo + april.ids.hi) // 2
    database.execute(
        "INSERT INTO user_state (user_id, covered) VALUES (7, int8multirange(int8range(%s, %s)))",
        (middle, april.ids.hi),
    )
    half = follower.look()

    assert whole is not None
    assert half is not None
    assert (whole.left, half.left) == (april.ids.hi - april.ids.lo, middle - april.ids.lo)


@pytest.mark.parametrize(("endpoint", "fault"), [(USERS_BY, "503"), (USER_TWEETS, "reset")])
def test_while_x_does_not_answer_the_tries_are_shown_and_no_more_once_it_does(
    database: Database, make_sandbox: MakeSandbox, monkeypatch: pytest.MonkeyPatch, endpoint: str, fault: Fault
) -> None:
    monkeypatch.setattr(calling, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(runs, "BEAT_EVERY_S", 0.01)
    faults = [fault] * 3
    script = Faults(script=lambda called, _: faults.pop() if called == endpoint and faults else None, latency_s=0.04)
    sandbox = make_sandbox([quiet("alpha", 300)], faults=script)
    settings = Settings(bearer_tokens=sandbox.bearer_tokens, api_url=sandbox.serve(), database_url=database.url)
    request = [FetchRequest("alpha")]
    follower = RunFollower(database, RUN, request, settings=settings)
    seen: list[str] = []
    with (
        FetchSession(settings, database, requests=request, dagster_run_id=RUN) as session,
        ThreadPoolExecutor(1) as threads,
    ):
        work = threads.submit(session.fetch_all)
        while not work.done():
            if follower.look() is not None and (shown := " | ".join(follower.parts())) not in seen:
                seen.append(shown)
        work.result()

    tries = [shown.partition("no answer, try ")[2].partition(" |")[0] for shown in seen]
    assert "4 of 12" in tries
    assert set(tries) <= {"2 of 12", "3 of 12", "4 of 12", ""}
    assert tries[-1] == ""
