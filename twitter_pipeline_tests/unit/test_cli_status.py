"""`status`: holes and their causes, and an account in words."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.cli.status import called, covered_span
from twitter_pipeline.coverage import EVERYTHING, Coverage, IdRange, id_at
from twitter_pipeline.errors import Availability
from twitter_pipeline.store.status import AccountStatus, FormerName, Hole, HoleCause, find_holes

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)

coverages = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20))).map(
    lambda pairs: Coverage.of(IdRange(lo, lo + length) for lo, length in pairs)
)


def account(**facts: object) -> AccountStatus:
    defaults: dict[str, object] = {
        "user_id": 5,
        "username": "nasa",
        "name": "NASA",
        "created_at": None,
        "availability": Availability.ACTIVE,
        "availability_reason": None,
        "availability_since": NOW,
        "tweet_count": 200,
        "profile_read_at": NOW,
        "is_tracked": False,
        "tracked_since": None,
        "last_polled_at": None,
        "next_poll_at": None,
        "tweets_per_hour": None,
        "covered": Coverage(),
        "unreachable": Coverage(),
        "tweets_stored": 0,
        "first_tweet_at": None,
        "last_tweet_at": None,
        "former_names": (),
    }
    return AccountStatus(**{**defaults, **facts})  # type: ignore[arg-type]


def test_before_the_first_fetch_there_are_no_holes() -> None:
    assert find_holes(Coverage(), Coverage()) == ()


def test_holes_are_told_newest_first_with_their_cause() -> None:
    covered = Coverage((IdRange(100, 200), IdRange(300, 400)))

    assert find_holes(covered, Coverage((IdRange(1, 80),))) == (
        Hole(IdRange(200, 300), HoleCause.NOT_FETCHED),
        Hole(IdRange(80, 100), HoleCause.NOT_FETCHED),
        Hole(IdRange(1, 80), HoleCause.BEYOND_REACH),
    )


def test_what_came_after_the_last_poll_is_no_hole() -> None:
    assert find_holes(Coverage((IdRange(1, 400),)), Coverage()) == ()


@given(coverages, coverages)
def test_holes_and_coverage_make_up_everything_below_the_top(covered: Coverage, unreachable: Coverage) -> None:
    holes = find_holes(covered, unreachable)
    all_of_it = covered | Coverage.of(hole.ids for hole in holes)

    assert all_of_it.gaps(EVERYTHING) == ((IdRange(covered.top or 1, EVERYTHING.hi),))
    assert not any(hole.ids.lo in covered or hole.ids.hi - 1 in covered for hole in holes)
    assert all((hole.ids.lo in unreachable) == (hole.cause is HoleCause.BEYOND_REACH) for hole in holes)


@pytest.mark.parametrize(
    ("stored", "count", "share"), [(0, None, None), (0, 0, 1.0), (50, 200, 0.25), (200, 200, 1.0), (210, 200, 1.0)]
)
def test_completeness_is_the_share_of_what_x_counts(stored: int, count: int | None, share: float | None) -> None:
    assert account(tweets_stored=stored, tweet_count=count).completeness == share


def test_an_account_is_called_by_its_name_and_the_one_before() -> None:
    former = FormerName("oldname", MARCH, NOW)

    assert [called(account()), called(account(former_names=(former,)))] == ["@nasa", "@nasa (was @oldname)"]
    assert called(account(username=None, former_names=(former,))) == "id 5, once @oldname"


def test_the_covered_span_is_told_in_time() -> None:
    from_march = Coverage((IdRange(id_at(MARCH), id_at(NOW)),))
    whole = Coverage((IdRange(1, id_at(NOW)),))

    assert covered_span(account()) == ("-", "-")
    assert covered_span(account(covered=from_march)) == ("2026-03-01", "2026-05-01 12:00")
    assert covered_span(account(covered=whole)) == ("the beginning", "2026-05-01 12:00")
