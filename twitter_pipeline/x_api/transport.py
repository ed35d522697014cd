"""One HTTP call in bounded time.

httpx's time-outs bound each read by itself: a server that sends a byte every few seconds, of the headers or of the
body, holds a call for ever. Here each network operation of a call gets the time that is left of the whole call.
"""

import math
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, LifoQueue
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from twitter_pipeline.hosts import is_loopback

_HTTPX_ERRORS: Mapping[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.ProxyError: httpx.ProxyError,
}


class BoundedTransport(httpx.BaseTransport):
    """Keep-alive connections over HTTP/1.1 on which no call, body included, takes longer than `total_timeout_s`.

    Threads may share it; a call waits while `max_connections` others are under way. A proxy named in the environment
    (HTTPS_PROXY, NO_PROXY) is used. Not bounded are name resolution, and connecting to further addresses of a name.
    """

    def __init__(
        self,
        base_url: str,
        *,
        max_connections: int,
        connect_timeout_s: float,
        read_timeout_s: float,
        total_timeout_s: float,
    ) -> None:
        self._total_timeout_s = total_timeout_s
        self._extensions = {
            "timeout": {"connect": connect_timeout_s, "read": read_timeout_s, "write": read_timeout_s, "pool": 1.0}
        }
        ssl_context, proxy = httpx.create_ssl_context(), _proxy_for(base_url)
        self._lanes = tuple(_Lane(ssl_context, proxy) for _ in range(max_connections))
        # Last in, first out: the connections in use stay few and warm.
        self._idle: LifoQueue[_Lane] = LifoQueue()
        for lane in self._lanes:
            self._idle.put(lane)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return when the headers of the answer are there; raises httpx.TransportError.

        The answer must be closed: its connection serves the next call from then on.
        """
        deadline = time.monotonic() + self._total_timeout_s
        try:
            lane = self._idle.get(timeout=self._total_timeout_s)
        except Empty:
            raise httpx.PoolTimeout(f"all {len(self._lanes)} connections are in use") from None
        try:
            with _as_httpx_errors():
                answer = lane.send(request, self._extensions, deadline=deadline)
        except BaseException:
            self._idle.put(lane)
            raise
        body = _Body(answer, give_back=lambda: self._idle.put(lane))
        return httpx.Response(answer.status, headers=answer.headers, stream=body)

    def close(self) -> None:
        """Close all connections."""
        for lane in self._lanes:
            lane.pool.close()


class StreamTransport:
    """Opens answers that have no end, each on a connection of its own.

    Until its headers are there an answer is bounded as a whole, from then on only from one piece of it to the next:
    `silence_s` without a byte is httpx.ReadTimeout.
    """

    def __init__(self, base_url: str, *, connect_timeout_s: float, headers_timeout_s: float, silence_s: float) -> None:
        self._headers_timeout_s = headers_timeout_s
        self._extensions = {
            "timeout": {"connect": connect_timeout_s, "read": silence_s, "write": headers_timeout_s, "pool": 1.0}
        }
        self._ssl_context, self._proxy = httpx.create_ssl_context(), _proxy_for(base_url)

    def open(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return when the headers of the answer are there; raises httpx.TransportError.

        Closing the answer closes its connection.
        """
        lane = _Lane(self._ssl_context, self._proxy)
        try:
            with _as_httpx_errors():
                answer = lane.send(request, self._extensions, deadline=time.monotonic() + self._headers_timeout_s)
        except BaseException:
            lane.pool.close()
            raise
        if answer.status == 200:
            lane.lift_deadline()
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer, give_back=lane.pool.close))


class _Lane:
    """One connection, made when it is first needed and again when it was closed; one call at a time has it.

    An httpcore.ConnectionPool shared by threads closes connections under their users: while it looks for expired ones,
    a connection just handed out, and still marked idle, may receive its answer and is then taken for disconnected
    (httpcore 1.0.9; met once in some 8,000 calls of 16 threads to a local server). Hence a pool of one for each.
    """

    def __init__(self, ssl_context: ssl.SSLContext, proxy: httpcore.Proxy | None) -> None:
        self._deadline = _Deadline()
        self.pool = httpcore.ConnectionPool(
            ssl_context=ssl_context,
            proxy=proxy,
            max_connections=1,
            # A new connection with its TLS handshake costs more than a call. One that the server has closed
            # meanwhile is noticed before it is used.
            keepalive_expiry=60.0,
            network_backend=_BoundedBackend(self._deadline),
        )

    def send(self, request: httpx.Request, extensions: dict[str, Any], *, deadline: float) -> httpcore.Response:
        self._deadline.at = deadline
        url = request.url
        return self.pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.content,
                extensions=extensions,
            )
        )

    def lift_deadline(self) -> None:
        """Let the call under way last as long as it will."""
        self._deadline.at = math.inf


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response, *, give_back: Callable[[], None]) -> None:
        self._answer = answer
        self._give_back = give_back
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx_errors():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._answer.close()
        finally:
            self._give_back()


@contextmanager
def _as_httpx_errors() -> Generator[None]:
    try:
        yield
    except tuple(_HTTPX_ERRORS) as error:
        raise _HTTPX_ERRORS[type(error)](str(error)) from error


class _Deadline:
    """Until when the call that has a connection must be over, on the monotonic clock."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = math.inf

    def cut(self, timeout: float | None, over: type[Exception] = httpcore.ReadTimeout) -> float:
        """Return the time-out of one network operation, or raise `over` when the call has no time left."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise over("the time for the whole call is over")
        return left if timeout is None else min(timeout, left)


class _BoundedBackend(httpcore.NetworkBackend):
    def __init__(self, deadline: _Deadline) -> None:
        self._backend = httpcore.SyncBackend()
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        left = self._deadline.cut(timeout, httpcore.ConnectTimeout)
        stream = self._backend.connect_tcp(host, port, left, local_address, socket_options)
        return _BoundedStream(stream, self._deadline)


class _BoundedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.cut(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.cut(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.cut(timeout, httpcore.ConnectTimeout)
        stream = self._stream.start_tls(ssl_context, server_hostname, left)
        return _BoundedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _proxy_for(base_url: str) -> httpcore.Proxy | None:
    """Return the proxy that the environment names for this address, as curl and httpx do; this machine has none."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy_url = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy_url or proxy_bypass(host) or is_loopback(host):
        return None
    proxy = urlsplit(proxy_url if "://" in proxy_url else f"http://{proxy_url}")
    auth = (proxy.username, proxy.password or "") if proxy.username else None
    return httpcore.Proxy(f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}", auth=auth)
