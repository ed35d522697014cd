"""Doubts: when they are settled, and when they are requested again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.coverage import IdRange
from twitter_pipeline.walks.doubts import LONGEST_PAUSE, Doubt, overlaps
from twitter_pipeline.words import DoubtKind

AT = datetime(2026, 11, 1, 23, 30, tzinfo=UTC)
AFTER = timedelta(minutes=2)
DOUBT = Doubt.begin(DoubtKind.END, IdRange(100, 200), AT)


def test_a_doubt_begins_open_and_due_at_once() -> None:
    doubt = Doubt.begin(DoubtKind.UNREADABLE, IdRange(100, 200), AT, items=["{}"])

    assert doubt == Doubt(
        DoubtKind.UNREADABLE, IdRange(100, 200), first_seen_at=AT, seen_at=AT, next_at=AT, times=1, items=("{}",)
    )
    assert (doubt.is_open, doubt.id) == (True, None)


@pytest.mark.parametrize(
    ("later", "confirmed"),
    [(timedelta(0), False), (AFTER - timedelta(seconds=1), False), (AFTER, True), (timedelta(days=30), True)],
)
def test_a_doubt_is_confirmed_long_enough_after_it_began(later: timedelta, confirmed: bool) -> None:
    assert DOUBT.is_confirmed_by(AT + later, AFTER) is confirmed


@pytest.mark.parametrize(
    ("at", "apart"),
    [
        (AT + timedelta(minutes=29, seconds=59), False),
        (AT + timedelta(minutes=30), True),
        ((AT + timedelta(minutes=29)).astimezone(timezone(timedelta(hours=9))), False),
        ((AT + timedelta(minutes=31)).astimezone(timezone(-timedelta(hours=9))), True),
    ],
)
def test_days_are_those_of_utc(at: datetime, apart: bool) -> None:
    assert DOUBT.is_days_apart_from(at) is apart


def test_several_responses_at_once_count_as_one() -> None:
    again = DOUBT.shown_again(AT + AFTER - timedelta(seconds=1), AFTER)

    assert again == DOUBT


def test_the_intervals_between_requests_grow_up_to_a_week() -> None:
    at, doubt, pauses = AT, DOUBT, []
    for _ in range(9):
        at += AFTER
        doubt = doubt.shown_again(at, AFTER)
        pauses.append(doubt.next_at - at)

    minutes = [8, 32, 128, 512, 2_048, 8_192]
    assert pauses == [*(timedelta(minutes=each) for each in minutes), *[LONGEST_PAUSE] * 3]
    assert doubt == replace(DOUBT, seen_at=at, next_at=at + LONGEST_PAUSE, times=10)


@given(times=st.integers(1, 10**6), after_s=st.integers(1, 86_400))
def test_however_often_a_doubt_was_shown_it_is_requested_within_a_week(times: int, after_s: int) -> None:
    after = timedelta(seconds=after_s)
    again = replace(DOUBT, times=times).shown_again(AT + after, after)

    assert timedelta(0) < again.next_at - again.seen_at <= LONGEST_PAUSE
    assert again.times == times + 1


def test_a_recorded_doubt_is_open_no_more_and_keeps_what_came() -> None:
    doubt = replace(DOUBT, kind=DoubtKind.UNREADABLE, items=("{}",), id=7)
    recorded = doubt.recorded(IdRange(110, 120), AT + AFTER)

    assert recorded == replace(doubt, ids=IdRange(110, 120), seen_at=AT + AFTER, recorded_at=AT + AFTER)
    assert not recorded.is_open


@pytest.mark.parametrize(
    ("other", "overlap"),
    [((50, 100), False), ((50, 101), True), ((120, 130), True), ((199, 300), True), ((200, 300), False)],
)
def test_intervals_overlap_when_they_have_an_id_in_common(other: tuple[int, int], overlap: bool) -> None:
    assert overlaps(IdRange(100, 200), IdRange(*other)) is overlap
    assert overlaps(IdRange(*other), IdRange(100, 200)) is overlap
