"""Whole jobs: a sandbox over HTTP, a database and a Dagster instance with the project's own settings."""

import os
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import pytest
from dotenv import dotenv_values
from sqlalchemy import make_url

from twitter_pipeline.local.instance import dagster_storage_url, prepare_dagster_home
from twitter_pipeline.local.places import WorkingPlace
from twitter_pipeline.local.postgres import EmbeddedServer
from twitter_pipeline.orchestration.launch import FetchResult, run_fetch_job
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.request import read_request
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.faults import FaultKind, Faults, Script
from twitter_pipeline.sandbox.windows import USER_TWEETS
from twitter_pipeline.settings import PROJECT_DIR, load_settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import VANISHED, RunReport, load_run
from twitter_pipeline_tests.conftest import Databases, MakeSandbox, Sandbox

PATIENCE_S = 60.0

PAGE_SIZE = 50

HELD = """
SELECT what, count(*) FROM (
    SELECT 'connection' FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    UNION ALL
    SELECT 'lock' FROM pg_locks
    WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
) held (what) GROUP BY what
"""

Entry = str | dict[str, Any]


@dataclass
class Trap:
    """What happens when the timeline call number `at` arrives, 0 being the first; None springs it never.

    `endpoint` may name another sort of calls.
    """

    at: int | None = None
    endpoint: str = USER_TWEETS
    action: Callable[[], None] = field(default=lambda: None)
    fault: FaultKind | None = None
    seen: int = 0
    sprung: threading.Event = field(default_factory=threading.Event)

    def set(self, calls: int) -> None:
        """Spring when so many more timeline calls have arrived."""
        self.at, self.sprung = self.seen + calls, threading.Event()

    def __call__(self, endpoint: str, _number: int) -> FaultKind | None:
        """Serve as the script of faults."""
        if endpoint != self.endpoint:
            return None
        number, self.seen = self.seen, self.seen + 1
        if number == self.at:
            self.action()
            self.sprung.set()
        return self.fault


