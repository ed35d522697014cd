"""What is stored of one account, as plain values."""

from dataclasses import dataclass
from datetime import datetime

from twitter_pipeline.coverage import Coverage
from twitter_pipeline.errors import Availability
from twitter_pipeline.walks.doubts import Doubt


@dataclass(frozen=True, slots=True)
class FormerName:
    """A name that an account had, and when it was seen with it."""

    username: str
    seen_from: datetime
    seen_until: datetime


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """What is stored of one account. `username` is None while somebody else holds the name it was known by.

    `tweet_count` is X's own count, as old as the profile; `kept_when_counted` are those of the stored tweets that X
    would count then: written before, and not seen to be deleted. `doubts` are what responses left open, and what could
    not be read.
    """

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
    searched: Coverage
    tweets_stored: int
    kept_when_counted: int
    first_tweet_at: datetime | None
    last_tweet_at: datetime | None
    former_names: tuple[FormerName, ...]
    doubts: tuple[Doubt, ...] = ()

    @property
    def completeness(self) -> float | None:
        """The stored share of the tweets that X counts, at most 1; None while X's count is not known.

        X's count is as old as the profile, and tweets that were deleted since stay stored.
        """
        if self.tweet_count is None:
            return None
        return 1.0 if self.tweets_stored >= self.tweet_count else self.tweets_stored / self.tweet_count
