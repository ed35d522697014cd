import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twitter_pipeline.errors import (
    ApiError,
    Availability,
    BadRequest,
    ResourceForbidden,
    ResourceNotFound,
    ServerFault,
    TokenForbidden,
    TokenRejected,
    TooManyRequests,
    UsageCapped,
)
from twitter_pipeline.x_api.problems import (
    Problem,
    availability_of,
    read_disconnect,
    read_failure,
    read_problem,
    unknown_tweet_of,
)
from twitter_pipeline.x_api.rate_limit import RateLimits, RateLimitWindow
from twitter_pipeline_tests.unit.odd_json import ODD_VALUES

ATTEMPTED = "GET /2/users/:id/tweets for user 123"
PAYLOADS = Path(__file__).parents[1] / "payloads"


@dataclass(frozen=True, slots=True)
class Quoted:
    name: str
    status: int | None
    headers: Mapping[str, str]
    body: dict[str, Any]


def _load_quoted() -> dict[str, Quoted]:
    """Bodies quoted in public issues and documentation; each entry of the file names its source."""
    entries = json.loads((PAYLOADS / "x_api_problem_bodies.json").read_text())
    return {entry["name"]: Quoted(entry["name"], entry["status"], entry["headers"], entry["body"]) for entry in entries}


QUOTED = _load_quoted()

FAILURES: dict[str, type[ApiError]] = {
    "rate_limit": TooManyRequests,
    "rate_limit_v1_style": TooManyRequests,
    "usage_capped_monthly_product": UsageCapped,
    "credits_depleted": UsageCapped,
    "spend_cap_reached": UsageCapped,
    "client_not_enrolled": TokenForbidden,
    "unsupported_authentication_app_only": ResourceForbidden,
    "forbidden_action": ResourceForbidden,
    "unauthorized": TokenRejected,
    "service_unavailable": ServerFault,
    "since_id_too_old_recent_search": BadRequest,
    "since_id_with_start_time_search": BadRequest,
    "max_results_too_small": BadRequest,
    "stream_too_many_connections": TooManyRequests,
}
AVAILABILITIES: dict[str, Availability] = {
    "timeline_suspended_user": Availability.SUSPENDED,
    "timeline_missing_user": Availability.NOT_FOUND,
    "timeline_protected_user": Availability.PROTECTED,
}


def failure_of(status: int, body: object = b"", headers: Mapping[str, str] | None = None) -> ApiError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_failure(status, headers or {}, raw, attempted=ATTEMPTED)


def test_every_quoted_body_has_an_expectation() -> None:
    without_one = QUOTED.keys() - FAILURES.keys() - AVAILABILITIES.keys()

    assert without_one == {"empty_timeline", "stream_operational_disconnect"}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("host", ["api.twitter.com", "api.x.com"])
def test_every_quoted_failure_is_what_it_was_found_to_be(name: str, host: str) -> None:
    quoted = QUOTED[name]
    assert quoted.status is not None
    body = json.dumps(quoted.body).replace("api.twitter.com", host).encode()
    error = failure_of(quoted.status, body, quoted.headers)

    assert type(error) is FAILURES[name]
    assert error.status == quoted.status
    assert str(error).startswith(f"{ATTEMPTED} was answered with status {quoted.status}: ")


@pytest.mark.parametrize(
    "issue", ["TooManyConnections", "ProvisioningSubscription", "RuleConfigurationIssue", "RulesInvalidIssue", None]
)
def test_a_refused_connection_to_the_stream_says_nothing_about_windows(issue: str | None) -> None:
    quoted = QUOTED["stream_too_many_connections"]
    headers = {f"x-rate-limit-{name}": value for name, value in {"limit": "50", "remaining": "0", "reset": "9"}.items()}
    error = failure_of(429, {**quoted.body, "connection_issue": issue}, {**headers, "retry-after": "7"})

    assert isinstance(error, TooManyRequests)
    assert error.of_connection
    assert error.rate_limits == RateLimits(retry_after_s=7)
    assert ("another connection of the token's app is open" in str(error)) is (issue == "TooManyConnections")


