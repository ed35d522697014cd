"""Read JSON of any shape without surprises: each reader gives the wanted type or nothing, and never raises.

X's answers are not always of the type that its specification states: ids and counts come as numbers or as strings,
fields are left out or null. What is read here goes into PostgreSQL, which sets the bounds: integers fit a bigint,
text holds neither NUL nor unpaired surrogates.
"""

import re
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

from msgspec import DecodeError, Raw
from msgspec.json import Decoder

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]

T = TypeVar("T")

BIGINT_MAX = 2**63 - 1

_ANYTHING: Decoder[Any] = Decoder()


def decode_json(body: bytes) -> JsonValue:
    """Decode a JSON text; raises ValueError, and nothing else, when it is none."""
    return decode_body(_ANYTHING, body)


def decode_body(decoder: Decoder[T], body: bytes) -> T:
    """Decode a body; raises ValueError, and nothing else, when it is no JSON or not of the type of the decoder."""
    try:
        try:
            return decoder.decode(body)
        except DecodeError:
            return decoder.decode(_mark_unpaired_surrogates(body))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


# Text written by people may hold half a surrogate pair, such as the escape \ud83d alone, and one such tweet must not
# cost a page; but msgspec takes no such escape, not even in what it skips. So in the rare body that has one, the mark
# takes the place of its backslash and u: a noncharacter, which Unicode keeps out of all text that is interchanged.
# Behind the mark the four digits are plain text. `clean_text` puts U+FFFD in the place of all five characters,
# `json_text` makes them the escape again.
_MARK = "\ufdd0"
_MARK_BYTES = _MARK.encode()
_MARKED = re.compile(f"{_MARK}([dD][89a-fA-F][0-9a-fA-F]{{2}})")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u(?P<unpaired>[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def _mark_unpaired_surrogates(body: bytes) -> bytes:
    # Every escape is matched and most are left: a pair is seen as one, and \\ud83d as an escaped backslash.
    return _ESCAPE.sub(lambda escape: _MARK_BYTES + escape["unpaired"] if escape["unpaired"] else escape[0], body)


def json_text(raw: Raw) -> str:
    """Return an object's own text, for a PostgreSQL `json` column; raises ValueError when it is no UTF-8.

    NUL and unpaired surrogates stay escapes (`\\u0000`, `\\ud83d`), which that type stores as they are.
    """
    text = str(raw, "utf-8")
    return _MARKED.sub(r"\\u\1", text) if _MARK in text else text


def as_object(value: JsonValue) -> JsonObject:
    """Return the object, or an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: JsonValue) -> list[JsonValue]:
    """Return the list, or an empty one."""
    return value if isinstance(value, list) else []


def as_int(value: object) -> int | None:
    """Return a whole number from 0 to the largest bigint, given as a number or as its decimal digits."""
    if isinstance(value, str):
        # The length is tested first: int() of endless digits is slow, and raises from 4,300 on.
        if len(value) > 19 or not (value.isascii() and value.isdigit()):
            return None
        value = int(value)
    elif type(value) is not int:  # bool is a subclass of int, and no number
        return None
    return value if 0 <= value <= BIGINT_MAX else None


def as_bool(value: object) -> bool | None:
    """Return a boolean; other types, 0 and 1 among them, are none."""
    return value if isinstance(value, bool) else None


def as_text(value: object) -> str | None:
    """Return a string, or the digits of a number, fit for a text column."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return str(value)


def clean_text(text: str) -> str:
    """Put U+FFFD in the place of every NUL and every unpaired surrogate, which PostgreSQL's text refuses."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    return _MARKED.sub("\ufffd", text) if _MARK in text else text


def as_instant(value: object) -> datetime | None:
    """Return an ISO 8601 instant in UTC; one without an offset is taken for UTC."""
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
        if instant.tzinfo is UTC:
            return instant
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
