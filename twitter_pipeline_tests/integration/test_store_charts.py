"""What charts are drawn from: counted in the database, true, and small however much there is."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

from twitter_pipeline.charts.calls import draw_calls
from twitter_pipeline.charts.costs import draw_costs_by_account, draw_costs_by_day, draw_costs_by_run
from twitter_pipeline.charts.delays import draw_delays
from twitter_pipeline.charts.tokens import draw_token_use
from twitter_pipeline.charts.tweets import draw_tweets
from twitter_pipeline.charts.waits import find_waits, find_windows, waited
from twitter_pipeline.prices import Prices
from twitter_pipeline.sandbox.windows import USER_TWEETS, TokenSpec
from twitter_pipeline.store.charts import (
    CALLS,
    MOMENTS,
    load_costs_by_account,
    load_costs_by_day,
    load_costs_by_run,
    load_delays_by_hour,
    load_run_calls,
    load_token_use,
    load_tweet_counts,
)
from twitter_pipeline.store.database import Database
from twitter_pipeline_tests.integration.conftest import MakePipeline, quiet

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LONG_AGO = datetime(2006, 1, 1, tzinfo=UTC)
PRICES = Prices(post_usd=Decimal("0.5"), user_usd=Decimal(1))
LARGEST = 50_000

ADD_CALL = """
INSERT INTO api_calls (
    called_at, endpoint, token_id, user_id, fetch_run_id, outcome, rl_limit, rl_remaining, rl_reset_at, billed_posts,
    billed_users, duration_ms
)
SELECT %(called_at)s, %(endpoint)s, id, %(user_id)s, %(run_id)s, %(outcome)s::call_outcome, %(limit)s, %(remaining)s,
       %(resets_at)s, %(posts)s, %(users)s, 250
FROM tokens WHERE env_key = %(env_key)s
"""


ADD_CALLS = """
INSERT INTO api_calls (called_at, endpoint, token_id, fetch_run_id, outcome, rl_limit, rl_remaining, rl_reset_at)
SELECT at, '/2/tweets', tokens.id, %(run_id)s, 'ok', 900, 10,
       date_bin('15 minutes', at, 'epoch') + interval '15 minutes'
FROM tokens, generate_series(%(begin)s::timestamptz, %(end)s, %(every)s) AS at
"""


class Tables:
    """Runs, calls and tweets, written straight into the tables."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.tweets = 0

    def run(
        self, kind: str = "history", *, began: datetime = NOON, ended: datetime | None = None, usd: float = 0
    ) -> int:
        rows = self.database.execute(
            "INSERT INTO fetch_runs (kind, status, request, started_at, finished_at, cost_usd)"
            " VALUES (%(kind)s::fetch_kind, 'done', '[]', %(began)s, %(ended)s, %(usd)s) RETURNING id",
            {"kind": kind, "began": began, "ended": ended or began + timedelta(hours=1), "usd": usd},
        )
        return int(rows[0][0])

    def account(self, run_id: int, user_id: int, *, fetched: int = 1) -> None:
        self.database.execute(
            "INSERT INTO users (id, username) VALUES (%(id)s, %(name)s) ON CONFLICT DO NOTHING",
            {"id": user_id, "name": f"Name_{user_id}"},
        )
        self.database.execute(
            "INSERT INTO fetch_run_accounts (fetch_run_id, username, user_id, fetch_mode, tweets_fetched)"
            " VALUES (%s, %s, %s, 'full', %s)",
            (run_id, f"name_{user_id}", user_id, fetched),
        )

    def tweet(
        self, author_id: int, at: datetime, *, first: int | None, last: int | None = None, count: int = 1
    ) -> None:
        values = {"from": self.tweets + 1, "to": self.tweets + count, "at": at, "author_id": author_id, "first": first}
        self.tweets += count
        self.database.execute(
            "INSERT INTO tweets (id, author_id, created_at, kind, text, first_read_run_id, last_read_run_id, raw)"
            " SELECT id_at(%(at)s) + id, %(author_id)s, %(at)s, 'original', '', %(first)s, %(last)s, '{}'"
            " FROM generate_series(%(from)s::int, %(to)s::int) AS id",
            {**values, "last": first if last is None else last},
        )

    def token(self, env_key: str) -> None:
        self.database.execute("INSERT INTO tokens (env_key) VALUES (%s)", (env_key,))

    def call(self, env_key: str, at: datetime, **facts: object) -> None:
        defaults: dict[str, object] = {
            "endpoint": USER_TWEETS,
            "user_id": None,
            "run_id": None,
            "outcome": "ok",
            "limit": 900,
            "remaining": 800,
            "resets_at": NOON + timedelta(minutes=15),
            "posts": 0,
            "users": 0,
        }
        self.database.execute(ADD_CALL, {**defaults, **facts, "env_key": env_key, "called_at": at})


