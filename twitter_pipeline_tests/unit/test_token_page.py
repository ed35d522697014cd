"""Why work is slow, in words; and when it is worth to show the tokens again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from twitter_pipeline.orchestration.token_page import Seen, is_worth_showing, read_cursor
from twitter_pipeline.store.activity import Window
from twitter_pipeline.store.tokens import TokenState
from twitter_pipeline.token_page import explain, is_used_up, picture_of
from twitter_pipeline.words import TokenStatus

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
RESET = NOW + timedelta(minutes=4)
TIMELINES = "/2/users/:id/tweets"


def token(number: int, status: TokenStatus = TokenStatus.ACTIVE) -> TokenState:
    reason = None if status is TokenStatus.ACTIVE else "401"
    return TokenState(number, f"TWITTER_BEARER_{number}", status, reason, NOW, None)


def window(
    number: int,
    remaining: int | None,
    *,
    in_flight: int = 0,
    reset_at: datetime | None = RESET,
    day_remaining: int | None = None,
) -> Window:
    return Window(
        f"TWITTER_BEARER_{number}",
        TIMELINES,
        limit=10_000,
        remaining=remaining,
        reset_at=reset_at,
        day_limit=None if day_remaining is None else 500,
        day_remaining=day_remaining,
        day_reset_at=None if day_remaining is None else NOW + timedelta(hours=20),
        in_flight=in_flight,
        now=NOW,
    )


def test_a_window_is_used_up_when_all_that_is_left_is_in_flight_until_it_resets() -> None:
    assert is_used_up(window(1, 0))
    assert is_used_up(window(1, 3, in_flight=3))
    assert not is_used_up(window(1, 4, in_flight=3))
    assert not is_used_up(window(1, 0, reset_at=NOW))
    assert not is_used_up(window(1, None))
    assert is_used_up(window(1, 9_000, day_remaining=0))


def test_what_holds_work_up_is_said_the_gravest_first() -> None:
    working = [token(1), token(2)]

    assert explain([], []) == ["No token is known yet."]
    assert explain(working, [window(1, 9), window(2, 0, reset_at=NOW)]) == ["No token holds work up."]
    assert explain(working, [window(1, 9), window(2, 0)]) == [
        f"{TIMELINES}: used up for 1 of 2 tokens until 2026-11-22 12:04:00 UTC."
    ]
    assert explain(working, [window(1, 0), window(2, 0, day_remaining=0)]) == [
        f"Work waits at {TIMELINES}: the limits of all 2 tokens are used up until 2026-11-22 12:04:00 UTC."
    ]
    assert explain([token(1), token(2, TokenStatus.INVALID)], [window(1, 0), window(2, 0)]) == [
        "TWITTER_BEARER_2: invalid since 2026-11-22 12:00 UTC (401)",
        f"Work waits at {TIMELINES}: the limits of all 1 token are used up until 2026-11-22 12:04:00 UTC.",
    ]
    assert explain([token(2, TokenStatus.REVOKED)], [window(2, 0)]) == [
        "Nothing can be fetched: no token is fit for use.",
        "TWITTER_BEARER_2: revoked since 2026-11-22 12:00 UTC (401)",
    ]


def test_a_change_that_a_person_would_see_is_shown_at_once_and_numbers_every_ten_minutes_while_calls_are_sent() -> None:
    calm = picture_of([token(1)], [window(1, 9)])
    used_up = picture_of([token(1)], [window(1, 0)])
    dead = picture_of([token(1, TokenStatus.INVALID)], [window(1, 9)])
    shown = Seen(calm, 1_000.0, 7)

    assert is_worth_showing(None, shown)
    assert is_worth_showing(shown, Seen(used_up, 1_060.0, 8))
    assert is_worth_showing(shown, Seen(dead, 1_060.0, 7))
    assert not is_worth_showing(shown, Seen(calm, 1_599.0, 8))
    assert is_worth_showing(shown, Seen(calm, 1_600.0, 8))
    assert not is_worth_showing(shown, Seen(calm, 9_000.0, 7))


def test_a_cursor_of_another_version_counts_as_none() -> None:
    assert read_cursor(None) is None
    assert read_cursor("12:30") is None
    assert read_cursor('{"seen": 1}') is None
    assert read_cursor("[1]") is None
    assert read_cursor('{"picture": ["a"], "at": 1.5, "last_call": 3}') == Seen(["a"], 1.5, 3)


def test_refused_calls_are_reported_with_the_end_of_the_pause() -> None:
    refused = replace(window(1, 9), refused_since=NOW - timedelta(minutes=2), paused_until=NOW + timedelta(minutes=3))
    over = replace(refused, paused_until=NOW - timedelta(seconds=1))

    assert explain([token(1)], [refused]) == [
        f"X refuses calls of {TIMELINES} to TWITTER_BEARER_1 since 2026-11-22 11:58:00 UTC: "
        "nothing is sent with it there until 2026-11-22 12:03:00 UTC."
    ]
    assert explain([token(1)], [over]) == ["No token holds work up."]
