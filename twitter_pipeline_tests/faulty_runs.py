"""Runs against the model of X: the real fetchers and a real database, in a process that can be killed anywhere."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta
from typing import Any

from psycopg import Connection

from twitter_pipeline.accounts import Resolver, age_that_serves
from twitter_pipeline.backfill import BackfillFetcher
from twitter_pipeline.calls import XApi
from twitter_pipeline.coverage import Coverage
from twitter_pipeline.errors import Interrupted
from twitter_pipeline.history import FetchOptions, HistoryFetcher
from twitter_pipeline.request import FULL, FetchMode, FetchRequest
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.doubts import load_doubts
from twitter_pipeline.store.timelines import read_coverage
from twitter_pipeline.store.windows import Lease
from twitter_pipeline.tokens import Grant
from twitter_pipeline.walks.doubts import Doubt
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline_tests.faulty_x import Fault, FaultyX, Killed, Reaper, XAccount

TOKEN = BearerToken("AAAA-of-the-model")

_TABLES = ("doubts", "walks", "fetch_run_accounts", "fetch_runs", "tweets", "user_state", "user_names", "users")


class MortalDatabase(Database):
    """The database as a process uses it that may be killed before and after each statement."""

    def __init__(self, database: Database, reaper: Reaper) -> None:
        self.engine = database.engine
        self._outage = database._outage
        self._reaper = reaper

    def execute(self, statement: Any, params: Any = ()) -> list[tuple[Any, ...]]:
        self._reaper.pass_by()
        rows = super().execute(statement, params)
        self._reaper.pass_by()
        return rows

    @contextmanager
    def transaction(self) -> Generator[Connection]:
        self._reaper.pass_by()
        with super().transaction() as connection:
            yield connection
        self._reaper.pass_by()


class FreePool:
    """A token pool without limits: what is tested here are walks, and the windows are real time's."""

    def __init__(self, x: FaultyX) -> None:
        self._x = x

    def lease(self, endpoint: Endpoint, **_: object) -> Grant:
        lease = Lease(0, 0, "TWITTER_BEARER_1", endpoint, self._x.clock.now, None, None, is_test=False)
        return Grant(lease, TOKEN, 0.0)

    def settle(self, *_: object) -> None:
        pass

    accept = reject = settle


@dataclass(frozen=True)
class Stored:
    """What the database holds of an account."""

    ids: frozenset[int]
    covered: Coverage
    searched: Coverage
    unreachable: Coverage
    doubts: tuple[Doubt, ...]

    @property
    def open_doubts(self) -> list[Doubt]:
        return [each for each in self.doubts if each.is_open]

    @property
    def unreadable(self) -> Coverage:
        return Coverage.of(each.ids for each in self.doubts if not each.is_open)


@dataclass
class Runs:
    """Runs over the model, one after another, of processes that share a database."""

    database: Database
    x: FaultyX
    page_size: int = 50
    waits_to_confirm: bool = False
    outcomes: list[str] = field(default_factory=list)

    def run(
        self,
        *names: str,
        mode: FetchMode = FULL,
        page_size: int | None = None,
        faults: Sequence[Fault | None] = (),
        dies_after: int | None = None,
    ) -> None:
        """Fetch accounts as one process does; `dies_after` so many calls and statements it is killed."""
        self.x.faults.clear()
        self.x.faults.extend(faults)
        self.x.reaper = Reaper(dies_after)
        self.x.may_swap = mode.limit is None and not mode.only_new
        with suppress(Killed, Interrupted):
            self._run([FetchRequest(name, fetch_mode=mode) for name in names], page_size or self.page_size)
        self.x.reaper = Reaper()
        self.x.faults.clear()

    def _run(self, requests: Sequence[FetchRequest], page_size: int) -> None:
        clock, stop = self.x.clock, self.x.clock.event()
        database = MortalDatabase(self.database, self.x.reaper)
        mode = requests[0].fetch_mode
        kind = "backfill" if mode.months is not None else "history"
        ((run_id,),) = self.database.execute(
            "INSERT INTO fetch_runs (kind, request) VALUES (%s::fetch_kind, '[]') RETURNING id", (kind,)
        )
        with XApiClient("https://model.test", transport=self.x) as client:
            api = XApi(client, FreePool(self.x), self.database, stop=stop)  # type: ignore[arg-type]
            max_age = age_that_serves(requests, profile_max_age=timedelta(days=7), now=clock.now)
            resolver = Resolver(api, database, fetch_run_id=run_id, profile_max_age=max_age, now=clock.now)
            accounts = resolver.resolve(requests).accounts
            fetcher: Any = HistoryFetcher(
                api,
                database,
                fetch_run_id=run_id,
                options=FetchOptions(page_size, timedelta(seconds=30), waits_to_confirm=self.waits_to_confirm),
                concurrency=1,
                stop=stop,
                clock=clock,
            )
            if mode.months is not None:
                settings = replace(
                    Settings(),
                    bearer_tokens={"TWITTER_BEARER_1": TOKEN},
                    concurrency=1,
                    archive_page_size=max(10, page_size),
                )
                fetcher = BackfillFetcher(
                    api, database, fetcher, fetch_run_id=run_id, settings=settings, stop=stop, clock=clock
                )
            try:
                self.outcomes = [str(each) for each in fetcher.fetch(accounts)]
            finally:
                fetcher.close()

    def stored(self, account: XAccount) -> Stored:
        """Return what is stored of an account."""
        rows = self.database.execute(
            "SELECT covered, searched, unreachable FROM user_state WHERE user_id = %s", (account.id,)
        )
        ids = self.database.execute("SELECT id FROM tweets WHERE author_id = %s", (account.id,))
        covered, searched, unreachable = map(read_coverage, rows[0]) if rows else (Coverage(),) * 3
        doubts = load_doubts(self.database, [account.id]).get(account.id, ())
        return Stored(frozenset(each for (each,) in ids), covered, searched, unreachable, doubts)

    def track(self, account: XAccount) -> None:
        """Track an account from now on."""
        self.database.execute(
            "UPDATE user_state SET is_tracked = true, tracked_since = %s WHERE user_id = %s",
            (self.x.clock.now.astimezone(UTC), account.id),
        )

    def assert_claims_hold(self) -> None:
        """Everything that is claimed is stored, or recorded as unreadable."""
        for account in self.x.accounts.values():
            stored = self.stored(account)
            missing = [each for each in account.tweets() if each.id not in stored.ids]
            falsely = {
                "covered": [each.id for each in missing if each.id in stored.covered - stored.unreadable],
                "searched": [
                    each.id
                    for each in missing
                    if each.id in stored.searched - stored.unreadable and not each.is_retweet
                ],
            }

            assert falsely == {"covered": [], "searched": []}, account.username


def empty(database: Database) -> None:
    """Delete all that runs have written."""
    for table in _TABLES:
        database.execute(f"DELETE FROM {table}")
