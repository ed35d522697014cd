"""How long it takes until the first API call: from a command, and from pressing Launch in the UI."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from benchmarks.place import COMMAND, Place, Unusable, connected
from benchmarks.printing import Sheet
from twitter_pipeline.local.postgres import embedded_server

TIMES = 5
COMMAND_S = 4.0
LAUNCH_S = 6.0
ONE_RUN_S = 60.0
UP_S = 120.0

FETCH = ("fetch", "@nasa", "--mode", "limit:50")
REQUEST = [{"username": "nasa", "track_after": False, "fetch_mode": "limit:50"}]

FIRST_CALLS = "SELECT min(called_at) FROM api_calls GROUP BY fetch_run_id ORDER BY fetch_run_id"
FIRST_CALL = """
SELECT min(called_at) FROM api_calls JOIN fetch_runs r ON r.id = fetch_run_id WHERE r.dagster_run_id = %s
"""

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was started several times, and the seconds to its first call each time."""

    what: str
    seconds: Sequence[float]
    wanted_s: float

    @property
    def median_s(self) -> float:
        """The median."""
        return statistics.median(self.seconds)


def run(place: Place) -> list[str]:
    """Measure both; return what was missed."""
    sheet = Sheet("3. Overhead: seconds to the first API call")
    rows = [
        Row(f"{' '.join(FETCH)}, nothing runs yet", _commands_that_start_all(place), COMMAND_S),
        Row(f"{' '.join(FETCH)}, database and API run", _commands_on_running(place), COMMAND_S),
        Row("Launch in the UI", _launches(place), LAUNCH_S),
    ]
    head = ("from", "median", *(f"run {number}" for number in range(1, TIMES + 1)))
    sheet.table(head, [(row.what, f"{row.median_s:.2f}", *(f"{each:.2f}" for each in row.seconds)) for row in rows])
    for row in rows:
        ok = row.median_s < row.wanted_s
        sheet.judge(f"{row.what}, median", f"{row.median_s:.2f} s", f"under {row.wanted_s:.0f} s", ok=ok)
    return sheet.misses


def _commands_that_start_all(place: Place) -> list[float]:
    """Run the command in a checkout of its own: it starts the embedded server and the sandbox each time."""
    checkout = place.checkout()
    environment = place.environment(PYTHONPATH=str(checkout), DAGSTER_HOME="")
    started = [
        place.run([COMMAND, *FETCH], environment, limit_s=ONE_RUN_S).started_at
        # The first one makes the database and is not counted.
        for _ in range(TIMES + 1)
    ]
    with embedded_server(checkout / ".local" / "postgres") as server:
        return _since(started, server.url("sandbox"))[1:]


def _commands_on_running(place: Place) -> list[float]:
    """Run the command on a database and an API that are there already, as with DATABASE_URL and tokens of X."""
    with place.sandbox() as sandbox, place.database("overhead") as url:
        environment = place.environment(DATABASE_URL=url, **sandbox.environment())
        started = [place.run([COMMAND, *FETCH], environment, limit_s=ONE_RUN_S).started_at for _ in range(TIMES + 1)]
        return _since(started, url)[1:]


def _since(started: Sequence[datetime], url: str) -> list[float]:
    with connected(url) as connection:
        called = [row[0] for row in connection.execute(FIRST_CALLS).fetchall()]
    if len(called) != len(started):
        raise Unusable(f"{len(started)} runs, but {len(called)} with calls")
    return [(first - start).total_seconds() for start, first in zip(started, called, strict=True)]


def _launches(place: Place) -> list[float]:
    """Launch runs as the button does, one after the other, in a working place of its own."""
    checkout = place.checkout()
    environment = place.environment(PYTHONPATH=str(checkout), DAGSTER_HOME="")
    with place.up(environment) as ui, embedded_server(checkout / ".local" / "postgres") as server:
        return [_launch(ui, server.url("sandbox")) for _ in range(TIMES)]


def _launch(ui: str, url: str) -> float:
    """Launch a run, wait for its end, and give the seconds from the request to its first call."""
    selector = {
        "repositoryLocationName": "twitter_pipeline",
        "repositoryName": "__repository__",
        "jobName": "fetch_tweets",
    }
    params = {"selector": selector, "runConfigData": {"request": REQUEST}}
    with httpx.Client(base_url=ui, timeout=30, trust_env=False) as client:
        pressed = time.time()
        answer = _ask(client, LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise Unusable(f"the run could not be launched: {answer}")
        run_id = answer["run"]["runId"]
        deadline = time.monotonic() + ONE_RUN_S
        status = ""
        while status not in ("SUCCESS", "FAILURE", "CANCELED"):
            if time.monotonic() > deadline:
                raise Unusable(f"run {run_id} is {status} after {ONE_RUN_S:.0f} s")
            time.sleep(0.5)
            status = _ask(client, STATUS, {"id": run_id})["runOrError"]["status"]
    with connected(url) as connection:
        row = connection.execute(FIRST_CALL, [run_id]).fetchone()
    if status != "SUCCESS" or row is None or row[0] is None:
        raise Unusable(f"run {run_id} is {status}, its first call {row}")
    return row[0].timestamp() - pressed


def _ask(client: httpx.Client, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/graphql", json={"query": query, "variables": variables}).raise_for_status().json()
    if answer.get("errors"):
        raise Unusable(f"the UI answered {answer['errors']}")
    return answer["data"]
