"""The rate-limit headers of an answer -> values.

The names and their meaning: docs.x.com, "Rate limits". The 24-hour triples are undocumented; X sends them for endpoints
with a daily limit (github.com/PLhery/node-twitter-api-v2 issues 495, 553, 618). A 429 may then come while the
15-minute window still has calls left.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache

_DIGITS = re.compile(r"[0-9]{1,10}")
_SECONDS = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?")
_HTTP_DATE = re.compile(r"[A-Za-z]{3}, [0-9]{2} [A-Za-z]{3} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|UTC)")

_MOST_CALLS = 2**31 - 1
# 2100-01-01: what lies beyond is no time of a reset, but milliseconds or garbage.
_LATEST_RESET = 4_102_444_800
# Everything is dated by X's clock, which need not agree with ours. But the API is not older, and no clock of ours is
# wrong by years.
_EARLIEST = datetime(2010, 1, 1, tzinfo=UTC)
_FARTHEST_AHEAD = timedelta(days=5 * 365)
_LONGEST_DAY_S = 48 * 3600.0
_LONGEST_RETRY_AFTER_S = 31 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class RateLimitWindow:
    """How many calls a token may make to an endpoint until the window resets; `reset_epoch` is in seconds."""

    limit: int
    remaining: int
    reset_epoch: int


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What the headers of one answer say about limits.

    `window` is the 15-minute window, `day` the tighter of the app's and the user's 24-hour window where one is sent.
    `answered_at` is the server's clock: reset times are to be read against it and not against the local one.
    """

    window: RateLimitWindow | None = None
    day: RateLimitWindow | None = None
    answered_at: datetime | None = None
    retry_after_s: float | None = None


def read_rate_limits(headers: Mapping[str, str]) -> RateLimits:
    """Read the headers, given with lower-case names or case-insensitively; what cannot be read is None."""
    answered_at = _read_http_date(headers.get("date", ""))
    return RateLimits(
        window=_read_window(headers, "x-rate-limit"),
        day=_read_day(headers, answered_at),
        answered_at=answered_at,
        retry_after_s=_read_retry_after(headers.get("retry-after"), answered_at),
    )


def _read_window(headers: Mapping[str, str], prefix: str) -> RateLimitWindow | None:
    # A window is whole or it is none: a remainder without a reset would be waited for without end.
    limit = _read_number(headers.get(f"{prefix}-limit"), at_most=_MOST_CALLS)
    remaining = _read_number(headers.get(f"{prefix}-remaining"), at_most=_MOST_CALLS)
    reset_epoch = _read_number(headers.get(f"{prefix}-reset"), at_most=_LATEST_RESET)
    if limit is None or remaining is None or reset_epoch is None:
        return None
    return RateLimitWindow(limit=limit, remaining=remaining, reset_epoch=reset_epoch)


def _read_day(headers: Mapping[str, str], answered_at: datetime | None) -> RateLimitWindow | None:
    both = (_read_window(headers, "x-app-limit-24hour"), _read_window(headers, "x-user-limit-24hour"))
    windows = [window for window in both if window is not None and _is_day(window, answered_at)]
    # Of two that are used up, the one that resets last is the one to wait for.
    return min(windows, key=lambda window: (window.remaining, -window.reset_epoch), default=None)


def _is_day(window: RateLimitWindow, answered_at: datetime | None) -> bool:
    """Whether a day's window may end when X says; the one beside it may be true where it is false."""
    return answered_at is None or 0 < window.reset_epoch - answered_at.timestamp() <= _LONGEST_DAY_S


def _read_number(value: str | None, *, at_most: int) -> int | None:
    if value is None or not _DIGITS.fullmatch(value.strip()):
        return None
    number = int(value)
    return number if number <= at_most else None


@lru_cache(maxsize=64)  # all answers of one second carry the same date
def _read_http_date(value: str) -> datetime | None:
    if not _HTTP_DATE.fullmatch(value):
        return None
    try:
        instant = parsedate_to_datetime(value)
    except ValueError:
        return None
    return instant if _EARLIEST <= instant <= datetime.now(UTC) + _FARTHEST_AHEAD else None


def _read_retry_after(value: str | None, answered_at: datetime | None) -> float | None:
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        seconds = float(value)
    else:
        until = _read_http_date(value)
        if until is None or answered_at is None:
            return None
        seconds = max(0.0, (until - answered_at).total_seconds())
    return seconds if seconds <= _LONGEST_RETRY_AFTER_S else None