def test_a_used_up_window_is_no_matter_of_connections() -> None:
    error = failure_of(429, QUOTED["rate_limit"].body)

    assert isinstance(error, TooManyRequests)
    assert not error.of_connection


@pytest.mark.parametrize("name", AVAILABILITIES)
def test_suspended_missing_and_protected_accounts_are_told_apart(name: str) -> None:
    (error,) = QUOTED[name].body["errors"]

    assert availability_of(read_problem(error)) is AVAILABILITIES[name]


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (204, ServerFault),
        (301, ServerFault),
        (302, ServerFault),
        (400, BadRequest),
        (401, TokenRejected),
        (402, UsageCapped),
        (403, ResourceForbidden),
        (404, ResourceNotFound),
        (405, BadRequest),
        (408, ServerFault),
        (409, BadRequest),
        (410, BadRequest),
        (414, BadRequest),
        (420, TooManyRequests),
        (422, BadRequest),
        (425, ServerFault),
        (429, TooManyRequests),
        (451, BadRequest),
        (499, BadRequest),
        (500, ServerFault),
        (502, ServerFault),
        (503, ServerFault),
        (504, ServerFault),
        (522, ServerFault),
        (599, ServerFault),
    ],
)
@pytest.mark.parametrize(
    "body", [b"", b"<html><title>nginx</title></html>", b"[]", b'{"title": 5, "errors": "x"}', b"\xff"]
)
def test_every_status_family_is_decided_without_the_help_of_the_body(
    status: int, error_class: type[ApiError], body: bytes
) -> None:
    error = failure_of(status, body)

    assert type(error) is error_class


@pytest.mark.parametrize(
    "body",
    [
        {"errors": [{"code": 416, "message": "Invalid / suspended application"}]},
        {"errors": [{"code": 64, "message": "Your account is suspended and is not permitted to access this feature"}]},
        {"title": "Forbidden", "detail": "This client application has been suspended.", "type": "about:blank"},
        {"reason": "official-client-forbidden"},
    ],
)
def test_a_suspended_app_closes_every_endpoint_to_its_token(body: object) -> None:
    error = failure_of(403, body)

    assert isinstance(error, TokenForbidden)
    assert error.everywhere


def test_an_app_that_is_not_enrolled_may_lack_only_the_endpoint_that_was_asked() -> None:
    error = failure_of(403, QUOTED["client_not_enrolled"].body)

    assert isinstance(error, TokenForbidden)
    assert not error.everywhere


@pytest.mark.parametrize(
    ("name", "of_endpoint"), [("unsupported_authentication_app_only", True), ("forbidden_action", False)]
)
def test_a_403_of_the_endpoint_is_told_from_one_of_the_resource(name: str, of_endpoint: bool) -> None:
    error = failure_of(403, QUOTED[name].body)

    assert isinstance(error, ResourceForbidden)
    assert error.of_endpoint is of_endpoint


def test_a_suspended_account_does_not_cost_the_token() -> None:
    body = {"title": "Forbidden", "detail": "User has been suspended: [5].", "type": "about:blank"}

    assert type(failure_of(403, body)) is ResourceForbidden


def test_a_cap_says_until_when_as_the_start_of_that_day() -> None:
    spend_cap = QUOTED["spend_cap_reached"]
    error = failure_of(403, spend_cap.body, {"date": "Fri, 01 May 2026 12:00:00 GMT"})

    assert isinstance(error, UsageCapped)
    assert error.until == datetime(2026, 5, 13, tzinfo=UTC)


@pytest.mark.parametrize("reset_date", ["2026-11-22", "2026-11-01", "2026-12-25", "2099-01-01"])
def test_a_cap_until_a_date_that_cannot_be_one_has_no_end(reset_date: str) -> None:
    headers = {"date": "Sun, 22 Nov 2026 12:00:00 UTC"}
    error = failure_of(403, {"title": "SpendCapReached", "reset_date": f"{reset_date}T00:00:00Z"}, headers)

    assert isinstance(error, UsageCapped)
    assert error.until is None


