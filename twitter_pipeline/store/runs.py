"""Statements on `fetch_runs` and `fetch_run_accounts`: a run from its first row to its bill."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from twitter_pipeline.prices import Prices
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.store.database import Database
from twitter_pipeline.words import AccountOutcome, FetchKind, HoleCause, RunStatus

ALIVE_LOCK = 7_305_809
"""First key of the advisory lock that whoever works on a run holds; the second is the run's id."""

STEP_LOCK = 7_305_810
"""First key of the advisory lock that whoever works on a step holds; the second is a hash of its run and name."""

VANISHED = "the process that ran it fell silent (killed or frozen, or its machine was restarted or cut off)"

HOLD_STEP = "SELECT pg_try_advisory_lock(%(lock)s, hashtext(%(step)s))"

# The lock is given up with the statement.
IS_HELD = "SELECT NOT pg_try_advisory_xact_lock(%(lock)s, hashtext(%(step)s))"

# The lock is taken before the row can be seen, so no run is ever seen running with its lock free but dead ones.
# A run that was given up while its process had only lost its connection is taken up again.
OPEN = """
WITH opened AS (
    INSERT INTO fetch_runs AS r (dagster_run_id, kind, request)
    VALUES (%(dagster_run_id)s, %(kind)s::fetch_kind, %(request)s::json)
    ON CONFLICT (dagster_run_id) DO UPDATE SET heartbeat_at = now()
    RETURNING id
)
SELECT id, pg_advisory_lock_shared(%(lock)s, id::int) FROM opened
"""

# After an outage: the run is there, and its lock is free.
LOCK_AGAIN = """
SELECT id, pg_advisory_lock_shared(%(lock)s, id::int) FROM fetch_runs WHERE id = %(run_id)s
"""

# The one call that a window may have under way before X has told its limits: when the run that leased it is dead, it
# will never be settled, and the token would stand idle for as long as a call can last.
FREE_WINDOWS_OF_THE_DEAD = """
WITH dead AS (
    SELECT w.token_id, w.endpoint
    FROM tokens_endpoint_rl w
    JOIN api_calls c ON c.called_at = w.leased_at AND c.token_id = w.token_id AND c.endpoint = w.endpoint
    WHERE w.reset_at IS NULL AND w.in_flight > 0 AND (c.outcome IS NULL OR c.outcome = 'lost')
      AND pg_try_advisory_xact_lock(%(lock)s, c.fetch_run_id::int)
    ORDER BY w.token_id, w.endpoint
    FOR UPDATE OF w
)
UPDATE tokens_endpoint_rl w SET in_flight = 0
FROM dead
WHERE w.token_id = dead.token_id AND w.endpoint = dead.endpoint
"""

# Of several processes at work on a run one may wait while others do not: what it waits for stays until it is over.
BEAT = """
UPDATE fetch_runs
SET heartbeat_at = now(),
    waiting_for = coalesce(
        %(waiting_for)s, CASE WHEN %(is_shared)s AND waiting_until > now() THEN waiting_for END
    ),
    waiting_until = coalesce(
        %(waiting_until)s, CASE WHEN %(is_shared)s AND waiting_until > now() THEN waiting_until END
    ),
    status = 'running', finished_at = NULL, error = NULL
WHERE id = %(run_id)s AND (status = 'running' OR error = %(vanished)s)
"""

ADD_ACCOUNTS = """
INSERT INTO fetch_run_accounts (fetch_run_id, username, user_id, fetch_mode, track_after)
SELECT %(run_id)s, username, user_id, fetch_mode, track_after
FROM unnest(%(usernames)s::text[], %(user_ids)s::bigint[], %(modes)s::text[], %(tracks)s::boolean[])
    AS a (username, user_id, fetch_mode, track_after)
ON CONFLICT DO NOTHING
"""

BEGIN_ACCOUNT = """
INSERT INTO fetch_run_accounts (fetch_run_id, username, user_id, fetch_mode, track_after, started_at)
VALUES (%(run_id)s, %(username)s, %(user_id)s, %(mode)s, %(track)s, now())
ON CONFLICT (fetch_run_id, username) DO UPDATE SET user_id = excluded.user_id, started_at = excluded.started_at
"""

