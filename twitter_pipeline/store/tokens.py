"""Statements on `tokens`: which there are, and whether they are fit for use."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.settings import is_of_sandbox
from twitter_pipeline.store.database import Database
from twitter_pipeline.words import TokenStatus

# A token that was taken out of the environment keeps its row and its history; one that is there gets its windows, so
# that leasing is an update and never an insert. Ordered, so that two processes that start at once cannot deadlock.
REGISTER = """
WITH keys AS (
    INSERT INTO tokens (env_key)
    SELECT key FROM unnest(%(env_keys)s::text[]) AS key
    WHERE NOT EXISTS (SELECT FROM tokens WHERE env_key = key)
    ORDER BY key
    ON CONFLICT (env_key) DO NOTHING
    RETURNING id
), ids AS (
    SELECT id FROM keys
    UNION
    SELECT id FROM tokens WHERE env_key = ANY (%(env_keys)s::text[])
)
INSERT INTO tokens_endpoint_rl (token_id, endpoint)
SELECT id, endpoint FROM ids, unnest(%(endpoints)s::text[]) AS endpoint
ORDER BY id, endpoint
ON CONFLICT (token_id, endpoint) DO NOTHING
"""

# since stays when nothing changes: it says since when the token has been so.
SET_STATUS = """
UPDATE tokens
SET status = %(status)s::token_status,
    status_reason = %(reason)s,
    status_until = %(until)s::timestamptz,
    capped_until = NULL,
    refusals = 0,
    status_since = CASE WHEN status = %(status)s::token_status THEN status_since ELSE now() END
WHERE id = %(token_id)s
  AND (status, status_reason, status_until) IS DISTINCT FROM
      (%(status)s::token_status, %(reason)s::text, %(until)s::timestamptz)
"""

# The first refusal suspends a token; that of the call which tests it retires it, for longer each time. A call that was
# sent before the token went out of use, or came back, is late: its refusal says nothing new.
REFUSE = """
UPDATE tokens t
SET status = CASE WHEN t.status = 'active' THEN 'suspended' ELSE %(retired)s END::token_status,
    status_reason = %(reason)s,
    status_since = CASE WHEN t.status = 'active' THEN clock_timestamp() ELSE t.status_since END,
    status_until = clock_timestamp() + interval '1 second' * CASE
        WHEN t.status = 'active' THEN %(suspended_s)s::float8
        ELSE least(%(first_retest_s)s::float8 * 2 ^ least(t.refusals, 20), %(longest_retest_s)s::float8)
    END,
    refusals = CASE WHEN t.status = 'active' THEN 0 ELSE t.refusals + 1 END
WHERE t.id = %(token_id)s AND t.status_since <= %(called_at)s
RETURNING t.status::text, t.status_until
"""

# A cap that is shown again without a date keeps the date that X gave before.
CAP = """
UPDATE tokens t
SET status = 'capped',
    status_reason = %(reason)s,
    status_since = CASE WHEN t.status = 'active' THEN clock_timestamp() ELSE t.status_since END,
    status_until = coalesce(
        %(until)s::timestamptz, CASE WHEN t.capped_until > clock_timestamp() THEN t.capped_until END,
        clock_timestamp() + %(retest_s)s * interval '1 second'
    ),
    capped_until = coalesce(%(until)s::timestamptz, t.capped_until),
    refusals = t.refusals + 1
WHERE t.id = %(token_id)s AND t.status_since <= %(called_at)s
RETURNING t.status::text, t.status_until
"""

POSTPONE = """
UPDATE tokens SET status_until = clock_timestamp() + %(suspended_s)s * interval '1 second'
WHERE id = %(token_id)s AND status = 'suspended'
"""

RETEST = """
UPDATE tokens SET status_until = clock_timestamp()
WHERE env_key = ANY (%(env_keys)s::text[]) AND status IN ('invalid', 'revoked', 'capped')
"""

SUSPENDED_S = 5.0
"""So long after a 401, or a 403 of the app, one call shows whether it was more than a moment's fault of X."""

FIRST_RETEST_S = 60.0
LONGEST_RETEST_S = 86_400.0
"""A cap without a date is tested so often too: credits may be bought, limits raised, months end."""

WORKER_LOCK = 7_305_811
"""First key of the advisory locks by which workers tell which tokens they have; the second is a hash of the key."""

HOLD_TOKENS = "SELECT pg_advisory_lock_shared(%(lock)s, hashtext(key)) FROM unnest(%(env_keys)s::text[]) AS key"

# The view shows the second key, a number that may be negative, as an oid, which is none.
FIND_FIT = """
SELECT coalesce(bool_or(t.env_key = ANY (%(env_keys)s::text[])), false),
       coalesce(bool_or(t.env_key <> ALL (%(env_keys)s::text[]) AND EXISTS (
           SELECT FROM pg_locks l
           WHERE l.locktype = 'advisory' AND l.granted
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND l.classid::bigint = %(lock)s AND l.objid::bigint = hashtext(t.env_key)::bigint & 4294967295
       )), false)
FROM tokens t
WHERE t.status::text IN ('active', 'suspended') OR t.status_until <= now()
"""

