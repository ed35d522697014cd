"""The X API over HTTP, one method per endpoint, and nothing else: no retries, no limits, no waiting.

The transport is called without an `httpx.Client` around it: redirects are not followed, cookies are not kept, no line
is logged for a call. What httpx.Client adds was measured at about 0.3 ms of CPU a call, as much as the rest.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Generic, Self, TypeVar
from urllib.parse import quote

import httpx
import orjson

from twitter_pipeline.errors import ConnectionFault, UnreadableAnswer
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.stream_rules import NewRule
from twitter_pipeline.x_api.bodies import read_body
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.fields import OF_TWEETS, OF_USERS, Fields
from twitter_pipeline.x_api.parsing import (
    TweetsPage,
    UsersAnswer,
    read_search_page,
    read_timeline_page,
    read_tweets_page,
    read_users,
)
from twitter_pipeline.x_api.problems import read_failure
from twitter_pipeline.x_api.rate_limit import RateLimits, read_rate_limits
from twitter_pipeline.x_api.requests import RequestMaker, describe, headers_of, ms_since, send, without_frames
from twitter_pipeline.x_api.stream_messages import RulesAnswer, read_stream_rules
from twitter_pipeline.x_api.transport import BoundedTransport

T = TypeVar("T")

IDS_PER_CALL = 100
"""How many ids or usernames one look-up takes."""

# Beyond the time-out of the call itself: name resolution and connecting to further addresses are not bounded by it.
_CALL_MARGIN_S = 30.0
_TOTAL_TIMEOUT_S = 30.0

LONGEST_CALL_S = _TOTAL_TIMEOUT_S + _CALL_MARGIN_S
"""The longest a call can last with a client's time-outs as they are by default."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answer with status 200; `duration_ms` runs from sending the request to the last byte of the body."""

    value: T
    status: int
    rate_limits: RateLimits
    duration_ms: int
    transaction_id: str | None


