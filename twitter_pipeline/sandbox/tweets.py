"""One tweet of the world and the values that fill its blueprint."""

from datetime import date
from functools import lru_cache
from typing import Final, NamedTuple

from twitter_pipeline.sandbox.accounts import Account
from twitter_pipeline.sandbox.blueprints import Blueprint

_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400
_FIRST_DAY: Final = date(1970, 1, 1).toordinal()
_SHOWN_NUMBERS: Final = 1_000_000


class Tweet(NamedTuple):
    """A tweet, filled in by nothing but its place in the world (a tuple, because thousands are made a second)."""

    id: int
    created_ms: int
    author: Account
    number: int
    chance: int
    blueprint: Blueprint
    target: "Tweet | None" = None
    """The tweet it repeats, quotes or answers, as it was when that happened."""
    target_id: int | None = None
    lost: bool = False
    """There is no tweet with `target_id` any more."""


Values = tuple[bytes | int, ...]


def values_of(tweet: Tweet, now_ms: int) -> Values:
    """Give what stands in the slots of a tweet, in the order of `SLOTS`."""
    second = tweet.created_ms // 1000
    target, author, design = tweet.target, tweet.author, tweet.blueprint
    other = target.author if target else author
    target_id = tweet.target_id or tweet.id
    # Most tweets are seen a little and few by very many: a shift by up to seven bits makes the tail.
    chance = target.chance if target and design.reference == "retweeted" else tweet.chance
    impressions = (chance & 0x3FFF) << (chance >> 14 & 7)
    likes = impressions * (chance >> 17 & 31) >> 9
    retweets = likes >> 3
    return (
        timestamp(second),
        author.username_at(now_ms / 1000).encode() if design.media else b"",
        timestamp(second + _HOUR_S),
        timestamp(second + _DAY_S) if design.poll else b"",
        b"closed" if now_ms >= (second + _DAY_S) * 1000 else b"open",
        other.username_at(now_ms / 1000).encode() if design.mentions_friend else b"",
        tweet.id,
        author.user_id,
        max(1, tweet.id - (30_000 << 22)),
        target_id if design.reference == "replied_to" else tweet.id,
        target_id,
        other.user_id,
        tweet.number % _SHOWN_NUMBERS,
        target.number % _SHOWN_NUMBERS if target else 0,
        retweets,
        likes >> 4,
        likes,
        retweets >> 3,
        likes >> 5,
        impressions,
        likes + retweets,
    )


def timestamp(second: int) -> bytes:
    """Give an instant as the API writes it."""
    day, rest = divmod(second, _DAY_S)
    return b"%bT%02d:%02d:%02d.000Z" % (_date(day), rest // 3600, rest // 60 % 60, rest % 60)


@lru_cache(maxsize=16_384)
def _date(day: int) -> bytes:
    return date.fromordinal(_FIRST_DAY + day).isoformat().encode()
