"""Queries on what is stored of each account."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Row, Select, any_, func, literal, select
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.sql.elements import CollectionAggregate

from twitter_pipeline.account_status import AccountStatus, FormerName
from twitter_pipeline.coverage import EVERYTHING, LOWEST_ID, Coverage, IdRange
from twitter_pipeline.errors import Availability
from twitter_pipeline.models import FetchRun, FetchRunAccount, Tweet, User, UserName, UserState
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.doubts import load_doubts
from twitter_pipeline.walks.doubts import Doubt
from twitter_pipeline.words import AccountOutcome


@dataclass(frozen=True, slots=True)
class LastOutcome:
    """What the latest run that was asked for a name said of it."""

    fetch_run_id: int
    outcome: AccountOutcome
    reason: str | None
    started_at: datetime


def load_account_statuses(
    database: Database, *, user_ids: Collection[int] | None = None, tracked_only: bool = False
) -> list[AccountStatus]:
    """Return all accounts, or those of these ids, by name."""
    query = _accounts(user_ids)
    if tracked_only:
        query = query.where(UserState.is_tracked)
    with database.engine.connect() as connection:
        rows = connection.execute(query).all()
        names = _former_names(connection.execute(_names([row.id for row in rows])).all())
    doubts = load_doubts(database, [row.id for row in rows])
    return [_status(row, names.get(row.id, ()), doubts.get(row.id, ())) for row in rows]


def load_last_outcome(database: Database, username: str) -> LastOutcome | None:
    """Return what the latest run said of a name (lower case), None when no run was asked for it."""
    query = (
        select(FetchRunAccount.fetch_run_id, FetchRunAccount.outcome, FetchRunAccount.reason, FetchRun.started_at)
        .join(FetchRun, FetchRun.id == FetchRunAccount.fetch_run_id)
        .where(FetchRunAccount.username == username)
        .order_by(FetchRunAccount.fetch_run_id.desc())
        .limit(1)
    )
    with database.engine.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else LastOutcome(row[0], AccountOutcome(row[1]), row[2], row[3])


def _accounts(user_ids: Collection[int] | None) -> Select[*tuple[Any, ...]]:
    was_there = Tweet.created_at <= User.profile_read_at
    stored = select(
        Tweet.author_id,
        func.count().label("tweets_stored"),
        func.count().filter(was_there).label("written_when_counted"),
        func.min(Tweet.created_at).label("first_tweet_at"),
        func.max(Tweet.created_at).label("last_tweet_at"),
    )
    # Apart, as the deleted ones are few and have an index: the others are counted without a look at their rows.
    deleted = select(Tweet.author_id, func.count().label("tweets")).where(Tweet.deleted_seen_at.is_not(None), was_there)
    counts = _by_author(stored, user_ids).subquery()
    gone = _by_author(deleted, user_ids).subquery()
    kept_when_counted = func.coalesce(counts.c.written_when_counted, 0) - func.coalesce(gone.c.tweets, 0)
    query = (
        select(
            User.id,
            User.username,
            User.name,
            User.created_at,
            User.availability,
            User.availability_reason,
            User.availability_since,
            User.tweet_count,
            User.profile_read_at,
            UserState.is_tracked,
            UserState.tracked_since,
            UserState.last_polled_at,
            UserState.next_poll_at,
            UserState.tweets_per_hour,
            UserState.covered,
            UserState.unreachable,
            UserState.searched,
            func.coalesce(counts.c.tweets_stored, 0).label("tweets_stored"),
            kept_when_counted.label("kept_when_counted"),
            counts.c.first_tweet_at,
            counts.c.last_tweet_at,
        )
        .outerjoin(UserState, UserState.user_id == User.id)
        .outerjoin(counts, counts.c.author_id == User.id)
        .outerjoin(gone, gone.c.author_id == User.id)
        .order_by(func.lower(User.username).nulls_last(), User.id)
    )
    return query if user_ids is None else query.where(User.id == _any_of(user_ids))


def _by_author(tweets: Select[*tuple[Any, ...]], user_ids: Collection[int] | None) -> Select[*tuple[Any, ...]]:
    """Group tweets by author, of all accounts or of these ids."""
    grouped = tweets.join(User, User.id == Tweet.author_id).group_by(Tweet.author_id)
    return grouped if user_ids is None else grouped.where(Tweet.author_id == _any_of(user_ids))


def _any_of(user_ids: Collection[int]) -> CollectionAggregate[bool]:
    # One parameter, however many there are: PostgreSQL takes 65,535.
    return any_(literal(list(user_ids), ARRAY(BigInteger)))


def _names(user_ids: Collection[int]) -> Select[*tuple[Any, ...]]:
    return (
        select(UserName.user_id, UserName.username, UserName.seen_from, UserName.seen_until)
        .where(UserName.seen_until.is_not(None), UserName.user_id == _any_of(user_ids))
        .order_by(UserName.user_id, UserName.seen_from)
    )


def _former_names(rows: Iterable[Row[*tuple[Any, ...]]]) -> dict[int, tuple[FormerName, ...]]:
    names: dict[int, tuple[FormerName, ...]] = {}
    for user_id, username, seen_from, seen_until in rows:
        names[user_id] = (*names.get(user_id, ()), FormerName(username, seen_from, seen_until))
    return names


def _status(
    row: Row[*tuple[Any, ...]], former_names: tuple[FormerName, ...], doubts: tuple[Doubt, ...]
) -> AccountStatus:
    return AccountStatus(
        user_id=row.id,
        username=row.username,
        name=row.name,
        created_at=row.created_at,
        availability=Availability(row.availability),
        availability_reason=row.availability_reason,
        availability_since=row.availability_since,
        tweet_count=row.tweet_count,
        profile_read_at=row.profile_read_at,
        is_tracked=bool(row.is_tracked),
        tracked_since=row.tracked_since,
        last_polled_at=row.last_polled_at,
        next_poll_at=row.next_poll_at,
        tweets_per_hour=row.tweets_per_hour,
        covered=Coverage(tuple(_ranges(row.covered))),
        unreachable=Coverage(tuple(_ranges(row.unreachable))),
        searched=Coverage(tuple(_ranges(row.searched))),
        tweets_stored=row.tweets_stored,
        kept_when_counted=row.kept_when_counted,
        first_tweet_at=row.first_tweet_at,
        last_tweet_at=row.last_tweet_at,
        former_names=former_names,
        doubts=doubts,
    )


def _ranges(stored: Iterable[Range[int]] | None) -> Iterator[IdRange]:
    # PostgreSQL keeps a multirange sorted, merged and half-open.
    for each in stored or ():
        yield IdRange(each.lower or LOWEST_ID, each.upper or EVERYTHING.hi)