@pytest.fixture
def tables(database: Database) -> Tables:
    """Tables of a server whose people live where days begin at another time than in Greenwich, and clocks change."""
    database.execute("ALTER DATABASE " + str(database.engine.url.database) + " SET timezone = 'America/New_York'")  # type: ignore[arg-type]
    database.close()
    return Tables(database)


def records(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    return [tuple(None if pd.isna(value) else value for value in row) for row in frame.itertuples(index=False)]


def test_tweets_are_counted_by_the_utc_day_and_account(tables: Tables) -> None:
    run_id = tables.run()
    for user_id in (1, 2):
        tables.account(run_id, user_id)
    midnight = datetime(2026, 11, 1, tzinfo=UTC)
    tables.tweet(1, midnight - timedelta(seconds=1), first=run_id)
    tables.tweet(1, midnight, first=run_id, count=3)
    tables.tweet(2, midnight + timedelta(days=9), first=run_id)
    counts = load_tweet_counts(tables.database, run_id)

    assert (counts.step, counts.others) == ("day", 0)
    assert records(counts.frame) == [
        (midnight - timedelta(days=1), "name_1", 1),
        (midnight, "name_1", 3),
        (midnight + timedelta(days=9), "name_2", 1),
    ]
    assert draw_tweets(counts)


@pytest.mark.parametrize(
    ("span", "step", "begin"),
    [
        (timedelta(hours=30), "hour", NOON),
        (timedelta(days=100), "day", NOON.replace(hour=0)),
        (timedelta(days=500), "week", datetime(2026, 11, 16, tzinfo=UTC)),
        (timedelta(days=5000), "month", datetime(2026, 11, 1, tzinfo=UTC)),
    ],
)
def test_the_longer_the_time_the_longer_a_step(tables: Tables, span: timedelta, step: str, begin: datetime) -> None:
    run_id = tables.run()
    tables.account(run_id, 1)
    tables.tweet(1, NOON - span, first=run_id)
    tables.tweet(1, NOON + timedelta(minutes=5), first=run_id)
    counts = load_tweet_counts(tables.database, run_id)

    assert counts.step == step
    assert records(counts.frame)[-1] == (begin, "name_1", 1)


def test_only_what_the_run_read_is_counted(tables: Tables) -> None:
    earlier, run_id, later = tables.run(), tables.run(), tables.run()
    tables.account(run_id, 1)
    tables.account(run_id, 2, fetched=0)
    tables.tweet(1, NOON, first=earlier)
    tables.tweet(1, NOON, first=earlier, last=run_id)
    tables.tweet(1, NOON, first=run_id, last=later)
    tables.tweet(3, NOON, first=run_id)

    assert records(load_tweet_counts(tables.database, run_id).frame) == [(NOON, "name_1", 2)]
    assert load_tweet_counts(tables.database, later).frame.empty


def test_the_accounts_with_most_tweets_are_named_and_the_rest_are_others(tables: Tables) -> None:
    run_id = tables.run()
    for user_id in range(1, 10):
        tables.account(run_id, user_id)
        tables.tweet(user_id, NOON, first=run_id, count=user_id)
    counts = load_tweet_counts(tables.database, run_id)

    assert counts.others == 2
    assert records(counts.frame) == [*((NOON, f"name_{user_id}", user_id) for user_id in range(3, 10)), (NOON, None, 3)]


def test_of_a_run_of_the_watch_the_newest_tweets_are_looked_at(tables: Tables) -> None:
    run_id = tables.run("incremental")
    tables.account(run_id, 1, fetched=2)
    tables.tweet(1, NOON, first=run_id, count=2)
    tables.tweet(1, NOON - timedelta(hours=1), first=None, count=150)
    tables.tweet(1, NOON - timedelta(hours=2), first=run_id)

    assert records(load_tweet_counts(tables.database, run_id).frame) == [(NOON, "name_1", 2)]


def test_years_of_two_hundred_accounts_are_a_small_frame_and_a_small_picture(database: Database) -> None:
    tables = Tables(database)
    run_id = tables.run()
    database.execute("INSERT INTO users (id) SELECT generate_series(1, 200)")
    database.execute(
        "INSERT INTO fetch_run_accounts (fetch_run_id, username, user_id, fetch_mode, tweets_fetched)"
        " SELECT %s, 'name_' || id, id, 'full', 300 FROM users",
        (run_id,),
    )
    database.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, first_read_run_id, raw)"
        " SELECT n, n %% 200 + 1, %(now)s - n * 0.03 * interval '1 day', 'original', '', %(run_id)s, '{}'"
        " FROM generate_series(1, 60000) n",
        {"now": NOON, "run_id": run_id},
    )
    counts = load_tweet_counts(database, run_id)
    png = draw_tweets(counts)

    assert (counts.step, counts.others) == ("month", 193)
    assert len(counts.frame) <= 8 * 61
    assert counts.frame["tweets"].sum() == 60_000
    assert png is not None
    assert len(png) <= LARGEST


