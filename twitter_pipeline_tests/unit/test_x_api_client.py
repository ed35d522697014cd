import gzip
import json
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from twitter_pipeline import __version__
from twitter_pipeline.errors import (
    ApiError,
    ConfigurationError,
    ConnectionFault,
    ServerFault,
    TokenForbidden,
    TokenRejected,
    TooManyRequests,
    UnreadableAnswer,
    UsageCapped,
)
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.x_api import fields
from twitter_pipeline.x_api.client import Answer, XApiClient
from twitter_pipeline.x_api.parsing import TweetsPage, UsersAnswer
from twitter_pipeline.x_api.problems import availability_of
from twitter_pipeline.x_api.rate_limit import RateLimits, RateLimitWindow

SECRET = "AAAAAAAAAAAAAAAAAAAAAmadeUpForTests%2Bxyz"  # noqa: S105
TOKEN = BearerToken(SECRET)
PAGE = "a+b/c="
HEADERS = {
    "x-rate-limit-limit": "10000",
    "x-rate-limit-remaining": "9998",
    "x-rate-limit-reset": "1795349700",
    "x-transaction-id": "abc123",
}
LIMITS = RateLimits(window=RateLimitWindow(limit=10_000, remaining=9_998, reset_epoch=1_795_349_700))
EMPTY = b'{"meta":{"result_count":0}}'
EMPTY_PAGE = TweetsPage(tweets=(), users=(), next_token=None, problems=(), result_count=0, items=())

Handler = Callable[[httpx.Request], httpx.Response]


def client_of(handler: Handler) -> XApiClient:
    return XApiClient("https://api.example", transport=httpx.MockTransport(handler))


def fetch(client: XApiClient) -> Answer[TweetsPage]:
    return client.fetch_user_tweets(123, bearer_token=TOKEN, max_results=50)


def answering(body: bytes = EMPTY, *, status: int = 200, **headers: str) -> Handler:
    return lambda request: httpx.Response(status, headers=HEADERS | headers, content=body)


def raising(error: Exception) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


def request_of(call: Callable[[XApiClient], Any]) -> httpx.Request:
    """Return the one request that a call sends."""
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, content=EMPTY)

    with client_of(handler) as client:
        call(client)
    (request,) = requests
    return request


ASKED_FOR_TWEETS = {
    "tweet.fields": ",".join(fields.TWEET_FIELDS),
    "expansions": ",".join(fields.TWEET_EXPANSIONS),
    "media.fields": ",".join(fields.MEDIA_FIELDS),
    "poll.fields": ",".join(fields.POLL_FIELDS),
    "place.fields": ",".join(fields.PLACE_FIELDS),
}
ASKED_FOR_USERS = {"user.fields": ",".join(fields.USER_FIELDS)}


@pytest.mark.parametrize(
    ("call", "path", "parameters"),
    [
        (
            lambda client: client.fetch_users_by_usernames(["NASA", "x_y"], bearer_token=TOKEN),
            "/2/users/by",
            {"usernames": "NASA,x_y", **ASKED_FOR_USERS},
        ),
        (
            lambda client: client.fetch_users([5, 9223372036854775807], bearer_token=TOKEN),
            "/2/users",
            {"ids": "5,9223372036854775807", **ASKED_FOR_USERS},
        ),
        (
            lambda client: client.fetch_user_tweets(
                5, bearer_token=TOKEN, max_results=50, since_id=7, until_id=9, pagination_token=PAGE
            ),
            "/2/users/5/tweets",
            {"max_results": "50", "since_id": "7", "until_id": "9", "pagination_token": PAGE, **ASKED_FOR_TWEETS},
        ),
        (
            lambda client: client.fetch_user_tweets(5, bearer_token=TOKEN, max_results=50, since_id=0),
            "/2/users/5/tweets",
            {"max_results": "50", **ASKED_FOR_TWEETS},
        ),
        (
            lambda client: client.fetch_tweets([20, 21], bearer_token=TOKEN),
            "/2/tweets",
            {"ids": "20,21", **ASKED_FOR_TWEETS},
        ),
        (
            lambda client: client.search_recent(
                "from:a OR from:b #x&y", bearer_token=TOKEN, max_results=100, since_id=7, next_token=PAGE
            ),
            "/2/tweets/search/recent",
            {
                "query": "from:a OR from:b #x&y",
                "max_results": "100",
                "since_id": "7",
                "next_token": PAGE,
                "sort_order": "recency",
                **ASKED_FOR_TWEETS,
            },
        ),
        (
            lambda client: client.search_all(
                "from:a",
                bearer_token=TOKEN,
                max_results=10,
                start_time=datetime(2020, 1, 1, tzinfo=UTC),
                end_time=datetime(2020, 2, 1, 0, 0, 5, tzinfo=UTC),
            ),
            "/2/tweets/search/all",
            {
                "query": "from:a",
                "max_results": "10",
                "start_time": "2020-01-01T00:00:00Z",
                "end_time": "2020-02-01T00:00:05Z",
                "sort_order": "recency",
                **ASKED_FOR_TWEETS,
            },
        ),
    ],
)
def test_each_endpoint_is_asked_for_everything_at_once(
    call: Callable[[XApiClient], Any], path: str, parameters: dict[str, str]
) -> None:
    request = request_of(call)

    assert (request.method, request.url.path, dict(request.url.params)) == ("GET", path, parameters)


