"""Statements for backfills from the archive search: what accounts miss, and pages that show several of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from twitter_pipeline.coverage import LOWEST_ID, Coverage, IdRange, id_at
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.ranges import coverage_literal, range_literal
from twitter_pipeline.store.readings import MERGE_SHOWN
from twitter_pipeline.store.runs import ALIVE_LOCK
from twitter_pipeline.store.timelines import (
    AMONG_THESE,
    INSERT,
    ROWS,
    SENT_LATELY,
    columns_of,
    read_coverage,
)
from twitter_pipeline.x_api.parsing import Tweet

LOAD_KEPT = """
SELECT s.user_id, s.covered + s.searched, u.username, u.created_at
FROM user_state s JOIN users u ON u.id = s.user_id
WHERE s.user_id = ANY (%s)
"""

# By id, as two that claim several accounts at once lock their rows.
CLAIM_EACH = """
SELECT a.user_id
FROM (
    SELECT * FROM unnest(%(user_ids)s::bigint[], %(wanted)s::text[]) AS a (user_id, wanted) ORDER BY user_id
) AS a
WHERE claim_ids(a.user_id, %(fetch_run_id)s, a.wanted::int8range, %(alive_lock)s)
"""

# Tweets are those of several authors. The rows of their accounts are locked by id, so that two pages that show the same
# accounts cannot deadlock.
SAVE_FOUND = f"""
WITH page AS ({ROWS}), before AS (
    SELECT p.author_id, count(*) AS posts, count(t.id) AS known,
           count(*) FILTER (
               WHERE t.last_read_at >= date_trunc('day', %(read_at)s::timestamptz, 'UTC')
           ) AS read_today
    FROM page p LEFT JOIN tweets t ON t.id = p.id AND {AMONG_THESE}
    GROUP BY p.author_id
), stored AS (
{INSERT}{MERGE_SHOWN}
), account AS (
    SELECT s.user_id, p.proved::int8multirange AS proved
    FROM user_state s JOIN unnest(%(user_ids)s::bigint[], %(proved)s::text[]) AS p (user_id, proved) USING (user_id)
    ORDER BY s.user_id
    FOR UPDATE OF s
), state AS (
    UPDATE user_state s
    SET searched = s.searched - %(retracted)s::int8multirange + account.proved,
        unreachable = s.unreachable - account.proved
    FROM account
    WHERE s.user_id = account.user_id AND (account.proved <> '{{}}' OR %(retracted)s::int8multirange <> '{{}}')
), bill AS (
    UPDATE api_calls SET billed_posts = greatest(0, billed_posts - free.posts)
    FROM (SELECT coalesce(sum(read_today), 0) AS posts FROM before) AS free
    WHERE id = %(call_id)s AND {SENT_LATELY} AND free.posts > 0
)
UPDATE fetch_run_accounts a
SET tweets_fetched = a.tweets_fetched + before.posts - before.read_today,
    tweets_new = a.tweets_new + before.posts - before.known,
    billed_posts = a.billed_posts + before.posts - before.read_today
FROM before
WHERE a.fetch_run_id = %(fetch_run_id)s AND a.user_id = before.author_id
"""

# Ids from before November 2010 tell no time.
WRITTEN_BEFORE = """
SELECT min(created_at) FROM tweets
WHERE author_id = ANY (%s) AND id >= %s AND created_at < timestamptz '2010-12-01 00:00+00'
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is stored of an account, by timeline or search; it has no tweets with ids below `born`.

    `username` is the one that it holds now; None when another account has it.
    """

    ids: Coverage
    username: str | None
    born: int


def load_kept(database: Database, user_ids: Sequence[int]) -> dict[int, Kept]:
    """Return what is stored of accounts, by id."""
    return {
        user_id: Kept(read_coverage(kept), username, LOWEST_ID if created_at is None else id_at(created_at))
        for user_id, kept, username, created_at in database.execute(LOAD_KEPT, (list(user_ids),))
    }


def claim_each(database: Database, wanted: Mapping[int, IdRange], *, fetch_run_id: int) -> set[int]:
    """Hold ids of accounts for the run until each account ends; return the accounts of which no other run holds any."""
    rows = database.execute(
        CLAIM_EACH,
        {
            "user_ids": list(wanted),
            "wanted": [range_literal(ids) for ids in wanted.values()],
            "fetch_run_id": fetch_run_id,
            "alive_lock": ALIVE_LOCK,
        },
    )
    return {user_id for (user_id,) in rows}


def save_found(
    database: Database,
    tweets: Sequence[Tweet],
    *,
    proved: Mapping[int, Coverage],
    retracted: IdRange | None = None,
    read_at: datetime,
    call_id: int,
    fetch_run_id: int,
) -> None:
    """Write a page of a search and the ids that it proves of each account, in one transaction.

    `retracted` is taken back first, of all these accounts. Only the counts of the run take a second writing as a second
    page.
    """
    database.execute(
        SAVE_FOUND,
        {
            **columns_of(tweets),
            "user_ids": list(proved),
            "proved": [coverage_literal(ids) for ids in proved.values()],
            "retracted": f"{{{range_literal(retracted)}}}",
            "read_at": read_at,
            "call_id": call_id,
            "fetch_run_id": fetch_run_id,
        },
    )


CLAIM_SEARCHED = """
UPDATE user_state s
SET searched = s.searched + p.proved::int8multirange, unreachable = s.unreachable - p.proved::int8multirange
FROM unnest(%(user_ids)s::bigint[], %(proved)s::text[]) AS p (user_id, proved)
WHERE s.user_id = p.user_id
"""


def claim_searched(database: Database, proved: Mapping[int, Coverage]) -> None:
    """Write what pages that are stored have proved, once it is known whose tweets they showed."""
    literals = [coverage_literal(ids) for ids in proved.values()]
    database.execute(CLAIM_SEARCHED, {"user_ids": list(proved), "proved": literals})


def written_before(database: Database, user_ids: Sequence[int], tweet_id: int) -> datetime | None:
    """Return when the first stored tweet of these accounts from this id on was written, where ids carry no time."""
    return database.execute(WRITTEN_BEFORE, (list(user_ids), tweet_id))[0][0]
