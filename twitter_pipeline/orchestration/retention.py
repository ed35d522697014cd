"""Upkeep in Dagster: a daily run that makes partitions ahead of time, and deletes old calls and runs of the watch."""

from datetime import UTC, datetime

import dagster as dg

from twitter_pipeline.orchestration.materializations import written_by_pruning
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.tables import api_calls, fetch_runs
from twitter_pipeline.orchestration.watch import poll_tracked_users
from twitter_pipeline.store.partitions import TableInUse, make_partitions, renew_statistics
from twitter_pipeline.store.retention import delete_old_alerts, delete_old_calls, delete_old_watch_runs

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
BATCH = 200


def delete_dagster_runs(instance: dg.DagsterInstance, *, job_name: str, before: datetime, batch: int = BATCH) -> int:
    """Delete a job's runs that were made before an instant and have ended, with their events; return how many."""
    old = dg.RunsFilter(job_name=job_name, statuses=ENDED, created_before=before)
    deleted = 0
    while run_ids := instance.get_run_ids(old, limit=batch):
        for run_id in run_ids:
            instance.delete_run(run_id)
        deleted += len(run_ids)
    return deleted


@dg.op(description="Make the partitions of `tweets` and `api_calls` that will be needed next.")
def make_partitions_ahead(context: dg.OpExecutionContext, database: dg.ResourceParam[OpenDatabase]) -> None:
    """Make what is missing, long before anything is written there."""
    made: list[str] = []
    try:
        made = make_partitions(database.database)
    except TableInUse as error:
        # There are some months left for it.
        context.log.warning(f"Partitions are made the next time: {error}")
    looked_at = renew_statistics(database.database)
    context.add_output_metadata({"made": ", ".join(made), "statistics renewed": ", ".join(looked_at)})
    context.log.info(f"{', '.join(made) or 'no partition'} made")


@dg.op(description="Delete old calls and old runs of the watch, batch by batch; never tweets, never what still works.")
def delete_old_rows(context: dg.OpExecutionContext, database: dg.ResourceParam[OpenDatabase]) -> None:
    """Delete what is older than the settings say."""
    opened, settings = database.database, database.settings
    before = datetime.now(UTC) - settings.keep_watch_runs
    calls = delete_old_calls(opened, keep=settings.keep_calls)
    runs = delete_old_watch_runs(opened, keep=settings.keep_watch_runs)
    alerts = delete_old_alerts(opened, keep=settings.keep_calls)
    in_dagster = delete_dagster_runs(context.instance, job_name=poll_tracked_users.name, before=before)
    deleted = {"api_calls": calls, "fetch_runs": runs, "alerts": alerts, "runs in Dagster": in_dagster}
    context.add_output_metadata({f"deleted: {name}": dg.MetadataValue.int(count) for name, count in deleted.items()})
    for each in written_by_pruning({api_calls.key: calls, fetch_runs.key: runs}, opened):
        context.log_event(each)
    context.log.info(", ".join(f"{count:,} of {name}" for name, count in deleted.items()) + " deleted")


@dg.job(
    executor_def=dg.in_process_executor,
    description="Make partitions ahead of time; delete rows of calls and of runs of the watch that are older than the "
    "settings say.",
)
def prune() -> None:
    """Make and delete; neither waits for the other to succeed."""
    make_partitions_ahead()
    delete_old_rows()


prune_old_rows = dg.ScheduleDefinition(
    name="prune_old_rows",
    job=prune,
    cron_schedule="40 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day.",
)
