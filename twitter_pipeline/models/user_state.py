"""The table `user_state`."""

from datetime import datetime

from sqlalchemy import Computed, Double, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import ARRAY, INT8MULTIRANGE, Range
from sqlalchemy.orm import Mapped, mapped_column

from twitter_pipeline.models.base import Base


class UserState(Base):
    """What is stored of an account, as sets of id intervals, and whether it is watched."""

    __tablename__ = "user_state"
    __table_args__ = (
        Index("user_state_tracked", "user_id", postgresql_where=text("is_tracked")),
        Index("user_state_due", text("next_poll_at NULLS FIRST"), postgresql_where=text("is_tracked")),
        Index("user_state_handed", "handed_to", postgresql_where=text("handed_to IS NOT NULL")),
    )

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", name="user_state_belongs_to_a_user", ondelete="CASCADE"), primary_key=True
    )
    is_tracked: Mapped[bool] = mapped_column(server_default=text("false"))
    tracked_since: Mapped[datetime | None]
    covered: Mapped[list[Range[int]]] = mapped_column(INT8MULTIRANGE, server_default=text("'{}'"))
    unreachable: Mapped[list[Range[int]]] = mapped_column(INT8MULTIRANGE, server_default=text("'{}'"))
    searched: Mapped[list[Range[int]]] = mapped_column(INT8MULTIRANGE, server_default=text("'{}'"))
    last_seen_id: Mapped[int | None] = mapped_column(Computed("upper(covered) - 1", persisted=True))
    last_polled_at: Mapped[datetime | None]
    next_poll_at: Mapped[datetime | None]
    handed_to: Mapped[str | None]
    handed_at: Mapped[datetime | None]
    rate_known_at: Mapped[datetime | None]
    rate_hours: Mapped[list[float] | None] = mapped_column(ARRAY(Double))
    rate_tweets: Mapped[list[float] | None] = mapped_column(ARRAY(Double))
    tweets_per_hour: Mapped[float | None]
    claims_checked: Mapped[bool] = mapped_column(server_default=text("true"))
    timeline_read_at: Mapped[datetime | None]
