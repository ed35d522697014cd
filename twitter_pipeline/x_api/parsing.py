"""Bodies of answers with status 200 -> tweets, users and problems.

Both vocabularies of the API are read, `tweet` (referenced_tweets, note_tweet, retweet_count ...) and `post`
(referenced_posts, note_post, repost_count ...): which one comes depends on the request, and some endpoints mix them.
Where both come, the newer one counts.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Raw, Struct
from msgspec.json import Decoder

from twitter_pipeline.coverage import past, written_at
from twitter_pipeline.errors import UnreadableAnswer
from twitter_pipeline.request import USERNAME
from twitter_pipeline.x_api.json_values import (
    as_bool,
    as_instant,
    as_int,
    as_list,
    as_object,
    as_text,
    decode_body,
    decode_or_none,
    json_text,
)
from twitter_pipeline.x_api.problems import Problem, availability_of, one_line, read_flat_problem, read_problems
from twitter_pipeline.x_api.wire import (
    MEDIA,
    SINGLE,
    THING,
    TWEET,
    USER,
    WireAnswer,
    WireMedia,
    WireReference,
    WireThing,
    WireTweet,
    WireTweetMetrics,
    WireUserMetrics,
    decode_answer,
    decode_object,
    newer,
)

MOST_ITEMS = 100_000
"""Items of one list of an answer. X sends 500 of `data`; a file may hold many answers that were joined into one."""

MOST_CHARACTERS = 128 * 2**20
"""Of all tweets of an answer with their includes, which many may share."""

LONGEST_PAGE_TOKEN = 2_000
"""Characters; X's have some dozens."""

KEPT_UNREADABLE = 2**16
"""Bytes that are kept of an item that cannot be read: the whole of any but the longest notes."""


class TweetKind(StrEnum):
    """What a tweet is: the first that applies of retweet, reply, quote, original. A reply that quotes is a reply."""

    ORIGINAL = "original"
    REPLY = "reply"
    RETWEET = "retweet"
    QUOTE = "quote"


# Tweet and User are Structs since frozen dataclasses take three times as long to make; they hold no cycles, so the
# garbage collector need not look at them.
class Tweet(Struct, frozen=True, kw_only=True, gc=False):
    """A tweet as it is stored.

    `text` is the whole text, HTML-escaped as the API sends it: that of the note for a long post, and for a retweet
    "RT @name: " with the whole text of the retweeted one, if that came along. In every text U+FFFD stands for what
    PostgreSQL refuses (NUL, unpaired surrogates). `raw` is the tweet's JSON as it came with one more key, `includes`:
    the media, tweets, polls, places and users of the answer that this tweet refers to.
    """

    id: int
    author_id: int | None
    created_at: datetime | None
    text: str
    kind: TweetKind
    lang: str | None
    conversation_id: int | None
    in_reply_to_user_id: int | None
    in_reply_to_tweet_id: int | None
    retweeted_tweet_id: int | None
    quoted_tweet_id: int | None
    like_count: int | None
    retweet_count: int | None
    reply_count: int | None
    quote_count: int | None
    bookmark_count: int | None
    impression_count: int | None
    edit_history_ids: tuple[int, ...]
    raw: str


class User(Struct, frozen=True, kw_only=True, gc=False):
    """An account's profile as it is stored; `raw` is its JSON as it came."""

    id: int
    username: str
    name: str
    created_at: datetime | None
    description: str | None
    location: str | None
    protected: bool
    verified: bool | None
    verified_type: str | None
    followers_count: int | None
    following_count: int | None
    tweet_count: int | None
    listed_count: int | None
    profile_image_url: str | None
    most_recent_tweet_id: int | None
    raw: str


@dataclass(frozen=True, slots=True)
class TweetsPage:
    """One page, in the answer's order, each tweet once.

    Continue by `next_token` alone: short and empty pages with a token are normal. `result_count` is the number the API
    states, or that of the objects it sent. `items` are all objects in their order: the id of each tweet, and the JSON
    text of what cannot be read.
    """

    tweets: tuple[Tweet, ...]
    users: tuple[User, ...]
    next_token: str | None
    problems: tuple[Problem, ...]
    result_count: int
    items: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class UsersAnswer:
    """The users found; those that were not are among the problems."""

    users: tuple[User, ...]
    problems: tuple[Problem, ...]


def read_tweets_page(body: bytes) -> TweetsPage:
    """Read the answer to a look-up of tweets.

    A tweet that cannot be read is left out and appears as a problem of the kind `unreadable-tweet`, what came along
    with the tweets as one of the kind `unreadable-include`. Raises UnreadableAnswer when the body is no JSON object.
    """
    return _read_tweets(_read_answer(body), body)


