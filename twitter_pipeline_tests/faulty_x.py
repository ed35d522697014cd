"""A model of X that answers wrongly on demand: accounts, a clock of its own, pages, and the faults that a test chooses.

The limits of its faults are those of any proof: it omits no single tweet from an otherwise regular page, it does not
give the same wrong answer to two requests `confirm_after` or more apart, and tweets that changed places across the
border of two pages come without a kill between them.
"""

import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from itertools import count
from math import ceil
from random import Random
from urllib.parse import parse_qs

import httpx
import orjson

from twitter_pipeline.coverage import id_at
from twitter_pipeline.planning import CONFIRM_AFTER
from twitter_pipeline.walks.evidence import REACH

CALL_TAKES = timedelta(seconds=1)
TOP = 2**63 - 1
STRANGER = 4_711


class Killed(BaseException):
    """The process is dead."""


@dataclass
class Clock:
    """The time of the model. Waiting moves it; it has whole seconds, as the Date header has."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by

    def event(self) -> threading.Event:
        """Return an event for which waiting takes the model's time only."""
        return _EventInModelTime(self)


class _EventInModelTime(threading.Event):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            self._clock.advance(timedelta(seconds=ceil(timeout or 0)))
        return self.is_set()


@dataclass
class Reaper:
    """Kills the process at a call or statement: `events_left` are those that it survives, None for all."""

    events_left: int | None = None
    is_dead: bool = False
    is_held_back: bool = False

    def pass_by(self) -> None:
        """Count an event; every one after the death raises Killed too."""
        if self.events_left is not None and not self.is_held_back:
            self.events_left -= 1
            self.is_dead = self.is_dead or self.events_left < 0
        if self.is_dead:
            raise Killed


class Kind(StrEnum):
    """How an answer is wrong, in the order in which several apply to one page."""

    HTTP_503 = "status 503"
    TRUNCATED = "JSON that breaks off"
    EMPTY_OBJECT = "{}"
    BARE_META = "meta without result_count"
    FLAT_PROBLEM = "a problem with status 200"
    EXPIRED = "status 400 for the page token"
    ONLY_ERRORS = "nothing but errors"
    SWAP = "the last tweet and the first of the next page have changed places"
    CUT = "a short page with a token"
    CUT_END = "a short page without a token"
    BREAK_OFF = "no token although there is more"
    EMPTY_PAGE = "no tweets, with a token"
    REPEAT = "the token of the request again"
    REPEAT_ANEW = "a new token for the same page"
    GO_BACK = "the token before that of the request"
    UNREADABLE = "an item without an id instead of a tweet"
    NOT_AN_OBJECT = "a string instead of a tweet"
    ODD_TEXT = "a byte order mark, and bytes in a text that JSON forbids"
    FOREIGN = "a tweet by another author instead of a tweet"
    FOREIGN_TOO = "a tweet by another author between the others"
    SHUFFLE = "tweets in any order"
    PINNED = "an older tweet on top"
    PINNED_BELOW = "a tweet from below what was requested on top"


@dataclass(frozen=True)
class Fault:
    """What is wrong with one answer; `number` chooses the place, or the order."""

    kinds: frozenset[Kind]
    number: int = 0

    def __repr__(self) -> str:
        return f"Fault({' + '.join(each.name for each in Kind if each in self.kinds)}, {self.number})"


@dataclass(frozen=True)
class Item:
    """What stands at one place of a timeline: a tweet, or something that is none, for ever."""

    id: int
    created_at: datetime
    visible_at: datetime
    author_id: int
    is_retweet: bool = False
    is_readable: bool = True


