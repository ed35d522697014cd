"""How far a run is: as a tag of the run that changes while it works, and as lines of its log."""

import logging
import threading
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self

import dagster as dg
import psycopg
from sqlalchemy.exc import SQLAlchemyError

from twitter_pipeline.errors import PipelineError
from twitter_pipeline.following import RunFollower, utc_now
from twitter_pipeline.progress import describe_progress
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.texts import first_line

logger = logging.getLogger(__name__)

PROGRESS_TAG: Final = "twitter_pipeline/progress"

LOOK_EVERY_S = 5.0
"""Also before the first look, so that a short run has none."""

LONGEST_SILENCE_S = 60.0
SILENCE = 1 / 40
"""Between two lines, of the run's age: a line every 5 seconds at first, less than 600 lines in 8 hours."""


class ProgressTag:
    """Keeps the tag of a run up to date while the context lasts, from a thread of its own, and writes lines of log.

    The tag is written over with each look. A line is kept as an event, so the older the run the fewer are written, and
    none while nothing changes.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        run_id: str,
        requests: Sequence[FetchRequest],
        *,
        settings: Settings,
        database: Database,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._instance = instance
        self._run_id = run_id
        self._follower = RunFollower(database, run_id, requests, settings=settings)
        self._every_s = every_s
        self._began_at = utc_now()
        self._said = ""
        self._next_line_s = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._said:
            # The last word: what was expected is over.
            self._try_to_tell(at_the_end=True)

    def _keep(self) -> None:
        while not self._ended.wait(self._every_s):
            self._try_to_tell()

    def _try_to_tell(self, *, at_the_end: bool = False) -> None:
        try:
            self._tell(at_the_end=at_the_end)
        except (psycopg.Error, SQLAlchemyError, PipelineError) as error:
            # The run itself says what is wrong with the database, and goes on when it is back.
            logger.debug("The run's progress could not be told: %s", first_line(error))

    def _tell(self, *, at_the_end: bool) -> None:
        look = self._follower.look()
        if look is None:
            return
        said = describe_progress([look], []) if at_the_end else " | ".join(self._follower.parts())
        if said != self._said:
            self._instance.add_run_tags(self._run_id, {PROGRESS_TAG: said})
            self._said = said
            if not at_the_end:
                self._write(look.at)

    def _write(self, now: datetime) -> None:
        age_s = (now - self._began_at).total_seconds()
        if age_s >= self._next_line_s:
            logger.info("%s", self._said)
            self._next_line_s = age_s + silence_s(age_s)


def silence_s(age_s: float) -> float:
    """Return how long no other line is written when one was written at this age of a run."""
    return min(LONGEST_SILENCE_S, age_s * SILENCE)
