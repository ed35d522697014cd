"""How old a profile may be to serve a request, and what contradicts a name."""

from datetime import UTC, date, datetime, timedelta, timezone

import orjson
import pytest

from twitter_pipeline.accounts import Account, age_that_serves
from twitter_pipeline.months import Months
from twitter_pipeline.request import FULL, NEW, FetchMode, FetchRequest
from twitter_pipeline.words import Source
from twitter_pipeline.x_api.parsing import read_users

MONTHS = Months(date(2024, 1, 1), date(2024, 3, 1))
WEEK = timedelta(days=7)
NOW = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)
SINCE_MIDNIGHT = timedelta(hours=9, minutes=30)


@pytest.mark.parametrize(
    ("modes", "age"),
    [
        ([], WEEK),
        ([FULL, NEW, FetchMode(50)], WEEK),
        ([FetchMode(months=MONTHS, source=Source.TIMELINE)], timedelta(days=1)),
        ([FetchMode(months=MONTHS, source=Source.SEARCH)], SINCE_MIDNIGHT),
        ([FetchMode(months=MONTHS)], SINCE_MIDNIGHT),
        ([FULL, FetchMode(months=MONTHS)], SINCE_MIDNIGHT),
    ],
)
def test_a_backfill_wants_profiles_of_a_day_and_a_search_those_of_this_utc_day(
    modes: list[FetchMode], age: timedelta
) -> None:
    requests = [FetchRequest("nasa", fetch_mode=mode) for mode in modes]

    assert age_that_serves(requests, profile_max_age=WEEK, now=NOW) == age


def test_profiles_that_are_to_be_younger_are_so_for_a_search_too() -> None:
    requests = [FetchRequest("nasa", fetch_mode=FetchMode(months=MONTHS))]

    assert age_that_serves(requests, profile_max_age=timedelta(hours=1), now=NOW) == timedelta(hours=1)


def test_the_day_is_that_of_utc_wherever_the_clock_stands() -> None:
    requests = [FetchRequest("nasa", fetch_mode=FetchMode(months=MONTHS))]
    in_tokyo = NOW.astimezone(timezone(timedelta(hours=9)))

    assert age_that_serves(requests, profile_max_age=WEEK, now=in_tokyo) == SINCE_MIDNIGHT


@pytest.mark.parametrize(
    ("user_id", "counted_at", "may"),
    [
        (None, NOW - timedelta(hours=9), False),
        (None, NOW - timedelta(hours=10), True),
        (None, (NOW - timedelta(hours=9)).astimezone(timezone(timedelta(hours=-7))), False),
        (None, None, True),
        (7, NOW - WEEK, False),
    ],
    ids=["same day", "day before", "same day elsewhere", "never read", "asked for by id"],
)
def test_a_name_may_be_lost_since_an_earlier_utc_day(
    user_id: int | None, counted_at: datetime | None, may: bool
) -> None:
    account = Account(FetchRequest("nasa", user_id=user_id), 7, 5, counted_at)

    assert account.may_have_lost_name(NOW) is may


@pytest.mark.parametrize(
    ("users", "is_contradicted"),
    [
        ([], False),
        ([(7, "NASA")], False),
        ([(8, "esa")], False),
        ([(7, "nasa_now")], True),
        ([(8, "Nasa")], True),
        ([(7, "nasa"), (8, "esa"), (9, "nasa")], True),
    ],
    ids=["nobody", "itself", "another", "renamed", "another holder", "two holders"],
)
def test_an_account_is_contradicted_by_a_user_with_its_id_or_its_name_alone(
    users: list[tuple[int, str]], is_contradicted: bool
) -> None:
    shown = read_users(orjson.dumps({"data": [{"id": str(each), "username": name} for each, name in users]})).users

    assert Account(FetchRequest("nasa"), 7, 5, NOW).is_contradicted_by(shown) is is_contradicted
