"""Three days of the watch on a clock that the test turns, with all that goes wrong in three days."""

import pytest

from benchmarks.days import CUT, DIES, STOPS, USED_UP, simulate
from twitter_pipeline import calls


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(calls, "LONGEST_PAUSE_S", 0.002)


def test_three_days_with_restarts_lost_connections_and_used_up_tokens_leave_no_tweet_missing(
    database_url: str,
) -> None:
    days = simulate(database_url)

    assert {"polled", DIES, STOPS, "all tokens are used up"} <= set(days.ticks)
    assert {DIES, STOPS, CUT, USED_UP} <= set(days.mishaps)
    assert {"connection_fault", "server_fault"} <= set(days.failed_calls)
    assert days.written > 1_000
    assert days.behind > 0
    assert (days.missing, days.unfinished_walks) == ({}, 0)
