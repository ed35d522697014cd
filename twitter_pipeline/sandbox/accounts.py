"""The made-up accounts: what a test may say about one, and what follows from the seed and the name for the rest."""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from twitter_pipeline.sandbox.cadence import Cadence, between, endless
from twitter_pipeline.sandbox.dice import seed_of, unit
from twitter_pipeline.sandbox.snowflakes import EPOCH_MS, TAGS, tweet_id_at

Availability = Literal["active", "protected", "suspended", "missing"]
Kind = Literal["original", "reply", "retweet", "quote"]

KINDS: Final[tuple[Kind, ...]] = ("original", "reply", "retweet", "quote")
FRIENDS: Final = tuple(f"friend_{number:02}" for number in range(32))
"""Whom the accounts mention, answer and repeat: names of one length, so that a text's offsets do not depend on whom."""

PREFIXES: Final[Mapping[str, str]] = {
    "protected_": "tweets are for followers only",
    "suspended_": "suspended",
    "missing_": "no such account",
    "quiet_": "has never tweeted",
    "busy_": "tweets twice a minute, so that far more than 3,200 tweets exist",
}

_USERNAME: Final = re.compile(r"[A-Za-z0-9_]{1,15}\Z")

_SETTLED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""Where the past of an account that nobody configured ends and its rate begins: fixed, so that restarts agree."""

_FRIENDS_SINCE: Final = datetime(2010, 12, 1, tzinfo=UTC).timestamp()
_DAY_S: Final = 86_400.0
_LETTERS: Final = string.digits + string.ascii_lowercase + "_"
_LONGEST_IN_ID: Final = 11
_NAMES_IN_ID: Final = sum(len(_LETTERS) ** length for length in range(1, _LONGEST_IN_ID + 1))
_ID_SPACE: Final = 1 << 63


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    """What may be said about an account; None leaves it to the seed."""

    tweets: int | None = None
    user_id: int | None = None
    availability: Availability | None = None
    rename_to: str | None = None
    renamed_at: float | None = None
    tweets_per_day: float | None = None
    created_at: float | None = None
    first_tweet_at: float | None = None
    last_tweet_at: float | None = None
    kinds: Mapping[Kind, float] | None = None


@dataclass(frozen=True, slots=True)
class AccountSpec(_Wishes):
    """An account as a test or a demo wants it; instants are seconds since 1970, as the world's clock gives them.

    `tweets` is the exact number at the world's start. With it and no `tweets_per_day` the account is silent from then
    on, so that nothing appears in the middle of a test. `kinds` are weights by kind.
    """

    username: str


@dataclass(frozen=True, slots=True)
class Naming:
    """The name an account has from an instant on."""

    since: float
    username: str


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """One account; `key` is the lowercase name from which everything not configured is derived."""

    key: str
    user_id: int
    seed: int
    tag: int
    created_at: float
    availability: Availability
    past: Cadence
    live: Cadence
    kind_limits: tuple[int, int, int]
    """Upper bounds in 1024ths of original, reply and retweet; the rest are quotes."""
    namings: tuple[Naming, ...]

    def username_at(self, at: float) -> str:
        """Give the name the account has at an instant."""
        if len(self.namings) == 1:
            return self.namings[0].username
        return next(naming.username for naming in reversed(self.namings) if naming.since <= at)

    def count_until(self, now_ms: int) -> int:
        """Count the tweets the account has written by itself up to `now_ms`."""
        past = self.past.count_until(now_ms)
        return past + self.live.count_until(now_ms) if past == self.past.count else past

    def created_ms(self, number: int) -> int:
        """Give the millisecond of the account's tweet `number`, 0 being its oldest."""
        past = self.past.count
        return self.past.at(number) if number < past else self.live.at(number - past)

    def tweet_id(self, number: int) -> int:
        """Give the id of the account's tweet `number`."""
        return tweet_id_at(self.created_ms(number), self.tag)


def account_of(seed: int, spec: AccountSpec, *, started_at: float) -> Account:
    """Make the account that a specification and the seed describe."""
    if not _USERNAME.match(spec.username):
        raise ValueError(f"{spec.username!r} is no username: 1 to 15 letters, digits or underscores")
    key = spec.username.lower()
    own = seed_of(seed, "account", key)
    tag = own % TAGS
    settled_at = started_at if spec.tweets is not None or spec.tweets_per_day is not None else _SETTLED_AT
    count = _count(own, key) if spec.tweets is None else spec.tweets
    created_at, first_at, last_at = _life(own, key, spec, settled_at)
    return Account(
        key=key,
        user_id=spec.user_id if spec.user_id is not None else user_id_of(seed, key),
        seed=own,
        tag=tag,
        created_at=created_at,
        availability=spec.availability or _availability(key),
        past=between(own, _ms(first_at), _ms(last_at), count),
        live=endless(own ^ 0x5EED, _ms(settled_at) + 1, _per_day(own, key, spec)),
        kind_limits=_kind_limits(own, key, spec.kinds),
        namings=_namings(spec),
    )


