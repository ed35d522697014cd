"""Queries on how far a run is: what a backfill has left, and which limits it works against."""

from collections.abc import Sequence

from twitter_pipeline.request import FetchRequest
from twitter_pipeline.store.database import Database

# An account whose profile was not read yet has all of it left.
IDS_LEFT = """
SELECT coalesce(sum(upper(part) - lower(part)), 0)
FROM unnest(%(usernames)s::text[], %(los)s::bigint[], %(his)s::bigint[]) AS asked (username, lo, hi)
JOIN fetch_runs r ON r.dagster_run_id = %(dagster_run_id)s
LEFT JOIN fetch_run_accounts a ON a.fetch_run_id = r.id AND a.username = asked.username
LEFT JOIN users u ON lower(u.username) = asked.username
LEFT JOIN user_state s ON s.user_id = u.id
CROSS JOIN LATERAL unnest(
    int8multirange(int8range(asked.lo, asked.hi)) - coalesce(s.covered + s.searched, '{}')
) AS part
WHERE coalesce(a.outcome, 'pending') = 'pending'
"""

BUSIEST = """
SELECT c.endpoint
FROM api_calls c JOIN fetch_runs r ON r.id = c.fetch_run_id
WHERE r.dagster_run_id = %s AND c.called_at > now() - interval '1 minute'
GROUP BY c.endpoint ORDER BY count(*) DESC, c.endpoint LIMIT 1
"""

EXPECTED_CALLS = "SELECT estimated_calls FROM fetch_runs WHERE dagster_run_id = %s"


def load_ids_left(database: Database, dagster_run_id: str, requests: Sequence[FetchRequest], *, up_to: int) -> int:
    """Return how many ids below `up_to` a backfill still has to ask for, all accounts together."""
    wanted = [
        (each.username, each.fetch_mode.months.ids.clipped(hi=up_to)) for each in requests if each.fetch_mode.months
    ]
    asked = [(username, ids) for username, ids in wanted if ids is not None]
    params = {
        "dagster_run_id": dagster_run_id,
        "usernames": [username for username, _ in asked],
        "los": [ids.lo for _, ids in asked],
        "his": [ids.hi for _, ids in asked],
    }
    return int(database.execute(IDS_LEFT, params)[0][0])


def load_expected_calls(database: Database, dagster_run_id: str) -> int | None:
    """Return how many calls a run was estimated to take, None while or where it is not estimated."""
    rows = database.execute(EXPECTED_CALLS, (dagster_run_id,))
    return rows[0][0] if rows else None


def load_busiest_endpoint(database: Database, dagster_run_id: str) -> str | None:
    """Return the endpoint that a run has called most in the last minute, None when it has called none."""
    rows = database.execute(BUSIEST, (dagster_run_id,))
    return rows[0][0] if rows else None
