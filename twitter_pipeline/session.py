"""One run: resolve the names, fetch the accounts, close the run, whatever happens.

One process leads it. A large run is fetched by worker processes, a small one by threads of the leading process. Where
a broker hands the steps to workers, each step is a process of its own that joins the run, which another leads.
"""

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self

from twitter_pipeline.accounts import Account, Resolution, Resolver, age_that_serves, record_absence
from twitter_pipeline.backfill import BackfillFetcher
from twitter_pipeline.calls import XApi
from twitter_pipeline.confirmation import require_confirmation, require_confirmed_look_ups
from twitter_pipeline.detection import Detector
from twitter_pipeline.errors import BudgetReached, Interrupted, NotConfirmed, NoTokenAvailable, PipelineError
from twitter_pipeline.estimate import Estimate
from twitter_pipeline.estimating import estimate_accounts
from twitter_pipeline.history import FetchOptions, HistoryFetcher
from twitter_pipeline.planning import deal_batches, expected_pages
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.runs import OpenRun
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.doubts import reopen_unreadable
from twitter_pipeline.store.estimates import save_expected
from twitter_pipeline.store.runs import (
    AccountReport,
    RunReport,
    end_quiet,
    load_accounts,
    load_run,
    save_accounts,
)
from twitter_pipeline.store.timelines import count_stored
from twitter_pipeline.store.tokens import find_fit_tokens
from twitter_pipeline.stream_rules import pack
from twitter_pipeline.tokens import TokenPool, Waiting
from twitter_pipeline.words import FetchKind, HoleCause, RunStatus
from twitter_pipeline.workers.fetcher import Fetcher, WorkerFetcher, divide_threads
from twitter_pipeline.x_api.client import XApiClient

logger = logging.getLogger(__name__)

STOPPED = "stopped on request"

ESTIMATED = (FetchKind.HISTORY, FetchKind.BACKFILL)
"""The kinds of runs that people start: what they will take is estimated, to be held against what they took."""


@dataclass(frozen=True, slots=True)
class Dealt:
    """The work of a run: accounts in batches, and names of which nothing is known because the look-up failed."""

    batches: list[list[Account]]
    not_looked_up: list[FetchRequest]


@dataclass(frozen=True, slots=True)
class Broken:
    """How a run broke off: as what it is closed, what is said of it, and why accounts are missing.

    `status` None judges by the accounts.
    """

    status: RunStatus | None
    error: str | None
    cause: HoleCause


AS_ITS_ACCOUNTS = Broken(None, None, HoleCause.INTERRUPTED)
CANCELLED = Broken(RunStatus.CANCELLED, STOPPED, HoleCause.INTERRUPTED)

_ENDINGS = {
    NoTokenAvailable.__name__: (RunStatus.FAILED, HoleCause.CAPPED),
    BudgetReached.__name__: (RunStatus.PARTIAL, HoleCause.BUDGET),
    NotConfirmed.__name__: (RunStatus.FAILED, HoleCause.NOT_ASKED),
}


def how_it_broke(name: str, text: str) -> Broken:
    """Judge a run by the error that broke a step: the name of its class, as other processes tell it, and its text."""
    if name == Interrupted.__name__:
        return CANCELLED
    if name in _ENDINGS:
        status, cause = _ENDINGS[name]
        return Broken(status, text, cause)
    return Broken(RunStatus.FAILED, f"{name}: {text}", HoleCause.FAULT)


