"""Run the job `fetch_tweets` in this process, recorded in Dagster's own storage, as the command line does."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dagster as dg

# Public `execute_job` does not tell the run's id before the run has ended, and progress is shown by it.
from dagster._core.execution.api import execute_run

from twitter_pipeline.definitions import defs
from twitter_pipeline.local.places import WorkingPlace
from twitter_pipeline.orchestration.requests import run_config_for, tags_for
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import RunReport, load_run
from twitter_pipeline.words import FetchKind


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What a run came to. `report` is None when the run broke before its row was written; `error` says why."""

    dagster_run_id: str
    report: RunReport | None
    error: str | None


def fetch_job() -> dg.JobDefinition:
    """Return the job with its resources bound, as a process that knows only this function's name rebuilds it."""
    return defs.resolve_job_def("fetch_tweets")


def run_fetch_job(
    requests: Sequence[FetchRequest], place: WorkingPlace, *, on_start: Callable[[str], None] = lambda _: None
) -> FetchResult:
    """Run the job to its end in the main thread; `on_start` gets the Dagster run id before work begins.

    Ctrl-C ends the run as cancelled and is raised again as KeyboardInterrupt.
    """
    os.environ.update(place.environment())
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(
            fetch_job(),
            run_config=run_config_for(requests),
            tags=tags_for(requests, kind=FetchKind.HISTORY),
        )
        on_start(run.run_id)
        result = execute_run(dg.reconstructable(fetch_job), run, instance, raise_on_error=False)
        ended = instance.get_run_by_id(run.run_id)
    if ended is not None and ended.status is dg.DagsterRunStatus.CANCELED:
        raise KeyboardInterrupt
    return FetchResult(run.run_id, _load_report(place, run.run_id), None if result.success else _first_failure(result))


def _load_report(place: WorkingPlace, run_id: str) -> RunReport | None:
    database = Database(place.database_url, pool_size=1)
    try:
        return load_run(database, dagster_run_id=run_id)
    finally:
        database.close()


def _first_failure(result: dg.JobExecutionResult) -> str:
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error is not None:
            error = event.step_failure_data.error
            return (error.cause.message if error.cause else error.message).strip()
        if event.is_failure and event.message:
            return event.message
    return "the run failed"
