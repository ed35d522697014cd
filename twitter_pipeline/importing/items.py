"""One piece of JSON -> the tweets in it: a response of the API, a flattened tweet, or a line of an export of ours."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import cast

from msgspec import UNSET, Raw, Struct, UnsetType, field
from msgspec.json import Decoder, encode
from msgspec.structs import replace

from twitter_pipeline.errors import UnreadableAnswer
from twitter_pipeline.importing.flattened import unflatten
from twitter_pipeline.importing.found import Author, Finding, Findings, Found, Origin, Unreadable
from twitter_pipeline.importing.rows import columns_of_line, is_made_up_row, read_exported
from twitter_pipeline.importing.splitting import Piece
from twitter_pipeline.x_api.json_values import JsonValue, as_instant, as_object, decode_body, decode_json
from twitter_pipeline.x_api.parsing import Tweet, User, read_tweets_page
from twitter_pipeline.x_api.problems import one_line
from twitter_pipeline.x_api.stream_messages import LONGEST_LINE

EXPECTED = "a response of the API (data, includes), a tweet (id, text, author_id), or a line of an export"


class Item(Struct, gc=False):
    """The members of an object that tell what it is."""

    data: Raw | UnsetType = UNSET
    includes: Raw | UnsetType = UNSET
    errors: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    text: Raw | UnsetType = UNSET
    twarc: object = field(default=None, name="__twarc")
    exported: Raw | UnsetType = field(default=UNSET, name="twitter_pipeline")

    @property
    def is_exported(self) -> bool:
        """Whether it is a line of an export."""
        return self.exported is not UNSET and self.data is not UNSET

    @property
    def is_answer(self) -> bool:
        """Whether it is a response, which may hold nothing but problems, or nothing at all."""
        return any(each is not UNSET for each in (self.data, self.errors, self.meta))

    @property
    def is_tweet(self) -> bool:
        """Whether it is a tweet by itself."""
        return self.id is not UNSET and self.text is not UNSET


_ITEM = Decoder(Item)


class _WithText(Struct, gc=False):
    text: Raw | UnsetType = UNSET


_WITH_TEXT = Decoder(_WithText)


def read_item(piece: Piece) -> Item | Unreadable:
    """Read what a piece is, or say why it is nothing that can be imported."""
    where = f"line {piece.line}"
    try:
        item = decode_body(_ITEM, piece.body)
    except ValueError as error:
        return Unreadable(where, f"expected {EXPECTED}; {one_line(str(error))}")
    if item.is_exported or item.is_answer or item.is_tweet:
        return item
    return Unreadable(where, f"expected {EXPECTED}")


def is_made_up(item: Item) -> bool:
    """Whether it is an export of a tweet that the sandbox made up."""
    return item.is_exported and is_made_up_row(columns_of_line(item.exported))


def read_items(pieces: Iterator[Piece | Unreadable], origin: Origin) -> Findings:
    """Give the tweets of all pieces; a piece that cannot be read is told and passed over."""
    for piece in pieces:
        if isinstance(piece, Unreadable):
            yield piece
        else:
            yield from _read_piece(piece, origin)


def _read_piece(piece: Piece, origin: Origin) -> Findings:
    item, where = read_item(piece), f"line {piece.line}"
    if isinstance(item, Unreadable):
        yield item
        return
    try:
        if item.is_exported:
            yield read_exported(item.data, item.includes, item.exported, origin)
        elif item.is_answer:
            yield from _read_answer(piece.body, item, where, origin)
        else:
            if len(piece.body) > LONGEST_LINE:
                raise ValueError(f"a tweet of {len(piece.body):,} bytes; none of X's has more than {LONGEST_LINE:,}")
            answer = encode(unflatten(as_object(decode_json(piece.body, levels=0))))
            yield from _read_answer(answer, item, where, origin)
    except (ValueError, OverflowError, UnreadableAnswer) as error:
        yield Unreadable(where, one_line(str(error)))


def _read_answer(body: bytes, item: Item, where: str, origin: Origin) -> Findings:
    page = read_tweets_page(body)
    for problem in page.problems:
        if problem.kind in ("unreadable-tweet", "unreadable-data"):
            yield Unreadable(where, problem.detail)
    users = {user.id: user for user in page.users}
    read_at, is_dated = origin.stamp(_retrieved_at(item.twarc))
    for tweet in page.tweets:
        yield _found(tweet, users, origin, where, read_at=read_at, is_dated=is_dated)


def _retrieved_at(twarc: object) -> datetime | None:
    return as_instant(as_object(cast("JsonValue", twarc)).get("retrieved_at"))


def _found(
    tweet: Tweet, users: Mapping[int, User], origin: Origin, where: str, *, read_at: datetime, is_dated: bool
) -> Finding:
    if not tweet.text and decode_body(_WITH_TEXT, tweet.raw.encode()).text is UNSET:
        return Unreadable(where, f"what has the id {tweet.id} is no tweet: it has no text")
    author = _author_of(tweet, users, origin.owner)
    if author is None:
        return Unreadable(where, f"tweet {tweet.id} does not tell its author; say who wrote it with --account")
    return Found(
        tweet=tweet if tweet.author_id is not None else replace(tweet, author_id=author.id),
        author=author,
        first_read_at=read_at,
        last_read_at=read_at,
        is_dated=is_dated,
    )


def _author_of(tweet: Tweet, users: Mapping[int, User], owner: Author | None) -> Author | None:
    if tweet.author_id is None or (owner is not None and owner.id == tweet.author_id and owner.id not in users):
        return owner
    user = users.get(tweet.author_id)
    if user is None:
        return Author(tweet.author_id)
    # Without its counts it is not the whole profile.
    return Author(user.id, user.username, user if user.tweet_count is not None else None)
