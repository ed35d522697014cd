"""The connection to PostgreSQL: a small pool, statements that survive a restart of the server, transactions."""

import logging
import random
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, LiteralString, TypeVar, cast

import psycopg
from psycopg import Connection
from psycopg.abc import PQGen
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from twitter_pipeline.errors import ConfigurationError, PipelineError
from twitter_pipeline.store.deadlines import SOCKET_OPTIONS, STATEMENT_S, Deadlines
from twitter_pipeline.store.urls import read_url
from twitter_pipeline.texts import first_line

logger = logging.getLogger(__name__)

OUTAGE_SURVIVED_S = 20.0
"""For how long a statement is tried again while the server is away: a restart takes a few seconds."""

SILENCE_S = 30.0
"""Locks of the session are free when their holder has been silent for so long."""

DISK_FULL = "53100"
OVERDUE = "57014"

# A live server ends a statement itself, so that a long wait for a lock is not taken for a frozen server, and a frozen
# client's transaction before others have waited too long for its locks. 0 is no limit. It looks after its sockets as we
# do; on one of the same machine that does nothing.
BEGIN_SESSION = """
SELECT set_config('statement_timeout', %(statement_ms)s, false),
       set_config('idle_in_transaction_session_timeout', %(idle_ms)s, false),
       set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '25000', false)
"""

NO_LIMIT = "SET statement_timeout = 0"

END_WHEN_SILENT = "SELECT set_config('idle_session_timeout', %(silence_ms)s, false)"

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


class TimedConnection(Connection[Any]):
    """A connection that is closed when an answer is overdue; whoever waits for it gets an OperationalError."""

    deadlines: Deadlines
    limit_s: float | None

    def wait(self, gen: PQGen[T], *how: Any, **named: Any) -> T:
        """Wait for what psycopg does on the connection, looking at the deadline as often as at signals."""
        return super().wait(self._in_time(gen), *how, **named)

    def _in_time(self, gen: PQGen[T]) -> PQGen[T]:
        began = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and (overdue := self.deadlines.overdue(began, self.limit_s)) is not None:
                    self.close()
                    raise psycopg.OperationalError(overdue)
                wanted = gen.send(ready)
        except StopIteration as end:
            return cast("T", end.value)


class Database:
    """A pool of connections to one database. Safe to share between threads; close it when done.

    A statement may take `statement_s`, as long as it needs with None.
    """

    def __init__(self, url: str, *, pool_size: int = 8, statement_s: float | None = STATEMENT_S) -> None:
        self._deadlines = Deadlines(statement_s)
        self.engine: Engine = _engine(url, pool_size, self._deadlines)
        self._outage = Outage()

    @property
    def url(self) -> str:
        """The URL with all that a connection takes, also the password."""
        return self.engine.url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Close all connections that are not in use."""
        self.engine.dispose()

    def hurry(self) -> None:
        """Give up after seconds what the server does not answer: the process is to end."""
        self._deadlines.hurry()

    @contextmanager
    def hurried_by_interruptions(self) -> Generator[None]:
        """Hurry when a signal, or Dagster, interrupts what is done in the context: no Exception then."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            self.hurry()
            raise

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
    def connection(self, *, limited: bool = True) -> Generator[Connection]:
        """Give a psycopg connection on which each statement is a transaction of its own; an outage raises.

        Unless `limited`, statements may take as long as they need.
        """
        with self._connection() as connection:
            if limited:
                yield connection
                return
            with unlimited(connection):
                yield connection

    @contextmanager
    def lock_session(self) -> Generator[Connection]:
        """Give a connection for locks of the session; they are given up with it.

        A thread keeps the connection from being silent: the server ends it when this process is frozen, or its machine
        is gone.
        """
        with self.engine.connect() as pooled:
            connection = cast("Connection", pooled.connection.driver_connection)
            ended = threading.Event()

            def beat() -> None:
                with suppress(psycopg.Error):
                    while not ended.wait(SILENCE_S / 6):
                        connection.execute("SELECT")

            thread = threading.Thread(target=beat, name="lock session", daemon=True)
            thread.start()
            try:
                end_when_silent(connection)
                yield connection
            finally:
                ended.set()
                thread.join()
                # It must not go back into the pool with the locks.
                pooled.invalidate()

    def _surviving_outages(self, work: Callable[[Connection], T]) -> T:
        give_up_at: float | None = None
        pause_s = 0.05
        while True:
            try:
                with self._connection() as connection:
                    result = work(connection)
            except psycopg.errors.DeadlockDetected:
                continue
            except (psycopg.OperationalError, DBAPIError) as error:
                if _state_of(error) in (DISK_FULL, OVERDUE):
                    raise fault_of(_cause(error)) from error
                if not _is_outage(error):
                    raise
                # Of its own too: a statement that brings the server down each time may see others succeed in between.
                # From the first failure on: a connection that was lost in silence has taken its time already.
                give_up_at = give_up_at or time.monotonic() + OUTAGE_SURVIVED_S
                goes_on_until = min(give_up_at, self._deadlines.give_up_at)
                if self._outage.goes_on() > OUTAGE_SURVIVED_S or time.monotonic() + pause_s > goes_on_until:
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