def read_timeline_page(body: bytes) -> TweetsPage:
    """Read a page of an account's timeline.

    Raises UnreadableAnswer unless the answer is one: tweets or an explicit nothing, with `meta`, or a problem that says
    that the account cannot be read. Anything else would pass for the end of the timeline.
    """
    page = _read_page(body)
    if isinstance(page, UnreadableAnswer):
        available = read_tweets_page(body)
        if available.items or not any(map(availability_of, available.problems)):
            raise page
        return available
    return page


def read_search_page(body: bytes) -> TweetsPage:
    """Read a page of a search; raises UnreadableAnswer as for a timeline."""
    page = _read_page(body)
    if isinstance(page, UnreadableAnswer):
        raise page
    return page


def _read_page(body: bytes) -> "TweetsPage | UnreadableAnswer":
    """Read a page, or return why it is none: it may be an outage's, and lack any part."""
    answer = _read_answer(body)
    page = _read_tweets(answer, body)
    meta = _read_meta(answer)
    flat = None if page.items else read_flat_problem(body)
    problems = [each for each in page.problems if each.kind != "unreadable-include"]
    if flat is not None or (problems and not page.items and not page.next_token):
        return _nothing_but(flat or problems[0])
    if not page.next_token and meta.result_count is None:
        return UnreadableAnswer("it does not state how many tweets it holds, so it may lack some")
    if meta.result_count is not None and meta.result_count > len(page.items):
        return UnreadableAnswer(f"it states {meta.result_count} tweets and holds {len(page.items)}")
    return page


def _read_tweets(answer: WireAnswer, body: bytes) -> TweetsPage:
    objects, problems = _read_items(answer, body)
    included = _index_includes(answer, problems)
    tweets: dict[int, Tweet] = {}
    items: list[int | str] = []
    characters = 0
    for each in objects:
        tweet = _read_tweet(each, included)
        if isinstance(tweet, Problem):
            problems.append(tweet)
            items.append(_text_of(each))
        else:
            tweets.setdefault(tweet.id, tweet)
            items.append(tweet.id)
            characters += len(tweet.raw)
        if characters > MOST_CHARACTERS:
            raise UnreadableAnswer(f"its tweets with their includes have more than {MOST_CHARACTERS:,} characters")
    meta = _read_meta(answer)
    return TweetsPage(
        tweets=tuple(tweets.values()),
        users=_read_each_user(_included_items(answer, "users"), []),
        next_token=meta.next_token,
        problems=tuple(problems),
        result_count=len(objects) if meta.result_count is None else meta.result_count,
        items=tuple(items),
    )


def read_users(body: bytes) -> UsersAnswer:
    """Read the answer to a look-up of users.

    A user who cannot be read is left out and appears as a problem of the kind `unreadable-user`.
    Raises UnreadableAnswer when the body is no JSON object, and for nothing but problems that name no user.
    """
    answer = _read_answer(body)
    items, problems = _read_items(answer, body)
    users = _read_each_user(items, problems)
    if not items and problems and not any(problem.value or problem.resource_id for problem in problems):
        raise _nothing_but(problems[0])
    return UsersAnswer(users=users, problems=tuple(problems))


def _nothing_but(problem: Problem) -> UnreadableAnswer:
    return UnreadableAnswer(f"it holds nothing but the problem {problem}")


def _read_answer(body: bytes) -> WireAnswer:
    try:
        return decode_answer(body)
    except ValueError as error:
        why = one_line(str(error))
        raise UnreadableAnswer(f"the body of {len(body)} bytes is no JSON object that can be read: {why}") from error


def _read_items(answer: WireAnswer, body: bytes) -> tuple[list[Raw], list[Problem]]:
    """Return what `data` holds, of which a look-up of a single thing makes no list, and the problems beside it."""
    included = [_included_items(answer, section) for section in _SECTIONS]
    longest = max(map(len, (as_list(answer.errors), answer.data if isinstance(answer.data, list) else [], *included)))
    if longest > MOST_ITEMS:
        raise UnreadableAnswer(f"it holds a list of {longest:,} items, more than {MOST_ITEMS:,}")
    problems = read_problems(answer.errors)
    data = answer.data
    if isinstance(data, list):
        return data, problems
    if isinstance(data, dict):
        return [decode_body(SINGLE, body).data], problems
    if data is not None:
        problems.append(_unreadable("data", None, "neither a list nor an object"))
    return [], problems


def _text_of(item: Raw) -> str:
    """Return what is kept of an item that cannot be read: its beginning."""
    beginning = Raw(bytes(item)[:KEPT_UNREADABLE])
    try:
        return json_text(beginning)
    except ValueError:
        return bytes(beginning).decode(errors="replace")