def test_the_calls_of_a_run_are_those_that_the_api_counted_and_its_waits_those_that_it_made(
    make_pipeline: MakePipeline,
) -> None:
    token = TokenSpec("a", limits={USER_TWEETS: 3})
    pipeline = make_pipeline(quiet("nasa", 350), tokens=[token], window_seconds=2.0, concurrency=1)
    report = pipeline.run("nasa")
    calls = load_run_calls(pipeline.database, report.id)
    assert calls is not None
    windows = find_windows(calls)
    timeline = [window for window in windows if window.endpoint == USER_TWEETS]
    used_up = [window for window in timeline[:-1] if window.used_up_at is not None]
    waits = find_waits(calls, windows)

    assert sum(window.moments[-1].own for window in windows) == report.calls
    assert sum(window.moments[-1].used for window in timeline) == pipeline.timeline_calls()
    assert [window.moments[-1].used for window in used_up] == [3] * len(used_up)
    assert {wait.endpoint for wait in waits} == {USER_TWEETS}
    assert len(waits) <= len(used_up)
    # X's clock has whole seconds, so the pool begins again up to a second after each reset. And it waits when the next
    # call is due, when the tweets of the last are stored.
    spare_s = len(timeline) + 0.5
    assert report.waited_s - spare_s < waited(waits).total_seconds() < report.waited_s + 1
    assert draw_calls(calls)


