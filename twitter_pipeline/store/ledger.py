"""Queries for the ledger: what is stored around each gap, and what runs asked for. So many, however many accounts."""

from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import Any

from twitter_pipeline.account_status import AccountStatus
from twitter_pipeline.coverage import is_dated
from twitter_pipeline.ledger import NEAREST, Asked, Gap, Ledger, Side, Surroundings, find_gaps, write_ledger
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.status import load_account_statuses
from twitter_pipeline.walks.evidence import CLEARLY_WITHIN_REACH
from twitter_pipeline.words import HoleCause

# By created_at, which the index by author and time holds; X gives it in whole seconds, so the second of a bound belongs
# to both sides, and ids tell. A side ends where its stretch does. All above are counted only of who has so many stored.
AROUND = """
SELECT g.number, inside.tweets, above_all.tweets,
       above.tweets, above.furthest_at, above.nearest_read_at, below.tweets, below.furthest_at, below.nearest_read_at,
       edge.first_read_run_id, edge.last_read_run_id
FROM unnest(
    %(user_ids)s::bigint[], %(los)s::bigint[], %(his)s::bigint[], %(sinces)s::timestamptz[], %(untils)s::timestamptz[],
    %(below_since)s::timestamptz[], %(below_until)s::timestamptz[], %(above_since)s::timestamptz[],
    %(above_until)s::timestamptz[], %(has_many)s::boolean[]
) WITH ORDINALITY AS g (
    user_id, lo, hi, since, until, below_since, below_until, above_since, above_until, has_many, number
)
CROSS JOIN LATERAL (
    SELECT count(*) AS tweets FROM tweets t
    WHERE t.author_id = g.user_id AND t.created_at BETWEEN date_trunc('second', g.since) AND g.until
      AND t.id >= g.lo AND t.id < g.hi
) AS inside
CROSS JOIN LATERAL (
    SELECT count(*) AS tweets FROM (
        SELECT FROM tweets t
        WHERE g.has_many AND t.author_id = g.user_id AND t.created_at >= date_trunc('second', g.above_since)
        LIMIT %(many)s
    ) AS newer
) AS above_all
CROSS JOIN LATERAL (
    SELECT count(*) AS tweets, max(created_at) AS furthest_at,
           (array_agg(first_read_at ORDER BY created_at, id))[1] AS nearest_read_at
    FROM (
        SELECT t.id, t.created_at, t.first_read_at FROM tweets t
        WHERE t.author_id = g.user_id AND t.id >= g.hi
          AND t.created_at BETWEEN date_trunc('second', g.above_since) AND g.above_until
        ORDER BY t.created_at LIMIT %(nearest)s
    ) AS newer
) AS above
CROSS JOIN LATERAL (
    SELECT count(*) AS tweets, min(created_at) AS furthest_at,
           (array_agg(first_read_at ORDER BY created_at DESC, id DESC))[1] AS nearest_read_at
    FROM (
        SELECT t.id, t.created_at, t.first_read_at FROM tweets t
        WHERE t.author_id = g.user_id AND t.id < g.lo
          AND t.created_at BETWEEN date_trunc('second', g.below_since) AND g.below_until
        ORDER BY t.created_at DESC LIMIT %(nearest)s
    ) AS older
) AS below
LEFT JOIN tweets edge ON edge.id = g.hi
"""

# Of the runs that asked an account for the same, the latest has the last word; those that read the tweets at the edges
# of gaps besides. A run that got all is of interest only where it asked for everything.
ASKED = """
WITH rows AS (
    SELECT a.user_id, a.fetch_run_id, a.fetch_mode, coalesce(a.finished_at, a.started_at, r.started_at) AS until,
           a.cause::text AS cause
    FROM fetch_run_accounts a
    JOIN fetch_runs r ON r.id = a.fetch_run_id
    WHERE a.user_id = ANY (%(user_ids)s) AND a.outcome <> 'pending'
      AND (a.cause IS NOT NULL OR a.fetch_mode = 'full')
), edges AS (
    SELECT * FROM unnest(%(edge_user_ids)s::bigint[], %(edge_run_ids)s::bigint[]) AS e (user_id, fetch_run_id)
), latest AS (
    SELECT DISTINCT ON (user_id, fetch_mode) * FROM rows ORDER BY user_id, fetch_mode, fetch_run_id DESC
)
SELECT user_id, fetch_run_id, fetch_mode, until, cause FROM latest
UNION
SELECT user_id, fetch_run_id, fetch_mode, until, cause FROM rows JOIN edges USING (user_id, fetch_run_id)
ORDER BY user_id, fetch_run_id DESC
"""


