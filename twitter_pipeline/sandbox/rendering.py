"""Tweets and users as the API's JSON, cut to the fields that a request chose."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final

import orjson

from twitter_pipeline.sandbox.accounts import Account
from twitter_pipeline.sandbox.blueprints import NUMBER_SLOTS, SLOTS, Blueprint
from twitter_pipeline.sandbox.problems import Problem, lost_reference, of_posts
from twitter_pipeline.sandbox.tweets import Tweet, Values, values_of
from twitter_pipeline.sandbox.vocabulary import Selection, chosen

_SLOT: Final = re.compile('"\ue000#(\\w+)\ue001"|\ue000(\\w+)\ue001'.encode())

_KEPT_TARGETS: Final = 40_000
KEPT_PAGE_BYTES: Final = 96_000_000

_THIN_FIELDS: Final = frozenset({"note_tweet", "note_post", "public_metrics"})
_THIN_INCLUDES: Final = frozenset({"tweets", "posts", "media"})

UserOf = Callable[[Account], dict[str, Any]]


class Template:
    """Bytes with slots, filled by one formatting operation."""

    def __init__(self, thing: object) -> None:
        names: list[str] = []

        def directive(found: re.Match[bytes]) -> bytes:
            name = (found[1] or found[2]).decode()
            names.append(name)
            if name in {"number", "ref_number"}:
                return b"%06d"
            return b"%d" if name in NUMBER_SLOTS else b"%b"

        self._format = _SLOT.sub(directive, orjson.dumps(thing).replace(b"%", b"%%"))
        self._pick: Callable[[Values], Any] = itemgetter(*map(SLOTS.index, names)) if names else _nothing

    def fill(self, values: Values) -> bytes:
        """Give the bytes for one tweet."""
        return self._format % self._pick(values)


def _nothing(_: Values) -> tuple[()]:
    return ()


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A blueprint cut to a selection."""

    tweet: Template
    media: tuple[Template, ...]
    poll: Template | None
    place: bytes | None
    place_id: str


@dataclass(frozen=True, slots=True)
class WrittenPage:
    """The tweets of a page and the members of its body, without `meta`."""

    ids: tuple[int, ...]
    members: dict[str, bytes]

    @property
    def size(self) -> int:
        """The bytes it takes."""
        return sum(map(len, self.members.values()))

    def thinned(self) -> "WrittenPage":
        """Return a poorer reading: no note, metrics or media, and none of the tweets that these ones refer to."""
        members = dict(self.members)
        if "data" in members:
            members["data"] = orjson.dumps([_thin(tweet) for tweet in orjson.loads(members["data"])])
        if "includes" in members:
            included: dict[str, Any] = orjson.loads(members.pop("includes"))
            if kept := {name: things for name, things in included.items() if name not in _THIN_INCLUDES}:
                members["includes"] = orjson.dumps(kept)
        return replace(self, members=members)

    def without_id(self, tweet_id: int) -> "WrittenPage":
        """Return the page with null for the id of one tweet. `ids` keeps it, since the tweet is there."""
        data: list[dict[str, Any]] = orjson.loads(self.members["data"])
        data[self.ids.index(tweet_id)]["id"] = None
        return replace(self, members={**self.members, "data": orjson.dumps(data)})


class Renderer:
    """Writes bodies for one selection of fields; shared by all requests to a world that choose the same."""

    def __init__(self, selection: Selection, *, page_cache_bytes: int = KEPT_PAGE_BYTES) -> None:
        self.selection = selection
        self._page_cache_bytes = page_cache_bytes
        self._compiled: dict[Blueprint, _Compiled] = {}
        self._users: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._targets: dict[int, tuple[bytes, list[bytes]]] = {}
        self._pages: dict[Hashable, WrittenPage] = {}
        self._kept_bytes = 0

    def page(
        self, tweets: Sequence[Tweet], *, user_of: UserOf, now_ms: int, problems: Sequence[Problem] = ()
    ) -> dict[str, bytes]:
        """Write the members `data`, `includes` and `errors` of an answer, each only when there is something in it."""
        includes = _Includes(self, user_of, now_ms)
        data = [self._tweet_with(includes, tweet) for tweet in tweets]
        errors = [*problems, *includes.problems]
        members: dict[str, bytes] = {}
        if data:
            members["data"] = _listed(data)
        if included := includes.members():
            members["includes"] = _object(included)
        if errors:
            members["errors"] = self.errors(errors)
        return members

    def users(
        self, accounts: Sequence[Account], *, user_of: UserOf, tweets: Sequence[Tweet], now_ms: int
    ) -> dict[str, bytes]:
        """Write the members `data` and `includes` of an answer about users."""
        members: dict[str, bytes] = {}
        if accounts:
            members["data"] = _listed([self.user(user_of(account)) for account in accounts])
        if tweets:
            written = [self.tweet(tweet, now_ms) for tweet in tweets]
            members["includes"] = _object({self.selection.name("tweets"): _listed(written)})
        return members

    def errors(self, problems: Sequence[Problem]) -> bytes:
        """Write the member `errors`."""
        return orjson.dumps([of_posts(problem) for problem in problems] if self.selection.posts else problems)

    def tweet(self, tweet: Tweet, now_ms: int) -> bytes:
        """Write one tweet without what belongs to it."""
        return self.compile(tweet.blueprint).tweet.fill(values_of(tweet, now_ms))

    def user(self, user: dict[str, Any]) -> bytes:
        """Write one user."""
        known = self._users.get(user["id"])
        if known is None or known[0] is not user:
            written = orjson.dumps(chosen(user, self.selection.user, posts=self.selection.posts))
            known = self._users[user["id"]] = (user, written)
        return known[1]

    def kept(self, place: Hashable) -> WrittenPage | None:
        """Give a page that was kept."""
        return self._pages.get(place)

    def keep(self, place: Hashable, page: WrittenPage) -> None:
        """Keep a page that will be the same whenever it is asked for, within the memory there is for that."""
        self._kept_bytes += page.size
        if self._kept_bytes > self._page_cache_bytes:
            self._pages.clear()
            self._kept_bytes = page.size
        self._pages[place] = page

    def target(self, tweet: Tweet, now_ms: int) -> tuple[bytes, list[bytes]]:
        """Write a tweet that others refer to, and its media; the same few are referred to again and again."""
        known = self._targets.get(tweet.id)
        if known is None:
            if len(self._targets) >= _KEPT_TARGETS:
                self._targets.clear()
            compiled, values = self.compile(tweet.blueprint), values_of(tweet, now_ms)
            media = [template.fill(values) for template in compiled.media]
            known = self._targets[tweet.id] = (compiled.tweet.fill(values), media)
        return known

    def forget(self) -> None:
        """Write everything anew from now on, because the world was changed."""
        self._targets.clear()
        self._pages.clear()
        self._kept_bytes = 0

    def _tweet_with(self, includes: "_Includes", tweet: Tweet) -> bytes:
        compiled, values = self.compile(tweet.blueprint), values_of(tweet, includes.now_ms)
        if self.selection.expansions:
            includes.add(tweet, compiled, values)
        return compiled.tweet.fill(values)

    def compile(self, blueprint: Blueprint) -> _Compiled:
        """Give a blueprint cut to the selection."""
        compiled = self._compiled.get(blueprint)
        if compiled is None:
            compiled = self._compiled[blueprint] = self._compile_now(blueprint)
        return compiled

    def _compile_now(self, blueprint: Blueprint) -> _Compiled:
        selection = self.selection
        place = chosen(blueprint.place, selection.place, posts=False) if blueprint.place else None
        return _Compiled(
            tweet=Template(chosen(blueprint.tweet, selection.tweet, posts=selection.posts)),
            media=tuple(Template(chosen(item, selection.media, posts=False)) for item in blueprint.media),
            poll=Template(chosen(blueprint.poll, selection.poll, posts=False)) if blueprint.poll else None,
            place=orjson.dumps(place) if place else None,
            place_id=place["id"] if place and blueprint.place else "",
        )


