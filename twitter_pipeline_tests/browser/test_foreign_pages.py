"""Pages of other sites that a user of the UI has open in the same browser: they read nothing and start nothing."""

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar
from urllib.parse import quote

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from twitter_pipeline.secret import UiPassword
from twitter_pipeline.texts import as_code
from twitter_pipeline.ui.guard import Guard
from twitter_pipeline_tests.browser.place import FOREIGN_NAME

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("browser")]

# An attack that succeeds leaves a limit of this name behind; it stands for all mutations, such as launching a run.
MUTATION = 'mutation { setConcurrencyLimit(concurrencyKey: "evil", limit: 1) }'
TAKEN_BACK = 'mutation { deleteConcurrencyLimit(concurrencyKey: "evil") }'
LEFT_BEHIND = """{
    instance { concurrencyLimits { concurrencyKey } }
    assetsOrError { ... on AssetConnection { nodes { key { path } } } }
}"""

ATTACKS = {
    "image": "new Image().src = `${ui}/graphql?query=${query}`",
    "form": "submit({action: `${ui}/graphql?query=${query}`, method: 'POST', target: 'hidden'})",
    "form in the open": "submit({action: `${ui}/graphql?query=${query}`, method: 'POST'})",
    "form of text": """
        submit({action: `${ui}/graphql`, method: 'POST', enctype: 'text/plain', target: 'hidden'},
               `{"query": ${JSON.stringify(mutation)}, "rest": "`, '"}')""",
    "form of parts": """
        submit({action: `${ui}/graphql`, method: 'POST', enctype: 'multipart/form-data', target: 'hidden'},
               'operations', JSON.stringify({query: mutation}))""",
    "link": "location = `${ui}/graphql?query=${query}`",
    "text that Dagster takes for JSON": """
        fetch(`${ui}/graphql`, {method: 'POST', mode: 'no-cors', body: JSON.stringify({query: mutation}),
                                headers: {'Content-Type': 'text/plain;application/json'}})""",
    "beacon": """
        navigator.sendBeacon(`${ui}/graphql`,
            new Blob([JSON.stringify({query: mutation})], {type: 'text/plain;application/json'}))""",
    "report": "fetch(`${ui}/report_asset_materialization/evil`, {method: 'POST', mode: 'no-cors'})",
}

PAGE = """
<iframe name=hidden></iframe>
<script>
function submit(attributes, name, value) {
    const form = Object.assign(document.createElement('form'), attributes)
    if (name) form.append(Object.assign(document.createElement('input'), {name, value}))
    document.body.append(form)
    form.submit()
}
</script>
"""


