"""Three days of the watch on a clock that the test turns, with all that goes wrong in three days."""

import random
import time
from dataclasses import dataclass, replace
from datetime import timedelta

import psycopg
import pytest

from twitter_pipeline import calls
from twitter_pipeline.errors import NoTokenAvailable
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.faults import Faults
from twitter_pipeline.session import FetchSession
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import close_vanished_runs
from twitter_pipeline.store.watch import release
from twitter_pipeline.watch import Due, plan_next_polls, requests_of_due, take_due
from twitter_pipeline.words import FetchKind
from twitter_pipeline_tests.conftest import MakeSandbox, Sandbox

NAMES = [f"watched_{number:02}" for number in range(12)]
HOURS = 72
STEP = timedelta(hours=2)

# All instants that the watch decides by, a step older.
TIME_PASSES = """
UPDATE user_state SET next_poll_at = next_poll_at - %(step)s, handed_at = handed_at - %(step)s,
                      rate_known_at = rate_known_at - %(step)s, tracked_since = tracked_since - %(step)s;
UPDATE tokens_endpoint_rl SET reset_at = reset_at - %(step)s, leased_at = leased_at - %(step)s,
                              opened_at = opened_at - %(step)s;
UPDATE tweets SET first_read_at = first_read_at - %(step)s
"""

USED_UP = "UPDATE tokens_endpoint_rl SET remaining = 0, in_flight = 0, reset_at = now() + interval '50 minutes'"

CUT = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(calls, "LONGEST_PAUSE_S", 0.002)


@dataclass
class Watch:
    """The watch over a sandbox, tick by tick."""

    sandbox: Sandbox
    database: Database
    settings: Settings

    def tick(self, *, dies: bool = False) -> str | None:
        """Take what is due and poll it; a run that dies has done nothing but take it. Returns why nothing was done."""
        due = take_due(self.database, self.settings)
        if isinstance(due, str):
            return due
        if not dies:
            self._poll(due)
        return None

    def _poll(self, due: Due) -> None:
        requests = requests_of_due(self.database, due.key)
        with FetchSession(self.settings, self.database, requests=requests, kind=FetchKind.INCREMENTAL) as session:
            try:
                session.fetch_all()
            except NoTokenAvailable:
                pass
            finally:
                plan_next_polls(self.database, self.settings, session.account_reports())
                release(self.database, due.key)

    def missing(self, until: float) -> dict[str, int]:
        """Count by account the tweets that were written while it was watched, up to an instant, and are not stored."""
        found: dict[str, int] = {}
        for name in NAMES:
            user = self.sandbox.world.user(name)
            assert user is not None
            rows = self.database.execute("SELECT id FROM tweets WHERE author_id = %s", (int(user["id"]),))
            stored = {tweet_id for (tweet_id,) in rows}
            lowest = min(stored, default=0)
            wanted = {
                tweet_id
                for tweet_id in self.sandbox.world.served_ids(name)
                if tweet_id >= lowest and ((tweet_id >> 22) + 1288834974657) / 1000 < until
            }
            found |= {name: len(wanted - stored)} if wanted - stored else {}
        return found


def test_three_days_with_restarts_lost_connections_and_used_up_tokens_leave_no_tweet_missing(
    make_sandbox: MakeSandbox, database: Database, database_url: str
) -> None:
    dice = random.Random(7)
    now = [time.time() - (HOURS + 3) * 3600]
    accounts = [AccountSpec(name, tweets=60, tweets_per_day=4 * 2**number) for number, name in enumerate(NAMES[:8])]
    accounts += [AccountSpec(name, tweets=20, tweets_per_day=1) for name in NAMES[8:]]
    sandbox = make_sandbox(
        accounts,
        tokens=2,
        clock=lambda: now[0],
        faults=Faults(rates={"reset": 0.05, "503": 0.05, "short_page": 0.1, "out_of_order": 0.1}),
    )
    settings = replace(
        Settings(),
        bearer_tokens=sandbox.bearer_tokens,
        api_url=sandbox.serve(),
        database_url=database_url,
        concurrency=4,
        watch_longest=timedelta(hours=3),
        watch_spacing=timedelta(0),
    )
    watch = Watch(sandbox, database, settings)
    with FetchSession(settings, database, requests=[FetchRequest(name, track_after=True) for name in NAMES]) as session:
        session.fetch_all()
    reasons: set[str] = set()
    behind = 0
    for _ in range(HOURS // 2):
        now[0] += STEP.total_seconds()
        pass_time(database_url)
        mishap = dice.choice(["none", "none", "none", "dies", "cut", "used up"])
        if mishap == "used up":
            database.execute(USED_UP)
        if mishap == "cut":
            with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
                connection.execute(CUT)
        reasons.add((watch.tick(dies=mishap == "dies") or "polled").split(" until")[0])
        behind += sum(watch.missing(now[0]).values()) if mishap in {"dies", "used up"} else 0
    # What is too fresh is settled, and what was put off is due.
    for _ in range(2):
        now[0] += 4 * 3600
        pass_time(database_url)
        pass_time(database_url)
        watch.tick()
    close_vanished_runs(database, prices=settings.prices)

    assert {"polled", "all tokens are used up"} <= reasons
    assert behind > 0
    assert watch.missing(now[0] - 5 * 3600) == {}
    assert database.execute("SELECT count(*) FROM walks") == [(0,)]


def pass_time(database_url: str) -> None:
    """Make all that the watch decides by a step older."""
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        for statement in TIME_PASSES.split(";"):
            connection.execute(statement.encode(), {"step": STEP})
