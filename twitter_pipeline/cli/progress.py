"""What a run does, on stderr while it works: a live display on a terminal, a plain line now and then elsewhere."""

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import psycopg
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from twitter_pipeline.cli.words import counted, duration
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import Progress as RunProgress
from twitter_pipeline.store.runs import load_progress

POLL_S = 0.5
PLAIN_LINE_S = 5.0
UNCHANGED_LINE_S = 60.0
RATE_OVER_S = 10.0


class Progress:
    """Shows how far a run is while the context lasts. It looks into the database, from a thread of its own."""

    def __init__(self, console: Console, database_url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._database = Database(database_url, pool_size=1)
        self._clock = clock
        self._dagster_run_id: str | None = None
        self._latest: RunProgress | None = None
        self._samples: deque[tuple[float, int]] = deque()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="progress", daemon=True)
        self._spinner = Spinner("dots")
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def follow(self, dagster_run_id: str) -> None:
        """Begin to show this run."""
        self._dagster_run_id = dagster_run_id
        if not self._console.is_terminal:
            self._console.print(f"Run {dagster_run_id} has started")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._console.print("Starting Dagster")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._console.is_terminal:
            self._live.stop()
        self._database.close()

    def _poll(self) -> None:
        said, said_at = "", self._clock()
        while not self._ended.wait(POLL_S):
            self._look()
            if self._console.is_terminal or self._latest is None:
                continue
            line, passed_s = self._line(), self._clock() - said_at
            if passed_s >= (UNCHANGED_LINE_S if line == said else PLAIN_LINE_S):
                self._console.print(line)
                said, said_at = line, self._clock()

    def _look(self) -> None:
        if self._dagster_run_id is None:
            return
        try:
            self._latest = load_progress(self._database, self._dagster_run_id)
        except (psycopg.Error, SQLAlchemyError):
            # The run itself says what is wrong with the database, and goes on when it is back.
            return
        now = self._clock()
        self._samples.append((now, self._latest.tweets_fetched))
        while len(self._samples) > 2 and self._samples[0][0] < now - RATE_OVER_S:
            self._samples.popleft()

    def _line(self) -> str:
        if self._latest is None or not self._latest.accounts:
            return "Starting" if self._dagster_run_id is None else "Looking up the accounts"
        return describe(self._latest, tweets_per_s=rate(self._samples), now=datetime.now(UTC))

    def _render(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        parts = [self._spinner, Text(self._line())]
        if self._latest is not None and self._latest.accounts:
            bar = ProgressBar(total=self._latest.accounts, completed=self._latest.accounts_ended, width=24)
            grid.add_row(self._spinner, bar, parts[1])
        else:
            grid.add_row(*parts)
        return grid


def describe(progress: RunProgress, *, tweets_per_s: float | None, now: datetime) -> str:
    """Say in one line how far a run is, and what it waits for."""
    parts = [
        f"{progress.accounts_ended:,} of {counted(progress.accounts, 'account')}",
        f"{counted(progress.tweets_fetched, 'tweet')}, {progress.tweets_new:,} new",
        counted(progress.calls, "call"),
    ]
    if progress.waiting_for is not None and progress.waiting_until is not None:
        left_s = max(0.0, (progress.waiting_until - now).total_seconds())
        until = f"{progress.waiting_until.astimezone(UTC):%H:%M:%S} UTC, in {duration(left_s)}"
        parts.append(f"waiting for budget for {progress.waiting_for} until {until}")
    elif tweets_per_s is not None:
        parts.append(f"{tweets_per_s:,.0f} tweets/s")
    return " | ".join(parts)


def rate(samples: deque[tuple[float, int]]) -> float | None:
    """Return tweets a second over the samples, None while there are too few."""
    if len(samples) < 2:
        return None
    (first_at, first), (last_at, last) = samples[0], samples[-1]
    return (last - first) / (last_at - first_at) if last_at > first_at else None
