"""A server, a client or the way between them that is frozen: nothing is closed, and nothing comes any more."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from twitter_pipeline import runs
from twitter_pipeline.coverage import BEYOND_ALL_IDS, LOWEST_ID, IdRange
from twitter_pipeline.local.postgres import EmbeddedServer
from twitter_pipeline.prices import Prices
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.runs import OpenRun, step_alone
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.settings import Settings
from twitter_pipeline.store import database as store_database
from twitter_pipeline.store import deadlines
from twitter_pipeline.store.database import Database, DatabaseFault
from twitter_pipeline.store.runs import VANISHED, close_vanished_runs
from twitter_pipeline.store.stream import ListenLock
from twitter_pipeline.store.timelines import TimelineStore
from twitter_pipeline.store.tokens import register_tokens
from twitter_pipeline.words import FetchKind
from twitter_pipeline.workers.__main__ import work
from twitter_pipeline_tests.frozen import Proxy, proxy

USER = 12
ALL = IdRange(LOWEST_ID, BEYOND_ALL_IDS)

HOLD_A_TRANSACTION = """
import sys, time
from twitter_pipeline.store.database import Database

with Database(sys.argv[1], statement_s=1.0).transaction() as connection:
    connection.execute("UPDATE one SET n = n + 1")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def way(postgres: EmbeddedServer) -> Iterator[Proxy]:
    with proxy(postgres.socket_dir) as opened:
        yield opened


MakeFar = Callable[..., Database]


@pytest.fixture
def make_far(way: Proxy, database_url: str, database: Database) -> Iterator[MakeFar]:
    """Make databases that are reached through the proxy."""
    made: list[Database] = []

    def make(statement_s: float | None) -> Database:
        made.append(Database(way.url(database_url), pool_size=2, statement_s=statement_s))
        made[-1].execute("SELECT 1")
        return made[-1]

    yield make
    way.thaw()
    for each in made:
        each.close()


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_database, "OUTAGE_SURVIVED_S", 0.2)
    monkeypatch.setattr(store_database, "SILENCE_S", 0.6)
    monkeypatch.setattr(deadlines, "STOPPING_S", 0.3)
    monkeypatch.setattr(runs, "BEAT_EVERY_S", 0.1)
    monkeypatch.setattr(runs, "STEP_PAUSE_S", 0.05)


