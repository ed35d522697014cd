"""The tables `users` and `user_names`."""

from datetime import datetime

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from twitter_pipeline.errors import Availability
from twitter_pipeline.models.base import Base, enum_of


class User(Base):
    """An account; its id stays, its name may change hands."""

    __tablename__ = "users"
    __table_args__ = (
        Index("users_username", text("lower(username)"), unique=True),
        Index("users_unavailable", "id", postgresql_where=text("availability <> 'active'")),
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    username: Mapped[str | None]
    name: Mapped[str | None]
    description: Mapped[str | None]
    location: Mapped[str | None]
    profile_image_url: Mapped[str | None]
    created_at: Mapped[datetime | None]
    protected: Mapped[bool | None]
    verified: Mapped[bool | None]
    verified_type: Mapped[str | None]
    followers_count: Mapped[int | None]
    following_count: Mapped[int | None]
    tweet_count: Mapped[int | None]
    listed_count: Mapped[int | None]
    availability: Mapped[Availability] = mapped_column(enum_of(Availability, "availability"), server_default="active")
    availability_reason: Mapped[str | None]
    availability_since: Mapped[datetime] = mapped_column(server_default=func.now())
    profile_read_at: Mapped[datetime | None]
    first_read_at: Mapped[datetime] = mapped_column(server_default=func.now())
    raw: Mapped[dict[str, object] | None] = mapped_column(JSON)


class UserName(Base):
    """A name an account was seen with, and when."""

    __tablename__ = "user_names"
    __table_args__ = (Index("user_names_username", text("lower(username)")),)

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", name="user_name_belongs_to_a_user", ondelete="CASCADE"), primary_key=True
    )
    username: Mapped[str]
    seen_from: Mapped[datetime] = mapped_column(server_default=func.now(), primary_key=True)
    seen_until: Mapped[datetime | None]
