"""Dagster's own storage: runs, events, schedules and sensors in PostgreSQL, apart from the tables of the project."""

import os
import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from select import POLLIN, POLLOUT, poll
from typing import Any

import psycopg2
from dagster import DagsterInstance
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster._utils.interrupts import check_captured_interrupt
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage
from dagster_postgres.utils import DagsterPostgresException, set_pg_statement_timeout
from psycopg2 import extensions
from sqlalchemy import Dialect, Engine, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.schema import CreateSchema

from twitter_pipeline.orchestration.pools import BACKFILL_POOL
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.deadlines import CONNECT_S, SOCKET_OPTIONS, Deadlines
from twitter_pipeline.store.urls import read_url

URL_VARIABLE = "DAGSTER_POSTGRES_URL"

# Two connections serve a run's process; steps in threads borrow a few more for moments.
POOL_SIZE = 2
POOL_OVERFLOW = 6

LOOK_EVERY_MS = 100

# Any number that nobody else locks in the same database.
CREATION_LOCK = 7305116

SEARCH_PATH = re.compile(r"search_path=(\w+)")


class ProjectStorage(DagsterStorage[Any], ConfigurableClass):
    """Dagster's PostgreSQL storage over one small pool of connections.

    Dagster's own opens a connection for every statement, and connecting is what a statement costs most: a step took
    80 to 90 ms that way and takes 20 to 27 ms with the pool. The pool tests a connection before it lends it, so that
    a restart of the server goes unnoticed.
    """

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__()
        url = for_psycopg2(postgres_url)
        deadlines = Deadlines()
        engine = pooled_engine(url, deadlines, size=POOL_SIZE, overflow=POOL_OVERFLOW)
        text = url.render_as_string(hide_password=False)
        self._inst_data = inst_data
        with one_process_at_a_time(engine):
            create_schema_of(engine)
            self._run_storage = PooledRunStorage(text)
            self._event_log_storage = PooledEventLogStorage(text)
            self._schedule_storage = PooledScheduleStorage(text)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage.use(engine, deadlines)

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """The entry of dagster.yaml that this storage was made from."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Take no options: the URL is a secret, and comes from the environment alone."""
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Any,
    ) -> "ProjectStorage | DagsterSqliteStorage":
        """Make the storage of this process: SQLite where the environment names no server.

        So definitions load, and can be checked, on a machine without a database.
        """
        url = os.environ.get(URL_VARIABLE)
        return cls(url, inst_data) if url else sqlite_storage(inst_data)

    @property
    def event_log_storage(self) -> PostgresEventLogStorage:
        """What happened in the runs."""
        return self._event_log_storage

    @property
    def run_storage(self) -> PostgresRunStorage:
        """The runs."""
        return self._run_storage

    @property
    def schedule_storage(self) -> PostgresScheduleStorage:
        """The states and ticks of schedules and sensors."""
        return self._schedule_storage


class Pooled:
    """Makes one of Dagster's PostgreSQL storages use a pool."""

    postgres_url: str
    deadlines: Deadlines
    _engine: Engine

    def use(self, engine: Engine, deadlines: Deadlines) -> None:
        """Send all statements through `engine` from now on."""
        self._engine, self.deadlines = engine, deadlines

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        """Take more connections and limit every statement (milliseconds), as Dagster's own storages do."""
        url = make_url(self.postgres_url)
        engine = pooled_engine(url, self.deadlines, size=1, overflow=max_overflow, recycle=pool_recycle)

        def limit_statements(connection: object, _record: object) -> None:
            set_pg_statement_timeout(connection, statement_timeout)

        event.listen(engine, "connect", limit_statements)
        self.use(engine, self.deadlines)

    def dispose(self) -> None:
        """Close the connections."""
        self._engine.dispose()


class PooledRunStorage(Pooled, PostgresRunStorage):
    """The runs, through a pool."""


class PooledEventLogStorage(Pooled, PostgresEventLogStorage):
    """The events, through a pool."""

    def get_concurrency_keys(self) -> set[str]:
        """Return the pools that have a limit, the pool of backfills always among them where there is a default.

        Dagster's queue gives a pool its limit only after it has asked for those that have one, so the first backfills
        of a new instance would all start at once.
        """
        keys = super().get_concurrency_keys()
        if BACKFILL_POOL in keys:
            return keys
        self.initialize_concurrency_limit_to_default(BACKFILL_POOL)
        return super().get_concurrency_keys()

    def dispose(self) -> None:
        """Stop watching for events and close the connections."""
        PostgresEventLogStorage.dispose(self)
        super().dispose()


