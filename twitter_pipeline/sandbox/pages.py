"""Page tokens: a position in a list of tweets, which new tweets do not move."""

from dataclasses import dataclass, replace
from typing import Final, Literal
from zlib import crc32

from twitter_pipeline.sandbox.snowflakes import MAX_ID

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_LONGEST: Final = 48
_CHECK_BITS: Final = 24
_ID_BITS: Final = 63
_TURN_BITS: Final = 32
_DIRECTIONS: Final = ("older", "newer")

Direction = Literal["older", "newer"]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page begins: with the first tweet that is older, or newer, than `tweet_id`.

    Faults need more: `turn` distinguishes tokens for the same place. `swapped_with` is the tweet that the page before
    has shown in place of `tweet_id`. `back_to` is the place to which the page leads back when tokens alternate.
    """

    direction: Direction
    tweet_id: int
    turn: int = 0
    swapped_with: int = 0
    back_to: int = 0

    def again(self) -> "Position":
        """Return the same place for another token: X never gives out the one that it was asked with."""
        return replace(self, turn=(self.turn + 1) % (1 << _TURN_BITS))


TOP: Final = Position("older", MAX_ID)


def token_of(position: Position, listing: str) -> str:
    """Write a position as a page token; `listing` is what is being paged, and only there the token is good."""
    number = _joined(
        (_DIRECTIONS.index(position.direction), 1),
        (position.tweet_id, _ID_BITS),
        (position.turn, _TURN_BITS),
        (position.swapped_with, _ID_BITS),
        (position.back_to, _ID_BITS),
    )
    return _base36(number << _CHECK_BITS | _check(number, listing))


def position_in(token: str, listing: str) -> Position | None:
    """Read a page token, or give None when it was not made for this listing."""
    if not token or len(token) > _LONGEST or any(digit not in _DIGITS for digit in token):
        return None
    number, check = divmod(int(token, 36), 1 << _CHECK_BITS)
    if check != _check(number, listing):
        return None
    direction, tweet_id, turn, swapped_with, back_to = _split(number, 1, _ID_BITS, _TURN_BITS, _ID_BITS, _ID_BITS)
    return Position("newer" if direction else "older", tweet_id, turn, swapped_with, back_to)


def _joined(*parts: tuple[int, int]) -> int:
    """Write numbers side by side, each with its width in bits, the lowest first."""
    number = shift = 0
    for part, bits in parts:
        number |= part << shift
        shift += bits
    return number


def _split(number: int, *widths: int) -> list[int]:
    parts: list[int] = []
    for bits in widths:
        parts.append(number & ((1 << bits) - 1))
        number >>= bits
    return parts


def _check(number: int, listing: str) -> int:
    return crc32(f"{listing}\x1f{number}".encode()) & ((1 << _CHECK_BITS) - 1)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
