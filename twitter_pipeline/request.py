"""The JSON request of a person, as values, or every mistake in it."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import cast

import orjson

from twitter_pipeline.errors import InvalidRequest, Mistake
from twitter_pipeline.months import Months
from twitter_pipeline.words import Source

USERNAME = re.compile(r"[A-Za-z0-9_]{1,15}")
_LIMIT = re.compile(r"limit:([0-9]{1,9})")
_NOT_PLAIN = re.compile(r"[^ -~]")
_FIELDS = ("username", "track_after", "fetch_mode")

MOST_ENTRIES = 100_000
MOST_BYTES = 16 * 2**20
"""Of a request as JSON text, in which an entry takes some 80 bytes."""

EXAMPLE = [
    {"username": "nasa", "track_after": False, "fetch_mode": "limit:50"},
    {"username": "esa", "track_after": False, "fetch_mode": "limit:20"},
]
"""A request that works as it is, against X (for some 40 cents) and against the sandbox; the Launchpad opens on it."""


@dataclass(frozen=True, slots=True)
class FetchMode:
    """`full`: everything the API gives. `limit:N`: the newest N. `new`: what was written since the last fetch.

    Two that a request cannot ask for: `sweep:DATE`, the tweets of a UTC day, read again; `months:FIRST..LAST`, what is
    missing of these months, from a source where one is given.
    """

    limit: int | None = None
    only_new: bool = False
    swept_day: date | None = None
    months: Months | None = None
    source: Source = Source.AUTO

    def __str__(self) -> str:
        if self.months is not None:
            return f"months:{self.months}" + ("" if self.source is Source.AUTO else f" by {self.source}")
        if self.swept_day is not None:
            return f"sweep:{self.swept_day}"
        if self.only_new:
            return "new"
        return "full" if self.limit is None else f"limit:{self.limit}"

    def wider(self, other: "FetchMode") -> "FetchMode":
        """Return the mode that fetches more."""
        if self.only_new or other.only_new:
            return other if self.only_new else self
        if self.limit is None or other.limit is None:
            return FULL
        return FetchMode(max(self.limit, other.limit))


FULL = FetchMode()
NEW = FetchMode(only_new=True)


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What a person wants of one account. `username` is in lower case, as asked for.

    With a `user_id` that account is meant, whoever holds its name now: accounts are tracked by id.
    """

    username: str
    track_after: bool = False
    fetch_mode: FetchMode = FULL
    user_id: int | None = None

    def as_json(self) -> dict[str, object]:
        """Return the entry as it would stand in a JSON request."""
        return {"username": self.username, "track_after": self.track_after, "fetch_mode": str(self.fetch_mode)}


def parse_request(text: str | bytes) -> tuple[FetchRequest, ...]:
    """Read a request from JSON text; raise InvalidRequest with every mistake in it."""
    if len(text) > MOST_BYTES:
        raise _too_large(f"more than {MOST_BYTES // 2**20} MiB of JSON")
    # Before they become objects, which take ten times the memory of an entry's text, and one of `{}` a hundred times.
    _check_count(text.count(b"{") if isinstance(text, bytes) else text.count("{"))
    try:
        if isinstance(text, bytes):
            text = text.decode()
        orjson.loads(text)
        # orjson is strict and tells places; only this one tells of a name that stands twice in an object.
        entries: object = json.loads(text, object_pairs_hook=_Entry)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest([Mistake(where, error.msg, "JSON, such as " + _example_text())]) from None
    except UnicodeError:
        raise InvalidRequest([Mistake("request", "bytes that are no UTF-8 text", "JSON in UTF-8")]) from None
    except RecursionError:
        given = "lists or objects, hundreds of them in one another"
        raise InvalidRequest([Mistake("request", given, "a list of entries, such as " + _example_text())]) from None
    return read_request(entries)


class _Entry(dict[str, object]):
    """An object of the JSON text, and the names that stand in it more than once: which value is meant?"""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs) if len(pairs) > len(self) else Counter[str]()
        self.repeated = [name for name, count in counts.items() if count > 1]


