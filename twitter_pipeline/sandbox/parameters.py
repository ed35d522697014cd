"""The parameters of each endpoint, what the API refuses about them, and what is left when it does not."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from twitter_pipeline.sandbox import vocabulary as words
from twitter_pipeline.sandbox import windows as at
from twitter_pipeline.sandbox.problems import Problem, invalid_request, invalid_value

_ID: Final = re.compile(r"[0-9]{1,19}\Z")
_USERNAME: Final = re.compile(r"[A-Za-z0-9_]{1,15}\Z")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)
_EARLIEST: Final = datetime(2010, 11, 6, tzinfo=UTC)
_EARLIEST_SEARCH: Final = datetime(2006, 3, 21, tzinfo=UTC)
_MOST_NAMES: Final = 100
_MOST_RULES: Final = 1_000
_RULES_TOKEN: Final = 16

Check = Callable[[str, str], str | None]
"""From the parameter's name and value to the message of the refusal, or None."""


class Refused(Exception):
    """The request is refused; `problem` is the body of the 400."""

    def __init__(self, *errors: Problem) -> None:
        super().__init__(str(errors))
        self.problem = invalid_request(*errors)


def checked(
    endpoint: str,
    query: str,
    path_values: Mapping[str, str],
    *,
    posts_only: bool = False,
    unknown: frozenset[str] = frozenset(),
) -> dict[str, str]:
    """Read the query of a call and give its parameters, or raise `Refused` with everything wrong with them.

    With `posts_only` the names are those of OpenAPI 2.167 alone; `unknown` parameters, fields and expansions are
    refused.
    """
    checks = _checks(endpoint, posts_only, unknown)
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    errors = [
        invalid_value(
            f"The query parameter [{name}] is not one of [{','.join(_names(endpoint, checks))}]", **{name: value}
        )
        for name, value in pairs
        if name not in checks or name in path_values
    ]
    given |= path_values
    for name, value in given.items():
        check = checks.get(name)
        message = check(name, value) if check else None
        if message:
            errors.append(invalid_value(message, **{name: value}))
    errors += [
        invalid_value(f"The `{name}` query parameter can not be empty", **{name: ""})
        for name in _REQUIRED.get(endpoint, ())
        if name not in given
    ]
    if errors:
        raise Refused(*errors)
    return given


def instant(value: str) -> float:
    """Read a time that was checked, as seconds since 1970."""
    return datetime.fromisoformat(value).timestamp()


def _names(endpoint: str, checks: Mapping[str, Check]) -> list[str]:
    return sorted(checks.keys() | {part[1:] for part in endpoint.split("/") if part.startswith(":")})


def _id(name: str, value: str) -> str | None:
    if _ID.match(value):
        return None
    return f"The `{name}` query parameter value [{value}] is not valid"


def _bound(name: str, value: str) -> str | None:
    if _ID.match(value) and int(value) > 0:
        return None
    return f"The `{name}` query parameter value [{value}] is not valid"


def _username(name: str, value: str) -> str | None:
    if _USERNAME.match(value):
        return None
    return f"The `{name}` query parameter value [{value}] does not match ^[A-Za-z0-9_]{{1,15}}$"


def _between(least: int, most: int) -> Check:
    def check(name: str, value: str) -> str | None:
        if value.isascii() and value.isdigit() and least <= int(value) <= most:
            return None
        return f"The `{name}` query parameter value [{value}] is not between {least} and {most}"

    return check


def _each(check: Check, most: int = _MOST_NAMES) -> Check:
    def check_all(name: str, value: str) -> str | None:
        count = len(values := value.split(","))
        if count > most:
            return f"The number of values in the `{name}` query parameter list [{count}] is not between 1 and {most}"
        return next((message for one in values if (message := check(name, one))), None)

    return check_all


class _Among:
    """Checks a list of names."""

    def __init__(self, *allowed: str) -> None:
        self.allowed: Final = allowed
        self._accepted: Final = frozenset(allowed)

    @lru_cache(maxsize=64)  # noqa: B019 there are few, and they are never dropped
    def __call__(self, name: str, value: str) -> str | None:
        wrong = [one for one in value.split(",") if one not in self._accepted]
        if not wrong:
            return None
        return f"The `{name}` query parameter value [{wrong[0]}] is not one of [{','.join(self.allowed)}]"

    def without(self, unknown: frozenset[str]) -> "_Among":
        return _Among(*(name for name in self.allowed if name not in unknown))


def _one_of(*allowed: str) -> Check:
    def check(name: str, value: str) -> str | None:
        if value in allowed:
            return None
        return f"The `{name}` query parameter value [{value}] is not one of [{','.join(allowed)}]"

    return check


def _since(earliest: datetime) -> Check:
    def check(name: str, value: str) -> str | None:
        if not _INSTANT.match(value):
            return f"The `{name}` query parameter value [{value}] is not a valid RFC3339 timestamp"
        try:
            given = datetime.fromisoformat(value)
        except ValueError:
            return f"The `{name}` query parameter value [{value}] is not a valid RFC3339 timestamp"
        if given < earliest:
            return f"Invalid '{name}':'{value}'. '{name}' must be on or after {earliest:%Y-%m-%dT%H:%MZ}"
        return None

    return check


def _text(longest: int) -> Check:
    def check(name: str, value: str) -> str | None:
        if not value:
            return f"Invalid value for parameter `{name}`: it can not be empty"
        if len(value) > longest:
            return (
                f"Rules must be no more than {longest} characters in length: "
                f"the `{name}` query parameter has {len(value)}"
            )
        return None

    return check


def _flag(name: str, value: str) -> str | None:
    if value.lower() in {"true", "false"}:
        return None
    return f"The `{name}` query parameter value [{value}] is not a boolean"