@dataclass
class XAccount:
    """An account of the model. X counts `uncounted` tweets more than it ever shows.

    A deleted tweet is counted no more, but goes on to take a place of the reach.
    """

    id: int
    username: str
    created_at: datetime
    items: list[Item] = field(default_factory=list)
    uncounted: int = 0
    deleted: set[int] = field(default_factory=set)

    @property
    def tweet_count(self) -> int:
        """How many tweets X counts."""
        return self.uncounted + len(self.tweets())

    def delete(self, number: int, *, oldest: bool) -> None:
        """Delete some tweets."""
        tweets = sorted(each.id for each in self.tweets())
        self.deleted.update(tweets[:number] if oldest else tweets[-number:])

    def write(
        self,
        at: datetime,
        *,
        delay_s: int = 0,
        is_retweet: bool = False,
        is_readable: bool = True,
        author_id: int | None = None,
    ) -> Item:
        """Add a tweet, which is visible `delay_s` later; one by another author stays a stranger in the timeline."""
        # Ids have milliseconds, created_at has not. They are unique among accounts.
        tweet_id = id_at(at + timedelta(milliseconds=137 * (len(self.items) % 4))) + 1_000 * (self.id % 1_000)
        taken = {each.id for each in self.items}
        while tweet_id in taken:
            tweet_id += 1
        visible_at = at + timedelta(seconds=delay_s)
        item = Item(tweet_id, at, visible_at, author_id or self.id, is_retweet, is_readable)
        self.items.append(item)
        return item

    def tweets(self) -> list[Item]:
        """Return what it has written."""
        return [each for each in self.items if each.author_id == self.id and each.id not in self.deleted]


@dataclass(frozen=True)
class Call:
    """One call that was answered, with the ids of the posts that it showed."""

    at: datetime
    path: str
    params: dict[str, str]
    posts: tuple[int, ...]


