"""Months as ids."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.coverage import LOWEST_ID, Coverage, IdRange, id_at, time_at
from twitter_pipeline.months import FIRST_MONTH, Months, month_after, month_of, read_month

dated_months = st.dates(date(2011, 1, 1), date(2040, 12, 1)).map(lambda day: day.replace(day=1))


@given(dated_months, st.integers(0, 40))
def test_months_side_by_side_are_the_ids_of_all_of_them(first: date, more: int) -> None:
    last = first
    for _ in range(more):
        last = month_after(last)
    months = Months(first, last)

    assert Coverage.of(month.ids for month in months) == Coverage((months.ids,))
    assert len(list(months)) == more + 1


@given(dated_months)
def test_a_month_holds_the_ids_of_its_instants_and_no_others(month: date) -> None:
    ids = Months(month, month).ids

    assert time_at(ids.lo) == datetime(month.year, month.month, 1, tzinfo=UTC)
    assert month_of(time_at(ids.hi) - timedelta(milliseconds=1)) == month
    assert month_of(time_at(ids.hi)) == month_after(month)


def test_months_before_ids_carried_time_are_the_same_ids() -> None:
    old = IdRange(LOWEST_ID, id_at(datetime(2010, 12, 1, tzinfo=UTC)))

    assert Months(FIRST_MONTH, FIRST_MONTH).ids == old
    assert Months(date(2009, 5, 1), date(2010, 11, 1)).ids == old
    assert Months(date(2009, 5, 1), date(2010, 12, 1)).ids == IdRange(
        LOWEST_ID, id_at(datetime(2011, 1, 1, tzinfo=UTC))
    )


@pytest.mark.parametrize("text", ["2023-13", "2023-1", "2006-02", "23-01", "2023-01-01", ""])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no month from 2006-03 on"):
        read_month(text)


def test_a_month_is_read() -> None:
    assert read_month(" 2023-05 ") == date(2023, 5, 1)


def test_months_that_go_backwards_are_refused() -> None:
    with pytest.raises(ValueError, match="months go forward"):
        Months(date(2023, 5, 1), date(2023, 4, 1))
