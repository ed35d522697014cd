"""Page tokens: a position in a list of tweets, which new tweets do not move."""

from dataclasses import dataclass
from typing import Final, Literal
from zlib import crc32

from twitter_pipeline.sandbox.snowflakes import MAX_ID

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_CHECK_BITS: Final = 24
_DIRECTIONS: Final = ("older", "newer")

Direction = Literal["older", "newer"]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page begins: with the first tweet that is older, or newer, than `tweet_id`."""

    direction: Direction
    tweet_id: int


TOP: Final = Position("older", MAX_ID)


def token_of(position: Position, listing: str) -> str:
    """Write a position as a page token; `listing` is what is being paged, and only there the token is good."""
    number = position.tweet_id << 1 | _DIRECTIONS.index(position.direction)
    return _base36(number << _CHECK_BITS | _check(number, listing))


def position_in(token: str, listing: str) -> Position | None:
    """Read a page token, or give None when it was not made for this listing."""
    if not token or len(token) > 20 or any(digit not in _DIGITS for digit in token):
        return None
    number, check = divmod(int(token, 36), 1 << _CHECK_BITS)
    if check != _check(number, listing):
        return None
    return Position("newer" if number & 1 else "older", number >> 1)


def _check(number: int, listing: str) -> int:
    return crc32(f"{listing}\x1f{number}".encode()) & ((1 << _CHECK_BITS) - 1)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
