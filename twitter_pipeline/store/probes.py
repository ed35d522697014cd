"""Statements that look whether parts are there, over a connection of their own: whoever asks wants to know at once.

`Database` survives outages by trying again, which is not what is wanted here.
"""

from datetime import timedelta

import psycopg

from twitter_pipeline.store.schema import VERSION_TABLE
from twitter_pipeline.store.stream import LISTEN_LOCK
from twitter_pipeline.words import TokenStatus

HAS_VERSION = "SELECT to_regclass(%s) IS NOT NULL"

VERSION = f"SELECT version_num FROM {VERSION_TABLE}"

TOKENS = "SELECT env_key, status::text FROM tokens ORDER BY env_key"

# Whoever listens holds the lock of its token as long as its process lives.
LISTENERS = """
SELECT t.env_key
FROM pg_locks l
JOIN tokens t ON t.id = l.objid::bigint
WHERE l.locktype = 'advisory' AND l.classid = %s::int::oid AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY t.env_key
"""

# Dagster writes its times without a zone, in UTC.
HEARTBEATS = "SELECT daemon_type, (now() AT TIME ZONE 'UTC') - timestamp FROM daemon_heartbeats ORDER BY daemon_type"


def connect(conninfo: str, *, patience_s: int) -> psycopg.Connection:
    """Connect, and give up connecting and each statement after so many seconds; raises psycopg.Error."""
    connection = psycopg.connect(
        conninfo, connect_timeout=patience_s, application_name="twitter_pipeline_probe", autocommit=True
    )
    connection.execute("SELECT set_config('statement_timeout', %s, false)", (f"{patience_s}s",))
    return connection


def load_version(connection: psycopg.Connection) -> str | None:
    """Return the version of the schema; None where there is none."""
    if not _values(connection.execute(HAS_VERSION, (VERSION_TABLE,)))[0]:
        return None
    return next(iter(_values(connection.execute(VERSION))), None)


def load_token_words(connection: psycopg.Connection) -> dict[str, TokenStatus]:
    """Return the status of every token that the database has seen, by its name."""
    return {env_key: TokenStatus(status) for env_key, status in connection.execute(TOKENS).fetchall()}


def load_listeners(connection: psycopg.Connection) -> list[str]:
    """Return the names of the tokens that somebody listens with."""
    return _values(connection.execute(LISTENERS, (LISTEN_LOCK,)))


def load_heartbeats(connection: psycopg.Connection) -> dict[str, timedelta]:
    """Return how old the last heartbeat of each part of Dagster's daemon is; the connection is to Dagster's storage."""
    return dict(connection.execute(HEARTBEATS).fetchall())


def _values(cursor: psycopg.Cursor[tuple[str, ...]]) -> list[str]:
    return [row[0] for row in cursor.fetchall()]
