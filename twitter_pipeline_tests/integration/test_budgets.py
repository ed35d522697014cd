"""Budgets in the database: what calls may cost is reserved before they are sent, by any number of processes at once."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import httpx
import pytest

from twitter_pipeline import calls
from twitter_pipeline.budgets import Budgets, Cost, Limit, Period, begin_of_month
from twitter_pipeline.calls import XApi
from twitter_pipeline.errors import BudgetReached, ConnectionFault, UnreadableAnswer
from twitter_pipeline.planning import TimelineRequest
from twitter_pipeline.prices import Prices
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.settings import PROJECT_DIR
from twitter_pipeline.store.costs import Unknown, load_unknown
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import close_run, close_vanished_runs, load_run
from twitter_pipeline.store.spending import count_spending, find_used_up, load_spent
from twitter_pipeline.store.tokens import register_tokens
from twitter_pipeline.store.windows import (
    Lease,
    Purse,
    Settlement,
    Short,
    count_no_more,
    lease_call,
    lease_call_within,
    settle_call,
)
from twitter_pipeline.tokens import TokenPool
from twitter_pipeline.words import CallOutcome
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.rate_limit import RateLimits, RateLimitWindow
from twitter_pipeline_tests.integration import spender

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TOKEN = "TWITTER_BEARER_1"  # noqa: S105 a name, not a secret

# What is counted beside what the calls say, of each day and run that is counted.
BOTH = """
SELECT coalesce(s.day::text, 'run ' || s.fetch_run_id), s.posts, s.users, s.reserved_posts, s.reserved_users,
       coalesce(sum(CASE WHEN c.outcome IS NOT NULL THEN coalesce(c.billed_posts, c.reserved_posts) END), 0)::bigint,
       coalesce(sum(CASE WHEN c.outcome IS NOT NULL THEN coalesce(c.billed_users, c.reserved_users) END), 0)::bigint,
       coalesce(sum(c.reserved_posts) FILTER (WHERE c.outcome IS NULL), 0)::bigint,
       coalesce(sum(c.reserved_users) FILTER (WHERE c.outcome IS NULL), 0)::bigint