END_ACCOUNT = """
WITH released AS (
    DELETE FROM walks
    WHERE fetch_run_id = %(run_id)s
      AND user_id = (SELECT user_id FROM fetch_run_accounts WHERE fetch_run_id = %(run_id)s AND username = %(username)s)
)
UPDATE fetch_run_accounts
SET outcome = %(outcome)s::account_outcome, reason = %(reason)s, cause = %(cause)s::hole_cause,
    user_id = coalesce(%(user_id)s::bigint, user_id),
    tweets_stored = coalesce(%(stored)s::bigint, tweets_stored), calls = calls + %(calls)s,
    waited_s = waited_s + %(waited_s)s, started_at = coalesce(started_at, now()), finished_at = now()
WHERE fetch_run_id = %(run_id)s AND username = %(username)s
"""

END_QUIET = """
UPDATE fetch_run_accounts AS a
SET outcome = 'done', user_id = quiet.user_id, started_at = now(), finished_at = now()
FROM unnest(%(usernames)s::text[], %(user_ids)s::bigint[]) AS quiet (username, user_id)
WHERE a.fetch_run_id = %(run_id)s AND a.username = quiet.username
"""

# What a run achieved is counted from what was written while it worked, so it is the same for a run that was killed.
# Its calls that will not be settled any more are lost.
CLOSE = """
WITH run AS (
    SELECT id, started_at FROM fetch_runs WHERE id = %(run_id)s AND status = 'running' FOR UPDATE
), broken_off AS (
    UPDATE fetch_run_accounts
    SET outcome = 'interrupted', finished_at = now(), cause = %(cause)s::hole_cause,
        reason = coalesce(split_part(%(error)s::text, E'\\n', 1), 'the run ended before this account')
    WHERE fetch_run_id = (SELECT id FROM run) AND outcome = 'pending'
), released AS (
    DELETE FROM walks WHERE fetch_run_id = (SELECT id FROM run)
), lost AS (
    UPDATE api_calls SET outcome = 'lost'
    WHERE (id, called_at) IN (
        SELECT c.id, c.called_at FROM api_calls c JOIN run ON run.id = c.fetch_run_id AND c.called_at >= run.started_at
        WHERE c.outcome IS NULL
        ORDER BY c.called_at FOR UPDATE OF c SKIP LOCKED
    )
), calls AS (
    SELECT count(*) AS calls, coalesce(sum(billed_posts), 0) AS billed_posts,
           coalesce(sum(billed_users), 0) AS billed_users
    FROM api_calls JOIN run ON run.id = fetch_run_id AND called_at >= run.started_at
), accounts AS (
    SELECT count(*) AS accounts, coalesce(sum(tweets_fetched), 0) AS fetched, coalesce(sum(tweets_new), 0) AS new,
           coalesce(sum(waited_s), 0) AS waited_s,
           count(*) FILTER (WHERE outcome NOT IN ('done', 'unavailable')) AS unfinished
    FROM fetch_run_accounts WHERE fetch_run_id = (SELECT id FROM run)
)
UPDATE fetch_runs r
SET status = coalesce(
        %(status)s::run_status, CASE WHEN accounts.unfinished = 0 THEN 'done' ELSE 'partial' END::run_status
    ),
    error = %(error)s, finished_at = greatest(now(), r.started_at), waiting_for = NULL, waiting_until = NULL,
    accounts = accounts.accounts, calls = calls.calls, tweets_fetched = accounts.fetched, tweets_new = accounts.new,
    billed_posts = calls.billed_posts, billed_users = calls.billed_users, waited_s = accounts.waited_s,
    cost_usd = calls.billed_posts * %(post_usd)s::numeric + calls.billed_users * %(user_usd)s::numeric
FROM run, calls, accounts
WHERE r.id = run.id
"""

# Whoever works on a run holds its lock shared, so a lock that can be had for oneself has no holder. The lock is given
# back with the transaction.
FIND_VANISHED = """
SELECT id, dagster_run_id FROM fetch_runs
WHERE status = 'running' AND heartbeat_at < now() - %(grace_s)s * interval '1 second'
  AND pg_try_advisory_xact_lock(%(lock)s, id::int)
"""

LOAD_RUN = """
SELECT id, dagster_run_id, kind::text, status::text, started_at, finished_at, waiting_for, waiting_until, accounts,
       calls, tweets_fetched, tweets_new, billed_posts, billed_users, cost_usd, waited_s, error, estimated_calls,
       estimated_posts, estimated_cost_usd, estimated_s
FROM fetch_runs WHERE {} = %s
"""

