"""Statements of the sweep at the end of the day: who was active, what is gone, which tweets are versions of one."""

from collections.abc import Collection
from datetime import datetime

from twitter_pipeline.store.database import Database

# LATERAL, so that each account is looked up in the index: EXISTS may read the whole table. By id as well, so that only
# the partitions of that time are: ids carry it, and a day more does no harm.
ACTIVE_SINCE = """
SELECT s.user_id, u.username
FROM user_state s
JOIN users u ON u.id = s.user_id
CROSS JOIN LATERAL (
    SELECT FROM tweets t
    WHERE t.author_id = s.user_id AND t.created_at >= %(since)s
      AND t.id >= id_at(%(since)s::timestamptz - interval '1 day')
    LIMIT 1
) AS any_tweet
WHERE s.is_tracked AND u.availability = 'active' AND u.username IS NOT NULL
ORDER BY s.user_id
"""

STORED_SINCE = """
SELECT id FROM tweets
WHERE author_id = %(user_id)s AND created_at >= %(since)s AND id >= id_at(%(since)s::timestamptz - interval '1 day')
  AND deleted_seen_at IS NULL
"""

# One that was read meanwhile is there.
MARK_DELETED = """
UPDATE tweets SET deleted_seen_at = now()
WHERE author_id = %(user_id)s AND id = ANY (%(ids)s::bigint[]) AND deleted_seen_at IS NULL AND last_read_at <= %(at)s
RETURNING id
"""

# A version that was stored before it was edited knows of none after it.
LINK_VERSIONS = """
UPDATE tweets t SET edit_history_ids = v.ids
FROM (
    SELECT DISTINCT ON (version) version, n.edit_history_ids AS ids
    FROM tweets n CROSS JOIN LATERAL unnest(n.edit_history_ids) AS version
    WHERE n.author_id = %(user_id)s AND n.created_at >= %(since)s
      AND n.id >= id_at(%(since)s::timestamptz - interval '1 day') AND n.edit_history_ids IS NOT NULL
    ORDER BY version, n.id DESC
) AS v
WHERE t.id = v.version AND t.author_id = %(user_id)s
  AND coalesce(cardinality(t.edit_history_ids), 1) < cardinality(v.ids)
"""

# All that reading the tweet again would write again.
REMOVE_CONTENT = """
UPDATE tweets
SET text = '', lang = NULL, raw = '{}', like_count = NULL, retweet_count = NULL, reply_count = NULL,
    quote_count = NULL, bookmark_count = NULL, impression_count = NULL
WHERE deleted_seen_at IS NOT NULL AND raw::text <> '{}'
RETURNING id
"""

COUNT_DELETED = "SELECT count(*) FROM tweets WHERE deleted_seen_at >= %s"


def load_active_since(database: Database, since: datetime) -> list[tuple[int, str]]:
    """Return the ids and names of tracked accounts of which tweets are stored that were written since an instant."""
    return [(user_id, username) for user_id, username in database.execute(ACTIVE_SINCE, {"since": since})]


def load_stored_since(database: Database, user_id: int, since: datetime) -> list[int]:
    """Return an account's stored tweets that were written since an instant and are not marked as deleted."""
    return [tweet_id for (tweet_id,) in database.execute(STORED_SINCE, {"user_id": user_id, "since": since})]


def mark_deleted(database: Database, user_id: int, tweet_ids: Collection[int], *, at: datetime) -> int:
    """Mark tweets as deleted that X did not know at this instant; return how many were marked.

    One that was read later is left alone. Marking again keeps the first time.
    """
    return len(database.execute(MARK_DELETED, {"user_id": user_id, "ids": list(tweet_ids), "at": at}))


def link_versions(database: Database, user_id: int, *, since: datetime) -> None:
    """Give all stored versions of an account's tweets that were edited since then the whole history of their ids."""
    database.execute(LINK_VERSIONS, {"user_id": user_id, "since": since})


def remove_deleted_content(database: Database) -> int:
    """Remove the content of all tweets that are marked as deleted: ids, author, kind and times stay."""
    return len(database.execute(REMOVE_CONTENT))


def count_deleted_since(database: Database, since: datetime) -> int:
    """Return how many tweets were marked as deleted since an instant."""
    return int(database.execute(COUNT_DELETED, (since,))[0][0])
