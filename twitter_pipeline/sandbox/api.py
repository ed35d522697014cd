"""The sandbox's X API v2: from a request to an answer, with tokens, windows, refusals and faults."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache
from threading import Lock
from typing import Final, Literal

import httpx
import orjson

from twitter_pipeline.sandbox import problems
from twitter_pipeline.sandbox import windows as at
from twitter_pipeline.sandbox.answers import Answer, Answers, Call, Stream
from twitter_pipeline.sandbox.dice import throw
from twitter_pipeline.sandbox.faults import NO_MISHAP, FaultKind, Faults, Mishap
from twitter_pipeline.sandbox.parameters import Refused, checked
from twitter_pipeline.sandbox.streaming import HEARTBEAT_S, Ending, Rule, Streams
from twitter_pipeline.sandbox.windows import DEFAULT_LIMITS, Token, TokenSpec, TokenState, Window
from twitter_pipeline.sandbox.world import SERVED_TWEETS, World

WireFault = Literal["reset", "cut", "timeout"]

_GENERAL_LIMITER: Final = {"x-rate-limit-limit": "40000", "x-rate-limit-remaining": "39999"}
_ACCOUNT_ID: Final = 2036532529868496897
_NEVER_S: Final = 3_600.0
_JSON: Final = "application/json; charset=utf-8"
_HTML: Final = b"<!DOCTYPE html><html><head><title>Over capacity</title></head><body>Something is wrong.</body></html>"
_TITLES: Final = {
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back: after `delay_s`, and with `wire` as a connection that fails instead of, or in, the answer.

    With `stream` the body is what that brings.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    delay_s: float = 0.0
    wire: WireFault | None = None
    stream: Stream | None = None


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call that arrived; `token` is the index of the token, None when it was not known.

    `faults` are the kinds that struck it; a scripted answer is none of them.
    """

    at: float
    token: int | None
    endpoint: str
    status: int
    result_count: int = 0
    faults: frozenset[FaultKind] = frozenset()
    ids: tuple[int, ...] = ()


@dataclass(slots=True)
class _Accounts:
    """What was called and served."""

    calls: deque[CallRecord]
    refusals: int = 0
    statuses: Counter[int] = field(default_factory=Counter[int])
    posts_by_day: dict[int, set[int]] = field(default_factory=dict[int, set[int]])
    users_by_day: dict[int, set[int]] = field(default_factory=dict[int, set[int]])


