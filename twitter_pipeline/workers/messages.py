"""What a run's process and its workers tell each other, one JSON object a line.

A worker reads accounts on its stdin, each to be fetched at once, and stops at the end of it. On its stdout it writes
the messages of this module. Nothing here is stored or outlives the run, so both sides are always of the same version.
"""

from datetime import datetime
from typing import TypeAlias

from msgspec import Struct
from msgspec.json import Decoder, Encoder

from twitter_pipeline.accounts import Account
from twitter_pipeline.tokens import Waiting
from twitter_pipeline.words import AccountOutcome


class Ended(Struct, frozen=True, tag=True):
    """An account has come to its end, which is recorded."""

    username: str
    outcome: AccountOutcome


class NoToken(Struct, frozen=True, tag=True):
    """An account has come to its end because no token can go on."""

    username: str
    why: str


class NoMoney(Struct, frozen=True, tag=True):
    """An account has come to its end because a budget is used up; `until` is when it begins anew, None for a run's."""

    username: str
    why: str
    until: datetime | None


class Waits(Struct, frozen=True, tag=True):
    """What the worker waits for has changed; None: it works."""

    waiting: Waiting | None


class Logged(Struct, frozen=True, tag=True):
    """A line of the log. `template` is the text before its values are filled in."""

    logger: str
    level: int
    template: str
    text: str
    traceback: str | None


class Broke(Struct, frozen=True, tag=True):
    """The worker cannot go on at all."""

    why: str


Message: TypeAlias = Ended | NoToken | NoMoney | Waits | Logged | Broke

_encoder = Encoder()
_account_decoder = Decoder(Account)
_message_decoder: Decoder[Message] = Decoder(Message)


def encode_line(said: Account | Message) -> bytes:
    """Encode what one side says as a line."""
    return _encoder.encode(said) + b"\n"


def decode_account(line: bytes) -> Account:
    """Decode a line that a worker reads."""
    return _account_decoder.decode(line)


def decode_message(line: bytes) -> Message:
    """Decode a line that a worker has written."""
    return _message_decoder.decode(line)
