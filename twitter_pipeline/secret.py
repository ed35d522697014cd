"""Secrets that cannot be printed by accident."""

from typing import NoReturn


class Secret:
    """A text that nobody may see; `repr`, `str` and f-strings show a mask, and it refuses to be pickled.

    Read the value with `reveal()` at the one place where it is sent.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return f"{type(self).__name__}('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and type(other) is type(self) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: each process reads it from its own environment")


class BearerToken(Secret):
    """A bearer token."""

    __slots__ = ()


class WebhookUrl(Secret):
    """The address that alerts are posted to: whoever knows it can post there."""

    __slots__ = ()


class BrokerUrl(Secret):
    """The address of the broker of workers, which may hold a password."""

    __slots__ = ()


class UiPassword(Secret):
    """The password of the UI."""

    __slots__ = ()
