"""Everything is killed at once with a run in flight, as by a power cut, and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from twitter_pipeline.local import stop
from twitter_pipeline.local.postgres import embedded_server
from twitter_pipeline.sandbox.faults import Faults
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import VANISHED, load_run
from twitter_pipeline_tests.conftest import MakeSandbox
from twitter_pipeline_tests.e2e.conftest import Trap, silent
from twitter_pipeline_tests.e2e.test_launchpad import LAUNCH, SELECTOR
from twitter_pipeline_tests.e2e.test_up import processes_of, said_by

# `make up` with its folder and settings given.
UP = """
import os, sys
from pathlib import Path
from twitter_pipeline.local.up import up
from twitter_pipeline.settings import load_settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.schema import upgrade

folder = Path(sys.argv[1])
settings = load_settings(os.environ, env_file=folder / ".env")
up(settings, prepare=lambda place: upgrade(Database(place.database_url).engine), local_dir=folder)
"""

STATUS = "query Status($id: ID!) { runOrError(runId: $id) { __typename ... on Run { status } } }"

PATIENCE_S = 90.0


class Place:
    """A working place whose parts are all in processes of their own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._environment = {
            **os.environ,
            **environment,
            "DAGSTER_HOME": str(folder / "dagster"),
            "DAGSTER_PORT": str(self._port),
            "DATABASE_URL": "",
        }
        self.ups: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Start everything and wait until it is there."""
        words = [sys.executable, "-c", UP, str(self._folder)]
        process = subprocess.Popen(words, env=self._environment, stdout=subprocess.PIPE, text=True)
        self.ups.append(process)
        said_by(process)

    def kill(self) -> None:
        """Kill every process of the place at once."""
        while pids := processes_of(self._folder):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.ups[-1].wait()

    def launch(self, username: str) -> str:
        """Press Launch in the UI and return Dagster's id of the run."""
        params = {
            "selector": SELECTOR | {"jobName": "fetch_tweets"},
            "runConfigData": f"request: [{{username: {username}}}]",
            "mode": "default",
        }
        launched = self._ask(LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def status(self, dagster_run_id: str) -> str:
        return self._ask(STATUS, id=dagster_run_id)["runOrError"]["status"]

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._port}/graphql"
        answer = httpx.post(url, json={"query": query, "variables": variables}, timeout=60, trust_env=False)
        return answer.json()["data"]


@pytest.fixture
def make_place(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], Place]]:
    places: list[Place] = []

    def make(environment: dict[str, str]) -> Place:
        places.append(Place(tmp_path / ".local", environment))
        return places[-1]

    yield make
    stop.stop_up(tmp_path / ".local")
    for process in [each for place in places for each in place.ups]:
        process.kill()
        process.communicate()
    stop.stop_server(tmp_path / ".local" / "postgres")


@contextmanager
def opened(folder: Path) -> Generator[Database]:
    """Open the database of the place."""
    with embedded_server(folder) as server:
        database = Database(server.url("twitter"))
        yield database
        database.close()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_after_everything_was_killed_the_run_in_flight_is_closed_everywhere_and_the_next_completes(
    make_place: Callable[[dict[str, str]], Place], make_sandbox: MakeSandbox, tmp_path: Path
) -> None:
    trap = Trap(at=5)
    sandbox = make_sandbox([silent("alpha", 1500)], faults=Faults(script=trap, latency_s=0.05), record_ids=True)
    place = make_place(sandbox.environment(sandbox.serve()))
    place.start()
    killed = place.launch("alpha")
    assert trap.sprung.wait(PATIENCE_S)
    place.kill()
    with opened(tmp_path / ".local" / "postgres") as database:
        # The machine was off for a while.
        database.execute("UPDATE fetch_runs SET heartbeat_at = heartbeat_at - interval '1 minute'")
    place.start()
    again = place.launch("alpha")
    eventually(lambda: place.status(again) in ("SUCCESS", "FAILURE"))
    eventually(lambda: place.status(killed) == "FAILURE")
    with opened(tmp_path / ".local" / "postgres") as database:
        reports = [load_run(database, dagster_run_id=each) for each in (killed, again)]
        stored = [tweet_id for (tweet_id,) in database.execute("SELECT id FROM tweets ORDER BY id DESC")]

    assert place.status(again) == "SUCCESS"
    assert [report and (report.status, report.error) for report in reports] == [("failed", VANISHED), ("done", None)]
    assert sum(report.tweets_new for report in reports if report) == 1500
    assert all(report and report.tweets_new > 0 for report in reports)
    assert stored == sandbox.world.served_ids("alpha")
    served = [tweet_id for call in sandbox.api.calls for tweet_id in call.ids]
    assert len(served) - len(set(served)) <= 50
