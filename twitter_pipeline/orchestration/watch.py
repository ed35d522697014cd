"""The watch in Dagster: a sensor that hands out the accounts that are due, and the job that polls them."""

import dagster as dg

from twitter_pipeline.delays import describe_delays
from twitter_pipeline.orchestration.promise import delays_metadata
from twitter_pipeline.orchestration.reports import describe_run, tell
from twitter_pipeline.orchestration.requests import watch_config
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.tags import ACCOUNTS_TAG, KIND_TAG, MONITORING_PRIORITY, PRIORITY_TAG
from twitter_pipeline.session import FetchSession
from twitter_pipeline.store.delays import load_delays
from twitter_pipeline.store.watch import release
from twitter_pipeline.watch import plan_next_polls, take_due
from twitter_pipeline.words import AccountOutcome, FetchKind

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
LOOK_EVERY_S = 10
"""A look at what is due is a statement or two."""


@dg.op(description="Fetch what is new of each account, and decide when each is polled next.")
def poll_accounts(
    context: dg.OpExecutionContext, x_api: dg.ResourceParam[FetchSession], database: dg.ResourceParam[OpenDatabase]
) -> None:
    """Poll; an account that fails is tried again soon, and fails the run only when no token is left."""
    try:
        x_api.fetch_all()
    finally:
        reports = x_api.account_reports()
        plan_next_polls(database.database, database.settings, reports)
        release(database.database, str(context.run.run_config.get("handed_to", "")))
    tell(context.log, [report for report in reports if report.outcome is not AccountOutcome.DONE])
    delays = load_delays(database.database, promise=database.settings.watch_promise)
    described = describe_run(x_api.finish(), database.database, database.settings.prices)
    context.add_output_metadata({**described, **delays_metadata(delays)})


@dg.job(
    config=watch_config,
    tags={KIND_TAG: FetchKind.INCREMENTAL.value, PRIORITY_TAG: MONITORING_PRIORITY},
    executor_def=dg.in_process_executor,
    description="Fetch what is new of tracked accounts. The sensor launches it; by hand, name accounts to poll now.",
)
def poll_tracked_users() -> None:
    """Poll."""
    poll_accounts()


# By name: with the job itself Dagster 1.13 rebuilds the sensor and warns of a parameter that nobody gave.
@dg.sensor(
    job_name=poll_tracked_users.name,
    minimum_interval_seconds=LOOK_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def tracked_users_sensor(
    context: dg.SensorEvaluationContext, database: dg.ResourceParam[OpenDatabase]
) -> dg.RunRequest | dg.SkipReason:
    """Launch a run for the tracked accounts that are due, one run at a time."""
    at_work = dg.RunsFilter(job_name=poll_tracked_users.name, statuses=UNDER_WAY)
    if context.instance.get_run_ids(at_work, limit=1):
        return dg.SkipReason("the run before is still queued or at work")
    due = take_due(database.database, database.settings)
    if isinstance(due, str):
        return dg.SkipReason(due)
    promise = database.settings.watch_promise
    context.log.info(f"{due.accounts:,} accounts are due")
    context.log.info(describe_delays(load_delays(database.database, promise=promise), promise))
    return dg.RunRequest(run_key=due.key, run_config={"handed_to": due.key}, tags={ACCOUNTS_TAG: str(due.accounts)})
