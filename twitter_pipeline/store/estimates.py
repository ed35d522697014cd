"""Statements for estimates: what is stored around parts of accounts, how long calls take, what a run was to take."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from twitter_pipeline.coverage import is_dated, time_at
from twitter_pipeline.estimate import USUAL_CALL_S, Estimate, Part
from twitter_pipeline.store.database import Database
from twitter_pipeline.walks.evidence import REACH
from twitter_pipeline.x_api.endpoints import Endpoint

# By created_at, which the index by author and time holds; X gives it in whole seconds, so the second of a bound is
# included, and ids tell. X bills a post once a UTC day. What is above and below is looked at of holes in the middle
# only: above the newest part there is nothing, and above the lowest are all others.
AROUND_PARTS = """
SELECT p.number, inside.tweets, inside.free, above.tweets, below.witnesses
FROM unnest(
    %(user_ids)s::bigint[], %(los)s::bigint[], %(his)s::bigint[], %(sinces)s::timestamptz[], %(untils)s::timestamptz[],
    %(above)s::timestamptz[], %(below)s::timestamptz[], %(are_interior)s::boolean[]
) WITH ORDINALITY AS p (user_id, lo, hi, since, until, above_since, below_until, is_interior, number)
CROSS JOIN LATERAL (
    SELECT count(*) AS tweets, count(*) FILTER (WHERE t.last_read_at >= %(today)s) AS free
    FROM tweets t
    WHERE t.author_id = p.user_id AND t.created_at BETWEEN date_trunc('second', p.since) AND p.until
      AND t.id >= p.lo AND t.id < p.hi
) AS inside
CROSS JOIN LATERAL (
    SELECT count(*) AS tweets FROM (
        SELECT FROM tweets t
        WHERE p.is_interior AND t.author_id = p.user_id AND t.id >= p.hi
          AND t.created_at >= date_trunc('second', p.above_since)
        LIMIT %(reach)s
    ) AS newer
) AS above
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE older.last_read_at < %(today)s) AS witnesses FROM (
        SELECT t.last_read_at FROM tweets t
        WHERE p.is_interior AND t.author_id = p.user_id AND t.created_at <= p.below_until AND t.id < p.lo
        ORDER BY t.created_at DESC, t.id DESC LIMIT 5
    ) AS older
) AS below
ORDER BY p.number
"""

CALL_S = """
SELECT avg(duration_ms) / 1000.0
FROM (SELECT endpoint, outcome, duration_ms FROM api_calls ORDER BY id DESC LIMIT 1000) AS latest
WHERE endpoint = %s AND outcome = 'ok'
"""

EXPECT = """
UPDATE fetch_runs
SET estimated_calls = %(calls)s, estimated_posts = %(posts)s, estimated_cost_usd = %(cost_usd)s,
    estimated_s = %(seconds)s
WHERE id = %(run_id)s
"""

_BEFORE_ALL = datetime(2006, 1, 1, tzinfo=UTC)
_AFTER_THE_UNDATED = datetime(2010, 12, 1, tzinfo=UTC)


def load_around(
    database: Database, parts: Mapping[int, Sequence[Part]], *, in_all: Mapping[int, int], now: datetime
) -> dict[int, list[Part]]:
    """Return the parts of accounts, by id and newest first, with what is stored in and around them.

    `in_all` are the tweets that are stored of each account.
    """
    flat = [(user_id, part) for user_id, each in parts.items() for part in each]
    if not flat:
        return {}
    rows = database.execute(
        AROUND_PARTS,
        {
            "user_ids": [user_id for user_id, _ in flat],
            "los": [part.ids.lo for _, part in flat],
            "his": [part.ids.hi for _, part in flat],
            "sinces": [_since(part.ids.lo) for _, part in flat],
            "untils": [_until(part.ids.hi) for _, part in flat],
            "above": [_since(part.ids.hi) for _, part in flat],
            "below": [_until(part.ids.lo) for _, part in flat],
            "are_interior": [not (part.is_head or part.is_bottom) for _, part in flat],
            "today": now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0),
            "reach": REACH,
        },
    )
    found: dict[int, list[Part]] = {user_id: [] for user_id in parts}
    for (user_id, part), (_, stored, free, above, witnesses) in zip(flat, rows, strict=True):
        is_lowest = part.is_bottom and not part.is_head
        stored_above = min(REACH, in_all[user_id] - stored) if is_lowest else above
        found[user_id].append(replace(part, stored=stored, free=free, stored_above=stored_above, witnesses=witnesses))
    return found


def load_call_s(database: Database, endpoint: Endpoint) -> float:
    """Return how long a call of an endpoint took lately."""
    taken = database.execute(CALL_S, (endpoint.value,))[0][0]
    return USUAL_CALL_S if taken is None else max(0.001, float(taken))


def save_expected(database: Database, run_id: int, estimate: Estimate) -> None:
    """Write what a run is expected to take, with the look-ups that it has made already."""
    database.execute(
        EXPECT,
        {
            "run_id": run_id,
            "calls": estimate.likely.calls + estimate.looked_up.calls,
            "posts": estimate.likely.posts,
            "cost_usd": estimate.cost_usd + estimate.looked_up.cost_usd(estimate.prices),
            "seconds": estimate.seconds,
        },
    )


def _since(tweet_id: int) -> datetime:
    return time_at(tweet_id) if is_dated(tweet_id) else _BEFORE_ALL


def _until(tweet_id: int) -> datetime:
    return time_at(tweet_id) if is_dated(tweet_id) else _AFTER_THE_UNDATED
