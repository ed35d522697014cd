"""The answers to calls that were let through: users, timelines, tweets, search, counts, usage."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, Final, Protocol

import orjson

from twitter_pipeline.sandbox import problems
from twitter_pipeline.sandbox import windows as at
from twitter_pipeline.sandbox.accounts import Account
from twitter_pipeline.sandbox.faults import FaultKind, Faults
from twitter_pipeline.sandbox.pages import TOP, Position, position_in, token_of
from twitter_pipeline.sandbox.parameters import Refused, instant
from twitter_pipeline.sandbox.problems import Problem, invalid_value
from twitter_pipeline.sandbox.rendering import WrittenPage, body_of
from twitter_pipeline.sandbox.search_query import SearchQuery, read_query
from twitter_pipeline.sandbox.snowflakes import EPOCH_MS, created_ms_of, first_id_at
from twitter_pipeline.sandbox.tweets import Tweet, timestamp
from twitter_pipeline.sandbox.vocabulary import Selection, renamed, selection_of
from twitter_pipeline.sandbox.world import World, WrittenIds, count_below

_JSON: Final = "application/json; charset=utf-8"
_WEEK_S: Final = 7 * 86_400.0
_DAY_MS: Final = 86_400_000
_BUCKETS_MS: Final = {"minute": 60_000, "hour": 3_600_000, "day": _DAY_MS}
_COUNTED_DAYS: Final = 31
_COUNTED_UNASKED_DAYS: Final = 30
_SEARCH_LAG_S: Final = 30.0
_SEARCHABLE_AFTER_S: Final = 10.0
_LASTING_AFTER_S: Final = 2 * 86_400.0
"""Polls close a day after they were opened; nothing else in a tweet of the sandbox changes."""

_REACH_WITHOUT_REPLIES: Final = 800

_PROJECT_ID: Final = "1000000000000000001"
_APP_ID: Final = "12345678"
_FIRST_DAY: Final = date(1970, 1, 1)

_RECENT: Final = frozenset({at.SEARCH_RECENT, at.COUNTS_RECENT})
_PAGED: Final = frozenset({at.USER_TWEETS, at.SEARCH_RECENT, at.SEARCH_ALL})

_INSTEAD: Final[Mapping[FaultKind, Problem]] = {
    "empty_object": {},
    "bare_meta": {"meta": {}},
    "flat_problem": problems.about_blank(503, "Service Unavailable"),
    "only_errors": {"errors": [problems.internal_error()]},
}
"""What comes with status 200 instead of a page."""

_OTHER_TOKENS: Final[frozenset[FaultKind]] = frozenset({"no_next_token", "same_page", "alternating_tokens"})
"""The faults after which a page does not lead to the next one."""

_REWRITING: Final[frozenset[FaultKind]] = frozenset(
    {"out_of_order", "swapped", "pinned_first", "foreign_tweet", "unreadable_tweet", "thin_tweets"}
)
"""The faults that change the tweets of a page, which then must not be kept for other calls."""


class Stream(Protocol):
    """A body that goes on as time does."""

    @property
    def was_cut(self) -> bool:
        """Whether it ended without the end that HTTP wants."""
        ...

    def take(self) -> bytes | None:
        """Give what is to be sent now, which may be nothing; None when it has ended."""
        ...

    def close(self) -> None:
        """Note that the client has gone, or that all was sent."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A body with its status, and what of it is charged."""

    status: int
    body: bytes
    post_ids: tuple[int, ...] = ()
    user_ids: tuple[int, ...] = ()
    content_type: str = _JSON
    stream: "Stream | None" = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call: what is asked, when, and what is to go wrong with it."""

    endpoint: str
    parameters: Mapping[str, str]
    now: float
    number: int
    mishaps: frozenset[FaultKind]
    faults: Faults
    posts_only: bool = False

    def having(self, parameters: Mapping[str, str]) -> "Call":
        """Give the call with its checked parameters."""
        return replace(self, parameters=parameters)

    def selection(self, *, of_users: bool = False) -> Selection:
        """Give the fields it chose."""
        return selection_of(self.parameters, of_users=of_users, posts_only=self.posts_only)

    def listed(self, name: str) -> list[str]:
        """Give a parameter that is a list, each value once."""
        return list(dict.fromkeys(self.parameters[name].split(",")))


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The ids asked for: above `since`, below `until`."""

    since: int
    until: int


