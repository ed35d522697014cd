"""Estimates as arithmetic: what is missing, what it takes to read it, what it costs, how long it lasts."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.account_status import AccountStatus
from twitter_pipeline.coverage import BEYOND_ALL_IDS, EVERYTHING, LOWEST_ID, Coverage, IdRange, id_at
from twitter_pipeline.estimate import (
    AccountEstimate,
    Estimate,
    Limits,
    LookUps,
    Part,
    Work,
    budgets_now,
    estimate_searches,
    estimate_timeline,
    pages_of,
    parts_of,
)
from twitter_pipeline.months import Months
from twitter_pipeline.planning import SMALLEST_PAGE
from twitter_pipeline.prices import Prices
from twitter_pipeline.progress import WINDOW, Budget
from twitter_pipeline.request import FULL, NEW, FetchMode, FetchRequest
from twitter_pipeline.store.windows import WindowState
from twitter_pipeline.walks.evidence import REACH
from twitter_pipeline.words import HoleCause, TokenStatus
from twitter_pipeline_tests.accounts import NOW, account, ledger
from twitter_pipeline_tests.unit.test_ledger import asked, at, between, covering

BORN = datetime(2020, 1, 15, tzinfo=UTC)
SETTLE = timedelta(seconds=30)


def estimated(of: AccountStatus, mode: FetchMode = FULL, *, page_size: int = 50) -> AccountEstimate:
    found = ledger(of)
    request = FetchRequest("nasa", fetch_mode=mode)
    return estimate_timeline(request, found, parts_of(found, NOW), page_size=page_size, now=NOW, settle=SETTLE)


def of_parts(*parts: Part, mode: FetchMode = FULL, of: AccountStatus | None = None) -> AccountEstimate:
    """The estimate of an account that lies in these parts, newest first."""
    found = ledger(of or account(covered=covering(("2020-01-15", "2026-04-01"))))
    request = FetchRequest("nasa", fetch_mode=mode)
    return estimate_timeline(request, found, parts, page_size=50, now=NOW, settle=SETTLE)


HEAD = Part(IdRange(id_at(at("2026-04-01")), BEYOND_ALL_IDS), at("2026-04-01"), NOW, 0, 0, is_head=True)


def hole(since: str, until: str, size: int, **facts: int | bool) -> Part:
    part = Part(between(since, until), at(since), at(until), size, size)
    return replace(part, **facts)  # type: ignore[arg-type]


# One account


@pytest.mark.parametrize(("count", "calls"), [(0, 1), (1, 1), (50, 1), (51, 2), (3200, 64), (90_000, 64)])
def test_an_account_that_was_never_fetched_takes_what_x_counts_as_far_as_its_timeline_reaches(
    count: int, calls: int
) -> None:
    found = estimated(account(tweet_count=count, created_at=BORN))

    assert found.likely == Work(min(count, REACH), min(count, REACH), calls)
    assert found.beyond_reach == max(0, count - REACH)


def test_of_an_account_whose_tweets_x_does_not_count_all_that_a_timeline_serves_is_expected() -> None:
    assert estimated(account(tweet_count=None)).likely == Work(REACH, REACH, 64)


def test_an_account_that_is_whole_and_was_looked_at_just_now_takes_a_call_and_costs_nothing() -> None:
    whole = account(
        tweet_count=200,
        tweets_stored=200,
        kept_when_counted=200,
        created_at=BORN,
        covered=Coverage((IdRange(LOWEST_ID, id_at(at("2026-04-01"))),)),
        last_polled_at=NOW,
    )

    for mode in (FULL, NEW):
        found = estimated(whole, mode)
        # At most something new comes: its end is requested again, and once more to be confirmed.
        assert (found.likely, found.most) == (Work(calls=1), Work(calls=3))


def test_what_x_counts_beyond_a_whole_history_is_news_and_no_more_than_that() -> None:
    behind = account(
        tweet_count=260,
        tweets_stored=200,
        kept_when_counted=200,
        created_at=BORN,
        covered=Coverage((IdRange(LOWEST_ID, id_at(at("2026-04-01"))),)),
        last_polled_at=at("2026-04-02"),
        profile_read_at=NOW,
    )

    assert estimated(behind).likely == Work(60, 60, 2)


def test_where_x_counts_more_than_it_shows_news_are_told_by_the_rate() -> None:
    facts: dict[str, object] = {
        "tweet_count": 260,
        "tweets_stored": 200,
        "kept_when_counted": 200,
        "created_at": BORN,
        "covered": Coverage((between("2021-01-01", "2026-04-01"),)),
        "last_polled_at": NOW - timedelta(hours=10),
        "tweets_per_hour": 2.0,
    }
    was_asked = ledger(account(**facts), asked=(asked("full", None),))
    never_asked = ledger(account(**facts), asked=(asked("limit:200", HoleCause.INTERRUPTED),))

    assert [(part.likely, part.is_head) for part in parts_of(was_asked, NOW)] == [(20, True), (0, False)]
    assert [(part.likely, part.is_head) for part in parts_of(never_asked, NOW)] == [(20, True), (40, False)]
    assert [part.most for part in parts_of(was_asked, NOW)] == [59, 60]


def test_a_hole_beyond_the_reach_is_not_asked_for_and_told_as_such() -> None:
    found = of_parts(HEAD, hole("2024-01-01", "2025-01-01", 400, out_of_reach=True))

    assert (found.likely, found.beyond_reach) == (Work(calls=1), 400)


def test_holes_are_read_from_the_top_down_to_the_reach() -> None:
    upper = hole("2025-01-01", "2025-02-01", 300, stored_above=1000)
    lower = hole("2024-01-01", "2024-02-01", 700, stored_above=2600)
    found = of_parts(HEAD, upper, lower)

    # 3,200 less the 2,600 that are stored above it less the 300 of the hole above, whose end is requested again.
    assert found.likely == Work(300 + 300, 300 + 300, 1 + (6 + 1) + 6)
    assert found.beyond_reach == 400


def test_a_limit_counts_what_is_stored_and_stops_where_it_is_reached() -> None:
    upper = hole("2025-01-01", "2025-02-01", 60, stored_above=100)
    lower = hole("2024-01-01", "2024-02-01", 500, stored_above=140)

    def limited(limit: int) -> Work:
        return of_parts(HEAD, upper, lower, mode=FetchMode(limit)).likely

    assert limited(100) == Work(0, 0, 1)
    assert limited(130) == Work(30, 30, 2)
    # Where all of the upper hole is read its end is requested again; the lower one is not read to its end.
    assert limited(200) == Work(60, 60, 1 + (2 + 1))
    assert limited(260) == Work(60 + 60, 60 + 60, 1 + (2 + 1) + 2)


def test_a_limit_does_not_go_on_below_what_is_out_of_reach() -> None:
    upper = hole("2025-01-01", "2025-02-01", 60, stored_above=10, out_of_reach=True)
    lower = hole("2024-01-01", "2024-02-01", 500, stored_above=20)

    assert of_parts(HEAD, upper, lower, mode=FetchMode(500)).likely == Work(calls=1)


def test_what_was_read_today_is_free_and_what_was_read_before_is_billed_again() -> None:
    part = hole("2025-01-01", "2025-02-01", 60, stored=30, free=10)

    assert of_parts(HEAD, part).likely == Work(tweets=60, posts=80, calls=1 + 2)


def test_a_hole_that_is_probably_empty_takes_two_calls_and_at_most_a_third_with_a_post_from_below() -> None:
    part = hole("2025-01-01", "2025-02-01", 0, witnesses=5)
    found = of_parts(HEAD, part)

    assert found.likely == Work(tweets=0, posts=0, calls=1 + 2)
    assert found.most == Work(tweets=0, posts=1, calls=3 + 3)


def test_an_end_is_requested_again_unless_all_that_x_counts_is_stored_then() -> None:
    upper = hole("2025-01-01", "2025-02-01", 60)
    lower = hole("2024-01-01", "2024-02-01", 60)

    assert of_parts(HEAD, lower).likely.calls == 1 + 2
    assert of_parts(HEAD, upper, lower).likely.calls == 1 + (2 + 1) + 2
    assert of_parts(HEAD, upper, replace(lower, out_of_reach=True)).likely.calls == 1 + (2 + 1)


def test_new_asks_a_watched_account_for_what_was_written_since_and_its_holes_since() -> None:
    watched = account(
        covered=Coverage.of([between("2020-01-15", "2026-03-01"), between("2026-03-10", "2026-04-01")]),
        created_at=BORN,
        is_tracked=True,
        tracked_since=at("2026-02-01"),
        last_polled_at=NOW,
    )
    new = hole("2026-03-01", "2026-03-10", 70)
    old = hole("2020-01-15", "2020-02-01", 900)

    assert of_parts(HEAD, new, old, mode=NEW, of=watched).likely == Work(70, 70, 1 + (2 + 1))
    assert of_parts(HEAD, new, old, mode=NEW, of=replace(watched, is_tracked=False)).likely == Work(calls=1)


def test_months_take_their_share_of_an_account_by_time_and_at_most_all_of_it() -> None:
    fresh = account(tweet_count=365, created_at=NOW - timedelta(days=365))
    april = FetchMode(months=Months(date(2026, 4, 1), date(2026, 4, 1)))
    found = estimated(fresh, april)

    assert found.likely == Work(30, 30, 1 + 1)
    assert found.most.posts == 365


def test_months_below_the_reach_of_the_timeline_cannot_be_had_from_it() -> None:
    fresh = account(tweet_count=36_500, created_at=NOW - timedelta(days=365))
    summer = FetchMode(months=Months(date(2025, 7, 1), date(2025, 7, 1)))
    found = estimated(fresh, summer)

    assert (found.likely, found.beyond_reach) == (Work(calls=1), 3100)


modes = st.one_of(
    st.just(FULL),
    st.just(NEW),
    st.integers(1, 5_000).map(FetchMode),
    st.integers(1, 12).map(lambda month: FetchMode(months=Months(date(2025, month, 1), date(2026, 5, 1)))),
)


@st.composite
def accounts(draw: st.DrawFn) -> AccountStatus:
    """Accounts with any holes, counts and looks."""
    days = sorted(draw(st.sets(st.integers(1, 2_290), max_size=8)))
    covered = Coverage.of(
        IdRange(id_at(BORN + timedelta(days=lo)), id_at(BORN + timedelta(days=hi)))
        for lo, hi in zip(days[::2], days[1::2], strict=False)
    )
    if draw(st.booleans()) and covered:
        covered = covered | IdRange(LOWEST_ID, covered.ranges[0].lo)
    unreachable = Coverage()
    if covered and covered.ranges[0].lo > LOWEST_ID and draw(st.booleans()):
        unreachable = Coverage((IdRange(LOWEST_ID, covered.ranges[0].lo),))
    stored = draw(st.integers(0, 5_000)) if covered else 0
    is_tracked = draw(st.booleans())
    return account(
        tweet_count=draw(st.none() | st.integers(0, 20_000)),
        created_at=draw(st.sampled_from([BORN, None])),
        covered=covered,
        unreachable=unreachable,
        tweets_stored=stored,
        kept_when_counted=draw(st.integers(0, stored)),
        first_tweet_at=BORN if stored else None,
        last_tweet_at=at("2026-04-01") if stored else None,
        last_polled_at=draw(st.none() | st.integers(0, 900).map(lambda hours: NOW - timedelta(hours=hours))),
        profile_read_at=NOW - timedelta(hours=draw(st.integers(0, 900))),
        tweets_per_hour=draw(st.none() | st.floats(0, 50)),
        is_tracked=is_tracked,
        tracked_since=at("2026-01-01") if is_tracked else None,
    )


@given(accounts(), modes)
def test_nothing_is_negative_and_the_most_is_no_less_than_what_is_likely(of: AccountStatus, mode: FetchMode) -> None:
    found = estimated(of, mode)

    for work in (found.likely, found.most):
        assert min(work.tweets, work.posts, work.calls) >= 0
        assert work.tweets <= REACH
    assert found.most.at_least(found.likely) == found.most
    assert found.beyond_reach >= 0
    if mode.limit is not None:
        # The last page is of the smallest size, however few tweets were still wanted.
        assert found.likely.tweets < mode.limit + SMALLEST_PAGE


@given(
    accounts().filter(lambda each: each.tweet_count is not None), st.integers(0, 5_000), st.sampled_from([FULL, NEW])
)
def test_the_more_x_counts_the_more_is_expected(of: AccountStatus, more: int, mode: FetchMode) -> None:
    fewer, many = estimated(of, mode), estimated(replace(of, tweet_count=(of.tweet_count or 0) + more), mode)

    assert many.likely.tweets >= fewer.likely.tweets
    assert many.likely.posts >= fewer.likely.posts


@given(st.integers(0, 5_000), st.none() | st.integers(1, 5_000), st.integers(SMALLEST_PAGE, 100))
def test_pages_read_what_is_wanted_and_no_page_more_than_that_takes(
    tweets: int, wanted: int | None, page_size: int
) -> None:
    calls, read = pages_of(tweets, wanted, page_size=page_size)

    assert min(tweets, tweets if wanted is None else wanted) <= read <= tweets
    assert calls * page_size >= read
    if wanted is not None:
        assert read < wanted + SMALLEST_PAGE
        assert calls == 1 or (calls - 2) * page_size < wanted


# Searches


def test_accounts_share_the_calls_of_a_search_and_each_has_its_own_posts() -> None:
    months = Months(date(2026, 3, 1), date(2026, 4, 1))
    mode = FetchMode(months=months)
    wanted: list[tuple[FetchRequest, object, Sequence[Part]]] = []
    for name, count in (("one", 3_650), ("two", 365), ("none", 0)):
        found = ledger(account(username=name, tweet_count=count, created_at=NOW - timedelta(days=365)))
        wanted.append((FetchRequest(name, fetch_mode=mode), found, parts_of(found, NOW)))

    def searched(characters: int) -> tuple[list[int], int]:
        found = estimate_searches(wanted, page_size=500, characters=characters, settled_below=id_at(NOW))  # type: ignore[arg-type]
        return [each.likely.posts for each in found.accounts], found.calls

    # 61 days of 10 and of 1 a day: 671 in two pages; the end of each search is requested once more.
    assert searched(1_024) == ([610, 61, 0], 2 + 1)
    assert searched(10) == ([610, 61, 0], (2 + 1) + (1 + 1) + (1 + 1))


@pytest.mark.parametrize(
    ("since_days", "calls"),
    # A whole life, of which X's count will agree; a part of it, whose end is requested once more.
    [(365, 1), (100, 1 + 1)],
)
def test_the_end_of_a_search_is_requested_again_only_where_nothing_else_confirms_it(
    since_days: int, calls: int
) -> None:
    mode = FetchMode(months=Months((NOW - timedelta(days=since_days)).date().replace(day=1), NOW.date().replace(day=1)))
    found = ledger(account(username="one", tweet_count=365, created_at=NOW - timedelta(days=365)))
    wanted = [(FetchRequest("one", fetch_mode=mode), found, parts_of(found, NOW))]

    assert estimate_searches(wanted, page_size=500, characters=10, settled_below=id_at(NOW)).calls == calls


# In all


def account_estimate(name: str, posts: int) -> AccountEstimate:
    return AccountEstimate(FetchRequest(name), posts, 0, Work(posts, posts, 1), Work(2 * posts, 2 * posts, 2))


@given(st.lists(st.integers(0, 3_200), max_size=20), st.integers(0, 9))
def test_the_whole_is_the_sum_of_the_accounts_and_of_what_they_share(posts: list[int], shared: int) -> None:
    each = tuple(account_estimate(f"name_{number}", count) for number, count in enumerate(posts))
    estimate = Estimate(each, Prices(), NOW, shared=shared, shared_most=shared)

    assert estimate.likely == Work(sum(posts), sum(posts), len(posts) + shared)
    assert estimate.cost_usd == sum((estimate.cost_of(one.likely) for one in each), Decimal(0))
    assert estimate.cost_usd <= estimate.most_usd
    assert [one.likely.posts for one in estimate.by_cost] == sorted(posts, reverse=True)


def test_costs_follow_the_prices_of_the_settings() -> None:
    prices = Prices(post_usd=Decimal("0.001"), user_usd=Decimal("0.5"))
    estimate = Estimate((account_estimate("nasa", 300),), prices, NOW, looked_up=LookUps(names=3, calls=1, users=2))

    assert (estimate.cost_usd, estimate.most_usd) == (Decimal("0.300"), Decimal("0.600"))
    assert estimate.looked_up.cost_usd(prices) == Decimal("1.0")


# Time


def window(**facts: object) -> WindowState:
    defaults: dict[str, object] = {
        "env_key": "TWITTER_BEARER_1",
        "status": TokenStatus.ACTIVE,
        "status_until": None,
        "now": NOW,
        "limit": None,
        "remaining": None,
        "reset_at": None,
        "day_limit": None,
        "day_remaining": None,
        "day_reset_at": None,
        "in_flight": 0,
        "leased_at": None,
        "opened_at": None,
    }
    return WindowState(**{**defaults, **facts})  # type: ignore[arg-type]


def test_a_window_is_what_x_said_last_and_one_that_is_unknown_or_over_is_whole() -> None:
    soon = NOW + timedelta(minutes=4)
    windows = [
        window(limit=900, remaining=100, reset_at=soon, in_flight=3),
        window(limit=900, remaining=0, reset_at=NOW - timedelta(minutes=1)),
        window(),
        window(status=TokenStatus.REVOKED),
        window(status=TokenStatus.CAPPED, status_until=NOW + timedelta(days=1)),
    ]

    assert budgets_now(windows, documented=10_000) == (
        Budget(97, 900, soon),
        Budget(900, 900, NOW + WINDOW),
        Budget(10_000, 10_000, NOW + WINDOW),
    )


def test_calls_wait_for_windows_and_those_of_an_account_for_each_other() -> None:
    limits = Limits((Budget(10, 100, NOW + timedelta(minutes=5)),), call_s=0.5, side_by_side=10)

    assert limits.seconds(0, NOW) == 0
    assert limits.seconds(10, NOW) == pytest.approx(0.5)
    assert limits.seconds(10, NOW, in_a_row=10) == pytest.approx(5)
    assert limits.seconds(110, NOW) == pytest.approx(300 + 5)
    assert limits.seconds(111, NOW) == pytest.approx(300 + 900 + 0.05)
    assert replace(limits, spacing_s=1.0).seconds(10, NOW) == pytest.approx(10)
    assert replace(limits, budgets=()).seconds(10, NOW) is None


def test_the_parts_of_an_account_never_overlap_and_are_newest_first() -> None:
    found = ledger(
        account(covered=covering(("2021-01-01", "2022-01-01"), ("2023-01-01", "2026-04-01")), created_at=BORN)
    )
    parts = parts_of(found, NOW)

    assert [part.ids.hi for part in parts] == sorted((part.ids.hi for part in parts), reverse=True)
    assert len(Coverage.of(part.ids for part in parts).ranges) == len(parts)
    assert [(part.is_head, part.is_bottom) for part in parts] == [(True, False), (False, False), (False, True)]
    assert parts_of(ledger(account()), NOW)[0].ids == EVERYTHING
