"""The tables `fetch_runs` and `fetch_run_accounts`."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import JSON, Double, ForeignKey, Identity, Index, Integer, Numeric, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from twitter_pipeline.models.base import Base, enum_of
from twitter_pipeline.words import AccountOutcome, FetchKind, HoleCause, RunStatus


class FetchRun(Base):
    """One run and what it achieved, kept while it works."""

    __tablename__ = "fetch_runs"
    __table_args__ = (
        UniqueConstraint("dagster_run_id", name="fetch_run_dagster_run_is_unique"),
        Index("fetch_runs_running", "heartbeat_at", postgresql_where=text("status = 'running'")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    dagster_run_id: Mapped[str | None]
    kind: Mapped[FetchKind] = mapped_column(enum_of(FetchKind, "fetch_kind"))
    status: Mapped[RunStatus] = mapped_column(enum_of(RunStatus, "run_status"), server_default="running")
    request: Mapped[list[object]] = mapped_column(JSON)
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    waiting_for: Mapped[str | None]
    waiting_until: Mapped[datetime | None]
    accounts: Mapped[int] = mapped_column(Integer, server_default="0")
    calls: Mapped[int] = mapped_column(Integer, server_default="0")
    tweets_fetched: Mapped[int] = mapped_column(server_default="0")
    tweets_new: Mapped[int] = mapped_column(server_default="0")
    billed_posts: Mapped[int] = mapped_column(server_default="0")
    billed_users: Mapped[int] = mapped_column(server_default="0")
    cost_usd: Mapped[Decimal] = mapped_column(Numeric(12, 3), server_default="0")
    waited_s: Mapped[float] = mapped_column(Double, server_default="0")
    error: Mapped[str | None]
    estimated_calls: Mapped[int | None] = mapped_column(Integer)
    estimated_posts: Mapped[int | None]
    estimated_cost_usd: Mapped[Decimal | None] = mapped_column(Numeric(12, 3))
    estimated_s: Mapped[float | None] = mapped_column(Double)


class FetchRunAccount(Base):
    """What became of one account in one run."""

    __tablename__ = "fetch_run_accounts"
    __table_args__ = (Index("fetch_run_accounts_user", "user_id"),)

    fetch_run_id: Mapped[int] = mapped_column(
        ForeignKey("fetch_runs.id", name="fetch_run_account_belongs_to_a_run", ondelete="CASCADE"), primary_key=True
    )
    username: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int | None]
    fetch_mode: Mapped[str]
    track_after: Mapped[bool] = mapped_column(server_default=text("false"))
    outcome: Mapped[AccountOutcome] = mapped_column(
        enum_of(AccountOutcome, "account_outcome"), server_default="pending"
    )
    reason: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    calls: Mapped[int] = mapped_column(Integer, server_default="0")
    tweets_fetched: Mapped[int] = mapped_column(Integer, server_default="0")
    tweets_new: Mapped[int] = mapped_column(Integer, server_default="0")
    tweets_stored: Mapped[int | None]
    billed_posts: Mapped[int] = mapped_column(Integer, server_default="0")
    waited_s: Mapped[float] = mapped_column(Double, server_default="0")
    cause: Mapped[HoleCause | None] = mapped_column(enum_of(HoleCause, "hole_cause"))