FROM spending s
LEFT JOIN api_calls c ON (c.called_at AT TIME ZONE 'UTC')::date = s.day OR c.fetch_run_id = s.fetch_run_id
GROUP BY s.id ORDER BY s.id
"""


def assert_counted_as_billed(database: Database) -> None:
    """What is counted is the sum of the bills, the most of those that are unknown, and what calls under way reserve."""
    rows = [(name, numbers[:4], numbers[4:]) for name, *numbers in database.execute(BOTH)]
    assert rows
    assert [(name, counted) for name, counted, _ in rows] == [(name, summed) for name, _, summed in rows]


def open_window(database: Database) -> None:
    """Let no limit of X come in between."""
    database.execute("UPDATE tokens_endpoint_rl SET \"limit\" = 100000, remaining = 100000, reset_at = '2090-01-01'")


@dataclass
class Till:
    """Where calls are paid, on a given clock."""

    database: Database
    budgets: Budgets
    now: datetime = NOON
    runs: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        register_tokens(self.database, [TOKEN], [endpoint.value for endpoint in Endpoint])
        # So that no call has to find out about the window first.
        open_window(self.database)

    def open_run(self) -> int:
        (run_id,) = self.database.execute(
            "INSERT INTO fetch_runs (kind, request, started_at, heartbeat_at) VALUES ('history', '[]', %s, '-infinity')"
            " RETURNING id",
            (self.now,),
        )[0]
        self.runs.append(run_id)
        return run_id

    def ask(self, posts: int = 0, users: int = 0, *, run: int | None = None) -> Lease | Short | None:
        return lease_call_within(
            self.database,
            Endpoint.USER_TWEETS,
            [TOKEN],
            Purse(self.budgets, Prices(), Cost(posts, users)),
            lease_s=60,
            fetch_run_id=run,
            now=self.now,
        )

    def lease(self, posts: int = 0, users: int = 0, *, run: int | None = None) -> Lease:
        lease = self.ask(posts, users, run=run)
        assert isinstance(lease, Lease), lease
        return lease

    def settle(self, lease: Lease, posts: int = 0, users: int = 0) -> None:
        settle_call(
            self.database,
            lease,
            Settlement(CallOutcome.OK, status=200, billed_posts=posts, billed_users=users),
            now=self.now,
        )

    def break_off(self, lease: Lease) -> None:
        """Settle a call whose bill is unknown."""
        settle_call(self.database, lease, Settlement(CallOutcome.CONNECTION_FAULT), now=self.now)

    def pay(self, posts: int, *, run: int | None = None) -> None:
        """Send a call that costs what it may cost at most."""
        self.settle(self.lease(posts, run=run), posts)


# What may be sent


@pytest.mark.parametrize("limit", [Limit(posts=100), Limit(usd=Decimal("0.50"))])
@pytest.mark.parametrize("period", list(Period))
def test_a_call_is_sent_only_when_the_most_that_it_can_cost_is_left(
    database: Database, period: Period, limit: Limit
) -> None:
    budgets = {Period.RUN: Budgets(run=limit), Period.DAY: Budgets(day=limit), Period.MONTH: Budgets(month=limit)}
    desk = Till(database, budgets[period])
    run = desk.open_run()
    desk.pay(60, run=run)

    assert desk.ask(41, run=run) == Short(period, is_used_up=True)
    desk.pay(40, run=run)
    assert desk.ask(1, run=run) == Short(period, is_used_up=True)
    # What costs nothing is sent all the same.
    desk.settle(desk.lease(0, run=run))
    assert_counted_as_billed(database)


def test_profiles_count_in_dollars_at_their_own_price(database: Database) -> None:
    desk = Till(database, Budgets(day=Limit(usd=Decimal("1.00"))))
    desk.settle(desk.lease(users=60), users=60)

    assert desk.ask(users=41) == Short(Period.DAY, is_used_up=True)
    assert desk.ask(posts=81) == Short(Period.DAY, is_used_up=True)
    desk.settle(desk.lease(posts=80), posts=80)
    assert_counted_as_billed(database)


def test_a_call_that_is_refused_leaves_the_token_and_the_counts_as_they_were(database: Database) -> None:
    desk = Till(database, Budgets(day=Limit(posts=10)))
    desk.pay(10)
    window = "SELECT in_flight, leased_at FROM tokens_endpoint_rl WHERE endpoint = '/2/users/:id/tweets'"
    before = database.execute(window), database.execute("SELECT count(*) FROM api_calls"), database.execute(BOTH)

    assert desk.ask(10) == Short(Period.DAY, is_used_up=True)
    assert before == (
        database.execute(window),
        database.execute("SELECT count(*) FROM api_calls"),
        database.execute(BOTH),
    )


def test_what_a_call_under_way_has_reserved_is_left_alone_and_given_back_when_it_costs_less(database: Database) -> None:
    desk = Till(database, Budgets(day=Limit(posts=100)))
    under_way = desk.lease(100)
    assert_counted_as_billed(database)

    assert desk.ask(50) == Short(Period.DAY, is_used_up=False)
    desk.settle(under_way, 50)
    desk.pay(50)
    assert_counted_as_billed(database)


def test_each_run_has_a_budget_of_its_own_and_the_day_is_for_all(database: Database) -> None:
    desk = Till(database, Budgets(run=Limit(posts=50), day=Limit(posts=80)))
    first, second = desk.open_run(), desk.open_run()
    desk.pay(50, run=first)

    assert desk.ask(1, run=first) == Short(Period.RUN, is_used_up=True)
    desk.pay(30, run=second)
    assert desk.ask(1, run=second) == Short(Period.DAY, is_used_up=True)
    assert_counted_as_billed(database)


def test_a_new_utc_day_begins_anew_and_a_billing_month_on_its_day(database: Database) -> None:
    desk = Till(database, Budgets(day=Limit(posts=50), month=Limit(posts=100), billing_day=12))
    desk.pay(50)
    assert desk.ask(1) == Short(Period.DAY, is_used_up=True)

    desk.now += DAY
    desk.pay(50)
    assert desk.ask(1) == Short(Period.MONTH, is_used_up=True)

    desk.now = datetime(2026, 11, 12, 0, 0, 1, tzinfo=UTC)
    desk.pay(50)
    assert desk.ask(1) == Short(Period.DAY, is_used_up=True)
    assert_counted_as_billed(database)


def test_a_call_counts_on_the_day_on_which_it_was_sent(database: Database) -> None:
    desk = Till(database, Budgets(day=Limit(posts=50)), now=datetime(2026, 11, 10, 23, 59, 59, tzinfo=UTC))
    under_way = desk.lease(50)
    desk.now += timedelta(seconds=2)
    desk.pay(50)
    desk.settle(under_way, 20)

    days = dict(database.execute("SELECT day, posts FROM spending WHERE posts > 0"))
    assert days == {date(2026, 11, 10): 20, date(2026, 11, 11): 50}


def test_the_database_and_the_code_agree_when_a_billing_month_begins(database: Database) -> None:
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(0, 800, 7)]
    asked = [(day, billing_day) for day in days for billing_day in (1, 2, 15, 27, 28)]
    rows = database.execute(
        "SELECT begin_of_billing_month(d, b) FROM unnest(%s::date[], %s::int[]) WITH ORDINALITY AS a (d, b, n)"
        " ORDER BY n",
        ([day for day, _ in asked], [billing_day for _, billing_day in asked]),
    )

    assert [begin for (begin,) in rows] == [begin_of_month(*each) for each in asked]


# What is counted


def test_whatever_happens_to_calls_what_is_counted_is_the_sum_of_their_bills(database: Database) -> None:
    dice, open_calls, unknown = random.Random(7), list[Lease](), list[Lease]()
    desk = Till(
        database, Budgets(run=Limit(posts=400), day=Limit(posts=700), month=Limit(usd=Decimal(9)), billing_day=9)
    )
    desk.open_run()

    def settle_one() -> None:
        lease = open_calls.pop(dice.randrange(len(open_calls)))
        if dice.random() < 0.3:
            desk.break_off(lease)
            unknown.append(lease)
        else:
            desk.settle(lease, dice.randint(0, lease.reserved.posts), dice.randint(0, lease.reserved.users))

    def reread_one() -> None:
        # As the page's transaction does with posts that were read before on the same day.
        database.execute(
            "UPDATE api_calls SET billed_posts = billed_posts / 2 WHERE id = (SELECT id FROM api_calls"
            " WHERE billed_posts > 0 AND reserved_posts IS NOT NULL ORDER BY random() LIMIT 1)"
        )

    def close_one() -> None:
        # Some of its calls are answered all the same.
        close_run(database, dice.choice(desk.runs), prices=Prices())
        desk.open_run()

    for _ in range(300):
        what = dice.random()
        if what < 0.45:
            asked = desk.ask(dice.choice([0, 10, 50]), dice.choice([0, 0, 3]), run=dice.choice([None, *desk.runs[-3:]]))
            open_calls += [asked] if isinstance(asked, Lease) else []
        elif what < 0.8 and open_calls:
            settle_one()
        elif what < 0.9:
            reread_one()
        elif what < 0.93:
            close_one()
        elif what < 0.95 and unknown:
            count_no_more(database, unknown.pop(), now=desk.now)
        elif what < 0.97:
            count_spending(database, desk.budgets, now=desk.now)
        else:
            desk.now += timedelta(hours=dice.choice([1, 5]))
        assert_counted_as_billed(database)


def test_the_bill_of_a_run_is_what_its_budget_counted(database: Database) -> None:
    desk = Till(database, Budgets(run=Limit(usd=Decimal(10))))
    run = desk.open_run()
    desk.pay(50, run=run)
    desk.settle(desk.lease(users=7, run=run), users=3)
    (counted,) = load_spent(database, desk.budgets, fetch_run_id=run)
    close_run(database, run, prices=Prices())

    report = load_run(database, run_id=run)

    assert report is not None
    assert Cost(report.billed_posts, report.billed_users) == counted.billed
    assert report.cost_usd == counted.billed.usd(Prices()) == Decimal("0.280")


def test_calls_that_were_sent_without_a_budget_count_once_one_is_set(database: Database) -> None:
    desk = Till(database, Budgets(day=Limit(posts=100), month=Limit(posts=200)))
    for sent_at in (NOON, NOON - DAY, NOON - 40 * DAY):
        database.execute(
            "INSERT INTO api_calls (called_at, endpoint, token_id, outcome, billed_posts)"
            " VALUES (%s, 'x', 1, 'ok', 70)",
            (sent_at,),
        )

    assert desk.ask(31) == Short(Period.DAY, is_used_up=True)
    assert desk.ask(61) == Short(Period.MONTH, is_used_up=True)

    # And so do those that are sent without one meanwhile, when the next process begins.
    database.execute("UPDATE api_calls SET billed_posts = 100 WHERE called_at = %s", (NOON,))
    count_spending(database, desk.budgets, now=NOON)
    assert desk.ask(1) == Short(Period.DAY, is_used_up=True)


def test_counting_again_changes_nothing_when_all_was_counted(database: Database) -> None:
    desk = Till(database, Budgets(day=Limit(posts=100)))
    desk.pay(20)
    desk.lease(50)
    before = database.execute(BOTH)

    count_spending(database, desk.budgets, now=NOON)

    assert database.execute(BOTH) == before
    assert_counted_as_billed(database)


def test_what_was_spent_stays_counted_when_the_rows_of_old_calls_are_deleted(database: Database) -> None:
    desk = Till(database, Budgets(month=Limit(posts=100)))
    desk.pay(60)
    database.execute("DELETE FROM api_calls")
    desk.now += 2 * DAY
    count_spending(database, desk.budgets, now=desk.now)

    assert desk.ask(41) == Short(Period.MONTH, is_used_up=True)
    desk.pay(40)


def test_without_a_budget_nothing_is_counted(database: Database) -> None:
    desk = Till(database, Budgets())
    count_spending(database, desk.budgets)
    lease = lease_call(database, Endpoint.USER_TWEETS, [TOKEN], lease_s=60, most=Cost(posts=50))
    assert lease is not None
    desk.settle(lease, 50)

    assert database.execute("SELECT * FROM spending") == []
    assert find_used_up(database, desk.budgets, Prices(), wanted=Cost(posts=1)) is None


def test_beside_a_process_with_a_budget_the_calls_of_one_without_count_as_they_are_sent(database: Database) -> None:
    desk = Till(database, Budgets(day=Limit(posts=100)))
    desk.pay(10)
    lease = lease_call(database, Endpoint.USER_TWEETS, [TOKEN], lease_s=60, most=Cost(posts=50), now=desk.now)
    assert lease is not None
    assert desk.ask(50) == Short(Period.DAY, is_used_up=False)

    desk.settle(lease, 20)

    assert desk.ask(71) == Short(Period.DAY, is_used_up=True)
    assert_counted_as_billed(database)


# Unknown bills


def test_a_call_whose_bill_is_unknown_counts_as_spent_at_the_most_that_it_can_cost(database: Database) -> None:
    desk = Till(database, Budgets(run=Limit(posts=60), day=Limit(posts=100), month=Limit(usd=Decimal("0.50"))))
    run = desk.open_run()
    desk.break_off(desk.lease(50, run=run))

    assert desk.ask(11, run=run) == Short(Period.RUN, is_used_up=True)
    assert desk.ask(51) == Short(Period.MONTH, is_used_up=True)
    counted = [each.billed for each in load_spent(database, desk.budgets, fetch_run_id=run)]
    count_spending(database, desk.budgets, now=desk.now)
    assert_counted_as_billed(database)
    # The budget of a run may begin in the middle of it.
    database.execute("DELETE FROM spending WHERE fetch_run_id = %s", (run,))
    assert desk.ask(11, run=run) == Short(Period.RUN, is_used_up=True)
    assert counted == [each.billed for each in load_spent(database, desk.budgets, fetch_run_id=run)]
    close_run(database, run, prices=Prices())
    report = load_run(database, run_id=run)
    assert (report and report.billed_posts, report and report.cost_usd) == (0, 0)
    assert load_unknown(database, since=NOON) == Unknown(1, Cost(posts=50))


def test_a_call_that_is_repeated_on_the_same_utc_day_counts_no_more(database: Database) -> None:
    desk = Till(database, Budgets(month=Limit(posts=200)), now=datetime(2026, 11, 10, 23, 59, 50, tzinfo=UTC))
    late = desk.lease(50)
    desk.break_off(late)
    desk.now += timedelta(seconds=20)
    early = desk.lease(50)
    desk.break_off(early)

    for lease in (late, early):
        count_no_more(database, lease, now=desk.now)

    assert dict(database.execute("SELECT day, posts FROM spending WHERE posts > 0")) == {date(2026, 11, 10): 50}
    assert load_unknown(database, since=NOON) == Unknown(1, Cost(posts=50))
    assert_counted_as_billed(database)


@pytest.mark.parametrize(
    ("error", "posts"),
    [
        (httpx.ReadTimeout("slow"), 50),
        (httpx.RemoteProtocolError("closed"), 50),
        (httpx.ConnectError("refused"), 0),
        (httpx.ConnectTimeout("slow"), 0),
    ],
)
@pytest.mark.parametrize("succeeds", [True, False])
def test_the_tries_of_a_call_count_once_however_many_there_are(
    database: Database, monkeypatch: pytest.MonkeyPatch, error: Exception, posts: int, *, succeeds: bool
) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.0)
    tries = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        if tries == 5:
            return httpx.Response(503)
        if tries < 10 or not succeeds:
            raise error
        tweet = {"id": "1", "author_id": "7", "text": "hello"}
        return httpx.Response(200, json={"data": [tweet], "meta": {"result_count": 1}})

    stop = threading.Event()
    budgets = Budgets(day=Limit(posts=200))
    pool = TokenPool(database, {TOKEN: BearerToken("secret")}, lease_s=60, stop=stop, budgets=budgets)
    open_window(database)
    with XApiClient("https://api.example", transport=httpx.MockTransport(answer)) as client:
        api = XApi(client, pool, database, stop=stop)
        with nullcontext() if succeeds else pytest.raises(ConnectionFault):
            api.fetch_user_tweets(7, TimelineRequest(max_results=50), fetch_run_id=None)

    (spent,) = load_spent(database, budgets)
    assert spent.billed.posts == (1 if succeeds else posts)
    unknown = load_unknown(database, since=datetime.now(UTC) - DAY)
    assert (unknown.calls, unknown.most.posts) == ((1, posts) if posts and not succeeds else (0, 0))
    assert_counted_as_billed(database)


@pytest.mark.parametrize("body", [b"<html>", b'{"data": [{"id'], ids=["html", "cut"])
def test_a_response_that_cannot_be_read_may_be_billed(
    database: Database, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.0)
    stop = threading.Event()
    pool = TokenPool(database, {TOKEN: BearerToken("secret")}, lease_s=60, stop=stop)
    open_window(database)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    with XApiClient("https://api.example", transport=transport) as client, pytest.raises(UnreadableAnswer):
        XApi(client, pool, database, stop=stop).fetch_users([7, 8], fetch_run_id=None)

    assert load_unknown(database, since=datetime.now(UTC) - DAY) == Unknown(1, Cost(users=2))


# Deaths


def test_what_the_calls_of_a_dead_run_may_have_cost_is_spent_when_it_is_closed(database: Database) -> None:
    desk = Till(database, Budgets(run=Limit(posts=100), day=Limit(posts=100)))
    run = desk.open_run()
    desk.pay(30, run=run)
    desk.lease(50, run=run)
    assert desk.ask(50) == Short(Period.DAY, is_used_up=False)

    close_vanished_runs(database, prices=Prices())

    assert desk.ask(50) == Short(Period.DAY, is_used_up=True)
    desk.pay(20)
    assert_counted_as_billed(database)


def test_what_died_outside_of_a_run_is_spent_after_a_while(database: Database) -> None:
    desk = Till(database, Budgets(day=Limit(posts=100)))
    desk.lease(60)
    count_spending(database, desk.budgets, now=NOON + timedelta(minutes=14))
    assert desk.ask(60) == Short(Period.DAY, is_used_up=False)

    count_spending(database, desk.budgets, now=NOON + timedelta(minutes=16))

    assert desk.ask(60) == Short(Period.DAY, is_used_up=True)
    assert database.execute("SELECT outcome::text FROM api_calls") == [("lost",)]
    assert_counted_as_billed(database)


def test_without_a_budget_too_it_is_known_what_may_have_been_billed_to_calls_that_died(database: Database) -> None:
    desk = Till(database, Budgets())
    run = desk.open_run()
    for run_id, age in ((run, 0), (None, 14), (None, 16)):
        lease_call(
            database,
            Endpoint.USERS,
            [TOKEN],
            lease_s=60,
            fetch_run_id=run_id,
            most=Cost(users=age + 1),
            now=datetime.now(UTC) - timedelta(minutes=age),
        )
    close_vanished_runs(database, prices=Prices())

    assert load_unknown(database, since=NOON) == Unknown(2, Cost(users=1 + 17))


def test_a_call_that_was_taken_for_lost_and_is_answered_after_all_counts_what_it_cost(database: Database) -> None:
    desk = Till(database, Budgets(day=Limit(posts=100)))
    run = desk.open_run()
    under_way = desk.lease(50, run=run)
    close_vanished_runs(database, prices=Prices())
    assert desk.ask(51) == Short(Period.DAY, is_used_up=True)

    desk.settle(under_way, 40)

    assert desk.ask(61) == Short(Period.DAY, is_used_up=True)
    desk.pay(60)
    assert_counted_as_billed(database)


def test_the_row_of_a_call_that_a_crash_of_the_server_lost_counts_when_it_is_settled(database: Database) -> None:
    desk = Till(database, Budgets(day=Limit(posts=100)))
    desk.pay(10)
    under_way = desk.lease(50)
    # The row and what was reserved with it were one transaction.
    database.execute("DELETE FROM api_calls WHERE id = %s", (under_way.call_id,))
    database.execute("UPDATE spending SET reserved_posts = 0")

    desk.settle(under_way, 40)

    assert_counted_as_billed(database)


# Many at once


def test_processes_and_threads_together_use_a_budget_up_and_never_pass_it(
    database: Database, database_url: str
) -> None:
    posts = 600
    # The database itself refuses the first moment at which more is spent and reserved than may be.
    database.execute("ALTER TABLE spending ADD CHECK (posts + reserved_posts <= 600)")

    processes = [
        subprocess.Popen(
            [sys.executable, "-m", spender.__name__, database_url, str(posts), str(seed)],
            cwd=PROJECT_DIR,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(3)
    ]
    said = [process.communicate(timeout=60) for process in processes]

    assert [errors for _, errors in said] == ["", "", ""]
    billed = sum(int(out) for out, _ in said)
    assert posts - spender.MOST_A_CALL < billed <= posts
    assert database.execute("SELECT sum(billed_posts) FROM api_calls") == [(billed,)]
    assert_counted_as_billed(database)


@pytest.fixture
def pool(database: Database) -> Iterator[TokenPool]:
    """A pool with a budget of 100 posts a day, and a window of which all is known."""
    stop = threading.Event()
    pool = TokenPool(
        database, {TOKEN: BearerToken("secret")}, lease_s=0.5, stop=stop, budgets=Budgets(day=Limit(posts=100))
    )
    open_window(database)
    yield pool
    stop.set()


def test_who_could_be_paid_by_what_calls_under_way_give_back_waits_for_them(pool: TokenPool) -> None:
    under_way = pool.lease(Endpoint.USER_TWEETS, most=Cost(posts=100))
    answer = threading.Timer(
        0.2,
        pool.settle,
        (under_way.lease, Settlement(CallOutcome.OK, billed_posts=50, billed_users=0)),
    )
    answer.start()

    grant = pool.lease(Endpoint.USER_TWEETS, most=Cost(posts=50))
    answer.join()

    assert grant.waited_s >= 0.2


def test_a_wait_for_calls_that_nobody_will_answer_ends(pool: TokenPool) -> None:
    pool.lease(Endpoint.USER_TWEETS, most=Cost(posts=100))

    with pytest.raises(BudgetReached, match="held by calls that were never answered"):
        pool.lease(Endpoint.USER_TWEETS, most=Cost(posts=50))


def test_a_budget_that_is_used_up_is_told_with_its_end(pool: TokenPool) -> None:
    grant = pool.lease(Endpoint.USER_TWEETS, most=Cost(posts=100))
    pool.settle(grant.lease, Settlement(CallOutcome.OK, billed_posts=100, billed_users=0))

    with pytest.raises(BudgetReached) as reached:
        pool.lease(Endpoint.USER_TWEETS, most=Cost(posts=50))

    assert str(reached.value) == "the budget of the day is used up (100 of 100 posts) until 00:00 UTC"
    assert reached.value.until is not None
    assert timedelta() < reached.value.until - datetime.now(UTC) <= DAY


def test_whoever_waits_for_a_window_is_told_at_once_when_the_budget_is_used_up(pool: TokenPool) -> None:
    grant = pool.lease(Endpoint.USER_TWEETS, most=Cost(posts=100))
    used_up = RateLimits(window=RateLimitWindow(limit=1, remaining=0, reset_epoch=4_000_000_000))
    pool.settle(grant.lease, Settlement(CallOutcome.OK, rate_limits=used_up, billed_posts=100, billed_users=0))

    with pytest.raises(BudgetReached):
        pool.lease(Endpoint.USER_TWEETS, most=Cost(posts=50))
