"""How far a run is, on stderr while it works."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import psycopg
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from twitter_pipeline.cli.display import Display
from twitter_pipeline.cli.words import duration
from twitter_pipeline.progress import Budget, Look, budgets, clock_time, progress_parts
from twitter_pipeline.store.database import Database, DatabaseFault
from twitter_pipeline.store.progress import load_busiest_endpoint, load_expected_calls
from twitter_pipeline.store.runs import Progress as RunProgress
from twitter_pipeline.store.runs import load_progress
from twitter_pipeline.store.windows import load_windows
from twitter_pipeline.x_api.endpoints import Endpoint

POLL_S = 0.5

LOOKS_KEPT = 240

BUDGET_EVERY = 10
"""Looks from one reading of the limits to the next."""


def _now() -> datetime:
    return datetime.now(UTC)


class Progress:
    """Shows how far a run is while the context lasts. It looks into the database, from a thread of its own.

    `env_keys` are the tokens whose limits tell when the run is expected to end.
    """

    def __init__(
        self,
        console: Console,
        database_url: str,
        env_keys: list[str],
        *,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._display = Display(console)
        self._database = Database(database_url, pool_size=1)
        self._env_keys = env_keys
        self._clock = clock
        self._dagster_run_id: str | None = None
        self._began_at = clock()
        self._expected_calls: int | None = None
        self._looks: list[Look] = []
        self._budget: Sequence[Budget] = ()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="progress", daemon=True)

    def follow(self, dagster_run_id: str) -> None:
        """Begin to show this run."""
        self._display.announce(f"Run {dagster_run_id} has started")
        self._began_at = self._clock()
        self._dagster_run_id = dagster_run_id

    def __enter__(self) -> Self:
        self._display.__enter__()
        self._display.announce("Starting Dagster")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._display.__exit__(kind, error, traceback)
        self._database.close()

    def _poll(self) -> None:
        while not self._ended.wait(POLL_S):
            if self._dagster_run_id is None:
                continue
            try:
                self._look(self._dagster_run_id)
            except (psycopg.Error, SQLAlchemyError, DatabaseFault):
                # The run itself says what is wrong with the database, and goes on when it is back.
                continue
            if self._looks:
                last = self._looks[-1]
                # In a log a line that counts down would be a new one every time.
                at = with_countdown if self._display.is_live else clock_time
                done = self._looks[0].left - last.left
                total = self._looks[0].left
                self._display.show(progress_parts(self._looks, self._budget, at=at), done=done, total=total)
            else:
                self._display.show(["Looking up the accounts"])

    def _look(self, dagster_run_id: str) -> None:
        progress = load_progress(self._database, dagster_run_id)
        if not progress.accounts:
            return
        if self._expected_calls is None:
            self._expected_calls = load_expected_calls(self._database, dagster_run_id)
            # What is left is counted in accounts until it is known in calls.
            self._looks = (
                [self._first(progress)] if self._expected_calls is not None or not self._looks else self._looks
            )
        if len(self._looks) % BUDGET_EVERY == 0:
            endpoint = progress.waiting_for or load_busiest_endpoint(self._database, dagster_run_id)
            windows = load_windows(self._database, Endpoint(endpoint), self._env_keys) if endpoint else []
            self._budget = budgets(windows)
        self._looks = [
            *self._looks[:1],
            *self._looks[1:][-LOOKS_KEPT:],
            Look(self._clock(), progress, self._left(progress)),
        ]

    def _first(self, progress: RunProgress) -> Look:
        """Return the look from which all work is counted, before the first call."""
        nothing = RunProgress(progress.accounts, 0, 0, 0, 0, None, None)
        return Look(self._began_at, nothing, self._left(nothing))

    def _left(self, progress: RunProgress) -> int:
        """Return what is left: calls where they were estimated, else accounts."""
        unended = progress.accounts - progress.accounts_ended
        # What was estimated may be too little; an account that has not ended takes a call at least.
        return max(unended, (self._expected_calls or 0) - progress.calls) if unended else 0


def with_countdown(instant: datetime, now: datetime) -> str:
    """Word an instant to come for somebody who watches: its time, and in how long that is."""
    return f"{clock_time(instant, now)} (in {duration(max(0.0, (instant - now).total_seconds()))})"
