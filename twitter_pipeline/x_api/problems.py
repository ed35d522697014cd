"""What an answer means that is not what was asked for.

Problems follow RFC 7807 (`type`, `title`, `detail`); some come in the shape of v1.1 (`errors` of `code` and `message`),
as HTML, or empty. Of `type` only the last path segment is compared: documentation and service differ in the host
(api.x.com, api.twitter.com). What each status and body means is from docs.x.com ("Response codes and errors") and from
bodies quoted in public issues.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from twitter_pipeline.errors import (
    ApiError,
    Availability,
    BadRequest,
    ResourceForbidden,
    ResourceNotFound,
    ServerFault,
    StreamEnded,
    TokenForbidden,
    TokenRejected,
    TooManyRequests,
    UsageCapped,
)
from twitter_pipeline.x_api.json_values import (
    JsonObject,
    JsonValue,
    as_instant,
    as_int,
    as_list,
    as_object,
    as_text,
    clean_text,
    decode_json,
)
from twitter_pipeline.x_api.rate_limit import RateLimits, read_rate_limits

_LONGEST_MESSAGE = 300

LONGEST_CAP = timedelta(days=32)
"""A cap that X dates farther ahead has no date: its periods are a day or a month."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem that the API reports, with an empty string or None for each member that it left out.

    `kind` is the last path segment of `type` ("" for about:blank), `code` and `messages` are those of the nested or
    v1.1 `errors`. `section` says where in the answer something is missing: "data" or "includes". `issue` is X's word
    for what is wrong with a stream.
    """

    title: str = ""
    detail: str = ""
    kind: str = ""
    status: int | None = None
    parameter: str = ""
    value: str = ""
    resource_type: str = ""
    resource_id: str = ""
    section: str = ""
    reason: str = ""
    reset_date: str = ""
    issue: str = ""
    account_id: int | None = None
    code: int | None = None
    messages: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = " ".join(dict.fromkeys(part for part in (self.detail, *self.messages) if part != self.title))
        return one_line(": ".join(filter(None, (self.title, told))))


def read_problem(value: JsonValue) -> Problem:
    """Read one problem from JSON of any shape."""
    members = as_object(value)
    nested = [as_object(error) for error in as_list(members.get("errors"))]
    codes = [as_int(error.get("code")) for error in (members, *nested)]
    messages = [_text(error, "message") or _text(error, "detail") for error in (members, *nested)]
    own_detail = _text(members, "detail")
    return Problem(
        title=_text(members, "title"),
        detail=own_detail,
        kind=_last_segment(_text(members, "type")),
        status=as_int(members.get("status")),
        parameter=_text(members, "parameter"),
        value=_text(members, "value"),
        resource_type=_text(members, "resource_type"),
        resource_id=_text(members, "resource_id"),
        section=_text(members, "section"),
        reason=_text(members, "reason"),
        reset_date=_text(members, "reset_date"),
        issue=_text(members, "disconnect_type") or _text(members, "connection_issue"),
        account_id=as_int(members.get("account_id")),
        code=next((code for code in codes if code is not None), None),
        messages=tuple(message for message in messages if message and message != own_detail),
    )


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a 400 says of `parameters` of the request, each with the values that it repeats; it may name none."""

    parameters: Mapping[str, tuple[str, ...]]
    message: str


def _read_complaints(body: JsonObject) -> tuple[Complaint, ...]:
    """Read them from `errors` with `parameters` (OpenAPI 2.166) or from `parameter` and `value` (2.167)."""
    complaints: list[Complaint] = []
    for each in (body, *map(as_object, as_list(body.get("errors")))):
        named = {name: as_list(values) or [values] for name, values in as_object(each.get("parameters")).items()}
        if parameter := _text(each, "parameter"):
            named.setdefault(parameter, [each.get("value")])
        message = _text(each, "message") or _text(each, "detail")
        if named or message:
            complaints.append(Complaint({name: _words(values) for name, values in named.items()}, message))
    return tuple(complaints)


def _words(values: list[JsonValue]) -> tuple[str, ...]:
    words = (word.strip() for value in values for word in (as_text(value) or "").split(","))
    return tuple(filter(None, words))


