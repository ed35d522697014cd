"""What a file holds, whatever its format: tweets with their authors, and places that could not be read."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO, TypeAlias

from msgspec import Struct

from twitter_pipeline.coverage import FIRST_TWEET_AT
from twitter_pipeline.x_api.parsing import Tweet, User


class Author(Struct, frozen=True, gc=False):
    """Who wrote a tweet, as far as the file tells. `profile` is there only where it came whole."""

    id: int
    username: str | None = None
    profile: User | None = None


class Found(Struct, frozen=True, kw_only=True, gc=False):
    """A tweet in a file.

    `is_dated` tells that the file says when X was asked. Else `last_read_at` is only the latest instant at which that
    can have been, and the tweet takes the place of none that is stored.
    """

    tweet: Tweet
    author: Author
    first_read_at: datetime
    last_read_at: datetime
    is_dated: bool
    deleted_seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A place in a file, such as "line 7", and why nothing could be read there."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


Finding: TypeAlias = Found | Unreadable
Findings: TypeAlias = Iterator[Finding]


@dataclass(slots=True)
class Gauge:
    """How far a file is read, told by the file itself while it is open; one that is packed counts as it lies there."""

    file: BinaryIO | None = None

    @property
    def bytes_read(self) -> int:
        """Return how many bytes were read, 0 while nothing is open."""
        return 0 if self.file is None or self.file.closed else self.file.tell()


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of a file beside what is in it: whose tweets those are that name no author, and its age.

    Its data were read from X at `modified_at` at the latest, and at no instant after `now`.
    """

    owner: Author | None
    modified_at: datetime
    now: datetime
    gauge: Gauge = field(default_factory=Gauge)

    def stamp(self, told_at: datetime | None) -> tuple[datetime, bool]:
        """Return when data were read, at the latest, and whether the file has told so."""
        if told_at is None or told_at < FIRST_TWEET_AT:
            return min(self.modified_at, self.now), False
        return min(told_at, self.now), True