def is_set(parameters: Mapping[str, str], flag: str) -> bool:
    """Read a boolean that was checked; X's own SDK and tweepy write `True`."""
    return parameters.get(flag, "").lower() == "true"


def _enterprise(name: str, _: str) -> str:
    return f"The `{name}` query parameter is not available in the current product"


def _rules_token(name: str, value: str) -> str | None:
    if len(value) == _RULES_TOKEN and value.isascii() and value.isdigit():
        return None
    return f"The `{name}` query parameter value [{value}] is not valid"


def _anything(name: str, value: str) -> str | None:
    return None if value else f"The `{name}` query parameter can not be empty"


_OBJECTS: Final[Mapping[str, Check]] = {
    "tweet.fields": _Among(*words.TWEET_FIELDS),
    "post.fields": _Among(*words.POST_FIELDS),
    "user.fields": _Among(*dict.fromkeys((*words.USER_FIELDS, *words.POST_USER_FIELDS))),
}
_OF_USERS: Final[Mapping[str, Check]] = {
    **_OBJECTS,
    "expansions": _Among(*words.USER_EXPANSIONS, *words.POST_USER_EXPANSIONS),
}
_OF_TWEETS: Final[Mapping[str, Check]] = {
    **_OBJECTS,
    "expansions": _Among(*dict.fromkeys((*words.TWEET_EXPANSIONS, *words.POST_EXPANSIONS))),
    "media.fields": _Among(*words.MEDIA_FIELDS),
    "poll.fields": _Among(*words.POLL_FIELDS),
    "place.fields": _Among(*words.PLACE_FIELDS),
}
_OF_BOUNDS: Final[Mapping[str, Check]] = {
    "since_id": _bound,
    "until_id": _bound,
    "pagination_token": _anything,
}


def _searched(longest: int, earliest: datetime) -> Mapping[str, Check]:
    return {
        **_OF_BOUNDS,
        "query": _text(longest),
        "next_token": _anything,
        "start_time": _since(earliest),
        "end_time": _since(earliest),
    }


_RECENT: Final = _searched(512, _EARLIEST)
_ALL: Final = _searched(1_024, _EARLIEST_SEARCH)
_OF_SEARCH: Final[Mapping[str, Check]] = {**_OF_TWEETS, "sort_order": _one_of("recency", "relevancy")}
_OF_COUNTS: Final[Mapping[str, Check]] = {
    "granularity": _one_of("minute", "hour", "day"),
    "search_count.fields": _Among(*words.SEARCH_COUNT_FIELDS, "post_count"),
}


CHECKS: Final[Mapping[str, Mapping[str, Check]]] = {
    at.USERS_BY: {**_OF_USERS, "usernames": _each(_username)},
    at.USERS: {**_OF_USERS, "ids": _each(_id)},
    at.USER_BY_NAME: {**_OF_USERS, "username": _username},
    at.USER: {**_OF_USERS, "id": _id},
    at.USER_TWEETS: {
        **_OF_TWEETS,
        **_OF_BOUNDS,
        "id": _id,
        "max_results": _between(5, 100),
        "exclude": _Among("replies", "retweets"),
        "start_time": _since(_EARLIEST),
        "end_time": _since(_EARLIEST),
    },
    at.TWEETS: {**_OF_TWEETS, "ids": _each(_id)},
    at.TWEET: {**_OF_TWEETS, "id": _id},
    at.SEARCH_RECENT: {**_RECENT, **_OF_SEARCH, "max_results": _between(10, 100)},
    at.SEARCH_ALL: {**_ALL, **_OF_SEARCH, "max_results": _between(10, 500)},
    at.COUNTS_RECENT: {**_RECENT, **_OF_COUNTS},
    at.COUNTS_ALL: {**_ALL, **_OF_COUNTS},
    at.USAGE: {
        "days": _between(1, 90),
        "usage.fields": _Among(*words.USAGE_FIELDS),
    },
    at.STREAM: {**_OF_TWEETS, "backfill_minutes": _enterprise, "start_time": _enterprise, "end_time": _enterprise},
    at.STREAM_RULES: {
        "ids": _each(_id, _MOST_RULES),
        "max_results": _between(1, 1_000),
        "pagination_token": _rules_token,
    },
    at.CHANGE_RULES: {"dry_run": _flag, "delete_all": _flag},
}
"""Every parameter the sandbox takes, by endpoint: those of the official OpenAPI 2.166 and `post.fields` of 2.167."""

_OF_POSTS: Final[Mapping[str, Check]] = {
    "user.fields": _Among(*words.POST_USER_FIELDS),
    "post.fields": _Among(*words.POST_FIELDS),
}


@lru_cache(maxsize=256)
def _checks(endpoint: str, posts_only: bool, unknown: frozenset[str]) -> Mapping[str, Check]:
    checks = CHECKS[endpoint]
    if posts_only and "tweet.fields" in checks:
        expansions = words.POST_EXPANSIONS if "media.fields" in checks else words.POST_USER_EXPANSIONS
        checks = {**checks, **_OF_POSTS, "expansions": _Among(*expansions)}
        unknown |= {"tweet.fields"}
    return {
        name: check.without(unknown) if isinstance(check, _Among) else check
        for name, check in checks.items()
        if name not in unknown
    }


_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    at.USERS_BY: ("usernames",),
    at.USERS: ("ids",),
    at.TWEETS: ("ids",),
    at.SEARCH_RECENT: ("query",),
    at.SEARCH_ALL: ("query",),
    at.COUNTS_RECENT: ("query",),
    at.COUNTS_ALL: ("query",),
}
