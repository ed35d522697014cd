"""Numbers of the tables as a whole: how many rows they hold, and what is left of the tokens' limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from twitter_pipeline.store.database import Database
from twitter_pipeline.x_api.endpoints import Endpoint

TABLES = ("tokens", "tokens_endpoint_rl", "api_calls", "users", "tweets", "user_state", "fetch_runs")

# A table of a hundred million rows takes a minute to count, so only the first ten thousand are; beyond that the answer
# is the planner's own: rows a page when it was last analysed, times the pages it has now, of each partition.
COUNT: LiteralString = """
SELECT '{table}', CASE WHEN counted < 10000 THEN counted ELSE greatest(counted, (
    SELECT sum(reltuples / nullif(relpages, 0) * (pg_relation_size(oid) / current_setting('block_size')::int))::bigint
    FROM pg_class
    WHERE relkind = 'r' AND (
        oid = '{table}'::regclass OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = '{table}'::regclass)
    )
)) END
FROM (SELECT count(*) AS counted FROM (SELECT FROM {table} LIMIT 10000) AS few) AS counting
"""

COUNT_ALL: LiteralString = "UNION ALL".join([COUNT.replace("{table}", table) for table in TABLES])

LEFT = """
SELECT endpoint, sum(remaining)::bigint FROM tokens_endpoint_rl
WHERE reset_at > now() AND remaining IS NOT NULL
GROUP BY endpoint ORDER BY endpoint
"""

CALLS_WITHOUT_A_RUN = """
SELECT count(*), coalesce(sum(billed_posts), 0)::bigint, coalesce(sum(billed_users), 0)::bigint
FROM api_calls
WHERE called_at >= %(since)s AND endpoint = %(endpoint)s AND fetch_run_id IS NULL
"""


@dataclass(frozen=True, slots=True)
class Bill:
    """Calls that were sent, and what X bills for them."""

    calls: int
    posts: int
    users: int


def count_rows(database: Database) -> Mapping[str, int]:
    """Return the rows of each table: exact for up to ten thousand, beyond that an estimate."""
    return {table: int(rows) for table, rows in database.execute(COUNT_ALL)}


def load_calls_left(database: Database) -> Mapping[str, int]:
    """Return by endpoint how many calls all tokens together have left in windows that are open."""
    return {endpoint: int(left) for endpoint, left in database.execute(LEFT)}


def load_bill_without_a_run(database: Database, endpoint: Endpoint, *, since: datetime) -> Bill:
    """Return what was sent to an endpoint since an instant by work that has no row in `fetch_runs`."""
    return Bill(*database.execute(CALLS_WITHOUT_A_RUN, {"since": since, "endpoint": endpoint.value})[0])
