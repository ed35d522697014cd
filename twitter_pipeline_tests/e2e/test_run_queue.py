"""The queue of runs under the project's own dagster.yaml: whatever is queued, monitoring finds a place."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from twitter_pipeline.definitions import defs
from twitter_pipeline.local.instance import dagster_storage_url, prepare_dagster_home
from twitter_pipeline_tests.conftest import Databases

MONTHS, ACCOUNTS = dg.AssetKey("tweets_by_month"), dg.AssetKey("tweets_by_account")
HERE = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("twitter_pipeline"), "__repository__")
HISTORY, POLL, SWEEP = "fetch_tweets", "poll_tracked_users", "sweep_day"
BACKFILL = "__ASSET_JOB"
"""The implicit job to which Dagster gives every run of an asset."""


@pytest.fixture
def instance(
    databases: Databases, environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance with the project's settings and a new storage, which no other test uses."""
    prepare_dagster_home(tmp_path)
    url = databases.create(template="template0")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", dagster_storage_url(url))
    with dg.DagsterInstance.get() as opened:
        yield opened
    databases.drop(url)


def queue(instance: dg.DagsterInstance, *wanted: str | dg.AssetKey) -> None:
    """Queue runs, of jobs and of assets, which are made as the daemon and the UI make them."""
    for each in wanted:
        if isinstance(each, str):
            job = defs.resolve_job_def(each)
        else:
            job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={each})
        instance.create_run_for_job(
            job,
            run_config={"handed_to": "of the test"} if each == POLL else None,
            tags=job.run_tags,
            status=dg.DagsterRunStatus.QUEUED,
            remote_job_origin=RemoteJobOrigin(HERE, job.name),
        )


def start_next(instance: dg.DagsterInstance) -> list[str]:
    """Let the daemon choose what to start, mark it as started, and return what it is, in that order."""
    chosen = QueuedRunCoordinatorDaemon(1)._get_runs_to_dequeue(
        instance, instance.get_concurrency_config(), fixed_iteration_time=None
    )
    for run in chosen:
        report(instance, run.run_id, DagsterEventType.RUN_START)
    return [run.job_name for run in chosen]


def end(instance: dg.DagsterInstance, *, one_of: str) -> None:
    """Let a run that is at work succeed."""
    at_work = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    report(instance, next(run.run_id for run in at_work if run.job_name == one_of), DagsterEventType.RUN_SUCCESS)


def report(instance: dg.DagsterInstance, run_id: str, what: DagsterEventType) -> None:
    instance.report_dagster_event(DagsterEvent(what.value, job_name="of the test"), run_id=run_id)


def test_two_backfills_are_at_work_at_once_and_monitoring_starts_beside_them(instance: dg.DagsterInstance) -> None:
    queue(instance, MONTHS, MONTHS, ACCOUNTS, MONTHS)
    first = start_next(instance)
    queue(instance, POLL)
    beside = start_next(instance)
    end(instance, one_of=BACKFILL)
    after = start_next(instance)

    assert (first, beside, after) == ([BACKFILL] * 2, [POLL], [BACKFILL])


def test_backfills_and_requests_together_leave_a_place_for_monitoring(instance: dg.DagsterInstance) -> None:
    queue(instance, *[MONTHS] * 6, *[HISTORY] * 6)
    first = start_next(instance)
    queue(instance, POLL)

    assert (first, start_next(instance)) == ([HISTORY] * 2 + [BACKFILL] * 2, [POLL])


def test_monitoring_goes_before_requests_and_requests_before_backfills(instance: dg.DagsterInstance) -> None:
    queue(instance, MONTHS, HISTORY, POLL, MONTHS, SWEEP)

    assert start_next(instance) == [POLL, SWEEP, HISTORY, BACKFILL, BACKFILL]


def test_every_asset_that_fetches_for_a_backfill_has_its_place_in_the_pool(instance: dg.DagsterInstance) -> None:
    assets = defs.resolve_asset_graph().executable_asset_keys
    queue(instance, *assets)

    assert {*assets} >= {MONTHS, ACCOUNTS}
    assert start_next(instance) == [BACKFILL] * 2
