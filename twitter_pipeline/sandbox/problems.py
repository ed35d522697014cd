"""The API's refusals and partial errors, in the shapes that were recorded or quoted publicly.

Where a body was seen by somebody, the source stands with it. The wording of the other 400s follows that of the
`max_results` refusal (github.com/usadamasa/twigpui, measured 2026-08-23).
"""

from collections.abc import Mapping
from typing import Any, Final

Problem = dict[str, Any]

_PROBLEMS: Final = "https://api.twitter.com/2/problems"
_PROBLEMS_OF_POSTS: Final = "https://api.x.com/2/problems"


def about_blank(status: int, title: str) -> Problem:
    """Give the short body of 401, 429 and 503 (github.com/cjbarrie/academictwitteR search/all-90b063, many issues)."""
    return {"title": title, "detail": title, "type": "about:blank", "status": status}


def internal_error() -> Problem:
    """Return the entry of `errors` for a failure of X itself in a 200; the shape is assumed, not recorded."""
    return {
        "title": "Internal Server Error",
        "detail": "Something went wrong.",
        "type": f"{_PROBLEMS}/internal-error",
    }


def invalid_request(*errors: Problem) -> Problem:
    """Give a 400 from what `invalid_value` found."""
    return {
        "errors": list(errors),
        "title": "Invalid Request",
        "detail": "One or more parameters to your request was invalid.",
        "type": f"{_PROBLEMS}/invalid-request",
    }


def invalid_value(message: str, **parameters: str) -> Problem:
    """Give one entry of a 400."""
    return {"parameters": {name: [value] for name, value in parameters.items()}, "message": message}


def missing(kind: str, parameter: str, value: str, **more: str) -> Problem:
    """Say that a resource does not exist (academictwitteR users/1405327120163872777/tweets, tweets-0b8bd2)."""
    return {
        "value": value,
        "detail": f"Could not find {kind} with {parameter}: [{value}].",
        "title": "Not Found Error",
        "resource_type": kind,
        "parameter": parameter,
        "resource_id": value,
        "type": f"{_PROBLEMS}/resource-not-found",
        **more,
    }


def suspended(parameter: str, value: str) -> Problem:
    """Say that a user is suspended; the type is that of a missing one (academictwitteR users/45648666/mentions)."""
    return {
        "parameter": parameter,
        "resource_id": value,
        "value": value,
        "detail": f"User has been suspended: [{value}].",
        "title": "Forbidden",
        "resource_type": "user",
        "type": f"{_PROBLEMS}/resource-not-found",
    }


def not_authorized(kind: str, parameter: str, value: str) -> Problem:
    """Say that a protected account or tweet may not be seen (quoted in many public issues)."""
    shown = "Tweet" if kind == "tweet" else kind
    return {
        "resource_id": value,
        "parameter": parameter,
        "resource_type": kind,
        "section": "data",
        "title": "Authorization Error",
        "value": value,
        "detail": f"Sorry, you are not authorized to see the {shown} with {parameter}: [{value}].",
        "type": f"{_PROBLEMS}/not-authorized-for-resource",
    }


def lost_reference(tweet_id: int, *, posts: bool) -> Problem:
    """Say that a tweet which another refers to is gone; the page itself is whole (academictwitteR users/460255655)."""
    return missing("tweet", "referenced_posts" if posts else "referenced_tweets.id", str(tweet_id), section="includes")


def of_posts(problem: Problem) -> Problem:
    """Return a partial error as the `post` vocabulary has it: the host is X's own (OpenAPI 2.167)."""
    return {**problem, "type": problem["type"].replace(_PROBLEMS, _PROBLEMS_OF_POSTS)}


def usage_capped(account_id: int) -> Problem:
    """Give the 429 of a used-up monthly cap (github.com/xdevplatform/xdk/issues/25)."""
    return {
        "account_id": account_id,
        "product_name": "standard-basic",
        "title": "UsageCapExceeded",
        "period": "Monthly",
        "scope": "Product",
        "detail": "Usage cap exceeded: Monthly product cap",
        "type": f"{_PROBLEMS}/usage-capped",
    }


