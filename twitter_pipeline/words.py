"""The words of the tables' enums, as in `sql/00_enums.sql` (a test compares them)."""

from enum import StrEnum


class TokenStatus(StrEnum):
    """Whether a token is fit for use."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    INVALID = "invalid"
    REVOKED = "revoked"
    CAPPED = "capped"


class CallOutcome(StrEnum):
    """What became of one call."""

    OK = "ok"
    BAD_REQUEST = "bad_request"
    TOKEN_REJECTED = "token_rejected"  # noqa: S105 a word, not a secret
    TOKEN_FORBIDDEN = "token_forbidden"  # noqa: S105 a word, not a secret
    USAGE_CAPPED = "usage_capped"
    TOO_MANY_REQUESTS = "too_many_requests"
    RESOURCE_FORBIDDEN = "resource_forbidden"
    RESOURCE_NOT_FOUND = "resource_not_found"
    SERVER_FAULT = "server_fault"
    CONNECTION_FAULT = "connection_fault"
    UNREADABLE_ANSWER = "unreadable_answer"
    LOST = "lost"


class FetchKind(StrEnum):
    """Why a run was started."""

    HISTORY = "history"
    INCREMENTAL = "incremental"
    BACKFILL = "backfill"
    RECONCILE = "reconcile"
    IMPORT = "import"


class RunStatus(StrEnum):
    """How a run stands; all but RUNNING are final."""

    RUNNING = "running"
    DONE = "done"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AccountOutcome(StrEnum):
    """What became of one account in one run."""

    PENDING = "pending"
    DONE = "done"
    PARTIAL = "partial"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class HoleCause(StrEnum):
    """Why tweets of an account are missing."""

    NOT_ASKED = "not_asked"
    BEYOND_REACH = "beyond_reach"
    CAPPED = "capped"
    INTERRUPTED = "interrupted"
    PROTECTED = "protected"
    FAULT = "fault"
    BUDGET = "budget"
    UNCONFIRMED = "unconfirmed"
    UNREADABLE = "unreadable"


class DoubtKind(StrEnum):
    """What leaves a doubt whether all tweets of an interval are stored."""

    END = "end"
    UNREADABLE = "unreadable"
    FOREIGN = "foreign"


class Source(StrEnum):
    """Where a backfill reads from; AUTO is the archive search where a token may use it, else the timeline."""

    AUTO = "auto"
    SEARCH = "search"
    TIMELINE = "timeline"


class AlertKind(StrEnum):
    """What an alert is about."""

    TOKEN_OUT_OF_USE = "token_out_of_use"  # noqa: S105 a word, not a secret
    NO_TOKEN_LEFT = "no_token_left"  # noqa: S105 a word, not a secret
    CALLS_REFUSED = "calls_refused"
    BUDGET_REACHED = "budget_reached"
    PROMISE_BROKEN = "promise_broken"
    ACCOUNT_GONE = "account_gone"
    RUN_FAILED = "run_failed"
    NAME_REFUSED = "name_refused"
