"""Sensors that close what a run could not close itself."""

import time

import dagster as dg

from twitter_pipeline.orchestration.materializations import report_written
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.store.runs import VANISHED, RunReport, close_run, close_vanished_runs, load_run
from twitter_pipeline.words import RunStatus

LONGEST_BEGINNING_S = 120.0
"""A run has its row a second or two after it was made, later only while the database does not answer."""

LONGEST_ENDING_S = 60.0
"""Dagster is told of a run's end a moment after the run was closed in the tables."""

# Queued and starting runs are left to Dagster, which starts the ones and gives up the others by itself.
UNFINISHED = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def close_with_dagster(
    instance: dg.DagsterInstance, dagster_run: dg.DagsterRun, database: OpenDatabase, status: RunStatus, error: str
) -> None:
    """Close a run in `fetch_runs` that Dagster says has ended, and report what it wrote, unless it did so itself."""
    report = load_run(database.database, dagster_run_id=dagster_run.run_id)
    if report is not None and report.status is RunStatus.RUNNING:
        close_run(database.database, report.id, status=status, error=error, prices=database.settings.prices)
    report_written(instance, dagster_run, database.database)


@dg.run_failure_sensor(minimum_interval_seconds=10, default_status=dg.DefaultSensorStatus.RUNNING)
def close_failed_runs(context: dg.RunFailureSensorContext, database: dg.ResourceParam[OpenDatabase]) -> None:
    """Close runs whose process died or whose steps broke before they could."""
    message = context.failure_event.message
    # What Dagster says when the process that ran it is gone, which tells a person nothing.
    if not message or "from outside the execution context" in message:
        message = VANISHED
    close_with_dagster(context.instance, context.dagster_run, database, RunStatus.FAILED, message)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.CANCELED,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def close_cancelled_runs(context: dg.RunStatusSensorContext, database: dg.ResourceParam[OpenDatabase]) -> None:
    """Close runs that were cancelled before they could do so themselves."""
    close_with_dagster(context.instance, context.dagster_run, database, RunStatus.CANCELLED, "cancelled in Dagster")


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def reconcile_runs(context: dg.SensorEvaluationContext, database: dg.ResourceParam[OpenDatabase]) -> dg.SkipReason:
    """Close runs that nobody works on any more, here and in Dagster: after a crash of the machine nothing else does."""
    closed = fail_vanished_runs(context.instance, database)
    return dg.SkipReason(f"closed {len(closed)} vanished runs" if closed else "every running run is alive")


def fail_vanished_runs(instance: dg.DagsterInstance, database: OpenDatabase) -> list[str]:
    """Close vanished runs in `fetch_runs` and report them to Dagster as failed; return their Dagster run ids.

    Those too that a command has closed in `fetch_runs`, where it finds them without loading Dagster, and those that
    died before they had a row there, or between closing it and telling Dagster.
    """
    close_vanished_runs(database.database, prices=database.settings.prices)
    failed: list[str] = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)):
        run = record.dagster_run
        report = load_run(database.database, dagster_run_id=run.run_id)
        if _has_ended(report) if report else _never_began(record):
            report_written(instance, run, database.database)
            instance.report_run_failed(run, "The process of this run is gone; what it fetched is stored.")
            failed.append(run.run_id)
    return failed


def _has_ended(report: RunReport) -> bool:
    """Whether a run that Dagster takes for unfinished is closed in `fetch_runs`, and not just now."""
    if report.finished_at is None:
        return False
    return report.error == VANISHED or time.time() - report.finished_at.timestamp() > LONGEST_ENDING_S


def _never_began(record: dg.RunRecord) -> bool:
    """Whether a run without a row in `fetch_runs` was started too long ago to be still on its way to it."""
    started_at = record.start_time or record.create_timestamp.timestamp()
    return time.time() - started_at > LONGEST_BEGINNING_S
