"""Read JSON of any shape without surprises: each reader gives the wanted type or nothing, and never raises.

X's answers are not always of the type that its specification states: ids and counts come as numbers or as strings,
fields are left out or null. What is read here goes into PostgreSQL, which sets the bounds: integers fit a bigint,
text holds neither NUL nor unpaired surrogates.
"""

import re
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from msgspec import DecodeError, Raw
from msgspec.json import Decoder

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]

T = TypeVar("T")

BIGINT_MAX = 2**63 - 1

MOST_TOKENS = 6_000_000
"""Strings, brackets and commas of a text; decoded, each may take 80 bytes.

A tweet with sixty context annotations, twenty links and forty mentions has 3,800: 500 of them, each with another in the
includes, have 3.8 million.
"""

_MOST_REPAIRS = 3_000_000
"""Backslashes and control characters of a text that is repaired, which may take 130 bytes each: more than a hundred
notes have, all of whose letters are escaped."""

_MOST_SPLIT = 1_000_000
"""Tokens of a text that is cut up, which takes a microsecond each and is done several times."""

_ANYTHING: Decoder[Any] = Decoder()
_NAME = Decoder(str)

_LEVELS = 4
"""So deep in a body a member or an item that is no JSON is looked for: deep enough for each error of a list."""


def decode_json(body: bytes, *, levels: int = _LEVELS) -> JsonValue:
    """Decode a JSON text; raises ValueError, and nothing else, when it is none.

    A member or an item within it that is none, or a number that has no room anywhere, is None and costs no other.
    """
    check_tokens(body)
    try:
        return decode_body(_ANYTHING, body)
    except ValueError:
        if not levels:
            raise
        parts = split(body)
    if isinstance(parts, dict):
        return {name: decode_or_none(part, levels=levels - 1) for name, part in parts.items()}
    return [decode_or_none(part, levels=levels - 1) for part in parts]


def decode_or_none(part: bytes, *, levels: int = _LEVELS) -> JsonValue:
    """Decode a JSON text; None where it is none."""
    try:
        return decode_json(part, levels=levels)
    except ValueError:
        return None


def check_tokens(text: bytes) -> None:
    """Raise ValueError for a JSON text that would take a multiple of its own length when it is decoded."""
    if len(text) > MOST_TOKENS and any(True for _ in islice(_TOKEN.finditer(text), MOST_TOKENS, None)):
        raise ValueError(f"it has more than {MOST_TOKENS:,} strings, brackets and commas")


def decode_body(decoder: Decoder[T], body: bytes) -> T:
    """Decode a body; raises ValueError, and nothing else, when it is no JSON or not of the type of the decoder.

    What JSON forbids in the text of a string is taken all the same, as is a byte order mark.
    """
    try:
        try:
            body.decode()  # msgspec does not look at the bytes of what it skips
            return decoder.decode(body)
        except (DecodeError, UnicodeDecodeError):
            return decoder.decode(_repaired(body))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


# Text written by people may hold half a surrogate pair, such as the escape \ud83d alone, and one such tweet must not
# cost a page; but msgspec takes no such escape, not even in what it skips. So in the rare body that has one, the mark
# takes the place of its backslash and u: a noncharacter, which Unicode keeps out of all text that is interchanged.
# Behind the mark the four digits are plain text. `clean_text` puts U+FFFD in the place of all five characters,
# `json_text` makes them the escape again.
_MARK = "\ufdd0"
_MARKED = re.compile(f"{_MARK}([dD][89a-fA-F][0-9a-fA-F]{{2}})")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u(?P<unpaired>[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)

# The end may be cut off: looked for from each quotation mark in it, that would take time for ever.
_STRING = rb'"(?:[^"\\]++|\\.)*+"?'
_STRING_OR_CONTROL = re.compile(rb"%b(?=(?P<colon>[ \t\r\n]*+:)?)|[\x00-\x08\x0b\x0c\x0e-\x1f]" % _STRING, re.DOTALL)
_CONTROLS = bytes(range(0x20))
_CONTROL = re.compile(rb"[\x00-\x1f]")
_NO_UTF_8 = re.compile("[\udc80-\udcff]")


def _repaired(body: bytes) -> bytes:
    """Return a body without what JSON forbids in strings, and between them.

    A control character becomes its escape, half a surrogate pair is marked, and U+FFFD takes the place of each byte
    that is no UTF-8. Only in the name of a member such a byte stays: what it names is not known.
    """
    if body.count(b"\\") + len(body) - len(body.translate(None, _CONTROLS)) > _MOST_REPAIRS:
        raise ValueError(f"to be repaired it has more than {_MOST_REPAIRS:,} backslashes and control characters")
    return _STRING_OR_CONTROL.sub(_repaired_token, body.removeprefix(b"\xef\xbb\xbf"))


def _repaired_token(token: re.Match[bytes]) -> bytes:
    text = token[0]
    if not text.startswith(b'"'):
        return b" "
    if not token["colon"] and not text.isascii():
        text = _NO_UTF_8.sub("\ufffd", text.decode(errors="surrogateescape")).encode()
    text = _CONTROL.sub(lambda control: b"\\u%04x" % ord(control[0]), text)
    # Every escape is matched and most are left: a pair is seen as one, and \\ud83d as an escaped backslash.
    return _ESCAPE.sub(lambda escape: _MARK.encode() + escape["unpaired"] if escape["unpaired"] else escape[0], text)


_TOKEN = re.compile(rb"%b|[\[\]{},]" % _STRING, re.DOTALL)
_MEMBER = re.compile(rb"(%b)\s*+:\s*+(.*)" % _STRING, re.DOTALL)


def split(body: bytes) -> list[bytes] | dict[str, bytes]:
    """Cut an array into its items or an object into its members, whatever these are.

    Raises ValueError when it is neither or does not end with the body, as one that was cut off.
    """
    text = _repaired(body).strip()
    parts, begin, depth = list[bytes](), 1, 0
    for count, token in enumerate(_TOKEN.finditer(text)):
        if count > _MOST_SPLIT:
            raise ValueError(f"it is damaged or nested too deeply, and too long to be cut up: {len(body):,} bytes")
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        if depth == 0 or (depth == 1 and token[0] == b","):
            parts.append(text[begin : token.start()].strip())
            begin = token.end()
        if depth <= 0:
            break
    if depth or begin != len(text) or text[:1] not in (b"[", b"{"):
        raise ValueError("it is cut off, or neither an array nor an object")
    if text.startswith(b"["):
        return [] if parts == [b""] else parts
    return dict(filter(None, map(_member_of, parts)))


def _member_of(part: bytes) -> tuple[str, bytes] | None:
    member = _MEMBER.fullmatch(part)
    try:
        return None if member is None else (decode_body(_NAME, member[1]), member[2])
    except ValueError:
        return None


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
        # RFC 3339 allows t and z.
        instant = datetime.fromisoformat(value.upper())
        if instant.tzinfo is UTC:
            return instant
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
