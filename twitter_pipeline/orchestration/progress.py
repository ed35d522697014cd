"""How far a run is: as a tag of the run that changes while it works, and as lines of its log."""

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import dagster as dg
import psycopg
from sqlalchemy.exc import SQLAlchemyError

from twitter_pipeline.coverage import id_at
from twitter_pipeline.errors import PipelineError
from twitter_pipeline.progress import Budget, Look, budgets, describe_progress
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.progress import load_busiest_endpoint, load_ids_left
from twitter_pipeline.store.runs import Progress, load_progress
from twitter_pipeline.store.windows import load_windows
from twitter_pipeline.texts import first_line
from twitter_pipeline.x_api.endpoints import Endpoint

logger = logging.getLogger(__name__)

PROGRESS_TAG: Final = "twitter_pipeline/progress"

LOOK_EVERY_S = 5.0
"""Also before the first look, so that a short run has none."""

LONGEST_SILENCE_S = 60.0
SILENCE = 1 / 40
"""Between two lines, of the run's age: a line every 5 seconds at first, less than 600 lines in 8 hours."""

LOOKS_KEPT = 360


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
        self._requests = requests
        self._settings = settings
        self._database = Database(database.url, pool_size=1)
        self._every_s = every_s
        self._began_at = datetime.now(UTC)
        self._looks: list[Look] = []
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
        self._database.close()

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
        progress = load_progress(self._database, self._run_id)
        if not progress.accounts:
            return
        look = self._look(progress)
        if not self._looks:
            self._looks.append(self._first(look))
        # The first stays: the work since then tells what the rest takes.
        self._looks = [self._looks[0], *self._looks[1:][-LOOKS_KEPT:], look]
        said = describe_progress([look] if at_the_end else self._looks, self._budget(progress))
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

    @property
    def _is_backfill(self) -> bool:
        return all(each.fetch_mode.months is not None for each in self._requests)

    def _look(self, progress: Progress) -> Look:
        """Measure what is left: of a backfill in ids, since its accounts may all end at once, else in accounts."""
        now = datetime.now(UTC)
        if not self._is_backfill:
            return Look(now, progress, progress.accounts - progress.accounts_ended)
        settled = id_at(self._began_at - self._settings.settle)
        return Look(now, progress, load_ids_left(self._database, self._run_id, self._requests, up_to=settled))

    def _first(self, look: Look) -> Look:
        """Return what the work is counted from: of accounts the beginning is known, of ids what the first look saw."""
        if self._is_backfill:
            return look
        nothing = Progress(look.progress.accounts, 0, 0, 0, 0, None, None)
        return Look(self._began_at, nothing, look.progress.accounts)

    def _budget(self, progress: Progress) -> list[Budget]:
        endpoint = progress.waiting_for or load_busiest_endpoint(self._database, self._run_id)
        if endpoint is None:
            return []
        windows = load_windows(self._database, Endpoint(endpoint), sorted(self._settings.bearer_tokens))
        return budgets(windows, share=self._settings.backfill_share if self._is_backfill else 1.0)


def silence_s(age_s: float) -> float:
    """Return how long no other line is written when one was written at this age of a run."""
    return min(LONGEST_SILENCE_S, age_s * SILENCE)
