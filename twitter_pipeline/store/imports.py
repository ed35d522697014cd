"""Statements of an import: tweets and authors of files, which never make worse what is stored.

Nothing here touches what is covered: a file cannot tell what it leaves out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import orjson
from psycopg import Connection

from twitter_pipeline.importing.found import Author, Found
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.readings import MERGE
from twitter_pipeline.store.timelines import AMONG_THESE, ROWS, columns_of
from twitter_pipeline.store.users import BEGIN_STATES, LOCK, profile_of

FOUND = f"""
    SELECT * FROM ({ROWS}) AS page
    JOIN unnest(
        %(id)s::bigint[], %(first_read_at)s::timestamptz[], %(last_read_at)s::timestamptz[],
        %(deleted_seen_at)s::timestamptz[]
    ) AS seen (id, first_read_at, last_read_at, deleted_seen_at) USING (id)
"""

# One statement, so one transaction. Rows go in by id, so that this cannot deadlock with a run. All parts see the tables
# as they were before it. An account is `done` from the first row on: an import that is killed says nothing of what is
# missing of it.
SAVE_FOUND = f"""
WITH found AS ({FOUND}), known AS (
    SELECT t.id FROM found JOIN tweets t USING (id)
    WHERE {AMONG_THESE}
), stored AS (
    INSERT INTO tweets AS t (
        id, author_id, created_at, kind, text, lang, conversation_id, in_reply_to_tweet_id, in_reply_to_user_id,
        retweeted_tweet_id, quoted_tweet_id, edit_history_ids, like_count, retweet_count, reply_count, quote_count,
        bookmark_count, impression_count, first_read_at, first_read_run_id, last_read_at, last_read_run_id,
        deleted_seen_at, raw
    )
    SELECT id, author_id, created_at, kind, text, lang, conversation_id, in_reply_to_tweet_id, in_reply_to_user_id,
           retweeted_tweet_id, quoted_tweet_id, edit_history_ids::bigint[], like_count, retweet_count, reply_count,
           quote_count, bookmark_count, impression_count, first_read_at, %(fetch_run_id)s, last_read_at,
           %(fetch_run_id)s, deleted_seen_at, raw::json
    FROM found
    ORDER BY id
{{}}
    RETURNING id
), tally AS (
    INSERT INTO fetch_run_accounts AS a (
        fetch_run_id, username, user_id, fetch_mode, outcome, started_at, finished_at, tweets_fetched, tweets_new
    )
    SELECT %(fetch_run_id)s, coalesce(lower(u.username), 'id ' || found.author_id), min(found.author_id), 'import',
           'done', now(), now(), count(*), count(*) - count(known.id)
    FROM found
    LEFT JOIN users u ON u.id = found.author_id
    LEFT JOIN known ON known.id = found.id
    GROUP BY 2
    ORDER BY 2
    ON CONFLICT (fetch_run_id, username) DO UPDATE
    SET tweets_fetched = a.tweets_fetched + excluded.tweets_fetched, tweets_new = a.tweets_new + excluded.tweets_new,
        finished_at = excluded.finished_at
)
SELECT (SELECT count(*) FROM found) - (SELECT count(*) FROM known), (SELECT count(*) FROM stored)
"""

# Only a later reading is merged. A tweet that X has deleted since stays deleted, and its author stays the one that is
# stored: X has named that one, and a file may have come from anywhere.
NEWER_WINS = f"""{MERGE},
        deleted_seen_at = excluded.deleted_seen_at
    WHERE excluded.last_read_at > t.last_read_at
      AND (t.deleted_seen_at IS NULL OR t.deleted_seen_at < excluded.last_read_at)"""

SAVE_DATED = SAVE_FOUND.replace("{}", NEWER_WINS)

# Nobody knows which of the two is newer.
SAVE_UNDATED = SAVE_FOUND.replace("{}", "    ON CONFLICT (id) DO NOTHING")

MARK_DELETED = """
UPDATE tweets t SET deleted_seen_at = gone.at
FROM unnest(%(ids)s::bigint[], %(at)s::timestamptz[]) AS gone (id, at)
WHERE t.id = gone.id AND t.deleted_seen_at IS NULL AND t.last_read_at <= gone.at
"""

# A name is known as of the profile that was read last, or of the last time that it was seen.
KNOWN_USERS = """
SELECT u.id, u.username, greatest(u.profile_read_at, n.known_at), u.profile_read_at, u.raw IS NOT NULL,
       coalesce(n.names, '{}')