def read_problems(errors: JsonValue) -> list[Problem]:
    """Read the `errors` that come beside or instead of the data of a 200."""
    return [read_problem(error) for error in as_list(errors)]


def read_flat_problem(body: bytes) -> Problem | None:
    """Read a body that is a problem itself, as X has sent with status 200; None where it is none."""
    try:
        members = as_object(decode_json(body))
    except ValueError:
        return None
    is_problem = "status" in members or ("title" in members and "detail" in members)
    return read_problem(members) if is_problem else None


def _text(members: JsonObject, name: str) -> str:
    return as_text(members.get(name)) or ""


def _last_segment(problem_type: str) -> str:
    return "" if problem_type == "about:blank" else problem_type.rstrip("/").rpartition("/")[2]


# Parameters by which accounts are asked for; under any other name a problem speaks of what a tweet refers to.
_ASKED_BY = frozenset({"", "id", "ids", "username", "usernames"})


def availability_of(problem: Problem) -> Availability | None:
    """Tell what a problem says about the account that was asked for; None when it says nothing about one.

    A suspended account has the `type` of a missing one, so title and detail decide.
    """
    if problem.section == "includes" or problem.resource_type != "user" or problem.parameter not in _ASKED_BY:
        return None
    if problem.kind not in ("", "resource-not-found", "not-authorized-for-resource"):
        return None
    words = f"{problem.title} {problem.detail}".lower()
    if "suspended" in words or (problem.title, problem.kind) == ("Forbidden", "resource-not-found"):
        return Availability.SUSPENDED
    if problem.kind == "not-authorized-for-resource" or problem.title == "Authorization Error":
        return Availability.PROTECTED
    if problem.kind == "resource-not-found" or problem.title == "Not Found Error":
        return Availability.NOT_FOUND
    return None


def unknown_tweet_of(problem: Problem) -> int | None:
    """Return the id of the tweet that was asked for and that X says it does not know; None for any other problem.

    Tweets of accounts that are suspended or protected have problems of other kinds.
    """
    if problem.section == "includes" or problem.resource_type not in ("tweet", "post"):
        return None
    if problem.parameter not in ("id", "ids") or problem.kind != "resource-not-found":
        return None
    if problem.title != "Not Found Error" or "suspended" in problem.detail.lower():
        return None
    return as_int(problem.value or problem.resource_id)


_Rule = tuple[Callable[[int, Problem], bool], type[ApiError]]

_CAP_TITLES = frozenset({"CreditsDepleted", "SpendCapReached", "UsageCapExceeded"})
_APP_SUSPENDED = re.compile(
    r"\b(?:app|application|client|developer account)\b[^.]*\bsuspended\b|\bsuspended (?:app|application|client)\b", re.I
)


def _is_cap(status: int, problem: Problem) -> bool:
    return status == 402 or (
        status in (403, 429) and (problem.kind in ("credits", "usage-capped") or problem.title in _CAP_TITLES)
    )


def _is_app_suspended(problem: Problem) -> bool:
    # Codes of v1.1: 416 is a suspended app, 64 a suspended account that owns the token.
    return (
        problem.reason == "official-client-forbidden"
        or problem.code in (64, 416)
        or _APP_SUSPENDED.search(f"{problem.title}. {problem.detail}. {'. '.join(problem.messages)}") is not None
    )


def _is_closed_to_token(status: int, problem: Problem) -> bool:
    return status == 403 and (
        problem.kind == "client-forbidden" or problem.reason == "client-not-enrolled" or _is_app_suspended(problem)
    )


_PAGE_TOKEN = re.compile(r"\b(?:pagination|previous|next|page)[ _]?token\b", re.I)


def _is_of_page_token(complaint: Complaint) -> bool:
    return any(map(_PAGE_TOKEN.search, (*complaint.parameters, complaint.message)))


def _is_rate_limit(status: int, problem: Problem) -> bool:
    # 420 is the 429 of older X services, 88 the code of v1.1.
    return status in (420, 429) or (400 <= status < 500 and problem.code == 88)


