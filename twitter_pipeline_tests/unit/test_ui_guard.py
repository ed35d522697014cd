"""The guard before the UI, without a server: what it passes on, and what it refuses."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import pytest

from twitter_pipeline.secret import UiPassword
from twitter_pipeline.ui.guard import Guard

PASSWORD = "correct: horse ünd"  # noqa: S105 nobody's

HERE = ("Host", "127.0.0.1:3000")
JSON = ("Content-Type", "application/json")
OURS = ("Origin", "http://127.0.0.1:3000")
FOREIGN = ("Origin", "http://evil.example")

Header = tuple[str, str]


def ask(
    *headers: Header, request: str = "GET /", password: str | None = None, kind: str = "http"
) -> tuple[int, list[Header]]:
    """Return the status and headers of an answer; 200, or 101 of a WebSocket, means that the request was passed on."""

    async def dagster(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "status": 101, "headers": []})
        else:
            own = [(b"content-security-policy", b"script-src 'self'")]
            await send({"type": "http.response.start", "status": 200, "headers": own})

    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError("the body is not read")

    method, _, target = request.partition(" ")
    path, _, query = target.partition("?")
    scope = {
        "type": kind,
        **({"method": method} if kind == "http" else {}),
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    guard = Guard(
        dagster,
        hosts=frozenset({"ui.example.com"}),
        password=None if password is None else UiPassword(password),
    )
    asyncio.run(guard(scope, receive, send))
    first = messages[0]
    return first["status"], [(name.decode(), value.decode()) for name, value in first["headers"]]


def status(*headers: Header, request: str = "GET /", password: str | None = None, kind: str = "http") -> int:
    return ask(*headers, request=request, password=password, kind=kind)[0]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:3000", "localhost:3000", "localhost", "LOCALHOST.", "[::1]:3000", "10.1.2.3", "ui.example.com:443"],
)
def test_localhost_addresses_and_configured_names_are_served(host: str) -> None:
    assert status(("Host", host)) == 200


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["evil.example:3000"],
        ["localhost.evil.example"],
        ["evil.localhost"],
        ["example.com"],
        ["x.ui.example.com"],
        ["127.0.0.1.evil.example"],
        ["evil.example@127.0.0.1"],
        ["127.0.0.1/evil.example"],
        ["127.0.0.1, evil.example"],
        ["[::1", "]"],
        ["127.0.0.1:3000", "evil.example"],
        ["127.0.0.1:3000", "127.0.0.1:3000"],
        ["127.0.0.1\n"],
    ],
)
def test_other_hosts_are_refused_also_to_websockets_so_that_no_name_can_be_rebound(hosts: Sequence[str]) -> None:
    headers = [("Host", host) for host in hosts]

    assert status(*headers) == 421
    assert status(*headers, kind="websocket") == 421


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:3000", "https://127.0.0.1:3000"])
def test_the_ui_itself_and_programs_are_passed_on(origin: str | None) -> None:
    own = [HERE, JSON, *([] if origin is None else [("Origin", origin), ("Sec-Fetch-Site", "same-origin")])]

    assert status(*own, request="POST /graphql") == 200
    assert status(*own, ("Content-Type", "application/json; charset=utf-8")) == 200
    assert status(*own, kind="websocket") == 101


def test_a_proxy_that_speaks_tls_is_passed_on_when_it_keeps_the_host() -> None:
    assert (
        status(("Host", "ui.example.com"), ("Origin", "https://ui.example.com"), JSON, request="POST /graphql") == 200
    )
    assert status(HERE, ("Origin", "https://ui.example.com"), JSON, request="POST /graphql") == 403


@pytest.mark.parametrize(
    "foreign",
    [
        [FOREIGN],
        [("Origin", "null")],
        [("Origin", "")],
        [("Origin", "http://127.0.0.1:8888")],
        [("Origin", "http://localhost:3000")],
        [("Origin", "http://127.0.0.1:3000.evil.example")],
        [OURS, FOREIGN],
        [("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "same-site")],
        [OURS, ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")],
    ],
)
def test_what_a_page_of_another_origin_asks_for_is_refused_on_every_route(foreign: Sequence[Header]) -> None:
    for request in (
        "POST /graphql",
        "POST /report_asset_materialization/tweets",
        "POST /report_asset_check/tweets",
        "POST /report_asset_observation/tweets",
        "OPTIONS /graphql",
        "GET /graphql?query={version}",
        "GET /logs/run/compute_logs/step/err",
        "GET /download_debug/run",
        "GET /server_info",
    ):
        assert status(HERE, *foreign, JSON, request=request) == 403
    assert status(HERE, *foreign, kind="websocket") == 403


def test_a_link_to_a_page_may_be_followed_from_anywhere_but_not_into_a_frame() -> None:
    followed = [HERE, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")]

    assert status(*followed, ("Sec-Fetch-Dest", "document"), request="GET /runs/x") == 200
    assert status(*followed, ("Sec-Fetch-Dest", "iframe"), request="GET /runs/x") == 403
    assert status(*followed, ("Sec-Fetch-Dest", "document"), JSON, request="POST /graphql") == 403
    assert status(*followed, ("Sec-Fetch-Dest", "document"), kind="websocket") == 403
    assert status(*followed, ("Sec-Fetch-Dest", "document"), request="GET /graphql?query=mutation{x}") == 405


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "FOO"])
@pytest.mark.parametrize(
    "types",
    [
        [],
        [""],
        ["text/plain"],
        ["text/plain; application/json"],
        ["text/plain;charset=application/json"],
        ["application/x-www-form-urlencoded"],
        ["multipart/form-data; boundary=application/json"],
        ["application/graphql"],
        ["application/json, text/plain"],
        ["application/json", "text/plain"],
    ],
)
def test_what_changes_something_is_json_as_no_form_sends_it(method: str, types: Sequence[str]) -> None:
    sent = [("Content-Type", each) for each in types]

    for path in ("/graphql", "/report_asset_materialization/tweets?description=x", "/"):
        assert status(HERE, *sent, request=f"{method} {path}") == 415


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_graphql_is_not_asked_by_get_whatever_is_overridden(method: str) -> None:
    overridden = ("X-HTTP-Method-Override", "POST")

    assert status(HERE, JSON, request=f"{method} /graphql?query=mutation{{x}}") == 405
    assert status(HERE, JSON, overridden, request=f"{method} /prefix/graphql?query={{x}}") == 405
    assert status(HERE, request=f"{method} /graphql") == 200
    assert status(HERE, request=f"{method} /runs?q=x") == 200


def test_no_page_can_frame_it_and_dagsters_own_policy_stays() -> None:
    policy = ("content-security-policy", "frame-ancestors 'none'; img-src 'self' data: blob:")
    passed_on, refused = ask(HERE), ask(HERE, FOREIGN)

    assert passed_on[1] == [("content-security-policy", "script-src 'self'"), policy, ("x-frame-options", "DENY")]
    assert {policy, ("x-frame-options", "DENY")} <= set(refused[1])


def basic(credentials: str, scheme: str = "Basic") -> Header:
    return "Authorization", f"{scheme} {base64.b64encode(credentials.encode()).decode()}"


@pytest.mark.parametrize("scheme", ["Basic", "basic"])
@pytest.mark.parametrize("user", ["", "me"])
def test_a_password_opens_everything(user: str, scheme: str) -> None:
    given = basic(f"{user}:{PASSWORD}", scheme)

    assert status(HERE, given, password=PASSWORD) == 200
    assert status(HERE, given, JSON, request="POST /graphql", password=PASSWORD) == 200
    assert status(HERE, given, kind="websocket", password=PASSWORD) == 101
    assert status(HERE, given, FOREIGN, JSON, request="POST /graphql", password=PASSWORD) == 403


@pytest.mark.parametrize(
    "given",
    [
        None,
        basic(":wrong"),
        basic(PASSWORD),
        basic(f"x:{PASSWORD}x"),
        basic(f":{PASSWORD}", "Bearer"),
        ("Authorization", "Basic"),
        ("Authorization", "Basic !"),
        ("Authorization", "Basic ü"),
        ("Authorization", ""),
    ],
)
def test_without_the_password_only_the_liveness_is_answered(given: Header | None) -> None:
    headers = [HERE, *([] if given is None else [given])]

    for request in ("GET /", "GET /_next/static/x.js", "GET /logs/x", "POST /graphql", "POST /server_info", "HEAD /"):
        answered, answer = ask(*headers, JSON, request=request, password=PASSWORD)
        assert (answered, dict(answer)["www-authenticate"]) == (401, 'Basic realm="twitter-pipeline"')
    assert status(*headers, kind="websocket", password=PASSWORD) == 401
    assert status(*headers, request="GET /server_info", password=PASSWORD) == 200
    assert status(*headers, FOREIGN, request="GET /server_info", password=PASSWORD) == 403


def test_what_opens_and_closes_the_server_is_passed_on() -> None:
    passed: list[str] = []

    async def dagster(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    asyncio.run(Guard(dagster, hosts=(), password=UiPassword("x"))({"type": "lifespan"}, None, None))  # pyright: ignore

    assert passed == ["lifespan"]