def read_page_token(value: object) -> str | None:
    """Return the token of the next page, None where there is none; raises UnreadableAnswer for one that is too long."""
    token = as_text(value) or None
    if token is not None and len(token) > LONGEST_PAGE_TOKEN:
        # Cut it would be another, and without it the page would pass for the last.
        raise UnreadableAnswer(f"its next_token has {len(token):,} characters, more than {LONGEST_PAGE_TOKEN:,}")
    return token


class _Meta(NamedTuple):
    result_count: int | None
    next_token: str | None


def _read_meta(answer: WireAnswer) -> _Meta:
    meta = as_object(decode_or_none(bytes(answer.meta)))
    return _Meta(as_int(meta.get("result_count")), read_page_token(meta.get("next_token")))


def _unreadable(what: str, item_id: int | None, why: str, *, section: str = "data", username: str = "") -> Problem:
    return Problem(
        title=f"Unreadable {what}",
        detail=f"The answer held an unreadable {what}, which was left out: {one_line(why)}.",
        kind=f"unreadable-{what}",
        value=username,
        resource_type=what,
        resource_id="" if item_id is None else str(item_id),
        section=section,
    )


# The sections of `includes`, read by what their objects are referred to.
_SECTIONS: Mapping[str, Decoder[Any]] = {
    "media": MEDIA,
    "tweets": TWEET,
    "posts": TWEET,
    "polls": THING,
    "places": THING,
    "users": THING,
}


@dataclass(frozen=True, slots=True)
class _Included:
    """What an answer's `includes` hold: the JSON text of each object by section and key, and the tweets among them."""

    texts: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    tweets: dict[str, WireTweet] = field(default_factory=dict[str, WireTweet])


def _included_items(answer: WireAnswer, section: str) -> list[Raw]:
    items = answer.includes.get(section) if isinstance(answer.includes, dict) else None
    return items if isinstance(items, list) else []


def _index_includes(answer: WireAnswer, problems: list[Problem]) -> _Included:
    """Index what came along with the tweets; what cannot be read is appended to `problems`."""
    included = _Included()
    for section, decoder in _SECTIONS.items():
        texts: dict[str, str] = {}
        for item in _included_items(answer, section):
            try:
                thing: WireMedia | WireTweet | WireThing = decode_object(decoder, item)
                text = json_text(item)
            except ValueError as error:
                problems.append(_unreadable("include", None, str(error), section="includes"))
                continue
            if thing.id is None:
                problems.append(_unreadable("include", None, _NO_ID, section="includes"))
                continue
            key = str(thing.id)
            texts[key] = text
            if isinstance(thing, WireTweet):
                included.tweets[key] = thing
        if texts:
            included.texts[section] = texts
    return included


def _read_tweet(item: Raw, included: _Included) -> Tweet | Problem:
    try:
        tweet, text = decode_object(TWEET, item), json_text(item)
    except ValueError as error:
        return _unreadable("tweet", None, str(error))
    if tweet.id is None:
        return _unreadable("tweet", None, _NO_ID)
    author_id = as_int(tweet.author_id)
    if not author_id and tweet.author_id is not None:
        return _unreadable("tweet", tweet.id, "the id of its author is invalid")
    references = newer(tweet.referenced_posts, tweet.referenced_tweets) or ()
    referenced = _ids_by_kind(references)
    metrics = tweet.public_metrics or _NO_TWEET_METRICS
    return Tweet(
        id=tweet.id,
        author_id=author_id,
        created_at=written_at(tweet.id, as_instant(tweet.created_at)),
        text=_whole_text(tweet, referenced.get("retweeted"), included),
        kind=_kind_of(referenced, tweet.in_reply_to_user_id),
        lang=as_text(tweet.lang),
        conversation_id=tweet.conversation_id,
        in_reply_to_user_id=tweet.in_reply_to_user_id,
        in_reply_to_tweet_id=referenced.get("replied_to"),
        retweeted_tweet_id=referenced.get("retweeted"),
        quoted_tweet_id=referenced.get("quoted"),
        like_count=metrics.like_count,
        retweet_count=newer(metrics.repost_count, metrics.retweet_count),
        reply_count=metrics.reply_count,
        quote_count=metrics.quote_count,
        bookmark_count=metrics.bookmark_count,
        impression_count=metrics.impression_count,
        edit_history_ids=tuple(newer(tweet.edit_history_post_ids, tweet.edit_history_tweet_ids) or ()),
        # The tweet's own text is spliced, not written again: it has at least an id, so a comma can follow.
        raw=f'{text[:-1]},"includes":{{{_includes_of(tweet, references, included)}}}}}',
    )