LOAD_ACCOUNTS = """
SELECT username, user_id, fetch_mode, track_after, outcome::text, reason, started_at, finished_at, calls,
       tweets_fetched, tweets_new, tweets_stored, billed_posts, waited_s, cause::text
FROM fetch_run_accounts
WHERE fetch_run_id = %(run_id)s AND (%(usernames)s::text[] IS NULL OR username = ANY (%(usernames)s::text[]))
ORDER BY username
"""

PROGRESS = """
SELECT count(*), count(*) FILTER (WHERE a.outcome <> 'pending'), coalesce(sum(a.tweets_fetched), 0),
       coalesce(sum(a.tweets_new), 0), coalesce(sum(a.calls), 0), max(r.waiting_for), max(r.waiting_until)
FROM fetch_runs r JOIN fetch_run_accounts a ON a.fetch_run_id = r.id
WHERE r.dagster_run_id = %s
"""


@dataclass(frozen=True, slots=True)
class AccountReport:
    """What became of one account in one run. Counts are of this run but `tweets_stored`, which is of all time."""

    username: str
    user_id: int | None
    fetch_mode: str
    track_after: bool
    outcome: AccountOutcome
    reason: str | None
    started_at: datetime | None
    finished_at: datetime | None
    calls: int
    tweets_fetched: int
    tweets_new: int
    tweets_stored: int | None
    billed_posts: int
    waited_s: float
    cause: HoleCause | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all is there that can be had."""
        return self.outcome in (AccountOutcome.DONE, AccountOutcome.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a run was expected to take; `seconds` is None when no token could be used then."""

    calls: int
    posts: int
    cost_usd: Decimal
    seconds: float | None


