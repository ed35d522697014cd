"""Budgets: when billing months begin and end, what is left, and in which words."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.budgets import (
    Budgets,
    Cost,
    Limit,
    Period,
    Spent,
    begin_of_month,
    describe_used_up,
    dollars,
    end_of,
    first_short,
)
from twitter_pipeline.prices import Prices

PRICES = Prices()
NOW = datetime(2026, 2, 10, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 2, 11, tzinfo=UTC)


def spent(period: Period, posts: int, users: int = 0, *, reserved: int = 0) -> Spent:
    until = end_of(period, NOW, billing_day=1)
    return Spent(period, Cost(posts, users), Cost(reserved), NOW, until)


@pytest.mark.parametrize(
    ("day", "billing_day", "begin"),
    [
        (date(2026, 2, 1), 1, date(2026, 2, 1)),
        (date(2026, 2, 28), 1, date(2026, 2, 1)),
        (date(2026, 3, 1), 28, date(2026, 2, 28)),
        (date(2026, 3, 27), 28, date(2026, 2, 28)),
        (date(2026, 3, 28), 28, date(2026, 3, 28)),
        (date(2024, 2, 29), 28, date(2024, 2, 28)),
        (date(2026, 1, 5), 10, date(2025, 12, 10)),
        (date(2025, 12, 31), 28, date(2025, 12, 28)),
    ],
)
def test_a_billing_month_begins_on_its_day(day: date, billing_day: int, begin: date) -> None:
    assert begin_of_month(day, billing_day) == begin


@given(st.dates(date(2006, 1, 1), date(2100, 1, 1)), st.integers(1, 28))
def test_every_day_lies_in_one_billing_month_and_the_next_begins_where_it_ends(day: date, billing_day: int) -> None:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    begin, end = begin_of_month(day, billing_day), end_of(Period.MONTH, noon, billing_day=billing_day)

    assert end is not None
    assert begin <= day < end.date()
    assert begin.day == end.day == billing_day
    assert 28 <= (end.date() - begin).days <= 31
    assert begin_of_month(end.date(), billing_day) == end.date()
    assert begin_of_month(end.date() - timedelta(days=1), billing_day) == begin


def test_days_and_months_end_at_midnight_utc_wherever_one_is() -> None:
    in_tokyo = datetime(2026, 2, 1, 8, tzinfo=timezone(timedelta(hours=9)))

    assert end_of(Period.DAY, in_tokyo, billing_day=1) == datetime(2026, 2, 1, tzinfo=UTC)
    assert end_of(Period.MONTH, in_tokyo, billing_day=1) == datetime(2026, 2, 1, tzinfo=UTC)
    assert end_of(Period.RUN, in_tokyo, billing_day=1) is None


def test_a_limit_may_be_reached_to_the_cent_and_not_passed() -> None:
    limit = Limit(usd=Decimal("1.00"))

    assert limit.allows(Cost(posts=200), PRICES)
    assert not limit.allows(Cost(posts=201), PRICES)
    assert limit.allows(Cost(posts=100, users=50), PRICES)
    assert not limit.allows(Cost(posts=100, users=51), PRICES)
    assert not Limit(posts=10).allows(Cost(posts=11), PRICES)
    assert Limit(posts=10).allows(Cost(users=1000), PRICES)
    assert not Limit(usd=Decimal(0)).allows(Cost(posts=1), PRICES)


def test_of_several_budgets_that_are_used_up_the_one_that_ends_last_is_told() -> None:
    budgets = Budgets(run=Limit(posts=10), day=Limit(posts=10), month=Limit(posts=10))
    all_spent = [spent(Period.RUN, 10), spent(Period.DAY, 10), spent(Period.MONTH, 10)]

    short = [first_short(all_spent[:count], budgets, PRICES, wanted=Cost(posts=1)) for count in range(4)]

    assert [each and each.period for each in short] == [None, Period.RUN, Period.DAY, Period.MONTH]


def test_what_calls_under_way_have_reserved_does_not_use_a_budget_up() -> None:
    budgets = Budgets(day=Limit(posts=10))

    assert first_short([spent(Period.DAY, 5, reserved=5)], budgets, PRICES, wanted=Cost(posts=5)) is None


@pytest.mark.parametrize(
    ("budgets", "period", "posts", "words"),
    [
        (
            Budgets(day=Limit(usd=Decimal(5))),
            Period.DAY,
            1000,
            "the budget of the day is used up ($5.00 of $5.00) until 00:00 UTC",
        ),
        (
            Budgets(month=Limit(usd=Decimal("7.5"), posts=1000)),
            Period.MONTH,
            1000,
            "the budget of the month is used up ($5.00 of $7.50, 1,000 of 1,000 posts) until 2026-03-01 00:00 UTC",
        ),
        (
            Budgets(run=Limit(usd=Decimal(1))),
            Period.RUN,
            170,
            "the budget of the run is used up ($0.85 of $1.00, and the next call could cost $0.25)",
        ),
    ],
)
def test_a_budget_that_is_used_up_is_told_with_its_amounts_and_its_end(
    budgets: Budgets, period: Period, posts: int, words: str
) -> None:
    assert describe_used_up(spent(period, posts), budgets, PRICES, wanted=Cost(posts=50)) == words


def test_dollars_are_told_to_the_cent_and_finer_where_there_is_more() -> None:
    assert [dollars(Decimal(each)) for each in ("0", "0.005", "1.2", "1234.50")] == [
        "$0.00",
        "$0.005",
        "$1.20",
        "$1,234.50",
    ]


def test_nothing_is_a_budget_until_a_limit_is_set() -> None:
    assert not Budgets(billing_day=5)
    assert Budgets(month=Limit(posts=0))
