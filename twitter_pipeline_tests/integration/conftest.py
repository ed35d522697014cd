"""A request from names to tweets without Dagster, over the sandbox in this process and a real database."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from twitter_pipeline.accounts import Resolver, record_absence
from twitter_pipeline.calls import XApi
from twitter_pipeline.coverage import Coverage
from twitter_pipeline.history import FetchOptions, HistoryFetcher
from twitter_pipeline.prices import Prices
from twitter_pipeline.request import FULL, FetchMode, FetchRequest
from twitter_pipeline.runs import OpenRun
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.windows import USER_TWEETS
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import AccountReport, RunReport, load_run, save_accounts
from twitter_pipeline.store.timelines import TimelineStore
from twitter_pipeline.tokens import TokenPool
from twitter_pipeline.words import AccountOutcome, FetchKind
from twitter_pipeline_tests.conftest import MakeSandbox, Sandbox

HOUR_AGO = time.time() - 3600


@dataclass
class Pipeline:
    """A request from names to tweets, as a run does it."""

    sandbox: Sandbox
    database: Database
    concurrency: int = 4
    stop: threading.Event = field(default_factory=threading.Event)
    runs: int = 0

    def run(
        self,
        *usernames: str,
        mode: FetchMode = FULL,
        track: bool = False,
        page_size: int = 50,
        profile_max_age: timedelta = timedelta(days=7),
    ) -> RunReport:
        """Fetch accounts and return the closed run; what stops a run is raised after it was closed."""
        requests = [FetchRequest(username, track, mode) for username in usernames]
        self.runs += 1
        self.stop = threading.Event()
        with OpenRun(
            self.database, dagster_run_id=f"run-{self.runs}", kind=FetchKind.HISTORY, requests=requests
        ) as run:
            save_accounts(self.database, run.id, requests)
            try:
                self._fetch(run.id, requests, page_size, profile_max_age)
            finally:
                run.close(prices=Prices())
        return self.report()

    def report(self) -> RunReport:
        report = load_run(self.database, dagster_run_id=f"run-{self.runs}")
        assert report is not None
        return report

    def _fetch(self, run_id: int, requests: Sequence[FetchRequest], page_size: int, profile_max_age: timedelta) -> None:
        with self.sandbox.client() as client:
            pool = TokenPool(self.database, self.sandbox.bearer_tokens, lease_s=client.longest_call_s, stop=self.stop)
            api = XApi(client, pool, self.database, stop=self.stop)
            now = datetime.fromtimestamp(self.sandbox.world.clock(), UTC)
            resolver = Resolver(api, self.database, fetch_run_id=run_id, profile_max_age=profile_max_age, now=now)
            resolution = resolver.resolve(requests)
            for absence in resolution.absences:
                record_absence(self.database, run_id, absence)
            fetcher = HistoryFetcher(
                api,
                self.database,
                fetch_run_id=run_id,
                options=FetchOptions(page_size=page_size, settle=timedelta(seconds=30)),
                concurrency=self.concurrency,
                stop=self.stop,
                clock=lambda: datetime.fromtimestamp(self.sandbox.world.clock(), UTC),
            )
            try:
                fetcher.fetch(resolution.accounts)
            finally:
                fetcher.close()

    def user_id(self, username: str) -> int:
        user = self.sandbox.world.user(username)
        assert user is not None
        return int(user["id"])

    def stored(self, username: str) -> list[int]:
        rows = self.database.execute(
            "SELECT id FROM tweets WHERE author_id = %s ORDER BY id DESC", (self.user_id(username),)
        )
        return [tweet_id for (tweet_id,) in rows]

    def coverage(self, username: str) -> tuple[Coverage, Coverage]:
        store = TimelineStore(self.database, user_id=self.user_id(username), fetch_run_id=0, asked_as=username)
        state = store.load_state()
        return state.covered, state.unreachable

    def timeline_calls(self) -> int:
        """Count the timeline calls since the last time, and forget them."""
        count = sum(call.endpoint == USER_TWEETS for call in self.sandbox.api.calls)
        self.sandbox.api.reset_accounting()
        return count

    def assert_all_is_there(self, *usernames: str) -> None:
        """What is called covered is stored, all that is served is covered, and nothing is stored that is not true."""
        for username in usernames:
            covered, _ = self.coverage(username)
            served = self.sandbox.world.served_ids(username)
            assert self.stored(username) == served
            assert [tweet_id for tweet_id in served if tweet_id not in covered] == []


def account(report: RunReport, username: str | None = None) -> AccountReport:
    """Return the report of one account, by default of the only one."""
    if username is None:
        (only,) = report.account_reports
        return only
    return next(each for each in report.account_reports if each.username == username)


def outcomes(report: RunReport) -> dict[str, AccountOutcome]:
    return {each.username: each.outcome for each in report.account_reports}


MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def make_pipeline(make_sandbox: MakeSandbox, database: Database) -> MakePipeline:
    def make(*accounts: AccountSpec, concurrency: int = 4, **options: object) -> Pipeline:
        return Pipeline(make_sandbox(accounts, **options), database, concurrency)

    return make


def quiet(username: str, tweets: int, **wishes: object) -> AccountSpec:
    """An account whose tweets are all an hour old and more."""
    return AccountSpec(username, tweets=tweets, last_tweet_at=HOUR_AGO, **wishes)  # pyright: ignore[reportArgumentType]