_NO_ID = "its id is missing or invalid"
_NO_TWEET_METRICS = WireTweetMetrics()


def _ids_by_kind(references: Iterable[WireReference]) -> dict[str, int]:
    """Return the ids of the tweets referred to, by the kind of reference: retweeted, replied_to, quoted."""
    ids: dict[str, int] = {}
    for reference in references:
        if isinstance(reference.type, str) and reference.id is not None:
            ids.setdefault(reference.type, reference.id)
    return ids


def _kind_of(referenced: dict[str, int], in_reply_to_user_id: int | None) -> TweetKind:
    if "retweeted" in referenced:
        return TweetKind.RETWEET
    # A reply to a tweet that is gone may have lost its reference, but not the user it answers.
    if "replied_to" in referenced or in_reply_to_user_id is not None:
        return TweetKind.REPLY
    return TweetKind.QUOTE if "quoted" in referenced else TweetKind.ORIGINAL


_RETWEET_PREFIX = re.compile(r"RT @\w{1,50}: ", re.ASCII)


def _whole_text(tweet: WireTweet, retweeted_id: int | None, included: _Included) -> str:
    text = _own_text(tweet)
    if retweeted_id is None:
        return text
    prefix = _RETWEET_PREFIX.match(text)
    retweeted = included.tweets.get(str(retweeted_id))
    if prefix is None or retweeted is None:
        return text
    return prefix[0] + _own_text(retweeted)


def _own_text(tweet: WireTweet) -> str:
    notes = (as_text(note.text) for note in (tweet.note_post, tweet.note_tweet) if note is not None)
    return next(filter(None, notes), None) or as_text(tweet.text) or ""


def _includes_of(tweet: WireTweet, references: Iterable[WireReference], included: _Included) -> str:
    """Return the members of the answer's `includes` at which one tweet, or a tweet it refers to, points, as JSON."""
    pointers = _pointers_of(tweet, included)
    for reference in references:
        key = str(reference.id)
        pointers += (("tweets", key), ("posts", key))
        if key in included.tweets:
            pointers += _pointers_of(included.tweets[key], included)
    if not pointers:
        return ""
    found: dict[str, dict[str, str]] = {}
    for section, pointer in pointers:
        if (texts := included.texts.get(section)) and (text := texts.get(key := str(pointer))):
            found.setdefault(section, {})[key] = text
    return ",".join([f'"{section}":[{",".join(texts.values())}]' for section, texts in found.items()])


def _pointers_of(tweet: WireTweet, included: _Included) -> list[tuple[str, str | int | None]]:
    """Return by section and key at what a tweet points, other than by its references."""
    pointers: list[tuple[str, str | int | None]] = []
    if "users" in included.texts:
        pointers += (("users", as_int(tweet.author_id)), ("users", tweet.in_reply_to_user_id))
    if tweet.geo is not None:
        pointers.append(("places", tweet.geo.place_id))
    if tweet.attachments is not None:
        pointers += [("media", key) for key in tweet.attachments.media_keys or ()]
        pointers += [("polls", key) for key in tweet.attachments.poll_ids or ()]
    return pointers


def _read_each_user(items: list[Raw], problems: list[Problem]) -> tuple[User, ...]:
    """Read users in order, each once; what cannot be read is appended to `problems`."""
    users: dict[int, User] = {}
    for item in items:
        user = _read_user(item)
        if isinstance(user, Problem):
            problems.append(user)
        else:
            users.setdefault(user.id, user)
    return tuple(users.values())


def _read_user(item: Raw) -> User | Problem:
    try:
        user, text = decode_object(USER, item), json_text(item)
    except ValueError as error:
        return _unreadable("user", None, str(error))
    username = as_text(user.username) or ""
    if not USERNAME.fullmatch(username):
        return _unreadable("user", user.id, "its username is missing or invalid")
    if user.id is None:
        return _unreadable("user", None, _NO_ID, username=username)
    metrics = user.public_metrics or _NO_USER_METRICS
    return User(
        id=user.id,
        username=username,
        name=as_text(user.name) or username,
        created_at=past(as_instant(user.created_at)),
        description=as_text(user.description),
        location=as_text(user.location),
        protected=as_bool(user.protected) or False,
        verified=as_bool(user.verified),
        verified_type=as_text(user.verified_type),
        followers_count=metrics.followers_count,
        following_count=metrics.following_count,
        tweet_count=newer(metrics.post_count, metrics.tweet_count),
        listed_count=metrics.listed_count,
        profile_image_url=as_text(user.profile_image_url),
        most_recent_tweet_id=newer(user.most_recent_post_id, user.most_recent_tweet_id),
        raw=text,
    )


_NO_USER_METRICS = WireUserMetrics()
