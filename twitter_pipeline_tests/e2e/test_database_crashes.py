"""The database dies or restarts in the middle of a run; Dagster's storage lies on the same server."""

import os
import signal
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from dagster_postgres import utils as dagster_postgres_utils

from twitter_pipeline.local.postgres import EmbeddedServer, embedded_server
from twitter_pipeline.store import database as store_database
from twitter_pipeline.store.database import Database, DatabaseFault
from twitter_pipeline.store.schema import upgrade
from twitter_pipeline_tests.e2e.conftest import (
    MakeWorkshop,
    Trap,
    Workshop,
    assert_as_if_never_killed,
    silent,
)

# One server, which they start and stop.
pytestmark = pytest.mark.xdist_group("database crashes")

ACCOUNTS = (silent("alpha", 900), silent("beta", 600))
NAMES = ("alpha", "beta")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server of this module alone that keeps what was committed, as the one under `.local` does."""
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder) / "postgres") as server:
        yield server


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return count()


@pytest.fixture
def database_url(server: EmbeddedServer, numbers: Iterator[int]) -> str:
    """In place of that of the session's server."""
    url = server.url(f"tables_{next(numbers)}")
    database = Database(url)
    upgrade(database.engine)
    database.close()
    return url


@pytest.fixture(scope="module")
def dagster_url(server: EmbeddedServer) -> str:
    return server.url("dagster", driver="psycopg2")


def at_once(**_: object) -> float:
    """Take the place of Dagster's pauses, which add up to ten seconds a statement."""
    return 0.01


def postmaster(server: EmbeddedServer) -> int:
    return int((server.folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])


def backend(workshop: Workshop) -> int:
    """A process of the server that serves the run."""
    [(pid,)] = workshop.database.execute(
        "SELECT max(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return pid


# What `pg_ctl restart` sends: -m fast, -m immediate; and the kill that nobody can answer.
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL], ids=["fast", "immediate", "kill"])
def test_a_run_goes_on_when_the_server_is_restarted_under_it(
    make_workshop: MakeWorkshop, server: EmbeddedServer, number: signal.Signals
) -> None:
    def restart() -> None:
        os.kill(postmaster(server), number)
        # As `make up` does once a second.
        server.ensure_running()

    workshop = make_workshop(ACCOUNTS, script=Trap(at=8, action=restart), latency_s=0.02)
    result = workshop.fetch(*NAMES)

    assert result.error is None
    assert_as_if_never_killed(workshop, kills=0)


def test_a_run_goes_on_when_the_server_recovers_from_the_crash_of_one_of_its_processes(
    make_workshop: MakeWorkshop,
) -> None:
    trap = Trap(at=8)
    workshop = make_workshop(ACCOUNTS, script=trap, latency_s=0.02)
    trap.action = lambda: os.kill(backend(workshop), signal.SIGKILL)
    result = workshop.fetch(*NAMES)

    assert result.error is None
    assert_as_if_never_killed(workshop, kills=0)


def test_a_run_whose_server_stays_away_fails_readably_and_the_next_does_the_rest(
    make_workshop: MakeWorkshop, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_database, "OUTAGE_SURVIVED_S", 1.0)
    monkeypatch.setattr(dagster_postgres_utils, "calculate_delay", at_once)
    trap = Trap(at=8, action=lambda: os.kill(postmaster(server), signal.SIGKILL))
    workshop = make_workshop(ACCOUNTS, script=trap, latency_s=0.02)
    with pytest.raises(DatabaseFault, match=r"stopped answering.*What was fetched is stored"):
        workshop.fetch(*NAMES)
    calls = workshop.timeline_calls()
    server.ensure_running()
    untrue = workshop.all_untrue()
    workshop.time_passes(seconds=6)
    again = workshop.fetch(*NAMES)

    # None was sent whose answer could not have been stored.
    assert calls <= 8 + 2 * len(NAMES)
    assert untrue == {}
    assert again.error is None
    assert_as_if_never_killed(workshop, kills=1)