def end_when_silent(connection: Connection) -> None:
    """Have the server end a connection, and with it the locks of the session, after a silence."""
    connection.execute(END_WHEN_SILENT, {"silence_ms": str(round(SILENCE_S * 1000))})


@contextmanager
def unlimited(connection: Connection) -> Generator[None]:
    """Let the statements of a connection take as long as they need; it is closed at the end."""
    if isinstance(connection, TimedConnection):
        connection.limit_s = None
    try:
        connection.execute(NO_LIMIT)
        yield
    finally:
        connection.close()


def fault_of(cause: BaseException) -> DatabaseFault:
    """Tell what a driver said, psycopg's or psycopg2's, as a person wants to read it."""
    said = first_line(cause)
    states = (getattr(cause, "sqlstate", None), getattr(cause, "pgcode", None))
    if DISK_FULL in states:
        return DatabaseFault(
            f"the database's disk is full: {said}. What was fetched is stored; free some space there and run again."
        )
    if OVERDUE in states:
        return DatabaseFault(
            f"the database is too busy, or something there is locked for long: {said}. What was fetched is stored; run "
            "again later."
        )
    return DatabaseFault(
        f"the database stopped answering: {said}. What was fetched is stored; see to the database and run again."
    )


def _cause(error: Exception) -> BaseException:
    return error.orig or error if isinstance(error, DBAPIError) else error


def _state_of(error: Exception) -> str | None:
    cause = _cause(error)
    return cause.sqlstate if isinstance(cause, psycopg.Error) else None


def _is_outage(error: Exception) -> bool:
    """Whether the connection was lost or refused, as against a statement that failed."""
    cause = _cause(error)
    if not isinstance(cause, psycopg.OperationalError):
        return False
    state = cause.sqlstate
    # 57P0x: shut down, crashed, starting up. No state: the connection itself broke. 53100, disk full, is no outage.
    return state is None or state.startswith(("57P", "08"))


def _engine(url: str, pool_size: int, deadlines: Deadlines) -> Engine:
    parsed = read_url(url)
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"DATABASE_URL names {parsed.get_backend_name()}; this project needs PostgreSQL 14 or newer"
        )
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        # Each statement is its own transaction unless one is opened; transaction() opens one.
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        # Outside a transaction there is nothing to roll back, and transaction() ends its own.
        pool_reset_on_return=None,
        pool_timeout=60,
        connect_args={"application_name": "twitter_pipeline", **SOCKET_OPTIONS},
    )

    def connect(_dialect: object, _record: object, words: list[Any], options: dict[str, Any]) -> TimedConnection:
        return _connect(deadlines, *words, **options)

    event.listen(engine, "do_connect", connect)
    return engine


def _connect(deadlines: Deadlines, *words: Any, **options: Any) -> TimedConnection:
    if time.monotonic() > deadlines.give_up_at:
        raise psycopg.OperationalError("not tried again, as the process is to end")
    began = time.monotonic()
    options["connect_timeout"] = deadlines.connect_s
    try:
        connection = TimedConnection.connect(*words, autocommit=True, **options)
    except psycopg.Error:
        # So that the next one is not tried where the process is to end.
        deadlines.overdue(began, None)
        raise
    connection.deadlines, connection.limit_s = deadlines, deadlines.limit_s
    statement_ms = 0 if deadlines.limit_s is None else round(deadlines.limit_s * 1000)
    limits = {"statement_ms": str(statement_ms * 9 // 10), "idle_ms": str(statement_ms // 2)}
    try:
        connection.execute(BEGIN_SESSION, limits)
    except BaseException:
        connection.close()
        raise
    return connection
