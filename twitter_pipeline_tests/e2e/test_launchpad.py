"""The job as a person runs it in Dagster's UI: a real web server and a real daemon, asked as the UI asks them."""

import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import yaml
from dagster_shared.yaml_utils import load_run_config_yaml
from dotenv import dotenv_values

from twitter_pipeline.local.instance import dagster_storage_url, prepare_dagster_home
from twitter_pipeline.local.places import WorkingPlace
from twitter_pipeline.local.postgres import EmbeddedServer
from twitter_pipeline.local.up import HOST, dagster, wait_for_ui
from twitter_pipeline.months import Months, read_month
from twitter_pipeline.orchestration.partitions import ACCOUNTS_NAME, MONTHS
from twitter_pipeline.orchestration.requests import requests_of_run
from twitter_pipeline.request import EXAMPLE, FetchMode, FetchRequest
from twitter_pipeline.sandbox.api import SandboxApi
from twitter_pipeline.sandbox.faults import Faults
from twitter_pipeline.sandbox.server import running_server
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline.sandbox.world import World
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.settings import PROJECT_DIR
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import VANISHED, RunReport, load_run
from twitter_pipeline_tests.conftest import Databases
from twitter_pipeline_tests.e2e.conftest import Trap, command_lines, dump, leaks, silent

# One UI for all of them, and what one test tracks the next backfills.
pytestmark = pytest.mark.xdist_group("launchpad")

SECRETS = ("AAAAAAAAui-secret-one%3Dxyzzy", "AAAAAAAAui-secret-two%3Dplugh")

SELECTOR = {"repositoryLocationName": "twitter_pipeline", "repositoryName": "__repository__"}

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PythonError { message causes { message } }
  }
}
"""

DEFAULT = """
query Default($selector: PipelineSelector!) {
  runConfigSchemaOrError(selector: $selector) { __typename ... on RunConfigSchema { rootDefaultYaml } }
}
"""

BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}
"""

BACKFILL_STATE = """
query State($id: String!) {
  partitionBackfillOrError(backfillId: $id) { __typename ... on PartitionBackfill { status error { message } } }
}
"""

STOP = "mutation Stop($id: String!) { terminateRun(runId: $id) { __typename } }"

COUNT = '{ runsOrError(filter: {pipelineName: "fetch_tweets"}) { __typename ... on Runs { count } } }'

# What the run's page shows: its configuration, its tags, all its events with their errors and metadata.
PAGE = """
query Page($id: ID!) {
  runOrError(runId: $id) {
    __typename
    ... on Run {
      status runConfigYaml tags { key value }
      stats { __typename ... on RunStatsSnapshot { stepsSucceeded stepsFailed } }
    }
  }
  logsForRun(runId: $id) {
    __typename
    ... on EventConnection {
      events {
        __typename
        ... on MessageEvent { message stepKey level }
        ... on ErrorEvent { error { message stack causes { message stack } } }
        ... on DisplayableEvent { description metadataEntries { label description } }
      }
    }
  }
}
"""


