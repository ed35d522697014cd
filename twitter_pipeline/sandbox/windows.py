"""Bearer tokens and the fixed windows in which their calls are counted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

USERS_BY: Final = "/2/users/by"
USERS: Final = "/2/users"
USER_BY_NAME: Final = "/2/users/by/username/:username"
USER: Final = "/2/users/:id"
USER_TWEETS: Final = "/2/users/:id/tweets"
TWEETS: Final = "/2/tweets"
TWEET: Final = "/2/tweets/:id"
SEARCH_RECENT: Final = "/2/tweets/search/recent"
SEARCH_ALL: Final = "/2/tweets/search/all"
COUNTS_RECENT: Final = "/2/tweets/counts/recent"
COUNTS_ALL: Final = "/2/tweets/counts/all"
USAGE: Final = "/2/usage/tweets"
STREAM: Final = "/2/tweets/search/stream"
STREAM_RULES: Final = "/2/tweets/search/stream/rules"
CHANGE_RULES: Final = "POST /2/tweets/search/stream/rules"

DEFAULT_LIMITS: Final[Mapping[str, int]] = {
    USERS_BY: 300,
    USERS: 300,
    USER_BY_NAME: 300,
    USER: 300,
    USER_TWEETS: 10_000,
    TWEETS: 3_500,
    TWEET: 450,
    SEARCH_RECENT: 450,
    SEARCH_ALL: 300,
    COUNTS_RECENT: 300,
    COUNTS_ALL: 300,
    USAGE: 50,
    STREAM: 50,
    STREAM_RULES: 450,
    CHANGE_RULES: 100,
}
"""Calls of an app-only token per 15 minutes on pay-per-use (docs.x.com, x-api/fundamentals/rate-limits, 2026); those
that are no GET begin with their method."""

DAY_S: Final = 86_400.0

TokenState = Literal["active", "invalid", "capped", "credits", "spend_cap", "not_enrolled", "suspended_app"]


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """A bearer token as a test wants it.

    `limits` and `day_limits` are calls a window and a day by endpoint; a day's limit is told in the
    `x-app-limit-24hour-*` headers, as on the former Basic plan. `window_offset_s` moves the token's windows against
    the others'. After `dies_after` calls the token is revoked, after `post_cap` posts it is capped.
    """

    bearer: str = field(repr=False)
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    day_limits: Mapping[str, int] = field(default_factory=dict[str, int])
    state: TokenState = "active"
    dies_after: int | None = None
    window_offset_s: float = 0.0
    post_cap: int | None = None


@dataclass(slots=True)
class Window:
    """Calls of one token on one endpoint in fixed windows of `length_s` from `offset_s` on."""

    limit: int
    length_s: float
    offset_s: float
    number: int = -1
    used: int = 0

    def roll(self, now: float) -> None:
        """Open the window that `now` lies in, if it is another one."""
        number = self._number_at(now)
        if number != self.number:
            self.number, self.used = number, 0

    @property
    def remaining(self) -> int:
        """The calls that are left."""
        return max(0, self.limit - self.used)

    @property
    def resets_at(self) -> int:
        """The first whole second that lies in a later window, so that waiting for it always suffices."""
        second = math.floor(self.offset_s + (self.number + 1) * self.length_s)
        while self._number_at(second) <= self.number:
            second += 1
        return second

    def _number_at(self, now: float) -> int:
        return math.floor((now - self.offset_s) / self.length_s)


@dataclass(slots=True)
class Token:
    """A token at work."""

    index: int
    spec: TokenSpec
    state: TokenState
    windows: dict[str, Window] = field(default_factory=dict[str, Window])
    days: dict[str, Window] = field(default_factory=dict[str, Window])
    calls: int = 0
    posts: int = 0
    last_full_search_at: float = float("-inf")

    def window(self, endpoint: str, default_limit: int, length_s: float, now: float) -> Window:
        """Give the window of an endpoint that is open now."""
        window = self.windows.get(endpoint)
        if window is None:
            limit = self.spec.limits.get(endpoint, default_limit)
            window = self.windows[endpoint] = Window(limit, length_s, self.spec.window_offset_s)
        window.roll(now)
        return window

    def day(self, endpoint: str, now: float) -> Window | None:
        """Give the day's window of an endpoint, if it has a daily limit."""
        if endpoint not in self.spec.day_limits:
            return None
        day = self.days.get(endpoint)
        if day is None:
            day = self.days[endpoint] = Window(self.spec.day_limits[endpoint], DAY_S, self.spec.window_offset_s)
        day.roll(now)
        return day
