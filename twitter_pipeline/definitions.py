"""Everything Dagster loads. Loading needs no database, no network and no `.env`."""

import dagster as dg

from twitter_pipeline.orchestration.fetch import fetch_tweets
from twitter_pipeline.orchestration.resources import DatabaseResource, XApiResource
from twitter_pipeline.orchestration.sensors import close_cancelled_runs, close_failed_runs, reconcile_runs

_database = DatabaseResource()

defs = dg.Definitions(
    jobs=[fetch_tweets],
    sensors=[close_failed_runs, close_cancelled_runs, reconcile_runs],
    resources={"database": _database, "x_api": XApiResource(database=_database)},
    executor=dg.in_process_executor,
)