def load_ledgers(
    database: Database, *, user_ids: Collection[int] | None = None, tracked_only: bool = False
) -> list[Ledger]:
    """Return the ledgers of all accounts, or of these ids, by name."""
    accounts = load_account_statuses(database, user_ids=user_ids, tracked_only=tracked_only)
    gaps = [(account, gap) for account in accounts for gap in find_gaps(account)]
    around = _load_surroundings(database, gaps)
    asked = _load_asked(database, gaps, around)
    by_account: dict[int, list[tuple[Gap, Surroundings]]] = {}
    for (account, gap), each in zip(gaps, around, strict=True):
        by_account.setdefault(account.user_id, []).append((gap, each))
    return [
        write_ledger(account, by_account.get(account.user_id, []), asked.get(account.user_id, []))
        for account in accounts
    ]


def _load_surroundings(database: Database, gaps: Sequence[tuple[AccountStatus, Gap]]) -> list[Surroundings]:
    """Return what is stored around each gap, in their order."""
    if not gaps:
        return []
    rows = database.execute(
        AROUND,
        {
            "user_ids": [account.user_id for account, _ in gaps],
            "los": [gap.at.ids.lo for _, gap in gaps],
            "his": [gap.at.ids.hi for _, gap in gaps],
            "sinces": [gap.at.since for _, gap in gaps],
            "untils": [gap.at.until for _, gap in gaps],
            "below_since": [None if gap.below is None else gap.below.since for _, gap in gaps],
            # The bound of an id without a time may lie on the wrong side of the tweets next to it.
            "below_until": [gap.at.since if is_dated(gap.at.ids.lo) else gap.at.until for _, gap in gaps],
            "above_since": [gap.at.until if is_dated(gap.at.ids.hi) else gap.at.since for _, gap in gaps],
            "above_until": [gap.above.until for _, gap in gaps],
            "has_many": [account.tweets_stored >= CLEARLY_WITHIN_REACH for account, _ in gaps],
            "nearest": NEAREST,
            "many": CLEARLY_WITHIN_REACH,
        },
    )
    return [
        _surroundings(row, account) for row, (account, _) in zip(sorted(rows, key=itemgetter(0)), gaps, strict=True)
    ]


def _surroundings(row: tuple[Any, ...], account: AccountStatus) -> Surroundings:
    _, inside, above_all, *sides, first_run_id, last_run_id = row
    return Surroundings(
        inside=inside,
        # Of an account with few, all are as good as those above: a timeline reaches further.
        stored_above=above_all if account.tweets_stored >= CLEARLY_WITHIN_REACH else account.tweets_stored,
        above=Side(*sides[:3]),
        below=Side(*sides[3:]),
        read_by=frozenset({first_run_id, last_run_id} - {None}),
    )


def _load_asked(
    database: Database, gaps: Sequence[tuple[AccountStatus, Gap]], around: Sequence[Surroundings]
) -> dict[int, list[Asked]]:
    """Return by account what runs asked for that may explain its gaps, the latest run first."""
    edges = [
        (account.user_id, run_id) for (account, _), each in zip(gaps, around, strict=True) for run_id in each.read_by
    ]
    rows = database.execute(
        ASKED,
        {
            "user_ids": list({account.user_id for account, _ in gaps}),
            "edge_user_ids": [user_id for user_id, _ in edges],
            "edge_run_ids": [run_id for _, run_id in edges],
        },
    )
    asked: dict[int, list[Asked]] = {}
    for user_id, run_id, mode, until, cause in rows:
        asked.setdefault(user_id, []).append(Asked(run_id, mode, until, None if cause is None else HoleCause(cause)))
    return asked
