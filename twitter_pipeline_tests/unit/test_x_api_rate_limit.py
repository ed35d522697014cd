from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twitter_pipeline.x_api.rate_limit import RateLimits, RateLimitWindow, read_rate_limits

NAMES = [
    *(f"{prefix}-{part}" for prefix in ("x-rate-limit", "x-app-limit-24hour", "x-user-limit-24hour")
      for part in ("limit", "remaining", "reset")),
    "date",
    "retry-after",
]  # fmt: skip


def triple(prefix: str, limit: str, remaining: str, reset: str) -> dict[str, str]:
    return {f"{prefix}-limit": limit, f"{prefix}-remaining": remaining, f"{prefix}-reset": reset}


def test_a_window_and_the_servers_clock_are_read() -> None:
    headers = triple("x-rate-limit", "10000", "9999", "1795349700") | {"date": "Sun, 22 Nov 2026 12:00:00 GMT"}

    assert read_rate_limits(headers) == RateLimits(
        window=RateLimitWindow(limit=10_000, remaining=9_999, reset_epoch=1_795_349_700),
        day=None,
        answered_at=datetime(2026, 11, 22, 12, tzinfo=UTC),
        retry_after_s=None,
    )


def test_the_case_of_header_names_does_not_matter_in_the_headers_of_httpx() -> None:
    headers = httpx.Headers(
        {"X-Rate-Limit-Limit": "5", "X-Rate-Limit-Remaining": "4", "X-Rate-Limit-Reset": "1795349700"}
    )

    assert read_rate_limits(headers) == RateLimits(window=RateLimitWindow(5, 4, 1_795_349_700))


def test_no_headers_say_nothing() -> None:
    assert read_rate_limits({}) == RateLimits()


@pytest.mark.parametrize("part", ["limit", "remaining", "reset"])
@pytest.mark.parametrize(
    "value", [None, "", "-1", "1.5", "+5", "1_000", "\u0665", "NaN", "many", "99999999999999999999", "9999999999"]
)
def test_a_window_with_a_part_that_is_no_sensible_number_is_none(part: str, value: str | None) -> None:
    headers = triple("x-rate-limit", "900", "899", "1795349700")
    headers.pop(f"x-rate-limit-{part}")
    if value is not None:
        headers[f"x-rate-limit-{part}"] = value

    assert read_rate_limits(headers).window is None


def test_a_reset_in_milliseconds_is_no_reset() -> None:
    assert read_rate_limits(triple("x-rate-limit", "900", "899", "1795349700000")).window is None


def test_the_day_is_the_tighter_of_the_apps_and_the_users() -> None:
    headers = triple("x-app-limit-24hour", "500", "7", "1795349700") | triple(
        "x-user-limit-24hour", "100", "9", "1795349800"
    )

    assert read_rate_limits(headers).day == RateLimitWindow(limit=500, remaining=7, reset_epoch=1_795_349_700)


def test_of_two_days_that_are_used_up_the_one_that_resets_last_counts() -> None:
    headers = triple("x-app-limit-24hour", "500", "0", "1795349700") | triple(
        "x-user-limit-24hour", "100", "0", "1795349800"
    )

    assert read_rate_limits(headers).day == RateLimitWindow(limit=100, remaining=0, reset_epoch=1_795_349_800)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0.5", 0.5),
        ("Sun, 22 Nov 2026 12:01:00 GMT", 60.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("9999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    headers = {"date": "Sun, 22 Nov 2026 12:00:00 GMT", "retry-after": value}

    assert read_rate_limits(headers).retry_after_s == seconds


@pytest.mark.parametrize("zone", ["GMT", "UTC"])
def test_the_date_of_x_may_end_in_either_zone(zone: str) -> None:
    headers = {"date": f"Sun, 22 Nov 2026 12:00:00 {zone}"}

    assert read_rate_limits(headers) == RateLimits(answered_at=datetime(2026, 11, 22, 12, tzinfo=UTC))


def test_a_day_that_cannot_be_one_does_not_hide_the_other() -> None:
    headers = (
        triple("x-app-limit-24hour", "500", "0", "0")
        | triple("x-user-limit-24hour", "100", "0", "1795349800")
        | {"date": "Sun, 22 Nov 2026 12:00:00 GMT"}
    )

    assert read_rate_limits(headers).day == RateLimitWindow(limit=100, remaining=0, reset_epoch=1_795_349_800)


@pytest.mark.parametrize(("years", "is_read"), [(-14, True), (-17, False), (4, True), (6, False)])
def test_a_date_from_before_the_api_or_years_ahead_leaves_the_clock_unknown(years: int, is_read: bool) -> None:
    instant = datetime(2026, 1, 1, tzinfo=UTC).replace(year=(2026 if years < 0 else datetime.now(UTC).year) + years)
    headers = {"date": format_datetime(instant, usegmt=True), "retry-after": format_datetime(instant, usegmt=True)}

    assert read_rate_limits(headers).answered_at == (instant if is_read else None)


@pytest.mark.parametrize("date", ["", "now", "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_date_that_is_none_of_x_dates_nothing(date: str) -> None:
    limits = triple("x-app-limit-24hour", "500", "0", "1795349800")

    assert read_rate_limits(limits | {"date": date, "retry-after": date}) == read_rate_limits(limits)


@pytest.mark.parametrize("date", ["", "now", "Sun, 99 Nov 2026 12:00:00 GMT", "Sun, 22 Foo 2026 12:00:00 GMT"])
def test_a_date_that_is_none_leaves_the_clock_unknown(date: str) -> None:
    assert read_rate_limits({"date": date}) == RateLimits()


number_like = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.floats().map(str),
    st.from_regex(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT", fullmatch=True),
)


@settings(deadline=None)  # the time of one example depends on the machine
@given(st.dictionaries(st.sampled_from(NAMES), number_like))
def test_reading_never_raises_and_gives_only_windows_that_make_sense(headers: dict[str, str]) -> None:
    limits = read_rate_limits(headers)

    for window in filter(None, (limits.window, limits.day)):
        assert window.limit >= 0
        assert window.remaining >= 0
        assert datetime.fromtimestamp(window.reset_epoch, tz=UTC).year <= 2100
    assert limits.answered_at is None or limits.answered_at.tzinfo is UTC
    assert limits.retry_after_s is None or limits.retry_after_s >= 0
