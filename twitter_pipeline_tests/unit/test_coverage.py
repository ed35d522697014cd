"""Sets of id intervals, held against plain Python sets."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.coverage import (
    BEYOND_ALL_IDS,
    EVERYTHING,
    LOWEST_ID,
    Coverage,
    IdRange,
    id_at,
    is_dated,
    time_at,
)

SPACE = range(1, 41)
RANGES = st.tuples(st.integers(1, 40), st.integers(1, 12)).map(lambda pair: IdRange(pair[0], pair[0] + pair[1]))
COVERAGES = st.lists(RANGES, max_size=8).map(Coverage.of)
INSTANTS = st.datetimes(datetime(2010, 11, 5), datetime(2070, 1, 1)).map(  # noqa: DTZ001 the zone follows
    lambda instant: instant.replace(tzinfo=UTC)
)


def ids(coverage: Coverage) -> set[int]:
    return {each for part in coverage for each in range(part.lo, part.hi)}


@given(st.lists(RANGES, max_size=8))
def test_a_union_holds_what_its_parts_hold(ranges: list[IdRange]) -> None:
    assert ids(Coverage.of(ranges)) == {each for part in ranges for each in range(part.lo, part.hi)}


@given(st.lists(RANGES, max_size=8))
def test_ranges_are_ascending_and_apart_whatever_they_were_built_from(ranges: list[IdRange]) -> None:
    built = Coverage.of(ranges).ranges

    assert all(one.hi < other.lo for one, other in pairwise(built))
    assert Coverage.of(ranges[::-1]) == Coverage.of(ranges)


@given(COVERAGES, COVERAGES)
def test_union_and_difference_are_those_of_sets(one: Coverage, other: Coverage) -> None:
    assert ids(one | other) == ids(one) | ids(other)
    assert ids(one - other) == ids(one) - ids(other)
    assert (one - other) | other == one | other


@given(COVERAGES, RANGES)
def test_a_range_or_nothing_can_be_added(coverage: Coverage, part: IdRange) -> None:
    assert coverage | part == coverage | Coverage.of([part])
    assert coverage | None == coverage


@given(COVERAGES, RANGES)
def test_gaps_are_what_is_missing_within(coverage: Coverage, within: IdRange) -> None:
    gaps = coverage.gaps(within)

    assert {each for gap in gaps for each in range(gap.lo, gap.hi)} == set(range(within.lo, within.hi)) - ids(coverage)
    assert list(gaps) == sorted(gaps)


@given(COVERAGES, st.sampled_from(SPACE))
def test_an_id_is_in_a_set_when_one_of_its_ranges_has_it(coverage: Coverage, tweet_id: int) -> None:
    found = coverage.range_with(tweet_id)

    assert (tweet_id in coverage) == (tweet_id in ids(coverage)) == (found is not None)
    assert found is None or tweet_id in found


@given(COVERAGES)
def test_the_top_is_the_end_of_the_highest_range(coverage: Coverage) -> None:
    assert coverage.top == (max(ids(coverage)) + 1 if coverage else None)


@given(RANGES, st.integers(1, 60), st.integers(1, 60))
def test_clipping_is_intersection(part: IdRange, lo: int, hi: int) -> None:
    clipped = part.clipped(lo=lo, hi=hi)

    assert ids(Coverage.of([clipped] if clipped else [])) == set(range(part.lo, part.hi)) & set(range(lo, hi))


@pytest.mark.parametrize(("lo", "hi"), [(5, 5), (6, 5)])
def test_an_empty_range_is_an_error(lo: int, hi: int) -> None:
    with pytest.raises(ValueError, match="needs lo < hi"):
        IdRange(lo, hi)


def test_everything_has_the_lowest_id_and_all_that_postgresql_can_hold() -> None:
    assert (20 in EVERYTHING, BEYOND_ALL_IDS - 1 in EVERYTHING, 0 in EVERYTHING) == (True, True, False)


@given(INSTANTS)
def test_the_time_of_an_id_is_its_instant_to_the_millisecond(instant: datetime) -> None:
    behind = instant - time_at(id_at(instant))

    assert timedelta(0) <= behind < timedelta(milliseconds=1)


@given(INSTANTS, INSTANTS)
def test_ids_grow_with_time(one: datetime, other: datetime) -> None:
    assert (one <= other) <= (id_at(one) <= id_at(other))


def test_a_known_tweet_has_the_time_that_x_tells() -> None:
    # The example of docs.x.com: 1460323737035677698 was written on 2021-11-15T19:08:05.000Z.
    assert time_at(1460323737035677698).replace(microsecond=0) == datetime(2021, 11, 15, 19, 8, 5, tzinfo=UTC)


@pytest.mark.parametrize("instant", [datetime(2006, 3, 21, tzinfo=UTC), datetime(2010, 11, 4, 1, 42, 54, tzinfo=UTC)])
def test_before_ids_carried_time_the_bound_is_the_lowest_id(instant: datetime) -> None:
    assert id_at(instant) == LOWEST_ID


@pytest.mark.parametrize(
    ("tweet_id", "dated"), [(20, False), (29_700_859_247, False), (1460323737035677698, True), (BEYOND_ALL_IDS, True)]
)
def test_old_ids_carry_no_time(tweet_id: int, dated: bool) -> None:
    assert is_dated(tweet_id) is dated