LOAD = """
SELECT id, env_key, status::text, status_reason, status_since, status_until, refusals
FROM tokens
WHERE %(env_keys)s::text[] IS NULL OR env_key = ANY (%(env_keys)s::text[])
ORDER BY env_key
"""


@dataclass(frozen=True, slots=True)
class TokenState:
    """A token by name, and whether it is fit for use."""

    id: int
    env_key: str
    status: TokenStatus
    reason: str | None
    since: datetime
    until: datetime | None
    refusals: int = 0

    @property
    def out_of_use(self) -> bool:
        """Whether X has refused the token for good, or capped it; after one refusal that is still open."""
        return self.status is not TokenStatus.ACTIVE and not (
            self.status is TokenStatus.SUSPENDED and self.refusals == 0
        )

    def __str__(self) -> str:
        if self.status is TokenStatus.ACTIVE:
            return f"{self.env_key}: active"
        until = f", tested again after {self.until:%Y-%m-%d %H:%M} UTC" if self.until else ""
        return f"{self.env_key}: {self.status} since {self.since:%Y-%m-%d %H:%M} UTC{until} ({self.reason})"


@dataclass(frozen=True, slots=True)
class FitTokens:
    """Whether a process has a token that is fit for use, and whether another worker that lives has one."""

    here: bool
    elsewhere: bool


def find_fit_tokens(database: Database, env_keys: Iterable[str]) -> FitTokens:
    """Tell who could go on; `env_keys` are the tokens of this process."""
    here, elsewhere = database.execute(FIND_FIT, {"env_keys": sorted(env_keys), "lock": WORKER_LOCK})[0]
    return FitTokens(here, elsewhere)


def register_tokens(database: Database, env_keys: Iterable[str], endpoints: Iterable[str]) -> None:
    """Make the rows of tokens that are new; does nothing for those that are known."""
    # The first statement sees no row that it inserts itself: a token whose row another process has just made gets its
    # windows in the second.
    for _ in range(2):
        database.execute(REGISTER, {"env_keys": sorted(env_keys), "endpoints": sorted(endpoints)})


def save_token_status(
    database: Database, token_id: int, status: TokenStatus, *, reason: str | None = None, until: datetime | None = None
) -> None:
    """Set a token's status; setting the same again changes nothing."""
    database.execute(SET_STATUS, {"token_id": token_id, "status": status.value, "reason": reason, "until": until})


def save_token_refusal(
    database: Database, token_id: int, retired: TokenStatus, *, reason: str, called_at: datetime
) -> tuple[TokenStatus, datetime] | None:
    """Suspend a token that X has refused, or retire it where the refused call was to test it.

    Returns its status and when it is tested again, or None where the refusal is of a call sent before the token's
    status last changed.
    """
    rows = database.execute(
        REFUSE,
        {
            "token_id": token_id,
            "retired": retired.value,
            "reason": reason,
            "called_at": called_at,
            "suspended_s": SUSPENDED_S,
            "first_retest_s": FIRST_RETEST_S,
            "longest_retest_s": LONGEST_RETEST_S,
        },
    )
    return (TokenStatus(rows[0][0]), rows[0][1]) if rows else None


def save_token_cap(
    database: Database, token_id: int, *, reason: str, until: datetime | None, called_at: datetime
) -> tuple[TokenStatus, datetime] | None:
    """Take a token that X has capped out of use, until X's date if it has given one; return as `save_token_refusal`."""
    params = {"token_id": token_id, "reason": reason, "until": until, "called_at": called_at}
    rows = database.execute(CAP, {**params, "retest_s": LONGEST_RETEST_S})
    return (TokenStatus(rows[0][0]), rows[0][1]) if rows else None


def postpone_test(database: Database, token_id: int) -> None:
    """Leave a token suspended a little longer, after a test that has shown nothing."""
    database.execute(POSTPONE, {"token_id": token_id, "suspended_s": SUSPENDED_S})


def retest_tokens(database: Database, env_keys: Iterable[str]) -> None:
    """Let one call test each of these tokens that X has refused or capped, now."""
    database.execute(RETEST, {"env_keys": sorted(env_keys)})


def load_tokens(database: Database, env_keys: Sequence[str] | None = None) -> list[TokenState]:
    """Return the tokens of these names, or all, by name."""
    rows = database.execute(LOAD, {"env_keys": None if env_keys is None else list(env_keys)})
    return [
        TokenState(id_, env_key, TokenStatus(status), reason, since, until, refusals)
        for id_, env_key, status, reason, since, until, refusals in rows
    ]


def is_made_up(database: Database) -> bool:
    """Whether the tweets of this database are the sandbox's, as told by the tokens that it has seen."""
    return any(is_of_sandbox(token.env_key) for token in load_tokens(database))


def refuse_to_mix(database: Database, env_keys: Iterable[str]) -> None:
    """Raise ConfigurationError when made-up and real tweets would come to lie in one database.

    The tokens that a database has seen tell where its tweets are from.
    """
    known = {is_of_sandbox(token.env_key) for token in load_tokens(database)}
    wanted = set(map(is_of_sandbox, env_keys))
    if len(known | wanted) > 1:
        held, others = ("made-up", "real") if True in known else ("real", "made-up")
        raise ConfigurationError(
            f"This database holds {held} tweets, and {others} ones must not mix with them: "
            "name another database in DATABASE_URL."
        )
