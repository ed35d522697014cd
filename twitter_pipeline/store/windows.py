"""Statements on `tokens_endpoint_rl` and `api_calls`: lease a call, settle it, see what budget is left.

How a window is kept (see also `sql/02_tokens_endpoint_rl.sql`):

- open: `reset_at` lies ahead. A call may be leased while `remaining > in_flight`. `remaining` is the least X has said
  in this window, and every settled call is counted in it; a call in flight may be counted or not. So
  `remaining - in_flight` never promises too much, and rises by itself as answers come in.
- Calls beside each other are counted in any order, and X's Date has whole seconds: of their responses the lowest
  `remaining` applies, also of one that seems older. A call that was sent after all others had been settled shows what
  they left, more or less than was thought.
- A call that was settled without a description of the window, as after a time-out or a 5xx, may have been counted. Was
  it settled while another was under way, the response of that one may count it or not, so it does not.
- closed: `reset_at` is null or past. One call is leased to find out; its headers open the window.
- spaced: where X wants time between two calls, the next is leased so long after the latest answer. When a call reached
  X is not known, only that it was before its answer.
- shared: whoever takes calls by a `share` below 1 leaves a reserve to others, `(1 - share) * limit` of a whole window
  and in proportion to the time that is left of it. So at every moment others find their part of the time to come, and
  what they do not use is used up all the same. A window is as long as from its first call that we know of to its
  reset; if it began before, more is left to others.
- Calls in flight are counted afresh when a window closes, and when an answer tells of a new one. A call that was
  leased less than `STRADDLE_S` before may reach X after the reset, so it still counts then. An older one was counted in
  the old window; if its worker died, it is forgotten here.
- ordered: the newest response decides, by X's Date and then by when its call was sent; a call that was sent after the
  newest response had been settled is newer whatever its Date. An older response only reduces `in_flight`, and
  `remaining` in its own window.
- bounded: a reset that is past or farther ahead of X's own Date than its window is long is unknown.
- paused: after a 429 nothing is sent until the latest reset it shows for a limit with no call left, else for a back-off
  that doubles with each refusal that no success has followed. Then one call at a time finds out.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from twitter_pipeline.budgets import Budgets, Cost, Period
from twitter_pipeline.prices import Prices
from twitter_pipeline.store.database import Database
from twitter_pipeline.words import CallOutcome, TokenStatus
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.rate_limit import RateLimits

STRADDLE_S = 10
"""A call is connected and written within this time (the client's connect and write time-outs together)."""

DAY_S = 86_400

RELEASE_S = 2
"""From so long before a reset on nothing is kept for others any more: what is not used by then is lost.

X's clock comes in whole seconds, and a call takes its time.
"""

FIRST_BACK_OFF_S = 60.0
LONGEST_BACK_OFF_S = 900.0
"""Waits after a 429 that does not say until when: X advises at least 60 s (docs.x.com, "Rate limits")."""

FIRST_CONNECTION_BACK_OFF_S = 5.0
LONGEST_CONNECTION_BACK_OFF_S = 320.0
"""Waits after a 429 of the stream's slot, which is free seconds after the connection that had it has ended."""
LEASE_LOCK = 7_305_812
"""First key of the advisory locks under which calls are leased; the second is a hash of the endpoint."""

# Windows that reset in the same second of X's clock share the work: the one with the most calls left goes first.
# The row lock is taken without SKIP LOCKED on purpose: a token whose row is locked for a moment is still the one whose
# window resets soonest, and skipping it could look as if no token had budget. A row that has none by then stays
# locked, so leases at an endpoint come one after another: two would wait for each other's rows.
# Of a token that is out of use one call is leased when its time has come, before those of all others; while it is under
# way the token is suspended for all processes. A process that has waited for the token's row finds that it is too late.
# The commit does not wait for the disk: if the server crashes right now, settle writes the row of the call again.
LEASE = """
WITH clock AS (
    SELECT pg_advisory_xact_lock(%(lock)s, hashtext(%(endpoint)s)),
           coalesce(%(now)s::timestamptz, clock_timestamp()) AS now, set_config('synchronous_commit', 'off', true)
), chosen AS (
    SELECT w.token_id, t.env_key, t.status, w.undescribed, clock.now, coalesce(w.reset_at > clock.now, false) AS is_open
    FROM tokens_endpoint_rl w
    JOIN tokens t ON t.id = w.token_id
    CROSS JOIN clock
    CROSS JOIN LATERAL (
        SELECT coalesce(ceil(
                   (1 - %(share)s::float8) * w."limit"
                   * greatest(0, extract(epoch FROM w.reset_at - clock.now) - %(release_s)s)
                   / nullif(extract(epoch FROM w.reset_at - coalesce(w.opened_at, clock.now)), 0)
               ), 0) AS calls,
               coalesce(ceil(
                   (1 - %(share)s::float8) * w.day_limit
                   * greatest(0, extract(epoch FROM w.day_reset_at - clock.now) - %(release_s)s) / %(day_s)s
               ), 0) AS day_calls
    ) reserve
    WHERE w.endpoint = %(endpoint)s
      AND t.env_key = ANY (%(env_keys)s)
      AND (t.status = 'active' OR t.status_until <= clock.now)
      AND NOT coalesce(w.day_reset_at > clock.now AND w.day_remaining <= w.in_flight + reserve.day_calls, false)
      AND CASE
          WHEN w.reset_at > clock.now THEN w.remaining > w.in_flight + reserve.calls
          ELSE true
      END
      AND coalesce(w.paused_until <= clock.now, true)
      AND (
          w.reset_at IS NOT NULL AND w.refused_since IS NULL
          OR w.in_flight = 0
          OR w.leased_at < clock.now - %(lease_s)s * interval '1 second'
      )
      AND (
          %(spacing_s)s::float8 IS NULL
          OR coalesce(greatest(w.leased_at, w.observed_at), '-infinity')
                 <= clock.now - %(spacing_s)s * interval '1 second'
             AND (w.in_flight = 0 OR w.leased_at < clock.now - %(lease_s)s * interval '1 second')
      )
    ORDER BY t.status = 'active', is_open DESC, w.reset_epoch, w.remaining - w.in_flight DESC,
             w.leased_at NULLS FIRST, w.token_id
    LIMIT 1
    FOR UPDATE OF w
), tested AS (
    UPDATE tokens t
    SET status = 'suspended', status_until = chosen.now + %(lease_s)s * interval '1 second'
    FROM chosen
    WHERE t.id = chosen.token_id AND chosen.status <> 'active' AND t.status_until <= chosen.now
    RETURNING t.id
), taken AS (
    UPDATE tokens_endpoint_rl w
    SET in_flight = 1 + CASE
            WHEN chosen.is_open THEN w.in_flight
            ELSE calls_in_flight(w.token_id, w.endpoint, chosen.now - %(straddle_s)s * interval '1 second')
        END,
        opened_at = CASE WHEN chosen.is_open THEN w.opened_at ELSE chosen.now END,
        remaining = CASE WHEN chosen.is_open THEN w.remaining END,
        reset_at = CASE WHEN chosen.is_open THEN w.reset_at END,
        answered_at = CASE WHEN chosen.is_open THEN w.answered_at
                           ELSE greatest(w.answered_at, to_timestamp(w.reset_epoch)) END,
        answered_call_at = CASE WHEN chosen.is_open THEN w.answered_call_at ELSE chosen.now END,
        known_at = CASE WHEN chosen.is_open THEN w.known_at ELSE chosen.now END,
        leased_at = chosen.now
    FROM chosen
    WHERE w.token_id = chosen.token_id AND w.endpoint = %(endpoint)s
      AND (chosen.status = 'active' OR EXISTS (SELECT FROM tested))
    RETURNING w.token_id
), logged AS (
    INSERT INTO api_calls (called_at, endpoint, token_id, user_id, fetch_run_id, reserved_posts, reserved_users)
    SELECT chosen.now, %(endpoint)s, taken.token_id, %(user_id)s::bigint, %(fetch_run_id)s::bigint,
           %(reserved_posts)s::int, %(reserved_users)s::int
    FROM taken, chosen
    RETURNING id
)
SELECT logged.id, chosen.token_id, chosen.env_key, chosen.status::text, chosen.undescribed, chosen.now
FROM logged, chosen
"""

# With budgets the call is taken only if they allow what it may cost at most.
LEASE_WITHIN = (
    LEASE.replace(
        "tested AS (",
        """allowed AS MATERIALIZED (
    SELECT chosen.*, passed.period, passed.is_used_up
    FROM chosen
    CROSS JOIN LATERAL budget_passed(
        chosen.now, %(fetch_run_id)s::bigint, %(reserved_posts)s::int, %(reserved_users)s::int,
        %(post_usd)s::numeric, %(user_usd)s::numeric, %(billing_day)s::int, %(run_usd)s::numeric,
        %(run_posts)s::bigint, %(day_usd)s::numeric, %(day_posts)s::bigint, %(month_usd)s::numeric,
        %(month_posts)s::bigint
    ) AS passed
), tested AS (""",
    )
    .replace("FROM chosen\n    WHERE t.id", "FROM allowed AS chosen\n    WHERE chosen.period IS NULL AND t.id")
    .replace(
        "FROM chosen\n    WHERE w.token_id", "FROM allowed AS chosen\n    WHERE chosen.period IS NULL AND w.token_id"
    )
    .replace(
        "chosen.now\nFROM logged, chosen",
        "chosen.now, chosen.period, chosen.is_used_up\nFROM allowed AS chosen LEFT JOIN logged ON true",
    )
)
_LEASE_WITHIN_IN_ONE_LINE = " ".join(LEASE_WITHIN.split())
"""As SETTLE below."""

# Settling twice changes nothing: the second time the call has an outcome, unless it was only taken for lost. The row of
# the call is inserted where a crash of the server lost it; if another call has its number by then, the time tells them
# apart. reset_at is X's reset less X's clock, from now on: at most a second late (X's clock comes in whole seconds) and
# never early. A response that describes no window, as a time-out or a 5xx, may have been counted all the same. A
# refused call that was sent during the pause of another belongs to the same refusal. A success ends the pause only
# where it describes a window.
SETTLE = """
WITH clock AS (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now, set_config('synchronous_commit', 'off', true)
), logged AS (
    INSERT INTO api_calls AS c (
        id, called_at, endpoint, token_id, user_id, fetch_run_id, status_code, outcome, rl_limit, rl_remaining,
        rl_reset_at, result_count, billed_posts, billed_users, duration_ms, transaction_id, error, reserved_posts,
        reserved_users
    ) VALUES (
        %(call_id)s, %(called_at)s, %(endpoint)s, %(token_id)s, %(user_id)s::bigint, %(fetch_run_id)s::bigint,
        %(status)s, %(outcome)s::call_outcome, %(limit)s, %(remaining)s, to_timestamp(%(epoch)s::bigint),
        %(result_count)s, %(billed_posts)s, %(billed_users)s, %(duration_ms)s, %(transaction_id)s, %(error)s,
        %(reserved_posts)s::int, %(reserved_users)s::int
    )
    ON CONFLICT (id, called_at) DO UPDATE
    SET status_code = excluded.status_code, outcome = excluded.outcome, rl_limit = excluded.rl_limit,
        rl_remaining = excluded.rl_remaining, rl_reset_at = excluded.rl_reset_at,
        result_count = excluded.result_count, billed_posts = excluded.billed_posts,
        billed_users = excluded.billed_users, duration_ms = excluded.duration_ms,
        transaction_id = excluded.transaction_id, error = excluded.error
    WHERE c.outcome IS NULL OR c.outcome = 'lost'
    RETURNING c.called_at
)
SELECT settled.* FROM logged, clock, settle_window(
    %(token_id)s::int, %(endpoint)s, %(call_id)s::bigint, logged.called_at, clock.now, %(answered_at)s::timestamptz,
    %(undescribed)s::int, %(describes)s::bool, %(succeeded)s::bool, %(refused)s::bool, %(limit)s::int,
    %(remaining)s::int, %(epoch)s::bigint, %(day_limit)s::int, %(day_remaining)s::int, %(day_epoch)s::bigint,
    %(retry_after_s)s::float8, %(back_off_s)s::float8, %(longest_s)s::float8, %(straddle_s)s::float8
) AS settled
"""

# psycopg remembers how it has read a statement of up to 4,096 characters, which SETTLE has without its indentation.
_SETTLE_IN_ONE_LINE = " ".join(SETTLE.split())

# X bills a post and a profile once a UTC day, however often a call is sent on it.
COUNT_NO_MORE = """
UPDATE api_calls SET reserved_posts = 0, reserved_users = 0
WHERE id = %(call_id)s AND called_at = %(called_at)s
  AND called_at >= date_trunc('day', coalesce(%(now)s::timestamptz, clock_timestamp()), 'UTC')
"""

BUDGET = """
SELECT t.env_key, t.status::text, t.status_until,
       coalesce(%(now)s::timestamptz, clock_timestamp()) AS now,
       w."limit", w.remaining, w.reset_at, w.day_limit, w.day_remaining, w.day_reset_at, w.in_flight, w.leased_at,
       w.opened_at, w.refused_since, w.paused_until
FROM tokens_endpoint_rl w
JOIN tokens t ON t.id = w.token_id
WHERE w.endpoint = %(endpoint)s AND t.env_key = ANY (%(env_keys)s)
ORDER BY t.env_key
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send one call with one token; also the row in `api_calls` that it will be settled on.

    Where it `is_test`, its response decides whether a token that is out of use works again. `undescribed` counts the
    calls that were settled before without a description of the window: its response counts them all. `reserved` is what
    it may cost at most.
    """

    call_id: int
    token_id: int
    env_key: str
    endpoint: Endpoint
    called_at: datetime
    user_id: int | None
    fetch_run_id: int | None
    is_test: bool
    undescribed: int = 0
    reserved: Cost = field(default_factory=Cost)


@dataclass(frozen=True, slots=True)
class Purse:
    """What a call is paid from: the budgets, X's prices, and what the call may cost at most."""

    budgets: Budgets
    prices: Prices
    most: Cost


@dataclass(frozen=True, slots=True)
class Short:
    """That a budget has too little left for a call; unless it `is_used_up`, calls under way may give some back."""

    period: Period
    is_used_up: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a leased call; without `billed_posts` and `billed_users` it is unknown what X has billed."""

    outcome: CallOutcome
    status: int | None = None
    rate_limits: RateLimits | None = None
    result_count: int | None = None
    billed_posts: int | None = None
    billed_users: int | None = None
    duration_ms: int | None = None
    transaction_id: str | None = None
    error: str | None = None
    back_off_s: float = FIRST_BACK_OFF_S
    """How long to pause after a 429 that does not show until when; it doubles with each one that follows."""
    longest_back_off_s: float = LONGEST_BACK_OFF_S

    @property
    def refused(self) -> bool:
        """Whether X refused the call because of a limit."""
        return self.outcome is CallOutcome.TOO_MANY_REQUESTS

    @property
    def succeeded(self) -> bool:
        """Whether X accepted the call: a 2xx, readable or not."""
        return self.outcome is CallOutcome.OK or (
            not self.refused and self.status is not None and 200 <= self.status < 300
        )

    @property
    def describes_window(self) -> bool:
        """Whether the headers speak of the endpoint's window; elsewhere they may be those of another limiter."""
        if not self.refused:
            return self.succeeded or self.status in (400, 404)
        limits = self.rate_limits or RateLimits()
        return any(window is not None and window.remaining == 0 for window in (limits.window, limits.day))


@dataclass(frozen=True, slots=True)
class WindowState:
    """What is known of a token's window at an endpoint; `now` is the database's time it was read at."""

    env_key: str
    status: TokenStatus
    status_until: datetime | None
    now: datetime
    limit: int | None
    remaining: int | None
    reset_at: datetime | None
    day_limit: int | None
    day_remaining: int | None
    day_reset_at: datetime | None
    in_flight: int
    leased_at: datetime | None
    opened_at: datetime | None
    refused_since: datetime | None = None
    paused_until: datetime | None = None

    @property
    def usable(self) -> bool:
        """Whether the token can be expected to work: one that X has refused only tests itself."""
        return self.leasable and self.status not in (TokenStatus.INVALID, TokenStatus.REVOKED)

    @property
    def leasable(self) -> bool:
        """Whether the token may be leased as far as its status goes."""
        is_due = self.status_until is not None and self.status_until <= self.now
        return self.status is TokenStatus.ACTIVE or is_due

    @property
    def undecided(self) -> bool:
        """Whether one call is to show soon that the token works."""
        return self.status is TokenStatus.SUSPENDED

    def exhausted_until(self, *, lease_s: float, share: float = 1.0) -> datetime | None:
        """Return from when on a call may be had; None while an answer may free one sooner.

        That is the end of a pause, or the reset of a window that is used up; where only the reserve for others is
        left, it is when that has become small enough. Calls that were leased longer than `lease_s` ago will not be
        answered: their workers died.
        """
        answers_come = self.leased_at is not None and self.leased_at > self.now - timedelta(seconds=lease_s)
        in_flight = 0 if answers_come else self.in_flight
        opened_at = self.opened_at or self.now
        frees = [
            frees_at(limit or 0, remaining - in_flight, reset_at, length=length or reset_at - opened_at, share=share)
            for limit, remaining, reset_at, length in (
                (self.limit, self.remaining, self.reset_at, None),
                (self.day_limit, self.day_remaining, self.day_reset_at, timedelta(seconds=DAY_S)),
            )
            if remaining is not None and reset_at is not None and reset_at > self.now
        ]
        if self.paused_until is not None:
            frees.append(self.paused_until)
        return max((free for free in frees if free > self.now), default=None)


def frees_at(limit: int, left: int, reset_at: datetime, *, length: timedelta, share: float) -> datetime:
    """Return from when on one of `left` calls may be had by a share of a window, while others take none.

    The inverse of the reserve in LEASE, a millisecond late, lest it is asked for in the same instant again.
    """
    if left <= 0:
        return reset_at
    kept, spare = (1 - share) * limit, left - 1
    before_reset = length * (spare / kept) if spare < kept else length
    return reset_at - timedelta(seconds=RELEASE_S) - before_reset + timedelta(milliseconds=1)


def lease_call(
    database: Database,
    endpoint: Endpoint,
    env_keys: list[str],
    *,
    lease_s: float,
    share: float = 1.0,
    user_id: int | None = None,
    fetch_run_id: int | None = None,
    most: Cost | None = None,
    now: datetime | None = None,
) -> Lease | None:
    """Take the right to one call from the token whose window resets soonest; None when no token has budget.

    One atomic statement: any number of threads, processes and machines may ask at once. `lease_s` is the longest a
    call can last; a first call on an unknown window that has not been settled by then is given up. With a
    `share` below 1 a token has budget only beyond the reserve that is left to others. `most` is what the call may cost,
    nothing by default. `now` is the server's time unless a test says otherwise.
    """
    most = most or Cost()
    params = _lease_params(endpoint, env_keys, lease_s, share, user_id, fetch_run_id, most, now)
    rows = database.execute(LEASE, params)
    if not rows:
        return None
    call_id, token_id, env_key, status, undescribed, called_at = rows[0]
    is_test = status != TokenStatus.ACTIVE
    return Lease(call_id, token_id, env_key, endpoint, called_at, user_id, fetch_run_id, is_test, undescribed, most)


def lease_call_within(
    database: Database,
    endpoint: Endpoint,
    env_keys: list[str],
    purse: Purse,
    *,
    lease_s: float,
    share: float = 1.0,
    user_id: int | None = None,
    fetch_run_id: int | None = None,
    now: datetime | None = None,
) -> Lease | Short | None:
    """Take the right to one call as `lease_call` does; Short when a budget forbids what it may cost.

    Any number of processes may ask at once: what is billed and reserved together never passes a budget. Settling gives
    back what the call did not cost. The run must have its row.
    """
    budgets = purse.budgets
    rows = database.execute(
        _LEASE_WITHIN_IN_ONE_LINE,
        {
            **_lease_params(endpoint, env_keys, lease_s, share, user_id, fetch_run_id, purse.most, now),
            "post_usd": purse.prices.post_usd,
            "user_usd": purse.prices.user_usd,
            "billing_day": budgets.billing_day,
            "run_usd": budgets.run.usd,
            "run_posts": budgets.run.posts,
            "day_usd": budgets.day.usd,
            "day_posts": budgets.day.posts,
            "month_usd": budgets.month.usd,
            "month_posts": budgets.month.posts,
        },
    )
    if not rows:
        return None
    call_id, token_id, env_key, status, undescribed, called_at, period, is_used_up = rows[0]
    if call_id is None:
        # Without a period another process has just taken the call that tests the token.
        return None if period is None else Short(Period(period), is_used_up)
    is_test = status != TokenStatus.ACTIVE
    return Lease(
        call_id, token_id, env_key, endpoint, called_at, user_id, fetch_run_id, is_test, undescribed, purse.most
    )


def _lease_params(
    endpoint: Endpoint,
    env_keys: list[str],
    lease_s: float,
    share: float,
    user_id: int | None,
    fetch_run_id: int | None,
    most: Cost,
    now: datetime | None,
) -> dict[str, object]:
    return {
        "lock": LEASE_LOCK,
        "endpoint": endpoint.value,
        "env_keys": env_keys,
        "user_id": user_id,
        "fetch_run_id": fetch_run_id,
        "reserved_posts": most.posts,
        "reserved_users": most.users,
        "lease_s": lease_s,
        "spacing_s": endpoint.spacing_s,
        "straddle_s": STRADDLE_S,
        "share": share,
        "release_s": RELEASE_S,
        "day_s": DAY_S,
        "now": now,
    }


def settle_call(
    database: Database, lease: Lease, settlement: Settlement, *, now: datetime | None = None
) -> datetime | None:
    """Write what became of a call, and correct the window by what X said; settling twice changes nothing.

    Returns until when the token is paused at the endpoint, if it is.
    """
    limits = settlement.rate_limits or RateLimits()
    window, day = limits.window, limits.day
    rows = database.execute(
        _SETTLE_IN_ONE_LINE,
        {
            "call_id": lease.call_id,
            "called_at": lease.called_at,
            "endpoint": lease.endpoint.value,
            "token_id": lease.token_id,
            "user_id": lease.user_id,
            "fetch_run_id": lease.fetch_run_id,
            "status": settlement.status,
            "outcome": settlement.outcome.value,
            "result_count": settlement.result_count,
            "billed_posts": settlement.billed_posts,
            "billed_users": settlement.billed_users,
            "duration_ms": settlement.duration_ms,
            "transaction_id": settlement.transaction_id,
            "error": settlement.error,
            "reserved_posts": lease.reserved.posts,
            "reserved_users": lease.reserved.users,
            "limit": window.limit if window else None,
            "remaining": window.remaining if window else None,
            "epoch": window.reset_epoch if window else None,
            "answered_at": limits.answered_at,
            "undescribed": lease.undescribed,
            "describes": settlement.describes_window,
            "succeeded": settlement.succeeded,
            "refused": settlement.refused,
            "day_limit": day.limit if day else None,
            "day_remaining": day.remaining if day else None,
            "day_epoch": day.reset_epoch if day else None,
            "retry_after_s": limits.retry_after_s,
            "back_off_s": settlement.back_off_s,
            "longest_s": settlement.longest_back_off_s,
            "straddle_s": STRADDLE_S,
            "now": now,
        },
    )
    return rows[0][0] if rows else None


def count_no_more(database: Database, lease: Lease, *, now: datetime | None = None) -> None:
    """Let a call whose bill is unknown count nothing, as it has just been repeated; not if it is of another UTC day."""
    database.execute(COUNT_NO_MORE, {"call_id": lease.call_id, "called_at": lease.called_at, "now": now})


def load_windows(
    database: Database, endpoint: Endpoint, env_keys: list[str], *, now: datetime | None = None
) -> list[WindowState]:
    """Return what is known of these tokens' windows at an endpoint, by name."""
    rows = database.execute(BUDGET, {"endpoint": endpoint.value, "env_keys": env_keys, "now": now})
    return [WindowState(env_key, TokenStatus(status), *rest) for env_key, status, *rest in rows]
