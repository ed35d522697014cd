"""Run a request or a backfill in this process, recorded in Dagster's own storage, as the command line does."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dagster as dg

# What `reconstructable` makes of a function, for the job of assets, which no function can return.
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.definitions.job_base import IJob
from dagster._core.definitions.reconstruct import ReconstructableRepository

# Public `execute_job` does not tell the run's id before the run has ended, and progress is shown by it.
from dagster._core.execution.api import execute_run
from dagster_postgres.utils import DagsterPostgresException
from dagster_shared import record
from sqlalchemy.exc import DBAPIError

from twitter_pipeline.definitions import defs
from twitter_pipeline.errors import NotConfirmed
from twitter_pipeline.local.places import WorkingPlace
from twitter_pipeline.months import Months
from twitter_pipeline.orchestration.failures import errors_of, first_failure
from twitter_pipeline.orchestration.partitions import BY_MONTH, tags_of
from twitter_pipeline.orchestration.requests import backfill_config, run_config_for
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.sensors import fail_vanished_runs
from twitter_pipeline.orchestration.tags import KIND_TAG
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.settings import load_settings
from twitter_pipeline.store.database import Database, fault_of
from twitter_pipeline.store.runs import RunReport, load_run
from twitter_pipeline.words import FetchKind, Source

_INTERRUPTIONS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What a run came to. `report` is None when the run broke before its row was written; `error` says why it broke.

    `wants_confirmation` tells that it fetched nothing because it would cost much.
    """

    dagster_run_id: str
    report: RunReport | None
    error: str | None
    wants_confirmation: bool = False


def _silent(_context: dg.InitLoggerContext) -> logging.Logger:
    """Print nothing: the command shows its own progress, and the run's log is in Dagster's storage."""
    logger = logging.Logger("silent")
    logger.addHandler(logging.NullHandler())
    return logger


_LOGGERS = {"console": dg.LoggerDefinition(_silent)}

quiet_defs = record.copy(defs, loggers=_LOGGERS)


def fetch_job() -> dg.JobDefinition:
    """Return the job with its resources bound, as a process that knows only this function's name rebuilds it."""
    return defs.resolve_job_def("fetch_tweets").with_logger_defs(_LOGGERS)


def run_fetch_job(
    requests: Sequence[FetchRequest],
    place: WorkingPlace,
    *,
    on_start: Callable[[str], None] = lambda _: None,
    confirm: bool = False,
) -> FetchResult:
    """Run the job on a request, as `_run` does."""
    job = fetch_job()

    def create(instance: dg.DagsterInstance) -> dg.DagsterRun:
        return instance.create_run_for_job(job, run_config=run_config_for(requests, confirm=confirm), tags=job.run_tags)

    return _run(dg.reconstructable(fetch_job), create, place, on_start)


def run_backfill(
    names: Sequence[str],
    months: Months,
    source: Source,
    place: WorkingPlace,
    *,
    on_start: Callable[[str], None] = lambda _: None,
    confirm: bool = False,
) -> FetchResult:
    """Materialize months for these accounts in one run, for all that are tracked without a name, as `_run` does."""

    # The job that the UI runs too when partitions are chosen there, so that such a run can be executed again from it.
    job = ReconstructableRepository.for_module(__name__, "quiet_defs").get_reconstructable_job(IMPLICIT_ASSET_JOB_NAME)

    def create(instance: dg.DagsterInstance) -> dg.DagsterRun:
        return instance.create_run_for_job(
            quiet_defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={BY_MONTH}),
            run_config=backfill_config(names, source, confirm=confirm),
            tags={KIND_TAG: FetchKind.BACKFILL.value, **tags_of(months)},
            asset_selection={BY_MONTH},
        )

    return _run(job, create, place, on_start)


def _run(
    job: IJob,
    create: Callable[[dg.DagsterInstance], dg.DagsterRun],
    place: WorkingPlace,
    on_start: Callable[[str], None],
) -> FetchResult:
    """Run a job to its end in the main thread; `on_start` gets the Dagster run id before work begins.

    Runs whose process is gone are closed first, here and in Dagster.
    Ctrl-C ends the run as cancelled and is raised again as KeyboardInterrupt. Raises DatabaseFault when the run cannot
    be recorded any more.
    """
    os.environ.update(place.environment())
    opened = OpenDatabase(Database(place.database_url, pool_size=1), load_settings(os.environ))
    try:
        with dg.DagsterInstance.get() as instance:
            fail_vanished_runs(instance, opened)
            run = create(instance)
            try:
                on_start(run.run_id)
                result = execute_run(job, run, instance, raise_on_error=False)
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
    if result.success:
        return FetchResult(run.run_id, report, None)
    return FetchResult(
        run.run_id,
        report,
        first_failure(result.all_events),
        wants_confirmation=_broke_by(result, NotConfirmed),
    )


def _broke_by(result: dg.JobExecutionResult, kind: type[Exception]) -> bool:
    """Whether an error of a class of ours ended a step, which Dagster tells by the name of the class."""
    causes = errors_of(result.all_events)
    for error in causes:
        if error.cause is not None:
            causes.append(error.cause)
    return any(error.cls_name == kind.__name__ for error in causes)


def _root_of(error: BaseException) -> BaseException:
    """Return the error of the database's driver, which Dagster wraps in others."""
    return error if error.__cause__ is None else _root_of(error.__cause__)


def _was_interrupted(result: dg.JobExecutionResult) -> bool:
    """Whether a signal ended the run; Dagster calls it a failure when it comes between two steps."""
    if result.dagster_run.status is dg.DagsterRunStatus.CANCELED:
        return True
    return not result.success and any(error.cls_name in _INTERRUPTIONS for error in errors_of(result.all_events))


def _note_cancelled(instance: dg.DagsterInstance, run_id: str) -> None:
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status is not dg.DagsterRunStatus.CANCELED:
        instance.report_run_canceled(run, message="A signal asked the run to stop.")
