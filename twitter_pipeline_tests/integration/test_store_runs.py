"""Runs from opening to closing, also those that nobody closes."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from twitter_pipeline import runs
from twitter_pipeline.prices import Prices
from twitter_pipeline.request import FULL, FetchMode, FetchRequest
from twitter_pipeline.runs import OpenRun
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import (
    VANISHED,
    AccountReport,
    Progress,
    RunReport,
    begin_account,
    close_run,
    close_vanished_runs,
    end_account,
    load_progress,
    load_run,
    save_accounts,
)
from twitter_pipeline.store.tokens import register_tokens
from twitter_pipeline.store.windows import Lease, lease_call
from twitter_pipeline.tokens import Waiting
from twitter_pipeline.words import AccountOutcome, FetchKind, RunStatus
from twitter_pipeline.x_api.endpoints import Endpoint

PRICES = Prices(post_usd=Decimal("0.005"), user_usd=Decimal("0.010"))
REQUESTS = [FetchRequest("nasa", True, FetchMode(200)), FetchRequest("esa")]

# A process that works on a run until it is killed.
WORKER = """
import sys, time
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.runs import OpenRun
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import begin_account, save_accounts
from twitter_pipeline.words import FetchKind

database = Database(sys.argv[1])
requests = [FetchRequest("nasa"), FetchRequest("esa")]
with OpenRun(database, dagster_run_id="dagster-1", kind=FetchKind.HISTORY, requests=requests) as run:
    save_accounts(database, run.id, requests)
    begin_account(database, run.id, requests[0], user_id=1)
    database.execute("UPDATE fetch_run_accounts SET tweets_fetched = 50, tweets_new = 40 WHERE username = 'nasa'")
    database.execute(
        "INSERT INTO api_calls (endpoint, token_id, fetch_run_id, outcome, billed_posts, billed_users) "
        "VALUES ('x', 1, %s, 'ok', 50, 0), ('y', 1, %s, 'ok', 0, 2), ('x', 1, %s, NULL, NULL, NULL)",
        (run.id,) * 3,
    )
    print("at work", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _quick_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "BEAT_EVERY_S", 0.02)


@contextmanager
def opened(database: Database, dagster_run_id: str | None = "dagster-1") -> Iterator[OpenRun]:
    with OpenRun(database, dagster_run_id=dagster_run_id, kind=FetchKind.HISTORY, requests=REQUESTS) as run:
        yield run


def report(database: Database, run: OpenRun) -> RunReport:
    found = load_run(database, run_id=run.id)
    assert found is not None
    return found


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread or process brings about."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def count_call(database: Database, run_id: int, *, posts: int, users: int) -> None:
    database.execute(
        "INSERT INTO api_calls (endpoint, token_id, fetch_run_id, outcome, billed_posts, billed_users) "
        "VALUES ('x', 1, %s, 'ok', %s, %s)",
        (run_id, posts, users),
    )


def test_an_open_run_is_running_with_its_accounts_pending(database: Database) -> None:
    with opened(database) as run:
        save_accounts(database, run.id, REQUESTS)
        found = report(database, run)

    assert (found.status, found.kind, found.finished_at) == (RunStatus.RUNNING, FetchKind.HISTORY, None)
    assert [(each.username, each.fetch_mode, each.track_after, each.outcome) for each in found.account_reports] == [
        ("esa", "full", False, AccountOutcome.PENDING),
        ("nasa", "limit:200", True, AccountOutcome.PENDING),
    ]
    assert database.execute("SELECT request FROM fetch_runs") == [([each.as_json() for each in REQUESTS],)]


def test_closing_counts_what_was_achieved_and_what_it_cost(database: Database) -> None:
    with opened(database) as run:
        save_accounts(database, run.id, REQUESTS)
        count_call(database, run.id, posts=0, users=2)
        for posts in (50, 30):
            count_call(database, run.id, posts=posts, users=0)
        count_call(database, run.id + 1, posts=1000, users=1000)
        for username, fetched in (("nasa", 60), ("esa", 20)):
            database.execute(
                "UPDATE fetch_run_accounts SET tweets_fetched = %s, tweets_new = %s WHERE username = %s",
                (fetched, fetched - 5, username),
            )
            end_account(database, run.id, username, AccountOutcome.DONE, stored=fetched, calls=1, waited_s=1.5)
        run.close(prices=PRICES)
    found = report(database, run)

    assert (found.status, found.accounts, found.calls, found.tweets_fetched, found.tweets_new) == (
        RunStatus.DONE,
        2,
        3,
        80,
        70,
    )
    assert (found.billed_posts, found.billed_users, found.cost_usd, found.waited_s, found.error) == (
        80,
        2,
        Decimal("0.420"),
        3.0,
        None,
    )
    assert found.unfinished == ()


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (AccountOutcome.DONE, RunStatus.DONE),
        (AccountOutcome.UNAVAILABLE, RunStatus.DONE),
        (AccountOutcome.PARTIAL, RunStatus.PARTIAL),
        (AccountOutcome.FAILED, RunStatus.PARTIAL),
        (AccountOutcome.INTERRUPTED, RunStatus.PARTIAL),
    ],
)
def test_a_run_is_judged_by_its_accounts(database: Database, outcome: AccountOutcome, status: RunStatus) -> None:
    with opened(database) as run:
        save_accounts(database, run.id, REQUESTS)
        end_account(database, run.id, "esa", AccountOutcome.DONE)
        end_account(database, run.id, "nasa", outcome, reason="said so")
        run.close(prices=PRICES)

    assert report(database, run).status is status


