"""Queries on what a backfill came to: which months, and which accounts, are whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import LiteralString

from twitter_pipeline.coverage import EVERYTHING, IdRange, id_at
from twitter_pipeline.months import FIRST_MONTH, Months, month_after, month_of
from twitter_pipeline.store.database import Database

# The watch list as partitions name it: by the first name that an account was seen with, which never changes.
TRACKED = """
SELECT s.user_id, coalesce(
    (SELECT n.username FROM user_names n WHERE n.user_id = s.user_id ORDER BY n.seen_from LIMIT 1), u.username
)
FROM user_state s JOIN users u ON u.id = s.user_id
WHERE s.is_tracked
ORDER BY s.tracked_since, s.user_id
"""

# An account whose name another one holds now has none until the weekly check learns it, and cannot be asked for.
TRACKED_NAMES = """
SELECT u.username FROM user_state s JOIN users u ON u.id = s.user_id
WHERE s.is_tracked AND u.username IS NOT NULL
ORDER BY s.user_id
"""

LIVES = "SELECT id, username, created_at FROM users WHERE id = ANY (%s)"

# Nothing is asked of ids from before the account was made. An id is (milliseconds since 1288834974657) << 22.
MISSING: LiteralString = """
    SELECT asked.month, u.id AS user_id, without_timeline, without_timeline - s.searched AS missing
    FROM unnest(%(months)s::date[], %(los)s::bigint[], %(his)s::bigint[]) AS asked (month, lo, hi)
    CROSS JOIN users u
    JOIN user_state s ON s.user_id = u.id
    CROSS JOIN LATERAL (SELECT greatest(asked.lo, coalesce(
        (floor(extract(epoch FROM u.created_at) * 1000)::bigint - 1288834974657) << 22, asked.lo
    )) AS lo) AS born
    CROSS JOIN LATERAL (SELECT CASE
        WHEN born.lo < asked.hi THEN int8multirange(int8range(born.lo, asked.hi)) - s.covered ELSE '{}'
    END AS without_timeline) AS timeline
    WHERE u.id = ANY (%(user_ids)s)
"""

MONTHS: LiteralString = f"""
WITH missing AS ({MISSING})
SELECT month, count(*) FILTER (WHERE isempty(without_timeline)),
       count(*) FILTER (WHERE isempty(missing) AND NOT isempty(without_timeline)),
       coalesce(array_agg(user_id ORDER BY user_id) FILTER (WHERE NOT isempty(missing)), '{{}}')
FROM missing GROUP BY month ORDER BY month
"""

ACCOUNTS: LiteralString = f"""
WITH missing AS ({MISSING})
SELECT user_id, isempty(without_timeline), lower(missing), upper(missing),
       (SELECT count(*) FROM tweets t WHERE t.author_id = user_id)
FROM missing ORDER BY user_id
"""

TWEETS_BY_MONTH = """
SELECT date_trunc('month', created_at AT TIME ZONE 'UTC')::date, count(*),
       count(*) FILTER (WHERE first_read_run_id = %(run_id)s)
FROM tweets
WHERE author_id = ANY (%(user_ids)s) AND created_at >= %(begin)s AND created_at < %(end)s
  AND id >= %(lowest_id)s AND id < %(below_id)s
GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class MonthState:
    """What is stored of a month, all its accounts together.

    `by_timeline` and `by_search` count the accounts that are whole, the latter those that are so by the archive search
    alone or in part, where retweets may be missing; `missing` are the ids of the others. `tweets_new` are of one run.
    """

    month: date
    by_timeline: int
    by_search: int
    missing: tuple[int, ...]
    tweets: int
    tweets_new: int


@dataclass(frozen=True, slots=True)
class LifeState:
    """What is stored of an account from its beginning on; `missing` is the span that its holes lie in."""

    user_id: int
    is_by_timeline: bool
    missing: IdRange | None
    tweets: int


@dataclass(frozen=True, slots=True)
class Life:
    """Who an account is now, and since when. `username` is None while somebody else holds the name."""

    user_id: int
    username: str | None
    created_at: datetime | None

    def months(self, now: datetime) -> Months:
        """Return the months from the account's first on; from the first of all where that is not known."""
        return Months(FIRST_MONTH if self.created_at is None else month_of(self.created_at), month_of(now))


def load_tracked(database: Database) -> list[tuple[int, str | None]]:
    """Return the watch list, each account's id with the first name that it was seen with, in the order of tracking."""
    return [(user_id, username) for user_id, username in database.execute(TRACKED)]


def load_tracked_names(database: Database) -> list[str]:
    """Return the present names of the watch list, of accounts that have one."""
    return [username for (username,) in database.execute(TRACKED_NAMES)]


def load_lives(database: Database, user_ids: Sequence[int]) -> list[Life]:
    """Return who these accounts are now, in the order of their ids."""
    return sorted((Life(*row) for row in database.execute(LIVES, (list(user_ids),))), key=lambda each: each.user_id)


def load_month_states(
    database: Database, user_ids: Sequence[int], months: Months, *, until: datetime, run_id: int
) -> list[MonthState]:
    """Return how whole these months are for these accounts, oldest first, as far as they lie before `until`."""
    stretches = [(each.first, each.ids) for each in months]
    states = {
        month: (by_timeline, by_search, tuple(missing))
        for month, by_timeline, by_search, missing in database.execute(MONTHS, _params(user_ids, stretches, until))
    }
    tweets = database.execute(
        TWEETS_BY_MONTH,
        {
            "user_ids": list(user_ids),
            "begin": _instant(months.first),
            "end": _instant(month_after(months.last)),
            "lowest_id": months.ids.lo,
            "below_id": months.ids.hi,
            "run_id": run_id,
        },
    )
    counts = {month: (stored, new) for month, stored, new in tweets}
    # Without any account a month lacks nothing.
    return [MonthState(month, *states.get(month, (0, 0, ())), *counts.get(month, (0, 0))) for month, _ in stretches]


def load_life_states(database: Database, user_ids: Sequence[int], *, until: datetime) -> list[LifeState]:
    """Return how whole these accounts are before `until`, by id."""
    rows = database.execute(ACCOUNTS, _params(user_ids, [(FIRST_MONTH, EVERYTHING)], until))
    return [
        LifeState(user_id, by_timeline, None if lo is None else IdRange(lo, hi), tweets)
        for user_id, by_timeline, lo, hi, tweets in rows
    ]


def _params(user_ids: Sequence[int], stretches: Sequence[tuple[date, IdRange]], until: datetime) -> dict[str, object]:
    return {
        "user_ids": list(user_ids),
        "months": [month for month, _ in stretches],
        "los": [ids.lo for _, ids in stretches],
        # Of a month that begins after that nothing is asked.
        "his": [min(ids.hi, id_at(until)) for _, ids in stretches],
    }


def _instant(month: date) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=UTC)
