"""How soon the watch stores what tracked accounts write, in numbers and in words."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Delays:
    """From the writing of tweets to their storing, of the tweets that were written in the last day while tracked.

    `within` is the share that was stored within the promised delay. Without tweets there is nothing but their number.
    """

    tweets: int
    median_s: float | None
    p95_s: float | None
    within: float | None


NO_DELAYS = Delays(0, None, None, None)


def describe_delays(delays: Delays, promise: timedelta) -> str:
    """Say for a person how soon the last day's tweets were stored."""
    if delays.median_s is None or delays.p95_s is None or delays.within is None:
        return "no tweet that it found was written in the last day"
    # Rounded down: 100 % is all.
    share = int(delays.within * 1000) / 10
    tweets = f"{delays.tweets:,} tweet" + ("" if delays.tweets == 1 else "s")
    return (
        f"{tweets} in the last day, stored after {delays.median_s:,.0f} s (median) and "
        f"{delays.p95_s:,.0f} s (95 %); {share:g} % within {promise.total_seconds():,.0f} s"
    )
