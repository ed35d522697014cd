"""A step that a worker works on: it joins a run that another process leads, ends with it, and can be handed over."""

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Final, Self

import dagster as dg
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from twitter_pipeline.errors import Interrupted, NoTokenAvailable
from twitter_pipeline.session import FetchSession
from twitter_pipeline.texts import first_line

logger = logging.getLogger(__name__)

WORKER_ENDS: Final[ContextVar[threading.Event | None]] = ContextVar("worker_ends", default=None)
"""Set while a worker works on a step: tells when the worker is to end. None in a process that leads its run."""

LOOK_EVERY_S = 2.0

MOST_HAND_OVERS = 1000
"""Workers may be exchanged as often as one likes; a number is wanted."""

MOST_TRIES = 20
TRY_AGAIN_AFTER_S = 5
"""An endpoint may be closed to a token that is fit for others, and the same worker may take the step again."""


class StepWatch:
    """Stops a session when its run is to end, or its worker is; from a thread of its own while the context lasts.

    No signal reaches a worker when a run is cancelled: Dagster's own record of the run tells.
    """

    def __init__(
        self, session: FetchSession, instance: dg.DagsterInstance, run_id: str, worker_ends: threading.Event
    ) -> None:
        self._session = session
        self._instance = instance
        self._run_id = run_id
        self._worker_ends = worker_ends
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=target, name="step watch", daemon=True)
            for target in (self._watch_run, self._watch_worker)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _watch_run(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                goes_on = run_goes_on(self._instance, self._run_id)
            except (SQLAlchemyError, DagsterPostgresException) as error:
                logger.debug("The run could not be looked at: %s", first_line(error))
                continue
            if not goes_on:
                self._session.stop()
                return

    def _watch_worker(self) -> None:
        while not self._ended.is_set():
            if self._worker_ends.wait(0.2):
                self._session.stop(handing_over=True)
                return


def run_goes_on(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether Dagster wants a run's steps to be worked on."""
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status is dg.DagsterRunStatus.STARTED


@contextmanager
def handed_over(session: FetchSession) -> Generator[None]:
    """Have Dagster give a step to another worker when this one ends before it, or has no token left and others have."""
    try:
        yield
    except Interrupted as error:
        if not session.is_handed_over:
            raise
        raise dg.RetryRequested(max_retries=MOST_HAND_OVERS) from error
    except NoTokenAvailable as error:
        if not session.others_have_tokens():
            raise
        raise dg.RetryRequested(max_retries=MOST_TRIES, seconds_to_wait=TRY_AGAIN_AFTER_S) from error
