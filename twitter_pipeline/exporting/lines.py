"""A stored tweet as a line of JSON: the tweet as X gave it, its includes, and what else is stored of it.

    {"data": {...}, "includes": {...}, "twitter_pipeline": {"version": 1, "author": {...}, "id": "20", ...}}

`twitter_pipeline` holds every column of `tweets` under its name, ids as text, but for the author, who stands under
`author` by id and username, and `raw`: that is `data` and `includes` put together again by `joined`. Only a `raw` that
cannot be put together so stands there as well, as text: one whose content was removed, or that came from elsewhere.
"""

from msgspec import Raw, Struct
from msgspec.json import Decoder, Encoder

from twitter_pipeline.store.exports import StoredTweet
from twitter_pipeline.x_api.json_values import decode_body, json_text

VERSION = 1
"""Of the form of exported rows, in every format."""


class _WithIncludes(Struct):
    includes: Raw


_INCLUDES = Decoder(_WithIncludes)
_ENCODER = Encoder()

_IDS = frozenset(
    (
        "id",
        "conversation_id",
        "in_reply_to_tweet_id",
        "in_reply_to_user_id",
        "retweeted_tweet_id",
        "quoted_tweet_id",
    )
)


def line_of(tweet: StoredTweet) -> bytes:
    """Return a tweet as a line with its end."""
    parts = split(tweet.raw)
    if parts is None:
        data, includes, apart = in_one_line(tweet.raw), b"{}", {"raw": tweet.raw.decode()}
    else:
        (data, includes), apart = parts, {}
    told = {"version": VERSION, "author": _author(tweet), **_columns(tweet), **apart}
    return b'{"data":%b,"includes":%b,"twitter_pipeline":%b}\n' % (data, includes, _ENCODER.encode(told))


def id_line_of(row: tuple[int]) -> bytes:
    """Return an id alone as a line with its end, as X writes it: as text."""
    return b'{"id":"%d"}\n' % row


def split(raw: bytes) -> tuple[bytes, bytes] | None:
    """Return the tweet as X gave it and its includes, byte for byte; None where `joined` would not give back `raw`.

    Includes of its own are the last member of `raw`, written without a blank.
    """
    try:
        includes = json_text(decode_body(_INCLUDES, raw).includes).encode()
    except ValueError:
        return None
    end = b',"includes":%b}' % includes
    if not raw.endswith(end) or b"\n" in raw or b"\r" in raw:
        return None
    return raw[: -len(end)] + b"}", includes


def joined(data: bytes, includes: bytes) -> bytes:
    """Return the `raw` that was split into these."""
    return b'%b,"includes":%b}' % (data[:-1], includes)


def in_one_line(json: bytes) -> bytes:
    """Return a JSON text without line breaks: those stand only between its tokens, in strings they are escapes."""
    return json.replace(b"\r", b" ").replace(b"\n", b" ")


def _author(tweet: StoredTweet) -> dict[str, str | None]:
    return {"id": str(tweet.author_id), "username": tweet.username}


def _columns(tweet: StoredTweet) -> dict[str, object]:
    columns: dict[str, object] = dict(zip(_NAMES, tweet, strict=True))
    for name in _LEFT_OUT:
        del columns[name]
    for name in _IDS:
        if columns[name] is not None:
            columns[name] = str(columns[name])
    if tweet.edit_history_ids is not None:
        columns["edit_history_ids"] = list(map(str, tweet.edit_history_ids))
    return columns


_NAMES = StoredTweet._fields
_LEFT_OUT = ("author_id", "username", "raw")
