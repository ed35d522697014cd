"""Databases as earlier versions of this program left them: with their schema, and rows in its tables."""

from datetime import UTC, datetime, timedelta
from typing import Any

from alembic import command

from twitter_pipeline.coverage import id_at
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.schema import _config

VERSIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")

NOW = datetime.now(UTC)
OLDEST = 20
"""The first tweet of all."""

TWEETS = (OLDEST, id_at(datetime(2010, 11, 20, tzinfo=UTC)), id_at(datetime(2019, 6, 1, tzinfo=UTC)), id_at(NOW))
CALLS = (NOW - timedelta(days=100), NOW - timedelta(days=3), NOW)

# From which version on there is something to fill in beside what the first one had.
ADDED = {
    "0002": "INSERT INTO walks (user_id, fetch_run_id, ids) VALUES (12, 1, '[5,9)')",
    "0003": "UPDATE user_state SET next_poll_at = now(), handed_to = 'somebody', handed_at = now()",
    "0004": "UPDATE tweets SET deleted_seen_at = now() WHERE id = 20",
    "0005": "UPDATE user_state SET searched = '{[3,7)}'",
    "0006": "UPDATE fetch_runs SET estimated_calls = 7",
    "0007": "INSERT INTO spending (day, posts) VALUES ('2026-11-01', 50)",
    "0008": "INSERT INTO alerts (kind, subject, called, since, message) VALUES ('run_failed', '1', 'x', now(), 'x')",
}

FIRST = (
    "INSERT INTO tokens (env_key) VALUES ('TWITTER_BEARER_1')",
    "INSERT INTO tokens_endpoint_rl (token_id, endpoint) VALUES (1, '/2/users/:id/tweets')",
    "INSERT INTO users (id, username) VALUES (12, 'jack')",
    "INSERT INTO user_names (user_id, username) VALUES (12, 'jack')",
    "INSERT INTO user_state (user_id, is_tracked, tracked_since, covered) VALUES (12, true, now(), '{[20,90)}')",
    "INSERT INTO fetch_runs (kind, request) VALUES ('history', '[]')",
    "INSERT INTO fetch_run_accounts (fetch_run_id, username, user_id, fetch_mode) VALUES (1, 'jack', 12, 'full')",
)


def apply(database: Database, version: str) -> None:
    """Bring an empty database to a version as that version did it, in one transaction."""
    with database.engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        command.upgrade(_config(connection), version)


def fill(database: Database, version: str) -> None:
    """Write rows into every table that a version had."""
    for statement in FIRST:
        database.execute(statement)  # pyright: ignore[reportArgumentType]
    for tweet_id in TWEETS:
        database.execute(
            "INSERT INTO tweets (id, author_id, created_at, kind, text, raw) VALUES (%s, 12, %s, 'reply', 'hi', '{}')",
            (tweet_id, NOW),
        )
    for called_at in CALLS:
        database.execute(
            "INSERT INTO api_calls (called_at, endpoint, token_id, fetch_run_id, billed_posts, outcome)"
            " VALUES (%s, '/2/users/:id/tweets', 1, 1, 50, 'ok')",
            (called_at,),
        )
    for since, statement in ADDED.items():
        if since <= version:
            database.execute(statement)  # pyright: ignore[reportArgumentType]


def rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Return all that is stored, by table, the rows of each in a fixed order."""
    tables = database.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND NOT relispartition AND relname <> 'twitter_pipeline_version' ORDER BY 1"
    )
    return {
        table: [row for (row,) in database.execute(f"SELECT to_jsonb(t) AS r FROM {table} t ORDER BY 1")]  # pyright: ignore[reportArgumentType]
        for (table,) in tables
    }


def version_of(database: Database) -> str:
    return database.execute("SELECT version_num FROM twitter_pipeline_version")[0][0]
