"""Run the job `fetch_tweets` in this process, recorded in Dagster's own storage, as the command line does."""

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dagster as dg

# Public `execute_job` does not tell the run's id before the run has ended, and progress is shown by it.
from dagster._core.execution.api import execute_run
from dagster_postgres.utils import DagsterPostgresException
from dagster_shared.error import SerializableErrorInfo
from sqlalchemy.exc import DBAPIError

from twitter_pipeline import errors
from twitter_pipeline.definitions import defs
from twitter_pipeline.local.places import WorkingPlace
from twitter_pipeline.orchestration.requests import run_config_for
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.sensors import fail_vanished_runs
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.settings import load_settings
from twitter_pipeline.store.database import Database, fault_of
from twitter_pipeline.store.runs import RunReport, load_run

# How Python and Dagster write an exception: its class with the module, a colon, its text.
_CLASS_AND_TEXT = re.compile(r"(?:\w+\.)*(\w+)(?:: (.*))?", re.DOTALL)
_INTERRUPTIONS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What a run came to. `report` is None when the run broke before its row was written; `error` says why."""

    dagster_run_id: str
    report: RunReport | None
    error: str | None


def _silent(_context: dg.InitLoggerContext) -> logging.Logger:
    """Print nothing: the command shows its own progress, and the run's log is in Dagster's storage."""
    logger = logging.Logger("silent")
    logger.addHandler(logging.NullHandler())
    return logger


def fetch_job() -> dg.JobDefinition:
    """Return the job with its resources bound, as a process that knows only this function's name rebuilds it."""
    return defs.resolve_job_def("fetch_tweets").with_logger_defs({"console": dg.LoggerDefinition(_silent)})


def run_fetch_job(
    requests: Sequence[FetchRequest], place: WorkingPlace, *, on_start: Callable[[str], None] = lambda _: None
) -> FetchResult:
    """Run the job to its end in the main thread; `on_start` gets the Dagster run id before work begins.

    Runs whose process is gone are closed first, here and in Dagster.
    Ctrl-C ends the run as cancelled and is raised again as KeyboardInterrupt. Raises DatabaseFault when the run cannot
    be recorded any more.
    """
    os.environ.update(place.environment())
    opened = OpenDatabase(Database(place.database_url, pool_size=1), load_settings(os.environ))
    try:
        with dg.DagsterInstance.get() as instance:
            fail_vanished_runs(instance, opened)
            job = fetch_job()
            run = instance.create_run_for_job(job, run_config=run_config_for(requests), tags=job.run_tags)
            try:
                on_start(run.run_id)
                result = execute_run(dg.reconstructable(fetch_job), run, instance, raise_on_error=False)
                if _was_interrupted(result):
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                _note_cancelled(instance, run.run_id)
                raise
            except (DagsterPostgresException, DBAPIError) as error:
                raise fault_of(_root_of(error)) from error
        report = load_run(opened.database, dagster_run_id=run.run_id)
    finally:
        opened.database.close()
    return FetchResult(run.run_id, report, None if result.success else _first_failure(result))


def _root_of(error: BaseException) -> BaseException:
    """Return the error of the database's driver, which Dagster wraps in others."""
    return error if error.__cause__ is None else _root_of(error.__cause__)


def _was_interrupted(result: dg.JobExecutionResult) -> bool:
    """Whether a signal ended the run; Dagster calls it a failure when it comes between two steps."""
    if result.dagster_run.status is dg.DagsterRunStatus.CANCELED:
        return True
    return not result.success and any(error.cls_name in _INTERRUPTIONS for error in _errors(result))


def _note_cancelled(instance: dg.DagsterInstance, run_id: str) -> None:
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status is not dg.DagsterRunStatus.CANCELED:
        instance.report_run_canceled(run, message="A signal asked the run to stop.")


def _errors(result: dg.JobExecutionResult) -> list[SerializableErrorInfo]:
    """Return the errors that ended the run and its steps, the first one first."""
    found: list[SerializableErrorInfo] = []
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
        elif event.is_failure:
            error = getattr(event.event_specific_data, "error", None)
        else:
            continue
        if error is not None:
            found.append(error)
    return found


def _first_failure(result: dg.JobExecutionResult) -> str:
    """Say why a run failed, as its first error says it to a person: no stack, nothing of Dagster's own."""
    for error in _errors(result):
        return _told(error)
    return next((event.message for event in result.all_events if event.is_failure and event.message), "the run failed")


def _told(error: SerializableErrorInfo) -> str:
    """Return the text of the first error in a chain that is not Dagster's wrapping of another."""
    while error.cause is not None and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    match = _CLASS_AND_TEXT.fullmatch(error.message.strip())
    if match is None:
        return error.message.strip()
    name, text = match[1], (match[2] or "").strip()
    is_for_people = name == "Failure" or issubclass(getattr(errors, name, object), errors.PipelineError)
    return text if text and is_for_people else f"{name}: {text}".removesuffix(": ")