class XApiClient:
    """A client of the X API v2 that threads may share.

    Every method makes one call and raises an ApiError when it does not give a readable 200. A 200 that holds nothing
    but problems is an answer: see `availability_of`.
    `fields` says what is requested of each object. A lease that lives `longest_call_s` outlives every call.
    """

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 20.0,
        total_timeout_s: float = _TOTAL_TIMEOUT_S,
        max_connections: int = 32,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raise ConfigurationError for a base URL over which tokens would travel in clear.

        `transport` replaces the network, in tests; the time-outs are then its own affair.
        """
        self._requests = RequestMaker(base_url)
        self.longest_call_s = total_timeout_s + _CALL_MARGIN_S
        self._transport = transport or BoundedTransport(
            self._requests.base_url,
            max_connections=max_connections,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            total_timeout_s=total_timeout_s,
        )

    def fetch_users_by_usernames(
        self, usernames: Sequence[str], *, bearer_token: BearerToken, fields: Fields = OF_USERS
    ) -> Answer[UsersAnswer]:
        """Look up accounts by name, at most 100; the case of the names does not matter."""
        _check_count(usernames)
        return self._fetch(
            f"{Endpoint.USERS_BY}?usernames={','.join(quote(name, safe='') for name in usernames)}&{fields.query}",
            read=read_users,
            attempted=f"GET {Endpoint.USERS_BY} for {_list_some('username', usernames)}",
            bearer_token=bearer_token,
        )

    def fetch_users(
        self, user_ids: Sequence[int], *, bearer_token: BearerToken, fields: Fields = OF_USERS
    ) -> Answer[UsersAnswer]:
        """Look up accounts by id, at most 100."""
        _check_count(user_ids)
        return self._fetch(
            f"{Endpoint.USERS}?ids={','.join(map(str, user_ids))}&{fields.query}",
            read=read_users,
            attempted=f"GET {Endpoint.USERS} for {_list_some('user', user_ids)}",
            bearer_token=bearer_token,
        )

    def fetch_user_tweets(
        self,
        user_id: int,
        *,
        bearer_token: BearerToken,
        max_results: int,
        since_id: int | None = None,
        until_id: int | None = None,
        pagination_token: str | None = None,
        fields: Fields = OF_TWEETS,
    ) -> Answer[TweetsPage]:
        """Fetch one page of an account's timeline, newest first; `max_results` is 5 to 100."""
        query = _query(max_results=max_results, since_id=since_id, until_id=until_id, pagination_token=pagination_token)
        return self._fetch(
            f"/2/users/{user_id}/tweets?{query}&{fields.query}",
            read=read_timeline_page,
            attempted=f"GET {Endpoint.USER_TWEETS} for user {user_id}",
            bearer_token=bearer_token,
        )

    def fetch_tweets(
        self, tweet_ids: Sequence[int], *, bearer_token: BearerToken, fields: Fields = OF_TWEETS
    ) -> Answer[TweetsPage]:
        """Look up tweets by id, at most 100; those that are gone are among the problems."""
        _check_count(tweet_ids)
        return self._fetch(
            f"{Endpoint.TWEETS}?ids={','.join(map(str, tweet_ids))}&{fields.query}",
            read=read_tweets_page,
            attempted=f"GET {Endpoint.TWEETS} for {_list_some('tweet', tweet_ids)}",
            bearer_token=bearer_token,
        )

    def search_recent(
        self,
        query: str,
        *,
        bearer_token: BearerToken,
        max_results: int,
        since_id: int | None = None,
        until_id: int | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        next_token: str | None = None,
        fields: Fields = OF_TWEETS,
    ) -> Answer[TweetsPage]:
        """Search the last seven days, newest first; `max_results` is 10 to 100.

        Ids and times exclude each other: together they are refused (github.com/PLhery/node-twitter-api-v2/issues/152).
        """
        bounds = _query(
            max_results=max_results,
            since_id=since_id,
            until_id=until_id,
            start_time=start_time,
            end_time=end_time,
            next_token=next_token,
        )
        return self._search(Endpoint.SEARCH_RECENT, query, bounds, bearer_token, fields)

    def search_all(
        self,
        query: str,
        *,
        bearer_token: BearerToken,
        max_results: int,
        since_id: int | None = None,
        until_id: int | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        next_token: str | None = None,
        fields: Fields = OF_TWEETS,
    ) -> Answer[TweetsPage]:
        """Search the archive since March 2006, newest first; one call a second, `max_results` is 10 to 500.

        With context annotations, which are asked for, the API has refused more than 100 (docs.x.com, changelog).
        """
        bounds = _query(
            max_results=max_results,
            since_id=since_id,
            until_id=until_id,
            start_time=start_time,
            end_time=end_time,
            next_token=next_token,
        )
        return self._search(Endpoint.SEARCH_ALL, query, bounds, bearer_token, fields)

    def fetch_stream_rules(
        self, *, bearer_token: BearerToken, pagination_token: str | None = None
    ) -> Answer[RulesAnswer]:
        """Fetch the rules of the token's app, 1,000 a page."""
        return self._fetch(
            f"{Endpoint.STREAM_RULES}?{_query(max_results=1_000, pagination_token=pagination_token)}",
            read=read_stream_rules,
            attempted=f"GET {Endpoint.STREAM_RULES}",
            bearer_token=bearer_token,
        )

    def add_stream_rules(self, rules: Sequence[NewRule], *, bearer_token: BearerToken) -> Answer[RulesAnswer]:
        """Add rules; those that X does not take are among the problems, also those that it has already."""
        body = {"add": [{"value": rule.value, "tag": rule.tag} for rule in rules]}
        return self._change_rules(body, f"add {len(rules)} rules", bearer_token)

    def delete_stream_rules(self, rule_ids: Sequence[str], *, bearer_token: BearerToken) -> Answer[RulesAnswer]:
        """Delete rules; those that are gone already are among the problems."""
        return self._change_rules({"delete": {"ids": list(rule_ids)}}, f"delete {len(rule_ids)} rules", bearer_token)

    def _change_rules(self, body: object, what: str, bearer_token: BearerToken) -> Answer[RulesAnswer]:
        return self._fetch(
            Endpoint.STREAM_RULES,
            read=read_stream_rules,
            attempted=f"{Endpoint.CHANGE_STREAM_RULES} to {what}",
            bearer_token=bearer_token,
            json_body=orjson.dumps(body),
        )

    def _search(
        self, endpoint: Endpoint, query: str, bounds: str, bearer_token: BearerToken, fields: Fields
    ) -> Answer[TweetsPage]:
        return self._fetch(
            f"{endpoint}?query={quote(query, safe='')}&{bounds}&sort_order=recency&{fields.query}",
            read=read_search_page,
            attempted=f"GET {endpoint} for the query {_shorten(query)!r}",
            bearer_token=bearer_token,
        )

    def _fetch(
        self,
        target: str,
        *,
        read: Callable[[bytes], T],
        attempted: str,
        bearer_token: BearerToken,
        json_body: bytes | None = None,
    ) -> Answer[T]:
        request = self._requests.make(target, attempted=attempted, bearer_token=bearer_token, json_body=json_body)
        started_at = time.perf_counter()
        received = send(request, self._exchange, attempted=attempted)
        duration_ms = ms_since(started_at)
        # What was made is answered with 201, though X's specification knows only 200.
        if received.status != 200 and not (received.status == 201 and json_body is not None):
            failure = read_failure(received.status, received.headers, received.body, attempted=attempted)
            failure.duration_ms = duration_ms
            raise failure from received.unread
        return _read_answer(received, read=read, attempted=attempted, duration_ms=duration_ms)

    def _exchange(self, request: httpx.Request) -> "_Received":
        """Send a request and read the whole answer; raises httpx.HTTPError when not even its headers came."""
        response = self._transport.handle_request(request)
        headers = headers_of(response)
        unread: httpx.HTTPError | UnreadableAnswer | None = None
        body = b""
        try:
            body = read_body(response, headers)
        except (httpx.HTTPError, UnreadableAnswer) as error:
            unread = without_frames(error)
        finally:
            response.close()
        return _Received(response.status_code, headers, body, unread)

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._requests.base_url!r})"