def test_accounts_that_were_not_reached_are_interrupted_with_the_runs_error(database: Database) -> None:
    with opened(database) as run:
        save_accounts(database, run.id, REQUESTS)
        end_account(database, run.id, "esa", AccountOutcome.DONE)
        run.close(status=RunStatus.CANCELLED, error="somebody pressed the button", prices=PRICES)
    found = report(database, run)

    (nasa,) = found.unfinished
    assert (found.status, nasa.outcome, nasa.reason) == (
        RunStatus.CANCELLED,
        AccountOutcome.INTERRUPTED,
        "somebody pressed the button",
    )


def test_a_closed_run_stays_as_it_is(database: Database) -> None:
    with opened(database) as run:
        run.close(prices=PRICES)
        first = report(database, run)
        run.close(status=RunStatus.FAILED, error="too late", prices=PRICES)
        time.sleep(0.1)

    assert report(database, run) == first


def test_the_same_dagster_run_opens_the_same_run_from_several_processes(database: Database) -> None:
    with opened(database) as one, opened(database) as other, opened(database, "dagster-2") as third:
        ids = (one.id == other.id, one.id == third.id)

    assert ids == (True, False)


def test_runs_without_dagster_are_runs_of_their_own(database: Database) -> None:
    with opened(database, None) as one, opened(database, None) as other:
        assert one.id != other.id


def test_saving_accounts_again_keeps_what_is_known_of_them(database: Database) -> None:
    with opened(database) as run:
        save_accounts(database, run.id, REQUESTS)
        end_account(database, run.id, "esa", AccountOutcome.DONE)
        save_accounts(database, run.id, REQUESTS)
        found = {each.username: each.outcome for each in report(database, run).account_reports}

    assert found == {"esa": AccountOutcome.DONE, "nasa": AccountOutcome.PENDING}


def test_an_account_that_the_run_did_not_know_is_added_when_it_begins(database: Database) -> None:
    with opened(database) as run:
        begin_account(database, run.id, FetchRequest("other", False, FULL), user_id=7)
        (other,) = report(database, run).account_reports

    assert isinstance(other, AccountReport)
    assert (other.username, other.user_id, other.started_at is not None) == ("other", 7, True)


def test_progress_counts_while_the_run_works(database: Database) -> None:
    before = load_progress(database, "dagster-1")
    with opened(database) as run:
        save_accounts(database, run.id, REQUESTS)
        end_account(database, run.id, "esa", AccountOutcome.DONE, calls=3)
        now = load_progress(database, "dagster-1")

    assert before == Progress(0, 0, 0, 0, 0, None, None)
    assert now == Progress(2, 1, 0, 0, 3, None, None)


def test_a_killed_run_is_closed_as_failed_with_what_it_had_achieved(database: Database, database_url: str) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, database_url], stdout=subprocess.PIPE, text=True)
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "at work\n"
        while_it_lives = close_vanished_runs(database, prices=PRICES, grace_s=0)
        os.kill(worker.pid, signal.SIGKILL)
    closed: list[str] = []
    eventually(lambda: bool(closed.extend(close_vanished_runs(database, prices=PRICES, grace_s=0)) or closed))
    found = load_run(database, dagster_run_id="dagster-1")

    assert (while_it_lives, closed) == ([], ["dagster-1"])
    assert found is not None
    assert (found.status, found.error, found.accounts, found.tweets_fetched, found.tweets_new) == (
        RunStatus.FAILED,
        VANISHED,
        2,
        50,
        40,
    )
    assert (found.calls, found.billed_posts, found.billed_users, found.cost_usd) == (3, 50, 2, Decimal("0.270"))
    assert {each.outcome for each in found.account_reports} == {AccountOutcome.INTERRUPTED}