def test_a_request_carries_the_token_and_who_is_asking() -> None:
    assert dict(request_of(fetch).headers) == {
        "host": "api.example",
        "accept": "application/json",
        "accept-encoding": "gzip",
        "user-agent": f"twitter_pipeline/{__version__}",
        "authorization": f"Bearer {SECRET}",
    }


def test_an_answer_carries_the_value_and_what_its_headers_say() -> None:
    with client_of(answering()) as client:
        answer = fetch(client)

    assert answer == Answer(
        value=EMPTY_PAGE, status=200, rate_limits=LIMITS, duration_ms=answer.duration_ms, transaction_id="abc123"
    )
    assert 0 <= answer.duration_ms < 5_000


def test_a_200_with_problems_about_the_account_is_an_answer() -> None:
    missing = {"title": "Not Found Error", "resource_type": "user", "parameter": "usernames", "value": "nobody"}
    with client_of(answering(json.dumps({"errors": [missing]}).encode())) as client:
        value = client.fetch_users_by_usernames(["nobody"], bearer_token=TOKEN).value

    assert value == UsersAnswer(users=(), problems=value.problems)
    assert [availability_of(problem) for problem in value.problems] == ["not_found"]


@pytest.mark.parametrize(
    ("status", "body", "error_class"),
    [
        (429, b"", TooManyRequests),
        (503, b"<html></html>", ServerFault),
        (301, b"", ServerFault),
        (401, b"", TokenRejected),
        (402, b"", UsageCapped),
        (403, b'{"type":"https://api.x.com/2/problems/client-forbidden"}', TokenForbidden),
    ],
)
def test_another_status_raises_with_what_the_caller_needs(
    status: int, body: bytes, error_class: type[ApiError]
) -> None:
    with client_of(answering(body, status=status)) as client, pytest.raises(ApiError) as raised:
        fetch(client)
    error = raised.value

    assert type(error) is error_class
    assert (error.status, error.transaction_id) == (status, "abc123")
    assert str(error).startswith(f"GET /2/users/:id/tweets for user 123 was answered with status {status}: ")


def test_a_redirect_is_not_followed_so_that_the_token_goes_nowhere_else() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(302, headers={"location": "https://elsewhere.example/"})

    with client_of(handler) as client, pytest.raises(ServerFault):
        fetch(client)

    assert asked == ["api.example"]


@pytest.mark.parametrize(
    ("call", "attempted"),
    [
        (
            lambda client: client.fetch_users_by_usernames(["a", "b", "c", "d", "e"], bearer_token=TOKEN),
            "GET /2/users/by for usernames a, b, c and 2 more",
        ),
        (lambda client: client.fetch_users([5], bearer_token=TOKEN), "GET /2/users for user 5"),
        (lambda client: client.fetch_tweets([5, 6], bearer_token=TOKEN), "GET /2/tweets for tweets 5, 6"),
        (
            lambda client: client.search_recent("from:a", bearer_token=TOKEN, max_results=10),
            "GET /2/tweets/search/recent for the query 'from:a'",
        ),
    ],
)
def test_an_error_says_what_was_attempted(call: Callable[[XApiClient], Any], attempted: str) -> None:
    with client_of(answering(b"", status=500)) as client, pytest.raises(ServerFault) as raised:
        call(client)

    assert str(raised.value) == f"{attempted} was answered with status 500: no explanation"


