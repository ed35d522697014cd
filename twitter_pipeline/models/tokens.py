"""The table `tokens`."""

from datetime import datetime

from sqlalchemy import Identity, Integer, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from twitter_pipeline.models.base import Base, enum_of
from twitter_pipeline.words import TokenStatus


class Token(Base):
    """A bearer token, known by the name of its environment variable only."""

    __tablename__ = "tokens"
    __table_args__ = (UniqueConstraint("env_key", name="token_env_key_is_unique"),)

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    env_key: Mapped[str]
    status: Mapped[TokenStatus] = mapped_column(enum_of(TokenStatus, "token_status"), server_default="active")
    status_reason: Mapped[str | None]
    status_since: Mapped[datetime] = mapped_column(server_default=func.now())
    status_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    capped_until: Mapped[datetime | None]
    refusals: Mapped[int] = mapped_column(Integer, server_default="0")
