"""How often an account tweets, and at which hours: learned from its tweets as they come, without any I/O.

A timeline tells the time of every tweet, so the whole history of changes is known, and the estimate rests on what was
seen / how long was watched: X/T in Cho and Garcia-Molina, "Estimating frequency of change", ACM TOIT 3(3), 2003. Three
things are added: a prior (see prior.py), so that an account of which little was seen gets a sensible rate; forgetting,
so that recent days weigh more; and the habit over the day, as in Sia, Cho and Cho, "Efficient monitoring algorithm for
fast news alerts", IEEE TKDE 19(7), 2007.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import log, sqrt
from typing import Final

from twitter_pipeline.polling.prior import Halves, Prior

HOURS: Final = 24
HALF_LIFE: Final = timedelta(days=14)
"""After so long what was seen weighs half; so at least two of every weekday count."""
FORGOTTEN: Final = 8 * HALF_LIFE
"""What is older than this weighs less than half a percent and need not be read."""

PRIOR_TWEETS_AN_HOUR: Final = 1.0
"""So many tweets at the even rate are imagined in each hour of the day, so that few tweets give a nearly flat habit.
A stronger prior, and smoothing from hour to hour, do no better."""

_HALF_LIFE_H: Final = HALF_LIFE / timedelta(hours=1)
_HOUR_S: Final = 3600
_NOTHING: Final = (0.0,) * HOURS

UNKNOWN: Final = Prior()
"""What an account counts as where nothing is known of others either."""


@dataclass(frozen=True, slots=True)
class Rate:
    """The tweets per hour to expect in each hour of the UTC day; every one of them is above 0."""

    hourly: tuple[float, ...]

    @property
    def per_day(self) -> float:
        """Tweets per day."""
        return sum(self.hourly)

    @property
    def even(self) -> float:
        """Tweets per hour of an account without a habit that gets as many polls a day as this one.

        An hour gets polls by the square root of its rate (see plan.py), so what counts is the mean of the roots.
        """
        return (sum(map(sqrt, self.hourly)) / HOURS) ** 2


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of one account at `until`: hours watched and tweets written in them, by hour of the UTC day.

    Both are weighed by age, so the hours never add up to more than 485. Whether a month is taken in at once or poll by
    poll comes to the same. `Memory(instant)` knows nothing and watches from that instant on.
    """

    until: datetime
    hours: tuple[float, ...] = _NOTHING
    tweets: tuple[float, ...] = _NOTHING

    def observe(self, tweets: Mapping[datetime, int], until: datetime) -> "Memory":
        """Take in that from `self.until` to `until` these tweets were written, counted by `created_at`, and no others.

        Each tweet is given once, by the poll that first brings it, also when it is late and older than `self.until`.
        Instants may be cut to the hour.
        """
        aged = self.skip(until)
        now = _hours(aged.until)
        watched, counts = list(aged.hours), list(aged.tweets)
        for hour, weight in _watched(_hours(self.until), now):
            watched[hour] += weight
        for created_at, count in tweets.items():
            written = _hours(created_at)
            counts[int(written) % HOURS] += count * _kept(max(now - written, 0.0))
        return Memory(aged.until, tuple(watched), tuple(counts))

    def skip(self, until: datetime) -> "Memory":
        """Let time pass of which nothing is learned, such as while the account was suspended; never goes back."""
        if until <= self.until:
            return self
        kept = _kept(_hours(until) - _hours(self.until))
        return Memory(until, tuple([each * kept for each in self.hours]), tuple([each * kept for each in self.tweets]))

    def halves(self) -> Halves:
        """Return what is remembered of the even and of the odd hours of the day, from which a prior is learned."""
        return Halves(sum(self.hours[::2]), sum(self.tweets[::2]), sum(self.hours[1::2]), sum(self.tweets[1::2]))

    def rate(self, prior: Prior = UNKNOWN) -> Rate:
        """Estimate the rate.

        With a Gamma prior and Poisson counts, the mean of what is likely is (prior tweets + tweets) / (prior hours +
        hours); the same then for each hour of the day, against what the even rate would have brought in it. The mean
        is the right figure to plan with, as the expected delay is linear in the rate.
        """
        level = (prior.tweets + sum(self.tweets)) / (prior.hours + sum(self.hours))
        imagined = PRIOR_TWEETS_AN_HOUR
        habit = [
            (imagined + tweets) / (imagined + level * hours)
            for hours, tweets in zip(self.hours, self.tweets, strict=True)
        ]
        scale = level * HOURS / sum(habit)
        return Rate(tuple([each * scale for each in habit]))


def _hours(instant: datetime) -> float:
    return instant.timestamp() / _HOUR_S


def _kept(age_h: float) -> float:
    return 0.5 ** (age_h / _HALF_LIFE_H)


def _watched(begin: float, end: float) -> Iterator[tuple[int, float]]:
    """Give hours of the day with the time from `begin` to `end` that lies in them, weighed by its age at `end`."""
    days = max(int((end - begin) // HOURS), 0)
    if days:
        # Of two whole days that follow each other the earlier weighs a fixed fraction: a geometric series of the last.
        fraction = _kept(HOURS)
        series = (1 - fraction**days) / (1 - fraction)
        for hour, weight in _weighed(end - HOURS, end, now=end):
            yield hour, weight * series
    yield from _weighed(begin, end - days * HOURS, now=end)


def _weighed(begin: float, end: float, *, now: float) -> Iterator[tuple[int, float]]:
    at = begin
    while at < end:
        hour = int(at)
        upto = min(hour + 1.0, end)
        # The integral of 0.5 ** (age / half-life) from one age to the other.
        yield hour % HOURS, (_kept(now - upto) - _kept(now - at)) * _HALF_LIFE_H / log(2)
        at = upto
