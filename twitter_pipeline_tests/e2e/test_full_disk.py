"""The database's disk runs full in the middle of a run; Dagster's storage lies on the same disk."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from dagster_postgres import utils as dagster_postgres_utils

from twitter_pipeline.local.postgres import PORT, SUPERUSER
from twitter_pipeline.orchestration import sensors
from twitter_pipeline.settings import PROJECT_DIR
from twitter_pipeline.store import database as store_database
from twitter_pipeline.store.database import Database, DatabaseFault
from twitter_pipeline.store.schema import upgrade
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Trap, Workshop, assert_as_if_never_killed, ended, silent

DISK_BYTES = 400_000_000

ACCOUNTS = (silent("alpha", 1500), silent("beta", 1500))
NAMES = ("alpha", "beta")


@dataclass
class Disk:
    """A disk of its own for a server that this process sees through another."""

    process: subprocess.Popen[str]
    folder: Path
    socket_dir: Path

    def url(self, database: str, driver: str) -> str:
        return f"postgresql+{driver}://{SUPERUSER}@/{database}?host={self.socket_dir}&port={PORT}"

    def fill(self, *, free: int) -> None:
        """Take all the room but so many bytes."""
        while True:
            room = os.statvfs(self.folder)
            # The server may take some of it meanwhile: then nothing is allocated.
            with suppress(OSError), self._ballast.open("wb") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, room.f_bavail * room.f_frsize - free)
                return

    def empty(self) -> None:
        """Give the room back, and bring the server back if it has gone."""
        self._ballast.unlink()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("ensure running\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "running\n"

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A small disk with a server on it, where this user may mount one."""
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    pipe = subprocess.PIPE
    with tempfile.TemporaryDirectory() as name, ExitStack() as cleanup:
        probe = subprocess.run(
            [*own, "mount", "-t", "tmpfs", "tmpfs", name], capture_output=True, text=True, check=False
        )
        if probe.returncode != 0:
            pytest.skip(f"this machine lets nobody mount a disk of their own: {probe.stderr.strip()}")
        words = [*own, sys.executable, "-m", "twitter_pipeline_tests.e2e.small_disk", name, str(DISK_BYTES)]
        process = subprocess.Popen(words, cwd=PROJECT_DIR, stdin=pipe, stdout=pipe, text=True)
        cleanup.callback(ended, process)
        assert process.stdout is not None
        socket_dir = process.stdout.readline().strip()
        root = Path(f"/proc/{process.pid}/root")
        yield Disk(process, root / name.removeprefix("/"), root / socket_dir.removeprefix("/"))


@pytest.fixture
def database_url(disk: Disk) -> str:
    """In place of that of the session's server."""
    with psycopg.connect(disk.url("postgres", "psycopg").replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE DATABASE tables")
        connection.execute("CREATE DATABASE dagster")
    url = disk.url("tables", "psycopg")
    database = Database(url)
    upgrade(database.engine)
    database.close()
    return url


@pytest.fixture
def dagster_url(disk: Disk, database_url: str) -> str:
    return disk.url("dagster", "psycopg2")


def at_once(**_: object) -> float:
    """Take the place of Dagster's pauses, which add up to ten seconds a statement."""
    return 0.01


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon on a server that has gone, in Dagster's storage too, and on a run whose end Dagster was not told."""
    monkeypatch.setattr(sensors, "LONGEST_ENDING_S", 0.0)
    monkeypatch.setattr(store_database, "OUTAGE_SURVIVED_S", 1.0)
    monkeypatch.setattr(dagster_postgres_utils, "calculate_delay", at_once)


def fail(workshop: Workshop) -> str:
    """Run the job, which must say why it fails, in some seconds; return what it said."""
    began_at = time.monotonic()
    try:
        said = workshop.fetch(*NAMES).error
    except DatabaseFault as error:
        said = str(error)
    assert said is not None
    assert time.monotonic() - began_at < 30
    return said


def test_a_run_whose_disk_has_no_room_for_tables_says_so_and_goes_on_when_there_is_some(
    make_workshop: MakeWorkshop, disk: Disk
) -> None:
    workshop = make_workshop(ACCOUNTS, script=Trap(at=8, action=lambda: disk.fill(free=0)), latency_s=0.02)
    said = fail(workshop)
    reasons = [report.reason for report in workshop.last_report().account_reports]
    disk.empty()
    untrue = workshop.all_untrue()
    workshop.time_passes(seconds=6)
    again = workshop.fetch(*NAMES)

    assert "the database's disk is full: could not extend file" in said
    assert "What was fetched is stored; free some space there and run again." in said
    assert any("the database's disk is full" in (reason or "") for reason in reasons)
    assert untrue == {}
    assert again.error is None
    assert_as_if_never_killed(workshop, kills=1, statuses=("failed", "partial"))


def test_a_run_whose_server_stops_for_want_of_room_in_its_log_fails_readably_and_goes_on_when_there_is_some(
    make_workshop: MakeWorkshop, disk: Disk, database_url: str
) -> None:
    def fill_to_the_end_of_the_log() -> None:
        # Less than a segment of the log is left, and the next one is due at once.
        disk.fill(free=3_000_000)
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection,
        ):
            for _ in range(3):
                connection.execute("SELECT pg_switch_wal()")
                connection.execute("SELECT pg_logical_emit_message(true, 'something', 'to log')")

    workshop = make_workshop(ACCOUNTS, script=Trap(at=8, action=fill_to_the_end_of_the_log), latency_s=0.02)
    said = fail(workshop)
    log = (disk.folder / "postgres" / "server.log").read_text()
    disk.empty()
    untrue = workshop.all_untrue()
    workshop.time_passes(seconds=6)
    again = workshop.fetch(*NAMES)

    assert "PANIC" in log
    assert "the database stopped answering" in said
    assert "What was fetched is stored; see to the database and run again." in said
    assert untrue == {}
    assert again.error is None
    assert_as_if_never_killed(workshop, kills=1)
