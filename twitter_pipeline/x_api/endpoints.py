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

    @property
    def spacing_s(self) -> float | None:
        """How many seconds must lie between two calls of a token, besides its window; None where that is free.

        The archive search takes one call per second (docs.x.com, "Rate limits").
        """
        return 1.0 if self is Endpoint.SEARCH_ALL else None
