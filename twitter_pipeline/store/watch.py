"""Statements on the watch list: which accounts are due, who polls them, and what is known of their rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from twitter_pipeline.errors import Availability
from twitter_pipeline.polling.prior import Halves
from twitter_pipeline.polling.rates import Memory
from twitter_pipeline.store.database import Database

HANDED_FOR_S = 600
"""For so long an account belongs to the run it was handed to; then that run has never begun, or has died."""

# SKIP LOCKED: two sensors that look at the same instant share the accounts out instead of waiting for each other.
HAND_OUT = """
WITH due AS (
    SELECT s.user_id
    FROM user_state s
    JOIN users u ON u.id = s.user_id
    WHERE s.is_tracked AND u.username IS NOT NULL AND (s.next_poll_at IS NULL OR s.next_poll_at <= now())
      AND (s.handed_at IS NULL OR s.handed_at < now() - %(handed_for_s)s * interval '1 second')
    ORDER BY s.next_poll_at NULLS FIRST, s.user_id
    LIMIT %(at_most)s
    FOR UPDATE OF s SKIP LOCKED
)
UPDATE user_state s SET handed_to = %(key)s, handed_at = now() FROM due WHERE s.user_id = due.user_id
"""

HANDED = """
SELECT s.user_id, u.username FROM user_state s JOIN users u ON u.id = s.user_id
WHERE s.handed_to = %s AND s.is_tracked ORDER BY s.next_poll_at NULLS FIRST, s.user_id
"""

COUNT_HANDED = "SELECT count(*) FROM user_state WHERE handed_to = %s"

RELEASE = "UPDATE user_state SET handed_to = NULL, handed_at = NULL WHERE handed_to = %s"

# The accounts that a run was handed count twice while it works on them: so they do from the first moment.
OUTLOOK = """
SELECT count(*), min(coalesce(next_poll_at, now())),
       (SELECT started_at FROM fetch_runs WHERE kind = 'incremental' ORDER BY id DESC LIMIT 1), now(),
       count(*) FILTER (WHERE handed_at > now() - interval '1 hour') + (
           SELECT count(*) FROM fetch_runs r JOIN fetch_run_accounts a ON a.fetch_run_id = r.id
           WHERE r.kind = 'incremental' AND r.id > (
               SELECT coalesce(max(id), 0) FROM fetch_runs WHERE started_at < now() - interval '1 hour'
           )
       )
FROM user_state WHERE is_tracked
"""

RATES = """
SELECT s.tweets_per_hour, u.availability = 'active'
FROM user_state s JOIN users u ON u.id = s.user_id
WHERE s.is_tracked
"""

# The arrays begin with the hour from midnight on: an odd place is an even hour.
HALVES = """
SELECT sum(hours) FILTER (WHERE mod(place, 2) = 1), sum(tweets) FILTER (WHERE mod(place, 2) = 1),
       sum(hours) FILTER (WHERE mod(place, 2) = 0), sum(tweets) FILTER (WHERE mod(place, 2) = 0)
FROM user_state s, unnest(s.rate_hours, s.rate_tweets) WITH ORDINALITY AS known (hours, tweets, place)
WHERE s.is_tracked AND s.rate_known_at IS NOT NULL
GROUP BY s.user_id
"""

# The lower end of the newest stretch tells since when nothing was missed.
LOAD_POLLED = """
SELECT s.user_id, now(), s.rate_known_at, s.rate_hours, s.rate_tweets, s.tracked_since,
       lower((SELECT r FROM unnest(s.covered) AS r ORDER BY r DESC LIMIT 1)), u.created_at, u.availability::text,
       u.availability_since
FROM user_state s JOIN users u ON u.id = s.user_id
WHERE s.user_id = ANY (%s) AND s.is_tracked
"""

# What is detected by asks for no single resource, so a 403 there closes the endpoint. Of several calls the last counts.
REFUSED = """
SELECT t.env_key
FROM (
    SELECT DISTINCT ON (token_id) token_id, outcome
    FROM api_calls
    WHERE endpoint = %(endpoint)s AND called_at > now() - %(within_s)s * interval '1 second' AND outcome IS NOT NULL
    ORDER BY token_id, called_at DESC
) last_call
JOIN tokens t ON t.id = last_call.token_id
WHERE last_call.outcome IN ('token_forbidden', 'resource_forbidden')
"""

# What was first read since the last estimate; an hour earlier, for tweets that were read late. By id as well, so that
# only the partitions of that time are looked at.
NEWLY_READ = """
SELECT t.author_id, date_trunc('hour', t.created_at, 'UTC'), count(*)
FROM user_state s
JOIN tweets t ON t.author_id = s.user_id
    AND t.created_at > coalesce(s.rate_known_at - interval '1 hour', %(remembered_from)s)
    AND (s.rate_known_at IS NULL OR t.first_read_at > s.rate_known_at)
WHERE s.user_id = ANY (%(user_ids)s) AND t.id >= (
    SELECT id_at(min(coalesce(rate_known_at, %(remembered_from)s)) - interval '1 day')
    FROM user_state WHERE user_id = ANY (%(user_ids)s)
)
GROUP BY 1, 2
"""

# An account that was made due while it was polled, by a tweet of the stream, stays due.
SAVE_POLLS = """
UPDATE user_state s
SET next_poll_at = CASE WHEN s.next_poll_at > s.handed_at THEN least(s.next_poll_at, p.next_poll_at)
                        ELSE p.next_poll_at END,
    handed_to = NULL, handed_at = NULL, rate_known_at = p.rate_known_at,
    rate_hours = p.rate_hours::float8[], rate_tweets = p.rate_tweets::float8[], tweets_per_hour = p.tweets_per_hour
