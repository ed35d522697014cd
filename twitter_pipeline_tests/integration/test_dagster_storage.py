"""Dagster's own storage: PostgreSQL through a pool, apart from the tables, SQLite where there is no server."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg  # noqa: TID251 - the storage is Dagster's
import psycopg
import pytest
from dagster._core.run_coordinator import QueuedRunCoordinator  # noqa: TID251

from twitter_pipeline.local.instance import dagster_storage_url, prepare_dagster_home
from twitter_pipeline.local.postgres import EmbeddedServer, embedded_server
from twitter_pipeline.orchestration.storage import PooledRunStorage
from twitter_pipeline.settings import PROJECT_DIR

LOAD = "import dagster; dagster.DagsterInstance.get()"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with embedded_server(tmp_path_factory.mktemp("server") / "postgres", durable=False) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepare_dagster_home(tmp_path / "home")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    return tmp_path / "home"


@contextmanager
def instance_on(url: str, monkeypatch: pytest.MonkeyPatch) -> Generator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)
    with dg.DagsterInstance.get() as instance:
        yield instance


def tables(server: EmbeddedServer, database: str) -> dict[str, int]:
    """Count the tables of each schema."""
    with psycopg.connect(server.url(database).replace("+psycopg", "")) as connection:
        rows = connection.execute("SELECT schemaname, count(*) FROM pg_tables GROUP BY 1").fetchall()
    return {schema: count for schema, count in rows if schema not in {"pg_catalog", "information_schema"}}


@dg.op
def nothing() -> None:
    pass


@dg.job
def nothing_job() -> None:
    nothing()


@pytest.mark.usefixtures("home")
def test_runs_and_events_are_stored_in_postgresql(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with instance_on(server.url("dagster"), monkeypatch) as instance:
        result = nothing_job.execute_in_process(instance=instance)
    with instance_on(server.url("dagster"), monkeypatch) as instance:
        run = instance.get_run_by_id(result.run_id)
        events = [record.dagster_event_type for record in instance.all_logs(result.run_id)]

    assert run is not None
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert dg.DagsterEventType.STEP_SUCCESS in events


@pytest.mark.usefixtures("home")
def test_on_a_given_server_it_keeps_to_a_schema_of_its_own(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance_on(dagster_storage_url(server.url("given")), monkeypatch) as instance:
        nothing_job.execute_in_process(instance=instance)

    assert set(tables(server, "given")) == {"dagster"}


@pytest.mark.usefixtures("home")
def test_a_restart_of_the_server_goes_unnoticed(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with instance_on(server.url("dagster"), monkeypatch) as instance:
        before = nothing_job.execute_in_process(instance=instance)
        instance.optimize_for_webserver(statement_timeout=5000, pool_recycle=3600, max_overflow=5)
        instance.get_runs_count()
        os.kill(int((server.folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        server.ensure_running()
        after = nothing_job.execute_in_process(instance=instance)
        found = [instance.get_run_by_id(run_id) for run_id in (before.run_id, after.run_id)]

    assert None not in found


@pytest.mark.usefixtures("home")
def test_statements_of_the_web_server_are_limited(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with instance_on(server.url("dagster"), monkeypatch) as instance:
        instance.optimize_for_webserver(statement_timeout=5000, pool_recycle=3600, max_overflow=5)
        storage = instance.run_storage
        assert isinstance(storage, PooledRunStorage)
        with storage.connect() as connection:
            limit = connection.exec_driver_sql("SHOW statement_timeout").scalar_one()

    assert limit == "5s"


def test_processes_that_start_at_once_create_the_storage_together(home: Path, server: EmbeddedServer) -> None:
    url = dagster_storage_url(server.url("at_once"))
    environment = {**os.environ, "DAGSTER_HOME": str(home), "DAGSTER_POSTGRES_URL": url}
    words = [sys.executable, "-c", LOAD]

    processes = [subprocess.Popen(words, env=environment, cwd=home) for _ in range(4)]
    statuses = [process.wait() for process in processes]

    assert statuses == [0] * 4


@pytest.mark.usefixtures("home")
def test_the_address_is_not_in_what_dagster_passes_on_command_lines(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance_on(server.url("dagster") + "&application_name=known", monkeypatch) as instance:
        reference = str(instance.get_ref().to_dict())

    assert "known" not in reference


def test_without_a_server_everything_runs_over_sqlite(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        result = nothing_job.execute_in_process(instance=instance)
        found = instance.get_run_by_id(result.run_id)

    assert found is not None
    assert (home / "history").is_dir()


def test_the_instance_says_what_the_project_relies_on(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        coordinator = instance.run_coordinator
        assert isinstance(coordinator, QueuedRunCoordinator)
        relied_on: dict[str, object] = {
            "telemetry": instance.telemetry_enabled,
            "nux": instance.nux_enabled,
            "monitoring": instance.run_monitoring_enabled,
            "loggers": instance.managed_python_loggers,
            "level": instance.python_log_level,
            "dequeue": coordinator.dequeue_interval_seconds,
        }

    assert relied_on == {
        "telemetry": False,
        "nux": False,
        "monitoring": True,
        "loggers": ["twitter_pipeline"],
        "level": "INFO",
        "dequeue": 1,
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            "postgresql://me:pass@db.example/tweets?sslmode=require",
            "postgresql+psycopg2://me:pass@db.example/tweets?options=-csearch_path%3Ddagster&sslmode=require",
        ),
        (
            "postgres://db.example/tweets?options=-cstatement_timeout=5000",
            "postgresql+psycopg2://db.example/tweets?options=-cstatement_timeout%3D5000+-csearch_path%3Ddagster",
        ),
    ],
)
def test_the_storage_is_on_the_server_of_the_tables(given: str, expected: str) -> None:
    assert dagster_storage_url(given) == expected


def test_a_changed_dagster_yaml_is_copied_again(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("# of an older version\n")

    prepare_dagster_home(tmp_path)

    assert (tmp_path / "dagster.yaml").read_text() == (PROJECT_DIR / "dagster.yaml").read_text()


def test_a_dagster_yaml_of_the_person_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("# mine\n")

    prepare_dagster_home(tmp_path, keep_existing=True)

    assert (tmp_path / "dagster.yaml").read_text() == "# mine\n"
