"""How far a run is, on stderr while it works."""

import threading
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

import psycopg
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from twitter_pipeline.cli.display import Display
from twitter_pipeline.cli.words import duration
from twitter_pipeline.following import RunFollower
from twitter_pipeline.progress import clock_time
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database, DatabaseFault

POLL_S = 0.5


class Progress:
    """Shows how far a run is while the context lasts. It looks into the database, from a thread of its own."""

    def __init__(
        self, console: Console, database: Database, requests: Sequence[FetchRequest], *, settings: Settings
    ) -> None:
        self._display = Display(console)
        self._database = database
        self._requests = requests
        self._settings = settings
        self._follower: RunFollower | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="progress", daemon=True)

    def follow(self, dagster_run_id: str) -> None:
        """Begin to show this run."""
        self._display.announce(f"Run {dagster_run_id} has started")
        self._follower = RunFollower(self._database, dagster_run_id, self._requests, settings=self._settings)

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

    def _poll(self) -> None:
        while not self._ended.wait(POLL_S):
            if self._follower is None:
                continue
            try:
                self._look(self._follower)
            except (psycopg.Error, SQLAlchemyError, DatabaseFault):
                # The run itself says what is wrong with the database, and goes on when it is back.
                continue

    def _look(self, follower: RunFollower) -> None:
        look = follower.look()
        if look is None:
            self._display.show(["Looking up the accounts"])
            return
        total = follower.looks[0].left
        # In a log a line that counts down would be a new one every time.
        at = with_countdown if self._display.is_live else clock_time
        self._display.show(follower.parts(at=at), done=total - look.left, total=total)


def with_countdown(instant: datetime, now: datetime) -> str:
    """Word an instant to come for somebody who watches: its time, and in how long that is."""
    return f"{clock_time(instant, now)} (in {duration(max(0.0, (instant - now).total_seconds()))})"
