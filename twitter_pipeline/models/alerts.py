"""The table `alerts`."""

from datetime import datetime

from sqlalchemy import Identity, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from twitter_pipeline.models.base import Base, enum_of
from twitter_pipeline.words import AlertKind


class Alert(Base):
    """Something that somebody should know of, and what was told of it."""

    __tablename__ = "alerts"
    __table_args__ = (
        UniqueConstraint("kind", "subject", "since", name="alert_is_made_once"),
        Index("alert_is_open_once", "kind", "subject", unique=True, postgresql_where=text("cleared_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    kind: Mapped[AlertKind] = mapped_column(enum_of(AlertKind, "alert_kind"))
    subject: Mapped[str]
    called: Mapped[str]
    since: Mapped[datetime]
    message: Mapped[str]
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    told_at: Mapped[datetime | None]
    cleared_at: Mapped[datetime | None]
    end_message: Mapped[str | None]
    end_told_at: Mapped[datetime | None]
    telling_until: Mapped[datetime | None]