def test_a_run_that_beat_a_moment_ago_is_given_time(database: Database) -> None:
    database.execute("INSERT INTO fetch_runs (dagster_run_id, kind, request) VALUES ('dead', 'history', '[]')")

    assert close_vanished_runs(database, prices=PRICES, grace_s=60) == []
    assert close_vanished_runs(database, prices=PRICES, grace_s=0) == ["dead"]


def test_a_living_run_is_left_alone_however_old_its_last_beat(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "BEAT_EVERY_S", 60.0)
    with opened(database) as run:
        database.execute("UPDATE fetch_runs SET heartbeat_at = now() - interval '1 day'")
        closed = close_vanished_runs(database, prices=PRICES, grace_s=0)

    assert (closed, report(database, run).status) == ([], RunStatus.RUNNING)


def test_a_run_that_one_of_two_processes_left_is_left_alone(database: Database) -> None:
    with opened(database):
        with opened(database):
            pass
        assert close_vanished_runs(database, prices=PRICES, grace_s=0) == []


def test_leaving_gives_the_lock_back_and_leaves_the_run_open(database: Database) -> None:
    with opened(database) as run:
        pass

    assert report(database, run).status is RunStatus.RUNNING
    assert close_vanished_runs(database, prices=PRICES, grace_s=0) == ["dagster-1"]


@pytest.mark.parametrize("dagster_run_id", ["dagster-1", None])
def test_a_run_whose_connection_was_lost_takes_its_lock_again(
    database: Database, dagster_run_id: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger=runs.__name__)
    with opened(database, dagster_run_id) as run:
        cut_connections_with_locks(database)
        eventually(lambda: locks(database) == [run.id])
        still_held = close_vanished_runs(database, prices=PRICES, grace_s=0)
        found = report(database, run)

    assert (still_held, found.status) == ([], RunStatus.RUNNING)
    assert database.execute("SELECT count(*) FROM fetch_runs") == [(1,)]
    assert "sign of life" in caplog.text


def test_a_run_that_was_given_up_during_an_outage_is_taken_up_again(database: Database) -> None:
    with opened(database) as run:
        close_run(database, run.id, status=RunStatus.FAILED, error=VANISHED, prices=PRICES)
        eventually(lambda: report(database, run).status is RunStatus.RUNNING)

        assert (report(database, run).finished_at, report(database, run).error) == (None, None)


def test_the_first_call_of_a_token_keeps_others_waiting_only_while_its_run_is_alive(database: Database) -> None:
    def lease(run: OpenRun) -> Lease | None:
        return lease_call(database, Endpoint.USERS_BY, [key], lease_s=60, fetch_run_id=run.id)

    key = "TWITTER_BEARER_1"
    register_tokens(database, [key], [Endpoint.USERS_BY.value])
    with opened(database, "dagster-1") as run:
        first = lease(run)
        with opened(database, "dagster-2") as other:
            refused = lease(other)
    eventually(lambda: locks(database) == [])
    with opened(database, "dagster-3") as next_run:
        second = lease(next_run)
    eventually(lambda: locks(database) == [])
    assert len(close_vanished_runs(database, prices=PRICES, grace_s=0)) == 3
    with opened(database, "dagster-4") as last_run:
        third = lease(last_run)

    assert first is not None
    assert refused is None
    assert second is not None
    assert third is not None


def test_what_one_of_several_processes_waits_for_stays_until_it_is_over(database: Database) -> None:
    waits: list[Waiting] = []

    def shared(waiting: Callable[[], Waiting | None]) -> OpenRun:
        return OpenRun(
            database,
            dagster_run_id="shared",
            kind=FetchKind.HISTORY,
            requests=REQUESTS,
            waiting=waiting,
            is_shared=True,
        )

    with shared(lambda: None) as leader, shared(lambda: waits[0] if waits else None):
        waits.append(Waiting(Endpoint.USERS_BY, datetime.now(UTC) + timedelta(seconds=1.5)))
        eventually(lambda: report(database, leader).waiting_for is not None)
        seen = {report(database, leader).waiting_for for _ in range(30)}
        waits.clear()
        eventually(lambda: report(database, leader).waiting_for is None)

    assert seen == {Endpoint.USERS_BY.value}
    # The server notices a little later that a connection is closed.
    eventually(lambda: locks(database) == [])


def locks(database: Database) -> list[int]:
    """List the runs whose lock somebody holds."""
    rows = database.execute(
        "SELECT DISTINCT objid::int FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return [run_id for (run_id,) in rows]


def cut_connections_with_locks(database: Database) -> None:
    """Cut the connections that hold a run's lock, and wait until the lock is free."""
    (cut,) = database.execute(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    assert cut == (1,)
