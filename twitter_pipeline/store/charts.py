"""Queries for charts. All of them count in the database: what comes back is small, however much is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from twitter_pipeline.charts.series import ACCOUNTS, NAMED, RunCalls, TokenUse, TweetCounts
from twitter_pipeline.prices import Prices
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.delays import MEASURED

if TYPE_CHECKING:
    from pandas import DataFrame

MOMENTS = 240
"""Into so many times a run is cut: a chart is some 850 pixels wide."""

USE_STEP_S = 1800
"""Two of X's windows; a day of them one by one would be too many to look at."""

# A watch reads the newest tweets of an account, so no more than those are looked at. Anything else may have read all.
# An hour is the least that is told apart; days and weeks are made of the hours, in one pass over the tweets.
TWEETS = """
WITH run AS (
    SELECT id, kind IN ('incremental', 'reconcile') AS is_watch FROM fetch_runs WHERE id = %(run_id)s
), counted AS MATERIALIZED (
    SELECT a.user_id, min(a.username) AS username, date_trunc('hour', t.created_at, 'UTC') AS at, count(*) AS tweets
    FROM run
    JOIN fetch_run_accounts a ON a.fetch_run_id = run.id AND a.tweets_fetched > 0
    CROSS JOIN LATERAL (
        SELECT created_at, first_read_run_id, last_read_run_id
        FROM tweets WHERE author_id = a.user_id
        ORDER BY created_at DESC
        LIMIT CASE WHEN run.is_watch THEN 2 * a.tweets_fetched + 100 END
    ) t
    WHERE run.id IN (t.first_read_run_id, t.last_read_run_id)
    GROUP BY a.user_id, date_trunc('hour', t.created_at, 'UTC')
), places AS (
    SELECT user_id, row_number() OVER (ORDER BY sum(tweets) DESC, min(username)) AS place FROM counted GROUP BY user_id
), span AS (
    SELECT CASE
            WHEN max(at) - min(at) < interval '3 days' THEN 'hour'
            WHEN max(at) - min(at) < interval '120 days' THEN 'day'
            WHEN max(at) - min(at) < interval '840 days' THEN 'week'
            ELSE 'month'
        END AS step
    FROM counted
), summed AS (
    SELECT date_trunc(span.step, at, 'UTC') AS at, CASE WHEN place <= %(named)s THEN username END AS username,
           sum(tweets)::bigint AS tweets
    FROM counted JOIN places USING (user_id) CROSS JOIN span
    GROUP BY 1, 2
)
SELECT at, username, tweets, span.step, greatest(0, (SELECT count(*) FROM places) - %(named)s)
FROM summed CROSS JOIN span ORDER BY at, username
"""

RUN = """
SELECT started_at, greatest(coalesce(finished_at, now()), started_at + interval '1 second'),
       CASE WHEN status = 'running' THEN replace(waiting_for, 'refused ', '') END
FROM fetch_runs WHERE id = %s
"""

# Also calls of others: they use up the same windows. A while before the run tells how the windows stood when it began.
CALLS = """
SELECT t.env_key, g.endpoint, g.first_at, g.last_at, g.resets_at, g."limit", g.used, g.calls, g.own, g.own_first_at,
       g.own_last_at, g.used_up_at, g.refused
FROM (
    SELECT token_id, endpoint, min(called_at) AS first_at, max(answered_at) AS last_at, rl_reset_at AS resets_at,
           max(rl_limit) AS "limit", max(rl_limit - rl_remaining) AS used, count(*) AS calls,
           count(*) FILTER (WHERE is_own) AS own, min(called_at) FILTER (WHERE is_own) AS own_first_at,
           max(answered_at) FILTER (WHERE is_own) AS own_last_at,
           min(called_at) FILTER (WHERE rl_remaining = 0 OR outcome = 'too_many_requests') AS used_up_at,
           count(*) FILTER (WHERE outcome = 'too_many_requests') AS refused,
           sum(count(*) FILTER (WHERE is_own)) OVER (PARTITION BY token_id, endpoint) AS own_in_all
    FROM (
        SELECT *, coalesce(fetch_run_id = %(run_id)s, false) AS is_own,
               called_at + coalesce(duration_ms, 0) * interval '1 millisecond' AS answered_at
        FROM api_calls
        WHERE called_at BETWEEN %(begins_at)s - interval '20 minutes' AND %(ends_at)s
    ) c
    GROUP BY token_id, endpoint, rl_reset_at, date_bin(%(moment)s, called_at, %(begins_at)s)
) g
JOIN tokens t ON t.id = g.token_id
WHERE g.own_in_all > 0
ORDER BY t.env_key, g.endpoint, g.first_at
"""

