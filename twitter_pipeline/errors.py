"""The exceptions of the project.

PipelineError
├── ConfigurationError            the request or the configuration is wrong (exit code 2)
│   ├── InvalidRequest            every mistake in a JSON request
│   ├── SchemaNotCurrent          the database lacks tables or is older than the code
│   └── NotConfirmed              a request that costs much wants a word of confirmation
├── ApiError                      the X API did not give what was asked for
│   ├── BadRequest                400: our fault, never repeated unchanged
│   ├── TokenRejected             401: the token is wrong or revoked
│   ├── TokenForbidden            403 that speaks of the token's app
│   ├── UsageCapped               402, 403 spend cap, 429 usage cap: waiting for the window is useless
│   ├── TooManyRequests           429: the window is used up, or the slot of the stream is taken
│   ├── ResourceForbidden         403 for one resource or one endpoint
│   ├── ResourceNotFound          404
│   ├── ServerFault               5xx
│   ├── ConnectionFault           time-out, reset, refused
│   │   └── StreamEnded           X says in a stream that it ends it
│   └── UnreadableAnswer          a cut or non-JSON body, or one without a word on what was asked for
├── DatabaseFault                 the database stays away or has no room (in store/database.py)
├── NoTokenAvailable              no token can serve an endpoint, now or soon
├── BudgetReached                 the next call could cost more than a budget has left
└── Interrupted                   the run was asked to stop
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twitter_pipeline.x_api.problems import Complaint
    from twitter_pipeline.x_api.rate_limit import RateLimits


class PipelineError(Exception):
    """Any failure this project raises on purpose; its text is fit for a person to read."""


class ConfigurationError(PipelineError):
    """The request or the configuration is wrong; nothing was called."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong with a request: where it is, what was given, what is expected."""

    where: str
    given: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where}: got {self.given}, expected {self.expected}"


class InvalidRequest(ConfigurationError):
    """A JSON request with mistakes; all of them are listed."""

    def __init__(self, mistakes: Sequence[Mistake], *, shown: int = 50) -> None:
        self.mistakes = tuple(mistakes)
        lines = [f"  {mistake}" for mistake in self.mistakes[:shown]]
        if len(self.mistakes) > shown:
            lines.append(f"  ... and {len(self.mistakes) - shown} more")
        count = "one mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        super().__init__(f"The request has {count}; no call was made.\n" + "\n".join(lines))


class SchemaNotCurrent(ConfigurationError):
    """The database lacks the tables or has those of another version."""


class NotConfirmed(ConfigurationError):
    """A request would cost much, and nobody has said that it may; only names were looked up."""


class Availability(StrEnum):
    """Whether an account can be read, as stored in `users.availability`."""

    ACTIVE = "active"
    PROTECTED = "protected"
    SUSPENDED = "suspended"
    NOT_FOUND = "not_found"


class ApiError(PipelineError):
    """An answer of the X API, or the lack of one, that did not give what was asked for.

    `status` is the HTTP status, None when no answer came. `rate_limits` are those of the answer's headers
    where they speak of the endpoint asked: on caps and enrolment refusals they are those of a general limiter,
    and left out. `may_be_billed` says that X may have served the call all the same.
    """

    may_be_billed = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        rate_limits: "RateLimits | None" = None,
        duration_ms: int = 0,
        transaction_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.rate_limits = rate_limits
        self.duration_ms = duration_ms
        self.transaction_id = transaction_id
        # What was spent on it in all, when it comes out of several tries.
        self.calls = 1
        self.waited_s = 0.0


class BadRequest(ApiError):
    """400: the request itself is refused; the message is the API's.

    `complaints` are what it says of parameters. `of_page_token` tells that it is the page token that X does not take,
    or not any more.
    """

    complaints: "tuple[Complaint, ...]" = ()
    of_page_token = False


class TokenRejected(ApiError):
    """401: the token is wrong or was revoked."""


class TokenForbidden(ApiError):
    """403 that speaks of the token's app: suspended, or not enrolled.

    `everywhere` tells that X named the app itself as the cause. "Not enrolled" is said also where a plan merely lacks
    one endpoint, so to a token that has just worked at another one it closes only the endpoint that was asked.
    """

    everywhere = False


class UsageCapped(ApiError):
    """The posts or the money of the token's account are used up; `until` is when, if the API said so."""

    until: datetime | None = None


class TooManyRequests(ApiError):
    """429: the window is used up. Without rate-limit headers the caller backs off from 60 s.

    `of_connection` tells that the stream takes no connection now, as while another one has its slot. Windows have
    nothing to do with that: the caller backs off from 5 s.
    """

    of_connection = False


class ResourceForbidden(ApiError):
    """403 for one resource or one endpoint; the token works elsewhere.

    `of_endpoint` tells that it is the endpoint that is closed to the token, whatever is asked there.
    """

    of_endpoint = False


class ResourceNotFound(ApiError):
    """404: no proof that the account is gone: for eight hours of September 2025 all timelines answered so."""


class ServerFault(ApiError):
    """500, 502, 503, 504 and other statuses that another try may mend."""


class ConnectionFault(ApiError):
    """No whole answer: time-out, reset, refused, cut. Only where no connection was made, X cannot have billed it."""

    may_be_billed = True


class StreamEnded(ConnectionFault):
    """X has said in a stream that it ends it; `disconnect_type` is X's word for why, such as OperationalDisconnect."""

    disconnect_type = ""


class UnreadableAnswer(ApiError):
    """An answer with status 200 that is no JSON object, or nothing but problems that concern nothing asked for."""

    may_be_billed = True


class NoTokenAvailable(PipelineError):
    """No token can serve an endpoint; the message says which token is in which state since when."""


class BudgetReached(PipelineError):
    """The next call could cost more than a budget has left, which begins anew at `until`; None if it never does."""

    def __init__(self, message: str, *, until: datetime | None = None) -> None:
        super().__init__(message)
        self.until = until


class Interrupted(PipelineError):
    """The run was asked to stop; what was fetched is stored, running again does the rest."""