class _Page(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def foreign() -> Iterator[str]:
    """The address of a page of another site."""
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://{FOREIGN_NAME}:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def page(window: BrowserContext, foreign: str) -> Iterator[Page]:
    """That page, open in the window in which the UI is used."""
    page = window.new_page()
    page.goto(foreign)
    yield page
    page.close()


def graphql(url: str, query: str) -> str:
    """Ask as a program does."""
    return httpx.post(f"{url}/graphql", json={"query": query}, trust_env=False).raise_for_status().text


@pytest.mark.parametrize("name", ATTACKS)
def test_a_page_of_another_site_changes_nothing(page: Page, url: str, name: str) -> None:
    arguments = "([ui, mutation, query])"
    with page.expect_response(lambda response: response.url.startswith(url), timeout=30_000) as answered:
        page.evaluate(f"{arguments} => {{ {ATTACKS[name]} }}", [url, MUTATION, quote(MUTATION)])

    assert answered.value.status == (405 if name == "link" else 403)
    assert "evil" not in graphql(url, LEFT_BEHIND)


def test_a_program_may_send_the_mutation_that_the_pages_try(url: str) -> None:
    graphql(url, MUTATION)
    left = graphql(url, LEFT_BEHIND)
    graphql(url, TAKEN_BACK)

    assert "evil" in left


OPEN_WEBSOCKET = """
url => new Promise(resolve => {
    const socket = new WebSocket(url, 'graphql-ws')
    socket.onopen = () => resolve('open')
    socket.onerror = () => resolve('refused')
})
"""


def test_a_page_of_another_site_hears_nothing_and_frames_nothing(page: Page, url: str) -> None:
    heard = page.evaluate(OPEN_WEBSOCKET, f"{url.replace('http', 'ws')}/graphql")
    with page.expect_response(lambda response: response.url.startswith(url)) as framed:
        page.evaluate("url => document.querySelector('iframe').src = url", url)
    page.goto(url)
    heard_by_the_ui = page.evaluate(OPEN_WEBSOCKET, f"{url.replace('http', 'ws')}/graphql")

    assert (heard, framed.value.status, heard_by_the_ui) == ("refused", 403, "open")


def test_a_name_that_is_rebound_to_this_machine_is_not_served(page: Page, url: str) -> None:
    answer = page.goto(url.replace("127.0.0.1", FOREIGN_NAME))

    assert answer is not None
    assert (answer.status, answer.text().startswith("This host is not served")) == (421, True)


HOSTILE = (
    "![x]({0}/x.png) [x](javascript:alert(1)) <img src={0}/y.png> {0}/z www.evil.example me@evil.example `` | ` ~~x~~"
)


@contextmanager
def shown(window: BrowserContext, url: str, text: str) -> Generator[Locator]:
    """Open the page of an asset that shows a text as the description of an observation."""
    httpx.post(
        f"{url}/report_asset_observation/of_strangers", json={"description": text}, trust_env=False
    ).raise_for_status()
    page = window.new_page()
    page.goto(f"{url}/assets/of_strangers?view=events", wait_until="networkidle")
    shown = page.locator(".dagster-markdown", has_text="me@evil.example").first
    expect(shown).to_be_visible(timeout=30_000)
    yield shown
    page.close()


def test_the_ui_makes_nothing_of_a_text_that_strangers_wrote(window: BrowserContext, url: str, foreign: str) -> None:
    hostile = HOSTILE.format(foreign)
    with shown(window, url, as_code(hostile)) as text:
        assert (text.inner_text(), text.locator("img, a").count()) == (hostile, 0)


def test_the_ui_fetches_no_picture_of_another_site_even_where_markdown_names_one(
    window: BrowserContext, url: str, foreign: str
) -> None:
    with shown(window, url, HOSTILE.format(foreign)) as text:
        picture = text.locator("img").evaluate("image => [image.src, image.complete]")

    assert picture == [f"{foreign}/x.png", True]
    assert "/x.png" not in _Page.asked


PROTECTED = """
<script src=/asset.js></script>
<script>
    const socket = new WebSocket(`ws://${location.host}/graphql`)
    socket.onmessage = message => document.body.append(asset, message.data)
    fetch('/graphql', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{}'})
        .then(answer => answer.text()).then(text => document.body.append(text))
</script>
"""


@pytest.fixture
def protected() -> Iterator[str]:
    """The address of a page with a script and a WebSocket behind a password, in place of Dagster's UI."""

    async def speak(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("websocket ")
        await socket.close()

    app = Starlette(
        routes=[
            Route("/", lambda _: HTMLResponse(f"<body>{PROTECTED}")),
            Route("/asset.js", lambda _: PlainTextResponse("const asset = 'asset '", media_type="text/javascript")),
            Route("/graphql", lambda _: PlainTextResponse("answer "), methods=["POST"]),
            WebSocketRoute("/graphql", speak),
        ]
    )
    guard = Guard(app, hosts=(), password=UiPassword("correct horse"))
    server = uvicorn.Server(uvicorn.Config(guard, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_the_password_is_asked_for_once_and_opens_assets_and_websockets_too(browser: Browser, protected: str) -> None:
    with browser.new_context(http_credentials={"username": "me", "password": "correct horse"}) as knows:
        page = knows.new_page()
        page.goto(protected)
        for part in ("asset", "websocket", "answer"):
            expect(page.locator("body")).to_contain_text(part)
    with browser.new_context(http_credentials={"username": "me", "password": "wrong"}) as guesses:
        answer = guesses.new_page().goto(protected)

    assert answer is not None
    assert answer.status == 401
