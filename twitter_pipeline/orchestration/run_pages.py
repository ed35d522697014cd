"""The last entry in the log of a run, however it ended: its accounts, its charts and its numbers.

A sensor adds it, in the process that evaluates sensors, where what draws stays loaded. In the run's own process the
charts would take one to two seconds and 80 MB.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg

# Public ways to add an event to a run end with its last step; the framework reports its own so.
from dagster._core.events import EngineEventData

from twitter_pipeline.charts.calls import draw_calls
from twitter_pipeline.charts.tweets import draw_tweets
from twitter_pipeline.orchestration.images import image_of
from twitter_pipeline.orchestration.reports import describe_run
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.store.charts import load_run_calls, load_tweet_counts
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.pages import EndedRun, load_ended
from twitter_pipeline.store.runs import load_run
from twitter_pipeline.texts import counted

SAID: Final = "What the run has fetched, and how it used its tokens."
"""By this the entry is known: it is made once."""

LOOK_EVERY_S = 5
"""Somebody may be looking at the page of a run that has just ended. A look is one query."""

FEWEST_OF_A_POLL = 50
"""Tweets. A watch polls some times a minute, and what it shows is kept with its runs."""

LOOKED_BACK = timedelta(days=1)
"""So that runs of the command line have their charts too when the UI is started after them."""

PATIENCE = timedelta(minutes=10)
"""A run is closed in the tables a moment before Dagster is told; one that Dagster never hears of holds up no other."""

LONGEST_TICK_S = 10.0
"""No other run is begun after that; a tick may last 60 s, and drawing takes a second or two a run."""

MOST_A_TICK = 50


@dg.sensor(
    minimum_interval_seconds=LOOK_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Adds the last entry to the log of a run: what became of its accounts, and the charts of its tweets and of its "
        "calls against the limits of the tokens."
    ),
)
def run_pages_sensor(context: dg.SensorEvaluationContext, database: dg.ResourceParam[OpenDatabase]) -> dg.SkipReason:
    """Finish the pages of runs that have ended since the last tick."""
    began, now = time.monotonic(), datetime.now(UTC)
    after = now - LOOKED_BACK if context.cursor is None else datetime.fromisoformat(context.cursor)
    finished = 0
    for ended in load_ended(database.database, after=after, of_a_poll=FEWEST_OF_A_POLL, most=MOST_A_TICK):
        run = context.instance.get_run_by_id(ended.dagster_run_id)
        if run is not None and not run.is_finished and now - ended.finished_at < PATIENCE:
            break
        if run is not None:
            finished += finish_page(context.instance, run, ended, database)
        after = ended.finished_at
        if time.monotonic() - began > LONGEST_TICK_S:
            break
    context.update_cursor(after.isoformat())
    if not finished:
        return dg.SkipReason("no run has ended since the last look")
    return dg.SkipReason(f"finished the {counted(finished, 'page')} of runs that have ended")


def finish_page(instance: dg.DagsterInstance, run: dg.DagsterRun, ended: EndedRun, opened: OpenDatabase) -> bool:
    """Add the entry to a run that has none, and tell whether it was added now."""
    report = load_run(opened.database, run_id=ended.id)
    if report is None or SAID in _engine_events(instance, run.run_id):
        return False
    # The UI shows the first lines of an entry; for the others, and all of the table, it must be opened.
    described = describe_run(report, opened.database, opened.settings.prices)
    metadata = {**charts_of(opened.database, ended.id), **described}
    instance.report_engine_event(SAID, run, EngineEventData(metadata))
    return True


def charts_of(database: Database, fetch_run_id: int) -> Mapping[str, dg.MetadataValue]:
    """Return the charts of a run; one that has nothing to show is left out."""
    counts, calls = load_tweet_counts(database, fetch_run_id), load_run_calls(database, fetch_run_id)
    pictures = {
        "tweets by account": draw_tweets(counts),
        "calls against the limits": None if calls is None else draw_calls(calls),
    }
    return {name: image_of(png, name) for name, png in pictures.items() if png is not None}


def _engine_events(instance: dg.DagsterInstance, run_id: str) -> set[str]:
    found = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT).records
    return {str(each.event_log_entry.dagster_event.message) for each in found if each.event_log_entry.dagster_event}
