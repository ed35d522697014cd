"""The sweep of a day: read an account's tweets of the day again, and tell which are gone. Decided without any I/O.

A tweet that was read on the same UTC day is read again for free, so until midnight the whole day can be looked at once
more: tweets that came late are stored, metrics are as they are now, and deleted tweets are missing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from twitter_pipeline.coverage import BEYOND_ALL_IDS, IdRange, id_at
from twitter_pipeline.planning import PageVerdict, TimelineRequest
from twitter_pipeline.walks.chain import Chain, most_pages
from twitter_pipeline.walks.evidence import CLEARLY_WITHIN_REACH, Item
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
    `judge` of the answer. It claims what its pages prove, and nothing below the last tweet that was shown: the walks
    decide on ends.
    """

    day: date
    stored: Collection[int]
    page_size: int
    until_id: int | None = None
    """The id below which it requests tweets; None for all."""
    _chain: Chain = field(init=False)
    _seen: set[int] = field(default_factory=set[int])
    _superseded: set[int] = field(default_factory=set[int])
    _settled_below: int | None = None
    _ended: bool = False
    _ended_on_a_tweet: bool = False

    def __post_init__(self) -> None:
        self._chain = Chain(IdRange(id_at(begin_of(self.day)), BEYOND_ALL_IDS), most_pages(self.page_size))

    @property
    def _floor(self) -> int:
        return self._chain.hole.lo

    def next_request(self) -> TimelineRequest | None:
        """Decide the next call, or None when the day was read or nothing more can be had."""
        if self._ended or self._chain.stuck:
            return None
        return TimelineRequest(self.page_size, self._floor - 1, self.until_id, self._chain.token)

    def drop_token(self) -> None:
        """Continue below the last tweet that was shown, without the page token: X does not take it."""
        below = self._chain.drop_token()
        self.until_id = below if below < BEYOND_ALL_IDS else None

    def judge(
        self, tweets: Sequence[Tweet], *, items: Sequence[Item], next_token: str | None, settled_below: int
    ) -> PageVerdict:
        """Return what a response proves, and remember what it shows."""
        proof, retracted = self._chain.judge(
            items, next_token=next_token, requested_from=self._floor, settled_below=settled_below
        )
        self._seen.update(tweet.id for tweet in tweets)
        for tweet in tweets:
            self._superseded.update(set(tweet.edit_history_ids) - {tweet.id})
        # Of the first answer: what was too fresh for it may be missing there without being gone.
        self._settled_below = settled_below if self._settled_below is None else self._settled_below
        self._ended = next_token is None or self._chain.rest is None
        self._ended_on_a_tweet = self._ended and bool(tweets)
        return PageVerdict(proved=proof.proved, retracted=retracted)

    @property
    def shows_nothing(self) -> bool:
        """Whether tweets are stored and the answers showed none of them, or never came to an end."""
        return bool(self.stored) and self._shown_span() is None

    def missing(self) -> list[int]:
        """Return the stored tweets that the answers should have shown and did not, oldest first.

        None unless the walk came to its end and showed at least one tweet that was stored: replicas sometimes answer
        empty or break off. An earlier version of an edited tweet is not missing: timelines show the newest only.
        """
        span = self._shown_span()
        if span is None:
            return []
        shown = self._seen | self._superseded
        return sorted(each for each in self.stored if each in span and each not in shown)

    def _shown_span(self) -> IdRange | None:
        """Return the ids where the answers show what exists; None when they show nothing."""
        if not self._ended or self._chain.stuck or self._seen.isdisjoint(self.stored):
            return None
        is_whole = self._ended_on_a_tweet and len(self._seen) < CLEARLY_WITHIN_REACH
        lowest = min(min(self._seen), self._floor) if is_whole else min(self._seen)
        highest = max(self._seen) + 1 if self._settled_below is None else min(max(self._seen) + 1, self._settled_below)
        return IdRange(lowest, highest) if lowest < highest else None
