"""The table `tweets`."""

from datetime import datetime

from sqlalchemy import JSON, BigInteger, Index, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from twitter_pipeline.models.base import Base, enum_of
from twitter_pipeline.x_api.parsing import TweetKind


class Tweet(Base):
    """A tweet with its whole text, its metrics as last read, and its raw JSON with its own includes."""

    __tablename__ = "tweets"
    __table_args__ = (
        Index("tweets_author_created_at", "author_id", "created_at"),
        Index("tweets_deleted", "deleted_seen_at", postgresql_where=text("deleted_seen_at IS NOT NULL")),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    author_id: Mapped[int]
    created_at: Mapped[datetime]
    kind: Mapped[TweetKind] = mapped_column(enum_of(TweetKind, "tweet_kind"))
    text: Mapped[str]
    lang: Mapped[str | None]
    conversation_id: Mapped[int | None]
    in_reply_to_tweet_id: Mapped[int | None]
    in_reply_to_user_id: Mapped[int | None]
    retweeted_tweet_id: Mapped[int | None]
    quoted_tweet_id: Mapped[int | None]
    edit_history_ids: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    like_count: Mapped[int | None]
    retweet_count: Mapped[int | None]
    reply_count: Mapped[int | None]
    quote_count: Mapped[int | None]
    bookmark_count: Mapped[int | None]
    impression_count: Mapped[int | None]
    first_read_at: Mapped[datetime] = mapped_column(server_default=func.now())
    first_read_run_id: Mapped[int | None]
    last_read_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_read_run_id: Mapped[int | None]
    raw: Mapped[dict[str, object]] = mapped_column(JSON)
    deleted_seen_at: Mapped[datetime | None]
