"""The connection to PostgreSQL: a small pool, statements that survive a restart of the server, transactions."""

import logging
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, TypeVar, cast

import psycopg
from psycopg import Connection
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError

from twitter_pipeline.errors import ConfigurationError, PipelineError
from twitter_pipeline.store.urls import read_url
from twitter_pipeline.texts import first_line

logger = logging.getLogger(__name__)

OUTAGE_SURVIVED_S = 20.0
"""For how long a statement is tried again while the server is away: a restart takes a few seconds."""

DISK_FULL = "53100"

T = TypeVar("T")
Params = Mapping[str, object] | Sequence[object]


class DatabaseFault(PipelineError, psycopg.OperationalError):
    """The database does not do its part for longer than a restart takes, or has no room; the text is for a person."""


class Outage:
    """How long the server has been away, as all threads see it: once one has given up, none waits as long again."""

    def __init__(self) -> None:
        self._began_at: float | None = None
        self._seen_at = 0.0

    def goes_on(self) -> float:
        """Note that the server does not answer, and return for how many seconds it has not."""
        now = time.monotonic()
        if self._began_at is None or now - self._seen_at > OUTAGE_SURVIVED_S:
            self._began_at = now
        self._seen_at = now
        return now - self._began_at

    def is_over(self) -> None:
        """Note that the server answers."""
        if self._began_at is not None:
            # Not before: what a run logs goes into Dagster's storage, which is often on the same server.
            logger.warning("The database did not answer for %.1f s", time.monotonic() - self._began_at)
            self._began_at = None


class Database:
    """A pool of connections to one database. Safe to share between threads; close it when done."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self.engine: Engine = _engine(url, pool_size)
        self._outage = Outage()

    @property
    def url(self) -> str:
        """The URL with all that a connection takes, also the password."""
        return self.engine.url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Close all connections that are not in use."""
        self.engine.dispose()

    def execute(self, statement: LiteralString, params: Params = ()) -> list[tuple[Any, ...]]:
        """Run one statement as a transaction of its own and return its rows.

        While the server is away it is tried again for `OUTAGE_SURVIVED_S`; whether an earlier try was committed
        cannot be known, so statements given here must do no harm when run twice. One that the server ends because it
        and others wait for each other has done nothing, and is run again. Raises DatabaseFault when the server stays
        away or its disk is full.
        """
        # Prepared from the first time on: most statements are few and run often.
        return self._surviving_outages(
            lambda connection: _rows(connection.execute(statement, params, binary=True, prepare=True))
        )

    @contextmanager
    def transaction(self) -> Generator[Connection]:
        """Give a psycopg connection inside a transaction, committed at the end; an outage raises."""
        with self._connection() as connection, connection.transaction():
            yield connection

    @contextmanager
    def connection(self) -> Generator[Connection]:
        """Give a psycopg connection on which each statement is a transaction of its own; an outage raises."""
        with self._connection() as connection:
            yield connection

    def _surviving_outages(self, work: Callable[[Connection], T]) -> T:
        # Of its own too: a statement that brings the server down each time may see others succeed in between.
        give_up_at = time.monotonic() + OUTAGE_SURVIVED_S
        pause_s = 0.05
        while True:
            try:
                with self._connection() as connection:
                    result = work(connection)
            except psycopg.errors.DeadlockDetected:
                continue
            except (psycopg.OperationalError, DBAPIError) as error:
                if _is_disk_full(error):
                    raise fault_of(_cause(error)) from error
                if not _is_outage(error):
                    raise
                if self._outage.goes_on() > OUTAGE_SURVIVED_S or time.monotonic() + pause_s > give_up_at:
                    raise fault_of(_cause(error)) from error
            else:
                self._outage.is_over()
                return result
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, 2.0)

    @contextmanager
    def _connection(self) -> Generator[Connection]:
        pooled = self.engine.raw_connection()
        try:
            connection = cast("Connection", pooled.driver_connection)
            yield connection
            if connection.closed:
                pooled.invalidate()
        except BaseException:
            # Whatever state it is in: a new one costs less than a wrong one.
            pooled.invalidate()
            raise
        finally:
            pooled.close()


def _rows(cursor: psycopg.Cursor[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.description else []


def fault_of(cause: BaseException) -> DatabaseFault:
    """Tell what a driver said, psycopg's or psycopg2's, as a person wants to read it."""
    said = first_line(cause)
    if DISK_FULL in (getattr(cause, "sqlstate", None), getattr(cause, "pgcode", None)):
        return DatabaseFault(
            f"the database's disk is full: {said}. What was fetched is stored; free some space there and run again."
        )
    return DatabaseFault(
        f"the database stopped answering: {said}. What was fetched is stored; see to the database and run again."
    )


def _cause(error: Exception) -> BaseException:
    return error.orig or error if isinstance(error, DBAPIError) else error


def _is_disk_full(error: Exception) -> bool:
    cause = _cause(error)
    return isinstance(cause, psycopg.OperationalError) and cause.sqlstate == DISK_FULL


def _is_outage(error: Exception) -> bool:
    """Whether the connection was lost or refused, as against a statement that failed."""
    cause = _cause(error)
    if not isinstance(cause, psycopg.OperationalError):
        return False
    state = cause.sqlstate
    # 57P0x: shut down, crashed, starting up. No state: the connection itself broke. 53100, disk full, is no outage.
    return state is None or state.startswith(("57P", "08"))


def _engine(url: str, pool_size: int) -> Engine:
    parsed = read_url(url)
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"DATABASE_URL names {parsed.get_backend_name()}; this project needs PostgreSQL 14 or newer"
        )
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        # Each statement is its own transaction unless one is opened; transaction() opens one.
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        # Outside a transaction there is nothing to roll back, and transaction() ends its own.
        pool_reset_on_return=None,
        pool_timeout=60,
        connect_args={"application_name": "twitter_pipeline", "connect_timeout": 10},
    )
