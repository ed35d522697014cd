"""The endpoints this project calls, named by their path as in X's table of rate limits."""

from enum import StrEnum


class Endpoint(StrEnum):
    """An endpoint with a rate limit of its own; the value is what `tokens_endpoint_rl.endpoint` holds."""

    USERS_BY = "/2/users/by"
    USERS = "/2/users"
    USER_TWEETS = "/2/users/:id/tweets"
    TWEETS = "/2/tweets"
    SEARCH_RECENT = "/2/tweets/search/recent"
    SEARCH_ALL = "/2/tweets/search/all"
    STREAM = "/2/tweets/search/stream"
    STREAM_RULES = "/2/tweets/search/stream/rules"
    CHANGE_STREAM_RULES = "POST /2/tweets/search/stream/rules"

    @property
    def spacing_s(self) -> float | None:
        """How many seconds must lie between two calls of a token, besides its window; None where that is free.

        The archive search takes one call per second (docs.x.com, "Rate limits").
        """
        return 1.0 if self is Endpoint.SEARCH_ALL else None

    @property
    def lacks_in_some_plans(self) -> bool:
        """Whether a plan may be without it: X then says that the app is not enrolled, though it works elsewhere."""
        return self in (
            Endpoint.USERS,
            Endpoint.SEARCH_RECENT,
            Endpoint.SEARCH_ALL,
            Endpoint.STREAM,
            Endpoint.STREAM_RULES,
            Endpoint.CHANGE_STREAM_RULES,
        )

    @property
    def documented_limit(self) -> int:
        """How many calls of an app-only token X documents in 15 minutes: a first guess, until its headers tell.

        For pay-per-use, in 2026 (docs.x.com, "Rate limits").
        """
        match self:
            case Endpoint.USER_TWEETS:
                return 10_000
            case Endpoint.TWEETS:
                return 3_500
            case Endpoint.SEARCH_RECENT | Endpoint.STREAM_RULES:
                return 450
            case Endpoint.USERS_BY | Endpoint.USERS | Endpoint.SEARCH_ALL:
                return 300
            case Endpoint.CHANGE_STREAM_RULES:
                return 100
            case Endpoint.STREAM:
                return 50