class SandboxApi:
    """The API over a world, for a set of tokens. Safe to call from several threads.

    `limits` replaces the default calls a window by endpoint, `window_seconds` the length of the windows.
    `clock_skew_s` is how far the server's clock, and with it `date` and the reset times, is ahead of the world's.
    `record_ids` keeps the ids served with every call record, of which the last `kept_calls` are kept. A stream without
    news gets a blank line every `heartbeat_s`, in real time; one whose client has gone keeps its slot for
    `slot_release_s` more. With `posts_only` it takes and gives the names of OpenAPI 2.167 alone; `unknown_names` are
    fields, expansions and parameters that it refuses. Both may change at any time.
    """

    def __init__(
        self,
        world: World,
        *,
        tokens: Sequence[TokenSpec],
        window_seconds: float = 900.0,
        faults: Faults | None = None,
        limits: Mapping[str, int] | None = None,
        page_reach: int = SERVED_TWEETS,
        visibility_delay_s: float = 0.0,
        clock_skew_s: float = 0.0,
        search_retweets: bool = True,
        record_ids: bool = False,
        kept_calls: int = 1_000_000,
        heartbeat_s: float = HEARTBEAT_S,
        posts_only: bool = False,
        unknown_names: Iterable[str] = (),
        slot_release_s: float = 0.0,
    ) -> None:
        self.world = world
        self.posts_only = posts_only
        self.unknown_names = set(unknown_names)
        self.faults = faults or Faults()
        self.window_seconds = window_seconds
        self.clock_skew_s = clock_skew_s
        self._limits = {**DEFAULT_LIMITS, **(limits or {})}
        self._tokens = {spec.bearer: Token(index, spec, spec.state) for index, spec in enumerate(tokens)}
        self._answers = Answers(
            world,
            reach=page_reach,
            visibility_delay_s=visibility_delay_s,
            search_retweets=search_retweets,
            posts_by_day=self.posts_by_day,
        )
        self._streams = Streams(
            world,
            heartbeat_s=heartbeat_s,
            slot_release_s=slot_release_s,
            visibility_delay_s=visibility_delay_s,
            delivered=self._book_delivered,
        )
        self._record_ids = record_ids
        self._kept_calls = kept_calls
        self._lock = Lock()
        self._number = 0
        self._made = _Accounts(deque(maxlen=kept_calls))

    # What was done with it

    @property
    def calls(self) -> deque[CallRecord]:
        """The calls that arrived, oldest first."""
        return self._made.calls

    @property
    def refusals(self) -> int:
        """How many calls were answered with 429."""
        return self._made.refusals

    @property
    def bearers(self) -> list[str]:
        """The bearer tokens, all of them plainly made up."""
        return list(self._tokens)

    def posts_by_day(self) -> dict[int, int]:
        """Count the posts that X would charge by UTC day since 1970: those in `data`, each once a day."""
        with self._lock:
            return {day: len(ids) for day, ids in self._made.posts_by_day.items()}

    def posts_billed(self) -> int:
        """Count the posts that X would charge."""
        return sum(self.posts_by_day().values())

    def users_billed(self) -> int:
        """Count the users that X would charge: those in `data`, each once a UTC day."""
        return sum(map(len, self._made.users_by_day.values()))

    def statuses(self) -> dict[int, int]:
        """Count the answers by status."""
        return dict(self._made.statuses)

    def reset_accounting(self) -> None:
        """Forget the calls so far; windows and tokens stay as they are."""
        with self._lock:
            self._made = _Accounts(deque(maxlen=self._kept_calls))

    def set_token_state(self, bearer: str, state: TokenState) -> None:
        """Revoke, cap or restore a token."""
        with self._lock:
            self._tokens[bearer].state = state

    # Streams

    def stream_rules(self, bearer: str) -> list[Rule]:
        """Give the rules of a token's app, oldest first."""
        return self._streams.rules(self._tokens[bearer].index)

    def open_streams(self) -> int:
        """Count the streams that are open."""
        return len(self._streams.open_connections())

    def end_streams(self, how: Ending) -> int:
        """End the streams that are open, and give how many there were."""
        connections = self._streams.open_connections()
        for connection in connections:
            connection.end(how)
        return len(connections)

    # The API

    def handle(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """Answer one request; `headers` has lowercase names or ignores case."""
        now = self.world.clock() + self.clock_skew_s
        endpoint, values = route(path)
        if endpoint is not None and method != "GET":
            endpoint = f"{method} {endpoint}"
        if endpoint not in self._limits:
            return self._refuse_unrouted(404 if endpoint is None else 405, now)
        with self._lock:
            self._number += 1
            number = self._number
            token, refusal, limits = self._admit(endpoint, headers, now)
        if refusal is not None:
            return self._finish(number, now, endpoint, token, refusal, limits)
        mishap, delay_s = self.faults.next_mishap(endpoint)
        in_posts = self.posts_only and endpoint != at.STREAM
        call = Call(endpoint, {}, self.world.clock(), number, mishap.kinds, self.faults, in_posts)
        stand_in = _stand_in(mishap)
        answer = stand_in or self._answer(call, query, values, token, body)
        wire = _wire_fault(mishap)
        if mishap.raw is not None:
            limits = dict(mishap.raw.headers)
        elif mishap.failure == "not_enrolled":
            limits = {**_GENERAL_LIMITER, "x-rate-limit-reset": limits["x-rate-limit-reset"]}
        elif (stand_in and mishap.failure != "429") or "no_rate_headers" in mishap.kinds:
            limits = {}
        elif "past_reset" in mishap.kinds or "far_reset" in mishap.kinds:
            reset = now - 60 if "past_reset" in mishap.kinds else now + 10 * 365 * at.DAY_S
            limits = {**limits, "x-rate-limit-reset": str(int(reset))}
        delay_s = _NEVER_S if wire == "timeout" else delay_s
        return self._finish(number, now, endpoint, token, answer, limits, mishap=mishap, delay_s=delay_s, wire=wire)

    def transport(self, *, sleep: Callable[[float], None] = time.sleep) -> httpx.MockTransport:
        """Give a transport for an httpx client in this process, on which faults are httpx's own errors.

        An answer that would take longer than the client's read timeout is that timeout at once; shorter ones `sleep`.
        Streams are served over HTTP only.
        """

        def respond(request: httpx.Request) -> httpx.Response:
            path, query = request.url.path, request.url.query.decode()
            response = self.handle(request.method, path, query, request.headers, request.content)
            _raise_wire_fault(response, request)
            if response.stream is not None:
                raise NotImplementedError("the sandbox serves streams over HTTP only")
            if response.delay_s:
                sleep(response.delay_s)
            return httpx.Response(response.status, headers=response.headers, content=response.body)

        return httpx.MockTransport(respond)

    def _admit(
        self, endpoint: str, headers: Mapping[str, str], now: float
    ) -> tuple[Token | None, Answer | None, dict[str, str]]:
        """Let a call through, or say what refuses it; give the token and the rate-limit headers."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        token = self._tokens.get(bearer) if scheme.lower() == "bearer" else None
        if token is None:
            return None, _problem(401, problems.about_blank(401, "Unauthorized")), {}
        token.calls += 1
        if token.spec.dies_after is not None and token.calls > token.spec.dies_after:
            token.state = "invalid"
        if token.state != "active":
            return token, _closed(token.state, now), self._general_limits(token.state, endpoint, token, now)
        window = token.window(endpoint, self._limits[endpoint], self.window_seconds, now)
        day = token.day(endpoint, now)
        too_soon = endpoint == at.SEARCH_ALL and now - token.last_full_search_at < 1.0
        if too_soon or not window.remaining or (day is not None and not day.remaining):
            return token, _problem(429, problems.about_blank(429, "Too Many Requests")), _limit_headers(window, day)
        window.used += 1
        if day is not None:
            day.used += 1
        if endpoint == at.SEARCH_ALL:
            token.last_full_search_at = now
        return token, None, _limit_headers(window, day)

    def _general_limits(self, state: TokenState, endpoint: str, token: Token, now: float) -> dict[str, str]:
        """Give the headers of a closed token: those of a limiter that has nothing to do with the endpoint (xdk#25)."""
        if state == "invalid":
            return {}
        window = token.window(endpoint, self._limits[endpoint], self.window_seconds, now)
        return {**_GENERAL_LIMITER, "x-rate-limit-reset": str(window.resets_at)}

    def _answer(self, call: Call, query: str, values: Mapping[str, str], token: Token | None, body: bytes) -> Answer:
        try:
            unknown = frozenset(self.unknown_names)
            parameters = checked(call.endpoint, query, values, posts_only=call.posts_only, unknown=unknown)
            call = call.having(parameters)
            if token is not None and call.endpoint in (at.STREAM, at.STREAM_RULES, at.CHANGE_RULES):
                return self._streams.answer(call, token.index, body)
            return self._answers.answer(call)
        except Refused as refused:
            return _problem(400, refused.problem)

    def _refuse_unrouted(self, status: int, now: float) -> Response:
        title = "Not Found" if status == 404 else "Method Not Allowed"
        headers = {"content-type": _JSON, "date": _date(int(now))}
        return Response(status, headers, orjson.dumps(problems.about_blank(status, title)))

    def _finish(
        self,
        number: int,
        now: float,
        endpoint: str,
        token: Token | None,
        answer: Answer,
        limits: dict[str, str],
        *,
        mishap: Mishap = NO_MISHAP,
        delay_s: float = 0.0,
        wire: WireFault | None = None,
    ) -> Response:
        """Book a call and put the headers on its answer."""
        self._book(now, endpoint, token, answer, mishap)
        headers = {
            "content-type": answer.content_type,
            "date": _date(int(now)).replace("GMT", "UTC" if "utc_date" in mishap.kinds else "GMT"),
            "x-transaction-id": f"{throw(self.world.seed, number):016x}",
            "api-version": "2.166",
            **limits,
        }
        return Response(answer.status, headers, answer.body, delay_s, wire, answer.stream)

    def _book(self, now: float, endpoint: str, token: Token | None, answer: Answer, mishap: Mishap) -> None:
        day = int(now // at.DAY_S)
        count = len(answer.post_ids) + len(answer.user_ids)
        ids = answer.post_ids if self._record_ids else ()
        index = None if token is None else token.index
        record = CallRecord(now, index, endpoint, answer.status, count, mishap.kinds, ids)
        with self._lock:
            self._made.calls.append(record)
            self._made.statuses[answer.status] += 1
            self._made.refusals += answer.status == 429
            if answer.post_ids:
                self._made.posts_by_day.setdefault(day, set()).update(answer.post_ids)
            if answer.user_ids:
                self._made.users_by_day.setdefault(day, set()).update(answer.user_ids)
            if token is not None:
                token.posts += len(answer.post_ids)
                if token.spec.post_cap is not None and token.posts >= token.spec.post_cap and token.state == "active":
                    token.state = "capped"

    def _book_delivered(self, index: int, ids: Sequence[int]) -> None:
        """Book what a stream has brought: X charges for it as for what is read."""
        now = self.world.clock() + self.clock_skew_s
        with self._lock:
            self._made.posts_by_day.setdefault(int(now // at.DAY_S), set()).update(ids)
            next(token for token in self._tokens.values() if token.index == index).posts += len(ids)


@lru_cache(maxsize=65_536)
def _routed(path: str) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    parts = path.split("/")
    for endpoint in DEFAULT_LIMITS:
        pattern = endpoint.split("/")
        if len(pattern) != len(parts):
            continue
        values = [(name[1:], part) for name, part in zip(pattern, parts, strict=True) if name.startswith(":")]
        if all(name.startswith(":") or name == part for name, part in zip(pattern, parts, strict=True)):
            return endpoint, tuple(values)
    return None, ()


def route(path: str) -> tuple[str | None, dict[str, str]]:
    """Find the endpoint of a path, and the values in it; fixed paths come before those with a value."""
    endpoint, values = _routed(path)
    return endpoint, dict(values)


def _stand_in(mishap: Mishap) -> Answer | None:
    """Give the answer that comes instead of the true one; None when that comes, whole or cut."""
    if mishap.raw is not None:
        return Answer(mishap.raw.status, mishap.raw.body)
    match mishap.failure:
        case "500" | "502" | "503" | "504" as failure:
            status = int(failure)
            return _problem(status, problems.about_blank(status, _TITLES[status]))
        case "html_5xx":
            return Answer(503, _HTML, content_type="text/html")
        case "html_200":
            return Answer(200, _HTML, content_type="text/html")
        case "bare_429":
            return Answer(429, b"", content_type="text/plain")
        case "429":
            return _problem(429, problems.about_blank(429, "Too Many Requests"))
        case "401":
            return _closed("invalid", 0)
        case "not_enrolled":
            return _closed("not_enrolled", 0)
        case "reset" | "timeout":
            return Answer(0, b"")
        case _:
            return None


def _wire_fault(mishap: Mishap) -> WireFault | None:
    match mishap.failure:
        case "reset" | "cut" | "timeout" as failure:
            return failure
        case _:
            return None


def _closed(state: TokenState, now: float) -> Answer:
    """Give the refusal of a token that is closed for every endpoint."""
    if state == "capped":
        return _problem(429, problems.usage_capped(_ACCOUNT_ID))
    if state == "credits":
        return _problem(402, problems.credits_depleted(_ACCOUNT_ID))
    if state == "spend_cap":
        return _problem(403, problems.spend_cap_reached(_next_month(now)))
    if state == "not_enrolled":
        return _problem(403, problems.NOT_ENROLLED)
    if state == "suspended_app":
        return _problem(403, problems.SUSPENDED_APP)
    return _problem(401, problems.about_blank(401, "Unauthorized"))


def _next_month(now: float) -> str:
    today = datetime.fromtimestamp(now, UTC)
    return f"{today.year + today.month // 12}-{today.month % 12 + 1:02}-01"


def _problem(status: int, problem: Mapping[str, object]) -> Answer:
    return Answer(status, orjson.dumps(problem), content_type="application/problem+json")


def _limit_headers(window: Window, day: Window | None) -> dict[str, str]:
    headers = {
        "x-rate-limit-limit": str(window.limit),
        "x-rate-limit-remaining": str(window.remaining),
        "x-rate-limit-reset": str(window.resets_at),
    }
    if day is not None:
        headers["x-app-limit-24hour-limit"] = str(day.limit)
        headers["x-app-limit-24hour-remaining"] = str(day.remaining)
        headers["x-app-limit-24hour-reset"] = str(day.resets_at)
    return headers


@lru_cache(maxsize=8)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _raise_wire_fault(response: Response, request: httpx.Request) -> None:
    """Raise what httpx raises when a connection fails in that way."""
    patience = request.extensions.get("timeout", {}).get("read")
    if response.wire == "timeout" or (patience is not None and response.delay_s > patience):
        raise httpx.ReadTimeout("timed out", request=request)
    if response.wire == "reset":
        raise httpx.ReadError("[Errno 104] Connection reset by peer", request=request)
    if response.wire == "cut":
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body", request=request)