FROM users u
CROSS JOIN LATERAL (
    SELECT max(greatest(seen_from, seen_until)) AS known_at, array_agg(lower(username)) AS names
    FROM user_names WHERE user_id = u.id
) AS n
WHERE u.id = ANY (%(ids)s::bigint[]) OR lower(u.username) = ANY (%(names)s::text[])
"""

ADD_USERS = """
INSERT INTO users (id) SELECT unnest(%(ids)s::bigint[]) ON CONFLICT DO NOTHING
"""

FREE_NAME = "UPDATE users SET username = NULL WHERE lower(username) = lower(%(username)s) AND id <> %(id)s"

TAKE_NAME = "UPDATE users SET username = %(username)s WHERE id = %(id)s"

END_NAMES = """
UPDATE user_names SET seen_until = greatest(seen_from, %(read_at)s)
WHERE seen_until IS NULL
  AND ((user_id = %(id)s AND username <> %(username)s)
       OR (user_id <> %(id)s AND lower(username) = lower(%(username)s)))
"""

BEGIN_NAME = """
INSERT INTO user_names (user_id, username, seen_from)
SELECT %(id)s, %(username)s, %(read_at)s
WHERE NOT EXISTS (SELECT FROM user_names WHERE user_id = %(id)s AND seen_until IS NULL)
ON CONFLICT DO NOTHING
"""

NOTE_FORMER_NAME = """
INSERT INTO user_names (user_id, username, seen_from, seen_until)
VALUES (%(id)s, %(username)s, %(read_at)s, %(read_at)s)
ON CONFLICT DO NOTHING
"""

SAVE_PROFILE = """
UPDATE users
SET name = %(name)s, description = %(description)s, location = %(location)s, profile_image_url = %(profile_image_url)s,
    created_at = coalesce(%(created_at)s, created_at), protected = %(protected)s, verified = %(verified)s,
    verified_type = %(verified_type)s, followers_count = %(followers_count)s, following_count = %(following_count)s,
    tweet_count = %(tweet_count)s, listed_count = %(listed_count)s, profile_read_at = %(profile_read_at)s,
    raw = %(raw)s::json
WHERE id = %(id)s
"""

# Whether an account can be read was perhaps seen later than this profile.
SAVE_AVAILABILITY = """
UPDATE users
SET availability = %(availability)s::availability, availability_reason = NULL, availability_since = %(read_at)s
WHERE id = %(id)s
  AND (%(is_new)s OR (availability_since < %(read_at)s AND availability <> %(availability)s::availability))
"""

SAVE_REQUEST = "UPDATE fetch_runs SET request = %(request)s::json WHERE id = %(run_id)s"


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of tweets: how many were new, and how many took the place of an older state."""

    new: int
    updated: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """An author as a file shows them; `is_dated` as of a tweet."""

    author: Author
    read_at: datetime
    is_dated: bool


