"""Makes tables without partitions ready to become the first partition of themselves, while runs may work on them.

That the rows lie before the end of the first partition is proved by a check constraint, which reads the table once and
holds nobody up, and the new key of the calls gets its index in the same way. What is left takes milliseconds
(`sql/15_partitions.sql`). Each step is there whole or not at all, so whatever is interrupted goes on with the next one
when it is begun again. Until the upgrade is finished the check refuses rows beyond that end, a month ahead or more.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import psycopg
from psycopg import sql

from twitter_pipeline.coverage import time_at
from twitter_pipeline.store.partitions import API_CALLS, TABLES, PartitionedTable, lock, only, when_free

ROOM = timedelta(days=30)
"""The first partition ends so much later than now, or more: somebody may take that long to finish the upgrade."""

IS_WHOLE = "SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass(%s)"

CHECK = """
SELECT conname::text, convalidated FROM pg_constraint
WHERE conrelid = %s::regclass AND conname LIKE 'first\\_partition\\_ends\\_%%'
"""

KEY_INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('api_calls_first_pkey')"

MAKE_KEY_INDEX = "CREATE UNIQUE INDEX CONCURRENTLY api_calls_first_pkey ON api_calls (id, called_at)"

# Left by one that was interrupted.
DROP_KEY_INDEX = "DROP INDEX CONCURRENTLY api_calls_first_pkey"


def make_ready(connection: psycopg.Connection, say: Callable[[str], None]) -> None:
    """Make the tables ready that have no partitions; does nothing where there are none, or where all is done.

    `connection` has no transaction open. Before each step that reads a whole table `say` is told.
    """
    for table in TABLES:
        if not _is_whole(connection, table.name):
            continue
        found = connection.execute(CHECK, (table.name,)).fetchone()
        if found is None:
            when_free(table.name, lambda table=table: _add_check(connection, table))
            found = only(connection.execute(CHECK, (table.name,)))
        name, is_valid = found
        if not is_valid:
            say(f"Reading all of {table.name} once, to make it the first partition; runs may go on meanwhile")
            connection.execute(
                sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
                    sql.Identifier(table.name), sql.Identifier(name)
                )
            )
    if _is_whole(connection, API_CALLS.name):
        _index_calls(connection, say)


def _index_calls(connection: psycopg.Connection, say: Callable[[str], None]) -> None:
    found = connection.execute(KEY_INDEX).fetchone()
    if found == (True,):
        return
    if found is not None:
        connection.execute(DROP_KEY_INDEX)
    say("Making the index of the new key of api_calls; runs may go on meanwhile")
    connection.execute(MAKE_KEY_INDEX)


def _is_whole(connection: psycopg.Connection, table: str) -> bool:
    return connection.execute(IS_WHOLE, (table,)).fetchone() == (True,)


def _add_check(connection: psycopg.Connection, table: PartitionedTable) -> None:
    with connection.transaction():
        lock(connection, table.name)
        key = sql.Identifier(table.key)
        whole = sql.Identifier(table.name)
        newest, now = only(connection.execute(sql.SQL("SELECT max({}), now() FROM {}").format(key, whole)))
        end = first_end(table, newest=time_at(newest) if isinstance(newest, int) else newest, now=now)
        connection.execute(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({} < {}) NOT VALID").format(
                whole,
                sql.Identifier(f"first_partition_ends_{end:%Y_%m}"),
                key,
                sql.Literal(table.key_at(end)),
            )
        )


def first_end(table: PartitionedTable, *, newest: datetime | None, now: datetime) -> datetime:
    """Return where the first partition of a table with these rows ends, which is where another one may begin."""
    return table.end_of(max(now + ROOM, now if newest is None else newest))
