"""When an account tweets: instants that can be computed from their number, and numbers from an instant."""

from dataclasses import dataclass
from typing import Final

from twitter_pipeline.sandbox.dice import throw

_JITTER_BITS: Final = 16
_JITTER_SHARE: Final = 0.95 / (1 << _JITTER_BITS)
SHORTEST_STEP_MS: Final = 40.0
"""Two neighbours are at least 5 % of a step apart, and no two tweets of an account may share a millisecond."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """`count` instants from `first_ms` on, one in every step of `step_ms`, somewhere in its first 95 %.

    One instant a step keeps both directions free of search and of storage: a server may hold ten thousand accounts
    with a million tweets each.
    """

    seed: int
    first_ms: int
    step_ms: float
    count: int

    def __post_init__(self) -> None:
        if self.count > 1 and self.step_ms < SHORTEST_STEP_MS:
            raise ValueError(f"tweets {self.step_ms:.1f} ms apart: the least is {SHORTEST_STEP_MS:.0f} ms")

    def at(self, number: int) -> int:
        """Give the millisecond of instant `number`, which is 0 for the first."""
        jitter = (throw(self.seed, number) >> (64 - _JITTER_BITS)) * _JITTER_SHARE
        return self.first_ms + int((number + jitter) * self.step_ms)

    def count_until(self, now_ms: int) -> int:
        """Count the instants up to and including `now_ms`."""
        if not self.count or now_ms < self.first_ms:
            return 0
        number = int((now_ms - self.first_ms) / self.step_ms)
        if number >= self.count:
            return self.count
        return number + (self.at(number) <= now_ms)


def between(seed: int, first_ms: int, last_ms: int, count: int) -> Cadence:
    """Spread `count` instants from `first_ms` to before `last_ms`."""
    return Cadence(seed, first_ms, max((last_ms - first_ms) / count, 1.0) if count else 1.0, count)


def endless(seed: int, first_ms: int, per_day: float) -> Cadence:
    """Go on at `per_day` instants a day, or not at all when that is 0."""
    if per_day <= 0:
        return Cadence(seed, first_ms, 1.0, 0)
    return Cadence(seed, first_ms, 86_400_000 / per_day, 1 << 40)
