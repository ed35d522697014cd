"""Queries on what was done: runs, calls by token, and what is left of each token's windows."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import func, select

from twitter_pipeline.models import ApiCall, FetchRun, FetchRunAccount, Token, TokenEndpointRateLimit
from twitter_pipeline.store.database import Database
from twitter_pipeline.words import AccountOutcome, CallOutcome, FetchKind, RunStatus


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run in a list. While it runs, the counts are those of its accounts so far, and its cost is not known.

    `estimated_usd` is what it was expected to cost, None where nothing was estimated.
    """

    id: int
    kind: FetchKind
    status: RunStatus
    started_at: datetime
    finished_at: datetime | None
    waiting_for: str | None
    waiting_until: datetime | None
    accounts: int
    accounts_ended: int
    tweets_fetched: int
    tweets_new: int
    calls: int
    cost_usd: Decimal
    error: str | None
    estimated_calls: int | None
    estimated_posts: int | None
    estimated_usd: Decimal | None
    estimated_s: float | None


@dataclass(frozen=True, slots=True)
class TokenCalls:
    """The calls that one run sent to one endpoint with one token; `refused` are those that gave no answer to use."""

    env_key: str
    endpoint: str
    calls: int
    refused: int
    results: int


@dataclass(frozen=True, slots=True)
class UseOfDay:
    """The calls of the last day with one token to one endpoint.

    `refused` were answered 429, `failed` gave no answer to use; those under way are in neither.
    """

    env_key: str
    endpoint: str
    calls: int
    refused: int
    failed: int
    billed_posts: int


@dataclass(frozen=True, slots=True)
class Window:
    """What is known of a token's window at an endpoint; `now` is the database's time it was read at."""

    env_key: str
    endpoint: str
    limit: int | None
    remaining: int | None
    reset_at: datetime | None
    day_limit: int | None
    day_remaining: int | None
    day_reset_at: datetime | None
    in_flight: int
    now: datetime
    refused_since: datetime | None = None
    paused_until: datetime | None = None


def load_latest_runs(database: Database, *, count: int) -> list[RunLine]:
    """Return the latest runs, newest first."""
    latest = select(FetchRun).order_by(FetchRun.id.desc()).limit(count).subquery()
    accounts = (
        select(
            FetchRunAccount.fetch_run_id,
            func.count().label("accounts"),
            func.count().filter(FetchRunAccount.outcome != AccountOutcome.PENDING.value).label("ended"),
            func.sum(FetchRunAccount.tweets_fetched).label("fetched"),
            func.sum(FetchRunAccount.tweets_new).label("new"),
            func.sum(FetchRunAccount.calls).label("calls"),
        )
        .where(FetchRunAccount.fetch_run_id.in_(select(latest.c.id)))
        .group_by(FetchRunAccount.fetch_run_id)
        .subquery()
    )
    query = (
        select(
            latest.c.id,
            latest.c.kind,
            latest.c.status,
            latest.c.started_at,
            latest.c.finished_at,
            latest.c.waiting_for,
            latest.c.waiting_until,
            func.coalesce(accounts.c.accounts, 0),
            func.coalesce(accounts.c.ended, 0),
            func.coalesce(accounts.c.fetched, 0),
            func.coalesce(accounts.c.new, 0),
            func.greatest(latest.c.calls, accounts.c.calls),
            latest.c.cost_usd,
            latest.c.error,
            latest.c.estimated_calls,
            latest.c.estimated_posts,
            latest.c.estimated_cost_usd,
            latest.c.estimated_s,
        )
        .outerjoin(accounts, accounts.c.fetch_run_id == latest.c.id)
        .order_by(latest.c.id.desc())
    )
    with database.engine.connect() as connection:
        rows = connection.execute(query).all()
    return [RunLine(run_id, FetchKind(kind), RunStatus(status), *rest) for run_id, kind, status, *rest in rows]


def load_calls_by_token(database: Database, fetch_run_id: int) -> list[TokenCalls]:
    """Return the calls of one run by token and endpoint."""
    query = (
        select(
            Token.env_key,
            ApiCall.endpoint,
            func.count(),
            func.count().filter(ApiCall.outcome.is_distinct_from(CallOutcome.OK.value)),
            func.coalesce(func.sum(ApiCall.result_count), 0),
        )
        .join(Token, Token.id == ApiCall.token_id)
        .join(FetchRun, FetchRun.id == ApiCall.fetch_run_id)
        # Calls are found by their time: they have no index by run.
        .where(ApiCall.fetch_run_id == fetch_run_id, ApiCall.called_at >= FetchRun.started_at)
        .group_by(Token.env_key, ApiCall.endpoint)
        .order_by(Token.env_key, ApiCall.endpoint)
    )
    with database.engine.connect() as connection:
        return [TokenCalls(*row) for row in connection.execute(query).all()]


def load_all_windows(database: Database) -> list[Window]:
    """Return the windows of which something is known, by token and endpoint."""
    window = TokenEndpointRateLimit
    query = (
        select(
            Token.env_key,
            window.endpoint,
            window.limit,
            window.remaining,
            window.reset_at,
            window.day_limit,
            window.day_remaining,
            window.day_reset_at,
            window.in_flight,
            func.clock_timestamp(),
            window.refused_since,
            window.paused_until,
        )
        .join(Token, Token.id == window.token_id)
        .where(
            window.limit.is_not(None)
            | window.reset_at.is_not(None)
            | window.refused_since.is_not(None)
            | (window.in_flight > 0)
        )
        .order_by(Token.env_key, window.endpoint)
    )
    with database.engine.connect() as connection:
        return [Window(*row) for row in connection.execute(query).all()]


def load_use_of_day(database: Database) -> list[UseOfDay]:
    """Return what each token was used for in the last day, by token and endpoint; those without calls are left out."""
    refused = ApiCall.outcome == CallOutcome.TOO_MANY_REQUESTS.value
    query = (
        select(
            Token.env_key,
            ApiCall.endpoint,
            func.count(),
            func.count().filter(refused),
            func.count().filter(ApiCall.outcome.not_in([CallOutcome.OK.value, CallOutcome.TOO_MANY_REQUESTS.value])),
            func.coalesce(func.sum(ApiCall.billed_posts), 0),
        )
        .join(Token, Token.id == ApiCall.token_id)
        .where(ApiCall.called_at > func.now() - timedelta(days=1))
        .group_by(Token.env_key, ApiCall.endpoint)
        .order_by(Token.env_key, ApiCall.endpoint)
    )
    with database.engine.connect() as connection:
        return [UseOfDay(*row) for row in connection.execute(query).all()]


def load_last_call(database: Database) -> int:
    """Return the id of the call that was sent last, 0 when none was."""
    with database.engine.connect() as connection:
        return connection.execute(select(func.coalesce(func.max(ApiCall.id), 0))).scalar_one()
