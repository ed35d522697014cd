"""The table `spending`."""

from datetime import date, datetime

from sqlalchemy import ForeignKey, Identity, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from twitter_pipeline.models.base import Base


class Spending(Base):
    """What the calls of a UTC day or of a run were billed, and what those under way may be billed at most."""

    __tablename__ = "spending"
    __table_args__ = (
        UniqueConstraint("day", name="spending_day_is_unique"),
        UniqueConstraint("fetch_run_id", name="spending_run_is_unique"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    day: Mapped[date | None]
    fetch_run_id: Mapped[int | None] = mapped_column(
        ForeignKey("fetch_runs.id", name="spending_belongs_to_a_run", ondelete="CASCADE")
    )
    posts: Mapped[int] = mapped_column(server_default="0")
    users: Mapped[int] = mapped_column(server_default="0")
    reserved_posts: Mapped[int] = mapped_column(server_default="0")
    reserved_users: Mapped[int] = mapped_column(server_default="0")
    counted_at: Mapped[datetime] = mapped_column(server_default="-infinity")
