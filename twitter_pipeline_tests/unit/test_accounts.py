"""How old a profile may be to serve a request."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from twitter_pipeline.accounts import age_that_serves
from twitter_pipeline.months import Months
from twitter_pipeline.request import FULL, NEW, FetchMode, FetchRequest
from twitter_pipeline.words import Source

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