def credits_depleted(account_id: int) -> Problem:
    """Give the 402 of an account without money (github.com/tryethernal/ethernal/issues/1314)."""
    return {
        "account_id": account_id,
        "title": "CreditsDepleted",
        "detail": f"Your enrolled account [{account_id}] does not have any credits to fulfill this request.",
        "type": f"{_PROBLEMS}/credits",
    }


def spend_cap_reached(reset_date: str) -> Problem:
    """Give the 403 of an account at its own spending limit (a public bot's log, May 2026)."""
    return {
        "title": "SpendCapReached",
        "detail": "Your enrolled account has reached its billing cycle spend cap.",
        "reset_date": reset_date,
        "type": f"{_PROBLEMS}/credits",
    }


NOT_ENROLLED: Final[Mapping[str, Any]] = {
    "client_id": "12345678",
    "detail": (
        "When authenticating requests to the Twitter API v2 endpoints, you must use keys and tokens from a Twitter "
        "developer App that is attached to a Project. You can create a project via the developer portal."
    ),
    "registration_url": "https://developer.twitter.com/en/docs/projects/overview",
    "title": "Client Forbidden",
    "required_enrollment": "Appropriate Level of API Access",
    "reason": "client-not-enrolled",
    "type": f"{_PROBLEMS}/client-forbidden",
}
"""The 403 of an app outside a project (github.com/PLhery/node-twitter-api-v2, many issues)."""

SUSPENDED_APP: Final[Mapping[str, Any]] = {
    **NOT_ENROLLED,
    "detail": "This client application has been suspended.",
    "reason": "official-client-forbidden",
}
"""The 403 of a suspended app: no such body was published, this one only keeps to the official schema."""

NO_STREAM_RULES: Final[Mapping[str, Any]] = {
    "title": "ConnectionException",
    "detail": (
        "You must define rules using the POST /2/tweets/search/stream/rules endpoint before connecting to filtered "
        "stream."
    ),
    "connection_issue": "RuleConfigurationIssue",
    "type": f"{_PROBLEMS}/streaming-connection",
}
"""The 409 of a stream without rules (github.com/tweepy/tweepy/issues/1934)."""

TOO_MANY_CONNECTIONS: Final[Mapping[str, Any]] = {
    "title": "ConnectionException",
    "detail": "This stream is currently at the maximum allowed connection limit.",
    "connection_issue": "TooManyConnections",
    "type": f"{_PROBLEMS}/streaming-connection",
}
"""The 429 of a second connection (github.com/xdevplatform/samples/issues/140)."""

OPERATIONAL_DISCONNECT: Final[Mapping[str, Any]] = {
    "title": "operational-disconnect",
    "disconnect_type": "UpstreamOperationalDisconnect",
    "detail": "This stream has been disconnected upstream for operational reasons.",
    "type": f"{_PROBLEMS}/operational-disconnect",
}
"""The last line of a stream that X ends (docs.x.com, x-api/fundamentals/handling-disconnections)."""

INVALID_RULE: Final = "UnprocessableEntity"


def invalid_rule(value: str, why: str) -> Problem:
    """Say that a rule cannot be read; the shape was recorded, X's words for a rule that is too long were not."""
    return {"value": value, "details": [f"{why} (at position 1)"], "title": INVALID_RULE, "type": _rules("invalid")}


def duplicate_rule(value: str, rule_id: str) -> Problem:
    """Say that an app has a rule already; its tag is not told (recorded in a public bot's source, September 2022)."""
    return {"value": value, "id": rule_id, "title": "DuplicateRule", "type": _rules("duplicate")}


def rules_cap_exceeded(most: int) -> Problem:
    """Refuse a request whose rules would be too many; the title is known from public clients, the rest is not."""
    detail = f"The rules of this request would exceed the cap of {most} rules."
    return {"title": "RulesCapExceeded", "detail": detail, "type": f"{_PROBLEMS}/rule-cap"}


def _rules(what: str) -> str:
    return f"{_PROBLEMS}/{what}-rules"
