"""Statements for the filtered stream: whom to listen to, what arrives, and who listens with which token.

What a search shows arrives in the same way.
"""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from twitter_pipeline.store.database import Database, fault_of
from twitter_pipeline.store.readings import MERGE_SHOWN
from twitter_pipeline.store.timelines import AMONG_THESE, INSERT, ROWS, SENT_LATELY, columns_of
from twitter_pipeline.x_api.parsing import Tweet

LISTEN_LOCK = 7_305_811
"""First key of the advisory lock that whoever listens holds; the second is the token's id."""

WATCHED = """
SELECT lower(u.username) FROM user_state s JOIN users u ON u.id = s.user_id
WHERE s.is_tracked AND u.username IS NOT NULL
ORDER BY s.tracked_since, s.user_id
"""

# Nothing is claimed: whether tweets before or between these are missing only a timeline can tell, so the account is due
# at once. All parts see the tables as they were before the statement. Of an account that is not tracked, which the rule
# of another program brought, nothing is stored, and X bills it all the same.
SAVE_STREAMED = f"""
WITH page AS ({ROWS}), account AS (
    SELECT user_id FROM user_state WHERE user_id = %(user_id)s AND is_tracked
), before AS (
    SELECT count(*) AS known,
           count(*) FILTER (
               WHERE t.last_read_at >= date_trunc('day', %(read_at)s::timestamptz, 'UTC')
           ) AS read_today
    FROM page JOIN tweets t USING (id)
    WHERE {AMONG_THESE}
), stored AS (
{INSERT.replace("FROM page", "FROM page WHERE EXISTS (SELECT FROM account)")}{MERGE_SHOWN}
), due AS (
    UPDATE user_state s SET next_poll_at = now()
    FROM account, before
    WHERE s.user_id = account.user_id AND before.known < %(posts)s AND s.next_poll_at > now()
), bill AS (
    UPDATE api_calls
    SET result_count = result_count + %(unbilled)s,
        billed_posts = greatest(0, billed_posts + %(unbilled)s - before.read_today)
    FROM before
    WHERE id = %(call_id)s AND {SENT_LATELY}
), tally AS (
    UPDATE fetch_run_accounts
    SET tweets_fetched = tweets_fetched + %(posts)s - before.read_today,
        tweets_new = tweets_new + %(posts)s - before.known,
        billed_posts = billed_posts + %(posts)s - before.read_today
    FROM before, account
    WHERE fetch_run_id = %(fetch_run_id)s::bigint AND username = %(asked_as)s::text
)
SELECT CASE WHEN EXISTS (SELECT FROM account) THEN %(posts)s - before.known END FROM before
"""

CONTINUE_CALL = """
INSERT INTO api_calls (called_at, endpoint, token_id, status_code, outcome, result_count, billed_posts, billed_users,
                       duration_ms, transaction_id, reserved_posts, reserved_users)
SELECT %(at)s, endpoint, token_id, status_code, outcome, 0, 0, 0, duration_ms, transaction_id, reserved_posts,
       reserved_users
FROM api_calls WHERE id = %(call_id)s
RETURNING id
"""

TAKE_LOCK = "SELECT pg_try_advisory_lock(%(lock)s, id) FROM tokens WHERE env_key = %(env_key)s"

HOLDS_LOCK = """
SELECT EXISTS (
    SELECT FROM pg_locks l JOIN tokens t ON t.id = l.objid::bigint
    WHERE l.locktype = 'advisory' AND l.classid = %(lock)s::int::oid AND l.pid = pg_backend_pid() AND l.granted
      AND t.env_key = %(env_key)s
)
"""


@dataclass(frozen=True, slots=True)
class Streamed:
    """What became of tweets that arrived: how many were new, and how many are of accounts that are not tracked."""

    new: int
    not_tracked: int


def load_watched(database: Database) -> list[str]:
    """Return the names of the tracked accounts in lower case, the longest tracked first."""
    return [username for (username,) in database.execute(WATCHED)]


def save_streamed(
    database: Database,
    author_id: int,
    tweets: Sequence[Tweet],
    *,
    read_at: datetime,
    call_id: int,
    fetch_run_id: int | None = None,
    asked_as: str | None = None,
) -> Streamed:
    """Store tweets of one account that a stream has brought, and have the account polled now; can be repeated.

    For a search, `fetch_run_id` and `asked_as` are the run and the name in it, to whose counts they are added, and its
    bill holds them already: those that are free are taken off. Only the counts and the bill take a second writing as
    further tweets.
    """
    rows = database.execute(
        SAVE_STREAMED,
        {
            **columns_of(tweets, user_id=author_id),
            "user_id": author_id,
            "fetch_run_id": fetch_run_id,
            "asked_as": asked_as,
            "read_at": read_at,
            "posts": len(tweets),
            "unbilled": len(tweets) if fetch_run_id is None else 0,
            "call_id": call_id,
        },
    )
    new = rows[0][0]
    return Streamed(0, len(tweets)) if new is None else Streamed(new, 0)


def continue_call(database: Database, call_id: int, *, at: datetime) -> int:
    """Go on with a stream's call in another row, and return its id: the bill of each UTC day stands by itself."""
    return int(database.execute(CONTINUE_CALL, {"call_id": call_id, "at": at})[0][0])


CONNECTIONS_TRIED = 10
"""After a restart of the server each connection of the pool may be a dead one."""


class ListenLock:
    """The right to listen with one token, held as long as the process lives and the connection of its own does."""

    def __init__(self, database: Database, env_key: str) -> None:
        self._held = ExitStack()
        self._connection = self._held.enter_context(database.lock_session())
        self.env_key = env_key

    @classmethod
    def try_take(cls, database: Database, env_key: str) -> Self | None:
        """Take the lock; None when somebody else listens with the token. Raises DatabaseFault without a database."""
        tried = 0
        while True:
            try:
                return cls._try_once(database, env_key)
            except (psycopg.OperationalError, SQLAlchemyError) as error:
                tried += 1
                if tried == CONNECTIONS_TRIED:
                    raise fault_of(error) from error

    @classmethod
    def _try_once(cls, database: Database, env_key: str) -> Self | None:
        lock = cls(database, env_key)
        taken = False
        try:
            taken = lock._ask(TAKE_LOCK)
        finally:
            if not taken:
                lock.release()
        return lock if taken else None

    def take_again(self, database: Database) -> bool:
        """Take the lock anew after its connection was lost; False when somebody else has it by now."""
        self.release()
        taken = self.try_take(database, self.env_key)
        if taken is not None:
            self._held, self._connection = taken._held, taken._connection
        return taken is not None

    def is_held(self) -> bool:
        """Tell whether the lock is still ours: it is not when the server was restarted."""
        try:
            return self._ask(HOLDS_LOCK)
        except psycopg.Error:
            return False

    def release(self) -> None:
        """Give the lock back, by closing the connection."""
        with suppress(psycopg.Error, SQLAlchemyError):
            self._held.close()

    def _ask(self, statement: str) -> bool:
        row = self._connection.execute(statement.encode(), {"lock": LISTEN_LOCK, "env_key": self.env_key}).fetchone()
        return bool(row and row[0])