def test_calls_of_others_use_a_window_up_but_are_not_the_runs(tables: Tables) -> None:
    run_id, other = tables.run(), tables.run()
    for env_key in ("TWITTER_BEARER_1", "TWITTER_BEARER_2"):
        tables.token(env_key)
    tables.call("TWITTER_BEARER_1", NOON - timedelta(minutes=5), run_id=other, remaining=400)
    tables.call("TWITTER_BEARER_1", NOON + timedelta(seconds=1), run_id=run_id, remaining=200)
    tables.call("TWITTER_BEARER_1", NOON + timedelta(seconds=2), run_id=None, remaining=0)
    tables.call(
        "TWITTER_BEARER_1", NOON + timedelta(seconds=3), run_id=run_id, outcome="too_many_requests", remaining=0
    )
    # Neither a token that the run has not used, nor what came long before it, or after.
    tables.call("TWITTER_BEARER_2", NOON + timedelta(seconds=1), run_id=other)
    tables.call("TWITTER_BEARER_1", NOON - timedelta(minutes=21), run_id=other)
    tables.call("TWITTER_BEARER_1", NOON + timedelta(hours=2), run_id=other)
    calls = load_run_calls(tables.database, run_id)
    assert calls is not None
    (window,) = find_windows(calls)

    assert (calls.begins_at, calls.ends_at, calls.waiting_for) == (NOON, NOON + timedelta(hours=1), None)
    assert (window.limit, window.moments[-1].used, window.moments[-1].own) == (900, 900, 2)
    assert (window.begins_at, window.ends_at) == (NOON - timedelta(minutes=5), NOON + timedelta(minutes=15))
    assert window.used_up_at == NOON + timedelta(seconds=2)
    assert len(window.refused_at) == 1


def test_a_run_that_works_says_what_it_waits_for(tables: Tables) -> None:
    run_id = tables.run(began=datetime.now(UTC) - timedelta(minutes=1), ended=datetime.now(UTC))
    tables.database.execute("UPDATE fetch_runs SET status = 'running', finished_at = NULL, waiting_for = '/2/users'")
    calls = load_run_calls(tables.database, run_id)

    assert calls is not None
    assert calls.waiting_for == "/2/users"
    assert calls.ends_at == pytest.approx(datetime.now(UTC), abs=timedelta(seconds=10))
    assert draw_calls(calls) is None


def test_a_run_that_is_not_there_has_no_calls(database: Database) -> None:
    assert load_run_calls(database, 5) is None
    assert load_tweet_counts(database, 5).frame.empty


def test_many_calls_are_few_rows_and_found_by_their_time(database: Database) -> None:
    tables = Tables(database)
    tables.token("TWITTER_BEARER_1")
    run_id = tables.run(ended=NOON + timedelta(minutes=30))
    for begin, end, every in (
        (NOON - timedelta(days=10), NOON + timedelta(days=10), timedelta(minutes=1)),
        (NOON, NOON + timedelta(minutes=30), timedelta(seconds=0.1)),
    ):
        database.execute(ADD_CALLS, {"run_id": run_id, "begin": begin, "end": end, "every": every})
    database.execute("ANALYZE api_calls")
    calls = load_run_calls(database, run_id)
    bounds = {
        "run_id": run_id,
        "begins_at": NOON,
        "ends_at": NOON + timedelta(minutes=30),
        "moment": timedelta(seconds=8),
    }
    plan = "\n".join(line for (line,) in database.execute("EXPLAIN " + CALLS, bounds))

    assert calls is not None
    # So many moments of the run, those of 20 minutes before it, and one more for each reset.
    assert len(calls.frame) <= MOMENTS * 5 / 3 + 5
    assert calls.frame["own"].sum() == 18_001 + 51
    assert "_called_at_idx" in plan


def test_what_was_billed_is_told_by_utc_day_and_kind_of_run(tables: Tables) -> None:
    tables.token("TWITTER_BEARER_1")
    history, pruned = tables.run("history"), 999
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    tables.call("TWITTER_BEARER_1", midnight - timedelta(seconds=1), run_id=history, posts=4)
    tables.call("TWITTER_BEARER_1", midnight, run_id=history, posts=2, users=3)
    tables.call("TWITTER_BEARER_1", midnight, run_id=history)
    tables.call("TWITTER_BEARER_1", NOON, run_id=pruned, posts=2)
    tables.call("TWITTER_BEARER_1", NOON, posts=10)
    costs = load_costs_by_day(tables.database, since=midnight - timedelta(days=1), prices=PRICES)

    assert records(costs) == [
        (midnight - timedelta(days=1), "history", 2.0),
        (midnight, "history", 4.0),
        (midnight, "incremental", 1.0),
        (midnight, "without a run", 5.0),
    ]
    assert draw_costs_by_day(costs)
    assert records(load_costs_by_day(tables.database, since=midnight, prices=PRICES)) == records(costs)[1:]


