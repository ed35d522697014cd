"""Statements on `users`, `user_names` and `user_state`: who holds which name, and who is tracked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from twitter_pipeline.coverage import id_at
from twitter_pipeline.errors import Availability
from twitter_pipeline.store.database import Database
from twitter_pipeline.x_api.parsing import User

# One at a time, and there are few: two that save the same new account at once would trip over its name, which is unique
# beside the id.
LOCK = "SELECT pg_advisory_xact_lock(7305810)"

# A name belongs to whoever holds it now: whoever we knew by it has another name that we do not know yet.
FREE_NAMES = """
UPDATE users SET username = NULL
FROM unnest(%(ids)s::bigint[], %(usernames)s::text[]) AS seen (id, username)
WHERE lower(users.username) = lower(seen.username) AND users.id <> seen.id
"""

SAVE_USERS = """
INSERT INTO users AS u (
    id, username, name, description, location, profile_image_url, created_at, protected, verified, verified_type,
    followers_count, following_count, tweet_count, listed_count, availability, profile_read_at, raw
)
VALUES (
    %(id)s, %(username)s, %(name)s, %(description)s, %(location)s, %(profile_image_url)s, %(created_at)s, %(protected)s,
    %(verified)s, %(verified_type)s, %(followers_count)s, %(following_count)s, %(tweet_count)s, %(listed_count)s,
    %(availability)s::availability, %(read_at)s, %(raw)s::json
)
ON CONFLICT (id) DO UPDATE
SET username = excluded.username, name = excluded.name, description = excluded.description,
    location = excluded.location, profile_image_url = excluded.profile_image_url,
    created_at = coalesce(excluded.created_at, u.created_at), protected = excluded.protected,
    verified = excluded.verified, verified_type = excluded.verified_type,
    followers_count = excluded.followers_count, following_count = excluded.following_count,
    tweet_count = excluded.tweet_count, listed_count = excluded.listed_count,
    availability = excluded.availability, availability_reason = NULL,
    availability_since = CASE WHEN u.availability = excluded.availability THEN u.availability_since
                              ELSE excluded.profile_read_at END,
    profile_read_at = excluded.profile_read_at, raw = excluded.raw
"""

END_NAMES = """
UPDATE user_names n SET seen_until = greatest(n.seen_from, %(read_at)s)
FROM unnest(%(ids)s::bigint[], %(usernames)s::text[]) AS seen (id, username)
WHERE n.seen_until IS NULL
  AND ((n.user_id = seen.id AND n.username <> seen.username)
       OR (n.user_id <> seen.id AND lower(n.username) = lower(seen.username)))
"""

BEGIN_NAMES = """
INSERT INTO user_names (user_id, username, seen_from)
SELECT seen.id, seen.username, %(read_at)s
FROM unnest(%(ids)s::bigint[], %(usernames)s::text[]) AS seen (id, username)
WHERE NOT EXISTS (SELECT FROM user_names n WHERE n.user_id = seen.id AND n.seen_until IS NULL)
ON CONFLICT DO NOTHING
"""

BEGIN_STATES = """
INSERT INTO user_state (user_id) SELECT unnest(%(ids)s::bigint[]) ON CONFLICT DO NOTHING
"""

# By the name held now; else by the last one to have held it, for the case that the account was renamed since.
FIND = """
SELECT asked.username, found.id, found.username, found.availability::text, found.availability_reason,
       found.tweet_count, found.profile_read_at, found.is_former_name,
       coalesce((SELECT s.is_tracked FROM user_state s WHERE s.user_id = found.id), false)
FROM unnest(%(usernames)s::text[]) AS asked (username)
CROSS JOIN LATERAL (
    SELECT u.id, u.username, u.availability, u.availability_reason, u.tweet_count, u.profile_read_at,
           false AS is_former_name, NULL::timestamptz AS seen_until
    FROM users u WHERE lower(u.username) = asked.username
    UNION ALL
    SELECT u.id, u.username, u.availability, u.availability_reason, u.tweet_count, u.profile_read_at, true, n.seen_until
    FROM user_names n JOIN users u ON u.id = n.user_id
    WHERE lower(n.username) = asked.username AND lower(u.username) IS DISTINCT FROM asked.username
    ORDER BY is_former_name, seen_until DESC NULLS FIRST
    LIMIT 1
) AS found
"""

FIND_OTHERS = """
SELECT asked.username, u.id, u.username, max(n.seen_until)
FROM unnest(%(usernames)s::text[], %(user_ids)s::bigint[]) AS asked (username, user_id)
JOIN user_names n ON lower(n.username) = asked.username AND n.user_id <> asked.user_id
JOIN users u ON u.id = n.user_id
GROUP BY asked.username, u.id
ORDER BY asked.username, 4
"""

SET_AVAILABILITY = """
UPDATE users
SET availability = %(availability)s::availability, availability_reason = %(reason)s,
    availability_since = CASE WHEN availability = %(availability)s::availability THEN availability_since
                              ELSE %(at)s END
