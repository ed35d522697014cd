"""The table `api_calls`."""

from datetime import datetime

from sqlalchemy import Identity, Index, Integer, SmallInteger, func
from sqlalchemy.orm import Mapped, mapped_column

from twitter_pipeline.models.base import Base, enum_of
from twitter_pipeline.words import CallOutcome


class ApiCall(Base):
    """One call; without an outcome it is in flight, or its worker died."""

    __tablename__ = "api_calls"
    __table_args__ = (
        Index("api_calls_called_at", "called_at"),
        {"postgresql_partition_by": "RANGE (called_at)"},
    )

    id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    called_at: Mapped[datetime] = mapped_column(server_default=func.now(), primary_key=True)
    endpoint: Mapped[str]
    token_id: Mapped[int] = mapped_column(Integer)
    user_id: Mapped[int | None]
    fetch_run_id: Mapped[int | None]
    status_code: Mapped[int | None] = mapped_column(SmallInteger)
    outcome: Mapped[CallOutcome | None] = mapped_column(enum_of(CallOutcome, "call_outcome"))
    rl_limit: Mapped[int | None] = mapped_column(Integer)
    rl_remaining: Mapped[int | None] = mapped_column(Integer)
    rl_reset_at: Mapped[datetime | None]
    result_count: Mapped[int | None] = mapped_column(Integer)
    billed_posts: Mapped[int | None] = mapped_column(Integer)
    billed_users: Mapped[int | None] = mapped_column(Integer)
    duration_ms: Mapped[int | None] = mapped_column(Integer)
    transaction_id: Mapped[str | None]
    error: Mapped[str | None]
    reserved_posts: Mapped[int | None] = mapped_column(Integer)
    reserved_users: Mapped[int | None] = mapped_column(Integer)
