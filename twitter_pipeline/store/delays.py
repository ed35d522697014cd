"""Queries on how soon the watch has stored what tracked accounts wrote."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from twitter_pipeline.delays import Delays
from twitter_pipeline.store.database import Database

# OFFSET 0 keeps the inner query apart, so that each account is looked up in the index by author and time: a join would
# read the whole table. By id as well, so that only the partitions of that time are looked at. What a person's request
# or import brought first tells nothing of the watch.
MEASURED = """
WITH measured AS (
    SELECT s.user_id, t.delay_s, t.first_read_at
    FROM user_state s
    CROSS JOIN LATERAL (
        SELECT greatest(extract(epoch FROM first_read_at - created_at), 0)::float8 AS delay_s, first_read_at,
               first_read_run_id
        FROM tweets
        WHERE author_id = s.user_id AND created_at >= greatest(s.tracked_since, now() - interval '1 day')
          AND id >= id_at(now() - interval '2 days')
        OFFSET 0
    ) t
    LEFT JOIN fetch_runs r ON r.id = t.first_read_run_id
    WHERE s.is_tracked AND (%(user_ids)s::bigint[] IS NULL OR s.user_id = ANY (%(user_ids)s::bigint[]))
      AND (r.kind IS NULL OR r.kind NOT IN ('history', 'backfill', 'import'))
)
"""

_FIGURES = """
count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY delay_s), percentile_cont(0.95) WITHIN GROUP (ORDER BY delay_s),
avg((delay_s <= %(promise_s)s)::int)::float8
FROM measured
"""

OVER_ALL = MEASURED + "SELECT " + _FIGURES

BY_ACCOUNT = MEASURED + "SELECT user_id, " + _FIGURES + " GROUP BY user_id"

SLOWEST = (
    "SELECT username, f.* FROM ("
    + BY_ACCOUNT
    + """) AS f (user_id, tweets, median_s, p95_s, within) JOIN users u ON u.id = f.user_id
WHERE within < 1 ORDER BY p95_s DESC, user_id LIMIT %(limit)s
"""
)


def load_delays(database: Database, *, promise: timedelta) -> Delays:
    """Return the delays of all tracked accounts together."""
    return Delays(*database.execute(OVER_ALL, _params(promise, None))[0])


def load_delays_by_account(
    database: Database, *, promise: timedelta, user_ids: Collection[int] | None = None
) -> Mapping[int, Delays]:
    """Return the delays of each tracked account, of all or of these ids; one without tweets is left out."""
    rows = database.execute(BY_ACCOUNT, _params(promise, user_ids))
    return {user_id: Delays(*figures) for user_id, *figures in rows}


def load_slowest(database: Database, *, promise: timedelta, limit: int) -> list[tuple[str | None, Delays]]:
    """Return the names and delays of accounts of which not every tweet was stored in time, the slowest first."""
    rows = database.execute(SLOWEST, {**_params(promise, None), "limit": limit})
    return [(username, Delays(*figures)) for username, _, *figures in rows]


def _params(promise: timedelta, user_ids: Collection[int] | None) -> dict[str, Any]:
    return {"promise_s": promise.total_seconds(), "user_ids": None if user_ids is None else list(user_ids)}