def eventually(condition: Callable[[], object], within_s: float = 10.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_a_statement_of_a_frozen_server_fails_readably(make_far: MakeFar, way: Proxy) -> None:
    far = make_far(0.4)
    way.freeze()

    with pytest.raises(DatabaseFault, match=r"^the database stopped answering: .*What was fetched is stored"):
        far.execute("SELECT 1")


def test_a_statement_is_run_again_when_a_frozen_server_thaws(
    make_far: MakeFar, way: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_database, "OUTAGE_SURVIVED_S", 10.0)
    far = make_far(0.4)
    way.freeze()
    threading.Timer(0.8, way.thaw).start()

    assert far.execute("SELECT 1") == [(1,)]


def test_a_connection_that_was_lost_in_silence_costs_one_statement_its_time_and_is_replaced(
    make_far: MakeFar, way: Proxy, postgres: EmbeddedServer
) -> None:
    far = make_far(0.4)
    way.lose_connections()

    assert far.execute("SELECT 1") == [(1,)]


def test_once_a_process_is_to_end_it_waits_for_a_frozen_server_once_and_only_for_seconds(
    make_far: MakeFar, way: Proxy
) -> None:
    far = make_far(None)
    way.freeze()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(far.execute, "SELECT 1")
        time.sleep(0.1)
        began = time.monotonic()
        far.hurry()
        fault = waiting.exception()
    with pytest.raises(DatabaseFault, match="as the process is to end"):
        far.execute("SELECT 1")

    assert isinstance(fault, DatabaseFault)
    assert time.monotonic() - began < 2


def test_a_process_that_is_to_end_still_gets_what_a_live_server_answers(make_far: MakeFar) -> None:
    far = make_far(None)
    far.hurry()
    time.sleep(0.4)

    assert far.execute("SELECT 1") == [(1,)]


def test_a_worker_process_ends_with_its_input_though_it_waits_for_a_frozen_server(
    way: Proxy, database_url: str
) -> None:
    way.freeze_at = b"INSERT INTO tokens"
    tokens = {"TWITTER_BEARER_1": BearerToken("a-token")}
    settings = Settings(database_url=way.url(database_url), bearer_tokens=tokens)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as accounts, ThreadPoolExecutor(1) as threads:
        working = threads.submit(work, settings, 1, 1.0, accounts, lambda _: None)
        assert way.is_frozen.wait(10)
        os.close(writing)

        assert isinstance(working.exception(5), DatabaseFault)


def test_a_long_wait_for_a_lock_is_not_taken_for_a_frozen_server(database: Database, database_url: str) -> None:
    database.execute("CREATE TABLE one (n integer)")
    with closing(Database(database_url, statement_s=0.5)) as other, database.transaction() as holder:
        holder.execute("LOCK TABLE one")
        with pytest.raises(DatabaseFault, match=r"too busy, or something there is locked for long: .*timeout"):
            other.execute("SELECT * FROM one")


def test_what_may_take_long_has_no_limit(database_url: str) -> None:
    with closing(Database(database_url, statement_s=0.2)) as database:
        with database.connection(limited=False) as connection:
            slept = connection.execute("SELECT 1 FROM pg_sleep(0.5)").fetchall()

        assert slept == [(1,)]
        assert database.execute("SHOW statement_timeout") == [("180ms",)]


def test_others_wait_for_the_transaction_of_a_frozen_process_only_until_the_server_ends_it(
    database: Database, database_url: str
) -> None:
    database.execute("CREATE TABLE one AS SELECT 0 AS n")
    words = [sys.executable, "-c", HOLD_A_TRANSACTION, database_url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        os.kill(process.pid, signal.SIGSTOP)
        database.execute("UPDATE one SET n = n + 10")
        process.kill()

    assert database.execute("SELECT n FROM one") == [(10,)]


def test_what_a_frozen_run_held_is_free_after_its_silence_and_the_run_goes_on_when_it_thaws(
    make_far: MakeFar, way: Proxy, database: Database
) -> None:
    database.execute("INSERT INTO users (id, username) VALUES (%s, 'someone')", (USER,))
    database.execute("INSERT INTO user_state (user_id) VALUES (%s)", (USER,))
    requests = [FetchRequest("someone")]

    def open_run(of: Database, name: str) -> OpenRun:
        return OpenRun(of, dagster_run_id=name, kind=FetchKind.HISTORY, requests=requests)

    def statuses() -> list[tuple[str, str | None]]:
        return database.execute("SELECT status::text, error FROM fetch_runs ORDER BY id")

    def claim(of: Database, run: OpenRun) -> bool:
        return TimelineStore(of, user_id=USER, fetch_run_id=run.id, asked_as="someone").claim(ALL)

    far = make_far(1.0)
    with open_run(far, "frozen") as frozen, open_run(database, "second") as second:
        assert claim(far, frozen)
        way.freeze()
        assert not claim(database, second)
        eventually(lambda: claim(database, second))
        assert close_vanished_runs(database, prices=Prices(), grace_s=0) == ["frozen"]
        assert statuses() == [("failed", VANISHED), ("running", None)]
        way.thaw()
        eventually(lambda: statuses() == [("running", None)] * 2)

        assert not claim(far, frozen)


def test_a_step_of_a_frozen_worker_is_taken_over(make_far: MakeFar, way: Proxy, database: Database) -> None:
    far = make_far(1.0)
    with step_alone(far, "run", "step"):
        time.sleep(1.2)
        held = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert database.execute(held) == [(1,)]
        way.freeze()
        with step_alone(database, "run", "step"):
            way.thaw()


def test_the_right_to_listen_of_a_frozen_process_is_taken_over(
    make_far: MakeFar, way: Proxy, database: Database
) -> None:
    register_tokens(database, ["TWITTER_BEARER_1"], ["stream"])
    first = ListenLock.try_take(make_far(1.0), "TWITTER_BEARER_1")
    assert first is not None
    time.sleep(1.2)
    assert first.is_held()
    way.freeze()
    taken: list[ListenLock] = []

    def take() -> bool:
        taken.extend(filter(None, [ListenLock.try_take(database, "TWITTER_BEARER_1")]))
        return bool(taken)

    eventually(take)
    way.thaw()

    assert not first.is_held()
    first.release()
    taken[0].release()
