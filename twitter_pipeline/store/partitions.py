"""The partitions of `tweets` and `api_calls`: making them ahead of time, and dropping those of old calls whole.

`tweets` is parted into years by the id, which carries the time. A question about an account reads every partition, so
there are few: of a billion tweets each holds some sixty million, and a statement that reads them all locks a hundred
tables and indexes. With months it would lock a thousand, for which PostgreSQL has no room when some ten connections do
that at once. `api_calls` is parted into months: it is asked by time, and old months go.

A table is changed only while nobody else is at it, which is waited for no longer than `PATIENCE`, because everybody
queues up behind; then it is tried again.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql
from sqlalchemy.exc import DBAPIError

from twitter_pipeline.coverage import id_at
from twitter_pipeline.errors import PipelineError
from twitter_pipeline.store.database import Database

logger = logging.getLogger(__name__)

PATIENCE: LiteralString = "500ms"
"""Less than the server's deadlock_timeout: in a deadlock it is never somebody else who has to give way."""

WANTED_AHEAD = 2
"""Where fewer partitions than that lie beyond the present one, nothing makes them."""

TRIED_FOR_S = 60.0
PAUSE_S = 0.5

# There is no gap between partitions, so where the last one ends tells where to go on.
END: LiteralString = """
SELECT max({end}), now()
FROM (
    SELECT substring(pg_get_expr(c.relpartbound, c.oid) FROM $$TO \\('?([^')]+)'?\\)$$) AS bound
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = '{table}'::regclass
) AS partition
"""

# A run that still works counts its calls when it closes, however old they are.
OLD_MONTHS = """
SELECT name FROM (
    SELECT c.relname::text AS name,
           substring(pg_get_expr(c.relpartbound, c.oid) FROM $$TO \\('?([^')]+)'?\\)$$)::timestamptz AS ends_at
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'api_calls'::regclass
) AS partition
WHERE ends_at <= now() - %(keep_s)s * interval '1 second'
  AND NOT EXISTS (SELECT FROM fetch_runs WHERE status = 'running' AND started_at < ends_at)
ORDER BY ends_at
"""

CREATE = "CREATE TABLE {partition} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE) {options}"

# It is a table by itself yet, without triggers: what was counted when it was written is not counted again.
MOVE = """
WITH moved AS (DELETE FROM {other} WHERE {is_after} AND {key} < {end} RETURNING *)
INSERT INTO {partition} SELECT * FROM moved
"""

ATTACH = "ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ({begin}) TO ({end})"

# PostgreSQL gathers statistics of each partition by itself, but not those of the whole, by which joins are planned.
OUTGROWN = """
SELECT whole.relname::text FROM pg_class whole
WHERE whole.oid IN ('tweets'::regclass, 'api_calls'::regclass) AND 1.1 * greatest(whole.reltuples, 100) < (
    SELECT sum(part.reltuples) FROM pg_inherits i JOIN pg_class part ON part.oid = i.inhrelid
    WHERE i.inhparent = whole.oid AND part.reltuples > 0
)
"""

T = TypeVar("T")


