"""Fetch accounts in worker processes: each has its own interpreter, so that a large request uses all cores."""

import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import IO, Protocol

from twitter_pipeline.accounts import Account
from twitter_pipeline.errors import BudgetReached, Interrupted, NoTokenAvailable, PipelineError
from twitter_pipeline.settings import PROJECT_DIR, Settings, render_settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import end_account, save_accounts
from twitter_pipeline.store.timelines import TimelineStore
from twitter_pipeline.store.users import set_tracked
from twitter_pipeline.tokens import Waiting
from twitter_pipeline.words import AccountOutcome, HoleCause
from twitter_pipeline.workers.messages import (
    Broke,
    Ended,
    Logged,
    NoMoney,
    NoToken,
    Waits,
    decode_message,
    encode_line,
)

PAGES_WORTH_WORKERS = 1_000
"""From so many missing pages on, workers win more time than the second that starting them takes.

A page takes some 3 ms of the CPU of one process, measured in November 2026, so a thousand take it 3 s.
"""

MOST_WORKERS = 8
"""More would not be fed: PostgreSQL and the network have their limits too, and each takes some 80 MB."""

LONGEST_END_S = 120.0
"""A worker that has not ended so long after it was told to hangs: the longest call and the longest outage are over."""

_STOP_CHECK_S = 0.25

_AGAIN = "run again to fetch the rest"
_NOBODYS = f"all worker processes were killed; {_AGAIN}"


class Fetcher(Protocol):
    """Fetches accounts side by side; see HistoryFetcher, which does it in threads of this process."""

    def start(self, accounts: Sequence[Account]) -> None:
        """Begin to fetch accounts."""
        ...

    def fetch(self, accounts: Sequence[Account]) -> list[AccountOutcome]:
        """Fetch accounts and return what became of each, in order."""
        ...

    def close(self) -> None:
        """End all work and wait for it."""
        ...