WHERE id = %(user_id)s
"""

TRACK = """
UPDATE user_state
SET is_tracked = %(tracked)s, tracked_since = CASE WHEN %(tracked)s THEN coalesce(tracked_since, now()) END
WHERE user_id = ANY (%(user_ids)s::bigint[]) AND is_tracked <> %(tracked)s
RETURNING user_id
"""

LAST_SEEN = """
SELECT user_id, last_seen_id, tracked_since FROM user_state
WHERE user_id = ANY (%s) AND (last_seen_id IS NOT NULL OR tracked_since IS NOT NULL)
"""

# A stretch that begins after the watch did lies above a hole, which a poll that was broken off has left; but for one
# that is known to be out of reach, or in doubt and not due yet. An id is (milliseconds since 1288834974657) << 22.
WITH_HOLES = """
SELECT s.user_id
FROM user_state s
WHERE s.user_id = ANY (%s) AND EXISTS (
    SELECT FROM unnest(s.covered + s.searched) AS r
    WHERE lower(r) > (floor(extract(epoch FROM s.tracked_since) * 1000)::bigint - 1288834974657) << 22
      AND NOT (lower(r) - 1) <@ s.unreachable
      AND NOT EXISTS (
          SELECT FROM doubts d WHERE d.user_id = s.user_id AND d.next_at > now() AND (lower(r) - 1) <@ d.ids
      )
)
"""

TIMELINE_READ = """
SELECT user_id, timeline_read_at FROM user_state WHERE user_id = ANY (%s) AND timeline_read_at IS NOT NULL
"""

POLLED = "UPDATE user_state SET last_polled_at = %s WHERE user_id = ANY (%s)"


@dataclass(frozen=True, slots=True)
class KnownUser:
    """A stored account; `is_former_name` tells that it was found by a name it holds no more."""

    id: int
    username: str | None
    availability: Availability
    availability_reason: str | None
    tweet_count: int | None
    profile_read_at: datetime | None
    is_former_name: bool = False
    is_tracked: bool = False


def find_users(database: Database, usernames: Iterable[str]) -> dict[str, KnownUser]:
    """Return the stored accounts of these names (lower case), by the name asked for."""
    rows = database.execute(FIND, {"usernames": list(usernames)})
    return {
        asked: KnownUser(id_, username, Availability(availability), reason, tweets, read_at, former, tracked)
        for asked, id_, username, availability, reason, tweets, read_at, former, tracked in rows
    }


@dataclass(frozen=True, slots=True)
class FormerHolder:
    """An account that had a name, until when, and what it is called now, as far as that is known."""

    name: str
    user_id: int
    username: str | None
    seen_until: datetime


def find_other_holders(database: Database, known: Mapping[str, KnownUser]) -> list[FormerHolder]:
    """Return the accounts that had these names (lower case) besides those that were found by them."""
    user_ids = [user.id for user in known.values()]
    rows = database.execute(FIND_OTHERS, {"usernames": list(known), "user_ids": user_ids})
    return [FormerHolder(*row) for row in rows]


def save_users(database: Database, users: Sequence[User], *, read_at: datetime) -> None:
    """Write profiles as just read, with their names and an empty state for new ones; can be repeated."""
    if not users:
        return
    # In the order of ids, so that this cannot deadlock with others who write several accounts.
    ordered = sorted(users, key=lambda user: user.id)
    params = {
        "ids": [user.id for user in ordered],
        "usernames": [user.username for user in ordered],
        "read_at": read_at,
    }
    with database.transaction() as connection:
        connection.execute(LOCK)
        connection.execute(FREE_NAMES, params)
        connection.cursor().executemany(SAVE_USERS, [profile_of(user, read_at) for user in ordered])
        connection.execute(END_NAMES, params)
        connection.execute(BEGIN_NAMES, params)
        connection.execute(BEGIN_STATES, params)


def save_availability(
    database: Database, user_id: int, availability: Availability, *, reason: str | None, at: datetime
) -> None:
    """Write whether an account can be read; saying the same again keeps since when."""
    database.execute(
        SET_AVAILABILITY, {"user_id": user_id, "availability": availability.value, "reason": reason, "at": at}
    )


def set_tracked(database: Database, user_ids: Iterable[int], *, tracked: bool) -> set[int]:
    """Put accounts on the watch list or take them off; return those for which this changed something."""
    rows = database.execute(TRACK, {"user_ids": list(user_ids), "tracked": tracked})
    return {user_id for (user_id,) in rows}


def load_last_seen(database: Database, user_ids: Sequence[int]) -> dict[int, int]:
    """Return by account the highest id up to which nothing is new; those without are left out.

    Of an account that has no tweet stored since it was tracked, what it wrote before is not new.
    """
    rows = database.execute(LAST_SEEN, (list(user_ids),))
    return {user_id: last or id_at(tracked_since) - 1 for user_id, last, tracked_since in rows}


def load_with_holes(database: Database, user_ids: Sequence[int]) -> set[int]:
    """Return the tracked accounts of which tweets are missing that were written since they were tracked."""
    return {user_id for (user_id,) in database.execute(WITH_HOLES, (list(user_ids),))}


def load_timelines_read(database: Database, user_ids: Sequence[int]) -> dict[int, datetime]:
    """Return by account when its timeline was last read; those that never were are left out."""
    return dict(database.execute(TIMELINE_READ, (list(user_ids),)))


def note_polled(database: Database, user_ids: Sequence[int], *, at: datetime) -> None:
    """Write when accounts were last looked at, where no page of theirs was read."""
    database.execute(POLLED, (at, list(user_ids)))


def profile_of(user: User, read_at: datetime) -> dict[str, object]:
    """Return a profile as parameters, each named as its column."""
    return {
        "id": user.id,
        "username": user.username,
        "name": user.name,
        "description": user.description,
        "location": user.location,
        "profile_image_url": user.profile_image_url,
        "created_at": user.created_at,
        "protected": user.protected,
        "verified": user.verified,
        "verified_type": user.verified_type,
        "followers_count": user.followers_count,
        "following_count": user.following_count,
        "tweet_count": user.tweet_count,
        "listed_count": user.listed_count,
        "availability": (Availability.PROTECTED if user.protected else Availability.ACTIVE).value,
        "read_at": read_at,
        "raw": user.raw,
    }