@pytest.mark.parametrize(
    ("reset_date", "until"),
    [
        ("2026-05-13T18:30:00.000Z", datetime(2026, 5, 13, tzinfo=UTC)),
        ("next month", None),
        (20261332, None),
        (None, None),
    ],
)
def test_a_cap_without_a_readable_date_has_no_end(reset_date: object, until: datetime | None) -> None:
    headers = {"date": "Fri, 01 May 2026 12:00:00 GMT"}
    error = failure_of(403, {"title": "SpendCapReached", "reset_date": reset_date}, headers)

    assert isinstance(error, UsageCapped)
    assert error.until == until


@pytest.mark.parametrize("date", [None, "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"])
@pytest.mark.parametrize(("days", "has_end"), [(-1, False), (7, True), (40, False), (2_900_000, False)])
def test_without_a_time_of_xs_a_cap_is_bounded_by_our_clock(date: str | None, days: int, has_end: bool) -> None:
    reset_date = f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%d}"
    problem: Any = {"title": "UsageCapExceeded", "type": "x/usage-capped", "reset_date": reset_date}
    refused = failure_of(429, problem, {} if date is None else {"date": date})
    told = read_disconnect(read_problem(problem))

    assert isinstance(refused, UsageCapped)
    assert isinstance(told, UsageCapped)
    assert [error.until is not None for error in (refused, told)] == [has_end, has_end]


@pytest.mark.parametrize(
    ("body", "of_page_token"),
    [
        ({"errors": [{"parameters": {"pagination_token": ["a"]}, "message": "It is not valid"}]}, True),
        ({"errors": [{"parameters": {"next_token": ["a"]}, "message": "It is not valid"}]}, True),
        ({"title": "Invalid Request", "parameter": "pagination_token", "value": "a"}, True),
        ({"title": "Invalid Request", "detail": "The next token has expired."}, True),
        ({"errors": [{"message": "Invalid 'next_token'"}]}, True),
        ({"errors": [{"parameters": {"max_results": ["4"]}, "message": "It is not between 5 and 100"}]}, False),
        ({"title": "Invalid Request", "detail": "The bearer token is no token"}, False),
        ({"errors": [{"parameters": ["pagination_token"]}, {"parameters": None}]}, False),
        ({}, False),
    ],
)
def test_a_400_that_is_about_the_page_token_is_known(body: object, of_page_token: bool) -> None:
    error = failure_of(400, json.dumps(body).encode())

    assert isinstance(error, BadRequest)
    assert error.of_page_token is of_page_token


def test_a_429_keeps_the_limits_of_its_headers() -> None:
    headers = {"x-rate-limit-limit": "900", "x-rate-limit-remaining": "0", "x-rate-limit-reset": "1795349700"}
    error = failure_of(429, QUOTED["rate_limit"].body, headers | {"x-transaction-id": "abc"})

    assert error.rate_limits is not None
    assert error.rate_limits.window == RateLimitWindow(limit=900, remaining=0, reset_epoch=1_795_349_700)
    assert error.transaction_id == "abc"


def test_a_429_without_headers_has_no_window() -> None:
    error = failure_of(429, QUOTED["rate_limit"].body)

    assert error.rate_limits is not None
    assert error.rate_limits.window is None


@pytest.mark.parametrize(
    "name", ["usage_capped_monthly_product", "credits_depleted", "client_not_enrolled", "unauthorized"]
)
def test_the_general_limiters_headers_are_not_taken_for_the_endpoints(name: str) -> None:
    quoted = QUOTED[name]
    assert quoted.status is not None
    headers = {"x-rate-limit-limit": "40000", "x-rate-limit-remaining": "39999", "x-rate-limit-reset": "1795349700"}

    assert failure_of(quoted.status, quoted.body, headers).rate_limits is None


def test_an_account_id_above_2_to_the_53_is_read_to_the_last_digit() -> None:
    problem = read_problem(QUOTED["credits_depleted"].body)

    assert problem.account_id == 1234567890123456789
    assert "[1234567890123456789]" in str(problem)


def test_the_message_holds_what_was_attempted_and_the_apis_own_words() -> None:
    error = failure_of(400, QUOTED["max_results_too_small"].body)

    assert str(error) == (
        "GET /2/users/:id/tweets for user 123 was answered with status 400: Invalid Request: One or more parameters to "
        "your request was invalid. The `max_results` query parameter value [4] is not between 5 and 100"
    )


