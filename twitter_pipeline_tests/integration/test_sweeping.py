"""The sweep of a day over the sandbox and a real database: what it finds, what it marks, and what it costs."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import pytest

from twitter_pipeline import calls
from twitter_pipeline.request import FetchMode
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.faults import FaultKind, Faults
from twitter_pipeline.sandbox.windows import TWEETS, USER_TWEETS
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import RunReport
from twitter_pipeline.store.sweeps import (
    ACTIVE_SINCE,
    count_deleted_since,
    link_versions,
    load_active_since,
    remove_deleted_content,
)
from twitter_pipeline.store.users import set_tracked
from twitter_pipeline.words import AccountOutcome
from twitter_pipeline_tests.conftest import MakeSandbox
from twitter_pipeline_tests.integration.conftest import Pipeline, account

DAY = date(2026, 11, 20)
MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
SWEEP = FetchMode(swept_day=DAY)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(calls, "LONGEST_PAUSE_S", 0.002)


@dataclass
class Day:
    """A day in the life of an account that has 30 tweets from before; times are hours since its midnight."""

    pipeline: Pipeline
    now: list[float]
    fault: list[FaultKind | None]

    def at(self, hour: float) -> None:
        self.now[0] = (MIDNIGHT + timedelta(hours=hour)).timestamp()

    def post(self, count: int, *, hour: float) -> list[int]:
        """Let the account tweet, a minute apart."""
        at = (MIDNIGHT + timedelta(hours=hour)).timestamp()
        return [self.pipeline.sandbox.world.post("alpha", text=f"{n}", at=at + 60 * n) for n in range(count)]

    def fetch(self) -> RunReport:
        return self.pipeline.run("alpha")

    def sweep(self) -> RunReport:
        return self.pipeline.run("alpha", mode=SWEEP)

    def marked(self) -> list[int]:
        rows = self.pipeline.database.execute("SELECT id FROM tweets WHERE deleted_seen_at IS NOT NULL ORDER BY id")
        return [tweet_id for (tweet_id,) in rows]

    def calls_of(self, endpoint: str) -> int:
        return sum(call.endpoint == endpoint for call in self.pipeline.sandbox.api.calls)


@pytest.fixture
def day(make_sandbox: MakeSandbox, database: Database) -> Day:
    now, fault = [MIDNIGHT.timestamp()], [None]

    def script(endpoint: str, _number: int) -> FaultKind | None:
        return fault[0] if endpoint == USER_TWEETS else None

    last = (MIDNIGHT - timedelta(hours=1)).timestamp()
    sandbox = make_sandbox(
        [AccountSpec("alpha", tweets=30, last_tweet_at=last)],
        clock=lambda: now[0],
        faults=Faults(script=script),
        record_ids=True,
    )
    return Day(Pipeline(sandbox, database), now, fault)


def filled(day: Day, count: int = 12) -> list[int]:
    """Store the day's tweets at noon, and go on to the evening."""
    day.at(0)
    posted = day.post(count, hour=8)
    day.at(12)
    day.fetch()
    day.at(23.25)
    day.pipeline.sandbox.api.reset_accounting()
    return posted


def test_a_day_is_read_again_for_free_and_nothing_of_the_day_before(day: Day) -> None:
    posted = filled(day)
    report = day.sweep()

    assert (report.status.value, report.billed_posts, report.billed_users, report.cost_usd) == ("done", 0, 0, 0)
    assert (report.tweets_fetched, report.tweets_new, report.calls) == (0, 0, 1)
    assert day.calls_of(TWEETS) == 0
    served = {tweet_id for call in day.pipeline.sandbox.api.calls for tweet_id in call.ids}
    assert served == set(posted)


def test_a_tweet_that_came_late_is_stored_and_billed_once(day: Day) -> None:
    filled(day)
    (late,) = day.post(1, hour=9.5)
    report = day.sweep()

    assert late in day.pipeline.stored("alpha")
    assert (report.tweets_new, report.billed_posts) == (1, 1)
    assert day.marked() == []