@dataclass
class Ui:
    """A running UI over a sandbox, and everything that it has said."""

    url: str
    place: WorkingPlace
    api: SandboxApi
    trap: Trap
    database: Database
    logs: Path
    said: list[str] = field(default_factory=list[str])

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Ask as the UI does; errors come with status 500 and are answers too."""
        answer = httpx.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60, trust_env=False
        )
        self.said.append(answer.text)
        return answer.json()

    def launch(self, text: str) -> dict[str, Any]:
        """Press Launch with a text in the Launchpad."""
        params = {"selector": SELECTOR | {"jobName": "fetch_tweets"}, "runConfigData": text, "mode": "default"}
        return self.ask(LAUNCH, params=params)["data"]["launchRun"]

    def launched(self, text: str) -> str:
        launched = self.launch(text)
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def runs(self) -> int:
        return self.ask(COUNT)["data"]["runsOrError"]["count"]

    def traces(self) -> tuple[int, int, int]:
        """What a refused request must not leave: runs in Dagster, runs in the tables, calls.

        Other runs may come and go with their calls: sensors work, and a backfill is launched by the daemon when it
        comes to it.
        """
        rows = self.database.execute("SELECT count(*) FROM fetch_runs WHERE kind = 'history'")
        calls = self.database.execute(
            "SELECT count(*) FROM api_calls c LEFT JOIN fetch_runs r ON r.id = c.fetch_run_id"
            " WHERE r.kind IS NULL OR r.kind = 'history'"
        )
        return self.runs(), int(rows[0][0]), int(calls[0][0])

    def ended(self, dagster_run_id: str) -> dict[str, Any]:
        """Wait for the end of a run and return what its page shows."""
        deadline = time.monotonic() + 60
        while True:
            run = self.ask(PAGE, id=dagster_run_id)["data"]["runOrError"]
            if run["status"] in ("SUCCESS", "FAILURE", "CANCELED"):
                return run
            assert time.monotonic() < deadline, run
            time.sleep(0.2)

    def closed(self, dagster_run_id: str) -> RunReport:
        """Wait until the run is closed in `fetch_runs`."""
        deadline = time.monotonic() + 60
        while True:
            report = load_run(self.database, dagster_run_id=dagster_run_id)
            if report is not None and report.finished_at is not None:
                return report
            assert time.monotonic() < deadline, report
            time.sleep(0.2)

    def backfill(self, asset: str, partitions: Sequence[str], config: Mapping[str, Any] | None = None) -> str:
        """Choose partitions of an asset, press Launch, and return the id of the backfill."""
        params = {
            "assetSelection": [{"path": [asset]}],
            "partitionNames": [*partitions],
            "runConfigData": {"ops": {asset: {"config": config or {}}}},
        }
        launched = self.ask(BACKFILL, params=params)["data"]["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def filled(self, backfill_id: str) -> list[RunReport]:
        """Wait until a backfill has succeeded and return its runs."""
        deadline = time.monotonic() + 240
        while True:
            backfill = self.ask(BACKFILL_STATE, id=backfill_id)["data"]["partitionBackfillOrError"]
            if backfill["status"].startswith("COMPLETED"):
                break
            assert time.monotonic() < deadline, backfill
            time.sleep(0.5)
        assert backfill["status"] == "COMPLETED_SUCCESS"
        with dg.DagsterInstance.get() as instance:
            runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
        return [self.closed(run.run_id) for run in runs]

    def stored(self, username: str) -> list[int]:
        statement = "SELECT t.id FROM tweets t JOIN users u ON author_id = u.id WHERE username = %s ORDER BY t.id DESC"
        return [tweet_id for (tweet_id,) in self.database.execute(statement, (username,))]

    def worker_of(self, dagster_run_id: str) -> int:
        """The process that a run runs in, as Dagster tells it."""
        with dg.DagsterInstance.get() as instance:
            messages = "\n".join(str(each.message) for each in instance.all_logs(dagster_run_id))
        found = re.search(r"in process \(pid: (\d+)\)", messages)
        assert found is not None
        return int(found[1])


def told(answer: dict[str, Any]) -> str:
    """All that the answer to a refused launch tells."""
    parts = [answer, *answer.get("causes", []), *answer.get("errors", [])]
    return " ".join(part["message"] for part in parts if "message" in part)


@pytest.fixture(scope="module")
def ui(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """The UI and the daemon of one module."""
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(dotenv_values(PROJECT_DIR / ".env"), ""))
    # A backfill waits for as long to confirm its ends.
    os.environ["TWITTER_CONFIRM_AFTER_SECONDS"] = "1"
    folder = tmp_path_factory.mktemp("ui")
    # The folder above the one they run in: neither this nor any other file may win over the environment.
    (folder / ".env").write_text("DATABASE_URL=postgresql://of.the.file/tweets\nTWITTER_PAGE_SIZE=11\n")
    url = databases.create()
    trap = Trap()
    accounts = [silent("alpha", 170), silent("beta", 60), silent("long_one", 3200), silent("long_two", 3200)]
    # Twenty tweets in each of the last twenty months.
    began_at = time.time() - 600 * 86_400
    accounts.append(silent("delta", 400, created_at=began_at - 1, first_tweet_at=began_at))
    tokens = [TokenSpec(SECRETS[0], state="invalid"), TokenSpec(SECRETS[1])]
    api = SandboxApi(World(accounts=accounts), tokens=tokens, faults=Faults(script=trap, latency_s=0.05))
    prepare_dagster_home(folder / "dagster")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    database = Database(url)
    try:
        with running_server(api) as api_url:
            place = WorkingPlace(
                database_url=url,
                dagster_url=dagster_storage_url(url),
                dagster_home=folder / "dagster",
                api_url=api_url,
                bearer_tokens={f"TWITTER_BEARER_{number}": BearerToken(each) for number, each in enumerate(SECRETS)},
                sandbox=None,
                server=None,
            )
            os.environ.update(place.environment())
            with dagster(place, port=port, folder=folder / "logs") as services:
                wait_for_ui(port, services)
                yield Ui(f"http://{HOST}:{port}", place, api, trap, database, folder / "logs")
    finally:
        database.close()
        databases.drop(url)
        os.environ.clear()
        os.environ.update(before)


def test_the_launchpad_opens_on_the_example(ui: Ui) -> None:
    schema = ui.ask(DEFAULT, selector=SELECTOR | {"pipelineName": "fetch_tweets"})["data"]["runConfigSchemaOrError"]

    assert yaml.safe_load(schema["rootDefaultYaml"]) == {"confirm": False, "request": EXAMPLE}


def test_json_pasted_as_it_is_runs_under_the_daemon_and_is_stored(ui: Ui) -> None:
    pasted = '[{"username": "alpha", "track_after": true,  "fetch_mode": "full"},\n {"username": "protected_reef"}]'
    dagster_run_id = ui.launched(f"request: {pasted}\n")
    run = ui.ended(dagster_run_id)
    report = ui.closed(dagster_run_id)

    assert run["status"] == "SUCCESS"
    assert (report.status, report.tweets_new, report.accounts) == ("done", 170, 2)
    assert ui.stored("alpha") == ui.api.world.served_ids("alpha")
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert tags["twitter_pipeline/kind"] == "history"
    assert tags["twitter_pipeline/accounts"] == "2"


def test_a_request_pasted_as_a_block_of_text_runs_too(ui: Ui) -> None:
    pasted = '[{"username": "beta",\n\t"fetch_mode": "limit:60"}]'
    dagster_run_id = ui.launched("request: |\n" + "".join(f"  {line}\n" for line in pasted.splitlines()))

    assert ui.ended(dagster_run_id)["status"] == "SUCCESS"
    assert ui.stored("beta") == ui.api.world.served_ids("beta")


def test_a_bad_request_is_answered_with_its_mistakes_and_no_run_is_made(ui: Ui) -> None:
    before = ui.traces()
    pasted = '[{"username": "nasa", "fetch_mode": "limit:0"}, {"username": "no such name"}]'
    answer = ui.launch(f"request: {pasted}")

    assert answer["__typename"] == "PythonError"
    assert "entry 1 (nasa), fetch_mode: got" in told(answer)
    assert "entry 2, username: got" in told(answer)
    assert ui.traces() == before


NAME_EXPECTED = "expected 1 to 15 letters, digits or underscores"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("request: [{username: 007, track_after: 1}]", f"entry 1, username: got 7, {NAME_EXPECTED}, in quotes"),
        ("request: [{username: 007, track_after: 1}]", "entry 1, track_after: got 1, expected true or false"),
        ("request:\n- username: yes\n", f"entry 1, username: got true, {NAME_EXPECTED}, in quotes"),
        ("request:\n- username: 1:30\n", "entry 1, username: got 90"),
        ("request:\n- username:\n", "entry 1, username: got null"),
        ("request:\n- username: 2020-01-01\n", 'entry 1, username: got "2020-01-01"'),
        ("request:\n- username: nasa\n  fetch_mode: 50\n", "entry 1 (nasa), fetch_mode: got 50"),
        ("request:\n- username: nasa\n  mode: full\n", 'entry 1 (nasa), field "mode": got an unknown field'),
        ("request:\n", "request: got null, expected a list of entries"),
        ("request: nasa\n", "line 1, column 1: got "),
        ("request: [nasa]\n", 'entry 1: got "nasa", expected an object with a username'),
        ("request: {nasa: full}\n", 'request: got {"nasa":"full"}, expected a list of entries'),
        ("request: [{1: nasa}]", 'entry 1, field "1": got an unknown field'),
        ('request: [{"username": "na\\0sa \\e[2J"}]', r'entry 1, username: got "na\u0000sa \u001b[2J"'),
        ('request: [{"username": "\\uD83D\\u202E"}]', r"entry 1, username: got '\ud83d\u202e'"),
        ("request: [{username: <script>}]", 'entry 1, username: got "<script>"'),
        ("request: " + "[" * 300 + "]" * 300, "entry 1: got [[["),
        ('request: |\n  [{"username": "nasa", "username": "esa"}]\n', "got the field more than once"),
        ("request: |\n  - username: nasa\n", "line 1, column 2: got "),
        # What is no YAML, or not of the form of a run's configuration, is refused by Dagster itself.
        ("request:\n\t- username: nasa\n", "found character '\\t' that cannot start any token"),
        ("request: [{username: @nasa}]", "found character '@' that cannot start any token"),
        ("request: !!python/object/apply:os.getpid []\n", "could not determine a constructor for the tag"),
        ("request: &all [*all]\n", "recursion"),
        ("requests: []\n", 'unexpected config entry "requests" at the root'),
    ],
)
def test_whatever_is_typed_that_is_no_request_is_refused_with_what_is_wrong(ui: Ui, text: str, said: str) -> None:
    before = ui.traces()
    answer = ui.launch(text)

    assert answer["__typename"] in ("PythonError", "RunConfigValidationInvalid")
    assert said in told(answer)
    assert ui.traces() == before


def test_a_hundred_thousand_mistakes_are_counted_in_an_answer_that_a_browser_can_show(ui: Ui) -> None:
    before = ui.traces()
    answer = ui.launch("request: |\n  " + '[{"username": 7}' + ', {"username": 7}' * 99_999 + "]")

    assert "The request has 100000 mistakes; no call was made." in told(answer)
    assert "... and 99950 more" in told(answer)
    assert len(ui.said[-1]) < 20_000
    assert ui.traces() == before


@pytest.mark.parametrize(
    "text",
    [
        "request:\n  - username: nasa\n    fetch_mode: limit:5\n  - {username: '@esa', track_after: yes}\n",
        "request:\n  - &nasa {username: nasa, fetch_mode: limit:5}\n  - *nasa\n"
        "  - {username: esa, track_after: true}\n",
        "request:\n  - &nasa {username: nasa, fetch_mode: limit:5}\n  - {<<: *nasa, username: ESA, fetch_mode: full,"
        " track_after: true}\n",
        'request: >\n  [{"username": "nasa", "fetch_mode": "limit:5"},\n  {"username": "esa", "track_after": true}]\n',
        "# who\nrequest: [ # two\n {username: nasa, fetch_mode: 'limit:5'},\n"
        ' {username: "\\u0065sa", track_after: True}]',
    ],
)
def test_a_request_may_be_written_in_any_way_that_yaml_knows(text: str) -> None:
    # As Dagster's server reads it; of a key that stands twice it keeps the last, before our code sees it.
    assert requests_of_run(load_run_config_yaml(text)) == (
        FetchRequest("nasa", fetch_mode=FetchMode(5)),
        FetchRequest("esa", track_after=True),
    )


def test_a_run_that_is_terminated_in_the_ui_ends_as_cancelled(ui: Ui) -> None:
    ui.trap.set(5)
    dagster_run_id = ui.launched('request: [{"username": "long_one"}]')
    assert ui.trap.sprung.wait(60)
    stopped = ui.ask(STOP, id=dagster_run_id)["data"]["terminateRun"]
    run = ui.ended(dagster_run_id)
    report = ui.closed(dagster_run_id)
    stored = len(ui.stored("long_one"))
    again = ui.closed(ui.launched('request: [{"username": "long_one"}]'))

    assert stopped["__typename"] == "TerminateRunSuccess"
    assert run["status"] == "CANCELED"
    assert (report.status, report.error) == ("cancelled", "stopped on request")
    assert 0 < report.tweets_new == stored < 3200
    assert again.tweets_new == 3200 - stored
    assert ui.stored("long_one") == ui.api.world.served_ids("long_one")


def test_a_run_whose_process_is_killed_is_failed_in_dagster_and_closed_by_the_daemon(ui: Ui) -> None:
    ui.trap.set(5)
    dagster_run_id = ui.launched('request: [{"username": "long_two"}]')
    assert ui.trap.sprung.wait(60)
    os.kill(ui.worker_of(dagster_run_id), signal.SIGKILL)
    run = ui.ended(dagster_run_id)
    report = ui.closed(dagster_run_id)
    stored = len(ui.stored("long_two"))
    again = ui.closed(ui.launched('request: [{"username": "long_two"}]'))

    assert run["status"] == "FAILURE"
    assert (report.status, report.error) == ("failed", VANISHED)
    assert 0 < report.tweets_new == stored < 3200
    assert again.tweets_new == 3200 - stored
    assert ui.stored("long_two") == ui.api.world.served_ids("long_two")


# The daemon looks for tracked accounts, and for backfills, only now and then.
@pytest.mark.timeout(600)
def test_months_and_accounts_that_are_chosen_in_the_ui_are_filled_by_few_runs(ui: Ui) -> None:
    months = MONTHS.get_partition_keys()
    chosen = [*months[-14:-8], *months[-3:]]
    wanted = [Months(read_month(key), read_month(key)).ids for key in chosen]
    before = len(ui.stored("delta"))
    deadline = time.monotonic() + 240
    with dg.DagsterInstance.get() as instance:
        # The account that was tracked above.
        while not (keys := instance.get_dynamic_partitions(ACCOUNTS_NAME)):
            assert time.monotonic() < deadline
            time.sleep(0.5)
    # Both at once: the daemon looks for backfills every half minute.
    months_id = ui.backfill("tweets_by_month", chosen, {"accounts": ["delta"], "source": "search"})
    accounts_id = ui.backfill("tweets_by_account", keys)
    by_month, by_account = ui.filled(months_id), ui.filled(accounts_id)

    # Two stretches, each shorter than a run may be.
    assert [report.kind for report in by_month] == ["backfill"] * 2
    in_months = [each for each in ui.api.world.tweet_ids("delta") if any(each in ids for ids in wanted)]
    assert before == 0
    assert sorted(ui.stored("delta")) == sorted(in_months) != []
    assert [[each.username for each in report.account_reports] for report in by_account] == [["alpha"]]
    assert keys[0].endswith(" @alpha")


def test_no_secret_is_in_what_the_ui_says_logs_or_stores(ui: Ui, postgres: EmbeddedServer) -> None:
    # One was rejected on its first call; now the other is, so that this run fails for want of a token.
    ui.api.set_token_state(SECRETS[1], "invalid")
    dagster_run_id = ui.launched('request: [{"username": "gamma"}]')
    run = ui.ended(dagster_run_id)
    ui.api.set_token_state(SECRETS[1], "active")

    dumped = dump(postgres, ui.place.database_url)
    assert run["status"] == "FAILURE"
    assert "TWITTER_BEARER_1" in ui.said[-1]
    assert "TWITTER_BEARER_1" in dumped
    assert "dagster.event_logs" in dumped
    texts = {"GraphQL": "".join(ui.said), "command lines": command_lines(), "dump": dumped}
    assert leaks(SECRETS, texts=texts, folders=[ui.place.dagster_home, ui.logs]) == []