FROM unnest(
    %(user_ids)s::bigint[], %(next_poll_at)s::timestamptz[], %(rate_known_at)s::timestamptz[], %(rate_hours)s::text[],
    %(rate_tweets)s::text[], %(tweets_per_hour)s::float8[]
) AS p (user_id, next_poll_at, rate_known_at, rate_hours, rate_tweets, tweets_per_hour)
WHERE s.user_id = p.user_id
"""

POSTPONE = """
UPDATE user_state
SET next_poll_at = now() + %(seconds)s * interval '1 second', handed_to = NULL, handed_at = NULL
WHERE user_id = ANY (%(user_ids)s)
"""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How many accounts are tracked, when the next one is due, and when a run last polled; `now` is the database's.

    Within an hour it has looked at `polled_lately` accounts, those included that it is about to look at.
    """

    tracked: int
    next_poll_at: datetime | None
    polled_at: datetime | None
    now: datetime
    polled_lately: int


@dataclass(frozen=True, slots=True)
class Polled:
    """What is known of an account that was just polled; `now` is the database's time."""

    user_id: int
    now: datetime
    rate_known_at: datetime | None
    rate_hours: Sequence[float] | None
    rate_tweets: Sequence[float] | None
    tracked_since: datetime
    complete_from_id: int | None
    created_at: datetime | None
    availability: Availability
    availability_since: datetime


@dataclass(frozen=True, slots=True)
class NextPoll:
    """When an account is polled next, what is remembered of it and its `Rate.even`, None as long as nothing is."""

    user_id: int
    next_poll_at: datetime
    memory: Memory | None
    tweets_per_hour: float | None


def hand_out(database: Database, key: str, *, at_most: int) -> int:
    """Give the accounts that are due to the run of this key, the longest overdue first; return how many there are.

    An account is given to one key at a time, whoever asks at once.
    """
    database.execute(HAND_OUT, {"key": key, "at_most": at_most, "handed_for_s": HANDED_FOR_S})
    return int(database.execute(COUNT_HANDED, (key,))[0][0])


def load_handed(database: Database, key: str) -> list[tuple[int, str]]:
    """Return the ids and names of the accounts of this key that are still tracked, the longest overdue first."""
    return [(user_id, username) for user_id, username in database.execute(HANDED, (key,))]


def release(database: Database, key: str) -> None:
    """Give back what is left of the accounts of this key: they are due at once."""
    database.execute(RELEASE, (key,))


def load_outlook(database: Database) -> Outlook:
    """Return how many accounts are tracked and when the next is due."""
    return Outlook(*database.execute(OUTLOOK)[0])


def load_rates(database: Database) -> tuple[list[float | None], int]:
    """Return the rates of the tracked accounts that can be read, None where unknown, and how many cannot be read."""
    rows = database.execute(RATES)
    return [rate for rate, can_be_read in rows if can_be_read], sum(not can_be_read for _, can_be_read in rows)


def load_halves(database: Database) -> list[Halves]:
    """Return what was seen of the tracked accounts that anything is known of."""
    return [Halves(*halves) for halves in database.execute(HALVES)]


def load_polled(database: Database, user_ids: Sequence[int]) -> list[Polled]:
    """Return what is known of these accounts, as far as they are tracked."""
    rows = database.execute(LOAD_POLLED, (list(user_ids),))
    return [
        Polled(
            user_id, now, known_at, hours, tweets, tracked, complete_from, created, Availability(availability), since
        )
        for user_id, now, known_at, hours, tweets, tracked, complete_from, created, availability, since in rows
    ]


def load_newly_read(
    database: Database, user_ids: Sequence[int], *, remembered_from: datetime
) -> Mapping[int, Mapping[datetime, int]]:
    """Return by account how many tweets of which hour were first read since its rate was estimated."""
    rows = database.execute(NEWLY_READ, {"user_ids": list(user_ids), "remembered_from": remembered_from})
    counts: dict[int, dict[datetime, int]] = {}
    for user_id, hour, count in rows:
        counts.setdefault(user_id, {})[hour] = count
    return counts


def load_refused(database: Database, endpoint: str, *, within_s: float) -> set[str]:
    """Return by name the tokens to which X refused an endpoint when they last called it, within so many seconds."""
    rows = database.execute(REFUSED, {"endpoint": endpoint, "within_s": within_s})
    return {env_key for (env_key,) in rows}


def save_polls(database: Database, polls: Sequence[NextPoll]) -> None:
    """Write when accounts are polled next and what is known of them, and give them back."""
    database.execute(
        SAVE_POLLS,
        {
            "user_ids": [poll.user_id for poll in polls],
            "next_poll_at": [poll.next_poll_at for poll in polls],
            "rate_known_at": [poll.memory and poll.memory.until for poll in polls],
            "rate_hours": [poll.memory and _array(poll.memory.hours) for poll in polls],
            "rate_tweets": [poll.memory and _array(poll.memory.tweets) for poll in polls],
            "tweets_per_hour": [poll.tweets_per_hour for poll in polls],
        },
    )


def postpone(database: Database, user_ids: Sequence[int], *, seconds: float) -> None:
    """Have accounts polled again after so long, whatever is known of them, and give them back."""
    database.execute(POSTPONE, {"user_ids": list(user_ids), "seconds": seconds})


def _array(numbers: Sequence[float]) -> str:
    return "{" + ",".join(map(repr, numbers)) + "}"
