"""`python -m twitter_pipeline.workers RUN_ID SHARE`: fetch accounts for a run that another process leads.

The settings are the environment's; see `messages` for what is read and written. The run's process decides when to
stop: signals, which a terminal or a service manager sends to all processes at once, are left to it.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from queue import SimpleQueue
from typing import BinaryIO

from twitter_pipeline.accounts import Account
from twitter_pipeline.calls import XApi
from twitter_pipeline.errors import BudgetReached, ConfigurationError, Interrupted, NoTokenAvailable
from twitter_pipeline.history import FetchOptions, HistoryFetcher
from twitter_pipeline.settings import Settings, load_settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.texts import first_line
from twitter_pipeline.tokens import TokenPool, Waiting
from twitter_pipeline.workers.messages import (
    Broke,
    Ended,
    Logged,
    Message,
    NoMoney,
    NoToken,
    Waits,
    decode_account,
    encode_line,
)
from twitter_pipeline.x_api.client import XApiClient

MOST_CONNECTIONS = 4
"""To the database, at once: a page spends less than a third of its time there, the rest is this process's own CPU."""

LOOK_EVERY_S = 0.5

Tell = Callable[[Message], None]


def main() -> int:
    """Fetch what stdin asks for until it ends; return the exit code."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    mouth = _Mouth()
    core = logging.getLogger("twitter_pipeline")
    core.setLevel(logging.INFO)
    core.propagate = False
    core.addHandler(_ToldLog(mouth.tell))
    try:
        fetch_run_id, share = int(sys.argv[1]), float(sys.argv[2])
        work(load_settings(os.environ), fetch_run_id, share, sys.stdin.buffer, mouth.tell)
    except Exception as error:  # noqa: BLE001 the run's process reports it, whatever it is
        mouth.tell(Broke(_why(error)))
        return 1
    return 0


def work(settings: Settings, fetch_run_id: int, share: float, accounts: BinaryIO, tell: Tell) -> None:
    """Fetch each account as it is read, until there are no more to come; what is under way then stops."""
    if settings.database_url is None:
        raise ConfigurationError("DATABASE_URL is not set")
    stop = threading.Event()
    lines: SimpleQueue[bytes | None] = SimpleQueue()
    connections = min(settings.concurrency, MOST_CONNECTIONS)
    with (
        closing(Database(settings.database_url, pool_size=connections)) as database,
        XApiClient(settings.api_url, max_connections=settings.concurrency) as client,
    ):

        def read() -> None:
            for line in accounts:
                lines.put(line)
            stop.set()
            database.hurry()
            lines.put(None)

        # Of its own, so that the end is seen while a statement is waited for, also before the first account.
        threading.Thread(target=read, name="accounts", daemon=True).start()
        pool = TokenPool(
            database,
            settings.bearer_tokens,
            lease_s=client.longest_call_s,
            share=share,
            stop=stop,
            budgets=settings.budgets,
            prices=settings.prices,
        )
        api = XApi(client, pool, database, stop=stop)
        fetcher = HistoryFetcher(
            api,
            database,
            fetch_run_id=fetch_run_id,
            options=FetchOptions(settings.page_size, settings.settle, settings.confirm_after),
            concurrency=settings.concurrency,
            stop=stop,
        )
        with closing(fetcher), _telling_waits(api, tell), ThreadPoolExecutor(settings.concurrency) as threads:
            for line in iter(lines.get, None):
                threads.submit(_fetch, fetcher, decode_account(line), tell)


def _fetch(fetcher: HistoryFetcher, account: Account, tell: Tell) -> None:
    username = account.request.username
    try:
        (outcome,) = fetcher.fetch([account])
    except NoTokenAvailable as error:
        tell(NoToken(username, str(error)))
    except BudgetReached as error:
        tell(NoMoney(username, str(error), error.until))
    except Interrupted:
        # Whoever has asked for it expects no more of this account.
        return
    except Exception as error:  # noqa: BLE001 the run's process reports it, whatever it is
        tell(Broke(_why(error)))
    else:
        tell(Ended(username, outcome))


@contextmanager
def _telling_waits(api: XApi, tell: Tell) -> Generator[None]:
    """Tell what the work waits for, whenever that changes."""
    ended = threading.Event()

    def look() -> None:
        told: Waiting | None = None
        while not ended.wait(LOOK_EVERY_S):
            if (waiting := api.waiting) != told:
                tell(Waits(waiting))
                told = waiting

    thread = threading.Thread(target=look, name="waits")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Mouth:
    """Writes messages to stdout. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._out = open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115 it ends with us

    def tell(self, message: Message) -> None:
        """Write a message; when nobody listens any more nothing happens, since stdin has ended too."""
        with self._lock:
            try:
                self._out.write(encode_line(message))
            except BrokenPipeError:
                return


class _ToldLog(logging.Handler):
    """Hands the log to the run's process, where it goes with the log of that process."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        traceback = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        self._tell(Logged(record.name, record.levelno, str(record.msg), record.getMessage(), traceback))


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


if __name__ == "__main__":
    sys.exit(main())