def test_a_message_from_outside_is_short_and_one_line() -> None:
    error = failure_of(400, {"title": "a\x00b\r\n\x1b[31mc\u202e", "detail": "x" * 5000})
    told = str(error).removeprefix(f"{ATTEMPTED} was answered with status 400: ")

    assert told.startswith("a\ufffdb [31mc : xxx")
    assert told.isprintable()
    assert len(told) == 300


def test_an_html_page_is_told_by_its_title() -> None:
    error = failure_of(502, b"<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>")

    assert str(error) == f"{ATTEMPTED} was answered with status 502: 502 Bad Gateway"


USER = {"resource_type": "user", "parameter": "id", "title": "Not Found Error", "type": "x/resource-not-found"}


@pytest.mark.parametrize(
    "change",
    [
        {"section": "includes"},
        {"resource_type": "tweet"},
        {"parameter": "entities.mentions.username"},
        {"parameter": "in_reply_to_user_id"},
        {"type": "https://api.x.com/2/problems/not-authorized-for-field"},
        {"type": "https://api.x.com/2/problems/resource-unavailable"},
        {"type": "about:blank", "title": "Odd"},
    ],
)
def test_what_is_no_statement_about_the_account_asked_for_says_nothing(change: dict[str, str]) -> None:
    assert availability_of(read_problem({**USER, **change})) is None


def test_a_missing_name_of_a_look_up_is_an_account_not_found() -> None:
    problem = read_problem({**USER, "parameter": "usernames", "value": "nobody", "section": "data"})

    assert availability_of(problem) is Availability.NOT_FOUND


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["errors", "title", "detail", "type", "code", "message", "status", "reset_date", "account_id"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)  # the time of one example depends on the machine
@given(
    status=st.integers(100, 599).filter(lambda status: status != 200), body=st.binary() | json_values.map(json.dumps)
)
def test_reading_a_failure_never_raises(status: int, body: bytes | str) -> None:
    error = failure_of(status, body if isinstance(body, bytes) else body.encode())

    assert error.status == status
    assert len(str(error)) < 400


@given(st.sampled_from(["", "\ufeff"]), st.sampled_from(ODD_VALUES))
def test_what_is_odd_in_a_failure_changes_nothing_of_its_meaning(before: str, odd: bytes) -> None:
    body = b'%b{"title":"UsageCapExceeded","detail":%b,"reset_date":"2026-12-01","errors":[{"code":88},%b],"odd":%b}'
    error = failure_of(429, body % (before.encode(), odd, odd, odd))

    assert isinstance(error, UsageCapped)
    assert error.until == datetime(2026, 12, 1, tzinfo=UTC)


@settings(deadline=None)  # the time of one example depends on the machine
@given(json_values)
def test_a_problem_is_read_from_json_of_any_shape(value: Any) -> None:
    problem = read_problem(value)

    assert isinstance(problem, Problem)
    assert availability_of(problem) is None


UNKNOWN_TWEET = {
    "title": "Not Found Error",
    "detail": "Could not find tweet with ids: [20].",
    "type": "https://api.twitter.com/2/problems/resource-not-found",
    "resource_type": "tweet",
    "parameter": "ids",
    "value": "20",
}


@pytest.mark.parametrize(
    ("changes", "tweet_id"),
    [
        ({}, 20),
        ({"resource_type": "post"}, 20),
        ({"value": "", "resource_id": "20"}, 20),
        ({"section": "includes"}, None),
        ({"parameter": "referenced_tweets.id"}, None),
        ({"resource_type": "user"}, None),
        ({"title": "Forbidden", "detail": "User has been suspended: [20]."}, None),
        ({"detail": "The author has been suspended: [20]."}, None),
        ({"title": "Authorization Error", "type": "https://x/not-authorized-for-resource"}, None),
        ({"value": "twenty"}, None),
        ({"value": "2" * 5_000}, None),
        ({"value": "", "resource_id": ""}, None),
    ],
)
def test_only_a_tweet_that_was_asked_for_and_is_not_known_is_called_unknown(
    changes: dict[str, str], tweet_id: int | None
) -> None:
    assert unknown_tweet_of(read_problem({**UNKNOWN_TWEET, **changes})) == tweet_id
