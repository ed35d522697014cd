"""The table `tokens_endpoint_rl`."""

from datetime import datetime

from sqlalchemy import ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from twitter_pipeline.models.base import Base


class TokenEndpointRateLimit(Base):
    """What is known of a token's window at an endpoint."""

    __tablename__ = "tokens_endpoint_rl"

    token_id: Mapped[int] = mapped_column(
        Integer,
        ForeignKey("tokens.id", name="token_window_belongs_to_a_token", ondelete="CASCADE"),
        primary_key=True,
    )
    endpoint: Mapped[str] = mapped_column(primary_key=True)
    limit: Mapped[int | None] = mapped_column(Integer)
    remaining: Mapped[int | None] = mapped_column(Integer)
    reset_at: Mapped[datetime | None]
    reset_epoch: Mapped[int | None]
    day_limit: Mapped[int | None] = mapped_column(Integer)
    day_remaining: Mapped[int | None] = mapped_column(Integer)
    day_reset_at: Mapped[datetime | None]
    day_reset_epoch: Mapped[int | None]
    in_flight: Mapped[int] = mapped_column(Integer, server_default="0")
    leased_at: Mapped[datetime | None]
    opened_at: Mapped[datetime | None]
    refusals: Mapped[int] = mapped_column(Integer, server_default="0")
    observed_at: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]
    answered_call_at: Mapped[datetime | None]
    known_at: Mapped[datetime | None]
    undescribed: Mapped[int] = mapped_column(Integer, server_default="0")
    refused_since: Mapped[datetime | None]
    paused_until: Mapped[datetime | None]
