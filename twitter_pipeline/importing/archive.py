"""X's account archive: the scripts of its zip, with tweets in the shape of the API 1.1.

    window.YTD.tweets.part0 = [ {"tweet": {"id_str": "20", "full_text": "just setting up my twttr", ...}} ]

What the archive does not hold stays empty: counts of replies and quotes, the conversation of a reply, which tweet was
retweeted, and the end of texts that the API 1.1 cut.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, BinaryIO, TypeAlias

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field
from msgspec.json import Decoder

from twitter_pipeline.coverage import written_at
from twitter_pipeline.importing.found import Author, Finding, Findings, Found, Origin, Unreadable
from twitter_pipeline.importing.splitting import Piece, objects_of
from twitter_pipeline.request import USERNAME
from twitter_pipeline.x_api.json_values import BIGINT_MAX, as_instant, as_int, as_text, decode_body, json_text
from twitter_pipeline.x_api.parsing import Tweet, TweetKind
from twitter_pipeline.x_api.wire import decode_object

SCRIPT = re.compile(rb"(?:\xef\xbb\xbf)?\s*window\.YTD\.(?P<what>\w+)\.part\d+\s*=\s*(?=\[)")
"""How every script of the archive begins."""

_Id: TypeAlias = Annotated[int, Meta(ge=1, le=BIGINT_MAX)] | None
_Count: TypeAlias = Annotated[int, Meta(ge=0, le=BIGINT_MAX)] | None
_Ids: TypeAlias = list[Annotated[int, Meta(ge=1, le=BIGINT_MAX)]] | None


class _Edits(Struct, gc=False):
    ids: _Ids = field(name="editTweetIds", default=None)


class _Edit(Struct, gc=False):
    initial: _Edits | None = field(name="editControlInitial", default=None)


class _EditInfo(Struct, gc=False):
    initial: _Edits | None = None
    edit: _Edit | None = None


class _Url(Struct, gc=False):
    url: object = None
    expanded_url: object = None


class _Entities(Struct, gc=False):
    urls: list[_Url] | None = None


class _Status(Struct, gc=False):
    id: _Id = field(name="id_str", default=None)


class _Tweet(Struct, gc=False):
    """A tweet of the API 1.1, as far as it becomes columns; the archive writes numbers as text."""

    id_str: _Id = None
    id: _Id = None
    full_text: object = None
    created_at: object = None
    lang: object = None
    in_reply_to_status_id_str: _Id = None
    in_reply_to_status_id: _Id = None
    in_reply_to_user_id_str: _Id = None
    in_reply_to_user_id: _Id = None
    quoted_status_id_str: _Id = None
    retweeted_status: _Status | None = None
    favorite_count: _Count = None
    retweet_count: _Count = None
    edit_info: _EditInfo | None = None
    entities: _Entities | None = None


class _Wrapped(Struct, gc=False):
    """An entry of the list; before 2019 the tweet stood there by itself."""

    tweet: Raw | UnsetType = UNSET


class _Account(Struct, gc=False):
    accountId: object = None  # noqa: N815 the archive's own name
    username: object = None


class _AccountEntry(Struct, gc=False):
    account: _Account | None = None


class _ArchiveInfo(Struct, gc=False):
    generated_at: object = field(name="generationDate", default=None)


class _Manifest(Struct, gc=False):
    info: _ArchiveInfo | None = field(name="archiveInfo", default=None)


_TWEET = Decoder(_Tweet, strict=False)
_WRAPPED = Decoder(_Wrapped)
_BARE = Decoder(Raw)
_ACCOUNT = Decoder(_AccountEntry)
_MANIFEST = Decoder(_Manifest)

_RETWEET = re.compile(r"RT @\w{1,50}: ", re.ASCII)
# A link to a tweet, not to one of its pictures: those are the tweet's own.
_PERMALINK = re.compile(r"https?://(?:www\.|mobile\.)?(?:twitter|x)\.com/\w{1,50}/status/(\d{1,19})(?:\?.*)?", re.ASCII)
_CREATED_AT = re.compile(r"\w{3} (\w{3}) (\d\d) (\d\d):(\d\d):(\d\d) \+0000 (\d{4})", re.ASCII)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def read_script(
    file: BinaryIO, owner: Author, origin: Origin, *, generated_at: datetime | None, within: str = ""
) -> Findings:
    """Give the tweets of a script of the archive, all written by its owner.

    `generated_at` is when X made the archive, where that is known; `within` is the script's name in a zip.
    """
    read_at, is_dated = origin.stamp(generated_at)
    for piece in _pieces_of(file):
        finding = _read_entry(piece, owner, read_at=read_at, is_dated=is_dated) if isinstance(piece, Piece) else piece
        if isinstance(finding, Unreadable):
            finding = Unreadable(f"{within} {finding.where}".lstrip(), finding.reason)
        yield finding


def read_account(file: BinaryIO) -> Author | None:
    """Read whose archive it is from `account.js`; None when that does not tell."""
    for piece in _pieces_of(file):
        if isinstance(piece, Unreadable):
            return None
        try:
            account = decode_body(_ACCOUNT, piece.body).account or _Account()
        except ValueError:
            return None
        user_id, username = as_int(account.accountId), as_text(account.username) or ""
        return Author(user_id, username if USERNAME.fullmatch(username) else None) if user_id else None
    return None


def read_generation_date(manifest: bytes) -> datetime | None:
    """Read when X made the archive from `manifest.js`; None when that does not tell."""
    _, _, config = manifest.partition(b"=")
    try:
        info = decode_body(_MANIFEST, config.strip().removesuffix(b";")).info
    except ValueError:
        return None
    return as_instant(info.generated_at) if info else None


def _pieces_of(file: BinaryIO) -> Iterator[Piece | Unreadable]:
    head = file.read(200)
    begin = SCRIPT.match(head)
    file.seek(0)
    return objects_of(file, after=begin[0].removeprefix(b"\xef\xbb\xbf") if begin else b"")


def _read_entry(piece: Piece, owner: Author, *, read_at: datetime, is_dated: bool) -> Finding:
    where = f"line {piece.line}"
    try:
        entry = decode_body(_WRAPPED, piece.body).tweet
        raw = decode_body(_BARE, piece.body) if isinstance(entry, UnsetType) else entry
        tweet = _read_tweet(decode_object(_TWEET, raw), json_text(raw), owner.id)
    except ValueError as error:
        return Unreadable(where, str(error))
    return Found(tweet=tweet, author=owner, first_read_at=read_at, last_read_at=read_at, is_dated=is_dated)


def _read_tweet(tweet: _Tweet, raw: str, author_id: int) -> Tweet:
    tweet_id = tweet.id_str or tweet.id
    text = as_text(tweet.full_text)
    if tweet_id is None or text is None:
        raise ValueError("expected a tweet of the archive (id_str, full_text)")
    retweeted_id = tweet.retweeted_status.id if tweet.retweeted_status else None
    replied_to, answered = (
        tweet.in_reply_to_status_id_str or tweet.in_reply_to_status_id,
        tweet.in_reply_to_user_id_str or tweet.in_reply_to_user_id,
    )
    quoted_id = tweet.quoted_status_id_str or _quoted_by_link(text, tweet.entities)
    kind = _kind_of(text, retweeted_id, replied_to or answered, quoted_id)
    return Tweet(
        id=tweet_id,
        author_id=author_id,
        created_at=written_at(tweet_id, _created_at(tweet.created_at)),
        text=text,
        kind=kind,
        lang=as_text(tweet.lang),
        # Whatever answers nothing begins a conversation.
        conversation_id=None if kind is TweetKind.REPLY else tweet_id,
        in_reply_to_user_id=answered,
        in_reply_to_tweet_id=replied_to,
        retweeted_tweet_id=retweeted_id,
        quoted_tweet_id=None if kind is TweetKind.RETWEET else quoted_id,
        like_count=tweet.favorite_count,
        retweet_count=tweet.retweet_count,
        reply_count=None,
        quote_count=None,
        bookmark_count=None,
        impression_count=None,
        edit_history_ids=_edits_of(tweet.edit_info),
        raw=raw,
    )


def _kind_of(text: str, retweeted_id: int | None, replied_to: int | None, quoted_id: int | None) -> TweetKind:
    # The archive does not mark retweets; those that people once typed by hand look the same.
    if retweeted_id is not None or _RETWEET.match(text):
        return TweetKind.RETWEET
    if replied_to is not None:
        return TweetKind.REPLY
    return TweetKind.ORIGINAL if quoted_id is None else TweetKind.QUOTE


def _quoted_by_link(text: str, entities: _Entities | None) -> int | None:
    """Return the tweet to which a link at the text's end leads: X shows that as a quote. There is no other sign."""
    for link in (entities and entities.urls) or ():
        permalink = _PERMALINK.fullmatch(as_text(link.expanded_url) or "")
        if permalink and (shown := as_text(link.url)) and text.endswith(shown):
            return as_int(permalink[1])
    return None


def _edits_of(info: _EditInfo | None) -> tuple[int, ...]:
    if info is None:
        return ()
    edits = info.edit.initial if info.edit else info.initial
    return tuple((edits and edits.ids) or ())


def _created_at(value: object) -> datetime | None:
    """Read an instant such as "Tue Mar 21 20:50:14 +0000 2006"; None when it is none."""
    told = _CREATED_AT.fullmatch(value) if isinstance(value, str) else None
    if told is None or told[1] not in _MONTHS:
        return None
    day, hour, minute, second, year = map(int, told.group(2, 3, 4, 5, 6))
    try:
        return datetime(year, _MONTHS.index(told[1]) + 1, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
