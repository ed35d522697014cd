"""Bodies of answers with status 200 -> tweets, users and problems.

Both vocabularies of the API are read, `tweet` (referenced_tweets, note_tweet, retweet_count ...) and `post`
(referenced_posts, note_post, repost_count ...): which one comes depends on the request, and some endpoints mix them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from twitter_pipeline.errors import UnreadableAnswer
from twitter_pipeline.x_api.json_values import (
    JsonObject,
    JsonValue,
    as_bool,
    as_id,
    as_instant,
    as_int,
    as_list,
    as_object,
    as_text,
    decode_json,
    encode_json,
)
from twitter_pipeline.x_api.problems import Problem, one_line, read_problems


class TweetKind(StrEnum):
    """What a tweet is: the first that applies of retweet, reply, quote, original. A reply that quotes is a reply."""

    ORIGINAL = "original"
    REPLY = "reply"
    RETWEET = "retweet"
    QUOTE = "quote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tweet:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
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

    Go on by `next_token` alone: short and empty pages with a token are normal. `result_count` is the number the API
    states, or that of the objects it sent.
    """

    tweets: tuple[Tweet, ...]
    users: tuple[User, ...]
    next_token: str | None
    problems: tuple[Problem, ...]
    result_count: int


@dataclass(frozen=True, slots=True)
class UsersAnswer:
    """The users found; those that were not are among the problems."""

    users: tuple[User, ...]
    problems: tuple[Problem, ...]


def read_tweets_page(body: bytes) -> TweetsPage:
    """Read a page of a timeline or a search, or the answer to a look-up of tweets.

    A tweet that cannot be read is left out and appears as a problem of the kind `unreadable-tweet`.
    Raises UnreadableAnswer when the body is no JSON object.
    """
    answer = _read_answer(body)
    items, problems = _read_items(answer)
    included = _index_includes(answer)
    tweets: dict[int, Tweet] = {}
    for item in items:
        tweet = _read_tweet(item, included)
        if isinstance(tweet, Problem):
            problems.append(tweet)
        else:
            tweets.setdefault(tweet.id, tweet)
    users = _read_each_user(as_list(as_object(answer.get("includes")).get("users")), problems)
    meta = as_object(answer.get("meta"))
    result_count = as_int(meta.get("result_count"))
    return TweetsPage(
        tweets=tuple(tweets.values()),
        users=users,
        next_token=as_text(meta.get("next_token")) or None,
        problems=tuple(problems),
        result_count=len(items) if result_count is None else result_count,
    )


def read_users(body: bytes) -> UsersAnswer:
    """Read the answer to a look-up of users.

    A user who cannot be read is left out and appears as a problem of the kind `unreadable-user`.
    Raises UnreadableAnswer when the body is no JSON object.
    """
    answer = _read_answer(body)
    items, problems = _read_items(answer)
    users = _read_each_user(items, problems)
    return UsersAnswer(users=users, problems=tuple(problems))


def _read_answer(body: bytes) -> JsonObject:
    try:
        answer = decode_json(body)
    except ValueError as error:
        raise UnreadableAnswer(f"the body of {len(body)} bytes is no JSON: {one_line(str(error))}") from error
    if not isinstance(answer, dict):
        raise UnreadableAnswer(f"the body of {len(body)} bytes is JSON, but no object")
    return answer


def _read_items(answer: JsonObject) -> tuple[list[JsonValue], list[Problem]]:
    """Return what `data` holds, of which a look-up of a single thing makes no list, and the problems beside it."""
    problems = list(read_problems(answer))
    data = answer.get("data")
    if isinstance(data, list):
        return data, problems
    if isinstance(data, dict):
        return [data], problems
    if data is not None:
        problems.append(_unreadable("data", data, "neither a list nor an object"))
    return [], problems


def _unreadable(what: str, item: JsonValue, why: str) -> Problem:
    item_id = as_text(as_object(item).get("id")) or ""
    return Problem(
        title=f"Unreadable {what}",
        detail=f"The answer held a {what} that was left out: {why}.",
        kind=f"unreadable-{what}",
        resource_type=what,
        resource_id=one_line(item_id),
        section="data",
    )


