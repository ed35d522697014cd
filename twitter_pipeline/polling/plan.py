"""How a budget of polls is shared out among accounts, and when an account's next poll falls: pure arithmetic.

An account with `r` tweets an hour that is polled every `I` hours has its tweets found `I / 2` late on average. The sum
of r * I / 2 over all accounts, with the sum of 1 / I held to the budget, is smallest where one more poll would gain
the same everywhere: the derivative of r / (2 * f) by f = 1 / I is -r * I ** 2 / 2, so r * I ** 2 is the same for all
and I = c / sqrt(r) with one multiplier c. This is the resource allocation of Sia, Cho and Cho, "Efficient monitoring
algorithm for fast news alerts", IEEE TKDE 19(7), 2007. (Polling in proportion to the rate gains nothing: with f =
r * budget / sum(r) every account adds sum(r) / (2 * budget), which comes to the same total as polling all alike.)

The polls of one account are shared out over the hours of its day in the same way, and a poll is due once the hours
since the last one, each divided by its interval, add up to 1.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import accumulate
from math import sqrt
from typing import Final

from twitter_pipeline.polling.rates import HOURS, Rate

JITTER: Final = 0.05
"""By this share an interval is longer or shorter, so that accounts that were once polled together drift apart. It
lengthens the mean delay by less than a thousandth."""
LONGEST_AWAY: Final = timedelta(days=7)

_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Bounds:
    """No account is polled more often than every `shortest`, nor, while the budget allows it, less than `longest`."""

    shortest: timedelta
    longest: timedelta

    def __post_init__(self) -> None:
        if not timedelta(0) < self.shortest <= self.longest:
            raise ValueError(f"the bounds of the interval are wrong: from {self.shortest} to {self.longest}")


@dataclass(frozen=True, slots=True)
class Plan:
    """How the budget is shared out: at `rate` tweets an hour a poll comes every multiplier / sqrt(rate) hours.

    `over_committed` tells that the budget is too small to poll every account within the longest interval: then all of
    them are polled alike, every `longest_h`, which is longer than asked for.
    """

    multiplier: float
    shortest_h: float
    longest_h: float
    over_committed: bool = False

    def interval_h(self, rate: float) -> float:
        """Return the hours between two polls for a rate in tweets per hour."""
        if self.over_committed:
            return self.longest_h
        return min(max(self.multiplier / sqrt(rate), self.shortest_h), self.longest_h)


def allocate(rates: Iterable[float], *, polls_per_hour: float, bounds: Bounds, away: int = 0) -> Plan:
    """Share out the budget so that the mean delay of all tweets is smallest, within the bounds.

    `rates` are `Rate.even` of the accounts that can be read; `away` is the number of those that cannot, each of which
    is set aside a poll per longest interval (it takes less). A poll is one account looked at: with a detection that
    looks at 100 accounts in one call, give 100 times the calls. Raises ValueError for a budget or a rate of 0 or less.
    """
    roots = sorted(map(sqrt, rates))
    count = len(roots)
    shortest, longest = bounds.shortest / _HOUR, bounds.longest / _HOUR
    if polls_per_hour <= 0 or (roots and roots[0] == 0.0):
        raise ValueError("the budget of polls and every rate must be above 0")
    if count + away > polls_per_hour * longest:
        return Plan(0.0, shortest, (count + away) / polls_per_hour, over_committed=True)
    return _shared_out(roots, polls_per_hour - away / longest, shortest=shortest, longest=longest)


def _shared_out(roots: list[float], budget: float, *, shortest: float, longest: float) -> Plan:
    """Share out a budget that is enough for the longest interval, given the roots of the rates in ascending order.

    Who is at a bound is told exactly: what is spent falls as the multiplier grows, so an account is at the shortest
    interval when the multiplier that just puts it there spends no more than the budget, and at the longest likewise.
    The others share what is left.
    """
    if len(roots) <= budget * shortest:
        return Plan(0.0, shortest, longest)
    sums = [0.0, *accumulate(roots)]

    def spent(multiplier: float) -> float:
        slow, fast = bisect_right(roots, multiplier / longest), bisect_left(roots, multiplier / shortest)
        return slow / longest + (sums[fast] - sums[slow]) / multiplier + (len(roots) - fast) / shortest

    fast = bisect_left(roots, True, key=lambda root: spent(root * shortest) <= budget)
    slow = bisect_left(roots, True, key=lambda root: spent(root * longest) < budget)
    if slow < fast:
        multiplier = (sums[fast] - sums[slow]) / (budget - slow / longest - (len(roots) - fast) / shortest)
    else:  # everybody is at a bound, and any multiplier that keeps them there will do
        multiplier = roots[fast] * shortest if fast < len(roots) else roots[-1] * longest
    return Plan(multiplier, shortest, longest)


def next_poll(plan: Plan, rate: Rate, *, user_id: int, after: datetime, joins: bool = False) -> datetime:
    """Return when an account is due that was polled at `after`, in UTC.

    An account that `joins` the watch is due somewhere within its first interval, so that accounts tracked together are
    spread evenly. The same arguments always give the same instant.
    """
    throw = _throw(user_id, after)
    begin = after.timestamp() / 3600
    intervals = _intervals(plan, rate)
    if joins:
        gap = _gap(intervals, begin, throw)
    else:
        gap = _gap(intervals, begin, 1 + JITTER * (2 * throw - 1))
        gap = min(max(gap, plan.shortest_h), plan.longest_h)
    return after.astimezone(UTC) + gap * _HOUR


def next_look(plan: Plan, *, user_id: int, away_since: datetime, after: datetime) -> datetime:
    """Return when to look again at an account that was protected, suspended or unknown at `after`, in UTC.

    That is after as long as it has been away, but at least the longest interval and at most about a week: one that is
    soon back is soon noticed, and one that stays away costs a call a week.
    """
    longest = plan.longest_h * _HOUR
    gap = min(max(after - away_since, longest), max(LONGEST_AWAY, longest))
    return after.astimezone(UTC) + gap * (1 + JITTER * _throw(user_id, after))


def _intervals(plan: Plan, rate: Rate) -> list[float]:
    """Return the interval in each hour of the UTC day: an account's polls of a day shared out over its hours.

    Holding the hours to the bounds one by one instead would spend up to 2 % more than the account was given.
    """
    if plan.over_committed:
        return [plan.longest_h] * HOURS
    polls = HOURS / plan.interval_h(rate.even)
    roots = sorted(map(sqrt, rate.hourly))
    day = _shared_out(roots, polls, shortest=plan.shortest_h, longest=plan.longest_h)
    return [day.interval_h(each) for each in rate.hourly]


def _gap(intervals: list[float], begin: float, wanted: float) -> float:
    """Return the hours after which the hours from `begin` on, each divided by its interval, add up to `wanted`."""
    at = begin
    while True:
        hour = int(at)
        interval = intervals[hour % HOURS]
        end = at + wanted * interval
        if end <= hour + 1:
            return end - begin
        wanted -= (hour + 1 - at) / interval
        at = hour + 1.0


def _throw(user_id: int, after: datetime) -> float:
    """Return a number from 0 to below 1 that looks random and depends on nothing else."""
    digest = blake2b(f"{user_id} {after.timestamp()}".encode(), digest_size=7).digest()
    return int.from_bytes(digest) / (1 << 56)
