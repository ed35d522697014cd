"""One run from opening to closing: its row, its sign of life, and its bill."""

import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self, cast

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from twitter_pipeline.prices import Prices
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.store.database import Database, end_when_silent
from twitter_pipeline.store.runs import (
    BEAT,
    HOLD_STEP,
    IS_HELD,
    LOCK_AGAIN,
    OPEN,
    STEP_LOCK,
    VANISHED,
    close_run,
    free_windows_of_the_dead,
    open_params,
)
from twitter_pipeline.texts import first_line
from twitter_pipeline.tokens import Waiting
from twitter_pipeline.words import FetchKind, HoleCause, RunStatus

logger = logging.getLogger(__name__)

BEAT_EVERY_S = 2.0

STEP_PAUSE_S = 0.5
"""Between two tries to have a step for oneself."""


class OpenRun:
    """A run that this process works on. Use it as a context: it keeps a connection and a thread of its own.

    The connection holds the run's lock, which the server frees when the process dies, so a killed run is known at
    once, and when it has been silent for SILENCE_S, as a frozen one is. The thread beats every two seconds: it tells
    what the run waits for, and takes the lock again after an outage.
    Leaving the context does not close the run: other processes may still work on it, which `is_shared` says of a run.
    """

    def __init__(
        self,
        database: Database,
        *,
        dagster_run_id: str | None,
        kind: FetchKind,
        requests: Sequence[FetchRequest],
        waiting: Callable[[], Waiting | None] = lambda: None,
        is_shared: bool = False,
    ) -> None:
        self._database = database
        self._is_shared = is_shared
        self._params = open_params(dagster_run_id, kind, requests)
        self._waiting = waiting
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_ended, name="heartbeat", daemon=True)
        self._connection: Connection | None = None
        self.id = 0

    def __enter__(self) -> Self:
        free_windows_of_the_dead(self._database)
        self.id = self._take_lock()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._drop_connection()

    def close(
        self,
        *,
        status: RunStatus | None = None,
        error: str | None = None,
        cause: HoleCause = HoleCause.INTERRUPTED,
        prices: Prices,
    ) -> None:
        """Close the run with what it achieved; see close_run."""
        close_run(self._database, self.id, status=status, error=error, cause=cause, prices=prices)

    def _take_lock(self) -> int:
        self._connection = self._database.engine.connect()
        end_when_silent(self._driver())
        # A run without a Dagster run id cannot be found by it: opened again, it would be another run.
        statement, params = (LOCK_AGAIN, {**self._params, "run_id": self.id}) if self.id else (OPEN, self._params)
        row = self._driver().execute(statement, params, binary=True).fetchone()
        return cast("tuple[int]", row)[0]

    def _driver(self) -> psycopg.Connection:
        if self._connection is None:
            raise psycopg.OperationalError("the connection of the run was lost")
        return cast("psycopg.Connection", self._connection.connection.driver_connection)

    def _beat_until_ended(self) -> None:
        while not self._ended.wait(BEAT_EVERY_S):
            try:
                self._beat()
            except (psycopg.Error, SQLAlchemyError) as error:
                # Debugging only: what a run logs goes into Dagster's storage, which is often on the same server.
                logger.debug("The run's sign of life could not be written: %s", first_line(error))
                self._drop_connection()

    def _beat(self) -> None:
        if self._connection is None:
            self._take_lock()
        waiting = self._waiting()
        self._driver().execute(
            BEAT,
            {
                "run_id": self.id,
                "waiting_for": waiting.what if waiting else None,
                "waiting_until": waiting.until if waiting else None,
                "vanished": VANISHED,
                "is_shared": self._is_shared,
            },
        )

    def _drop_connection(self) -> None:
        """Give up the lock: it belongs to the session, so the connection must not go back into the pool with it."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None


@contextmanager
def step_alone(database: Database, dagster_run_id: str, step_key: str) -> Generator[None]:
    """Wait until no other process works on a step, and keep others from it while the context lasts.

    A broker may hand a step to a second worker while the first still works on it; if that dies or freezes, the second
    gets on.
    """
    step = _lock_of(dagster_run_id, step_key)
    with database.lock_session() as session:
        while session.execute(HOLD_STEP, step).fetchone() != (True,):
            time.sleep(STEP_PAUSE_S)
        yield


def is_worked_on(database: Database, dagster_run_id: str, step_key: str) -> bool:
    """Whether a process works on a step, or is about to."""
    return bool(database.execute(IS_HELD, _lock_of(dagster_run_id, step_key))[0][0])


def _lock_of(dagster_run_id: str, step_key: str) -> dict[str, object]:
    return {"lock": STEP_LOCK, "step": f"{dagster_run_id} {step_key}"}
