"""The truth of the sandbox: who exists, what they have tweeted by when, under which name."""

import time
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any, Final, overload

import orjson

from twitter_pipeline.sandbox.accounts import (
    FRIENDS,
    Account,
    AccountSpec,
    Availability,
    Kind,
    Naming,
    account_of,
    key_of,
)
from twitter_pipeline.sandbox.blueprints import VARIANTS, Blueprint, Composer, blueprint, slot, tweet_of
from twitter_pipeline.sandbox.dice import throw
from twitter_pipeline.sandbox.rendering import KEPT_PAGE_BYTES, Renderer
from twitter_pipeline.sandbox.snowflakes import (
    EPOCH_MS,
    MAX_ID,
    SNOWFLAKES_SINCE_MS,
    created_ms_of,
    tag_of,
    tweet_id_at,
)
from twitter_pipeline.sandbox.tweets import Tweet, timestamp
from twitter_pipeline.sandbox.vocabulary import TWEET_FIELDS, Selection

SERVED_TWEETS: Final = 3_200
"""How far back a timeline reaches (docs.x.com, x-api/posts/timelines/integrate)."""

_CHANCE_SALT: Final = 0xC0FFEE
_KEPT_RENDERERS: Final = 32
_EVERYTHING: Final = Selection(
    tweet=frozenset(TWEET_FIELDS),
    user=frozenset(),
    media=frozenset(),
    poll=frozenset(),
    place=frozenset(),
    expansions=frozenset(),
    posts=False,
)


class WrittenIds(Sequence[int]):
    """The ids of an account's first tweets, oldest first, computed when they are looked at."""

    def __init__(self, account: Account, count: int) -> None:
        self.account = account
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self.account.tweet_id(number) for number in range(*index.indices(self._count))]
        return self.account.tweet_id(range(self._count)[index])

    def below(self, tweet_id: int) -> int:
        """Count the ids that are less than one, without looking at any of the others."""
        near = min(self._count, max(0, self.account.count_until(created_ms_of(tweet_id)) - 1))
        while near < self._count and self[near] < tweet_id:
            near += 1
        return near


def count_below(ids: Sequence[int], tweet_id: int) -> int:
    """Count the ids that are less than one; they come oldest first."""
    return ids.below(tweet_id) if isinstance(ids, WrittenIds) else bisect_left(ids, tweet_id)


@dataclass(frozen=True, slots=True)
class _Script:
    """What a test has done to an account beyond its habits."""

    posted: tuple[Tweet, ...] = ()
    deleted_at: Mapping[int, float] | None = None