def test_a_deleted_tweet_is_marked_and_the_others_are_not(day: Day) -> None:
    posted = filled(day)
    for gone in (posted[0], posted[5]):
        day.pipeline.sandbox.world.delete(gone)
    report = day.sweep()

    assert day.marked() == [posted[0], posted[5]]
    assert report.status.value == "done"
    assert account(report).reason == "X has deleted 2 of the day's tweets; they are marked"
    # The timeline, and one look-up of both, which costs nothing.
    assert (report.calls, account(report).calls, report.billed_posts) == (2, 2, 0)
    assert set(posted) <= set(day.pipeline.stored("alpha"))
    assert count_deleted_since(day.pipeline.database, report.started_at) == 2

    day.pipeline.sandbox.api.reset_accounting()
    day.sweep()
    assert day.calls_of(TWEETS) == 0


def test_a_tweet_that_shows_up_again_is_unmarked_and_has_its_content_again(day: Day) -> None:
    posted = filled(day)
    database = day.pipeline.database
    # As if X had answered wrongly the day's first time.
    database.execute("UPDATE tweets SET deleted_seen_at = now() WHERE id = %s", (posted[3],))
    before = database.execute("SELECT text, raw::text, lang, like_count FROM tweets WHERE id = %s", (posted[3],))
    assert remove_deleted_content(database) == 1
    day.sweep()

    assert day.marked() == []
    assert (
        database.execute("SELECT text, raw::text, lang, like_count FROM tweets WHERE id = %s", (posted[3],)) == before
    )


def test_of_a_deleted_tweets_content_nothing_is_left_when_it_is_removed(day: Day) -> None:
    posted = filled(day)
    day.pipeline.sandbox.world.delete(posted[5])
    day.sweep()
    database = day.pipeline.database
    times = "SELECT author_id, created_at, first_read_at, last_read_at FROM tweets WHERE id = %s"
    before = database.execute(times, (posted[5],))

    assert (remove_deleted_content(database), remove_deleted_content(database)) == (1, 0)
    assert database.execute(times, (posted[5],)) == before
    assert database.execute("SELECT text, raw::text, lang FROM tweets WHERE id = %s", (posted[5],)) == [
        ("", "{}", None)
    ]
    assert database.execute("SELECT count(*) FROM tweets WHERE text = ''") == [(1,)]


def test_a_day_of_which_x_shows_nothing_is_partial_and_marks_nothing(day: Day) -> None:
    for gone in filled(day):
        day.pipeline.sandbox.world.delete(gone)
    report = day.sweep()

    assert account(report).outcome is AccountOutcome.PARTIAL
    assert account(report).reason == "X showed none of the day's 12 stored tweets"
    assert day.marked() == []


@pytest.mark.parametrize("fault", ["empty_answer", "500", "cut", "html_200"])
def test_an_answer_that_is_empty_cut_or_broken_marks_nothing(day: Day, fault: FaultKind) -> None:
    posted = filled(day)
    day.pipeline.sandbox.world.delete(posted[5])
    day.fault[0] = fault
    day.sweep()

    assert day.marked() == []
    assert day.calls_of(TWEETS) == 0


