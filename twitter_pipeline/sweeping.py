"""The sweep of a day: read an account's tweets of the day again, and tell which are gone. Decided without any I/O.

A tweet that was read on the same UTC day is read again for free, so until midnight the whole day can be looked at once
more: tweets that came late are stored, metrics are as they are now, and deleted tweets are missing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from twitter_pipeline.coverage import Coverage, IdRange, PageVerdict, id_at
from twitter_pipeline.planning import AccountState, TimelineRequest, Walk
from twitter_pipeline.request import FULL
from twitter_pipeline.x_api.parsing import Tweet

LAST_CALL = timedelta(minutes=2)
"""So long before midnight no call is sent any more: one that is answered after it is billed."""


def begin_of(day: date) -> datetime:
    """Return when a UTC day begins."""
    return datetime.combine(day, time(), tzinfo=UTC)


def is_free(day: date, now: datetime) -> bool:
    """Whether the tweets that were read on this UTC day can still be read again for free."""
    return begin_of(day) <= now < begin_of(day) + timedelta(days=1) - LAST_CALL


@dataclass(slots=True)
class DaySweep:
    """One account's sweep: a walk from the top down to the begin of the day, whatever is covered.

    `stored` are the tweets of the day that were stored before it. Use it in turns, like a Walk: `next_request`, then
    `judge` of the answer.
    """

    day: date
    stored: Collection[int]
    page_size: int
    _walk: Walk = field(init=False)
    _read: Coverage = field(default_factory=Coverage)
    _out_of_reach: Coverage = field(default_factory=Coverage)
    _seen: set[int] = field(default_factory=set[int])
    _superseded: set[int] = field(default_factory=set[int])
    _settled_below: int | None = None
    _ended: bool = False
    _ended_on_a_tweet: bool = False

    def __post_init__(self) -> None:
        self._walk = Walk(FULL, self.page_size, tweet_count=None, floor=id_at(begin_of(self.day)))

    def next_request(self) -> TimelineRequest | None:
        """Decide the next call, or None when the day was read or nothing more can be had."""
        return self._walk.next_request(self._state())

    def judge(self, tweets: Sequence[Tweet], *, next_token: str | None, settled_below: int) -> PageVerdict:
        """Tell what an answer proves, and remember what it shows."""
        ids = [tweet.id for tweet in tweets]
        verdict = self._walk.judge(self._state(), ids=ids, next_token=next_token, settled_below=settled_below)
        self._read |= verdict.proved
        self._out_of_reach |= verdict.unreachable
        self._seen.update(ids)
        for tweet in tweets:
            self._superseded.update(set(tweet.edit_history_ids) - {tweet.id})
        # Of the first answer: what was too fresh for it may be missing there without being gone.
        self._settled_below = settled_below if self._settled_below is None else self._settled_below
        self._ended = next_token is None
        self._ended_on_a_tweet = self._ended and bool(ids)
        return verdict

    @property
    def tells_nothing(self) -> bool:
        """Whether tweets are stored and the answers showed none of them, or never came to an end."""
        return bool(self.stored) and self._told() is None

    def missing(self) -> list[int]:
        """Return the stored tweets that the answers should have shown and did not, oldest first.

        None unless the walk came to its end and showed at least one tweet that was stored: replicas sometimes answer
        empty or break off. An earlier version of an edited tweet is not missing: timelines show the newest only.
        """
        span = self._told()
        if span is None:
            return []
        shown = self._seen | self._superseded
        return sorted(each for each in self.stored if each in span and each not in shown)

    def _told(self) -> IdRange | None:
        """Return between which ids the answers tell what there is and what not; None when they tell nothing."""
        if not self._ended or self._walk.goes_round or self._seen.isdisjoint(self.stored):
            return None
        lowest = min(self._seen)
        if self._ended_on_a_tweet and not self._out_of_reach:
            lowest = min(lowest, self._walk.floor)
        highest = max(self._seen) + 1 if self._settled_below is None else min(max(self._seen) + 1, self._settled_below)
        return IdRange(lowest, highest) if lowest < highest else None

    def _state(self) -> AccountState:
        # Only what this sweep has read counts. No witness is asked for: one from the day before would be billed.
        return AccountState(
            self._read,
            self._out_of_reach,
            lambda lowest_id: sum(each >= lowest_id for each in self._seen),
            lambda _: None,
        )
