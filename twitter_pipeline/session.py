"""One run: resolve the names, fetch the accounts, close the run, whatever happens.

One process leads it. A large run is fetched by worker processes, a small one by threads of the leading process.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self

from twitter_pipeline.accounts import Absence, Account, Resolution, Resolver
from twitter_pipeline.calls import XApi
from twitter_pipeline.detection import detect
from twitter_pipeline.errors import Interrupted, NoTokenAvailable, PipelineError
from twitter_pipeline.history import FetchOptions, HistoryFetcher
from twitter_pipeline.planning import deal_batches, expected_pages
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.runs import OpenRun
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import (
    AccountReport,
    RunReport,
    begin_account,
    end_account,
    load_accounts,
    load_run,
    save_accounts,
)
from twitter_pipeline.store.timelines import count_stored
from twitter_pipeline.store.tokens import SANDBOX_PREFIX
from twitter_pipeline.tokens import TokenPool, Waiting
from twitter_pipeline.words import AccountOutcome, FetchKind, RunStatus
from twitter_pipeline.workers.fetcher import Fetcher, WorkerFetcher, divide_threads
from twitter_pipeline.x_api.client import XApiClient

STOPPED = "stopped on request"


@dataclass(frozen=True, slots=True)
class Dealt:
    """The work of a run: accounts in batches, and names of which nothing is known because the look-up failed."""

    batches: list[list[Account]]
    not_looked_up: list[FetchRequest]


class FetchSession:
    """Everything that the steps of a run share in one process. Use it as a context.

    Leaving the context ends all work and closes the run: as cancelled when it was interrupted, as failed when a step
    broke, else as its accounts came out.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        requests: Sequence[FetchRequest],
        dagster_run_id: str | None = None,
        kind: FetchKind = FetchKind.HISTORY,
    ) -> None:
        self._settings = settings
        self._database = database
        self._requests = requests
        self._stop = threading.Event()
        self._broken: tuple[RunStatus, str] | None = None
        self._resources = ExitStack()
        self._client = XApiClient(settings.api_url, max_connections=settings.concurrency)
        pool = TokenPool(database, settings.bearer_tokens, lease_s=self._client.longest_call_s, stop=self._stop)
        self._api = XApi(self._client, pool, stop=self._stop)
        self._waiting: Callable[[], Waiting | None] = lambda: pool.waiting
        self._run = OpenRun(
            database, dagster_run_id=dagster_run_id, kind=kind, requests=requests, waiting=lambda: self._waiting()
        )
        self._fetcher: Fetcher | None = None

    def __enter__(self) -> Self:
        self._resources.enter_context(self._client)
        self._resources.enter_context(self._run)
        self._resources.callback(self._close_run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resources.close()

    @property
    def requests(self) -> Sequence[FetchRequest]:
        """What the run was asked for."""
        return self._requests

    @property
    def is_made_up(self) -> bool:
        """Whether the tweets come from the sandbox."""
        return any(env_key.startswith(SANDBOX_PREFIX) for env_key in self._settings.bearer_tokens)

    @property
    def was_interrupted(self) -> bool:
        """Whether a signal, or Dagster, asked the run to stop while it worked."""
        return self._broken is not None and self._broken[0] is RunStatus.CANCELLED

    def resolve(self) -> Dealt:
        """Resolve the request's names and deal the accounts to batches; those that cannot be had are recorded.

        Raises NoTokenAvailable when no token can look them up.
        """
        with self._noting_what_breaks():
            resolution = self._resolve(self._requests)
            accounts = self._with_news(resolution.accounts)
            pages = self._expected_pages(accounts)
            dealt = deal_batches(pages, per_batch=self._settings.batch_accounts)
            batches = [[accounts[position] for position in batch] for batch in dealt]
            fetcher = self._fetcher_for(accounts, pages)
            for batch in batches:
                # All batches are worked on from now on, side by side: a later step finds its accounts under way.
                fetcher.start(batch)
        not_looked_up = [absence.request for absence in resolution.absences if absence.availability is None]
        return Dealt(batches, not_looked_up)

    def fetch(
        self, accounts: Sequence[Account], *, not_looked_up: Sequence[FetchRequest] = ()
    ) -> Sequence[AccountReport]:
        """Fetch what is missing of these accounts, side by side, and return what became of each, by name.

        Names that could not be looked up are looked up again, unless it was this run that tried.
        Raises Interrupted when the run is to stop, NoTokenAvailable when no token can go on.
        """
        with self._noting_what_breaks():
            tried = {report.username for report in self._reports_of(not_looked_up)}
            again = [request for request in not_looked_up if request.username not in tried]
            found = self._resolve(again).accounts if again else []
            wanted = [*accounts, *found]
            self._fetcher_for(wanted, self._expected_pages(wanted)).fetch(wanted)
        return self._reports_of([*(account.request for account in accounts), *not_looked_up])

    def fetch_all(self) -> None:
        """Resolve the request's names and fetch all accounts, where nobody deals with the batches one by one."""
        for batch in self.resolve().batches:
            self.fetch(batch)

    def account_reports(self) -> tuple[AccountReport, ...]:
        """Return what became of the run's accounts up to now, by name."""
        return load_accounts(self._database, self._run.id)

    def _reports_of(self, requests: Sequence[FetchRequest]) -> Sequence[AccountReport]:
        return load_accounts(self._database, self._run.id, usernames=[request.username for request in requests])

    def finish(self) -> RunReport:
        """Close the run as its accounts came out, and return what it achieved."""
        self._close_run()
        report = load_run(self._database, run_id=self._run.id)
        if report is None:
            raise PipelineError(f"run {self._run.id} has no row in fetch_runs any more")
        return report

    def _expected_pages(self, accounts: Sequence[Account]) -> list[int]:
        size = self._settings.page_size
        return [expected_pages(each.request.fetch_mode, each.tweet_count, page_size=size) for each in accounts]

    def _fetcher_for(self, accounts: Sequence[Account], pages: Sequence[int]) -> Fetcher:
        """Return what fetches this run's accounts, chosen by the size of the work that comes first."""
        if self._fetcher is None:
            self._fetcher = self._choose_fetcher(accounts, pages)
            self._resources.callback(self._fetcher.close)
        return self._fetcher

    def _choose_fetcher(self, accounts: Sequence[Account], pages: Sequence[int]) -> Fetcher:
        divide = partial(divide_threads, self._settings.concurrency, accounts=len(accounts))
        # What is stored is counted only where it can matter.
        threads = divide(pages=sum(pages)) and divide(pages=self._missing_pages(accounts, pages))
        if threads:
            workers = WorkerFetcher(
                self._settings, self._database, fetch_run_id=self._run.id, threads=threads, stop=self._stop
            )
            self._waiting = lambda: workers.waiting
            return workers
        return HistoryFetcher(
            self._api,
            self._database,
            fetch_run_id=self._run.id,
            options=FetchOptions(page_size=self._settings.page_size, settle=self._settings.settle),
            concurrency=self._settings.concurrency,
            stop=self._stop,
        )

    def _missing_pages(self, accounts: Sequence[Account], pages: Sequence[int]) -> int:
        """Estimate how many of these pages are not stored; an account that has all takes one call to find out."""
        # A poll takes one page, whatever is stored.
        longer = [account.user_id for account, expected in zip(accounts, pages, strict=True) if expected > 1]
        stored = count_stored(self._database, longer)
        return sum(
            max(1, expected - stored.get(account.user_id, 0) // self._settings.page_size)
            for account, expected in zip(accounts, pages, strict=True)
        )

    def _with_news(self, accounts: Sequence[Account]) -> Sequence[Account]:
        """Leave out the accounts of a watch that have nothing new, where that is asked before; they are done."""
        if any(not account.request.fetch_mode.only_new for account in accounts):
            return accounts
        detected = detect(self._api, self._database, accounts, settings=self._settings, fetch_run_id=self._run.id)
        for account in detected.quiet:
            begin_account(self._database, self._run.id, account.request, user_id=account.user_id)
            end_account(self._database, self._run.id, account.request.username, AccountOutcome.DONE)
        return detected.news

    def _resolve(self, requests: Sequence[FetchRequest]) -> Resolution:
        """Resolve names, and record those that cannot be had."""
        save_accounts(self._database, self._run.id, requests)
        resolver = Resolver(
            self._api,
            self._database,
            fetch_run_id=self._run.id,
            profile_max_age=self._settings.profile_max_age,
            now=datetime.now(UTC),
        )
        resolution = resolver.resolve(requests)
        for absence in resolution.absences:
            self._record(absence)
        return resolution

    def _record(self, absence: Absence) -> None:
        outcome = AccountOutcome.FAILED if absence.availability is None else AccountOutcome.UNAVAILABLE
        end_account(
            self._database,
            self._run.id,
            absence.request.username,
            outcome,
            reason=absence.reason,
            user_id=absence.user_id,
        )

    def _close_run(self) -> None:
        status, error = self._broken or (None, None)
        self._run.close(status=status, error=error, prices=self._settings.prices)

    @contextmanager
    def _noting_what_breaks(self) -> Generator[None]:
        """Remember how a step broke off, so that the run is closed as that; end all other work.

        Only the first counts: the steps that Dagster runs after it find the work stopped.
        """
        try:
            yield
        except BaseException as error:
            self._broken = self._broken or _how_it_broke(error)
            if not isinstance(error, NoTokenAvailable):
                self._stop.set()
            raise


def _how_it_broke(error: BaseException) -> tuple[RunStatus, str]:
    match error:
        case NoTokenAvailable():
            return RunStatus.FAILED, str(error)
        case Exception() if not isinstance(error, Interrupted):
            return RunStatus.FAILED, f"{type(error).__name__}: {error}"
        case _:
            # Interrupted, Ctrl-C, or Dagster's own interruption of the step.
            return RunStatus.CANCELLED, STOPPED