class FetchSession:
    """Everything that the steps of a run share in one process. Use it as a context.

    Leaving the context ends all work and, if it `leads` the run, closes it: as cancelled when it was interrupted, as
    failed when a step broke, else as its accounts came out. What would cost much is fetched only when it is
    `confirmed`. `on_interruption` is called when a signal interrupts a step, before its work is waited for.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        requests: Sequence[FetchRequest],
        dagster_run_id: str | None = None,
        kind: FetchKind = FetchKind.HISTORY,
        confirmed: bool = False,
        leads: bool = True,
        on_interruption: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._requests = requests
        self._kind = kind
        self._asks = kind in ESTIMATED and not confirmed
        self._leads = leads
        self._on_interruption = on_interruption
        self._stop = threading.Event()
        self._handed_over = False
        self._broken: Broken | None = None
        self._resources = ExitStack()
        self._client = XApiClient(settings.api_url, max_connections=settings.concurrency)
        self._share = settings.backfill_share if kind is FetchKind.BACKFILL else 1.0
        pool = TokenPool(
            database,
            settings.bearer_tokens,
            lease_s=self._client.longest_call_s,
            share=self._share,
            stop=self._stop,
            budgets=settings.budgets,
            prices=settings.prices,
            # The watch and the sweep test tokens at growing intervals; a user has perhaps just fixed one.
            retests=leads and kind in ESTIMATED,
        )
        self._api = XApi(self._client, pool, database, stop=self._stop)
        self._waiting: Callable[[], Waiting | None] = lambda: self._api.waiting
        self._run = OpenRun(
            database,
            dagster_run_id=dagster_run_id,
            kind=kind,
            requests=requests,
            waiting=lambda: self._waiting(),
            is_shared=not leads,
        )
        self._fetcher: Fetcher | None = None

    def __enter__(self) -> Self:
        self._resources.enter_context(self._client)
        self._resources.enter_context(self._run)
        if self._leads:
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
    def was_interrupted(self) -> bool:
        """Whether a signal, or Dagster, asked the run to stop while it worked."""
        return self._broken is not None and self._broken.status is RunStatus.CANCELLED

    @property
    def is_handed_over(self) -> bool:
        """Whether this process was asked to leave its work to another."""
        return self._handed_over

    def stop(self, *, handing_over: bool = False) -> None:
        """Have all work end at the next page, with Interrupted; what is under way is stored."""
        self._handed_over = self._handed_over or handing_over
        self._stop.set()
        self._database.hurry()

    def others_have_tokens(self) -> bool:
        """Whether another worker that lives has a token that is fit for use; where no worker is, nobody has."""
        return not self._leads and find_fit_tokens(self._database, self._settings.bearer_tokens).elsewhere

    def resolve(self) -> Dealt:
        """Resolve the request's names and deal the accounts to batches; those that cannot be had are recorded.

        Raises NoTokenAvailable when no token can look them up, BudgetReached when a budget is used up, and NotConfirmed
        when the rest would cost much and nobody has said that it may.
        """
        with self._noting_what_breaks():
            reopen_unreadable(self._database)
            resolution = self._resolve(self._requests)
            estimate = self._note_what_is_expected(resolution)
            if estimate is not None and self._asks:
                require_confirmation(estimate, self._settings)
            accounts = self._with_news(resolution.accounts)
            pages = self._expected_pages(accounts)
            batches = self._deal(accounts, pages)
            if self._leads:
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

        Requests whose names are `not_looked_up` are taken up from the look-up on, unless this run has tried that.
        Raises Interrupted when the run is to stop, NoTokenAvailable when no token can go on, BudgetReached when a
        budget is used up.
        """
        with self._noting_what_breaks():
            tried = {report.username for report in self._reports_of(not_looked_up)}
            again = [request for request in not_looked_up if request.username not in tried]
            found = self._resolve(again).accounts if again else []
            wanted = self._unfinished([*accounts, *found])
            self._fetcher_for(wanted, self._expected_pages(wanted)).fetch(wanted)
        return self._reports_of([*(account.request for account in accounts), *not_looked_up])

    def _unfinished(self, accounts: Sequence[Account]) -> Sequence[Account]:
        """Leave out what a process finished that had this step before, and died or handed it over."""
        if self._leads:
            return accounts
        done = {each.username for each in self._reports_of([each.request for each in accounts]) if each.is_finished}
        return [account for account in accounts if account.request.username not in done]

    def fetch_all(self) -> None:
        """Resolve the request's names and fetch all accounts, where nobody deals with the batches one by one."""
        for batch in self.resolve().batches:
            self.fetch(batch)

    def _deal(self, accounts: Sequence[Account], pages: Sequence[int]) -> list[list[Account]]:
        if self._kind is FetchKind.BACKFILL:
            return self._deal_to_share_queries(accounts)
        dealt = deal_batches(pages, per_batch=self._settings.batch_accounts)
        return [[accounts[position] for position in batch] for batch in dealt]

    def _deal_to_share_queries(self, accounts: Sequence[Account]) -> list[list[Account]]:
        """Deal the accounts of a backfill to batches that have room in one query each."""
        by_name = {account.request.username: account for account in accounts}
        most = self._settings.batch_accounts
        return [
            [by_name[name] for name in names[first : first + most]]
            for names in pack(by_name, self._settings.archive_query_characters)
            for first in range(0, len(names), most)
        ]

    def note_broken(self, name: str, text: str) -> None:
        """Take over how a step broke off, in another process maybe: the name of its error's class, and its text."""
        self._broken = self._broken or how_it_broke(name, text)

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
            is_backfill = self._kind is FetchKind.BACKFILL
            self._fetcher = self._backfill_fetcher() if is_backfill else self._choose_fetcher(accounts, pages)
            self._resources.callback(self._fetcher.close)
        return self._fetcher

    def _choose_fetcher(self, accounts: Sequence[Account], pages: Sequence[int]) -> Fetcher:
        if not self._leads:
            return self._history_fetcher()  # other cores, and machines, have steps of their own
        divide = partial(divide_threads, self._settings.concurrency, accounts=len(accounts))
        # What is stored is counted only where it can matter.
        threads = divide(pages=sum(pages)) and divide(pages=self._missing_pages(accounts, pages))
        if threads:
            workers = WorkerFetcher(
                self._settings,
                self._database,
                fetch_run_id=self._run.id,
                share=self._share,
                threads=threads,
                stop=self._stop,
            )
            self._waiting = lambda: workers.waiting
            return workers
        return self._history_fetcher()

    def _backfill_fetcher(self) -> Fetcher:
        fetcher = BackfillFetcher(
            self._api,
            self._database,
            self._history_fetcher(),
            fetch_run_id=self._run.id,
            settings=self._settings,
            stop=self._stop,
        )
        of_budget = self._waiting
        self._waiting = lambda: of_budget() or fetcher.waiting
        return fetcher

    def _history_fetcher(self) -> Fetcher:
        return HistoryFetcher(
            self._api,
            self._database,
            fetch_run_id=self._run.id,
            options=FetchOptions(
                self._settings.page_size,
                self._settings.settle,
                self._settings.confirm_after,
                waits_to_confirm=self._kind is FetchKind.BACKFILL,
            ),
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
        detector = Detector(
            self._api, self._database, settings=self._settings, fetch_run_id=self._run.id, stop=self._stop
        )
        detected = detector.detect(accounts)
        end_quiet(
            self._database, self._run.id, {account.request.username: account.user_id for account in detected.quiet}
        )
        return detected.news

    def _resolve(self, requests: Sequence[FetchRequest]) -> Resolution:
        """Resolve names, and record those that cannot be had."""
        save_accounts(self._database, self._run.id, requests)
        now = datetime.now(UTC)
        resolver = Resolver(
            self._api,
            self._database,
            fetch_run_id=self._run.id,
            profile_max_age=age_that_serves(requests, profile_max_age=self._settings.profile_max_age, now=now),
            now=now,
            allow=partial(require_confirmed_look_ups, settings=self._settings) if self._asks else None,
        )
        resolution = resolver.resolve(requests)
        for absence in resolution.absences:
            record_absence(self._database, self._run.id, absence)
        return resolution

    def _note_what_is_expected(self, resolution: Resolution) -> Estimate | None:
        if self._kind not in ESTIMATED:
            return None
        try:
            estimate = estimate_accounts(self._settings, self._database, resolution)
        except Exception:
            # It is for people to read; whatever is wrong with it must not stop the run. The log has the traceback.
            logger.exception("What the run will take could not be estimated")
            return None
        save_expected(self._database, self._run.id, estimate)
        return estimate

    def _close_run(self) -> None:
        broken = self._broken or AS_ITS_ACCOUNTS
        self._run.close(status=broken.status, error=broken.error, cause=broken.cause, prices=self._settings.prices)

    @contextmanager
    def _noting_what_breaks(self) -> Generator[None]:
        """Remember how a step broke off, so that the run is closed as that; end all other work.

        Only the first counts: the steps that Dagster runs after it find the work stopped.
        """
        try:
            yield
        except BaseException as error:
            # What is no Exception is Ctrl-C, or Dagster's own interruption of the step.
            of_a_fault = isinstance(error, Exception)
            if not of_a_fault:
                self._database.hurry()
                self._on_interruption()
            self._broken = self._broken or (how_it_broke(type(error).__name__, str(error)) if of_a_fault else CANCELLED)
            if not isinstance(error, NoTokenAvailable | BudgetReached):
                self._stop.set()
            raise
