"""Statements for metrics. Each reads few rows, by an index, or counts that PostgreSQL keeps itself."""

from dataclasses import dataclass
from datetime import timedelta

import psycopg

from twitter_pipeline.store.database import Database
from twitter_pipeline.words import AlertKind, FetchKind, RunStatus

RECENTLY = timedelta(minutes=5)
"""Over so long a time recent calls are counted: X allows a dozen tokens some 40,000 in it."""

LATEST_RUNS = 2000
"""Runs have no index by time; polls begin every 15 seconds at most, so an hour has fewer."""

# A call that is under way has no outcome.
CALLS = """
SELECT endpoint, coalesce(outcome::text, 'under_way'), count(*), coalesce(sum(result_count), 0)::bigint,
       coalesce(sum(billed_posts), 0)::bigint, coalesce(sum(billed_users), 0)::bigint
FROM api_calls
WHERE called_at > now() - %s * interval '1 second'
GROUP BY 1, 2 ORDER BY 1, 2
"""

# Of the sequence, as rows are deleted after a while: a few numbers may have been given to no call.
CALLS_EVER = "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('api_calls', 'id')::regclass), 0)"

# Rows are not counted: PostgreSQL keeps how many were inserted, and estimates how many there are.
TWEETS = """
SELECT coalesce(sum(s.n_tup_ins), 0)::bigint, coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
FROM pg_class c
LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE c.relkind = 'r'
  AND (c.oid = 'tweets'::regclass OR c.oid IN (SELECT relid FROM pg_partition_tree('tweets'::regclass)))
"""

RUNS = """
SELECT kind::text, status::text, count(*)
FROM (
    SELECT kind, status, finished_at FROM fetch_runs ORDER BY id DESC LIMIT %s
) latest
WHERE status = 'running' OR finished_at > now() - interval '1 hour'
GROUP BY 1, 2
"""

# As the sensor chooses whom to poll (watch.py), those that a run has taken already among them.
WATCH = """
SELECT count(*), count(*) FILTER (WHERE s.next_poll_at IS NULL OR s.next_poll_at <= now()),
       coalesce(max(extract(epoch FROM now() - s.next_poll_at)) FILTER (WHERE s.next_poll_at <= now()), 0)::float8
FROM user_state s JOIN users u ON u.id = s.user_id
WHERE s.is_tracked AND u.username IS NOT NULL
"""

ALERTS = "SELECT kind::text, count(*) FROM alerts WHERE cleared_at IS NULL GROUP BY kind"

# Of Dagster's own table, which has an index by status.
DAGSTER_RUNS = """
SELECT status, count(*) FROM runs
WHERE status IN ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING')
GROUP BY status
"""


@dataclass(frozen=True, slots=True)
class RecentCalls:
    """The calls of the last minutes to one endpoint with one outcome, and what they brought and cost."""

    endpoint: str
    outcome: str
    calls: int
    results: int
    billed_posts: int
    billed_users: int


@dataclass(frozen=True, slots=True)
class TweetCounts:
    """How many tweets were stored since PostgreSQL's statistics begin, and about how many there are."""

    stored: int
    estimated: int


@dataclass(frozen=True, slots=True)
class WatchQueue:
    """How many accounts are tracked, how many are due, and for how long the longest one has been."""

    tracked: int
    due: int
    overdue_s: float


def load_recent_calls(database: Database) -> list[RecentCalls]:
    """Return the calls of the last minutes by endpoint and outcome."""
    return [RecentCalls(*row) for row in database.execute(CALLS, (RECENTLY.total_seconds(),))]


def load_calls_ever(database: Database) -> int:
    """Return how many calls were ever sent."""
    return int(database.execute(CALLS_EVER)[0][0])


def load_tweet_counts(database: Database) -> TweetCounts:
    """Return how many tweets there are, without counting them."""
    return TweetCounts(*database.execute(TWEETS)[0])


def load_run_counts(database: Database) -> dict[tuple[FetchKind, RunStatus], int]:
    """Return how many runs work, and how many ended in the last hour, by kind and status."""
    rows = database.execute(RUNS, (LATEST_RUNS,))
    return {(FetchKind(kind), RunStatus(status)): count for kind, status, count in rows}


def load_watch_queue(database: Database) -> WatchQueue:
    """Return how many accounts wait to be polled."""
    return WatchQueue(*database.execute(WATCH)[0])


def load_open_alert_counts(database: Database) -> dict[AlertKind, int]:
    """Return how many alerts last, by kind; kinds without any are left out."""
    return {AlertKind(kind): count for kind, count in database.execute(ALERTS)}


def load_dagster_runs(connection: psycopg.Connection) -> dict[str, int]:
    """Return how many runs wait and work in Dagster, by its words; the connection is to its storage."""
    return {str(status): int(count) for status, count in connection.execute(DAGSTER_RUNS).fetchall()}