def read_request(entries: object) -> tuple[FetchRequest, ...]:
    """Read a request from decoded JSON; raise InvalidRequest with every mistake in it.

    The same account twice merges: tracked if either says so, the wider mode wins. The order is that of the first
    mention.
    """
    mistakes: list[Mistake] = []
    merged: dict[str, FetchRequest] = {}
    if not isinstance(entries, list):
        raise InvalidRequest([Mistake("request", _shown(entries), "a list of entries, such as " + _example_text())])
    _check_count(len(cast("list[object]", entries)))
    if not entries:
        raise InvalidRequest([Mistake("request", "an empty list", "at least one entry")])
    for position, entry in enumerate(cast("list[object]", entries), start=1):
        request = _read_entry(position, entry, mistakes)
        if request is not None:
            known = merged.get(request.username)
            merged[request.username] = request if known is None else _merge(known, request)
    if mistakes:
        raise InvalidRequest(mistakes)
    return tuple(merged.values())


def _check_count(entries: int) -> None:
    if entries > MOST_ENTRIES:
        raise _too_large(f"{entries:,} entries")


def _too_large(given: str) -> InvalidRequest:
    return InvalidRequest([Mistake("request", given, f"at most {MOST_ENTRIES:,} entries; make several requests of it")])


def _merge(one: FetchRequest, other: FetchRequest) -> FetchRequest:
    return replace(
        one,
        track_after=one.track_after or other.track_after,
        fetch_mode=one.fetch_mode.wider(other.fetch_mode),
    )


def _read_entry(position: int, entry: object, mistakes: list[Mistake]) -> FetchRequest | None:
    where = f"entry {position}"
    if not isinstance(entry, Mapping):
        mistakes.append(Mistake(where, _shown(entry), "an object with a username"))
        return None
    fields = cast("Mapping[object, object]", entry)
    before = len(mistakes)
    username = _read_username(where, fields, mistakes)
    where = f"entry {position} ({username})" if username else where
    mistakes.extend(
        Mistake(f"{where}, field {_shown(name)}", "an unknown field", f"one of {', '.join(_FIELDS)}")
        for name in fields
        if name not in _FIELDS
    )
    mistakes.extend(
        Mistake(f"{where}, field {_shown(name)}", "the field more than once", "each field once")
        for name in (fields.repeated if isinstance(fields, _Entry) else ())
    )
    track_after = _read_track_after(where, fields, mistakes)
    fetch_mode = _read_fetch_mode(where, fields, mistakes)
    if len(mistakes) > before:
        return None
    return FetchRequest(username, track_after, fetch_mode)


def _read_username(where: str, fields: Mapping[object, object], mistakes: list[Mistake]) -> str:
    given = fields.get("username")
    expected = "1 to 15 letters, digits or underscores"
    if "username" not in fields:
        mistakes.append(Mistake(f"{where}, username", "nothing", expected))
        return ""
    if not isinstance(given, str):
        # YAML reads a name without quotes as what it looks like: 007 as the number 7, `yes` as true.
        mistakes.append(Mistake(f"{where}, username", _shown(given), f"{expected}, in quotes"))
        return ""
    name = given.strip().removeprefix("@")
    if not USERNAME.fullmatch(name):
        mistakes.append(Mistake(f"{where}, username", _shown(given), expected))
        return ""
    return name.lower()


def _read_track_after(where: str, fields: Mapping[object, object], mistakes: list[Mistake]) -> bool:
    given = fields.get("track_after", False)
    if not isinstance(given, bool):
        mistakes.append(Mistake(f"{where}, track_after", _shown(given), "true or false"))
        return False
    return given


def _read_fetch_mode(where: str, fields: Mapping[object, object], mistakes: list[Mistake]) -> FetchMode:
    given = fields.get("fetch_mode", "full")
    text = given.strip().lower() if isinstance(given, str) else ""
    if text in {"full", "new"}:
        return FULL if text == "full" else NEW
    limit = _LIMIT.fullmatch(text)
    if limit is None or int(limit[1]) < 1:
        expected = '"full", "new", or "limit:N" with N of 1 or more'
        mistakes.append(Mistake(f"{where}, fetch_mode", _shown(given), expected))
        return FULL
    return FetchMode(int(limit[1]))


def _shown(given: object) -> str:
    """Show a value as JSON would, short enough for one line and safe on a terminal."""
    try:
        text = orjson.dumps(given).decode()
    except (TypeError, ValueError):
        text = ascii(given)
    # Control characters and right-to-left marks would disturb the message.
    text = _NOT_PLAIN.sub(lambda found: ascii(found[0])[1:-1], text[:61])
    return text if len(text) <= 60 else text[:57] + "..."


def _example_text() -> str:
    return orjson.dumps(EXAMPLE[:1]).decode()
