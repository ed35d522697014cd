"""Claims that earlier versions made and that nothing proves: found, confirmed by X's count, or opened.

Those versions believed each end of a timeline and of a search, whatever had led to it. So the last page of every walk
may have claimed too much: between two stored tweets that different runs read, below the lowest one, above the newest
one, and where a tweet that is pinned was taken for the end of a page.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from twitter_pipeline.coverage import IdRange
from twitter_pipeline.store.database import Database

ACCOUNTS_AT_ONCE = 100

UNCHECKED = """
SELECT s.user_id FROM user_state s JOIN users u ON u.id = s.user_id
WHERE NOT s.claims_checked AND (%(user_ids)s::bigint[] IS NULL OR s.user_id = ANY (%(user_ids)s::bigint[]))
ORDER BY lower(u.username), s.user_id
"""

# A walk goes down, so of two neighbours that one run has read the lower one comes later, or on the same page. A gap of
# more than a day between two of the same moment, twenty times the account's usual one, is what a pinned tweet leaves.
FIND = """
WITH claimed AS (
    SELECT s.user_id, part.is_search, part.ids, u.username, u.profile_read_at, u.tweet_count,
           (SELECT count(*) FROM user_names n WHERE n.user_id = s.user_id) > 1 AS was_renamed
    FROM user_state s
    JOIN users u ON u.id = s.user_id
    CROSS JOIN LATERAL (VALUES (false, s.covered), (true, s.searched - s.covered)) AS part (is_search, ids)
    WHERE s.user_id = ANY (%(user_ids)s::bigint[]) AND NOT s.claims_checked AND part.ids <> '{}'
), stored AS (
    SELECT t.author_id, t.id, t.first_read_run_id AS run, t.first_read_at AS at,
           lead(t.id) OVER above AS above, lead(t.first_read_run_id) OVER above AS above_run,
           lead(t.first_read_at) OVER above AS above_at,
           row_number() OVER above AS number, count(*) OVER (PARTITION BY t.author_id) AS tweets,
           max(t.id) OVER (PARTITION BY t.author_id) - min(t.id) OVER (PARTITION BY t.author_id) AS span
    FROM tweets t
    WHERE t.author_id = ANY (%(user_ids)s::bigint[])
    WINDOW above AS (PARTITION BY t.author_id ORDER BY t.id)
), gaps AS (
    SELECT author_id AS user_id, int8range(id + 1, coalesce(above, 9223372036854775807)) AS ids
    FROM stored
    WHERE above IS NULL OR run IS DISTINCT FROM above_run OR at < above_at
       OR (above - id > 86400000::bigint << 22 AND above - id > 20 * (span / greatest(tweets, 1)))
    UNION ALL
    SELECT author_id, int8range(1, id) FROM stored WHERE number = 1
    UNION ALL
    SELECT user_id, int8range(1, 9223372036854775807) FROM claimed
    WHERE (is_search AND was_renamed) OR user_id NOT IN (SELECT author_id FROM stored)
), doubtful AS (
    SELECT c.user_id, c.username, c.is_search, c.profile_read_at, c.tweet_count,
           range_agg(part.ids) AS ids
    FROM claimed c
    JOIN gaps g ON g.user_id = c.user_id
    CROSS JOIN LATERAL unnest(c.ids * int8multirange(g.ids)) AS part (ids)
    GROUP BY 1, 2, 3, 4, 5
), counted AS (
    SELECT c.user_id, count(t.id) AS tweets
    FROM (SELECT DISTINCT user_id, profile_read_at FROM claimed) AS c
    LEFT JOIN tweets t ON t.author_id = c.user_id AND t.id < id_at(c.profile_read_at) AND t.deleted_seen_at IS NULL
    GROUP BY c.user_id
)
SELECT d.user_id, d.username, d.is_search, lower(part.ids), upper(part.ids)
FROM doubtful d
JOIN counted n ON n.user_id = d.user_id
CROSS JOIN LATERAL unnest(CASE
    -- As many are stored as X counted: nothing is missing from before then.
    WHEN n.tweets = d.tweet_count THEN d.ids - int8multirange(int8range(1, id_at(d.profile_read_at)))
    ELSE d.ids
END) AS part (ids)
ORDER BY d.user_id, d.is_search, 4
"""

OPEN = """
WITH opened AS (
    SELECT user_id, is_search, range_agg(int8range(lo, hi)) AS ids
    FROM unnest(%(claim_user_ids)s::bigint[], %(is_search)s::boolean[], %(los)s::bigint[], %(his)s::bigint[])
        AS c (user_id, is_search, lo, hi)
    GROUP BY user_id, is_search
), state AS (
    UPDATE user_state s
    -- What the search has claimed is doubted too where the timeline's claim is.
    SET covered = s.covered - coalesce(
            (SELECT o.ids FROM opened o WHERE o.user_id = s.user_id AND NOT o.is_search), '{}'
        ),
        searched = s.searched - coalesce(
            (SELECT range_agg(part) FROM opened o, unnest(o.ids) AS part WHERE o.user_id = s.user_id), '{}'
        ),
        claims_checked = true
    WHERE s.user_id = ANY (%(user_ids)s::bigint[])
    RETURNING s.user_id
)
INSERT INTO doubts (user_id, kind, ids, first_seen_at, seen_at, next_at)
SELECT o.user_id, 'end', part, now(), now(), now()
FROM opened o CROSS JOIN LATERAL unnest(o.ids) AS part
WHERE NOT o.is_search
"""


@dataclass(frozen=True, slots=True)
class DoubtfulClaim:
    """Ids of an account that an earlier version has claimed without proof, by its timeline or by the archive search."""

    user_id: int
    username: str | None
    by_search: bool
    ids: IdRange


def find_unchecked(database: Database, user_ids: Collection[int] | None = None) -> list[int]:
    """Return the accounts whose claims of earlier versions are not checked, by name; all or of these ids."""
    rows = database.execute(UNCHECKED, {"user_ids": None if user_ids is None else list(user_ids)})
    return [user_id for (user_id,) in rows]


def find_doubtful_claims(database: Database, user_ids: Sequence[int]) -> list[DoubtfulClaim]:
    """Return the claims of these accounts that nothing proves; those that X's count confirms are left out."""
    rows = database.execute(FIND, {"user_ids": list(user_ids)})
    return [DoubtfulClaim(user_id, name, by_search, IdRange(lo, hi)) for user_id, name, by_search, lo, hi in rows]


def open_claims(database: Database, user_ids: Sequence[int], claims: Sequence[DoubtfulClaim]) -> None:
    """Make holes of these claims, and note that the accounts are checked; can be repeated."""
    database.execute(
        OPEN,
        {
            "user_ids": list(user_ids),
            "claim_user_ids": [each.user_id for each in claims],
            "is_search": [each.by_search for each in claims],
            "los": [each.ids.lo for each in claims],
            "his": [each.ids.hi for each in claims],
        },
    )