@dataclass(frozen=True, slots=True)
class _Received:
    """What came over the wire; `unread` is why the body was not read whole, and it is then empty."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    unread: httpx.HTTPError | UnreadableAnswer | None


def _read_answer(received: _Received, *, read: Callable[[bytes], T], attempted: str, duration_ms: int) -> Answer[T]:
    """Read a 200. One that cannot be read has still used up a call: its error carries the limits of its headers."""
    rate_limits = read_rate_limits(received.headers)
    transaction_id = received.headers.get("x-transaction-id")
    unread = received.unread
    if unread is None:
        try:
            value = read(received.body)
        except UnreadableAnswer as error:
            unread = error
        else:
            return Answer(value, received.status, rate_limits, duration_ms, transaction_id)
    error_class = ConnectionFault if isinstance(unread, httpx.TimeoutException) else UnreadableAnswer
    raise error_class(
        f"{attempted} got an answer that cannot be read: {describe(unread)}",
        status=received.status,
        rate_limits=rate_limits,
        duration_ms=duration_ms,
        transaction_id=transaction_id,
    ) from unread


def _query(**parameters: int | str | datetime | None) -> str:
    """Encode the parameters that are given. An id of 0 bounds nothing and is left out: X refuses `since_id=0`."""
    return "&".join(f"{name}={_encode(value)}" for name, value in parameters.items() if value)


def _encode(value: int | str | datetime) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return quote(str(value), safe="")


def _check_count(items: Sequence[object]) -> None:
    if not 1 <= len(items) <= IDS_PER_CALL:
        raise ValueError(f"a look-up takes 1 to {IDS_PER_CALL} ids or usernames, got {len(items)}")


def _list_some(what: str, items: Sequence[object], *, shown: int = 3) -> str:
    names = ", ".join(str(item) for item in items[:shown])
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return f"{what}{'s' if len(items) > 1 else ''} {names}{more}"


def _shorten(query: str, *, longest: int = 80) -> str:
    return query if len(query) <= longest else f"{query[: longest - 3]}..."
