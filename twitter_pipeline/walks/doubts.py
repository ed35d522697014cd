"""Doubts: intervals where responses have not proved that everything is stored, and when each is requested again."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from twitter_pipeline.coverage import IdRange
from twitter_pipeline.words import DoubtKind

LONGEST_PAUSE = timedelta(days=7)
_GROWTH = 4


@dataclass(frozen=True, slots=True)
class Doubt:
    """An interval that stays a hole until a later response shows the same.

    `times` counts the responses that showed it; several within `confirm_after` count as one. `items` are the JSON
    texts of what could not be read. An unreadable interval that was confirmed is kept, with the time of that as
    `recorded_at`: it is no hole any more, until a later version of this program requests it again. `id` is None until
    the doubt is stored.
    """

    kind: DoubtKind
    ids: IdRange
    first_seen_at: datetime
    seen_at: datetime
    next_at: datetime
    times: int = 1
    items: tuple[str, ...] = ()
    recorded_at: datetime | None = None
    id: int | None = None

    @classmethod
    def begin(cls, kind: DoubtKind, ids: IdRange, at: datetime, *, items: Iterable[str] = ()) -> "Doubt":
        """Build a doubt that a response left at this instant; the next run or poll requests it again."""
        return cls(kind, ids, first_seen_at=at, seen_at=at, next_at=at, items=tuple(items))

    @property
    def is_open(self) -> bool:
        """Whether its interval is still a hole."""
        return self.recorded_at is None

    def is_confirmed_by(self, at: datetime, confirm_after: timedelta) -> bool:
        """Return whether a response of this instant that shows the same settles it."""
        return at - self.first_seen_at >= confirm_after

    def is_days_apart_from(self, at: datetime) -> bool:
        """Return whether it was first seen on another UTC day."""
        return at.astimezone(UTC).date() != self.first_seen_at.astimezone(UTC).date()

    def shown_again(self, at: datetime, confirm_after: timedelta) -> "Doubt":
        """Return the doubt after another response left it; the intervals between requests grow."""
        if at - self.seen_at < confirm_after:
            return self
        pause = min(confirm_after * _GROWTH**self.times, LONGEST_PAUSE) if self.times < 20 else LONGEST_PAUSE
        return replace(self, seen_at=at, next_at=at + pause, times=self.times + 1)

    def recorded(self, ids: IdRange, at: datetime) -> "Doubt":
        """Return the doubt as the record of an interval that stays unreadable."""
        return replace(self, ids=ids, seen_at=at, recorded_at=at)


def overlaps(one: IdRange, other: IdRange) -> bool:
    """Return whether two intervals have an id in common."""
    return one.lo < other.hi and other.lo < one.hi