@dataclass(frozen=True, slots=True)
class RunReport:
    """One run and what it achieved, with its accounts by name; `expected` is None where nothing was estimated."""

    id: int
    dagster_run_id: str | None
    kind: FetchKind
    status: RunStatus
    started_at: datetime
    finished_at: datetime | None
    waiting_for: str | None
    waiting_until: datetime | None
    accounts: int
    calls: int
    tweets_fetched: int
    tweets_new: int
    billed_posts: int
    billed_users: int
    cost_usd: Decimal
    waited_s: float
    error: str | None
    account_reports: tuple[AccountReport, ...]
    expected: Expected | None = None

    @property
    def unfinished(self) -> tuple[AccountReport, ...]:
        """Accounts of which something that was asked for is missing."""
        return tuple(each for each in self.account_reports if not each.is_finished)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, while it works."""

    accounts: int
    accounts_ended: int
    tweets_fetched: int
    tweets_new: int
    calls: int
    waiting_for: str | None
    waiting_until: datetime | None


def open_params(dagster_run_id: str | None, kind: FetchKind, requests: Sequence[FetchRequest]) -> dict[str, object]:
    """Return the parameters of OPEN."""
    return {
        "dagster_run_id": dagster_run_id,
        "kind": kind.value,
        "request": orjson.dumps([request.as_json() for request in requests]).decode(),
        "lock": ALIVE_LOCK,
    }


def free_windows_of_the_dead(database: Database) -> None:
    """Let others try the tokens that a dead run had leased when nothing was known of their windows yet."""
    database.execute(FREE_WINDOWS_OF_THE_DEAD, {"lock": ALIVE_LOCK})


def save_accounts(database: Database, run_id: int, requests: Sequence[FetchRequest]) -> None:
    """Write the accounts of a run as pending; those that are there already stay as they are."""
    database.execute(
        ADD_ACCOUNTS,
        {
            "run_id": run_id,
            "usernames": [each.username for each in requests],
            "user_ids": [each.user_id for each in requests],
            "modes": [str(each.fetch_mode) for each in requests],
            "tracks": [each.track_after for each in requests],
        },
    )


def begin_account(database: Database, run_id: int, request: FetchRequest, *, user_id: int | None) -> None:
    """Note that work on an account begins; the row is made where the run has none (a re-executed run).

    `user_id` None: whoever holds the name is not known, nor an account that was taken for its holder before.
    """
    database.execute(
        BEGIN_ACCOUNT,
        {
            "run_id": run_id,
            "username": request.username,
            "user_id": user_id,
            "mode": str(request.fetch_mode),
            "track": request.track_after,
        },
    )


def end_account(
    database: Database,
    run_id: int,
    username: str,
    outcome: AccountOutcome,
    *,
    reason: str | None = None,
    cause: HoleCause | None = None,
    user_id: int | None = None,
    stored: int | None = None,
    calls: int = 0,
    waited_s: float = 0.0,
) -> None:
    """Write what became of an account; `calls` and `waited_s` are those that no page has been counted for.

    `cause` is why something is missing that was asked for.
    """
    database.execute(
        END_ACCOUNT,
        {
            "run_id": run_id,
            "username": username,
            "outcome": outcome.value,
            "reason": reason,
            "cause": cause,
            "user_id": user_id,
            "stored": stored,
            "calls": calls,
            "waited_s": waited_s,
        },
    )


def end_quiet(database: Database, run_id: int, user_ids: Mapping[str, int]) -> None:
    """Write that accounts, by name, are done with nothing to fetch; none of them has begun."""
    database.execute(END_QUIET, {"run_id": run_id, "usernames": list(user_ids), "user_ids": list(user_ids.values())})


def close_run(
    database: Database,
    run_id: int,
    *,
    status: RunStatus | None = None,
    error: str | None = None,
    cause: HoleCause = HoleCause.INTERRUPTED,
    prices: Prices,
) -> None:
    """Close a run with what it achieved; `status` None judges by its accounts. A closed run stays as it is.

    `cause` is why the accounts that it did not come to are missing.
    """
    database.execute(
        CLOSE,
        {
            "run_id": run_id,
            "status": None if status is None else status.value,
            "error": error,
            "cause": cause,
            "post_usd": prices.post_usd,
            "user_usd": prices.user_usd,
        },
    )


def close_vanished_runs(database: Database, *, prices: Prices, grace_s: float = 5.0) -> list[str]:
    """Close runs whose process is gone, as failed; return their Dagster run ids.

    A run is gone when nobody holds its lock, which the server gives up with the connection of a killed process, and of
    one that has been silent for SILENCE_S.
    `grace_s` is for a process that has lost its connection for a moment.
    """
    vanished = database.execute(FIND_VANISHED, {"grace_s": grace_s, "lock": ALIVE_LOCK})
    for run_id, _ in vanished:
        close_run(database, run_id, status=RunStatus.FAILED, error=VANISHED, prices=prices)
    return [dagster_run_id for _, dagster_run_id in vanished if dagster_run_id]


def load_run(database: Database, *, run_id: int | None = None, dagster_run_id: str | None = None) -> RunReport | None:
    """Return a run by its own id or by Dagster's, None when there is none."""
    if run_id is not None:
        rows = database.execute(LOAD_RUN.replace("{}", "id"), (run_id,))
    else:
        rows = database.execute(LOAD_RUN.replace("{}", "dagster_run_id"), (dagster_run_id,))
    return _report(rows[0], load_accounts(database, rows[0][0])) if rows else None


def load_accounts(
    database: Database, run_id: int, *, usernames: Sequence[str] | None = None
) -> tuple[AccountReport, ...]:
    """Return the accounts of a run by name, all or those of these names."""
    rows = database.execute(
        LOAD_ACCOUNTS, {"run_id": run_id, "usernames": None if usernames is None else list(usernames)}
    )
    return tuple(
        AccountReport(
            username, user_id, mode, track, AccountOutcome(outcome), *rest, cause=HoleCause(cause) if cause else None
        )
        for username, user_id, mode, track, outcome, *rest, cause in rows
    )


def load_progress(database: Database, dagster_run_id: str) -> Progress:
    """Return how far a run is; all zero before it has begun."""
    return Progress(*database.execute(PROGRESS, (dagster_run_id,))[0])


def _report(row: tuple[Any, ...], accounts: Iterable[AccountReport]) -> RunReport:
    run_id, dagster_run_id, kind, status, *rest, calls, posts, cost_usd, seconds = row
    return RunReport(
        run_id,
        dagster_run_id,
        FetchKind(kind),
        RunStatus(status),
        *rest,
        account_reports=tuple(accounts),
        expected=None if calls is None else Expected(calls, posts, cost_usd, seconds),
    )