class FaultyX(httpx.BaseTransport):
    """X as a transport. Each call takes the next of `faults`; None, or no more of them, is a regular answer."""

    def __init__(
        self,
        clock: Clock,
        accounts: Sequence[XAccount],
        *,
        reach: int = REACH,
        confirm_after: timedelta = CONFIRM_AFTER,
        last_page_has_token: bool = False,
    ) -> None:
        self.clock = clock
        self.accounts = {each.username: each for each in accounts}
        self.reach = reach
        self.last_page_has_token = last_page_has_token
        self.faults: deque[Fault | None] = deque()
        self.reaper = Reaper()
        self.may_swap = False
        self.calls: list[Call] = []
        self.billed: set[tuple[int, date]] = set()
        self._confirm_after = confirm_after
        self._first_at: dict[tuple[object, ...], datetime] = {}
        self._numbers = count(1)
        self._tokens: deque[str] = deque(maxlen=2)

    def served(self, account: XAccount) -> list[Item]:
        """Return what the account's timeline serves now, newest first."""
        visible = [each for each in account.items if each.visible_at <= self.clock.now]
        reached = sorted(visible, key=lambda each: each.id, reverse=True)[: self.reach]
        return [each for each in reached if each.id not in account.deleted]

    def bought_twice(self) -> int:
        """Count the posts that were billed again, on another UTC day."""
        days = Counter(post for post, _ in self.billed)
        return sum(times - 1 for times in days.values())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        params = {name: values[0] for name, values in parse_qs(request.url.query.decode()).items()}
        # Between two pages of which two tweets changed places, and until the second is stored, it is not killed.
        self.reaper.is_held_back = self.reaper.is_held_back and _swapped_in(params)
        self.reaper.pass_by()
        self.clock.advance(CALL_TAKES)
        status, body, shown = self._answer(path, params)
        self.calls.append(Call(self.clock.now, path, params, tuple(shown)))
        self.billed.update((each, self.clock.now.date()) for each in shown)
        self.reaper.pass_by()
        return httpx.Response(status, content=body, headers={"Date": format_datetime(self.clock.now, usegmt=True)})

    def _answer(self, path: str, params: dict[str, str]) -> tuple[int, bytes, list[int]]:
        if path in ("/2/users", "/2/users/by"):
            return self._users(params)
        if path == "/2/tweets":
            return self._lookup(params)
        if path == "/2/tweets/search/all":
            names = [part.removeprefix("from:").strip() for part in params["query"].split(" OR ")]
            lo, hi = (datetime.fromisoformat(params[name]) for name in ("start_time", "end_time"))
            if hi > self.clock.now - timedelta(seconds=10):
                return 400, b'{"title": "Invalid Request", "detail": "end_time is too recent"}', []
            found = [
                each
                for name in names
                for each in self.accounts[name].items
                if lo <= each.created_at < hi and each.visible_at <= self.clock.now and not each.is_retweet
                if each.id not in self.accounts[name].deleted
            ]
            return self._page(sorted(found, key=lambda each: each.id, reverse=True), params, "next_token")
        account = next(each for each in self.accounts.values() if f"/2/users/{each.id}/tweets" == path)
        lowest, below = int(params.get("since_id", 0)), int(params.get("until_id", TOP))
        served = [each for each in self.served(account) if lowest < each.id < below]
        older = [each for each in self.served(account) if each.id <= lowest]
        return self._page(served, params, "pagination_token", older)

    def _users(self, params: dict[str, str]) -> tuple[int, bytes, list[int]]:
        by_id = {str(each.id): each for each in self.accounts.values()}
        if "ids" in params:
            found = [by_id[each] for each in params["ids"].split(",") if each in by_id]
        else:
            found = [self.accounts[each] for each in params["usernames"].split(",")]
        users = [
            {
                "id": str(each.id),
                "username": each.username,
                "name": each.username,
                "created_at": each.created_at.isoformat(),
                "protected": False,
                "public_metrics": {"tweet_count": each.tweet_count},
            }
            for each in found
        ]
        return 200, orjson.dumps({"data": users}), []

    def _lookup(self, params: dict[str, str]) -> tuple[int, bytes, list[int]]:
        wanted = {int(each) for each in params["ids"].split(",")}
        found = [
            each
            for account in self.accounts.values()
            for each in account.items
            if each.id in wanted and each.visible_at <= self.clock.now and each.id not in account.deleted
        ]
        problems = [
            {
                "title": "Not Found Error",
                "detail": "Could not find tweet",
                "type": "https://api.x.com/2/problems/resource-not-found",
                "resource_type": "tweet",
                "parameter": "ids",
                "value": str(each),
                "resource_id": str(each),
            }
            for each in wanted - {one.id for one in found}
        ]
        body = orjson.dumps({"data": [_json_of(each) for each in found], "errors": problems})
        return 200, body, [each.id for each in found]

    def _page(
        self, matching: list[Item], params: dict[str, str], token_name: str, below: Sequence[Item] = ()
    ) -> tuple[int, bytes, list[int]]:
        token = params.get(token_name)
        position, _, swapped = (token or f"{TOP}-0-").split("-")
        matching = [each for each in matching if each.id < int(position)]
        if swapped:
            # The second of two pages of which two tweets changed places: one that belongs to the first comes here.
            late = next(each for account in self.accounts.values() for each in account.items if each.id == int(swapped))
            matching = [late, *(each for each in matching if each.id != int(position) - 1)]
        fault = self.faults.popleft() if self.faults and not swapped else None
        kinds = fault.kinds if fault else frozenset[Kind]()
        number = fault.number if fault else 0
        for kind, status, body in _NO_PAGES:
            if kind in kinds and (token or kind is not Kind.EXPIRED):
                return status, body, []
        page = _Page(matching, int(params["max_results"]), position, below=below)
        if page.rest or (self.last_page_has_token and len(page.items) == page.size):
            page.token = self._token(page.items[-1].id)
        self._tokens.append(token or self._token(int(position)))
        for kind in Kind:
            if kind in kinds:
                self._spoil(page, kind, number)
        meta: dict[str, object] = {"result_count": len(page.items) if not page.replaced else len(page.objects())}
        if page.token is not None:
            meta["next_token"] = page.token
        objects = page.objects()
        body = orjson.dumps({"data": objects, "meta": meta} if objects else {"meta": meta})
        if Kind.ODD_TEXT in kinds:
            body = b"\xef\xbb\xbf" + body.replace(b'"tweet ', b'"\x00\n\xff\\ud83d ')
        return 200, body, [each.id for each in page.items if each.id not in page.replaced and each.is_readable]

    def _token(self, below: int, swapped: int | str = "") -> str:
        return f"{below}-{next(self._numbers)}-{swapped}"

    def _may_hide(self, *what: object) -> bool:
        """Whether this wrong answer may be given now: it was not, long enough ago to be believed."""
        first_at = self._first_at.setdefault(what, self.clock.now)
        return self.clock.now - first_at < self._confirm_after

    def _spoil(self, page: "_Page", kind: Kind, number: int) -> None:
        items = page.items
        match kind:
            case Kind.SWAP:
                if self.may_swap and len(items) > 1 and page.rest:
                    first, second = items[-1], page.rest[0]
                    items[-1] = second
                    page.token = self._token(second.id + 1, first.id)
                    page.is_swapped = True
                    self.reaper.is_held_back = True
            case _ if page.is_swapped:
                pass
            case Kind.CUT:
                if len(items) > 1:
                    del items[1 + number % (len(items) - 1) :]
                    page.token = self._token(items[-1].id)
            case Kind.CUT_END:
                kept = number % len(items) if items else 0
                if items and self._may_hide("end", items[kept].id):
                    del items[kept:]
                    page.token = None
            case Kind.BREAK_OFF:
                if page.token is not None and page.rest and self._may_hide("end", page.rest[0].id):
                    page.token = None
            case Kind.EMPTY_PAGE:
                if items:
                    items.clear()
                    page.token = self._token(int(page.position))
            case Kind.REPEAT | Kind.GO_BACK:
                if page.token is not None:
                    page.token = self._tokens[-1 if kind is Kind.REPEAT else 0]
            case Kind.REPEAT_ANEW:
                if page.token is not None:
                    page.token = self._token(int(page.position))
            case Kind.SHUFFLE:
                # What cannot be read stands in its place: nothing else says where it belongs.
                places = [n for n, each in enumerate(items) if each.is_readable and each.id not in page.replaced]
                shuffled = Random(number).sample(places, len(places))
                items[:] = [items[dict(zip(places, shuffled, strict=True)).get(n, n)] for n in range(len(items))]
            case Kind.UNREADABLE | Kind.NOT_AN_OBJECT | Kind.FOREIGN:
                if items:
                    item = items[number % len(items)]
                    if self._may_hide("item", item.id):
                        page.replaced[item.id] = kind
            case Kind.FOREIGN_TOO:
                if items:
                    beside = items[number % len(items)]
                    page.replaced[-beside.id] = kind
            case Kind.PINNED | Kind.PINNED_BELOW:
                older = [each for each in (page.rest if kind is Kind.PINNED else page.below) if each not in items]
                if older and items:
                    items.insert(0, older[number % len(older)])
            case _:
                pass