@dataclass
class Nursery:
    """A process that runs the job in forks of itself and tells how each ended (`child.serve`)."""

    cleanup: ExitStack
    started: subprocess.Popen[str] | None = None

    def run(self, place: WorkingPlace, request: str, *, die_at: str | None, kill_after_s: float | None) -> int:
        """Run the job to its end, or to where it is to be killed, and return its exit status."""
        order = {
            "request": request,
            "die_at": die_at,
            "kill_after_s": kill_after_s,
            "environment": place.environment(),
        }
        process = self._process()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(orjson.dumps(order).decode() + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    def _process(self) -> subprocess.Popen[str]:
        if self.started is None:
            words = [sys.executable, "-m", "twitter_pipeline_tests.e2e.child"]
            pipe = subprocess.PIPE
            process = subprocess.Popen(words, cwd=PROJECT_DIR, stdin=pipe, stdout=pipe, text=True)
            self.started = self.cleanup.enter_context(process)
        return self.started


@dataclass(frozen=True)
class Workshop:
    """A working place over a sandbox, and what can be asked about both."""

    place: WorkingPlace
    sandbox: Sandbox
    database: Database
    nursery: Nursery
    accounts: Sequence[AccountSpec]
    opened_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def fetch(self, *entries: Entry) -> FetchResult:
        """Run the job on a request in this process; a name alone is an entry."""
        return run_fetch_job(read_request(_as_entries(entries)), self.place)

    def start(self, *entries: Entry, words: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Run the job in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "twitter_pipeline_tests.e2e.child", _as_request(entries), *words],
            cwd=PROJECT_DIR,
            env=self.place.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill(self, *entries: Entry, at: str | None = None, after_s: float | None = None) -> None:
        """Run the job in a process of its own that is killed: at a boundary, given as BOUNDARY:N for its passing N
        (`child.BOUNDARIES`), or after so many seconds.
        """
        status = self.nursery.run(self.place, _as_request(entries), die_at=at, kill_after_s=after_s)
        assert status == -signal.SIGKILL, status

    @property
    def opened(self) -> OpenDatabase:
        """The database as sensors get it."""
        return OpenDatabase(self.database, load_settings(os.environ))

    def report(self, dagster_run_id: str) -> RunReport:
        report = load_run(self.database, dagster_run_id=dagster_run_id)
        assert report is not None
        return report

    def last_report(self) -> RunReport:
        """The run that was opened last."""
        report = load_run(self.database, run_id=self.database.execute("SELECT max(id) FROM fetch_runs")[0][0])
        assert report is not None
        return report

    def outcomes(self, report: RunReport) -> dict[str, str]:
        return {each.username: each.outcome.value for each in report.account_reports}

    @property
    def usernames(self) -> list[str]:
        """The accounts that the workshop was made with."""
        return [spec.username for spec in self.accounts]

    def user_id(self, username: str) -> int:
        user = self.sandbox.world.user(username)
        assert user is not None
        return int(user["id"])

    def stored(self, username: str) -> list[int]:
        """The tweets that are stored, newest first."""
        rows = self.database.execute(
            "SELECT id FROM tweets WHERE author_id = %s ORDER BY id DESC", (self.user_id(username),)
        )
        return [tweet_id for (tweet_id,) in rows]

    def tweets_stored(self) -> int:
        return int(self.database.execute("SELECT count(*) FROM tweets")[0][0])

    def truth(self, username: str) -> list[int]:
        """The tweets that the API serves, newest first."""
        return self.sandbox.world.served_ids(username)

    def untrue(self, username: str) -> list[int]:
        """Tweets that are claimed as covered and not stored: there must be none, whatever was killed."""
        rows = self.database.execute(
            "SELECT t FROM unnest(%s::bigint[]) t JOIN user_state s ON s.user_id = %s AND t <@ s.covered"
            " WHERE NOT EXISTS (SELECT FROM tweets WHERE id = t)",
            (self.truth(username), self.user_id(username)),
        )
        return [tweet_id for (tweet_id,) in rows]

    def all_untrue(self) -> dict[str, list[int]]:
        """The same by account, of those that have any."""
        found = {name: self.untrue(name) for name in self.usernames}
        return {name: ids for name, ids in found.items() if ids}

    def bought_twice(self) -> int:
        """How many tweets the sandbox has served more than once (it must record ids)."""
        served = Counter(tweet_id for call in self.sandbox.api.calls for tweet_id in call.ids)
        return sum(count - 1 for count in served.values())

    def statuses_in_dagster(self) -> list[str]:
        """What Dagster says of the runs of this workshop, the first one first."""
        with dg.DagsterInstance.get() as instance:
            runs = instance.get_runs(dg.RunsFilter(created_after=self.opened_at), ascending=True)
        return [run.status.value for run in runs]

    def held_by_others(self) -> list[tuple[str, int]]:
        """The connections and advisory locks that others than the test hold in the database: none between two runs."""
        return self.database.execute(HELD)

    def timeline_calls(self) -> int:
        return sum(call.endpoint == USER_TWEETS for call in self.sandbox.api.calls)

    def time_passes(self, *, seconds: int) -> None:
        """Make all signs of life older."""
        self.database.execute(
            "UPDATE fetch_runs SET heartbeat_at = heartbeat_at - make_interval(secs => %s)", [seconds]
        )


MakeWorkshop = Callable[..., Workshop]


@pytest.fixture(scope="session")
def dagster_url(databases: Databases) -> Iterator[str]:
    """Dagster's own storage, which the tests of one process share: no run knows of another."""
    url = databases.create(template="template0")
    yield dagster_storage_url(url)
    databases.drop(url)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The process whose forks are killed, started by the first test that needs it."""
    with ExitStack() as cleanup:
        yield Nursery(cleanup)


@pytest.fixture
def environment() -> Iterator[None]:
    """Keep from the test what is in a `.env` of the checkout, and from later tests what this one sets."""
    before = dict(os.environ)
    # A blank wins over the file and is no setting.
    os.environ.update(dict.fromkeys(dotenv_values(PROJECT_DIR / ".env"), ""))
    # The polls of a test follow each other at once.
    os.environ["TWITTER_WATCH_SPACING_SECONDS"] = "0"
    # A backfill waits for as long to confirm its ends.
    os.environ["TWITTER_CONFIRM_AFTER_SECONDS"] = "1"
    # Nobody is asked whether a test may cost so much.
    os.environ["TWITTER_CONFIRM_USD"] = "1000000"
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def make_workshop(
    make_sandbox: MakeSandbox,
    database: Database,
    database_url: str,
    dagster_url: str,
    nursery: Nursery,
    environment: None,
    tmp_path: Path,
) -> MakeWorkshop:
    """Make a working place over a sandbox with accounts that are silent by now; `script` makes calls go wrong."""

    def make(
        accounts: Sequence[AccountSpec],
        *,
        tokens: Any = 2,
        script: Script | None = None,
        latency_s: float = 0.0,
        **options: Any,
    ) -> Workshop:
        sandbox = make_sandbox(
            accounts, tokens=tokens, faults=Faults(script=script, latency_s=latency_s), record_ids=True, **options
        )
        home = tmp_path / "dagster"
        prepare_dagster_home(home)
        place = WorkingPlace(
            database_url=database_url,
            dagster_url=dagster_url,
            dagster_home=home,
            api_url=sandbox.serve(),
            bearer_tokens=sandbox.bearer_tokens,
            sandbox=None,
            server=None,
        )
        os.environ.update(place.environment())
        return Workshop(place, sandbox, database, nursery, accounts)

    return make


def silent(username: str, tweets: int, **wishes: Any) -> AccountSpec:
    """An account whose last tweet is an hour old, so that all is settled and none appears in the middle of a test."""
    return AccountSpec(username=username, tweets=tweets, last_tweet_at=time.time() - 3600, **wishes)


def assert_as_if_never_killed(
    workshop: Workshop,
    *,
    kills: int,
    limits: Mapping[str, int] | None = None,
    statuses: Collection[str] = ("failed",),
) -> None:
    """Assert what a run that came to its end after `kills` others were killed must leave.

    `limits` are the accounts of which only the newest so many were asked for, `statuses` how the others may be closed.
    """
    usernames = workshop.usernames
    wanted = {name: workshop.truth(name)[: (limits or {}).get(name)] for name in usernames}
    assert {name: workshop.stored(name) for name in usernames} == wanted
    assert workshop.all_untrue() == {}
    total = sum(map(len, wanted.values()))
    assert workshop.tweets_stored() == total
    assert workshop.bought_twice() <= kills * len(usernames) * PAGE_SIZE
    runs = workshop.database.execute("SELECT status::text, error, tweets_new FROM fetch_runs ORDER BY id")
    *killed, last = [(status, error) for status, error, _ in runs]
    assert {status for status, _ in killed} <= {*statuses}
    assert all(error == VANISHED for status, error in killed if status == "failed")
    assert last == ("done", None)
    # Those that were killed have their part in it, and each tweet was new to one run only.
    assert sum(new for _, _, new in runs) == total
    *killed_in_dagster, last_in_dagster = workshop.statuses_in_dagster()
    assert killed_in_dagster == ["FAILURE"] * len(killed_in_dagster)
    assert last_in_dagster == "SUCCESS"
    # A kill may come before the run is known to either.
    assert len(killed) <= len(killed_in_dagster) <= kills
    assert workshop.held_by_others() == []
    assert workshop.database.execute("SELECT * FROM walks") == []


def status_in_dagster(dagster_run_id: str) -> str:
    """What Dagster says of a run."""
    with dg.DagsterInstance.get() as opened:
        run = opened.get_run_by_id(dagster_run_id)
        assert run is not None
        return run.status.value


def ended(process: subprocess.Popen[str]) -> tuple[str, int]:
    """Wait until a process ends and return what it said, and its status."""
    said, _ = process.communicate(timeout=PATIENCE_S)
    return said, process.returncode


def signalled(process: subprocess.Popen[str], number: signal.Signals) -> Callable[[], None]:
    """Make the action that sends a signal to a process."""
    return lambda: process.send_signal(number)


def _as_request(entries: Sequence[Entry]) -> str:
    return orjson.dumps(_as_entries(entries)).decode()


def _as_entries(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    return [{"username": entry} if isinstance(entry, str) else entry for entry in entries]


def leaks(secrets: Sequence[str], *, texts: Mapping[str, str], folders: Sequence[Path] = ()) -> list[str]:
    """Say where a secret is found: in which of the texts, in which file under the folders."""
    wanted = [form for secret in secrets for form in (secret.encode(), b64encode(secret.encode()).rstrip(b"="))]
    searched = {name: text.encode() for name, text in texts.items()}
    searched |= {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    return [name for name, content in searched.items() if any(form in content for form in wanted)]


def dump(server: EmbeddedServer, url: str) -> str:
    """Dump a database, all schemas, as SQL."""
    address = make_url(url).set(drivername="postgresql", query={})
    words = [server.bin_dir / "pg_dump", "-h", server.socket_dir, "-U", str(address.username), str(address.database)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def command_lines() -> str:
    """The command lines of all processes of this machine, which every user can read."""
    found: list[bytes] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" "))
    return b"\n".join(found).decode(errors="replace")