class _Includes:
    """What the tweets of a page refer to, each thing once."""

    def __init__(self, renderer: Renderer, user_of: UserOf, now_ms: int) -> None:
        self.now_ms = now_ms
        self.problems: list[Problem] = []
        self._renderer = renderer
        self._user_of = user_of
        self._expansions = renderer.selection.expansions
        self._users: dict[int, Account] = {}
        self._tweets: dict[int, bytes] = {}
        self._media: list[bytes] = []
        self._polls: list[bytes] = []
        self._places: dict[str, bytes] = {}

    def add(self, tweet: Tweet, compiled: _Compiled, values: Values) -> None:
        """Take what belongs to a tweet."""
        expansions = self._expansions
        if "author_id" in expansions or "username" in expansions:
            self._users[tweet.author.user_id] = tweet.author
        if compiled.media and "attachments.media_keys" in expansions:
            self._media += [template.fill(values) for template in compiled.media]
        if compiled.poll and "attachments.poll_ids" in expansions:
            self._polls.append(compiled.poll.fill(values))
        if compiled.place and "geo.place_id" in expansions:
            self._places[compiled.place_id] = compiled.place
        if tweet.blueprint.reference:
            self._add_target(tweet)

    def _add_target(self, tweet: Tweet) -> None:
        expansions, target = self._expansions, tweet.target
        if tweet.lost and tweet.target_id is not None and "referenced_tweets.id" in expansions:
            self.problems.append(lost_reference(tweet.target_id, posts=self._renderer.selection.posts))
        if target is None:
            return
        mentioned = tweet.blueprint.mentions_friend and "entities.mentions.username" in expansions
        answered = tweet.blueprint.reference == "replied_to" and "in_reply_to_user_id" in expansions
        if mentioned or answered or ("referenced_tweets.id.author_id" in expansions and not tweet.lost):
            self._users[target.author.user_id] = target.author
        if "referenced_tweets.id" in expansions and not tweet.lost and target.id not in self._tweets:
            self._add_tweet(target)

    def _add_tweet(self, tweet: Tweet) -> None:
        self._tweets[tweet.id], media = self._renderer.target(tweet, self.now_ms)
        if "referenced_tweets.id.attachments.media_keys" in self._expansions:
            self._media += media

    def members(self) -> dict[str, bytes]:
        """Write the members of `includes` that are not empty."""
        users = [self._renderer.user(self._user_of(account)) for account in self._users.values()]
        found: dict[str, Iterable[bytes]] = {
            "users": users,
            self._renderer.selection.name("tweets"): self._tweets.values(),
            "media": self._media,
            "polls": self._polls,
            "places": self._places.values(),
        }
        return {name: _listed(things) for name, things in found.items() if things}


def _thin(tweet: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in tweet.items() if name not in _THIN_FIELDS}
    attachments = {name: value for name, value in kept.pop("attachments", {}).items() if name != "media_keys"}
    return {**kept, "attachments": attachments} if attachments else kept


def body_of(members: dict[str, bytes]) -> bytes:
    """Write a whole body."""
    return _object(members)


def _listed(things: Iterable[bytes]) -> bytes:
    return b"[%b]" % b",".join(things)


def _object(members: dict[str, bytes]) -> bytes:
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), value) for name, value in members.items())