def user_id_of(seed: int, key: str) -> int:
    """Give the id of the account of that name.

    Names of up to eleven characters are numbered within 63 bits, so that the id leads back to the name and a new server
    knows the accounts of before. One id in fifty is such a name's; longer names are hashed into the others.
    """
    if len(key) <= _LONGEST_IN_ID:
        number = 0
        for letter in key:
            number = number * len(_LETTERS) + _LETTERS.index(letter) + 1
        number -= 1
    else:
        number = _NAMES_IN_ID + seed_of(seed, "id", key) % (_ID_SPACE - _NAMES_IN_ID)
    return (number * _stride(seed) + seed_of(seed, "offset")) % _ID_SPACE


def key_of(seed: int, user_id: int) -> str | None:
    """Give the name that an id was made from, or None when it was too long to be in there or there is none."""
    number = (user_id - seed_of(seed, "offset")) * pow(_stride(seed), -1, _ID_SPACE) % _ID_SPACE
    if number >= _NAMES_IN_ID:
        return None
    number += 1
    letters = ""
    while number:
        number, letter = divmod(number - 1, len(_LETTERS))
        letters = _LETTERS[letter] + letters
    return letters


def _stride(seed: int) -> int:
    """Give the odd number by which names are scattered over the ids."""
    return seed_of(seed, "stride") >> 1 | 1


def _availability(key: str) -> Availability:
    for availability in ("protected", "suspended", "missing"):
        if key.startswith(f"{availability}_"):
            return availability
    return "active"


def _count(own: int, key: str) -> int:
    """Draw from a heavy tail: half the accounts stay below 200 tweets, every twentieth has more than 3,200."""
    if key.startswith("quiet_"):
        return 0
    if key in FRIENDS:
        return 1_000
    return int(20 * 300 ** (unit(own, 1) ** 1.3))


def _per_day(own: int, key: str, spec: AccountSpec) -> float:
    if spec.tweets_per_day is not None:
        return spec.tweets_per_day
    if spec.tweets is not None or key.startswith("quiet_"):
        return 0.0
    if key.startswith("busy_"):
        return 2_880.0
    if key in FRIENDS:
        return 0.2
    return 0.1 * 80 ** unit(own, 2)


def _life(own: int, key: str, spec: AccountSpec, settled_at: float) -> tuple[float, float, float]:
    """Choose when the account was made and when its past begins and ends."""
    last_at = min(spec.last_tweet_at if spec.last_tweet_at is not None else settled_at, settled_at)
    oldest = _FRIENDS_SINCE if key in FRIENDS else last_at - (0.5 + 9 * unit(own, 3)) * 365 * _DAY_S
    first_at = spec.first_tweet_at if spec.first_tweet_at is not None else max(spec.created_at or 0.0, oldest)
    if first_at > last_at:
        raise ValueError(f"@{spec.username}: the first tweet would come after the last")
    created_at = spec.created_at if spec.created_at is not None else first_at - 30 * _DAY_S * unit(own, 4)
    if spec.first_tweet_at is None and first_at * 1000 < EPOCH_MS:
        first_at = max(first_at, EPOCH_MS / 1000 + 1) if last_at * 1000 > EPOCH_MS else first_at
    return created_at, first_at, last_at


def _kind_limits(own: int, key: str, kinds: Mapping[Kind, float] | None) -> tuple[int, int, int]:
    weights = kinds or _habits(own, key)
    total = sum(weights.values())
    shares = [weights.get(kind, 0.0) / total for kind in KINDS]
    original, reply, retweet = (round(1024 * sum(shares[: upto + 1])) for upto in range(3))
    return original, reply, retweet


def _habits(own: int, key: str) -> Mapping[Kind, float]:
    if key in FRIENDS:
        return {"original": 1.0}
    return {
        "original": 0.5 + 0.5 * unit(own, 5),
        "reply": 0.4 * unit(own, 6),
        "retweet": 0.3 * unit(own, 7),
        "quote": 0.1 * unit(own, 8),
    }


def _namings(spec: AccountSpec) -> tuple[Naming, ...]:
    first = Naming(float("-inf"), spec.username)
    if spec.rename_to is None:
        return (first,)
    return first, Naming(spec.renamed_at if spec.renamed_at is not None else float("-inf"), spec.rename_to)


def _ms(at: float) -> int:
    return int(at * 1000)