# The first rule that applies decides. 408 and 425 ask for another try; a redirect or a 2xx other than 200 is nothing
# that the API documents, and speaks of what stands between us and it.
_RULES: tuple[_Rule, ...] = (
    (_is_cap, UsageCapped),
    (lambda status, _: status == 401, TokenRejected),
    (_is_closed_to_token, TokenForbidden),
    (_is_rate_limit, TooManyRequests),
    (lambda status, _: status == 403, ResourceForbidden),
    (lambda status, _: status == 404, ResourceNotFound),
    (lambda status, _: status < 400 or status >= 500 or status in (408, 425), ServerFault),
    (lambda _, __: True, BadRequest),
)

# Their headers show a general limiter of 40,000 calls, not the endpoint's (github.com/xdevplatform/xdk/issues/25).
_LIMITS_OF_ANOTHER = (UsageCapped, TokenRejected, TokenForbidden)


_ISSUES = {"TooManyConnections": "another connection of the token's app is open, or was until just now"}


def read_failure(status: int, headers: Mapping[str, str], body: bytes, *, attempted: str) -> ApiError:
    """Decide what an answer other than 200 means; the error is returned, not raised.

    `attempted` opens the message, such as "GET /2/users/:id/tweets for user 123".
    """
    members = _read_failure_body(body)
    problem = Problem(detail=_describe_text(body)) if members is None else read_problem(members)
    error_class = next(error_class for applies, error_class in _RULES if applies(status, problem))
    told = str(problem) or "no explanation"
    if problem.issue in _ISSUES:
        told += f" ({_ISSUES[problem.issue]})"
    limits = read_rate_limits(headers)
    error = error_class(
        f"{attempted} was answered with status {status}: {told}",
        status=status,
        rate_limits=None if issubclass(error_class, _LIMITS_OF_ANOTHER) else limits,
        transaction_id=headers.get("x-transaction-id"),
    )
    match error:
        case UsageCapped():
            error.until = _cap_ends(problem, limits.answered_at)
        case TokenForbidden():
            error.everywhere = _is_app_suspended(problem)
        case BadRequest():
            error.complaints = _read_complaints(members or {})
            error.of_page_token = any(map(_is_of_page_token, error.complaints))
        case TooManyRequests() if problem.kind == "streaming-connection":
            error.of_connection = True
            # Its headers are those of the endpoint's window or of a general limiter; neither is the reason.
            error.rate_limits = RateLimits(answered_at=limits.answered_at, retry_after_s=limits.retry_after_s)
        case ResourceForbidden():
            error.of_endpoint = problem.kind == "unsupported-authentication"
        case _:
            pass
    return error


_ENDS_A_STREAM = frozenset({"client-disconnected", "operational-disconnect", "streaming-connection"})


def read_disconnect(problem: Problem) -> ApiError | None:
    """Tell what a line of a stream means that holds a problem and no tweet; None when the stream goes on after it."""
    said = f"X has ended the stream: {problem}"
    if _is_cap(429, problem):
        capped = UsageCapped(said, status=200)
        capped.until = _cap_ends(problem, None)
        return capped
    if problem.kind in _ENDS_A_STREAM or problem.title in _ENDS_A_STREAM:
        ended = StreamEnded(said, status=200)
        ended.disconnect_type = problem.issue
        return ended
    return None


def _read_failure_body(body: bytes) -> JsonObject | None:
    try:
        value = decode_json(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _describe_text(body: bytes) -> str:
    """Describe a body that is no JSON object: an HTML page by its title, other text by its beginning."""
    text = body[:4096].decode(errors="replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.I | re.S)
    if title:
        return clean_text(title[1].strip())
    return clean_text(re.sub(r"<[^>]*>", " ", text).strip())


def _cap_ends(problem: Problem, answered_at: datetime | None) -> datetime | None:
    """Return when a cap ends: a day that X names, unless that has come by its own clock or is farther than a month.

    Where X sends no time of its own, ours counts.
    """
    until, now = _start_of_day(problem.reset_date), answered_at or datetime.now(UTC)
    return until if until is not None and now < until <= now + LONGEST_CAP else None


def _start_of_day(date: str) -> datetime | None:
    instant = as_instant(date)
    return None if instant is None else datetime(instant.year, instant.month, instant.day, tzinfo=UTC)


def one_line(text: str) -> str:
    """Bring text from outside into one line of at most 300 printable characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * _LONGEST_MESSAGE]).split())
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[: _LONGEST_MESSAGE - 3]}..."