@pytest.mark.parametrize("body", [b"", b'{"data":[{"id"', b"<html>please wait</html>", b"[]"])
def test_a_200_that_cannot_be_read_has_still_used_up_a_call(body: bytes) -> None:
    with client_of(answering(body)) as client, pytest.raises(UnreadableAnswer) as raised:
        fetch(client)
    error = raised.value

    assert (error.status, error.rate_limits, error.transaction_id) == (200, LIMITS, "abc123")
    assert str(error).startswith("GET /2/users/:id/tweets for user 123 got an answer that cannot be read: the body of ")


@pytest.mark.parametrize(
    "call",
    [
        fetch,
        lambda client: client.search_recent("from:a", bearer_token=TOKEN, max_results=10),
        lambda client: client.search_all(
            "from:a", bearer_token=TOKEN, max_results=10, start_time=datetime(2020, 1, 1, tzinfo=UTC)
        ),
    ],
)
@pytest.mark.parametrize("body", [b"{}", b'{"title":"Service Unavailable","detail":"Try again","status":503}'])
def test_a_200_of_a_timeline_or_search_that_is_no_page_cannot_be_read(
    call: Callable[[XApiClient], Any], body: bytes
) -> None:
    with client_of(answering(body)) as client, pytest.raises(UnreadableAnswer, match="got an answer that cannot be"):
        call(client)


def test_a_body_that_is_not_the_gzip_it_claims_to_be_cannot_be_read() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        stream = httpx.ByteStream(b"no gzip")
        return httpx.Response(200, headers=HEADERS | {"content-encoding": "gzip"}, stream=Whole(stream))

    with client_of(handler) as client, pytest.raises(UnreadableAnswer) as raised:
        fetch(client)

    assert (raised.value.status, raised.value.rate_limits) == (200, LIMITS)


