"""The sandbox over HTTP."""

import asyncio
import html
import signal
import threading
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from contextlib import contextmanager
from socket import SO_REUSEADDR, SOL_SOCKET, socket
from typing import Any, Final
from urllib.parse import parse_qs

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from twitter_pipeline.sandbox.accounts import PREFIXES
from twitter_pipeline.sandbox.answers import Stream
from twitter_pipeline.sandbox.api import Response, SandboxApi
from twitter_pipeline.sandbox.windows import DEFAULT_LIMITS

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MADE_UP: Final = (b"x-sandbox", b"made-up data")
_TRANSPORT: Final = "sandbox.transport"
_START_PATIENCE_S: Final = 20.0
_STREAM_TICK_S: Final = 0.05


def app(api: SandboxApi) -> App:
    """Make the ASGI application of an API."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"the sandbox does not speak {scope['type']}")
        path, query = scope["path"], scope["query_string"].decode("latin-1")
        if path.startswith("/2/"):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            body = await _body(receive) if scope["method"] == "POST" else b""
            response = api.handle(scope["method"], path, query, headers, body)
        else:
            response = _about(api, path, query)
        if response.delay_s and await _gave_up(receive, response.delay_s):
            if response.stream is not None:
                response.stream.close()
            return
        if response.stream is None:
            await _send(response, scope, send)
        else:
            await _send_stream(response, response.stream, scope, receive, send)

    return answer


def serve(
    api: SandboxApi,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[str], None],
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Serve until SIGINT, SIGTERM or `until` says so; `on_ready` gets the base URL."""
    _Server(api, host=host, port=port, on_ready=on_ready, until=until).serve_here()


@contextmanager
def running_server(api: SandboxApi) -> Generator[str]:
    """Serve from a thread of this process and give the base URL."""
    ready = threading.Event()
    server = _Server(api, host="127.0.0.1", port=0, on_ready=lambda _: ready.set(), until=lambda: False)
    thread = threading.Thread(target=server.serve_here, name="sandbox", daemon=True)
    thread.start()
    try:
        if not ready.wait(_START_PATIENCE_S):
            raise RuntimeError("the sandbox did not start")
        yield server.url
    finally:
        server.should_exit = True
        thread.join()


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which lets the application cut its own connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_TRANSPORT: {"transport": self.transport}}


class _Server(uvicorn.Server):
    """A server that says when it listens, and that ends without raising the signal that ended it."""

    def __init__(
        self,
        api: SandboxApi,
        *,
        host: str,
        port: int,
        on_ready: Callable[[str], None],
        until: Callable[[], bool],
    ) -> None:
        config = uvicorn.Config(
            app(api),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self._socket = _listening(host, port)
        self._on_ready = on_ready
        self._until = until
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://{host}:{port}"

    def serve_here(self) -> None:
        """Serve in this thread."""
        self.run(sockets=[self._socket])

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready(self.url)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._until()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _listening(host: str, port: int) -> socket:
    listener = socket()
    listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


async def _body(receive: Receive) -> bytes:
    """Read the whole body of a request."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _send_stream(response: Response, stream: Stream, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a stream as it comes, until it ends or the client hangs up."""
    try:
        headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": [*headers, _MADE_UP]})
        while (chunk := stream.take()) is not None:
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if await _gave_up(receive, _STREAM_TICK_S):
                return
        if stream.was_cut:
            _transport_of(scope).close()
        else:
            await send({"type": "http.response.body", "body": b""})
    finally:
        stream.close()


async def _gave_up(receive: Receive, delay_s: float) -> bool:
    """Wait, or return True as soon as the client hangs up."""

    async def hung_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        await asyncio.wait_for(hung_up(), delay_s)
    except TimeoutError:
        return False
    return True


async def _send(response: Response, scope: Scope, send: Send) -> None:
    if response.wire in {"reset", "timeout"}:
        _transport_of(scope).abort()
        return
    headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
    headers += [(b"content-length", b"%d" % len(response.body)), _MADE_UP]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if response.wire == "cut":
        half = response.body[: len(response.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        _transport_of(scope).close()
        return
    await send({"type": "http.response.body", "body": response.body})


def _transport_of(scope: Scope) -> asyncio.Transport:
    return scope["extensions"][_TRANSPORT]["transport"]


def _about(api: SandboxApi, path: str, query: str) -> Response:
    """Answer what is not part of the API: what this is, what was called, what is true."""
    if path == "/":
        return Response(200, {"content-type": "text/html; charset=utf-8"}, _page(api))
    if path == "/sandbox/stats":
        return _json(200, _stats(api))
    if path == "/sandbox/truth":
        return _truth(api, parse_qs(query).get("username", [""])[0])
    return _json(404, {"title": "Not Found", "detail": f"The sandbox has no {path}", "status": 404})


def _json(status: int, thing: object) -> Response:
    return Response(status, {"content-type": "application/json"}, orjson.dumps(thing))


def _stats(api: SandboxApi) -> dict[str, Any]:
    return {
        "made_up": True,
        "calls": sum(api.statuses().values()),
        "statuses": {str(status): count for status, count in api.statuses().items()},
        "refusals": api.refusals,
        "posts_billed": api.posts_billed(),
        "users_billed": api.users_billed(),
    }


def _truth(api: SandboxApi, username: str) -> Response:
    try:
        tweet_ids, served_ids = api.world.tweet_ids(username), api.world.served_ids(username)
    except (KeyError, ValueError):
        return _json(404, {"title": "Not Found", "detail": f"No account is called {username!r} now", "status": 404})
    truth = {
        "made_up": True,
        "user": api.world.user(username),
        "tweets": len(tweet_ids),
        "served_ids": [str(tweet_id) for tweet_id in served_ids],
    }
    return _json(200, truth)


def _shown(endpoint: str) -> str:
    return endpoint if " " in endpoint else f"GET {endpoint}"


def _page(api: SandboxApi) -> bytes:
    endpoints = "".join(f"<li><code>{_shown(endpoint)}</code></li>" for endpoint in DEFAULT_LIMITS)
    prefixes = "".join(f"<li><code>@{prefix}…</code> {html.escape(what)}</li>" for prefix, what in PREFIXES.items())
    tokens = "".join(f"<li><code>{html.escape(bearer)}</code></li>" for bearer in api.bearers)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Sandbox: made-up data</title></head><body>
<h1>A sandbox with made-up data</h1>
<p>This is not X. It is a local server that answers as the X API v2 does, so that a program can be tried out without
a token and without cost. Nobody wrote these tweets, no account here belongs to anybody; every valid name exists.</p>
<h2>Endpoints</h2><ul>{endpoints}</ul>
<h2>Special names</h2><ul>{prefixes}</ul>
<h2>Bearer tokens</h2><ul>{tokens}</ul>
<p>Without a token: <a href="/sandbox/stats">/sandbox/stats</a>,
<a href="/sandbox/truth?username=nasa">/sandbox/truth?username=nasa</a>.</p>
</body></html>
""".encode()
