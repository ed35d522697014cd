"""The table `walks`."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import INT8RANGE, Range
from sqlalchemy.orm import Mapped, mapped_column

from twitter_pipeline.models.base import Base


class Walk(Base):
    """The ids of an account that a run still has to walk down to."""

    __tablename__ = "walks"
    __table_args__ = (Index("walks_fetch_run", "fetch_run_id"),)

    user_id: Mapped[int] = mapped_column(
        ForeignKey("user_state.user_id", name="walk_belongs_to_an_account", ondelete="CASCADE"), primary_key=True
    )
    fetch_run_id: Mapped[int] = mapped_column(
        ForeignKey("fetch_runs.id", name="walk_belongs_to_a_run", ondelete="CASCADE"), primary_key=True
    )
    ids: Mapped[Range[int]] = mapped_column(INT8RANGE)
    claimed_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
