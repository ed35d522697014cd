"""Read JSON of any shape without surprises: each reader gives the wanted type or nothing, and never raises.

X's answers are not always of the type that its specification states: ids and counts come as numbers or as strings,
fields are left out or null. What is read here goes into PostgreSQL, which sets the bounds: integers fit a bigint,
text holds neither NUL nor unpaired surrogates.
"""

import json
import re
from datetime import UTC, datetime
from typing import NoReturn, TypeAlias

import orjson

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]

BIGINT_MAX = 2**63 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")


def decode_json(body: bytes) -> JsonValue:
    """Decode a JSON text; raises ValueError, and nothing else, when it is none.

    orjson refuses the escape of an unpaired surrogate, which text written by people may hold; the standard library
    takes it, so that one such tweet does not cost a page.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _decode_leniently(body)


def _decode_leniently(body: bytes) -> JsonValue:
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def encode_json(value: JsonObject) -> str:
    """Encode for a PostgreSQL `json` column; raises ValueError when a value has no JSON form.

    NUL and unpaired surrogates stay escapes (`\\u0000`, `\\ud83d`), which that type stores as they are.
    """
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return _encode_leniently(value)


def _encode_leniently(value: JsonObject) -> str:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def as_object(value: JsonValue) -> JsonObject:
    """Return the object, or an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: JsonValue) -> list[JsonValue]:
    """Return the list, or an empty one."""
    return value if isinstance(value, list) else []


def as_int(value: JsonValue) -> int | None:
    """Return a whole number from 0 to the largest bigint, given as a number or as its decimal digits."""
    if isinstance(value, str):
        # The length is tested first: int() of endless digits is slow, and raises from 4,300 on.
        if len(value) > 19 or not (value.isascii() and value.isdigit()):
            return None
        value = int(value)
    elif type(value) is not int:  # bool is a subclass of int, and no number
        return None
    return value if 0 <= value <= BIGINT_MAX else None


def as_id(value: JsonValue) -> int | None:
    """Return an id; 0 is none."""
    return as_int(value) or None


def as_bool(value: JsonValue) -> bool | None:
    """Return a boolean; other types, 0 and 1 among them, are none."""
    return value if isinstance(value, bool) else None


def as_text(value: JsonValue) -> str | None:
    """Return a string, or the digits of a number, fit for a text column."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return str(value)
    except ValueError:  # an integer of more than 4,300 digits
        return None


def clean_text(text: str) -> str:
    """Put U+FFFD in the place of every NUL and every unpaired surrogate, which PostgreSQL's text refuses."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


def as_instant(value: JsonValue) -> datetime | None:
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
