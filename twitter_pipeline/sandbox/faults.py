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
    "429",
    "401",
    "not_enrolled",
    "empty_object",
    "bare_meta",
    "flat_problem",
    "only_errors",
    "short_page",
    "empty_page",
    "empty_answer",
    "endless_empty",
    "no_next_token",
    "same_page",
    "alternating_tokens",
    "duplicates",
    "out_of_order",
    "swapped",
    "pinned_first",
    "foreign_tweet",
    "unreadable_tweet",
    "thin_tweets",
    "no_rate_headers",
    "past_reset",
    "far_reset",
    "utc_date",
]
"""The kinds up to `not_enrolled` and those from `no_rate_headers` on strike any call, the others only timelines and
searches.

Refusals that are over with the next call: `429` (with the window's headers, and calls left in them), `401`, and
`not_enrolled`, a 403 with the headers of a general limiter.

Headers: `past_reset` and `far_reset` tell a window that ended a minute ago, or ends in ten years; in `utc_date` the
date ends in UTC, as in most recordings.

Bodies with status 200 in place of the answer:

- `empty_object`: `{}`.
- `bare_meta`: `{"meta":{}}`.
- `flat_problem`: a problem that is not inside `errors`.
- `only_errors`: `errors` with an internal error, and nothing else.

No tweets:

- `empty_answer`: a page that claims to be empty and the last.
- `endless_empty`: an empty page whose next_token leads to the same place again. It strikes the end of a walk too.
- `empty_page`: the same, but only where there are tweets.

Page tokens; where several of these strike, the first counts:

- `no_next_token`: there is more, but no next_token.
- `same_page`: the next_token leads to the same page again. It is another token each time.
- `alternating_tokens`: the next page leads back to this one, and this one to the next again, with the same two tokens.
- `swapped`: the last tweet of this page and the first of the next one change places.

Tweets:

- `short_page`: fewer tweets than there is room for.
- `duplicates`: a timeline page begins with the last tweet of the page before.
- `out_of_order`: the newest tweet comes last.
- `pinned_first`: the oldest tweet of the account comes first, whatever the bounds. It is one tweet more than asked for.
- `foreign_tweet`: one tweet more, of an account that was not asked for, between the others.
- `unreadable_tweet`: one tweet has no id but null. It is billed nevertheless.
- `thin_tweets`: the tweets lack note_tweet, public_metrics, media, and the included tweets that they refer to.
"""

KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)

FAILURES: Final[tuple[FaultKind, ...]] = KINDS[: KINDS.index("short_page")]
"""The kinds that leave no answer, or no whole one. A call fails in one way only; the other kinds combine."""


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer as a test wants it on the wire; `headers`, in lower case, replace those of the rate limits."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


Fault = FaultKind | RawAnswer

Script = Callable[[str, int], Fault | None]
"""From the endpoint and the number of the call to what goes wrong with it; 0 is the first that no limit refused."""


@dataclass(frozen=True, slots=True)
class Mishap:
    """What goes wrong with one call: at most one failure, and what else is odd about its answer."""

    kinds: frozenset[FaultKind] = frozenset()
    raw: RawAnswer | None = None

    @property
    def failure(self) -> FaultKind | None:
        """The way in which the call fails, if it does."""
        return next((kind for kind in FAILURES if kind in self.kinds), None)


NO_MISHAP: Final = Mishap()


@dataclass(frozen=True, slots=True)
class Faults:
    """Which calls go wrong: by `rates` (a probability for each kind), or as `script` says, which goes first.

    Each kind is thrown for by itself, on every call; where several failures come up, chance takes one of them. A script
    is a function of the endpoint and the number of the call, or a list with one entry a call. `latency_s` is how long
    each answer takes, one number or a range. Of the newest tweets the share `late_rate` becomes visible only `late_s`
    after it was written. `endpoints` limits everything but late tweets to these endpoints.
    """

    seed: int = 1
    rates: Mapping[FaultKind, float] = field(default_factory=dict[FaultKind, float])
    script: Script | Sequence[Fault | None] | None = None
    latency_s: float | tuple[float, float] = 0.0
    late_rate: float = 0.0
    late_s: float = 0.0
    endpoints: frozenset[str] | None = None
    _numbers: Iterator[int] = field(default_factory=count, repr=False, compare=False)

    def next_mishap(self, endpoint: str) -> tuple[Mishap, float]:
        """Decide what happens to the next call, and how many seconds it takes."""
        if self.endpoints is not None and endpoint not in self.endpoints:
            return NO_MISHAP, 0.0
        number = next(self._numbers)
        return self._scripted(endpoint, number) or self._thrown(number), self._latency(number)

    def is_late(self, tweet_id: int) -> bool:
        """Say whether a tweet is one of those that become visible late."""
        return unit(seed_of(self.seed, "late"), tweet_id) < self.late_rate

    def _scripted(self, endpoint: str, number: int) -> Mishap | None:
        if self.script is None:
            return None
        if callable(self.script):
            fault = self.script(endpoint, number)
        else:
            fault = self.script[number] if number < len(self.script) else None
        if isinstance(fault, RawAnswer):
            return Mishap(raw=fault)
        kinds: set[FaultKind] = {fault} if fault else set()
        return Mishap(frozenset(kinds)) if kinds else None

    def _thrown(self, number: int) -> Mishap:
        if not self.rates:
            return NO_MISHAP
        thrown: set[FaultKind] = {
            kind for kind in KINDS if unit(seed_of(self.seed, kind), number) < self.rates.get(kind, 0.0)
        }
        failures: list[FaultKind] = [kind for kind in FAILURES if kind in thrown]
        if failures:
            thrown.difference_update(failures)
            thrown.add(failures[throw(self.seed ^ 3, number) % len(failures)])
        return Mishap(frozenset(thrown))

    def _latency(self, number: int) -> float:
        if not isinstance(self.latency_s, tuple):
            return self.latency_s
        low, high = self.latency_s
        return low + (high - low) * unit(self.seed ^ 1, number)

    def unreadable(self, ids: Sequence[int]) -> int:
        """Return which tweet of a page is unreadable; the order of the calls does not matter."""
        return min(ids, key=lambda tweet_id: throw(seed_of(self.seed, "unreadable"), tweet_id))

    def share(self, number: int, whole: int) -> int:
        """Choose how much of something is left, from 1 to one less than the whole."""
        return 1 + throw(self.seed ^ 2, number) % max(1, whole - 1)
