"""The sweep in Dagster: before the UTC day ends, the day's tweets of the tracked accounts are read again."""

from datetime import UTC, datetime

import dagster as dg

from twitter_pipeline.orchestration.reports import describe_run, tell
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.tags import ACCOUNTS_TAG, KIND_TAG, MONITORING_PRIORITY, PRIORITY_TAG
from twitter_pipeline.session import FetchSession
from twitter_pipeline.store.sweeps import count_deleted_since, remove_deleted_content
from twitter_pipeline.watch import no_money, requests_of_day
from twitter_pipeline.words import FetchKind


@dg.op(description="Read the tweets of this UTC day again, which is free, and mark those that X has deleted.")
def sweep_accounts(
    context: dg.OpExecutionContext, x_api: dg.ResourceParam[FetchSession], database: dg.ResourceParam[OpenDatabase]
) -> None:
    """Sweep; an account that fails is swept by the next run, and fails this one only when no token is left."""
    try:
        x_api.fetch_all()
    finally:
        # Also of those that were marked before the setting was switched on.
        removed = remove_deleted_content(database.database) if database.settings.delete_content else 0
    report = x_api.finish()
    tell(context.log, [each for each in report.account_reports if each.reason])
    context.add_output_metadata(
        {
            **describe_run(report, database.database, database.settings.prices),
            "found deleted": dg.MetadataValue.int(count_deleted_since(database.database, report.started_at)),
            "content removed": dg.MetadataValue.int(removed),
        }
    )


@dg.job(
    tags={KIND_TAG: FetchKind.RECONCILE.value, PRIORITY_TAG: MONITORING_PRIORITY},
    executor_def=dg.in_process_executor,
    description=(
        "Read the tweets of this UTC day again, of the tracked accounts that have any: late tweets, metrics, edits and "
        "deletions. Free of charge but for tweets that were not read yet."
    ),
)
def sweep_day() -> None:
    """Sweep."""
    sweep_accounts()


# By name: with the job itself Dagster 1.13 rebuilds the schedule and warns of a parameter that nobody gave.
@dg.schedule(
    job_name=sweep_day.name,
    cron_schedule="15 23 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def sweep_before_midnight(
    context: dg.ScheduleEvaluationContext, database: dg.ResourceParam[OpenDatabase]
) -> dg.RunRequest | dg.SkipReason:
    """Launch the sweep while there is time for it, unless nothing is stored of the day or a budget is used up."""
    accounts = len(requests_of_day(database.database, datetime.now(UTC).date()))
    if not accounts:
        return dg.SkipReason("no tracked account has written today")
    # What was read on the same day is free, but nobody knows before a call what else it will bring.
    if (reason := no_money(database.database, database.settings)) is not None:
        return dg.SkipReason(reason)
    return dg.RunRequest(tags={ACCOUNTS_TAG: str(accounts)})