# By which member the objects of `includes` are referred to.
_INCLUDED = {"media": "media_key", "tweets": "id", "posts": "id", "polls": "id", "places": "id", "users": "id"}

_Included = dict[str, dict[str, JsonObject]]


def _index_includes(answer: JsonObject) -> _Included:
    included: _Included = {}
    includes = answer.get("includes")
    if not isinstance(includes, dict):
        return included
    for section, key in _INCLUDED.items():
        by_key = {str(item.get(key)): item for item in as_list(includes.get(section)) if isinstance(item, dict)}
        if by_key:
            included[section] = by_key
    return included


def _included_tweet(tweet_id: JsonValue, included: _Included) -> JsonObject | None:
    for section in ("tweets", "posts"):
        if section in included and (tweet := included[section].get(str(tweet_id))) is not None:
            return tweet
    return None


def _read_tweet(item: JsonValue, included: _Included) -> Tweet | Problem:
    if not isinstance(item, dict):
        return _unreadable("tweet", item, "it is no JSON object")
    tweet_id = as_id(item.get("id"))
    if tweet_id is None:
        return _unreadable("tweet", item, "its id is missing or no number")
    try:
        raw = encode_json({**item, "includes": _includes_of(item, included)})
    except ValueError:
        return _unreadable("tweet", item, "it cannot be written as JSON again")
    references = _references_of(item)
    in_reply_to_user_id = as_id(item.get("in_reply_to_user_id"))
    metrics = as_object(item.get("public_metrics"))
    return Tweet(
        id=tweet_id,
        author_id=as_id(item.get("author_id")),
        created_at=as_instant(item.get("created_at")),
        text=_whole_text(item, references.get("retweeted"), included),
        kind=_kind_of(references, in_reply_to_user_id),
        lang=as_text(item.get("lang")),
        conversation_id=as_id(item.get("conversation_id")),
        in_reply_to_user_id=in_reply_to_user_id,
        in_reply_to_tweet_id=references.get("replied_to"),
        retweeted_tweet_id=references.get("retweeted"),
        quoted_tweet_id=references.get("quoted"),
        like_count=as_int(metrics.get("like_count")),
        retweet_count=as_int(_either(metrics, "retweet_count", "repost_count")),
        reply_count=as_int(metrics.get("reply_count")),
        quote_count=as_int(metrics.get("quote_count")),
        bookmark_count=as_int(metrics.get("bookmark_count")),
        impression_count=as_int(metrics.get("impression_count")),
        edit_history_ids=_ids(_either(item, "edit_history_tweet_ids", "edit_history_post_ids")),
        raw=raw,
    )


def _either(members: JsonObject, name: str, other_name: str) -> JsonValue:
    value = members.get(name)
    return members.get(other_name) if value is None else value


def _ids(value: JsonValue) -> tuple[int, ...]:
    return tuple([number for item in as_list(value) if (number := as_id(item)) is not None])


def _reference_items(item: JsonObject) -> list[JsonValue]:
    return as_list(_either(item, "referenced_tweets", "referenced_posts"))


def _references_of(item: JsonObject) -> dict[str, int]:
    """Return the ids of the tweets referred to, by the kind of reference: retweeted, replied_to, quoted."""
    references: dict[str, int] = {}
    for reference in _reference_items(item):
        if not isinstance(reference, dict):
            continue
        kind, referenced_id = reference.get("type"), as_id(reference.get("id"))
        if isinstance(kind, str) and referenced_id is not None:
            references.setdefault(kind, referenced_id)
    return references


def _kind_of(references: dict[str, int], in_reply_to_user_id: int | None) -> TweetKind:
    if "retweeted" in references:
        return TweetKind.RETWEET
    # A reply to a tweet that is gone may have lost its reference, but not the user it answers.
    if "replied_to" in references or in_reply_to_user_id is not None:
        return TweetKind.REPLY
    return TweetKind.QUOTE if "quoted" in references else TweetKind.ORIGINAL


