"""Deletes rows that nobody needs any more, in batches that hold no lock for long. Tweets are never deleted."""

from datetime import timedelta
from typing import LiteralString

from twitter_pipeline.store.database import Database
from twitter_pipeline.store.partitions import drop_old_calls

BATCH = 5_000

# A run that still works counts its calls when it closes, however old they are.
DELETE_CALLS = """
WITH old AS (
    SELECT c.id, c.called_at FROM api_calls c
    WHERE c.called_at < now() - %(keep_s)s * interval '1 second'
      AND NOT EXISTS (SELECT FROM fetch_runs r WHERE r.id = c.fetch_run_id AND r.status = 'running')
    ORDER BY c.called_at
    LIMIT %(batch)s
), gone AS (
    DELETE FROM api_calls c USING old WHERE c.id = old.id AND c.called_at = old.called_at RETURNING 1
)
SELECT count(*) FROM gone
"""

# Their accounts go with them. A batch is small: a run may have ten thousand.
DELETE_WATCH_RUNS = """
WITH old AS (
    SELECT id FROM fetch_runs
    WHERE kind = 'incremental' AND status <> 'running' AND finished_at < now() - %(keep_s)s * interval '1 second'
    ORDER BY id
    LIMIT greatest(%(batch)s / 50, 1)
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM fetch_runs r USING old WHERE r.id = old.id RETURNING 1
)
SELECT count(*) FROM gone
"""

# One whose end is still to be posted stays until it is.
DELETE_ALERTS = """
WITH old AS (
    SELECT id FROM alerts
    WHERE cleared_at < now() - %(keep_s)s * interval '1 second'
      AND told_at IS NOT NULL AND (end_message IS NULL OR end_told_at IS NOT NULL)
    ORDER BY id
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM alerts a USING old WHERE a.id = old.id RETURNING 1
)
SELECT count(*) FROM gone
"""


def delete_old_calls(database: Database, *, keep: timedelta, batch: int = BATCH) -> int:
    """Delete calls that are older than `keep`, but for those of runs that still work; return how many there were.

    Whole months are dropped first, which takes no longer for many calls than for few.
    """
    return drop_old_calls(database, keep=keep) + _delete_in_batches(database, DELETE_CALLS, keep, batch)


def delete_old_watch_runs(database: Database, *, keep: timedelta, batch: int = BATCH) -> int:
    """Delete runs of the watch that ended longer ago than `keep`, with their accounts; return how many there were."""
    return _delete_in_batches(database, DELETE_WATCH_RUNS, keep, batch)


def delete_old_alerts(database: Database, *, keep: timedelta, batch: int = BATCH) -> int:
    """Delete alerts that are over for longer than `keep`; return how many there were."""
    return _delete_in_batches(database, DELETE_ALERTS, keep, batch)


def _delete_in_batches(database: Database, statement: LiteralString, keep: timedelta, batch: int) -> int:
    deleted = 0
    while True:
        (count,) = database.execute(statement, {"keep_s": keep.total_seconds(), "batch": batch})[0]
        deleted += count
        if not count:
            return deleted
