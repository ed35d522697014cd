"""Everything Dagster loads. Loading needs no database, no network and no `.env`."""

import dagster as dg

from twitter_pipeline.orchestration.fetch import fetch_tweets
from twitter_pipeline.orchestration.promise import promise_sensor, stored_within_the_promise, tweets
from twitter_pipeline.orchestration.rechecks import check_accounts, check_accounts_weekly
from twitter_pipeline.orchestration.resources import DatabaseResource, XApiResource
from twitter_pipeline.orchestration.retention import prune, prune_old_rows
from twitter_pipeline.orchestration.sensors import close_cancelled_runs, close_failed_runs, reconcile_runs
from twitter_pipeline.orchestration.sweep import sweep_before_midnight, sweep_day
from twitter_pipeline.orchestration.watch import poll_tracked_users, tracked_users_sensor

_database = DatabaseResource()

defs = dg.Definitions(
    jobs=[fetch_tweets, poll_tracked_users, sweep_day, check_accounts, prune],
    schedules=[sweep_before_midnight, check_accounts_weekly, prune_old_rows],
    assets=[tweets],
    asset_checks=[stored_within_the_promise],
    sensors=[tracked_users_sensor, promise_sensor, close_failed_runs, close_cancelled_runs, reconcile_runs],
    resources={"database": _database, "x_api": XApiResource(database=_database)},
    executor=dg.in_process_executor,
)