def test_what_was_billed_is_told_by_account_and_the_rest_together(tables: Tables) -> None:
    tables.token("TWITTER_BEARER_1")
    run_id = tables.run()
    for user_id in (1, 2, 3):
        tables.account(run_id, user_id)
        tables.call("TWITTER_BEARER_1", NOON, user_id=user_id, posts=user_id)
        tables.call("TWITTER_BEARER_1", NOON, user_id=user_id, posts=user_id)
    tables.call("TWITTER_BEARER_1", NOON, users=9)
    costs = load_costs_by_account(tables.database, since=LONG_AGO, prices=PRICES, accounts=2)

    assert records(costs) == [(None, 10.0), ("Name_3", 3.0), ("Name_2", 2.0)]
    assert draw_costs_by_account(costs)


def test_the_latest_runs_are_told_with_what_they_have_cost(tables: Tables) -> None:
    _, free, second, third = (
        tables.run(kind, usd=usd) for kind, usd in (("history", 1), ("history", 0), ("backfill", 2.5), ("history", 3))
    )
    costs = load_costs_by_run(tables.database, count=2)

    assert free not in set(costs["fetch_run_id"])
    assert records(costs) == [(third, "history", 3.0), (second, "backfill", 2.5)]
    assert draw_costs_by_run(costs)


def test_the_use_of_tokens_is_the_most_of_any_of_their_windows(tables: Tables) -> None:
    for number in (1, 2, 3):
        tables.token(f"TWITTER_BEARER_{number}")
    now = datetime.now(UTC)
    begin = datetime.fromtimestamp((now - timedelta(hours=2)).timestamp() // 1800 * 1800, UTC)
    tables.call("TWITTER_BEARER_1", begin, remaining=450)
    tables.call("TWITTER_BEARER_1", begin + timedelta(minutes=29), remaining=90)
    tables.call("TWITTER_BEARER_1", begin, endpoint="/2/users/by", limit=300, remaining=297)
    tables.call(
        "TWITTER_BEARER_1", begin + timedelta(minutes=30), outcome="too_many_requests", limit=None, remaining=None
    )
    tables.call("TWITTER_BEARER_1", now - timedelta(hours=25))
    tables.call("TWITTER_BEARER_3", begin)
    use = load_token_use(tables.database, ["TWITTER_BEARER_1", "TWITTER_BEARER_2"])

    assert records(use.frame) == [
        ("TWITTER_BEARER_1", begin, 3, 0.9, 0),
        ("TWITTER_BEARER_1", begin + timedelta(minutes=30), 1, None, 1),
        ("TWITTER_BEARER_2", None, None, None, None),
    ]
    assert use.ends_at - use.begins_at == timedelta(days=1)
    assert draw_token_use(use)


def test_delays_are_told_by_the_hour_in_which_tweets_were_stored(tables: Tables) -> None:
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    tables.database.execute("INSERT INTO users (id) VALUES (1)")
    tables.database.execute(
        "INSERT INTO user_state (user_id, is_tracked, tracked_since) VALUES (1, true, now() - interval '9 days')"
    )
    for stored_at, delay_s in ((hour, 100), (hour + timedelta(minutes=59), 300), (hour + timedelta(hours=1), 60)):
        tables.tweet(1, stored_at - timedelta(seconds=delay_s), first=None)
        tables.database.execute(
            "UPDATE tweets SET first_read_at = %s WHERE id = (SELECT max(id) FROM tweets)", (stored_at,)
        )
    delays = load_delays_by_hour(tables.database)

    assert records(delays) == [(hour, 2, 200.0, 290.0), (hour + timedelta(hours=1), 1, 60.0, 60.0)]
    assert draw_delays(delays, promise=timedelta(minutes=15))