_NO_PAGES = (
    (Kind.HTTP_503, 503, b""),
    (Kind.TRUNCATED, 200, b'{"data": [{"id": "1", "te'),
    (Kind.EMPTY_OBJECT, 200, b"{}"),
    (Kind.BARE_META, 200, b'{"meta": {}}'),
    (Kind.FLAT_PROBLEM, 200, b'{"title": "Service Unavailable", "detail": "", "type": "about:blank", "status": 503}'),
    (Kind.EXPIRED, 400, b'{"title": "Invalid Request", "detail": "The pagination_token or next_token has expired"}'),
    (Kind.ONLY_ERRORS, 200, b'{"errors": [{"title": "Internal", "detail": "Try again"}], "meta": {"result_count": 0}}'),
)


def _swapped_in(params: dict[str, str]) -> bool:
    return any(not params.get(name, "-").endswith("-") for name in ("pagination_token", "next_token"))


@dataclass
class _Page:
    """A page while it is spoiled; `replaced` are ids of items in whose place, negated after which, another stands."""

    matching: list[Item]
    size: int
    position: str
    below: Sequence[Item] = ()
    token: str | None = None
    is_swapped: bool = False
    replaced: dict[int, Kind] = field(default_factory=dict)
    items: list[Item] = field(init=False)
    rest: list[Item] = field(init=False)

    def __post_init__(self) -> None:
        self.items, self.rest = self.matching[: self.size], self.matching[self.size :]

    def objects(self) -> list[object]:
        found: list[object] = []
        for each in self.items:
            kind = self.replaced.get(each.id)
            if kind is Kind.NOT_AN_OBJECT:
                found.append("a tweet")
            elif kind is Kind.UNREADABLE:
                found.append({"id": None, "text": "no id"})
            elif kind is Kind.FOREIGN:
                found.append(_stranger(each))
            else:
                found.append(_json_of(each))
            if -each.id in self.replaced:
                found.append(_stranger(each))
        return found


def _stranger(beside: Item) -> dict[str, object]:
    return {"id": str(beside.id - 7), "author_id": str(STRANGER), "text": "by another author"}


def _json_of(item: Item) -> dict[str, object]:
    if not item.is_readable:
        return {"id": None, "text": "never had an id"}
    tweet: dict[str, object] = {
        "id": str(item.id),
        "author_id": str(item.author_id),
        "created_at": item.created_at.isoformat(),
        "text": f"tweet {item.id}",
    }
    if item.is_retweet:
        tweet["referenced_tweets"] = [{"type": "retweeted", "id": "20"}]
    return tweet