class TableInUse(PipelineError):
    """Somebody was at a table all the time, so it could not be changed; running again does it."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of a table, from one instant up to another; without a beginning it is all that is older."""

    name: str
    begins_at: datetime | None
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class PartitionedTable:
    """A table in partitions of 1 or 12 months, of which `ahead` are made beyond the present one."""

    name: LiteralString
    key: LiteralString
    months: int
    ahead: int
    key_at: Callable[[datetime], int | datetime]
    """The lowest key of an instant."""
    end: LiteralString
    """What makes an instant of a `bound` as PostgreSQL writes it."""
    options: LiteralString = ""
    first_ends: date | None = None
    """The end of the first partition of an empty table; None: its first one is the present one."""

    def plan(self, *, ends_at: datetime | None, now: datetime) -> list[Partition]:
        """Return the partitions that are missing, the oldest first; the last one that is there ends at `ends_at`."""
        planned: list[Partition] = []
        if ends_at is not None:
            begin = ends_at.astimezone(UTC).date()
        elif self.first_ends is not None:
            begin = self.first_ends
            planned.append(Partition(self._name(begin - timedelta(days=1)), None, _instant(begin)))
        else:
            begin = self.begin_of(now)
        wanted_until = self._later(self.begin_of(now), self.ahead + 1)
        while begin < wanted_until:
            end = self._later(begin, 1)
            planned.append(Partition(self._name(begin), _instant(begin), _instant(end)))
            begin = end
        return planned

    def count_ahead(self, *, ends_at: datetime | None, now: datetime) -> int:
        """Return how many partitions there are beyond the present one."""
        present, count = self.begin_of(now), 0
        while ends_at is not None and _instant(self._later(present, count + 2)) <= ends_at:
            count += 1
        return count

    def end_of(self, instant: datetime) -> datetime:
        """Return where the period ends that an instant lies in."""
        return _instant(self._later(self.begin_of(instant), 1))

    def begin_of(self, instant: datetime) -> date:
        """Return the first day of the period that an instant lies in."""
        day = instant.astimezone(UTC).date()
        return day.replace(month=day.month - (day.month - 1) % self.months, day=1)

    def _later(self, first_day: date, periods: int) -> date:
        months = first_day.year * 12 + first_day.month - 1 + periods * self.months
        return date(months // 12, months % 12 + 1, 1)

    def _name(self, day: date) -> str:
        return f"{self.name}_{day:%Y}" if self.months == 12 else f"{self.name}_{day:%Y_%m}"


TWEETS = PartitionedTable(
    name="tweets",
    key="id",
    months=12,
    ahead=2,
    key_at=id_at,
    end="to_timestamp(((bound::bigint >> 22) + 1288834974657) / 1000.0)",
    # Ids from before November 2010 carry no time: they are in one partition.
    first_ends=date(2011, 1, 1),
)

API_CALLS = PartitionedTable(
    name="api_calls",
    key="called_at",
    months=1,
    ahead=3,
    key_at=lambda instant: instant,
    end="bound::timestamptz",
    # As sql/05_api_calls.sql: each row is written twice.
    options="WITH (fillfactor = 60)",
)

TABLES = (TWEETS, API_CALLS)


def make_partitions(database: Database) -> list[str]:
    """Make the partitions that are missing up to some time ahead, and return their names.

    Rows of theirs that lie with the others are moved. Safe from several processes. Raises TableInUse.
    """
    with database.connection(limited=False) as connection:
        return make_missing(connection)


def make_missing(connection: psycopg.Connection, *, now: datetime | None = None) -> list[str]:
    """Do `make_partitions` on a connection without a transaction, as at an instant."""
    made: list[str] = []
    for table in TABLES:
        if _missing(connection, table, now):
            made += when_free(table.name, lambda table=table: _make(connection, table, now))
    return made


def drop_old_calls(database: Database, *, keep: timedelta) -> int:
    """Drop the months of calls that are over for longer than `keep`; return how many calls there were.

    Months in which a run began that still works stay, and so do those that cannot be had for oneself.
    """
    dropped = 0
    for (name,) in database.execute(OLD_MONTHS, {"keep_s": keep.total_seconds()}):
        month = sql.Identifier(name)
        with database.connection(limited=False) as connection:
            try:
                (calls,) = only(connection.execute(sql.SQL("SELECT count(*) FROM {}").format(month)))
                when_free(API_CALLS.name, lambda month=month: _drop(connection, month))
            except psycopg.errors.UndefinedTable:
                continue  # another process was sooner
            except TableInUse as error:
                logger.warning("%s was not dropped: %s", name, error)
            else:
                dropped += calls
    return dropped


def count_ahead(database: Database) -> dict[str, int]:
    """Return by table how many partitions there are beyond the present one."""
    with database.connection() as connection:
        return {table.name: table.count_ahead(**_state(connection, table, None)) for table in TABLES}


def renew_statistics(database: Database) -> list[str]:
    """Have PostgreSQL look at the tables that have grown by a tenth since it did as a whole; return their names."""
    outgrown = [name for (name,) in database.execute(OUTGROWN)]
    with database.connection(limited=False) as connection:
        # Before PostgreSQL 18 all partitions are looked at too.
        only = "ONLY " if connection.info.server_version >= 180_000 else ""
        for name in outgrown:
            connection.execute(sql.SQL("ANALYZE {}{}").format(sql.SQL(only), sql.Identifier(name)))
    return outgrown


def when_free(table: str, work: Callable[[], T]) -> T:
    """Do what needs a table for oneself, tried again while others are at it; raise TableInUse when they stay."""
    give_up_at = time.monotonic() + TRIED_FOR_S
    while True:
        try:
            return work()
        except (psycopg.errors.LockNotAvailable, DBAPIError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if not isinstance(cause, psycopg.errors.LockNotAvailable):
                raise
            if time.monotonic() > give_up_at:
                raise TableInUse(
                    f"somebody is reading or writing {table} all the time, such as an export or another version of "
                    "this program; let that end and run again"
                ) from error
        time.sleep(PAUSE_S)


def _missing(connection: psycopg.Connection, table: PartitionedTable, now: datetime | None) -> list[Partition]:
    return table.plan(**_state(connection, table, now))


def _state(connection: psycopg.Connection, table: PartitionedTable, now: datetime | None) -> dict[str, datetime]:
    statement = END.replace("{end}", table.end).replace("{table}", table.name)
    ends_at, database_now = only(connection.execute(statement))
    return {"ends_at": ends_at, "now": now or database_now}


def _make(connection: psycopg.Connection, table: PartitionedTable, now: datetime | None) -> list[str]:
    with connection.transaction():
        lock(connection, table.name)
        # Again, as another process may have been sooner.
        partitions = _missing(connection, table, now)
        for partition in partitions:
            for statement in (CREATE, MOVE, ATTACH):
                connection.execute(_about(statement, table, partition))
    return [partition.name for partition in partitions]


def _about(statement: LiteralString, table: PartitionedTable, partition: Partition) -> sql.Composed:
    key = sql.Identifier(table.key)
    begin, is_after = sql.SQL("MINVALUE"), sql.SQL("true")
    if partition.begins_at is not None:
        begin = sql.Literal(table.key_at(partition.begins_at))
        is_after = sql.SQL("{} >= {}").format(key, begin)
    return sql.SQL(statement).format(
        table=sql.Identifier(table.name),
        partition=sql.Identifier(partition.name),
        other=sql.Identifier(f"{table.name}_other"),
        key=key,
        begin=begin,
        is_after=is_after,
        end=sql.Literal(table.key_at(partition.ends_at)),
        options=sql.SQL(table.options),
    )


def _drop(connection: psycopg.Connection, partition: sql.Identifier) -> None:
    with connection.transaction():
        lock(connection, API_CALLS.name)
        connection.execute(sql.SQL("DROP TABLE {}").format(partition))


def lock(connection: psycopg.Connection, table: LiteralString) -> None:
    """Have a table for oneself to the end of the transaction; raise LockNotAvailable when others stay at it."""
    connection.execute(f"SET LOCAL lock_timeout = '{PATIENCE}'")
    connection.execute(f"LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE")


def only(cursor: psycopg.Cursor[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return the only row."""
    return cursor.fetchall()[0]


def _instant(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
