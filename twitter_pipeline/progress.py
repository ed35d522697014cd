"""How far a run is -> how fast it goes, when it is expected to end, and both in words."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from twitter_pipeline.store.runs import Progress
from twitter_pipeline.store.windows import WindowState
from twitter_pipeline.texts import counted
from twitter_pipeline.tokens import CONFIRMATION, NO_ANSWER, REFUSED

WINDOW = timedelta(minutes=15)
"""After its reset a window of X lasts so long (docs.x.com, "Rate limits"); the headers tell only when it resets."""

RATE_OVER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Look:
    """How far a run was at an instant. `left` is the work that was left, in one unit for all looks at a run."""

    at: datetime
    progress: Progress
    left: float


@dataclass(frozen=True, slots=True)
class Budget:
    """What a token may send: `left` calls until it resets, `limit` in every window after."""

    left: int
    limit: int
    resets_at: datetime


def rate(samples: Sequence[tuple[float, int]]) -> float | None:
    """Return tweets a second over (seconds, tweets) in the order of time, None while there are too few."""
    if len(samples) < 2:
        return None
    (first_at, first), (last_at, last) = samples[0], samples[-1]
    return (last - first) / (last_at - first_at) if last_at > first_at else None


def tweets_per_s(looks: Sequence[Look]) -> float | None:
    """Return the rate of the last minute; looks are in the order of time."""
    latest = [look for look in looks if look.at >= looks[-1].at - RATE_OVER]
    return rate([(look.at.timestamp(), look.progress.tweets_fetched) for look in latest])


def calls_left(looks: Sequence[Look]) -> int | None:
    """Return how many calls the rest takes if it is like what was done, None while nothing was."""
    if len(looks) < 2:
        return None
    first, last = looks[0], looks[-1]
    done = first.left - last.left
    if done <= 0:
        return None
    return round((last.progress.calls - first.progress.calls) * last.left / done)


def calls_per_s(looks: Sequence[Look]) -> float | None:
    """Return the highest rate between two looks, which is that without waiting; None while no call was seen."""
    rates = [
        (after.progress.calls - before.progress.calls) / (after.at - before.at).total_seconds()
        for before, after in pairwise(looks)
        if after.at > before.at
    ]
    return max((each for each in rates if each > 0), default=None)


def budgets(windows: Iterable[WindowState], *, share: float = 1.0) -> list[Budget]:
    """Return what usable tokens may send; those are left out whose limits X has not told yet, or told long ago.

    Of each window only the `share` counts that is this run's.
    """
    return [
        Budget(
            max(0, each.remaining - round(each.limit * (1 - share))), max(1, round(each.limit * share)), each.reset_at
        )
        for each in windows
        if each.usable and each.limit and each.remaining is not None and each.reset_at and each.reset_at > each.now
    ]


def expected_end(calls: int, per_s: float, budget: Sequence[Budget], now: datetime) -> datetime:
    """Return when so many calls are sent, at this rate and within these budgets; without any, by the rate alone."""
    unsent = calls - sum(each.left for each in budget)
    begins_at = now
    resets = [(each.resets_at, each.limit) for each in budget]
    heapq.heapify(resets)
    last_part = calls
    while resets and unsent > 0:
        begins_at, limit = resets[0]
        heapq.heapreplace(resets, (begins_at + WINDOW, limit))
        last_part = min(unsent, limit)
        unsent -= limit
    return max(begins_at + timedelta(seconds=last_part / per_s), now + timedelta(seconds=calls / per_s))


def describe_progress(looks: Sequence[Look], budget: Sequence[Budget]) -> str:
    """Say in one line how far a run is, how fast, when it is expected to end, and what it waits for."""
    return " | ".join(progress_parts(looks, budget))


def progress_parts(
    looks: Sequence[Look],
    budget: Sequence[Budget],
    *,
    at: Callable[[datetime, datetime], str] | None = None,
) -> list[str]:
    """Return the parts of such a line, what is asked for most often first; `at` words an instant, given now."""
    at = at or clock_time
    last = looks[-1]
    progress = last.progress
    parts = [
        f"{progress.accounts_ended:,} of {counted(progress.accounts, 'account')}",
        f"{counted(progress.tweets_fetched, 'tweet')}, {progress.tweets_new:,} new",
    ]
    speed, calls, per_s = tweets_per_s(looks), calls_left(looks), calls_per_s(looks)
    if progress.waiting_for is not None and progress.waiting_until is not None:
        parts.append(describe_wait(progress.waiting_for, at(progress.waiting_until, last.at)))
    if calls is not None and per_s is not None:
        parts.append(f"expected end {at(expected_end(calls, per_s, budget, last.at), last.at)}")
    if speed is not None:
        parts.append(f"{speed:,.0f} tweets/s")
    return [*parts, counted(progress.calls, "call")]


def describe_wait(waiting_for: str, until: str) -> str:
    """Return what a run waits for, in words."""
    if waiting_for == CONFIRMATION:
        return f"waiting until {until} to request the ends of searches again, which confirms them"
    if waiting_for.startswith(NO_ANSWER):
        return waiting_for
    if waiting_for.startswith(REFUSED):
        return f"X refuses calls of {waiting_for.removeprefix(REFUSED)}, nothing is sent until {until}"
    return f"waiting for budget for {waiting_for} until {until}"


def clock_time(instant: datetime, now: datetime) -> str:
    """Return an instant to the minute, with its date unless that is today."""
    told, today = instant.astimezone(UTC), now.astimezone(UTC).date()
    return f"{told:%H:%M} UTC" if told.date() == today else f"{told:%Y-%m-%d %H:%M} UTC"
