"""A bearer token that cannot be printed by accident."""

from typing import NoReturn


class BearerToken:
    """A bearer token; `repr`, `str` and f-strings show a mask, and it refuses to be pickled.

    Read the value with `reveal()` at the one place where the Authorization header is made.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "BearerToken('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BearerToken) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a bearer token is not pickled: each process reads it from its own environment")
