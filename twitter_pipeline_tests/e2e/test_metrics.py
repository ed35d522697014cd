"""What Prometheus is told, over a database that a real run has filled."""

import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.error import HTTPError

import dagster as dg
import psycopg
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from twitter_pipeline.alerts import Changes, Trouble
from twitter_pipeline.cli import main
from twitter_pipeline.coverage import id_at
from twitter_pipeline.local.addresses import addresses_of
from twitter_pipeline.metrics import Metrics
from twitter_pipeline.metrics_server import serving
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline.settings import PROJECT_DIR, load_settings
from twitter_pipeline.store.alerts import save_changes
from twitter_pipeline.store.metrics import CALLS
from twitter_pipeline.store.urls import for_libpq
from twitter_pipeline.words import AlertKind
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, leaks, silent
from twitter_pipeline_tests.webhooks import SECRET_PATH

SECRETS = ("AAAAAAAAmetrics-secret-one%3Dxyzzy", "AAAAAAAAmetrics-secret-two%3Dplugh")

Values = dict[tuple[str, ...], float]


def read(page: str) -> dict[str, Values]:
    """Return the value of every sample by its name without the prefix, and its labels in the order of their names."""
    found: dict[str, Values] = {}
    for family in text_string_to_metric_families(page):
        assert family.documentation
        for sample in family.samples:
            values = found.setdefault(sample.name.removeprefix("twitter_pipeline_"), {})
            key = tuple(sample.labels.values())
            assert key not in values
            values[key] = sample.value
    return found


def once(capsys: pytest.CaptureFixture[str]) -> dict[str, Values]:
    capsys.readouterr()
    assert main(["metrics", "--once"]) == 0
    return read(capsys.readouterr().out)


@pytest.fixture
def workshop(make_workshop: MakeWorkshop) -> Workshop:
    """A place in which two accounts were fetched, one of which is watched; one of the tokens is wrong."""
    tokens = [TokenSpec(SECRETS[0], state="invalid"), TokenSpec(SECRETS[1])]
    workshop = make_workshop([silent("alpha", 130), silent("beta", 7)], tokens=tokens)
    os.environ["TWITTER_BUDGET_DAY_USD"] = "25"
    os.environ["TWITTER_ALERT_WEBHOOK"] = f"https://hooks.example.org{SECRET_PATH}"
    result = workshop.fetch({"username": "alpha", "track_after": True}, "beta")
    assert result.error is None
    return workshop


