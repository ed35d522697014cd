"""Which partitions are made, decided without a database."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.coverage import id_at
from twitter_pipeline.store.first_partitions import ROOM, first_end
from twitter_pipeline.store.partitions import API_CALLS, TABLES, TWEETS, WANTED_AHEAD, Partition, PartitionedTable

NOW = datetime(2026, 11, 23, 2, 30, tzinfo=UTC)
INSTANTS = st.datetimes(datetime(2012, 1, 1), datetime(2079, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 hypothesis adds it


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_an_empty_table_of_tweets_gets_every_year_and_one_partition_for_ids_without_a_time() -> None:
    planned = TWEETS.plan(ends_at=None, now=NOW)

    assert planned[0] == Partition("tweets_2010", None, day("2011-01-01"))
    assert [each.name for each in planned] == [f"tweets_{year}" for year in range(2010, 2029)]
    assert id_at(planned[0].ends_at) > id_at(day("2010-12-01"))


def test_an_empty_table_of_calls_begins_with_the_present_month() -> None:
    planned = API_CALLS.plan(ends_at=None, now=NOW)

    assert planned[0] == Partition("api_calls_2026_11", day("2026-11-01"), day("2026-12-01"))
    assert [each.name for each in planned[1:]] == ["api_calls_2026_12", "api_calls_2027_01", "api_calls_2027_02"]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@given(now=INSTANTS, passed=st.timedeltas(timedelta(0), timedelta(days=2000)))
def test_whenever_it_is_looked_at_again_there_is_no_gap_and_enough_is_ahead(
    table: PartitionedTable, now: datetime, passed: timedelta
) -> None:
    first = table.plan(ends_at=None, now=now)
    later = table.plan(ends_at=first[-1].ends_at, now=now + passed)
    all_of_them = [*first, *later]

    assert [each.begins_at for each in all_of_them[1:]] == [each.ends_at for each in all_of_them[:-1]]
    assert len({each.name for each in all_of_them}) == len(all_of_them)
    ahead = table.count_ahead(ends_at=all_of_them[-1].ends_at, now=now + passed)
    assert ahead >= table.ahead >= WANTED_AHEAD
    assert table.plan(ends_at=all_of_them[-1].ends_at, now=now + passed) == []


@pytest.mark.parametrize(
    ("ends_at", "ahead"), [(None, 0), ("2026-12-01", 0), ("2027-01-01", 1), ("2027-03-01", 3), ("2020-01-01", 0)]
)
def test_what_lies_ahead_is_counted_from_the_present_month(ends_at: str | None, ahead: int) -> None:
    assert API_CALLS.count_ahead(ends_at=None if ends_at is None else day(ends_at), now=NOW) == ahead


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@given(now=INSTANTS, newest=st.none() | INSTANTS)
def test_the_first_partition_holds_all_rows_and_a_month_to_come(
    table: PartitionedTable, now: datetime, newest: datetime | None
) -> None:
    end = first_end(table, newest=newest, now=now)

    assert end > now + ROOM
    assert newest is None or end > newest
    assert table.begin_of(end) == end.date()
    assert end <= table.end_of(max(now + ROOM, newest or now))