class PooledScheduleStorage(Pooled, PostgresScheduleStorage):
    """The schedules and sensors, through a pool."""


def for_psycopg2(postgres_url: str) -> URL:
    """Return the URL with the driver that Dagster's storage is written for.

    SQLAlchemy 2.1 takes a bare `postgresql://` for psycopg 3, with which every event insert fails.
    """
    return read_url(postgres_url, URL_VARIABLE).set(drivername="postgresql+psycopg2")


def pooled_engine(url: URL, deadlines: Deadlines, *, size: int, overflow: int, recycle: int = -1) -> Engine:
    """Return an engine that keeps connections and tests each before it is lent.

    A server that is frozen is given up as the tables' is (store/deadlines.py).
    """
    # For all connections of the process: nothing else uses psycopg2.
    extensions.set_wait_callback(wait_for_answer)
    timed = type("TimedConnection", (TimedConnection,), {"deadlines": deadlines})
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_size=size,
        max_overflow=overflow,
        pool_recycle=recycle,
        pool_pre_ping=True,
        connect_args={**SOCKET_OPTIONS, "connection_factory": timed},
    )

    def connect(dialect: Dialect, _record: object, words: list[Any], options: dict[str, Any]) -> Any:
        return connect_in_time(dialect, deadlines, *words, **options)

    event.listen(engine, "do_connect", connect)
    return engine


class TimedConnection(extensions.connection):
    """A connection that is closed when an answer is overdue; whoever waits for it gets an OperationalError."""

    deadlines: Deadlines


def wait_for_answer(connection: extensions.connection) -> None:
    """Wait for what psycopg2 does on a connection, hearing signals meanwhile, which libpq's own wait does not.

    psycopg2 closes the connection when this raises.
    """
    began = time.monotonic()
    # Dagster opens a few by itself before the pool is there.
    deadlines = connection.deadlines if isinstance(connection, TimedConnection) else Deadlines()
    limit_s = CONNECT_S if connection.status == extensions.STATUS_SETUP else deadlines.limit_s
    while (state := connection.poll()) != extensions.POLL_OK:
        socket = poll()
        socket.register(connection.fileno(), POLLOUT if state == extensions.POLL_WRITE else POLLIN)
        try:
            is_ready = socket.poll(LOOK_EVERY_MS)
        except BaseException:
            deadlines.hurry()
            raise
        if check_captured_interrupt():
            deadlines.hurry()
        if not is_ready and (overdue := deadlines.overdue(began, limit_s)) is not None:
            raise psycopg2.OperationalError(overdue)


def connect_in_time(dialect: Dialect, deadlines: Deadlines, *words: Any, **options: Any) -> Any:
    """Connect as the dialect does. Where nothing answers, Dagster is not left to try again and again."""
    if time.monotonic() > deadlines.give_up_at:
        raise DagsterPostgresException("not tried again, as the process is to end")
    began = time.monotonic()
    try:
        return dialect.connect(*words, **options)
    except psycopg2.OperationalError as error:
        if deadlines.overdue(began, CONNECT_S) is not None:
            raise DagsterPostgresException("no connection") from error
        raise


def hurry(instance: DagsterInstance) -> None:
    """Have Dagster's storage give up after seconds what the server does not answer: the process is to end."""
    if isinstance(instance.run_storage, Pooled):
        instance.run_storage.deadlines.hurry()


@contextmanager
def one_process_at_a_time(engine: Engine) -> Generator[None]:
    """Keep the other processes that load the storage waiting.

    It creates its tables when they are missing, and some of these statements fail when two processes run them at once.
    """
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection, connection.begin():
        connection.execute(select(func.pg_advisory_xact_lock(CREATION_LOCK)))
        yield


def create_schema_of(engine: Engine) -> None:
    """Create the schema that the URL's search_path names, if it names one."""
    named = SEARCH_PATH.findall(str(engine.url.query.get("options", "")))
    if not named:
        return
    with engine.connect() as connection:
        connection.execute(CreateSchema(named[-1], if_not_exists=True))


def sqlite_storage(inst_data: ConfigurableClassData | None) -> DagsterSqliteStorage:
    """Return the storage that Dagster uses by default, under DAGSTER_HOME.

    Without one it is the project's own: Dagster reads the dagster.yaml of the folder that a command is typed in.
    """
    home = os.environ.get("DAGSTER_HOME") or str(Settings().dagster_home)
    return DagsterSqliteStorage.from_local(home, inst_data)