def test_what_a_run_did_is_told(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    trouble = Trouble(AlertKind.PROMISE_BROKEN, "x", "x", workshop.opened_at, "late")
    save_changes(workshop.database, Changes(begun=(trouble,)))
    told = once(capsys)

    calls = dict(workshop.database.execute("SELECT endpoint || ' ' || outcome, count(*) FROM api_calls GROUP BY 1"))
    assert {" ".join(key): value for key, value in told["recent_calls"].items()} == calls
    assert calls["/2/users/by token_rejected"] == 1
    assert told["calls_total"][()] >= sum(calls.values())
    assert told["recent_results"]["/2/users/:id/tweets", "ok"] == 137
    assert told["recent_billed_posts"]["/2/users/:id/tweets", "ok"] == 137
    assert told["recent_billed_users"]["/2/users/by", "ok"] == 2
    assert told["runs"]["history", "done"] == 1
    assert sum(told["runs"].values()) == 1
    assert told["token_status"]["suspended", "TWITTER_BEARER_1"] == 1
    assert told["token_status"]["active", "TWITTER_BEARER_2"] == 1
    assert sum(told["token_status"].values()) == 2
    limit = told["window_limit"]["/2/users/:id/tweets", "TWITTER_BEARER_2"]
    sent = calls["/2/users/:id/tweets ok"]
    assert told["window_remaining"]["/2/users/:id/tweets", "TWITTER_BEARER_2"] == limit - sent
    assert told["spent_posts"] == {("day",): 137}
    assert told["spent_dollars"][("day",)] == pytest.approx(137 * 0.005 + 2 * 0.01)
    assert told["budget_dollars"] == {("day",): 25}
    assert told["tracked_accounts"][()] == 1
    assert told["open_alerts"][("promise_broken",)] == 1
    assert sum(told["open_alerts"].values()) == 1


def test_what_waits_is_told(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    workshop.database.execute("UPDATE user_state SET next_poll_at = now() - interval '90 seconds'")
    before = once(capsys)["dagster_runs"].get(("QUEUED",), 0)
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(dg.GraphDefinition(name="waits").to_job())
        with psycopg.connect(for_libpq(workshop.place.dagster_url), autocommit=True) as connection:
            connection.execute("UPDATE runs SET status = 'QUEUED' WHERE run_id = %s", [run.run_id])
        told = once(capsys)
        instance.delete_run(run.run_id)

    assert told["dagster_runs"][("QUEUED",)] == before + 1
    assert told["due_accounts"][()] == 1
    assert 90 <= told["longest_due_seconds"][()] < 150


FOUND = """
INSERT INTO tweets (id, author_id, created_at, kind, text, first_read_at, first_read_run_id, raw)
SELECT id, %s, created_at, 'original', 'x', created_at + interval '60 seconds', 1, '{}'
FROM unnest(%s::bigint[], %s::timestamptz[]) AS t (id, created_at)
"""


def test_how_late_the_watch_is_is_told_of_the_tweets_that_it_found(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    written = [datetime.now(UTC) - timedelta(minutes=minutes) for minutes in range(10, 20)]
    workshop.database.execute("UPDATE user_state SET tracked_since = now() - interval '1 hour'")
    workshop.database.execute("UPDATE fetch_runs SET kind = 'incremental'")
    workshop.database.execute(FOUND, [workshop.user_id("alpha"), [id_at(each) for each in written], written])
    told = once(capsys)

    assert told["watch_delay_seconds"] == {("0.5",): 60, ("0.95",): 60}
    assert told["watch_tweets"][()] == 10
    assert told["watch_promise_kept_ratio"][()] == 1


def test_stored_tweets_are_counted_by_postgresql_and_never_less(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    # Statistics of a session are written when it ends, or after a second.
    workshop.database.close()
    first = once(capsys)["tweets_stored_total"][()]
    workshop.database.execute("DELETE FROM tweets")
    workshop.database.execute("ANALYZE tweets")
    told = once(capsys)

    assert first >= 137
    assert told["tweets_stored_total"][()] >= first
    assert told["tweets"][()] == 0


def test_no_secret_is_told(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["metrics", "--once"]) == 0
    page = capsys.readouterr().out

    assert "TWITTER_BEARER_1" in page
    assert leaks((*SECRETS, SECRET_PATH), texts={"page": page}) == []


@pytest.fixture
def served(workshop: Workshop) -> Iterator[str]:
    settings = load_settings(os.environ)
    with serving(
        Metrics(workshop.database, addresses_of(settings, os.environ), settings),
        host="127.0.0.1",
        port=0,
        names={"metrics"},
    ) as port:
        yield f"http://127.0.0.1:{port}"


def get(url: str, accept: str = "*/*", **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(url, headers={"Accept": accept, **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_prometheus_is_served_in_the_format_that_it_asks_for_and_several_at_once(served: str) -> None:
    status, content_type, page = get(f"{served}/metrics")
    _, asked_for, openmetrics = get(f"{served}/metrics", accept="application/openmetrics-text; version=1.0.0")
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(get(f"{served}/metrics")[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (status, content_type.split(";")[0]) == (200, "text/plain")
    assert read(page)["runs"]["history", "done"] == 1
    assert asked_for.startswith("application/openmetrics-text")
    assert {each.name for each in openmetrics_families(openmetrics)} >= {
        "twitter_pipeline_calls",
        "twitter_pipeline_tweets_stored",
    }
    assert answers == [200] * 8


def test_the_figures_are_not_served_to_a_name_that_is_rebound(served: str) -> None:
    hosts = ("metrics:9464", "10.1.2.3:9464", "evil.example:9464")

    assert [get(f"{served}/healthz", Host=host)[0] for host in hosts] == [200, 200, 421]


def test_whether_all_is_well_is_told_to_who_asks_over_http(served: str) -> None:
    with dg.DagsterInstance.get() as instance:
        instance.wipe_daemon_heartbeats()
    live, ready, other = get(f"{served}/healthz"), get(f"{served}/readyz"), get(f"{served}/secrets")

    assert (live[0], live[2].startswith("database: well")) == (200, True)
    assert (ready[0], "daemon: not well" in ready[2], "tokens: well" in ready[2]) == (503, True, True)
    assert (other[0], other[2]) == (404, "There are /metrics, /healthz and /readyz.\n")


def test_without_a_database_the_parts_are_told_and_nothing_else(workshop: Workshop) -> None:
    nowhere = {
        **os.environ,
        "DATABASE_URL": "postgresql://nobody:hunter2@127.0.0.1:9/nothing",
        "DAGSTER_POSTGRES_URL": "",
    }
    settings = load_settings(nowhere)
    metrics = Metrics(workshop.database, addresses_of(settings, nowhere), settings)

    told = {
        metric.name: {tuple(each.labels.values()): each.value for each in metric.samples}
        for metric in metrics.collect()
    }

    assert told.keys() == {"twitter_pipeline_info", "twitter_pipeline_part_well"}
    assert set(told["twitter_pipeline_part_well"].values()) == {0}


def test_a_port_that_is_taken_is_told_and_the_command_ends_with_a_signal(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["metrics", "--port", str(port)]) == 2
    assert f"Nothing can be served on 127.0.0.1, port {port}" in capsys.readouterr().err
    words = [sys.executable, "-m", "twitter_pipeline.cli", "metrics", "--port", "0"]
    with subprocess.Popen(words, cwd=PROJECT_DIR, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split(",")[0]
        assert get(url)[0] == 200
        process.terminate()
        assert process.stderr.read() == "stopped\n"
    assert process.returncode == 0


MANY = """
INSERT INTO api_calls (called_at, endpoint, token_id, outcome)
SELECT now() - n * interval '1 minute', '/2/users/:id/tweets', 1, 'ok' FROM generate_series(1, 40000) n
"""


def test_what_is_read_does_not_grow_with_the_tables(workshop: Workshop) -> None:
    workshop.database.execute(MANY)
    workshop.database.execute("ANALYZE api_calls")
    plan = "\n".join(line for (line,) in workshop.database.execute("EXPLAIN ANALYZE " + CALLS, (300,)))
    read_in_vain = sum(map(int, re.findall(r"Rows Removed by Filter: (\d+)", plan)))

    assert "Index" in plan
    assert read_in_vain < 1000