@dataclass(frozen=True, slots=True)
class _Page:
    """A stretch of an account's ids, oldest first, and whether there are more on either side."""

    start: int
    stop: int
    older: bool
    newer: bool


class Answers:
    """Answers from a world."""

    def __init__(
        self,
        world: World,
        *,
        reach: int,
        visibility_delay_s: float,
        search_retweets: bool,
        posts_by_day: Callable[[], Mapping[int, int]],
    ) -> None:
        self._world = world
        self._reach = reach
        self._visibility_delay_s = visibility_delay_s
        self._search_retweets = search_retweets
        self._posts_by_day = posts_by_day
        self._by_endpoint: Mapping[str, Callable[[Call], Answer]] = {
            at.USERS_BY: self._users_by,
            at.USERS: self._users,
            at.USER_BY_NAME: self._user_by_name,
            at.USER: self._user,
            at.USER_TWEETS: self._timeline,
            at.TWEETS: self._tweets,
            at.TWEET: self._tweet,
            at.SEARCH_RECENT: self._search,
            at.SEARCH_ALL: self._search,
            at.COUNTS_RECENT: self._counts,
            at.COUNTS_ALL: self._counts,
            at.USAGE: self._usage,
        }

    def answer(self, call: Call) -> Answer:
        """Answer a call whose parameters were checked, or raise `Refused`."""
        if call.endpoint in _PAGED:
            for kind in _INSTEAD.keys() & call.mishaps:
                return Answer(200, orjson.dumps(_INSTEAD[kind]))
        return self._by_endpoint[call.endpoint](call)

    # Users

    def _users_by(self, call: Call) -> Answer:
        names = call.listed("usernames")
        return self._lookup(call, "usernames", {name: self._world.account_named(name) for name in names})

    def _users(self, call: Call) -> Answer:
        ids = call.listed("ids")
        return self._lookup(call, "ids", {user_id: self._world.account_with(int(user_id)) for user_id in ids})

    def _user_by_name(self, call: Call) -> Answer:
        name = call.parameters["username"]
        return self._lookup(call, "username", {name: self._world.account_named(name)}, single=True)

    def _user(self, call: Call) -> Answer:
        user_id = call.parameters["id"]
        return self._lookup(call, "id", {user_id: self._world.account_with(int(user_id))}, single=True)

    def _lookup(
        self, call: Call, parameter: str, found: Mapping[str, Account | None], *, single: bool = False
    ) -> Answer:
        selection = call.selection(of_users=True)
        accounts = [account for account in found.values() if account and account.availability != "suspended"]
        accounts = list({account.user_id: account for account in accounts}.values())
        errors = [
            problems.missing("user", parameter, value) if account is None else problems.suspended(parameter, value)
            for value, account in found.items()
            if account is None or account.availability == "suspended"
        ]
        renderer = self._world.renderer_for(selection)
        tweets = self._expanded_tweets(accounts, selection)
        now_ms = int(call.now * 1000)
        members = renderer.users(accounts, user_of=self._world.user_of, tweets=tweets, now_ms=now_ms)
        if single and "data" in members:
            members["data"] = members["data"][1:-1]
        if errors:
            members["errors"] = renderer.errors(errors)
        return Answer(200, body_of(members), user_ids=tuple(account.user_id for account in accounts))

    def _expanded_tweets(self, accounts: Sequence[Account], selection: Selection) -> list[Tweet]:
        names = [name for name in ("most_recent_tweet_id", "pinned_tweet_id") if name in selection.expansions]
        if not names:
            return []
        users = [self._world.user_of(account) for account in accounts if account.availability == "active"]
        ids = {int(user[name]): None for user in users for name in names if name in user}
        return [tweet for tweet_id in ids if (tweet := self._world.tweet_with(tweet_id))]

    # Timelines

    def _timeline(self, call: Call) -> Answer:
        user_id = call.parameters["id"]
        account = self._world.account_with(int(user_id))
        if account is None:
            return self._only_errors(call, problems.missing("user", "id", user_id))
        if account.availability == "suspended":
            return self._only_errors(call, problems.suspended("id", user_id))
        if account.availability == "protected":
            return self._only_errors(call, problems.not_authorized("user", "id", user_id))
        listing = f"{call.endpoint}/{user_id}"
        position = _position(call, listing, "pagination_token")
        ids = self._visible(account, call)
        page = self._cut(call, ids, position)
        if empty := _emptied(call, position, listing, holds_tweets=page.stop > page.start):
            return empty
        regular = None
        if page.older:
            other = ids[page.start - 1] if _swaps(call, page) else 0
            regular = Position("older", ids[page.start], swapped_with=other)
        newest = ids[page.stop - 1] if page.stop else 0
        meta = _token_meta(_following(call, position, regular, newest), listing)
        if page.newer:
            meta["previous_token"] = token_of(Position("newer", newest), listing)
        return _paged(self._written(call, account, ids, page, position), meta)

    def _written(
        self, call: Call, account: Account, ids: Sequence[int], page: _Page, position: Position
    ) -> WrittenPage:
        """Write the tweets of a page, or take them as written before when nothing in them can have changed."""
        renderer = self._world.renderer_for(call.selection())
        lasting = (
            isinstance(ids, WrittenIds)
            and not renderer.selection.brings_users
            and _REWRITING.isdisjoint(call.mishaps)
            and not position.swapped_with
            and "exclude" not in call.parameters
            and page.stop > page.start
            and account.created_ms(page.stop - 1) < (call.now - _LASTING_AFTER_S) * 1000
        )
        place = (account, account.username_at(call.now), page.start, page.stop)
        if lasting and (kept := renderer.kept(place)):
            return kept
        tweets = self._world.tweets_in(ids, page.start, page.stop)[::-1]
        if _swaps(call, page):
            tweets[-1:] = self._world.tweets_in(ids, page.start - 1, page.start)
        written = self._write(call, _without(call, self._swapped_back(position, tweets)), [account])
        if lasting:
            renderer.keep(place, written)
        return written

    def _only_errors(self, call: Call, problem: Problem) -> Answer:
        return Answer(200, body_of({"errors": self._world.renderer_for(call.selection()).errors([problem])}))

    def _swapped_back(self, position: Position, tweets: list[Tweet]) -> list[Tweet]:
        """Return a page's tweets with the one first that the page before left out, and without the one it showed."""
        if not position.swapped_with:
            return tweets
        held = self._world.tweet_with(position.tweet_id)
        gone = held is None or held.author.availability != "active" or any(tweet.id == held.id for tweet in tweets)
        first = [] if held is None or gone else [held]
        return [*first, *(tweet for tweet in tweets if tweet.id != position.swapped_with)]

    def _visible(self, account: Account, call: Call) -> Sequence[int]:
        """Give the ids that can be seen by now, oldest first."""
        ids = self._world.existing(account, call.now - self._visibility_delay_s)
        if not call.faults.late_rate:
            return ids
        fresh = count_below(ids, first_id_at(int((call.now - call.faults.late_s) * 1000)))
        kept = [tweet_id for tweet_id in ids[fresh:] if not call.faults.is_late(tweet_id)]
        return ids if len(kept) == len(ids) - fresh else [*ids[max(0, fresh - self._reach) : fresh], *kept]

    def _cut(self, call: Call, ids: Sequence[int], position: Position) -> _Page:
        """Find the page of a timeline: the reach first, then what was asked for, then one page of that."""
        excluded = call.parameters.get("exclude", "").split(",")
        reach = min(self._reach, _REACH_WITHOUT_REPLIES) if "replies" in excluded else self._reach
        bounds = _bounds(call)
        least = max(0, len(ids) - reach, count_below(ids, bounds.since + 1))
        most = max(least, count_below(ids, bounds.until))
        size = _size(call)
        if position.direction == "newer":
            start = max(least, count_below(ids, position.tweet_id + 1))
            stop = min(most, start + size)
            return _Page(start, stop, older=start > least, newer=stop < most)
        stop = max(least, min(most, count_below(ids, position.tweet_id)))
        start = max(least, stop - size)
        if "duplicates" in call.mishaps and "empty_page" not in call.mishaps and least < stop < most:
            # The page brings one tweet of the page before again, and still something new: a walk never stands still.
            start, stop = min(stop - 1, max(least, stop + 1 - size)), stop + 1
        return _Page(start, stop, older=start > least, newer=stop < most)

    def _write(self, call: Call, tweets: Sequence[Tweet], accounts: Sequence[Account]) -> WrittenPage:
        """Write the tweets of a page, which come newest first, and what belongs to them."""
        pinned = self._pinned(call, tweets, accounts) if "pinned_first" in call.mishaps else None
        if "foreign_tweet" in call.mishaps and tweets:
            tweets = self._with_foreign(tweets, accounts)
        if "out_of_order" in call.mishaps and len(tweets) > 1:
            tweets = [*tweets[1:], tweets[0]]
        if pinned:
            tweets = [pinned, *(tweet for tweet in tweets if tweet.id != pinned.id)]
        renderer = self._world.renderer_for(call.selection())
        members = renderer.page(tweets, user_of=self._world.user_of, now_ms=int(call.now * 1000))
        page = WrittenPage(tuple(tweet.id for tweet in tweets), members)
        if "thin_tweets" in call.mishaps:
            page = page.thinned()
        if "unreadable_tweet" in call.mishaps and page.ids:
            page = page.without_id(call.faults.unreadable(page.ids))
        return page

    def _pinned(self, call: Call, tweets: Sequence[Tweet], accounts: Sequence[Account]) -> Tweet | None:
        """Return the oldest tweet of the page's first author, or else of the first account that has tweets."""
        late_from = first_id_at(int((call.now - call.faults.late_s) * 1000))
        for account in [tweet.author for tweet in tweets[:1]] or accounts:
            ids = self._world.existing(account, call.now - self._visibility_delay_s)
            for number, tweet_id in enumerate(ids):
                if tweet_id < late_from or not call.faults.is_late(tweet_id):
                    return self._world.tweets_in(ids, number, number + 1)[0]
        return None

    def _with_foreign(self, tweets: Sequence[Tweet], accounts: Sequence[Account]) -> list[Tweet]:
        """Put a tweet of an account that was not asked for into the widest gap, or below the only tweet."""
        gaps = [newer.id - older.id for newer, older in pairwise(tweets)]
        widest = max(gaps, default=2)
        place = gaps.index(widest) if gaps else 0
        known = {account.user_id for account in accounts}
        foreign = self._world.foreign_tweet(tweets[place].id - widest // 2, known=known)
        return [*tweets[: place + 1], foreign, *tweets[place + 1 :]]

    # Tweets

    def _tweets(self, call: Call) -> Answer:
        return self._tweet_lookup(call, "ids", call.listed("ids"))

    def _tweet(self, call: Call) -> Answer:
        return self._tweet_lookup(call, "id", [call.parameters["id"]])

    def _tweet_lookup(self, call: Call, parameter: str, ids: Sequence[str]) -> Answer:
        tweets: list[Tweet] = []
        errors: list[Problem] = []
        for tweet_id in ids:
            tweet = self._world.tweet_with(int(tweet_id))
            if tweet is None or tweet.author.availability == "missing":
                errors.append(problems.missing("tweet", parameter, tweet_id))
            elif tweet.author.availability == "suspended":
                errors.append(problems.suspended(parameter, tweet_id))
            elif tweet.author.availability == "protected":
                errors.append(problems.not_authorized("tweet", parameter, tweet_id))
            else:
                tweets.append(tweet)
        renderer = self._world.renderer_for(call.selection())
        members = renderer.page(tweets, user_of=self._world.user_of, now_ms=int(call.now * 1000), problems=errors)
        if parameter == "id" and "data" in members:
            members["data"] = members["data"][1:-1]
        return Answer(200, body_of(members), post_ids=tuple(tweet.id for tweet in tweets))

    # Search

    def _search(self, call: Call) -> Answer:
        query, listing, position = self._read_search(call)
        accounts = self._searched(query.usernames)
        found = self._found(call, accounts, self._search_bounds(call, position))
        if empty := _emptied(call, position, listing, holds_tweets=bool(found)):
            return empty
        size = _size(call, 10)
        tweets = found[:size]
        page = _Page(0, len(tweets), older=len(found) > size, newer=False)
        regular = Position("older", tweets[-1].id) if page.older else None
        if regular and _swaps(call, page):
            regular = replace(regular, swapped_with=found[size].id)
            tweets[-1] = found[size]
        tweets = self._swapped_back(position, tweets)
        meta = _token_meta(_following(call, position, regular, found[0].id if found else 0), listing)
        if not (query.retweets and self._search_retweets):
            tweets = [tweet for tweet in tweets if tweet.blueprint.reference != "retweeted"]
        return _paged(self._write(call, tweets, accounts), meta)

    def _read_search(self, call: Call) -> tuple[SearchQuery, str, Position]:
        """Return the query, the listing that it pages through, and the place in that."""
        self._refuse_search(call)
        query = read_query(call.parameters["query"])
        if isinstance(query, str):
            raise Refused(invalid_value(f"the sandbox knows no search term [{query}]", query=call.parameters["query"]))
        listing = f"{call.endpoint}/{call.parameters['query']}"
        name = "next_token" if "next_token" in call.parameters else "pagination_token"
        return query, listing, _position(call, listing, name)

    def _refuse_search(self, call: Call) -> None:
        """Refuse what search does not take, though a timeline does."""
        given = call.parameters
        ids, times = {"since_id", "until_id"} & given.keys(), {"start_time", "end_time"} & given.keys()
        if ids and times:
            echo = {name: given[name] for name in sorted(ids | times)}
            message = "Invalid use of 'since_id' or 'until_id' in conjunction with 'start_time' or 'end_time'."
            raise Refused(invalid_value(message, **echo))
        for name in sorted(times):
            if instant(given[name]) > call.now - _SEARCHABLE_AFTER_S:
                message = (
                    f"Invalid '{name}':'{given[name]}'. "
                    f"'{name}' must be a minimum of 10 seconds prior to the request time."
                )
                raise Refused(invalid_value(message, **{name: given[name]}))
        if call.endpoint not in _RECENT:
            return
        oldest = call.now - _WEEK_S
        least = int(oldest * 1000) - EPOCH_MS << 22
        if "since_id" in given and int(given["since_id"]) < least:
            moment = datetime.fromtimestamp(oldest, UTC)
            message = (
                f"'since_id' must be a tweet id created after {moment:%Y-%m-%dT%H:%MZ}. "
                f"Please use a 'since_id' that is larger than {least}"
            )
            raise Refused(invalid_value(message, since_id=given["since_id"]))
        if "start_time" in given and instant(given["start_time"]) < oldest:
            moment = datetime.fromtimestamp(oldest, UTC)
            start = given["start_time"]
            message = f"Invalid 'start_time':'{start}'. 'start_time' must be on or after {moment:%Y-%m-%dT%H:%MZ}"
            raise Refused(invalid_value(message, start_time=start))

    def _search_bounds(self, call: Call, position: Position) -> _Bounds:
        bounds = _bounds(call)
        since, until = bounds.since, min(bounds.until, position.tweet_id)
        if call.endpoint in _RECENT:
            since = max(since, first_id_at(int((call.now - _WEEK_S) * 1000)) - 1)
        if not {"until_id", "end_time"} & call.parameters.keys():
            until = min(until, first_id_at(int((call.now - _SEARCH_LAG_S) * 1000)))
        return _Bounds(since, until)

    def _searched(self, usernames: Sequence[str]) -> list[Account]:
        """Return the accounts of a query whose tweets can be found."""
        accounts = map(self._world.account_named, usernames)
        return [account for account in accounts if account is not None and account.availability == "active"]

    def _found(self, call: Call, accounts: Sequence[Account], bounds: _Bounds) -> list[Tweet]:
        """Give the newest tweets of some accounts between two ids: one more than fit on the page, if there are."""
        size = _size(call, 10) + 1
        found: list[Tweet] = []
        for account in accounts:
            ids = self._visible(account, call)
            start, stop = count_below(ids, bounds.since + 1), count_below(ids, bounds.until)
            found += self._world.tweets_in(ids, max(start, stop - size), stop)
        found.sort(key=lambda tweet: tweet.id, reverse=True)
        return found[:size]

    # Counts

    def _counts(self, call: Call) -> Answer:
        """Count by minute, hour or day. A page has the newest 31 days, and its token leads to those before."""
        query, listing, position = self._read_search(call)
        bounds = self._search_bounds(call, position)
        end = created_ms_of(bounds.until)
        asked_from = created_ms_of(bounds.since + 1) if bounds.since else end - _COUNTED_UNASKED_DAYS * _DAY_MS
        bucket = _BUCKETS_MS[call.parameters.get("granularity", "hour")]
        start = max(asked_from, -(-(end - _COUNTED_DAYS * _DAY_MS) // bucket) * bucket)
        found = self._counted(call, query, _Bounds(max(bounds.since, first_id_at(start) - 1), bounds.until))
        counts = Counter(created_ms_of(tweet_id) // bucket for tweet_id in found)
        borders = [start, *range(start - start % bucket + bucket, end, bucket), end] if start < end else []
        data: list[dict[str, Any]] = [
            {"end": _instant(end), "start": _instant(start), "tweet_count": counts[start // bucket]}
            for start, end in pairwise(borders)
        ]
        following = Position("older", first_id_at(start)) if start > asked_from else None
        meta: dict[str, Any] = {"total_tweet_count": len(found), **_token_meta(following, listing)}
        if call.selection().posts or "post_count" in call.parameters.get("search_count.fields", ""):
            data, meta = [renamed(count) for count in data], renamed(meta)
        return Answer(200, orjson.dumps({"data": data, "meta": meta} if data else {"meta": meta}))

    def _counted(self, call: Call, query: SearchQuery, bounds: _Bounds) -> list[int]:
        """Return the ids of the tweets that a search finds between two ids."""
        found: list[int] = []
        for account in self._searched(query.usernames):
            ids = self._visible(account, call)
            start, stop = count_below(ids, bounds.since + 1), count_below(ids, bounds.until)
            if query.retweets and self._search_retweets:
                found += ids[start:stop]
            else:
                tweets = self._world.tweets_in(ids, start, stop)
                found += [tweet.id for tweet in tweets if tweet.blueprint.reference != "retweeted"]
        return found

    # Usage

    def _usage(self, call: Call) -> Answer:
        """Give what was read; the numbers are strings, as recorded (sns-sdks/python-twitter) and in OpenAPI 2.167."""
        chosen = call.parameters.get("usage.fields", "cap_reset_day,project_cap,project_id,project_usage").split(",")
        today = datetime.fromtimestamp(call.now, UTC).date()
        posts = {_FIRST_DAY + timedelta(days): count for days, count in self._posts_by_day().items()}
        days = [today - timedelta(age) for age in range(int(call.parameters.get("days", 7)))]
        daily = [{"date": f"{day}T00:00:00.000Z", "usage": str(posts.get(day, 0))} for day in reversed(days)]
        usage: dict[str, Any] = {
            "cap_reset_day": 31 - today.day,
            "daily_client_app_usage": [{"client_app_id": _APP_ID, "usage": daily, "usage_result_count": len(daily)}],
            "daily_project_usage": {"project_id": _PROJECT_ID, "usage": daily},
            "project_cap": "3000000",
            "project_id": _PROJECT_ID,
            "project_usage": str(sum(count for day, count in posts.items() if day >= today.replace(day=1))),
        }
        return Answer(200, orjson.dumps({"data": {name: usage[name] for name in chosen if name in usage}}))


def _paged(page: WrittenPage, meta: dict[str, Any]) -> Answer:
    """Put the meta to a page."""
    meta["result_count"] = len(page.ids)
    if page.ids:
        meta["newest_id"], meta["oldest_id"] = str(max(page.ids)), str(min(page.ids))
    return Answer(200, body_of({**page.members, "meta": orjson.dumps(meta)}), post_ids=page.ids)


def _empty(**meta: str) -> Answer:
    """Give the answer with nothing in it (academictwitteR users/17880989/mentions)."""
    return Answer(200, orjson.dumps({"meta": {"result_count": 0, **meta}}))


def _instant(ms: int) -> str:
    return timestamp(ms // 1000).decode()


def _position(call: Call, listing: str, name: str) -> Position:
    token = call.parameters.get(name)
    if token is None:
        return TOP
    position = position_in(token, listing)
    if position is None:
        raise Refused(invalid_value(f"The `{name}` query parameter value [{token}] is not valid", **{name: token}))
    return position


def _emptied(call: Call, position: Position, listing: str, *, holds_tweets: bool) -> Answer | None:
    """Return the empty answer that a fault leaves, if one does."""
    if "empty_answer" in call.mishaps:
        return _empty()
    if "endless_empty" in call.mishaps or ("empty_page" in call.mishaps and holds_tweets):
        return _empty(next_token=token_of(position.again(), listing))
    return None


def _swaps(call: Call, page: _Page) -> bool:
    """Decide whether the last tweet of a page changes places with the first of the next one."""
    swapped = "swapped" in call.mishaps and _OTHER_TOKENS.isdisjoint(call.mishaps)
    return swapped and page.older and page.stop - page.start > 1


def _following(call: Call, position: Position, regular: Position | None, newest: int) -> Position | None:
    """Return where the page token of an answer leads: to the `regular` next page, unless a fault changes that.

    `newest` is the first tweet of the page. It replaces the top, since new tweets would move a page that is asked for
    from there.
    """
    here = replace(position, tweet_id=newest + 1) if newest and position.tweet_id == TOP.tweet_id else position
    if "no_next_token" in call.mishaps:
        return None
    if "same_page" in call.mishaps:
        return here.again()
    if "alternating_tokens" in call.mishaps and position.direction == "older":
        if position.back_to:
            return Position("older", position.back_to, back_to=position.tweet_id)
        return regular and replace(regular, back_to=here.tweet_id)
    return regular


def _token_meta(following: Position | None, listing: str) -> dict[str, Any]:
    return {"next_token": token_of(following, listing)} if following else {}


def _bounds(call: Call) -> _Bounds:
    """Read the bounds; ids go before times, which on timelines may stand beside them."""
    given = call.parameters
    since, until = 0, TOP.tweet_id
    if "since_id" in given:
        since = int(given["since_id"])
    elif "start_time" in given:
        since = first_id_at(round(instant(given["start_time"]) * 1000)) - 1
    if "until_id" in given:
        until = int(given["until_id"])
    elif "end_time" in given:
        until = first_id_at(round(instant(given["end_time"]) * 1000))
    return _Bounds(since, until)


def _size(call: Call, default: int = 10) -> int:
    size = int(call.parameters.get("max_results", default))
    return call.faults.share(call.number, size) if "short_page" in call.mishaps else size


def _without(call: Call, tweets: list[Tweet]) -> list[Tweet]:
    """Leave out what was excluded; the page was cut before, so that it is shorter then, as X's are."""
    excluded = call.parameters.get("exclude")
    if not excluded:
        return tweets
    kinds = {"replies": "replied_to", "retweets": "retweeted"}
    unwanted = {kinds[name] for name in excluded.split(",")}
    return [tweet for tweet in tweets if tweet.blueprint.reference not in unwanted]
