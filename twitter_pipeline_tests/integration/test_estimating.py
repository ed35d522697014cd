"""Estimates held against what the runs then take, over the sandbox and a real database."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from twitter_pipeline import calls
from twitter_pipeline import session as session_module
from twitter_pipeline.accounts import Account, Resolution
from twitter_pipeline.estimate import Estimate, LookUps, Work
from twitter_pipeline.estimating import estimate_accounts, estimate_request
from twitter_pipeline.months import Months
from twitter_pipeline.request import FULL, NEW, FetchMode, FetchRequest
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.faults import Fault, Faults
from twitter_pipeline.sandbox.windows import USER_TWEETS, TokenSpec
from twitter_pipeline.session import FetchSession
from twitter_pipeline.settings import Detection, Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import RunReport
from twitter_pipeline.words import FetchKind, Source
from twitter_pipeline_tests.conftest import MakeSandbox, Sandbox
from twitter_pipeline_tests.integration.conftest import quiet
from twitter_pipeline_tests.of_2023 import SPRING, no_archive, of_a_year

EVERY_TABLE = "SELECT (SELECT count(*) FROM tweets), (SELECT count(*) FROM fetch_runs), (SELECT count(*) FROM walks)"


@dataclass
class Counter:
    """Where people ask what something costs, and then take it."""

    sandbox: Sandbox
    database: Database
    settings: Settings

    def ask(self, *usernames: str, mode: FetchMode = FULL) -> Estimate:
        return estimate_request(self.settings, self.database, _requests(usernames, mode))

    def take(self, *usernames: str, mode: FetchMode = FULL, kind: FetchKind = FetchKind.HISTORY) -> RunReport:
        with FetchSession(self.settings, self.database, requests=_requests(usernames, mode), kind=kind) as session:
            session.fetch_all()
            return session.finish()

    def billed(self) -> Decimal:
        """What X would bill by now, as the sandbox has counted it."""
        prices, api = self.settings.prices, self.sandbox.api
        return api.posts_billed() * prices.post_usd + api.users_billed() * prices.user_usd


def _requests(usernames: Sequence[str], mode: FetchMode) -> list[FetchRequest]:
    return [FetchRequest(username, fetch_mode=mode) for username in usernames]


MakeCounter = Callable[..., Counter]


@pytest.fixture
def make_counter(make_sandbox: MakeSandbox, database: Database, database_url: str) -> MakeCounter:
    def make(*accounts: AccountSpec, **options: Any) -> Counter:
        sandbox = make_sandbox(accounts, **options)
        settings = replace(
            Settings(),
            bearer_tokens=sandbox.bearer_tokens,
            api_url=sandbox.serve(),
            database_url=database_url,
            confirm_after=timedelta(0),
        )
        return Counter(sandbox, database, settings)

    return make


def taken(report: RunReport) -> Work:
    return Work(report.tweets_new, report.billed_posts, report.calls)


@pytest.mark.parametrize(
    "mode",
    [FULL, NEW, FetchMode(1), FetchMode(51), FetchMode(120), FetchMode(10_000)],
    ids=lambda mode: str(mode),
)
def test_of_accounts_that_were_never_fetched_the_estimate_is_what_the_run_takes(
    make_counter: MakeCounter, mode: FetchMode
) -> None:
    sizes = {"none": 0, "one": 1, "page": 50, "more": 51, "some": 130, "many": 520}
    counter = make_counter(*(quiet(name, tweets) for name, tweets in sizes.items()))

    estimate = counter.ask(*sizes, mode=mode)
    billed_before = counter.billed()
    report = counter.take(*sizes, mode=mode)

    each = {account.request.username: account.likely for account in estimate.accounts}
    reported = {
        account.username: Work(account.tweets_new, account.billed_posts, account.calls)
        for account in report.account_reports
    }
    assert each == reported
    assert (estimate.likely, estimate.cost_usd) == (taken(report), report.cost_usd)
    assert counter.billed() - billed_before == report.cost_usd
    assert estimate.most.at_least(estimate.likely) == estimate.most


def test_beyond_the_reach_of_the_timeline_nothing_is_promised_and_that_is_told(make_counter: MakeCounter) -> None:
    counter = make_counter(quiet("someone", 3300))
    counter.settings = replace(counter.settings, page_size=100)

    first = counter.ask("someone")
    report = counter.take("someone")
    second = counter.ask("someone")
    again = counter.take("someone")

    assert (first.likely, first.accounts[0].beyond_reach) == (taken(report), 100)
    assert (second.likely, second.accounts[0].beyond_reach) == (taken(again), 100)
    assert second.cost_usd == second.likely.posts == 0


def test_the_estimate_writes_names_and_nothing_else_and_says_what_it_has_cost(make_counter: MakeCounter) -> None:
    counter = make_counter(quiet("someone", 60), quiet("other", 5))
    first = counter.ask("someone", "other", "protected_one", "missing_one")
    billed = counter.billed()
    rows = counter.database.execute("SELECT endpoint, fetch_run_id, billed_users FROM api_calls")
    again = counter.ask("someone", "other")
    tables = counter.database.execute(EVERY_TABLE)
    run = counter.take("someone", "other", "protected_one", "missing_one")

    assert first.looked_up == LookUps(names=4, calls=1, users=3)
    assert billed == first.looked_up.cost_usd(first.prices) == Decimal("0.03")
    assert rows == [("/2/users/by", None, 3)]
    assert first.absent == (
        ("protected_one", "the account is protected: only its followers can read it"),
        ("missing_one", "X knows no account of this name"),
    )
    assert again.looked_up == LookUps()
    assert tables == [(0, 0, 0)]
    # Those that cannot be had are looked up again, as they may be back.
    assert (first.likely, first.cost_usd) == (taken(run), run.cost_usd)


def test_what_is_stored_is_not_reckoned_with_again(make_counter: MakeCounter) -> None:
    counter = make_counter(quiet("someone", 300), quiet("other", 40))
    counter.take("someone", mode=FetchMode(100))
    wider = counter.ask("someone", mode=FetchMode(150)), counter.take("someone", mode=FetchMode(150))
    rest = counter.ask("someone", "other"), counter.take("someone", "other")
    nothing = counter.ask("someone", "other"), counter.take("someone", "other")

    for estimate, report in (wider, rest, nothing):
        assert (estimate.likely, estimate.cost_usd) == (taken(report), report.cost_usd)
    assert wider[0].likely == Work(tweets=50, posts=50, calls=2)
    assert rest[0].likely == Work(tweets=190, posts=190, calls=5 - 1 + 1)
    assert nothing[0].likely == Work(tweets=0, posts=0, calls=2)


def test_a_hole_that_a_run_has_left_is_estimated_and_then_filled(
    make_counter: MakeCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(calls, "LONGEST_PAUSE_S", 0.002)
    broken = [True]

    def third_page(endpoint: str, number: int) -> Fault | None:
        return "reset" if broken[0] and endpoint == USER_TWEETS and number > 3 else None

    counter = make_counter(quiet("someone", 300), faults=Faults(script=third_page))
    first = counter.take("someone")
    broken[0] = False
    estimate = counter.ask("someone")
    second = counter.take("someone")

    assert 0 < first.tweets_new < 300
    assert estimate.likely == taken(second)
    assert estimate.likely.tweets == 300 - first.tweets_new


def test_posts_that_were_read_on_the_same_utc_day_are_free_and_others_are_not(make_counter: MakeCounter) -> None:
    counter = make_counter(quiet("someone", 120))
    counter.take("someone")
    counter.database.execute("UPDATE user_state SET covered = '{}'")
    today = counter.ask("someone")
    counter.database.execute("UPDATE tweets SET last_read_at = last_read_at - interval '1 day' WHERE mod(id, 2) = 0")
    even = counter.database.execute("SELECT count(*) FROM tweets WHERE mod(id, 2) = 0")[0][0]
    tomorrow = counter.ask("someone")
    report = counter.take("someone")

    assert today.likely == Work(tweets=0, posts=0, calls=3)
    assert tomorrow.likely == Work(tweets=0, posts=even, calls=3) == taken(report)


def test_an_account_that_wrote_more_by_the_count_of_today_is_asked_for_the_difference(
    make_counter: MakeCounter,
) -> None:
    counter = make_counter(quiet("someone", 120))
    counter.take("someone")
    counter.database.execute(
        "UPDATE users SET tweet_count = 150, profile_read_at = now() + interval '1 second', created_at = '2020-01-01'"
    )
    for mode in (FULL, NEW):
        assert counter.ask("someone", mode=mode).likely == Work(tweets=30, posts=30, calls=1)


def test_news_follow_from_the_learned_rate_and_the_time_since_the_last_look(make_counter: MakeCounter) -> None:
    counter = make_counter(quiet("someone", 120))
    counter.take("someone")
    counter.database.execute(
        "UPDATE user_state SET tweets_per_hour = 10, rate_known_at = now(), rate_hours = array_fill(1.0, ARRAY[24]),"
        " rate_tweets = array_fill(10.0, ARRAY[24]), last_polled_at = now() - interval '12 hours', covered ="
        " int8multirange(int8range(1, (floor(extract(epoch FROM now() - interval '12 hours') * 1000)::bigint"
        " - 1288834974657) << 22))"
    )
    counter.database.execute("UPDATE users SET profile_read_at = now() - interval '1 day'")
    estimate = counter.ask("someone", mode=NEW)

    assert estimate.likely == Work(tweets=120, posts=120, calls=3)
    assert estimate.most.tweets >= 240


def test_tweets_that_x_counts_but_has_not_shown_are_not_expected_again(make_counter: MakeCounter) -> None:
    counter = make_counter(quiet("someone", 120))
    counter.ask("someone")
    counter.database.execute("UPDATE users SET tweet_count = 125, profile_read_at = now() - interval '1 minute'")
    first = counter.take("someone")
    estimate = counter.ask("someone")
    second = counter.take("someone")

    assert first.tweets_new == 120
    assert estimate.likely == taken(second)
    assert estimate.likely.posts == 0
    assert estimate.most.posts == 0  # the end was shown again: what is missing was deleted or withheld


def test_every_run_of_people_records_what_it_was_expected_to_take(make_counter: MakeCounter) -> None:
    counter = make_counter(quiet("someone", 120), quiet("other", 60))
    report = counter.take("someone", "other", "missing_one")
    again = counter.take("someone", "other")
    watch = counter.take("someone", kind=FetchKind.INCREMENTAL, mode=NEW)

    assert report.expected is not None
    assert again.expected is not None
    for each in (report, again):
        assert each.expected is not None
        assert (each.expected.calls, each.expected.posts, each.expected.cost_usd) == (
            each.calls,
            each.billed_posts,
            each.cost_usd,
        )
    assert report.expected.seconds is not None
    assert report.expected.seconds > again.expected.seconds > 0  # type: ignore[operator]
    assert watch.expected is None


def test_a_run_goes_on_when_it_cannot_be_estimated(make_counter: MakeCounter, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Estimate:
        raise ValueError("no idea")

    monkeypatch.setattr(session_module, "estimate_accounts", broken)
    report = make_counter(quiet("someone", 5)).take("someone")

    assert (report.tweets_new, report.expected) == (5, None)


def test_estimating_takes_as_many_queries_for_a_hundred_accounts_as_for_two(
    make_counter: MakeCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"account_{number:03}" for number in range(100)]
    counter = make_counter(*(quiet(name, 6) for name in names))
    counter.take(*names, mode=FetchMode(5))
    asked: list[int] = []
    plain = Database.execute

    def counted(database: Database, *arguments: Any) -> Any:
        asked[-1] += 1
        return plain(database, *arguments)

    monkeypatch.setattr(Database, "execute", counted)
    for some in (names[:2], names):
        asked.append(0)
        estimate = counter.ask(*some)
        assert estimate.likely.tweets == len(some)

    assert asked[0] == asked[1]


def test_time_follows_from_the_limits_that_the_tokens_have_now(make_counter: MakeCounter) -> None:
    tokens = [TokenSpec("first", limits={USER_TWEETS: 20}), TokenSpec("second", limits={USER_TWEETS: 10})]
    counter = make_counter(*(quiet(f"account_{number:02}", 5) for number in range(90)), tokens=tokens)
    names = [f"account_{number:02}" for number in range(90)]
    unknown = counter.ask(*names)
    counter.take(*names[:2], mode=FetchMode(5))
    rows = "UPDATE tokens_endpoint_rl SET remaining = %s, \"limit\" = %s, reset_at = now() + interval '10 minutes',"
    rows += " in_flight = 0 WHERE endpoint = '/2/users/:id/tweets'"
    counter.database.execute(rows, (5, 15))  # pyright: ignore[reportArgumentType]
    known = counter.ask(*names)
    counter.database.execute("UPDATE tokens SET status = 'invalid', status_reason = 'of the test'")
    nobody = counter.ask(*names)

    # Of a window that nothing is known of X documents 10,000 calls.
    assert unknown.seconds is not None
    assert unknown.seconds < 60
    # Ten calls now, thirty in ten minutes, thirty 15 minutes later, the rest another 15 minutes later.
    assert known.likely.calls == 90
    assert known.seconds == pytest.approx(40 * 60, abs=30)
    assert (nobody.seconds, nobody.likely) == (None, known.likely)


def test_a_backfill_by_search_is_estimated_by_time_and_told_apart_from_one_by_timeline(
    make_counter: MakeCounter,
) -> None:
    counter = make_counter(of_a_year("one", 365), of_a_year("two", 365), tokens=8)
    by_search = FetchMode(months=SPRING)
    estimate = counter.ask("one", "two", mode=by_search)
    report = counter.take("one", "two", mode=by_search, kind=FetchKind.BACKFILL)
    nothing = counter.ask("one", "two", mode=by_search)
    again = counter.take("one", "two", mode=by_search, kind=FetchKind.BACKFILL)

    # Nobody knows yet that the first tweet came a year after the account was made.
    assert 0 < estimate.likely.tweets < report.tweets_new < 730 <= estimate.most.tweets < 740
    # One page, and its end once more.
    assert estimate.likely.calls == report.calls == 2
    assert (nothing.likely, nothing.most) == (taken(again), Work())
    assert report.expected is not None
    assert report.expected.calls == report.calls


def test_where_x_refuses_the_archive_a_backfill_is_estimated_by_the_timeline(make_counter: MakeCounter) -> None:
    counter = make_counter(of_a_year("one"), faults=Faults(script=no_archive))
    autumn = Months(date(2023, 10, 1), date(2023, 12, 1))
    counter.take("one", mode=FetchMode(months=autumn), kind=FetchKind.BACKFILL)
    estimate = counter.ask("one", mode=FetchMode(months=SPRING))
    timeline = counter.ask("one", mode=FetchMode(months=SPRING, source=Source.TIMELINE))
    searched = counter.ask("one", mode=FetchMode(months=SPRING, source=Source.SEARCH))

    assert (estimate.likely, estimate.most) == (timeline.likely, timeline.most)
    assert estimate.accounts[0].likely.calls > 0
    assert (searched.accounts[0].likely.calls, searched.shared) == (0, 2)


@pytest.mark.parametrize("detection", [Detection.USERS, Detection.SEARCH])
def test_where_news_are_detected_first_that_is_what_a_request_for_news_takes(
    make_counter: MakeCounter, detection: Detection
) -> None:
    names = [f"account_{number:02}" for number in range(30)]
    counter = make_counter(*(quiet(name, 20) for name in names))
    counter.settings = replace(counter.settings, watch_detection=detection)
    counter.take(*names)
    counter.database.execute("UPDATE users SET profile_read_at = profile_read_at - interval '1 day'")
    estimate = counter.ask(*names, mode=NEW)
    report = counter.take(*names, mode=NEW)

    assert (estimate.likely, estimate.cost_usd) == (taken(report), report.cost_usd)
    assert estimate.cost_usd == (Decimal("0.30") if detection is Detection.USERS else 0)
    assert estimate.likely.calls == (1 if detection is Detection.USERS else 2)


def test_a_profile_that_is_too_old_is_looked_up_and_one_of_today_is_not_billed_twice(make_counter: MakeCounter) -> None:
    counter = make_counter(quiet("someone", 5))
    counter.take("someone")
    counter.settings = replace(counter.settings, profile_max_age=timedelta(0))
    of_today = counter.ask("someone")
    counter.database.execute("UPDATE users SET profile_read_at = profile_read_at - interval '1 day'")
    of_yesterday = counter.ask("someone")

    assert of_today.looked_up == LookUps(names=1, calls=1, users=0)
    assert of_yesterday.looked_up == LookUps(names=1, calls=1, users=1)
    # The run will look it up once more.
    assert of_yesterday.likely.calls == 2


def test_no_request_is_too_large(make_counter: MakeCounter) -> None:
    counter = make_counter(quiet("someone", 5))
    counter.ask("someone")
    user_id = counter.database.execute("SELECT id FROM users")[0][0]
    now = datetime.now(UTC)
    known = [Account(FetchRequest("someone"), user_id, 5, now)] * 30_000
    estimate = estimate_accounts(counter.settings, counter.database, Resolution(accounts=known))

    assert estimate.likely == Work(150_000, 150_000, 30_000)