@dataclass(frozen=True, slots=True)
class KnownName:
    """What is stored of an account, as far as a sighting has to do with it. `names` are all that it has had."""

    id: int
    username: str | None
    name_known_at: datetime | None
    profile_read_at: datetime | None
    has_profile: bool
    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a sighting adds to what is stored: the name held now, one that was held once, the profile."""

    takes_name: bool = False
    had_name: bool = False
    takes_profile: bool = False


def judge(sighting: Sighting, known: KnownName | None, holder: KnownName | None) -> Verdict:
    """Decide what of a sighting is news; `holder` is another account that holds the name.

    Names change hands, and profiles change, so an older sighting adds only what nobody knew, and one without a date
    only where nothing is known.
    """

    username, is_dated = sighting.author.username, sighting.is_dated

    def is_later_than(at: datetime | None) -> bool:
        return at is None or (is_dated and sighting.read_at > at)

    may_have = holder is None or (is_dated and is_later_than(holder.name_known_at))
    has_it = username is not None and known is not None and known.username == username
    takes_name = (
        username is not None and not has_it and may_have and is_later_than(known.name_known_at if known else None)
    )
    return Verdict(
        takes_name=takes_name,
        had_name=username is not None
        and is_dated
        and not (has_it or takes_name)
        and (known is None or username.lower() not in known.names),
        takes_profile=sighting.author.profile is not None
        and (known is None or not known.has_profile or (is_dated and is_later_than(known.profile_read_at))),
    )


def save_request(database: Database, run_id: int, request: object) -> None:
    """Write what a run was asked for."""
    database.execute(SAVE_REQUEST, {"run_id": run_id, "request": orjson.dumps(request).decode()})


def save_authors(database: Database, sightings: Iterable[Sighting]) -> None:
    """Write authors that are not known, and what these sightings know better; can be repeated.

    Each gets a state of which nothing is covered, so that a run can fetch the rest.
    """
    # Undated ones first, and in the order of their age: the latest is what remains.
    ordered = sorted(sightings, key=lambda each: (each.is_dated, each.read_at, each.author.id))
    ids = sorted({each.author.id for each in ordered})
    with database.transaction() as connection:
        connection.execute(LOCK)
        roster = _load_known(connection, ordered)
        # Of many authors, the statements go out without waiting for one another.
        with connection.pipeline():
            connection.execute(ADD_USERS, {"ids": ids})
            for each in ordered:
                _save_sighting(connection, each, roster)
            connection.execute(BEGIN_STATES, {"ids": ids})


def save_found(database: Database, found: Sequence[Found], *, fetch_run_id: int) -> Saved:
    """Write tweets, each id once, all with a date or all without; can be repeated.

    Only the counts of the run take a second writing as further tweets.
    """
    tweets = [each.tweet for each in found]
    rows = database.execute(
        SAVE_DATED if found[0].is_dated else SAVE_UNDATED,
        {
            **columns_of(tweets),
            "first_read_at": [each.first_read_at for each in found],
            "last_read_at": [each.last_read_at for each in found],
            "deleted_seen_at": [each.deleted_seen_at for each in found],
            "fetch_run_id": fetch_run_id,
        },
    )
    new, stored = rows[0]
    gone = {each.tweet.id: each.deleted_seen_at for each in found if each.deleted_seen_at is not None}
    if gone:
        database.execute(MARK_DELETED, {"ids": list(gone), "at": list(gone.values())})
    return Saved(new, stored - new)


def _load_known(connection: Connection, sightings: Sequence[Sighting]) -> "_Roster":
    rows = connection.execute(
        KNOWN_USERS,
        {
            "ids": [each.author.id for each in sightings],
            "names": [each.author.username.lower() for each in sightings if each.author.username],
        },
    )
    return _Roster([KnownName(*row) for row in rows])


class _Roster:
    """What is stored of accounts, by id and by the name they hold, kept up to date while sightings are written."""

    def __init__(self, known: Iterable[KnownName]) -> None:
        self._by_id = {each.id: each for each in known}
        self._ids = {each.username.lower(): each.id for each in self._by_id.values() if each.username}

    def get(self, user_id: int) -> KnownName | None:
        return self._by_id.get(user_id)

    def other_holder(self, username: str | None, user_id: int) -> KnownName | None:
        """Return who else holds a name."""
        holder = self._ids.get(username.lower(), user_id) if username else user_id
        return None if holder == user_id else self._by_id[holder]

    def put(self, account: KnownName) -> None:
        """Take what is stored of an account now; whoever else held its name does not any more."""
        former = self._by_id.get(account.id)
        if former is not None and former.username:
            self._ids.pop(former.username.lower())
        if account.username:
            holder = self.other_holder(account.username, account.id)
            if holder is not None:
                self._by_id[holder.id] = replace(holder, username=None)
            self._ids[account.username.lower()] = account.id
        self._by_id[account.id] = account


def _save_sighting(connection: Connection, sighting: Sighting, roster: _Roster) -> None:
    """Write what a sighting adds."""
    author, read_at = sighting.author, sighting.read_at
    before = roster.get(author.id)
    verdict = judge(sighting, before, roster.other_holder(author.username, author.id))
    after = before or KnownName(author.id, None, None, None, has_profile=False, names=())
    params = {"id": author.id, "username": author.username, "read_at": read_at}
    if verdict.takes_name:
        for statement in (FREE_NAME, TAKE_NAME, END_NAMES, BEGIN_NAME):
            connection.execute(statement, params)
        after = replace(after, username=author.username, name_known_at=read_at)
    elif verdict.had_name:
        connection.execute(NOTE_FORMER_NAME, params)
    if author.username is not None and (verdict.takes_name or verdict.had_name):
        after = replace(after, names=[*after.names, author.username.lower()])
    if verdict.takes_profile and author.profile is not None:
        profile_read_at = read_at if sighting.is_dated else None
        profile = {**profile_of(author.profile, read_at), "profile_read_at": profile_read_at, "is_new": before is None}
        connection.execute(SAVE_PROFILE, profile)
        connection.execute(SAVE_AVAILABILITY, profile)
        after = replace(after, has_profile=True, profile_read_at=profile_read_at)
    roster.put(after)
