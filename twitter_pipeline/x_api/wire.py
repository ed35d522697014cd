"""What is read of the API's JSON; all else is checked to be JSON and skipped, without an object made of it.

Both vocabularies are named, `tweet` and `post`; where an object has both, `newer` chooses. A `Raw` is an object's own
text, which is decoded by itself, so that a malformed one costs no other. X's answers are not always of the type that
their specification states: what does not fit counts as left out (`decode_object`), and `object` stands where a reader
of `json_values` decides.
"""

from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_origin

from msgspec import Meta, Raw, Struct, ValidationError, convert, field
from msgspec.json import Decoder
from msgspec.structs import fields

from twitter_pipeline.x_api.json_values import (
    BIGINT_MAX,
    JsonValue,
    check_tokens,
    decode_body,
    decode_json,
    decode_or_none,
    split,
)

_Id: TypeAlias = Annotated[int, Meta(ge=1, le=BIGINT_MAX)] | None
_Count: TypeAlias = Annotated[int, Meta(ge=0, le=BIGINT_MAX)] | None
_Ids: TypeAlias = list[Annotated[int, Meta(ge=1, le=BIGINT_MAX)]] | None
_Key: TypeAlias = str | int | None
_Keys: TypeAlias = list[str | int] | None


class _Members(Struct, gc=False):
    """Members of a JSON object; the garbage collector passes them by, since JSON has no cycles."""


_Scalar: TypeAlias = str | int | float | bool | None


class WireAnswer(_Members):
    """A whole body, of which no member need have the type that X states."""

    data: list[Raw] | dict[str, object] | _Scalar = None
    includes: dict[str, list[Raw] | dict[str, object] | _Scalar] | list[object] | _Scalar = None
    errors: Any = None
    meta: Raw = Raw(b"{}")


class WireSingle(_Members):
    """The answer to a look-up of one thing, whose `data` is no list."""

    data: Raw


class WireReference(_Members):
    type: object = None
    id: _Id = None


class WireNote(_Members):
    text: object = None


class WireAttachments(_Members):
    media_keys: _Keys = None
    poll_ids: _Keys = None


class WireGeo(_Members):
    place_id: _Key = None


class WireTweetMetrics(_Members):
    like_count: _Count = None
    retweet_count: _Count = None
    repost_count: _Count = None
    reply_count: _Count = None
    quote_count: _Count = None
    bookmark_count: _Count = None
    impression_count: _Count = None


class WireTweet(_Members):
    id: _Id = None
    author_id: object = None
    created_at: object = None
    text: object = None
    lang: object = None
    conversation_id: _Id = None
    in_reply_to_user_id: _Id = None
    note_tweet: WireNote | None = None
    note_post: WireNote | None = None
    referenced_tweets: list[WireReference] | None = None
    referenced_posts: list[WireReference] | None = None
    edit_history_tweet_ids: _Ids = None
    edit_history_post_ids: _Ids = None
    attachments: WireAttachments | None = None
    geo: WireGeo | None = None
    public_metrics: WireTweetMetrics | None = None


class WireUserMetrics(_Members):
    followers_count: _Count = None
    following_count: _Count = None
    tweet_count: _Count = None
    post_count: _Count = None
    listed_count: _Count = None


class WireUser(_Members):
    id: _Id = None
    username: object = None
    name: object = None
    created_at: object = None
    description: object = None
    location: object = None
    protected: object = None
    verified: object = None
    verified_type: object = None
    profile_image_url: object = None
    most_recent_tweet_id: _Id = None
    most_recent_post_id: _Id = None
    public_metrics: WireUserMetrics | None = None


class WireMedia(_Members):
    id: _Key = field(name="media_key", default=None)


class WireThing(_Members):
    """A poll, a place or a user, of which only the name it goes by is read."""

    id: _Key = None


# Not strict: a number may come as a string.
ANSWER = Decoder(WireAnswer)
SINGLE = Decoder(WireSingle)
TWEET = Decoder(WireTweet, strict=False)
USER = Decoder(WireUser, strict=False)
MEDIA = Decoder(WireMedia, strict=False)
THING = Decoder(WireThing, strict=False)

_ANY_JSON = Decoder(Raw)

LONGEST_OBJECT = 2**20
"""Bytes of a tweet, a user, or anything else by itself: a note of 25,000 letters, all escaped, has 150,000 of text."""

S = TypeVar("S", bound=Struct)
T = TypeVar("T")


def newer(post: T | None, tweet: T | None) -> T | None:
    """Return what the newer vocabulary says, unless that is missing or cannot be read."""
    return tweet if post is None else post


def decode_answer(body: bytes) -> WireAnswer:
    """Decode a whole body; raises ValueError, and nothing else, when it is no JSON object.

    An item that is no JSON, or is nested too deeply, is left as it is and costs no other.
    """
    check_tokens(body)
    try:
        return decode_body(ANSWER, body)
    except ValueError:
        members = split(body)
        if isinstance(members, list):
            raise
    includes = split(members["includes"]) if members.get("includes", b"").startswith(b"{") else []
    return WireAnswer(
        data=_items_in(members.get("data", b"null")),
        includes={name: _items_in(part) for name, part in includes.items()} if isinstance(includes, dict) else None,
        errors=decode_or_none(members.get("errors", b"null")),
        meta=Raw(members.get("meta", b"{}")),
    )


def _items_in(section: bytes) -> list[Raw] | bool | None:
    """Return the items of a section: those of a list, or the one that it is."""
    if section[:1] not in (b"[", b"{"):
        return None if section == b"null" else False
    parts = split(section)
    return [Raw(part) for part in parts] if isinstance(parts, list) else [Raw(section)]


def decode_object(decoder: Decoder[S], item: Raw) -> S:
    """Decode an object, without the members that are of another type than stated.

    Raises ValueError, and nothing else, when it is no object or has no readable form.
    """
    if len(item) > LONGEST_OBJECT:
        raise ValueError(f"its {len(item):,} bytes are more than the {LONGEST_OBJECT:,} that are read of one object")
    try:
        try:
            return decoder.decode(item)
        except ValidationError:
            _ANY_JSON.decode(item)  # it may be malformed behind the member that does not fit
            read = _fitting(decode_json(bytes(item)), decoder.type)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if read is None:
        raise ValueError("it is no JSON object")
    return read


def _fitting(value: JsonValue, wanted: Any) -> Any:
    """Return what fits a type: the value, or the members or items of it that do, or None."""
    try:
        return convert(value, wanted, strict=False)
    except ValidationError:
        pass
    for each in get_args(wanted) or (wanted,):
        if isinstance(value, dict) and isinstance(each, type) and issubclass(each, Struct):
            return each(**{known.name: _fitting(value.get(known.encode_name), known.type) for known in fields(each)})
        if isinstance(value, list) and get_origin(each) is list:
            (item_type,) = get_args(each)
            fitting = [fit for item in value if (fit := _fitting(item, item_type)) is not None]
            return fitting if fitting or not value else None
    return None
