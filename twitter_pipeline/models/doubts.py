"""The table `doubts`."""

from datetime import datetime

from sqlalchemy import ForeignKey, Identity, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, INT8RANGE, Range
from sqlalchemy.orm import Mapped, mapped_column

from twitter_pipeline.models.base import Base, enum_of
from twitter_pipeline.words import DoubtKind


class Doubt(Base):
    """An interval of an account where responses have not proved that every tweet is stored."""

    __tablename__ = "doubts"
    __table_args__ = (Index("doubts_user", "user_id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    user_id: Mapped[int] = mapped_column(
        ForeignKey("user_state.user_id", name="doubt_belongs_to_an_account", ondelete="CASCADE")
    )
    kind: Mapped[DoubtKind] = mapped_column(enum_of(DoubtKind, "doubt_kind"))
    ids: Mapped[Range[int]] = mapped_column(INT8RANGE)
    first_seen_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    next_at: Mapped[datetime]
    times: Mapped[int] = mapped_column(Integer, server_default="1")
    items: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    recorded_at: Mapped[datetime | None]
    recorded_by: Mapped[str | None]
