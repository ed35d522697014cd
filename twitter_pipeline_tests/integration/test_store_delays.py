"""How soon tweets of tracked accounts were stored: which count, and what is made of them."""

from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from twitter_pipeline.delays import NO_DELAYS, Delays
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.delays import BY_ACCOUNT, OVER_ALL, load_delays, load_delays_by_account, load_slowest

NOW = datetime.now(UTC)
PROMISE = timedelta(seconds=900)

# Times are seconds before now.
ADD = """
INSERT INTO tweets (id, author_id, created_at, kind, text, first_read_at, first_read_run_id, raw)
VALUES (id_at(now() - %(ago)s * interval '1 s') + %(id)s, %(author_id)s, now() - %(ago)s * interval '1 s', 'original',
        '', now() - (%(ago)s - %(delay)s) * interval '1 s', %(run_id)s, '{}')
"""


class Watch:
    """Tracked accounts and their tweets, written straight into the tables."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.tweets = 0

    def account(self, user_id: int, *, tracked_ago: float | None = 86_400 * 9) -> None:
        self.database.execute("INSERT INTO users (id, username) VALUES (%s, %s)", (user_id, f"user_{user_id}"))
        self.database.execute(
            "INSERT INTO user_state (user_id, is_tracked, tracked_since)"
            " VALUES (%(id)s, %(ago)s::float8 IS NOT NULL, now() - %(ago)s::float8 * interval '1 s')",
            {"id": user_id, "ago": tracked_ago},
        )

    def run(self, kind: str) -> int:
        rows = self.database.execute(
            "INSERT INTO fetch_runs (kind, request) VALUES (%s::fetch_kind, '[]') RETURNING id", (kind,)
        )
        return int(rows[0][0])

    def tweet(self, author_id: int, *, delay: float, ago: float = 7200, run_id: int | None = None) -> None:
        self.tweets += 1
        values = {"id": self.tweets, "author_id": author_id, "ago": ago, "delay": delay, "run_id": run_id}
        self.database.execute(ADD, values)


@pytest.fixture
def watch(database: Database) -> Watch:
    return Watch(database)


def test_without_tweets_there_is_nothing_to_tell(watch: Watch) -> None:
    watch.account(1)

    assert load_delays(watch.database, promise=PROMISE) == NO_DELAYS
    assert load_delays_by_account(watch.database, promise=PROMISE) == {}


def test_median_percentile_and_share_are_told_over_all_and_by_account(watch: Watch) -> None:
    watch.account(1)
    watch.account(2)
    for delay in (100, 200, 300):
        watch.tweet(1, delay=delay)
    watch.tweet(2, delay=1800)
    over_all = load_delays(watch.database, promise=PROMISE)
    by_account = load_delays_by_account(watch.database, promise=PROMISE)

    assert astuple(over_all) == pytest.approx((4, 250.0, 1575.0, 0.75))
    assert by_account.keys() == {1, 2}
    assert astuple(by_account[1]) == pytest.approx((3, 200.0, 290.0, 1.0))
    assert by_account[2] == Delays(1, 1800.0, 1800.0, 0.0)
    assert load_delays_by_account(watch.database, promise=PROMISE, user_ids=[2]).keys() == {2}
    assert load_slowest(watch.database, promise=PROMISE, limit=9) == [("user_2", Delays(1, 1800.0, 1800.0, 0.0))]


def test_a_tweet_that_was_stored_before_x_says_it_was_written_came_at_once(watch: Watch) -> None:
    watch.account(1)
    watch.tweet(1, delay=-0.4)

    assert load_delays(watch.database, promise=PROMISE) == Delays(1, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("kind", "counts"),
    [(None, True), ("incremental", True), ("reconcile", True), ("history", False), ("backfill", False)],
)
def test_what_a_request_fetched_first_says_nothing_of_the_watch(watch: Watch, kind: str | None, counts: bool) -> None:
    watch.account(1)
    watch.tweet(1, delay=60, run_id=None if kind is None else watch.run(kind))

    assert load_delays(watch.database, promise=PROMISE).tweets == counts


@pytest.mark.parametrize(
    ("tracked_ago", "ago", "counts"),
    [(86_400, 3600, True), (None, 3600, False), (1800, 3600, False), (86_400 * 9, 86_400 + 60, False)],
)
def test_tweets_count_that_were_written_in_the_last_day_and_after_the_account_was_tracked(
    watch: Watch, tracked_ago: float | None, ago: float, counts: bool
) -> None:
    watch.account(1, tracked_ago=tracked_ago)
    watch.tweet(1, delay=60, ago=ago)

    assert load_delays(watch.database, promise=PROMISE).tweets == counts


def test_a_run_that_was_pruned_still_counts_as_one_of_the_watch(watch: Watch) -> None:
    watch.account(1)
    watch.tweet(1, delay=60, run_id=12345)

    assert load_delays(watch.database, promise=PROMISE).tweets == 1


def test_many_accounts_are_looked_up_one_by_one_in_the_index(database: Database) -> None:
    database.execute("INSERT INTO users (id) SELECT generate_series(1, 2000)")
    database.execute(
        "INSERT INTO user_state (user_id, is_tracked, tracked_since)"
        " SELECT id, true, now() - interval '99 days' FROM users"
    )
    database.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, first_read_at, raw)"
        " SELECT id_at(at), n %% 2000 + 1, at, 'original', '', now(), '{}'"
        " FROM generate_series(1, 60000) n, LATERAL (SELECT now() - n * interval '1 minute' AS at) AS w"
    )
    database.execute("ANALYZE")
    values: dict[str, Any] = {"promise_s": 900.0, "user_ids": None}
    for statement in (OVER_ALL, BY_ACCOUNT):
        plan = "\n".join(line for (line,) in database.execute("EXPLAIN " + statement, values))

        assert f"tweets_{NOW.year}_author_id_created_at_idx" in plan
        assert f"Seq Scan on tweets_{NOW.year} " not in plan
        assert f"tweets_{NOW.year - 2}" not in plan
    assert load_delays(database, promise=PROMISE).tweets == 24 * 60 - 1