_RETWEET_PREFIX = re.compile(r"RT @\w{1,50}: ", re.ASCII)


def _whole_text(item: JsonObject, retweeted_id: int | None, included: _Included) -> str:
    text = _own_text(item)
    if retweeted_id is None:
        return text
    prefix = _RETWEET_PREFIX.match(text)
    retweeted = _included_tweet(retweeted_id, included)
    if prefix is None or retweeted is None:
        return text
    return prefix[0] + _own_text(retweeted)


def _own_text(item: JsonObject) -> str:
    note = as_object(_either(item, "note_tweet", "note_post"))
    return as_text(note.get("text")) or as_text(item.get("text")) or ""


def _includes_of(item: JsonObject, included: _Included) -> JsonObject:
    """Return the part of the answer's `includes` that one tweet, or a tweet it refers to, points at."""
    found: JsonObject = {}
    if not included:
        return found
    referenced = [str(as_object(reference).get("id")) for reference in _reference_items(item)]
    tweets = [item, *(tweet for key in referenced if (tweet := _included_tweet(key, included)) is not None)]
    for section, by_key in included.items():
        keys_of = _POINTERS.get(section)
        keys = referenced if keys_of is None else [str(key) for tweet in tweets for key in keys_of(tweet)]
        objects: list[JsonValue] = [by_key[key] for key in dict.fromkeys(keys) if key in by_key]
        if objects:
            found[section] = objects
    return found


def _media_keys(item: JsonObject) -> Sequence[JsonValue]:
    return as_list(as_object(item.get("attachments")).get("media_keys"))


def _poll_ids(item: JsonObject) -> Sequence[JsonValue]:
    return as_list(as_object(item.get("attachments")).get("poll_ids"))


def _place_ids(item: JsonObject) -> Sequence[JsonValue]:
    return (as_object(item.get("geo")).get("place_id"),)


def _user_ids(item: JsonObject) -> Sequence[JsonValue]:
    return item.get("author_id"), item.get("in_reply_to_user_id")


# How a tweet points at the objects of a section; at other tweets it points by its references.
_POINTERS: Mapping[str, Callable[[JsonObject], Sequence[JsonValue]]] = {
    "media": _media_keys,
    "polls": _poll_ids,
    "places": _place_ids,
    "users": _user_ids,
}


def _read_each_user(items: list[JsonValue], problems: list[Problem]) -> tuple[User, ...]:
    """Read users in order, each once; what cannot be read is appended to `problems`."""
    users: dict[int, User] = {}
    for item in items:
        user = _read_user(item)
        if isinstance(user, Problem):
            problems.append(user)
        else:
            users.setdefault(user.id, user)
    return tuple(users.values())


def _read_user(item: JsonValue) -> User | Problem:
    if not isinstance(item, dict):
        return _unreadable("user", item, "it is no JSON object")
    user_id, username = as_id(item.get("id")), as_text(item.get("username"))
    if user_id is None or not username:
        return _unreadable("user", item, "its id or username is missing or of a wrong type")
    try:
        raw = encode_json(item)
    except ValueError:
        return _unreadable("user", item, "it cannot be written as JSON again")
    metrics = as_object(item.get("public_metrics"))
    return User(
        id=user_id,
        username=username,
        name=as_text(item.get("name")) or username,
        created_at=as_instant(item.get("created_at")),
        description=as_text(item.get("description")),
        location=as_text(item.get("location")),
        protected=as_bool(item.get("protected")) or False,
        verified=as_bool(item.get("verified")),
        verified_type=as_text(item.get("verified_type")),
        followers_count=as_int(metrics.get("followers_count")),
        following_count=as_int(metrics.get("following_count")),
        tweet_count=as_int(_either(metrics, "tweet_count", "post_count")),
        listed_count=as_int(metrics.get("listed_count")),
        profile_image_url=as_text(item.get("profile_image_url")),
        most_recent_tweet_id=as_id(_either(item, "most_recent_tweet_id", "most_recent_post_id")),
        raw=raw,
    )
