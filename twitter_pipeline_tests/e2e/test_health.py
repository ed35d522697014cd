"""The command `health` over a real database and Dagster's real storage."""

import json
import os
import subprocess
import sys
import time

import dagster as dg
import psycopg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from twitter_pipeline.cli import main
from twitter_pipeline.probes import DAEMONS, HEARTBEAT_MAY_BE_OLD
from twitter_pipeline.settings import PROJECT_DIR
from twitter_pipeline.store.stream import ListenLock
from twitter_pipeline.store.tokens import load_tokens, register_tokens, save_token_status
from twitter_pipeline.store.urls import for_libpq
from twitter_pipeline.words import TokenStatus
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop


@pytest.fixture
def workshop(make_workshop: MakeWorkshop) -> Workshop:
    workshop = make_workshop([])
    register_tokens(workshop.database, workshop.place.bearer_tokens, ["/2/users"])
    return workshop


def beat(*, age_s: float = 0.0) -> None:
    """Give the signs of life of a daemon that works with the project's dagster.yaml."""
    with dg.DagsterInstance.get() as instance:
        for name in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - age_s, name, "a daemon"))


def health(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, bool]]:
    code = main(["health", "--json", *words])
    told = json.loads(capsys.readouterr().out)
    assert told["is_well"] == (code == 0)
    return code, {each["part"]: each["is_well"] for each in told["parts"]}


ALL_WELL = {"database": True, "schema": True, "storage": True, "daemon": True, "tokens": True}


def test_the_daemons_that_are_looked_for_are_those_that_dagster_runs(workshop: Workshop) -> None:
    with dg.DagsterInstance.get() as instance:
        assert set(instance.get_required_daemon_types()) == set(DAEMONS)


def test_an_installation_is_well_when_all_its_parts_are(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    beat()

    assert health(capsys) == (0, ALL_WELL)
    assert main(["health"]) == 0
    shown = capsys.readouterr().out
    assert all(part in shown for part in ALL_WELL)
    assert "2 of 2 tokens fit for use" in shown


def test_a_daemon_that_has_stopped_is_told_and_does_not_matter_to_who_asks_for_life_only(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    beat(age_s=HEARTBEAT_MAY_BE_OLD.total_seconds() + 60)

    assert health(capsys) == (1, {**ALL_WELL, "daemon": False})
    assert health(capsys, "--live") == (0, {"database": True})
    assert health(capsys, "--part", "daemon") == (1, {"daemon": False})


def test_tokens_are_well_while_one_of_them_is(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    beat()
    one, two = load_tokens(workshop.database)

    save_token_status(workshop.database, one.id, TokenStatus.INVALID, reason="401")
    assert health(capsys) == (0, ALL_WELL)
    save_token_status(workshop.database, two.id, TokenStatus.REVOKED, reason="403")
    assert health(capsys) == (1, {**ALL_WELL, "tokens": False})


def test_a_listener_is_known_by_the_lock_that_it_holds(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    assert health(capsys, "--part", "listener") == (1, {"listener": False})
    lock = ListenLock.try_take(workshop.database, "TWITTER_BEARER_2")
    assert lock is not None
    assert main(["health", "--part", "listener"]) == 0
    assert "somebody listens with TWITTER_BEARER_2" in capsys.readouterr().out
    lock.release()
    assert health(capsys, "--part", "listener") == (1, {"listener": False})


def test_a_database_without_tables_or_with_old_ones_is_not_well(
    make_workshop: MakeWorkshop, empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_workshop([])
    os.environ["DATABASE_URL"] = empty_database_url

    assert main(["health", "--part", "schema"]) == 1
    assert "has no tables of this project yet" in capsys.readouterr().out
    assert main(["db", "upgrade"]) == 0
    capsys.readouterr()
    assert health(capsys, "--part", "schema") == (0, {"schema": True})
    with psycopg.connect(for_libpq(empty_database_url)) as connection:
        connection.execute("UPDATE twitter_pipeline_version SET version_num = '0007'")
    capsys.readouterr()
    assert main(["health", "--part", "schema"]) == 1
    assert "has schema version 0007" in capsys.readouterr().out


def test_a_statement_that_hangs_is_given_up(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("twitter_pipeline.probes.PATIENCE_S", 1)
    with workshop.database.transaction() as connection:
        connection.execute("LOCK TABLE tokens")
        assert main(["health", "--part", "tokens"]) == 1

    assert "canceling statement due to statement timeout" in capsys.readouterr().out


def test_neither_dagster_nor_what_calls_x_is_loaded_for_it(workshop: Workshop) -> None:
    script = "import sys; from twitter_pipeline.cli import main; main(['health']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT_DIR,
        env={**os.environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nothing"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "database   not well" in done.stdout
    assert {"dagster", "httpx", "pandas"} & set(done.stderr.split()) == set()
