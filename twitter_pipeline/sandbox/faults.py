"""What goes wrong on demand. A fault changes an answer, never the truth."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Literal, get_args

from twitter_pipeline.sandbox.dice import seed_of, throw, unit

FaultKind = Literal[
    "500",
    "502",
    "503",
    "504",
    "html_5xx",
    "html_200",
    "reset",
    "cut",
    "timeout",
    "bare_429",
    "short_page",
    "empty_page",
    "empty_answer",
    "duplicates",
    "out_of_order",
    "no_rate_headers",
]
"""`empty_page` has a next_token, `empty_answer` claims that there is nothing at all."""

KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)

Script = Callable[[str, int], FaultKind | None]
"""From the endpoint and the number of the call to what goes wrong with it; 0 is the first that no limit refused."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Which calls go wrong: by `rates` (a probability for each kind), or as `script` says, which goes first.

    A script is a function of the endpoint and the number of the call, or a list with one entry a call. `latency_s` is
    how long each answer takes, one number or a range. Of the newest tweets the share `late_rate` becomes visible only
    `late_s` after it was written. `endpoints` limits everything but late tweets to these endpoints.
    """

    seed: int = 1
    rates: Mapping[FaultKind, float] = field(default_factory=dict[FaultKind, float])
    script: Script | Sequence[FaultKind | None] | None = None
    latency_s: float | tuple[float, float] = 0.0
    late_rate: float = 0.0
    late_s: float = 0.0
    endpoints: frozenset[str] | None = None
    _numbers: Iterator[int] = field(default_factory=count, repr=False, compare=False)

    def next_fault(self, endpoint: str) -> tuple[FaultKind | None, float]:
        """Decide what happens to the next call, and how many seconds it takes."""
        if self.endpoints is not None and endpoint not in self.endpoints:
            return None, 0.0
        number = next(self._numbers)
        return self._scripted(endpoint, number) or self._drawn(number), self._latency(number)

    def is_late(self, tweet_id: int) -> bool:
        """Say whether a tweet is one of those that become visible late."""
        return unit(seed_of(self.seed, "late"), tweet_id) < self.late_rate

    def _scripted(self, endpoint: str, number: int) -> FaultKind | None:
        if self.script is None:
            return None
        if callable(self.script):
            return self.script(endpoint, number)
        return self.script[number] if number < len(self.script) else None

    def _drawn(self, number: int) -> FaultKind | None:
        draw = unit(self.seed, number)
        for kind, rate in self.rates.items():
            if draw < rate:
                return kind
            draw -= rate
        return None

    def _latency(self, number: int) -> float:
        if not isinstance(self.latency_s, tuple):
            return self.latency_s
        low, high = self.latency_s
        return low + (high - low) * unit(self.seed ^ 1, number)

    def share(self, number: int, whole: int) -> int:
        """Choose how much of something is left, from 1 to one less than the whole."""
        return 1 + throw(self.seed ^ 2, number) % max(1, whole - 1)