def usable_cores() -> int:
    """Return how many cores this process may use."""
    # macOS knows no affinity.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def divide_threads(concurrency: int, *, accounts: int, pages: int) -> list[int]:
    """Decide how many threads each worker gets, `concurrency` in all; with fewer than two workers none is wanted."""
    workers = min(usable_cores(), accounts, concurrency, MOST_WORKERS)
    if workers < 2 or pages < PAGES_WORTH_WORKERS:
        return []
    return [concurrency // workers + (number < concurrency % workers) for number in range(workers)]


@dataclass(slots=True)
class _Worker:
    """A worker process; `accounts` are those that it was given and has not ended."""

    process: subprocess.Popen[bytes]
    stdin: IO[bytes]
    stdout: IO[bytes]
    threads: int
    accounts: dict[str, Account] = field(default_factory=dict[str, Account])
    waiting: Waiting | None = None
    lives: bool = True

    @property
    def free_threads(self) -> int:
        return self.threads - len(self.accounts) if self.lives else 0

    def give(self, account: Account) -> None:
        self.accounts[account.request.username] = account
        try:
            self.stdin.write(encode_line(account))
            self.stdin.flush()
        except BrokenPipeError:
            # It has just died: whoever listens to it finds the account among those that it had.
            self.lives = False

    def dismiss(self) -> None:
        with suppress(BrokenPipeError):
            self.stdin.close()


class WorkerFetcher:
    """Fetches accounts side by side, each in the next worker process that has a thread free.

    `threads` says how many threads each worker gets, `share` which part of the tokens' windows they may take. Setting
    `stop` ends all work at the next page, as does the end of this process, however it comes: workers stop when their
    stdin ends. What was fetched is stored.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        fetch_run_id: int,
        share: float,
        threads: Sequence[int],
        stop: threading.Event,
    ) -> None:
        self._settings = replace(settings, database_url=database.url)
        self._database = database
        self._fetch_run_id = fetch_run_id
        self._share = share
        self._threads = threads
        self._stop = stop
        # Its lock is held while accounts change hands; nobody waits for a worker or for the database meanwhile.
        self._changed = threading.Condition()
        self._begun: set[str] = set()
        self._queue: deque[Account] = deque()
        self._outcomes: dict[str, AccountOutcome] = {}
        self._workers: list[_Worker] = []
        self._listeners: list[threading.Thread] = []
        self._dismissed = False
        self._out_of_means: NoTokenAvailable | BudgetReached | None = None
        self._fault: Exception | None = None
        self._log = _Log()

    @property
    def waiting(self) -> Waiting | None:
        """What the workers wait for, the soonest first; None while none waits."""
        waits = [worker.waiting for worker in tuple(self._workers) if worker.lives and worker.waiting is not None]
        return min(waits, key=lambda each: each.until, default=None)

    def start(self, accounts: Sequence[Account]) -> None:
        """Begin to fetch accounts, in this order; those that were begun before are left alone.

        Raises PipelineError when a worker cannot be started.
        """
        with self._changed:
            new = [account for account in accounts if account.request.username not in self._begun]
            self._begun.update(account.request.username for account in new)
            self._queue.extend(new)
            if not self._workers and not self._stop.is_set():
                for threads in self._threads:
                    self._start_worker(threads)
            self._hand_out()
            nobodys = self._take_what_is_nobodys()
        self._record_lost(nobodys, _NOBODYS)

    def fetch(self, accounts: Sequence[Account]) -> list[AccountOutcome]:
        """Fetch accounts and return what became of each, in order.

        An account that fails is recorded and leaves the others alone; so are those of a worker that is killed. Raises
        Interrupted when the run is to stop, NoTokenAvailable when no token can go on, BudgetReached when a budget is
        used up, PipelineError when a worker cannot go on for another reason.
        """
        self.start(accounts)
        names = [account.request.username for account in accounts]
        try:
            with self._changed:
                while self._fault is None and not self._stop.is_set() and not self._outcomes.keys() >= set(names):
                    self._changed.wait(_STOP_CHECK_S)
        except BaseException:
            # A signal: they can end while it is dealt with here.
            self._dismiss()
            raise
        if self._fault is not None:
            raise self._fault
        if self._stop.is_set():
            self._dismiss()
            raise Interrupted("The run was asked to stop; what was fetched is stored, running again does the rest.")
        if self._out_of_means is not None:
            raise self._out_of_means
        return [self._outcomes[name] for name in names]

    def close(self) -> None:
        """End all work and wait for it: no process is left that could still send a call."""
        self._stop.set()
        self._dismiss()
        for worker, listener in zip(self._workers, self._listeners, strict=True):
            listener.join(LONGEST_END_S)
            if listener.is_alive():
                worker.process.kill()
                listener.join()

    def _start_worker(self, threads: int) -> None:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "twitter_pipeline.workers", str(self._fetch_run_id), str(self._share)],
                # Where this very package lies: no other is found, whichever is installed.
                cwd=PROJECT_DIR,
                env=render_settings(replace(self._settings, concurrency=threads), os.environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Ctrl-C reaches only us.
                start_new_session=True,
            )
        except OSError as error:
            raise PipelineError(f"A worker process cannot be started: {error.strerror}") from error
        if process.stdin is None or process.stdout is None:
            raise PipelineError("A worker process was started without pipes")
        worker = _Worker(process, process.stdin, process.stdout, threads)
        listener = threading.Thread(target=self._listen, args=(worker,), name="worker", daemon=True)
        self._workers.append(worker)
        self._listeners.append(listener)
        listener.start()

    def _hand_out(self) -> None:
        while self._queue and not self._dismissed:
            worker = max(self._workers, key=lambda each: each.free_threads, default=None)
            if worker is None or not worker.free_threads:
                return
            worker.give(self._queue.popleft())

    def _take_what_is_nobodys(self) -> list[Account]:
        """Take accounts off the queue that no worker is left for."""
        if not self._workers or any(worker.lives for worker in self._workers):
            return []
        nobodys = list(self._queue)
        self._queue.clear()
        return nobodys

    def _dismiss(self) -> None:
        with self._changed:
            self._dismissed = True
            for worker in self._workers:
                worker.dismiss()

    def _listen(self, worker: _Worker) -> None:
        with self._noting_faults(), worker.stdout:
            for line in worker.stdout:
                # The last line of a worker that is killed may be cut.
                if line.endswith(b"\n"):
                    self._hear(worker, line)
        with self._changed:
            worker.lives = False
            worker.dismiss()
        status = worker.process.wait()
        with self._noting_faults():
            self._bury(worker, status=status)

    @contextmanager
    def _noting_faults(self) -> Generator[None]:
        """Keep what goes wrong in a thread for whoever waits for accounts."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 it is raised where somebody can deal with it
            self._note_fault(error)

    def _note_fault(self, error: Exception) -> None:
        with self._changed:
            self._fault = self._fault or error
            self._changed.notify_all()

    def _hear(self, worker: _Worker, line: bytes) -> None:
        match decode_message(line):
            case Ended(username, outcome):
                self._end(worker, username, outcome)
            case NoToken(username, why):
                self._out_of_means = NoTokenAvailable(why)
                self._end(worker, username, AccountOutcome.FAILED)
            case NoMoney(username, why, until):
                self._out_of_means = BudgetReached(why, until=until)
                self._end(worker, username, AccountOutcome.INTERRUPTED)
            case Waits(waiting):
                worker.waiting = waiting
            case Logged() as logged:
                self._log.take(worker.process.pid, logged)
            case Broke(why):
                self._note_fault(PipelineError(f"A worker process could not go on: {why}"))

    def _end(self, worker: _Worker, username: str, outcome: AccountOutcome) -> None:
        with self._changed:
            del worker.accounts[username]
            self._outcomes[username] = outcome
            self._hand_out()
            self._changed.notify_all()

    def _bury(self, worker: _Worker, *, status: int) -> None:
        """Record what a worker has lost that was killed; one that has ended in another way has a fault."""
        with self._changed:
            if self._dismissed:
                return
            lost = list(worker.accounts.values())
            nobodys = self._take_what_is_nobodys()
        if status >= 0:
            raise PipelineError(f"A worker process ended by itself, with status {status}; stderr may say why")
        self._record_lost(lost, f"the worker process that fetched it was killed (signal {-status}); {_AGAIN}")
        self._record_lost(nobodys, _NOBODYS)

    def _record_lost(self, accounts: Sequence[Account], reason: str) -> None:
        """Record accounts as failed that no worker can record."""
        save_accounts(self._database, self._fetch_run_id, [account.request for account in accounts])
        for account in accounts:
            name, user_id = account.request.username, account.user_id
            store = TimelineStore(self._database, user_id=user_id, fetch_run_id=self._fetch_run_id, asked_as=name)
            if account.request.track_after:
                set_tracked(self._database, [user_id], tracked=True)
            end_account(
                self._database,
                self._fetch_run_id,
                name,
                AccountOutcome.FAILED,
                reason=reason,
                cause=HoleCause.INTERRUPTED,
                user_id=user_id,
                stored=store.count(),
            )
        with self._changed:
            self._outcomes.update((account.request.username, AccountOutcome.FAILED) for account in accounts)
            self._changed.notify_all()


class _Log:
    """Passes on what workers log, as if it were logged here; what several say alike is passed on once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[tuple[str, str], tuple[int, str]] = {}

    def take(self, pid: int, logged: Logged) -> None:
        logger = logging.getLogger(logged.logger)
        if logger.isEnabledFor(logged.level) and self._is_news(pid, logged):
            values = {
                "name": logged.logger,
                "levelno": logged.level,
                "levelname": logging.getLevelName(logged.level),
                "msg": logged.text,
                "exc_text": logged.traceback,
            }
            logger.handle(logging.makeLogRecord(values))

    def _is_news(self, pid: int, logged: Logged) -> bool:
        """Whether no other worker was the last to say this."""
        kind = (logged.logger, logged.template)
        with self._lock:
            last_pid, last_text = self._last.get(kind, (pid, ""))
            if last_pid != pid and last_text == logged.text:
                return False
            self._last[kind] = (pid, logged.text)
            return True
