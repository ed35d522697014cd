"""Rows of an export of ours: lines of JSON, Parquet, or CSV, each with all columns of `tweets`."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TypeVar, cast

from msgspec import Raw, UnsetType
from msgspec.json import Decoder

from twitter_pipeline.coverage import past, written_at
from twitter_pipeline.exporting.lines import VERSION, joined
from twitter_pipeline.importing.found import Author, Finding, Findings, Found, Origin, Unreadable
from twitter_pipeline.request import USERNAME
from twitter_pipeline.x_api.json_values import (
    JsonValue,
    as_bool,
    as_instant,
    as_int,
    as_list,
    as_object,
    as_text,
    decode_body,
    json_text,
)
from twitter_pipeline.x_api.parsing import Tweet, TweetKind

T = TypeVar("T")

Row = Mapping[str, object]

REQUIRED = ("id", "author_id", "created_at", "kind", "text", "first_read_at", "last_read_at", "raw")
"""Columns without which a row cannot be given back."""


_COLUMNS: Decoder[dict[str, object]] = Decoder(dict[str, object])
_JSON = Decoder(Raw)


def read_exported(data: Raw | UnsetType, includes: Raw | UnsetType, exported: Raw | UnsetType, origin: Origin) -> Found:
    """Read a line of an export; raises ValueError when something of it is missing or wrong."""
    columns = columns_of_line(exported)
    if as_int(columns.get("version")) != VERSION:
        raise ValueError(f"it was exported in form {columns.get('version')}, this program reads form {VERSION}")
    author = as_object(cast("JsonValue", columns.get("author")))
    if columns.get("raw") is None:
        if isinstance(data, UnsetType) or isinstance(includes, UnsetType):
            raise ValueError("it lacks `data` or `includes`")
        columns["raw"] = joined(json_text(data).encode(), json_text(includes).encode()).decode()
    return read_row({**columns, "author_id": author.get("id"), "username": author.get("username")}, origin)


def read_row(row: Row, origin: Origin) -> Found:
    """Read a row of an export; raises ValueError that names the column which is missing or wrong."""
    author_id = _required(row, "author_id", as_int)
    username = as_text(row.get("username")) or ""
    last_read_at, is_dated = origin.stamp(_required(row, "last_read_at", _instant))
    tweet_id = _required(row, "id", as_int)
    return Found(
        tweet=Tweet(
            id=tweet_id,
            author_id=author_id,
            created_at=written_at(tweet_id, _required(row, "created_at", _instant)),
            text=_required(row, "text", as_text),
            kind=_required(row, "kind", _kind),
            lang=as_text(row.get("lang")),
            conversation_id=as_int(row.get("conversation_id")),
            in_reply_to_user_id=as_int(row.get("in_reply_to_user_id")),
            in_reply_to_tweet_id=as_int(row.get("in_reply_to_tweet_id")),
            retweeted_tweet_id=as_int(row.get("retweeted_tweet_id")),
            quoted_tweet_id=as_int(row.get("quoted_tweet_id")),
            like_count=as_int(row.get("like_count")),
            retweet_count=as_int(row.get("retweet_count")),
            reply_count=as_int(row.get("reply_count")),
            quote_count=as_int(row.get("quote_count")),
            bookmark_count=as_int(row.get("bookmark_count")),
            impression_count=as_int(row.get("impression_count")),
            edit_history_ids=_ids(row.get("edit_history_ids")),
            raw=_required(row, "raw", _json),
        ),
        author=Author(author_id, username if USERNAME.fullmatch(username) else None),
        first_read_at=min(past(_required(row, "first_read_at", _instant)) or last_read_at, last_read_at),
        last_read_at=last_read_at,
        is_dated=is_dated,
        deleted_seen_at=past(_instant(row.get("deleted_seen_at"))),
    )


def read_rows(rows: Iterator[tuple[str, Row] | Unreadable], origin: Origin) -> Findings:
    """Read rows, each with its place in the file; one that cannot be read is told and passed over."""
    for row in rows:
        yield row if isinstance(row, Unreadable) else _read_or_tell(*row, origin)


def _read_or_tell(where: str, row: Row, origin: Origin) -> Finding:
    try:
        return read_row(row, origin)
    except ValueError as error:
        return Unreadable(where, str(error))


def columns_of_line(exported: Raw | UnsetType) -> dict[str, object]:
    """Return what a line tells under `twitter_pipeline`; raises ValueError when that is no object."""
    return {} if isinstance(exported, UnsetType) else decode_body(_COLUMNS, bytes(exported))


def is_made_up_row(row: Row) -> bool:
    """Whether the sandbox made the tweet up; CSV says so in PostgreSQL's words."""
    told = row.get("sandbox")
    return told in ("t", "true") or as_bool(told) is True


def _required(row: Row, column: str, read: Callable[[object], T | None]) -> T:
    value = read(row.get(column))
    if value is None:
        raise ValueError(f"the column {column} of the export is missing or cannot be read")
    return value


def _instant(value: object) -> datetime | None:
    return as_instant(value.isoformat() if isinstance(value, datetime) else value)


def _kind(value: object) -> TweetKind | None:
    return TweetKind(value) if value in list(TweetKind) else None


def _json(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    decode_body(_JSON, value.encode())
    return value


def _ids(value: object) -> tuple[int, ...]:
    if isinstance(value, str):
        # As PostgreSQL writes an array: {1,2}.
        value = value.removeprefix("{").removesuffix("}").split(",")
    ids = [as_int(each) for each in as_list(cast("JsonValue", value))]
    if None in ids:
        raise ValueError("the column edit_history_ids of the export cannot be read")
    return tuple(each for each in ids if each is not None)