class Whole(httpx.SyncByteStream):
    """A body that is read, and decoded, by the client and not by the response when it is made."""

    def __init__(self, stream: httpx.ByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream


class Broken(httpx.SyncByteStream):
    """A body that ends with an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        yield b'{"data":'
        raise self._error


@pytest.mark.parametrize(
    ("status", "error", "error_class"),
    [
        (200, httpx.RemoteProtocolError("peer closed connection"), UnreadableAnswer),
        (200, httpx.ReadError("reset"), UnreadableAnswer),
        (200, httpx.ReadTimeout("slow"), ConnectionFault),
        (503, httpx.ReadError("reset"), ServerFault),
        (429, httpx.ReadTimeout("slow"), TooManyRequests),
    ],
)
def test_a_body_cut_short_leaves_what_the_headers_said(
    status: int, error: Exception, error_class: type[ApiError]
) -> None:
    with (
        client_of(lambda _: httpx.Response(status, headers=HEADERS, stream=Broken(error))) as client,
        pytest.raises(ApiError) as raised,
    ):
        fetch(client)

    assert type(raised.value) is error_class
    assert (raised.value.status, raised.value.rate_limits) == (status, LIMITS)
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    ("error", "may_be_billed"),
    [
        (httpx.ConnectError("refused"), False),
        (httpx.ConnectTimeout("slow"), False),
        (httpx.PoolTimeout("full"), False),
        (httpx.ProxyError("502"), False),
        (httpx.WriteError("reset"), True),
        (httpx.ReadError("reset"), True),
        (httpx.ReadTimeout("slow"), True),
        (httpx.RemoteProtocolError("closed"), True),
    ],
)
def test_no_answer_is_a_connection_fault_and_may_be_billed_where_it_was_sent(
    error: Exception, may_be_billed: bool
) -> None:
    with client_of(raising(error)) as client, pytest.raises(ConnectionFault) as raised:
        fetch(client)

    assert str(raised.value) == (f"GET /2/users/:id/tweets for user 123 got no answer: {type(error).__name__} {error}")
    assert (raised.value.status, raised.value.rate_limits, raised.value.__cause__) == (None, None, error)
    assert raised.value.may_be_billed == may_be_billed


@pytest.mark.parametrize("items", [[], list(range(1, 102))])
def test_a_look_up_takes_1_to_100(items: list[int]) -> None:
    with client_of(answering()) as client, pytest.raises(ValueError, match=f"got {len(items)}"):
        client.fetch_users(items, bearer_token=TOKEN)


@pytest.mark.parametrize(
    "url",
    ["https://api.x.com", "https://api.x.com/", "http://localhost:8080", "http://127.0.0.1:1/x", "http://[::1]:80"],
)
def test_https_and_this_machine_are_taken_for_a_base_url(url: str) -> None:
    with XApiClient(url, transport=httpx.MockTransport(answering())) as client:
        assert fetch(client).status == 200


@pytest.mark.parametrize(
    "url",
    [
        "http://api.x.com",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "ftp://localhost",
        "api.x.com",
        "",
        "https://",
        "https://user:hidden@api.x.com",
        "https://api.x.com?x=hidden",
        "https://api.x.com:port",
        "http://[::1",
    ],
)
def test_a_base_url_over_which_tokens_would_travel_in_clear_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        XApiClient(url)

    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("url", [f"https://{'a' * 64}.example", "https://api..example", "https://b\u00fccher.example"])
def test_a_base_url_whose_host_no_call_could_name_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"must have the form https://host"):
        XApiClient(url)


def test_the_repr_names_the_address_and_nothing_else() -> None:
    assert repr(client_of(answering())) == "XApiClient('https://api.example')"


def fail_with_the_header_at_hand(request: httpx.Request) -> httpx.Response:
    """Fail as the HTTP libraries may: in a frame whose locals hold the request as it goes over the wire."""
    on_the_wire = request.headers.raw
    try:
        raise OSError(f"a write of {len(on_the_wire)} headers failed")
    except OSError as error:
        raise httpx.WriteError("reset", request=request) from error


def everything_told_by(error: BaseException) -> str:
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format()) + repr(error) + str(error)


@pytest.mark.parametrize(
    "handler",
    [
        raising(httpx.ReadError("reset")),
        answering(b"", status=401),
        answering(b"<html>"),
        answering(b"", status=429),
        lambda request: raising(httpx.ConnectError("refused", request=request))(request),
        lambda _: httpx.Response(200, stream=Broken(httpx.ReadError("reset"))),
        fail_with_the_header_at_hand,
    ],
)
def test_no_traceback_shows_the_token(handler: Handler) -> None:
    with client_of(handler) as client, pytest.raises(ApiError) as raised:
        fetch(client)

    assert SECRET not in everything_told_by(raised.value)


@pytest.mark.parametrize("odd", ["", "\n", " ", "ï", "\x00", "\ud800"])
def test_a_token_that_no_header_can_carry_is_rejected_unsent_and_unshown(odd: str) -> None:
    token = BearerToken(SECRET + odd if odd else "")
    with client_of(raising(AssertionError("sent"))) as client, pytest.raises(TokenRejected) as raised:
        client.fetch_user_tweets(123, bearer_token=token, max_results=50)

    assert raised.value.status is None
    assert SECRET not in everything_told_by(raised.value)


# The rest runs over sockets, for what only a real connection shows.


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve each connection by a thread of its own, on this machine, until the end of the test."""
    open_connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def run(connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the client went away, or the test is over
            serve(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_connections.append(connection)
            threads.append(threading.Thread(target=run, args=(connection,)))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(5)
            for connection in open_connections:
                hang_up_from_outside(connection)
            for thread in threads:
                thread.join(5)


def hang_up_from_outside(connection: socket.socket) -> None:
    with suppress(OSError):  # closed already
        connection.shutdown(socket.SHUT_RDWR)


def read_request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionResetError
        received += chunk
    return received


def drip(connection: socket.socket, data: bytes) -> None:
    for byte in data:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def drip_headers(connection: socket.socket) -> None:
    read_request(connection)
    drip(connection, b"HTTP/1.1 200 OK\r\nx-long: " + b"x" * 10_000)


def drip_body(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nx-transaction-id: abc123\r\ncontent-length: 10000\r\n\r\n")
    drip(connection, b" " * 10_000)


def stay_silent(connection: socket.socket) -> None:
    read_request(connection)
    connection.recv(1)


def hang_up(connection: socket.socket) -> None:
    read_request(connection)


def cut_the_body(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nx-transaction-id: abc123\r\ncontent-length: 100\r\n\r\n{")


@pytest.mark.parametrize(
    ("serve", "error_class", "status"),
    [
        (drip_headers, ConnectionFault, None),
        (drip_body, ConnectionFault, 200),
        (stay_silent, ConnectionFault, None),
        (hang_up, ConnectionFault, None),
        (cut_the_body, UnreadableAnswer, 200),
    ],
)
def test_a_call_ends_in_bounded_time_whatever_the_server_does_and_shows_no_token(
    serve: Callable[[socket.socket], None], error_class: type[ApiError], status: int | None
) -> None:
    with serving(serve) as url, XApiClient(url, total_timeout_s=0.3) as client:
        started_at = time.monotonic()
        with pytest.raises(ApiError) as raised:
            fetch(client)
        took_s = time.monotonic() - started_at

    assert (type(raised.value), raised.value.status) == (error_class, status)
    assert took_s < 3
    assert SECRET not in everything_told_by(raised.value)


def test_a_server_that_is_not_there_is_a_connection_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with XApiClient(url) as client, pytest.raises(ConnectionFault) as raised:
        fetch(client)

    assert "ConnectError" in str(raised.value)
    assert not raised.value.may_be_billed
    assert SECRET not in everything_told_by(raised.value)


def test_a_call_whose_time_is_over_before_it_is_connected_cannot_be_billed() -> None:
    with (
        serving(hang_up) as url,
        XApiClient(url, total_timeout_s=0) as client,
        pytest.raises(ConnectionFault) as raised,
    ):
        fetch(client)

    assert "the time for the whole call is over" in str(raised.value)
    assert not raised.value.may_be_billed


def test_a_proxy_named_in_the_environment_is_used_and_does_not_see_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def refuse(connection: socket.socket) -> None:
        seen.append(read_request(connection))
        connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")

    with serving(refuse) as url:
        monkeypatch.setenv("HTTPS_PROXY", url)
        with XApiClient("https://api.example") as client, pytest.raises(ConnectionFault) as raised:
            fetch(client)

    assert [request.split(b"\r\n")[0] for request in seen] == [b"CONNECT api.example:443 HTTP/1.1"]
    assert SECRET.encode() not in seen[0]
    assert "ProxyError 502 Bad Gateway" in str(raised.value)


def test_no_proxy_stands_before_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(EMPTY), EMPTY))

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with serving(answer) as url, XApiClient(url) as client:
        assert fetch(client).value == EMPTY_PAGE


def test_a_lease_that_lives_as_long_as_the_longest_call_outlives_every_call() -> None:
    with XApiClient("https://api.example", total_timeout_s=30.0) as client:
        assert client.longest_call_s > 30.0


def test_a_call_waits_no_longer_for_a_connection_than_for_its_answer() -> None:
    with (
        serving(stay_silent) as url,
        XApiClient(url, max_connections=1, total_timeout_s=0.3) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        calls = [threads.submit(fetch, client) for _ in range(2)]
        told = sorted(str(call.exception()).partition("got no answer: ")[2] for call in calls)

    assert len(told) == 2
    # The second may get the connection when no time is left to use it.
    assert all(reason.startswith(("ConnectTimeout", "PoolTimeout", "ReadTimeout")) for reason in told)


def test_a_connection_that_the_server_closed_is_made_again() -> None:
    def answer_once(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(EMPTY), EMPTY))

    with serving(answer_once) as url, XApiClient(url, max_connections=1) as client:
        values = []
        for _ in range(3):
            values.append(fetch(client).value)
            time.sleep(0.05)  # until the end of the connection has arrived

    assert values == [EMPTY_PAGE] * 3


def test_a_failed_call_gives_its_connection_back() -> None:
    with serving(hang_up) as url, XApiClient(url, max_connections=1, total_timeout_s=2) as client:
        faults = []
        for _ in range(3):
            with pytest.raises(ConnectionFault) as raised:
                fetch(client)
            faults.append(str(raised.value))

    assert not any("PoolTimeout" in fault for fault in faults)


def test_threads_share_the_connections_and_each_gets_its_own_answer() -> None:
    connections = 0

    def serve(connection: socket.socket) -> None:
        nonlocal connections
        connections += 1
        while True:
            user_id = read_request(connection).split(b"/")[3].decode()
            body = gzip.compress(json.dumps({"data": [{"id": user_id}], "meta": {"result_count": 1}}).encode())
            head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)

    with serving(serve) as url, XApiClient(url, max_connections=4) as client, ThreadPoolExecutor(16) as threads:

        def fetch_one(user_id: int) -> int:
            return client.fetch_user_tweets(user_id, bearer_token=TOKEN, max_results=5).value.tweets[0].id

        fetched = list(threads.map(fetch_one, range(1, 201)))

    assert fetched == list(range(1, 201))
    assert connections <= 4