class World:
    """A world of made-up accounts, wholly determined by its seed, its accounts and the clock.

    Every username that X would allow is an account. Configured accounts have exactly their `tweets` at
    `started_at` (default: when the world is made); give it when several processes must see the same.
    The others depend on the seed and their name alone.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        clock: Callable[[], float] = time.time,
        accounts: Sequence[AccountSpec] = (),
        started_at: float | None = None,
        page_cache_bytes: int = KEPT_PAGE_BYTES,
    ) -> None:
        self.seed = seed
        self.clock = clock
        self.started_at = clock() if started_at is None else started_at
        if self.started_at * 1000 < EPOCH_MS:
            raise ValueError("a world cannot start before tweet ids carry the time, in November 2010")
        self._lock = RLock()
        self._accounts: dict[str, Account] = {}
        self._keys_by_id: dict[int, str] = {}
        self._keys_by_tag: dict[int, list[str]] = {}
        self._keys_by_name: dict[str, list[str]] = {}
        self._scripts: dict[str, _Script] = {}
        self._posted: dict[int, Tweet] = {}
        self._renderers: dict[Selection, Renderer] = {}
        self._page_cache_bytes = page_cache_bytes
        self._of_friends: dict[int, Tweet] = {}
        self._users: dict[str, tuple[tuple[Account, int, str], dict[str, Any]]] = {}
        for spec in accounts:
            self._settle(spec)
        self._friends = [self._known(name) for name in FRIENDS]

    # What there is

    def tweet_ids(self, username: str, at: float | None = None) -> list[int]:
        """List everything of an account that exists at an instant (default: now), newest first."""
        return list(self.existing(self._required(username), at))[::-1]

    def served_ids(self, username: str) -> list[int]:
        """List what the timeline can serve now: the newest 3,200, newest first."""
        return list(self.existing(self._required(username))[-SERVED_TWEETS:])[::-1]

    def user(self, username: str) -> dict[str, Any] | None:
        """Give a user with all public fields, or None when no account has that name now."""
        account = self.account_named(username)
        return None if account is None else self.user_of(account)

    def tweet(self, tweet_id: int) -> dict[str, Any] | None:
        """Give a tweet with all public fields in the old vocabulary, or None when there is none now."""
        tweet = self.tweet_with(tweet_id)
        return (
            None
            if tweet is None
            else orjson.loads(self.renderer_for(_EVERYTHING).tweet(tweet, int(self.clock() * 1000)))
        )

    # What happens

    def post(
        self,
        username: str,
        *,
        text: str,
        at: float | None = None,
        reply_to: int | None = None,
        quote_of: int | None = None,
        retweet_of: int | None = None,
    ) -> int:
        """Let an account tweet at an instant (default: now); give the id."""
        author = self._required(username)
        references = {"replied_to": reply_to, "quoted": quote_of, "retweeted": retweet_of}
        reference, target_id = next(((k, v) for k, v in references.items() if v is not None), (None, None))
        target = None if target_id is None else self.tweet_with(target_id)
        with self._lock:
            created_ms = int((self.clock() if at is None else at) * 1000)
            while (tweet_id := tweet_id_at(created_ms, author.tag)) in self._posted or self._written_with(tweet_id):
                created_ms += 1
            design = _scripted(text, reference)
            chance = throw(author.seed, tweet_id)
            lost = target_id is not None and target is None
            tweet = Tweet(tweet_id, created_ms, author, 0, chance, design, target, target_id, lost)
            script = self._scripts.get(author.key, _Script())
            posted = sorted((*script.posted, tweet), key=lambda other: other.id)
            self._posted[tweet_id] = tweet
            self._scripts[author.key] = replace(script, posted=tuple(posted))
            self._changed()
        return tweet_id

    def delete(self, tweet_id: int) -> None:
        """Delete a tweet now."""
        tweet = self.tweet_with(tweet_id)
        if tweet is None:
            raise KeyError(f"there is no tweet {tweet_id}")
        with self._lock:
            script = self._scripts.get(tweet.author.key, _Script())
            deleted_at = {**(script.deleted_at or {}), tweet_id: self.clock()}
            self._scripts[tweet.author.key] = replace(script, deleted_at=deleted_at)
            self._changed()

    def rename(self, username: str, new_username: str) -> None:
        """Give an account another name from now on; its id stays, and the old name is nobody's until it is given."""
        with self._lock:
            account = self._required(username)
            namings = (*account.namings, Naming(self.clock(), new_username))
            self._keep(replace(account, namings=namings))
            self._changed()

    def set_availability(self, username: str, availability: Availability) -> None:
        """Protect, suspend, remove or restore an account."""
        with self._lock:
            self._keep(replace(self._required(username), availability=availability))
            self._changed()

    # What the API looks up

    def account_named(self, username: str, at: float | None = None) -> Account | None:
        """Find who has a name at an instant (default: now), in whatever case it is written."""
        name = username.lower()
        now = self.clock() if at is None else at
        self._known(name)
        holders = [self._accounts[key] for key in self._keys_by_name[name]]
        present = [holder for holder in holders if holder.username_at(now).lower() == name]
        account = max(present, key=lambda holder: holder.namings[-1].since, default=None)
        return None if account is None or account.availability == "missing" else account

    def account_with(self, user_id: int) -> Account | None:
        """Find the account with an id."""
        key = self._keys_by_id.get(user_id)
        if key is None:
            key = key_of(self.seed, user_id)
            if key is None or self._known(key).user_id != user_id:
                return None
        account = self._accounts[key]
        return None if account.availability == "missing" else account

    def existing(self, account: Account, at: float | None = None) -> Sequence[int]:
        """Give the ids of all tweets of an account that exist at an instant (default: now), oldest first."""
        now = self.clock() if at is None else at
        now_ms = int(now * 1000)
        written = WrittenIds(account, account.count_until(now_ms))
        script = self._scripts.get(account.key)
        if script is None:
            return written
        ids = list(written)
        for tweet in script.posted:
            if tweet.created_ms <= now_ms:
                insort(ids, tweet.id)
        gone = {tweet_id for tweet_id, deleted_at in (script.deleted_at or {}).items() if deleted_at <= now}
        return [tweet_id for tweet_id in ids if tweet_id not in gone] if gone else ids

    def tweets_in(self, ids: Sequence[int], start: int, stop: int) -> list[Tweet]:
        """Give the tweets of a stretch of `existing`, oldest first."""
        if isinstance(ids, WrittenIds):
            return [self._written(ids.account, number) for number in range(start, stop)]
        found = (self._posted_with(tweet_id) or self._written_with(tweet_id) for tweet_id in ids[start:stop])
        return [tweet for tweet in found if tweet is not None]

    def tweet_with(self, tweet_id: int) -> Tweet | None:
        """Find a tweet that exists now, of whatever account the world has heard of."""
        if not 0 < tweet_id <= MAX_ID:
            return None
        tweet = self._posted_with(tweet_id) or self._written_with(tweet_id)
        if tweet is None or tweet.created_ms > self.clock() * 1000 or self._is_deleted(tweet):
            return None
        return tweet

    def foreign_tweet(self, tweet_id: int, *, known: Collection[int]) -> Tweet:
        """Return a tweet with this id by an account whose user id is not among the `known` ones.

        It is not part of the world: no account has it on its timeline, and it cannot be looked up.
        """
        author = next(friend for friend in self._friends if friend.user_id not in known)
        created_ms = created_ms_of(tweet_id)
        chance = throw(author.seed ^ _CHANCE_SALT, tweet_id)
        design = blueprint(self.seed, "original", chance >> 10 & VARIANTS - 1, False)
        return Tweet(tweet_id, created_ms, author, author.count_until(created_ms), chance, design)

    def user_of(self, account: Account) -> dict[str, Any]:
        """Give an account's user object with all public fields, in the old vocabulary; the same one while it holds."""
        now = self.clock()
        if account.key in self._scripts:
            return self._user(account, account.username_at(now), self.existing(account, now))
        count, username = account.count_until(int(now * 1000)), account.username_at(now)
        known = self._users.get(account.key)
        if known is None or known[0] != (account, count, username):
            user = self._user(account, username, WrittenIds(account, count))
            known = self._users[account.key] = ((account, count, username), user)
        return known[1]

    def _user(self, account: Account, username: str, ids: Sequence[int]) -> dict[str, Any]:
        followers = throw(account.seed, 99) % 1_000_000 >> throw(account.seed, 98) % 16
        user: dict[str, Any] = {
            "id": str(account.user_id),
            "name": f"{username.replace('_', ' ').title()} (sandbox)",
            "username": username,
            "created_at": timestamp(int(account.created_at)).decode(),
            "description": "Made-up account of the sandbox. Nobody is behind it.",
            "location": "Sandbox",
            "url": f"https://sandbox.example/{username}",
            "profile_image_url": "https://media.sandbox.example/profile_normal.png",
            "protected": account.availability == "protected",
            "verified": followers > 100_000,
            "verified_type": "blue" if followers > 100_000 else "none",
            "public_metrics": {
                "followers_count": followers,
                "following_count": throw(account.seed, 97) % 2_000,
                "tweet_count": len(ids),
                "listed_count": followers >> 7,
                "like_count": throw(account.seed, 96) % 20_000,
                "media_count": len(ids) // 5,
            },
        }
        if ids:
            user["most_recent_tweet_id"] = str(ids[-1])
            user["pinned_tweet_id"] = str(ids[len(ids) // 2])
        return user

    def renderer_for(self, selection: Selection) -> Renderer:
        """Give the renderer of a selection of fields."""
        renderer = self._renderers.get(selection)
        if renderer is None:
            if len(self._renderers) >= _KEPT_RENDERERS:
                self._renderers.clear()
            renderer = self._renderers[selection] = Renderer(selection, page_cache_bytes=self._page_cache_bytes)
        return renderer

    # How it comes about

    def _required(self, username: str) -> Account:
        account = self.account_named(username)
        if account is not None:
            return account
        keys = self._keys_by_name[username.lower()]
        known = self._accounts[keys[0]]
        if known.availability == "missing" and known.key == username.lower():
            return known
        raise KeyError(f"no account is called @{username} now")

    def _known(self, key: str) -> Account:
        """Give the account made for a name; the first mention makes it."""
        account = self._accounts.get(key)
        if account is not None:
            return account
        with self._lock:
            if key in self._keys_by_name and key not in self._accounts:
                return self._accounts[self._keys_by_name[key][0]]
            return self._accounts.get(key) or self._settle(AccountSpec(key))

    def _settle(self, spec: AccountSpec) -> Account:
        account = account_of(self.seed, spec, started_at=self.started_at)
        if account.key in self._accounts:
            raise ValueError(f"@{spec.username} is configured twice")
        return self._keep(account)

    def _keep(self, account: Account) -> Account:
        key = account.key
        if self._keys_by_id.setdefault(account.user_id, key) != key:
            raise ValueError(f"two accounts with the id {account.user_id}")
        for naming in account.namings:
            holders = self._keys_by_name.setdefault(naming.username.lower(), [])
            if key not in holders:
                holders.append(key)
        tagged = self._keys_by_tag.setdefault(account.tag, [])
        if key not in tagged:
            tagged.append(key)
        self._accounts[key] = account
        return account

    def _changed(self) -> None:
        """Forget what was kept for speed."""
        self._friends = [self._accounts[friend.key] for friend in self._friends]
        self._of_friends.clear()
        for renderer in self._renderers.values():
            renderer.forget()

    def _written(self, author: Account, number: int) -> Tweet:
        """Give the tweet that an account writes as its `number`th by itself."""
        created_ms = author.created_ms(number)
        chance = throw(author.seed ^ _CHANCE_SALT, number)
        kind, thread = _kind_of(author, chance)
        target = self._target(author, number, created_ms, chance, thread=thread) if kind != "original" else None
        if target is None:
            kind, thread = "original", False
        variant = chance >> 10 & VARIANTS - 1
        if kind == "retweet" and target is not None:
            variant = target.chance >> 10 & VARIANTS - 1
        design = blueprint(self.seed, kind, variant, thread)
        tweet_id = tweet_id_at(created_ms, author.tag)
        if target is None:
            return Tweet(tweet_id, created_ms, author, number, chance, design)
        vanished = kind != "retweet" and not thread and chance >> 28 & 31 == 0
        target_id, lost = target.id ^ vanished, vanished or self._is_deleted(target)
        return Tweet(tweet_id, created_ms, author, number, chance, design, target, target_id, lost)

    def _target(self, author: Account, number: int, created_ms: int, chance: int, *, thread: bool) -> Tweet | None:
        """Choose what a tweet refers to: the author's last one, or a friend's that is at most some weeks older."""
        if thread:
            return self._written(author, number - 1) if number else None
        friend = self._friends[chance >> 17 & 31]
        before = friend.count_until(created_ms - 1) - 1 - (chance >> 22 & 7)
        return self._of_friend(friend, before) if before >= 0 else None

    def _of_friend(self, friend: Account, number: int) -> Tweet:
        """Give a friend's tweet; the few there are all accounts refer to, so they are kept."""
        place = friend.seed ^ number
        tweet = self._of_friends.get(place)
        if tweet is None:
            tweet = self._of_friends[place] = self._written(friend, number)
        return tweet

    def _written_with(self, tweet_id: int) -> Tweet | None:
        """Find the tweet with an id among those that accounts write by themselves."""
        created_ms = created_ms_of(tweet_id)
        keys = (
            self._keys_by_tag.get(tag_of(tweet_id), ()) if created_ms >= SNOWFLAKES_SINCE_MS else list(self._accounts)
        )
        for key in keys:
            account = self._accounts[key]
            # A running number knows only its second.
            number = account.count_until(created_ms if created_ms >= SNOWFLAKES_SINCE_MS else created_ms + 999) - 1
            if number >= 0 and account.tweet_id(number) == tweet_id:
                return self._written(account, number)
        return None

    def _posted_with(self, tweet_id: int) -> Tweet | None:
        tweet = self._posted.get(tweet_id)
        return None if tweet is None else tweet._replace(author=self._accounts[tweet.author.key])

    def _is_deleted(self, tweet: Tweet) -> bool:
        script = self._scripts.get(tweet.author.key)
        deleted_at = (script.deleted_at or {}).get(tweet.id) if script else None
        return deleted_at is not None and deleted_at <= self.clock()


def _kind_of(author: Account, chance: int) -> tuple[Kind, bool]:
    """Choose the kind of a tweet, and whether a reply goes to its own author."""
    draw = chance & 1023
    original, reply, retweet = author.kind_limits
    if draw < original:
        return "original", False
    if draw < reply:
        return "reply", chance >> 33 & 3 == 0
    return ("retweet" if draw < retweet else "quote"), False


def _scripted(text: str, reference: str | None) -> Blueprint:
    """Make the blueprint of a tweet whose text a test has given."""
    composer = Composer()
    composer.say(text)
    tweet = tweet_of(composer, language="en", reference=reference)
    if reference == "replied_to":
        tweet["in_reply_to_user_id"] = slot("ref_user_id")
    return Blueprint(tweet=tweet, reference=reference)
