"""Everything Dagster loads. Loading needs no database, no network and no `.env`."""

import dagster as dg

from twitter_pipeline.orchestration.alerts import alerts_sensor
from twitter_pipeline.orchestration.backfills import tracked_accounts_sensor, tweets_by_account, tweets_by_month
from twitter_pipeline.orchestration.checks import asset_checks, checks_sensor
from twitter_pipeline.orchestration.costs_page import costs, show_costs
from twitter_pipeline.orchestration.estimates import estimate_fetch
from twitter_pipeline.orchestration.executors import chosen_executor
from twitter_pipeline.orchestration.fetch import fetch_tweets
from twitter_pipeline.orchestration.logs import console
from twitter_pipeline.orchestration.outputs import EventLogOutputsResource
from twitter_pipeline.orchestration.rechecks import check_accounts, check_accounts_weekly
from twitter_pipeline.orchestration.resources import DatabaseResource, XApiResource
from twitter_pipeline.orchestration.retention import prune, prune_old_rows
from twitter_pipeline.orchestration.run_pages import run_pages_sensor
from twitter_pipeline.orchestration.sensors import close_cancelled_runs, close_failed_runs, reconcile_runs
from twitter_pipeline.orchestration.sweep import sweep_before_midnight, sweep_day
from twitter_pipeline.orchestration.tables import TABLES
from twitter_pipeline.orchestration.token_page import show_tokens, tokens_sensor
from twitter_pipeline.orchestration.watch import poll_tracked_users, tracked_users_sensor

_database = DatabaseResource()

defs = dg.Definitions(
    jobs=[fetch_tweets, estimate_fetch, poll_tracked_users, sweep_day, check_accounts, prune, show_tokens, show_costs],
    schedules=[sweep_before_midnight, check_accounts_weekly, prune_old_rows],
    assets=[*TABLES, costs, tweets_by_month, tweets_by_account],
    asset_checks=asset_checks,
    sensors=[
        tracked_users_sensor,
        tracked_accounts_sensor,
        checks_sensor,
        alerts_sensor,
        tokens_sensor,
        run_pages_sensor,
        close_failed_runs,
        close_cancelled_runs,
        reconcile_runs,
    ],
    resources={
        "database": _database,
        "x_api": XApiResource(database=_database),
        "io_manager": EventLogOutputsResource(),
    },
    executor=chosen_executor,
    loggers={"console": console},
)
