"""Dagster's own storage: runs, events, schedules and sensors in PostgreSQL, apart from the tables of the project."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage
from dagster_postgres.utils import set_pg_statement_timeout
from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.schema import CreateSchema

from twitter_pipeline.orchestration.pools import BACKFILL_POOL
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.urls import read_url

URL_VARIABLE = "DAGSTER_POSTGRES_URL"

# Two connections serve a run's process; steps in threads borrow a few more for moments.
POOL_SIZE = 2
POOL_OVERFLOW = 6

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
        engine = pooled_engine(url, size=POOL_SIZE, overflow=POOL_OVERFLOW)
        text = url.render_as_string(hide_password=False)
        self._inst_data = inst_data
        with one_process_at_a_time(engine):
            create_schema_of(engine)
            self._run_storage = PooledRunStorage(text)
            self._event_log_storage = PooledEventLogStorage(text)
            self._schedule_storage = PooledScheduleStorage(text)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage.use(engine)

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
    _engine: Engine

    def use(self, engine: Engine) -> None:
        """Send all statements through `engine` from now on."""
        self._engine = engine

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        """Take more connections and limit every statement (milliseconds), as Dagster's own storages do."""
        engine = pooled_engine(make_url(self.postgres_url), size=1, overflow=max_overflow, recycle=pool_recycle)

        def limit_statements(connection: object, _record: object) -> None:
            set_pg_statement_timeout(connection, statement_timeout)

        event.listen(engine, "connect", limit_statements)
        self.use(engine)

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


def pooled_engine(url: URL, *, size: int, overflow: int, recycle: int = -1) -> Engine:
    """Return an engine that keeps connections and tests each before it is lent."""
    return create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_size=size,
        max_overflow=overflow,
        pool_recycle=recycle,
        pool_pre_ping=True,
    )


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
