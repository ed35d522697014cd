"""What is read from a run's calls: how windows were used up, and when the run waited."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from twitter_pipeline.charts.series import RunCalls
from twitter_pipeline.charts.waits import Wait, WindowUse, find_waits, find_windows, waited

TWEETS, USERS = "/2/users/:id/tweets", "/2/users/by"
LIMIT = 10


def at(second: float) -> datetime:
    """Return an instant of the run, which begins at 0 and ends at 100."""
    return datetime(2026, 11, 22, 12, tzinfo=UTC) + timedelta(seconds=second)


def sent(
    first: float,
    last: float,
    *,
    token: int = 1,
    endpoint: str = TWEETS,
    resets: float | None = 50,
    used: int | None = 5,
    calls: int = 5,
    own: int | None = None,
    used_up: float | None = None,
    refused: int = 0,
) -> dict[str, object]:
    """Make a row of calls, all of the run unless `own` says otherwise; `used_up` is when nothing was left."""
    own = calls if own is None else own
    return {
        "env_key": f"TWITTER_BEARER_{token}",
        "endpoint": endpoint,
        "first_at": at(first),
        "last_at": at(last),
        "resets_at": None if resets is None else at(resets),
        "limit": None if resets is None else LIMIT,
        "used": used,
        "calls": calls,
        "own": own,
        "own_first_at": at(first) if own else None,
        "own_last_at": at(last) if own else None,
        "used_up_at": None if used_up is None else at(used_up),
        "refused": refused,
    }


def run(*rows: dict[str, object], waiting_for: str | None = None) -> RunCalls:
    ordered = sorted(rows, key=lambda row: (str(row["env_key"]), str(row["endpoint"]), row["first_at"]))
    return RunCalls(pd.DataFrame(ordered), begins_at=at(0), ends_at=at(100), waiting_for=waiting_for)


def waits(*rows: dict[str, object], waiting_for: str | None = None) -> list[tuple[float, float]]:
    """Return the waits in seconds since the run began."""
    calls = run(*rows, waiting_for=waiting_for)
    found = find_waits(calls, find_windows(calls))
    return [((wait.begins_at - at(0)).total_seconds(), (wait.ends_at - at(0)).total_seconds()) for wait in found]


def uses(*rows: dict[str, object]) -> list[WindowUse]:
    return find_windows(run(*rows))


USED_UP = sent(0, 10, used=LIMIT, calls=10, used_up=9)
"""A window whose last answer came at 10, and which resets at 50."""


def test_a_run_waits_from_the_last_answer_of_a_used_up_window_to_its_next_call() -> None:
    assert waits(USED_UP, sent(50, 60, resets=90)) == [(10, 50)]


def test_a_run_that_goes_on_late_waited_until_the_reset_only() -> None:
    assert waits(USED_UP, sent(70, 80, resets=90)) == [(10, 50)]


def test_a_silence_with_calls_left_is_no_wait() -> None:
    assert waits(sent(0, 10, used=9), sent(50, 60, resets=90)) == []


def test_a_run_does_not_wait_while_another_token_has_calls_left() -> None:
    assert waits(USED_UP, sent(0, 12, token=2, used=9), sent(50, 60, resets=90)) == []


def test_a_run_waits_for_the_first_of_its_tokens() -> None:
    other = sent(5, 20, token=2, resets=40, used=LIMIT, calls=10, used_up=20)

    assert waits(USED_UP, other, sent(40, 45, token=2, resets=80), sent(50, 60, resets=90)) == [(20, 40)]


def test_a_token_that_came_later_was_there_to_be_used() -> None:
    assert waits(USED_UP, sent(30, 40, token=2), sent(50, 60, resets=90)) == []


def test_a_used_up_endpoint_does_not_stop_the_others() -> None:
    assert waits(USED_UP, sent(10, 99, endpoint=USERS), sent(50, 60, resets=90)) == [(10, 50)]
    assert waits(sent(0, 1, endpoint=USERS, used=LIMIT, used_up=0), sent(2, 99, used=9)) == []


def test_a_run_that_works_waits_still_for_what_it_says() -> None:
    last = sent(0, 70, resets=120, used=LIMIT, used_up=69)

    assert waits(last, waiting_for=TWEETS) == [(70, 100)]
    assert waits(last, waiting_for=USERS) == waits(last) == []


def test_a_run_that_finds_its_windows_used_up_waits_from_its_beginning() -> None:
    before = sent(-30, -20, used=LIMIT, calls=10, own=0, used_up=-20, resets=30)

    assert waits(before, sent(30, 40, resets=90)) == [(0, 30)]
    # Or from when it had looked up its accounts.
    assert waits(before, sent(0, 5, endpoint=USERS), sent(30, 40, resets=90)) == [(5, 30)]


def test_calls_under_way_are_no_silence() -> None:
    assert waits(USED_UP, sent(3, 49, resets=50, used=LIMIT, calls=1), sent(50, 60, resets=90)) == [(49, 50)]


def test_an_answer_429_uses_a_window_up_whatever_it_says() -> None:
    refused = sent(0, 10, used=None, resets=None, calls=3, used_up=2, refused=1)

    assert waits(refused, sent(50, 60, resets=90)) == [(10, 50)]
    assert uses(refused)[0].refused_at == (at(0),)


def test_calls_whose_answers_told_nothing_count_in_the_window_that_was_open() -> None:
    (window,) = uses(sent(0, 5, used=8, calls=8), sent(6, 9, used=None, resets=None, calls=2))

    assert (window.moments[-1].used, window.moments[-1].own) == (LIMIT, LIMIT)
    assert window.used_up_at == at(9)


def test_a_window_shows_what_others_used_of_it() -> None:
    (window,) = uses(sent(0, 5, used=6, calls=4, own=1), sent(6, 9, used=9, calls=3, own=2))

    assert [(moment.used, moment.own) for moment in window.moments] == [(6, 1), (9, 3)]


def test_windows_are_told_apart_by_their_reset_and_end_with_it() -> None:
    first, second = uses(sent(0, 9), sent(51, 60, resets=120))

    assert (first.begins_at, first.ends_at) == (at(0), at(50))
    # The run ends first.
    assert (second.begins_at, second.ends_at) == (at(51), at(100))


@pytest.mark.parametrize(("resets", "ends"), [(-900, 9), (30, 30), (950, 51)])
def test_a_clock_that_differs_from_xs_moves_no_window_over_the_calls_of_another(resets: float, ends: float) -> None:
    first, _ = uses(sent(0, 9, resets=resets), sent(51, 60, resets=resets + 900))

    assert first.ends_at == at(ends)


def test_without_calls_there_are_no_windows() -> None:
    calls = run(USED_UP)
    nothing = RunCalls(calls.frame.iloc[:0], begins_at=at(0), ends_at=at(100), waiting_for=TWEETS)

    assert find_windows(nothing) == []
    assert find_waits(nothing, []) == []


def test_waits_at_two_endpoints_at_once_are_counted_once() -> None:
    both = [
        Wait(TWEETS, at(10), at(30)),
        Wait(USERS, at(20), at(40)),
        Wait(USERS, at(60), at(65)),
        Wait(TWEETS, at(21), at(22)),
    ]

    assert waited(both) == timedelta(seconds=35)
    assert waited([]) == timedelta(0)
