"""Queries on what is stored of each account, and what is missing."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.dialects.postgresql import Range

from twitter_pipeline.coverage import EVERYTHING, LOWEST_ID, Coverage, IdRange
from twitter_pipeline.errors import Availability
from twitter_pipeline.models import FetchRun, FetchRunAccount, Tweet, User, UserName, UserState
from twitter_pipeline.store.database import Database
from twitter_pipeline.words import AccountOutcome


class HoleCause(StrEnum):
    """Why tweets are missing between two ids."""

    BEYOND_REACH = "beyond the newest 3,200 that X serves"
    NOT_FETCHED = "not asked for, or broken off before it was reached"


@dataclass(frozen=True, slots=True)
class Hole:
    """Ids below the newest that is covered, of which it is not known that every tweet is stored."""

    ids: IdRange
    cause: HoleCause


@dataclass(frozen=True, slots=True)
class FormerName:
    """A name that an account had, and when it was seen with it."""

    username: str
    seen_from: datetime
    seen_until: datetime


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """What is stored of one account. `username` is None while somebody else holds the name it was known by."""

    user_id: int
    username: str | None
    name: str | None
    created_at: datetime | None
    availability: Availability
    availability_reason: str | None
    availability_since: datetime
    tweet_count: int | None
    profile_read_at: datetime | None
    is_tracked: bool
    tracked_since: datetime | None
    last_polled_at: datetime | None
    next_poll_at: datetime | None
    tweets_per_hour: float | None
    covered: Coverage
    unreachable: Coverage
    tweets_stored: int
    first_tweet_at: datetime | None
    last_tweet_at: datetime | None
    former_names: tuple[FormerName, ...]

    @property
    def completeness(self) -> float | None:
        """The stored share of the tweets that X counts, at most 1; None while X's count is not known.

        X's count is as old as the profile, and tweets that were deleted since stay stored.
        """
        if self.tweet_count is None:
            return None
        return 1.0 if self.tweets_stored >= self.tweet_count else self.tweets_stored / self.tweet_count

    @property
    def holes(self) -> tuple[Hole, ...]:
        """What is missing below the newest tweet that is covered, newest first; empty before the first fetch."""
        return find_holes(self.covered, self.unreachable)


@dataclass(frozen=True, slots=True)
class LastOutcome:
    """What the latest run that was asked for a name said of it."""

    fetch_run_id: int
    outcome: AccountOutcome
    reason: str | None
    started_at: datetime


def find_holes(covered: Coverage, unreachable: Coverage) -> tuple[Hole, ...]:
    """Return the ids below the top of `covered` that it lacks, newest first, each with its cause."""
    if covered.top is None:
        return ()
    missing = Coverage(covered.gaps(IdRange(LOWEST_ID, covered.top)))
    near = [Hole(each, HoleCause.NOT_FETCHED) for each in missing - unreachable]
    # What is both missing and unreachable is what is left of the missing without the rest.
    far = [Hole(each, HoleCause.BEYOND_REACH) for each in missing - Coverage(unreachable.gaps(EVERYTHING))]
    return tuple(sorted([*near, *far], key=lambda hole: hole.ids, reverse=True))


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
    return [_status(row, names.get(row.id, ())) for row in rows]


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
    stored = select(
        Tweet.author_id,
        func.count().label("tweets_stored"),
        func.min(Tweet.created_at).label("first_tweet_at"),
        func.max(Tweet.created_at).label("last_tweet_at"),
    ).group_by(Tweet.author_id)
    if user_ids is not None:
        stored = stored.where(Tweet.author_id.in_(user_ids))
    counts = stored.subquery()
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
            func.coalesce(counts.c.tweets_stored, 0).label("tweets_stored"),
            counts.c.first_tweet_at,
            counts.c.last_tweet_at,
        )
        .outerjoin(UserState, UserState.user_id == User.id)
        .outerjoin(counts, counts.c.author_id == User.id)
        .order_by(func.lower(User.username).nulls_last(), User.id)
    )
    return query if user_ids is None else query.where(User.id.in_(user_ids))


def _names(user_ids: Collection[int]) -> Select[*tuple[Any, ...]]:
    return (
        select(UserName.user_id, UserName.username, UserName.seen_from, UserName.seen_until)
        .where(UserName.seen_until.is_not(None), UserName.user_id.in_(user_ids))
        .order_by(UserName.user_id, UserName.seen_from)
    )


def _former_names(rows: Iterable[Row[*tuple[Any, ...]]]) -> dict[int, tuple[FormerName, ...]]:
    names: dict[int, tuple[FormerName, ...]] = {}
    for user_id, username, seen_from, seen_until in rows:
        names[user_id] = (*names.get(user_id, ()), FormerName(username, seen_from, seen_until))
    return names


def _status(row: Row[*tuple[Any, ...]], former_names: tuple[FormerName, ...]) -> AccountStatus:
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
        tweets_stored=row.tweets_stored,
        first_tweet_at=row.first_tweet_at,
        last_tweet_at=row.last_tweet_at,
        former_names=former_names,
    )


def _ranges(stored: Iterable[Range[int]] | None) -> Iterator[IdRange]:
    # PostgreSQL keeps a multirange sorted, merged and half-open.
    for each in stored or ():
        yield IdRange(each.lower or LOWEST_ID, each.upper or EVERYTHING.hi)
