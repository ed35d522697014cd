"""The guard before Dagster's web server, which by itself does what any page in the user's browser asks for."""

import base64
import secrets
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from twitter_pipeline.hosts import is_served
from twitter_pipeline.secret import UiPassword

READING = ("GET", "HEAD")

LIVENESS = "/server_info"
"""The path that answers without the password, for probes; it names versions."""

POLICY = "frame-ancestors 'none'; img-src 'self' data: blob:"
"""Beside Dagster's own: no page frames the UI, and whatever Markdown says, no picture is fetched from another host."""


class Guard:
    """Passes on what the user's own UI or a program asks for, and refuses what a foreign page does.

    Served are `hosts`, localhost and addresses. What may change something is a POST of JSON, which no form sends and no
    foreign page may. With a `password` all but LIVENESS wants it, by HTTP Basic authentication with any user name.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], password: UiPassword | None) -> None:
        self._app = app
        self._hosts = hosts
        self._password = password

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or a WebSocket's opening."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.append("Content-Security-Policy", POLICY)
                headers["X-Frame-Options"] = "DENY"
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        method = scope["method"] if scope["type"] == "http" else "GET"
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not is_served(hosts[0], self._hosts):
            return _refuse(421, "This host is not served; TWITTER_ALLOWED_HOSTS lists those that are.")
        if _is_foreign(headers, hosts[0], is_opening=scope["type"] == "http" and method in READING):
            return _refuse(403, "Pages of other sites may ask for nothing here. A proxy must pass the Host header on.")
        if self._password and not (method in READING and scope["path"] == LIVENESS) and not self._knows(headers):
            return _refuse(401, "The password is asked for.", {"WWW-Authenticate": 'Basic realm="twitter-pipeline"'})
        if method not in READING and _media_types(headers) != ["application/json"]:
            return _refuse(415, "What changes something is sent as application/json.")
        if method in READING and scope["path"].endswith("/graphql") and scope["query_string"]:
            return _refuse(405, "GraphQL is asked by POST.", {"Allow": "POST"})
        return None

    def _knows(self, headers: Headers) -> bool:
        assert self._password is not None
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        try:
            _, _, given = base64.b64decode(credentials, validate=True).partition(b":")
        except ValueError:
            return False
        return scheme.lower() == "basic" and secrets.compare_digest(given, self._password.reveal().encode())


def _is_foreign(headers: Headers, host: str, *, is_opening: bool) -> bool:
    """Return whether a browser says that a page of another origin asks; to follow a link there (`is_opening`) is fine.

    The scheme is not compared: with a proxy that speaks TLS the browser's is another. Programs say nothing of either.
    """
    if any(origin.partition("://")[2].lower() != host.lower() for origin in headers.getlist("origin")):
        return True
    is_link = is_opening and headers.getlist("sec-fetch-dest") == ["document"]
    return not (is_link or set(headers.getlist("sec-fetch-site")) <= {"same-origin", "none"})


def _media_types(headers: Headers) -> list[str]:
    return [each.partition(";")[0].strip().lower() for each in headers.getlist("content-type")]


def _refuse(status: int, why: str, headers: dict[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(f"{why}\n", status, headers)
