"""How far a run is: what the rest takes, and when it is expected to end within the limits."""

from datetime import UTC, datetime, timedelta

import pytest

from twitter_pipeline.progress import (
    Budget,
    Look,
    budgets,
    calls_left,
    calls_per_s,
    describe_progress,
    describe_wait,
    expected_end,
    rate,
    tweets_per_s,
)
from twitter_pipeline.store.runs import Progress
from twitter_pipeline.store.windows import WindowState
from twitter_pipeline.words import TokenStatus

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def look(seconds: float, *, calls: int, left: float, waiting_s: float | None = None) -> Look:
    """A look at a run of ten accounts, so many seconds after noon."""
    ended = 10 - round(left) if left <= 10 else 0
    until = None if waiting_s is None else NOW + timedelta(seconds=waiting_s)
    waiting_for = None if until is None else "/2/users/:id/tweets"
    progress = Progress(10, ended, calls * 50, calls * 40, calls, waiting_for, until)
    return Look(NOW + timedelta(seconds=seconds), progress, left)


def window(*, remaining: int | None, reset_s: float, status: TokenStatus = TokenStatus.ACTIVE) -> WindowState:
    """What is known at noon of a token that may send 300 calls."""
    return WindowState(
        env_key="TWITTER_BEARER_1",
        status=status,
        status_until=None,
        now=NOW,
        limit=300,
        remaining=remaining,
        reset_at=NOW + timedelta(seconds=reset_s),
        day_limit=None,
        day_remaining=None,
        day_reset_at=None,
        in_flight=0,
        leased_at=None,
        opened_at=None,
    )


def test_a_rate_needs_two_samples_at_different_times() -> None:
    assert rate([]) is None
    assert rate([(1.0, 5)]) is None
    assert rate([(1.0, 5), (1.0, 9)]) is None
    assert rate([(1.0, 5), (3.0, 9)]) == 2.0


def test_the_rest_takes_as_many_calls_as_what_was_done() -> None:
    assert calls_left([look(0, calls=0, left=10)]) is None
    assert calls_left([look(0, calls=0, left=10), look(10, calls=7, left=10)]) is None
    assert calls_left([look(0, calls=0, left=10), look(10, calls=40, left=8)]) == 160
    # What the first look found done does not count: its calls and its work belong together.
    assert calls_left([look(0, calls=30, left=8), look(10, calls=40, left=6)]) == 30
    assert calls_left([look(0, calls=0, left=10), look(10, calls=40, left=0)]) == 0


def test_the_speed_of_calls_is_that_between_waits() -> None:
    looks = [look(0, calls=0, left=10), look(10, calls=50, left=9), look(610, calls=50, left=9)]

    assert calls_per_s(looks[:1]) is None
    assert calls_per_s(looks) == 5.0
    assert tweets_per_s(looks) is None
    assert tweets_per_s([*looks, look(620, calls=60, left=8)]) == 50.0


def test_with_budget_enough_the_speed_decides_when_it_ends() -> None:
    budget = [Budget(left=300, limit=300, resets_at=NOW + timedelta(seconds=60))]

    assert expected_end(200, 2.0, budget, NOW) == NOW + timedelta(seconds=100)
    assert expected_end(200, 2.0, [], NOW) == NOW + timedelta(seconds=100)


def test_beyond_the_budget_the_resets_decide_when_it_ends() -> None:
    budget = [
        Budget(left=0, limit=300, resets_at=NOW + timedelta(minutes=10)),
        Budget(left=20, limit=300, resets_at=NOW + timedelta(minutes=2)),
    ]

    # 20 now, 300 after 2 minutes, 300 after 10, and the last 30 after 17, at ten a second.
    assert expected_end(650, 10.0, budget, NOW) == NOW + timedelta(minutes=17, seconds=3)


def test_a_run_that_is_slower_than_its_budget_ends_by_its_speed() -> None:
    budget = [Budget(left=1, limit=300, resets_at=NOW + timedelta(seconds=1))]

    assert expected_end(300, 1.0, budget, NOW) == NOW + timedelta(seconds=300)


def test_only_windows_that_are_known_open_and_usable_are_budget() -> None:
    windows = [
        window(remaining=100, reset_s=60),
        window(remaining=None, reset_s=60),
        window(remaining=100, reset_s=-1),
        window(remaining=100, reset_s=60, status=TokenStatus.INVALID),
    ]

    assert budgets(windows) == [Budget(100, 300, NOW + timedelta(seconds=60))]


@pytest.mark.parametrize(("remaining", "left"), [(300, 180), (150, 30), (100, 0)])
def test_of_a_window_only_the_share_of_the_run_is_budget(remaining: int, left: int) -> None:
    (budget,) = budgets([window(remaining=remaining, reset_s=60)], share=0.6)

    assert (budget.left, budget.limit) == (left, 180)


def test_progress_in_words_tells_the_end_and_what_is_waited_for() -> None:
    looks = [look(0, calls=0, left=10), look(10, calls=40, left=8, waiting_s=900)]
    budget = [Budget(left=0, limit=300, resets_at=NOW + timedelta(minutes=15))]

    assert describe_progress(looks[:1], []) == "0 of 10 accounts | 0 tweets, 0 new | 0 calls"
    assert describe_progress(looks, budget) == (
        "2 of 10 accounts | 2,000 tweets, 1,600 new | waiting for budget for /2/users/:id/tweets until 12:15 UTC"
        " | expected end 12:15 UTC | 200 tweets/s | 40 calls"
    )


def test_tries_to_get_an_answer_are_told_without_a_time() -> None:
    assert describe_wait("no answer, try 3 of 12", "12:15 UTC") == "no answer, try 3 of 12"


def test_an_end_on_another_day_is_told_with_its_date() -> None:
    looks = [look(0, calls=0, left=10), look(10, calls=40_000, left=9.5)]
    budget = [Budget(left=0, limit=300, resets_at=NOW + timedelta(minutes=15))]

    assert " | expected end 2026-05-27 21:30 UTC | " in describe_progress(looks, budget)