# Runs of the watch are deleted sooner than their calls.
_BILLED = """
WITH billed AS (
    SELECT date_trunc('day', c.called_at, 'UTC') AS at, c.user_id,
           CASE WHEN c.fetch_run_id IS NULL THEN 'without a run' ELSE coalesce(r.kind::text, 'incremental') END AS kind,
           coalesce(c.billed_posts, 0) * %(post_usd)s::numeric + coalesce(c.billed_users, 0) * %(user_usd)s::numeric
               AS usd
    FROM api_calls c
    LEFT JOIN fetch_runs r ON r.id = c.fetch_run_id
    WHERE c.called_at >= %(since)s AND (c.billed_posts > 0 OR c.billed_users > 0)
)
"""

COSTS_BY_DAY = _BILLED + "SELECT at, kind, sum(usd)::float8 FROM billed GROUP BY at, kind ORDER BY at, kind"

COSTS_BY_ACCOUNT = (
    _BILLED
    + """, summed AS (
    SELECT user_id, sum(usd) AS usd, row_number() OVER (ORDER BY user_id IS NULL, sum(usd) DESC, user_id) AS place
    FROM billed GROUP BY user_id
)
SELECT CASE WHEN place <= %(accounts)s THEN u.username END AS name, sum(usd)::float8
FROM summed LEFT JOIN users u ON u.id = summed.user_id
GROUP BY 1 ORDER BY 2 DESC, 1
"""
)

COSTS_BY_RUN = """
SELECT id, kind::text, cost_usd::float8 FROM fetch_runs WHERE cost_usd > 0 ORDER BY id DESC LIMIT %s
"""

USE = """
SELECT t.env_key, g.at, g.calls, g.share, g.refused
FROM tokens t
LEFT JOIN (
    SELECT token_id, date_bin(%(step_s)s * interval '1 second', called_at, 'epoch') AS at, count(*) AS calls,
           max((rl_limit - rl_remaining)::float8 / nullif(rl_limit, 0)) AS share,
           count(*) FILTER (WHERE outcome = 'too_many_requests') AS refused
    FROM api_calls
    WHERE called_at >= %(begins_at)s
    GROUP BY 1, 2
) g ON g.token_id = t.id
WHERE t.env_key = ANY (%(env_keys)s)
ORDER BY t.env_key, g.at
"""

DELAYS = (
    MEASURED
    + """
SELECT date_trunc('hour', first_read_at, 'UTC'), count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY delay_s),
       percentile_cont(0.95) WITHIN GROUP (ORDER BY delay_s)
FROM measured GROUP BY 1 ORDER BY 1
"""
)

_TIME = "datetime64[us, UTC]"


def load_tweet_counts(database: Database, fetch_run_id: int) -> TweetCounts:
    """Return how many tweets a run fetched, those of its accounts with most tweets each by itself.

    Of a tweet that was read by several runs the first and the latest are known. Of a run of the watch only the newest
    tweets of an account are looked at, twice as many as it fetched: one that was missing further down is left out.
    """
    rows = database.execute(TWEETS, {"run_id": fetch_run_id, "named": NAMED})
    frame = _frame([row[:3] for row in rows], {"at": _TIME, "username": "object", "tweets": "int64"})
    return TweetCounts(frame, step=rows[0][3] if rows else "day", others=rows[0][4] if rows else 0)