def test_a_tweet_that_the_timeline_leaves_out_but_x_knows_is_not_marked(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = filled(day)
    left_out = posted[4]
    handle = day.pipeline.sandbox.api.handle

    def forgetful(method: str, path: str, *rest: Any) -> Any:
        response = handle(method, path, *rest)
        if path.endswith("/tweets") and path != TWEETS:
            body = orjson.loads(response.body)
            body["data"] = [each for each in body["data"] if int(each["id"]) != left_out]
            body["meta"]["result_count"] = len(body["data"])
            object.__setattr__(response, "body", orjson.dumps(body))
        return response

    monkeypatch.setattr(day.pipeline.sandbox.api, "handle", forgetful)
    day.sweep()

    assert day.calls_of(TWEETS) == 1
    assert day.marked() == []


def test_when_an_account_is_suspended_its_tweets_are_not_called_deleted(day: Day) -> None:
    filled(day)
    day.pipeline.sandbox.world.set_availability("alpha", "suspended")

    assert account(day.sweep()).outcome is AccountOutcome.UNAVAILABLE
    assert day.marked() == []


@pytest.mark.parametrize("hour", [23.97, 24.5, -0.5])
def test_outside_of_its_day_nothing_is_asked_since_it_would_be_billed(day: Day, hour: float) -> None:
    filled(day)
    day.at(hour)
    report = day.sweep()

    assert account(report).outcome is AccountOutcome.PARTIAL
    assert "the UTC day is over" in str(account(report).reason)
    assert report.calls == 0


def test_a_sweep_covers_what_it_has_read_and_the_next_fetch_pays_for_nothing(day: Day) -> None:
    filled(day)
    day.post(70, hour=13)
    day.sweep()
    report = day.fetch()

    day.pipeline.assert_all_is_there("alpha")
    assert report.tweets_new == 0


def test_the_accounts_are_those_that_are_tracked_and_have_tweets_of_the_day(day: Day) -> None:
    database = day.pipeline.database
    day.fetch()
    set_tracked(database, [day.pipeline.user_id("alpha")], tracked=True)
    before = load_active_since(database, MIDNIGHT)
    filled(day)
    active = load_active_since(database, MIDNIGHT)
    set_tracked(database, [day.pipeline.user_id("alpha")], tracked=False)

    assert (before, active, load_active_since(database, MIDNIGHT)) == (
        [],
        [(day.pipeline.user_id("alpha"), "alpha")],
        [],
    )


def test_many_accounts_are_looked_up_one_by_one_in_the_index(database: Database) -> None:
    database.execute("INSERT INTO users (id, username) SELECT n, 'user_' || n FROM generate_series(1, 2000) n")
    database.execute("INSERT INTO user_state (user_id, is_tracked, tracked_since) SELECT id, true, now() FROM users")
    database.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, raw)"
        " SELECT id_at(at) + n, n %% 2000 + 1, at, 'original', '', '{}'"
        " FROM generate_series(1, 60000) n, LATERAL (SELECT %s::timestamptz - n * interval '1 minute' AS at) AS w",
        (MIDNIGHT + timedelta(minutes=31),),
    )
    database.execute("ANALYZE")
    plan = "\n".join(line for (line,) in database.execute("EXPLAIN " + ACTIVE_SINCE, {"since": MIDNIGHT}))

    assert "tweets_2026_author_id_created_at_idx" in plan
    assert "tweets_2025" not in plan
    assert "Seq Scan on tweets_2026" not in plan
    assert load_active_since(database, MIDNIGHT) == [(n, f"user_{n}") for n in range(2, 33)]


def test_versions_of_an_edited_tweet_share_the_history_of_their_ids(day: Day) -> None:
    first, second, third, other = filled(day)[:4]
    database, user_id = day.pipeline.database, day.pipeline.user_id("alpha")
    database.execute("UPDATE tweets SET edit_history_ids = %s WHERE id = %s", ([first, second], second))
    database.execute("UPDATE tweets SET edit_history_ids = %s WHERE id = %s", ([first, second, third], third))
    for _ in range(2):
        link_versions(database, user_id, since=MIDNIGHT)
    rows = database.execute("SELECT id, edit_history_ids FROM tweets WHERE id = ANY (%s)", ([first, second, third],))

    assert dict(rows) == {version: [first, second, third] for version in (first, second, third)}
    assert database.execute("SELECT edit_history_ids FROM tweets WHERE id = %s", (other,)) == [(None,)]