def load_run_calls(database: Database, fetch_run_id: int) -> RunCalls | None:
    """Return the calls to the windows that a run has used, so far if it still works; None when there is no such run."""
    rows = database.execute(RUN, (fetch_run_id,))
    if not rows:
        return None
    begins_at, ends_at, waiting_for = rows[0]
    bounds = {"begins_at": begins_at, "ends_at": ends_at, "moment": (ends_at - begins_at) / MOMENTS}
    columns = {
        "env_key": "object",
        "endpoint": "object",
        "first_at": _TIME,
        "last_at": _TIME,
        "resets_at": _TIME,
        "limit": "Int64",
        "used": "Int64",
        "calls": "int64",
        "own": "int64",
        "own_first_at": _TIME,
        "own_last_at": _TIME,
        "used_up_at": _TIME,
        "refused": "int64",
    }
    frame = _frame(database.execute(CALLS, {"run_id": fetch_run_id, **bounds}), columns)
    return RunCalls(frame, begins_at=_utc(begins_at), ends_at=_utc(ends_at), waiting_for=waiting_for)


def load_costs_by_day(database: Database, *, since: datetime, prices: Prices) -> DataFrame:
    """Return what calls since an instant have cost, by UTC day and kind of run; see draw_costs_by_day.

    The calls are what X bills. They are kept for TWITTER_KEEP_CALLS_DAYS.
    """
    rows = database.execute(COSTS_BY_DAY, _billed(since, prices))
    return _frame(rows, {"at": _TIME, "kind": "object", "usd": "float64"})


def load_costs_by_account(
    database: Database, *, since: datetime, prices: Prices, accounts: int = ACCOUNTS
) -> DataFrame:
    """Return what calls since an instant have cost, by account; see draw_costs_by_account."""
    rows = database.execute(COSTS_BY_ACCOUNT, {**_billed(since, prices), "accounts": accounts})
    return _frame(rows, {"username": "object", "usd": "float64"})


def load_costs_by_run(database: Database, *, count: int = 40) -> DataFrame:
    """Return what the latest runs have cost that have cost something and are closed; see draw_costs_by_run."""
    rows = database.execute(COSTS_BY_RUN, (count,))
    return _frame(rows, {"fetch_run_id": "int64", "kind": "object", "usd": "float64"})


def load_token_use(database: Database, env_keys: Collection[str], *, span: timedelta = timedelta(days=1)) -> TokenUse:
    """Return how much of their windows these tokens have used in the time up to now."""
    now: datetime = database.execute("SELECT now()")[0][0]
    params = {"env_keys": list(env_keys), "begins_at": now - span, "step_s": USE_STEP_S}
    columns = {"env_key": "object", "at": _TIME, "calls": "Int64", "share": "float64", "refused": "Int64"}
    frame = _frame(database.execute(USE, params), columns)
    return TokenUse(frame, begins_at=_utc(now - span), ends_at=_utc(now), step_s=USE_STEP_S)


def load_delays_by_hour(database: Database) -> DataFrame:
    """Return how soon the last day's tweets of tracked accounts were stored, by the hour; see draw_delays."""
    rows = database.execute(DELAYS, {"user_ids": None})
    return _frame(rows, {"at": _TIME, "tweets": "int64", "median_s": "float64", "p95_s": "float64"})


def _billed(since: datetime, prices: Prices) -> dict[str, object]:
    return {"since": since, "post_usd": prices.post_usd, "user_usd": prices.user_usd}


def _utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC)


def _frame(rows: Sequence[tuple[Any, ...]], columns: Mapping[str, str]) -> DataFrame:
    """Make a DataFrame with these types of columns, also of no rows at all."""
    # Half a second of import, which only those wait for who want a chart.
    from pandas import DataFrame, Series

    values = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    return DataFrame({name: Series(values[place], dtype=dtype) for place, (name, dtype) in enumerate(columns.items())})
