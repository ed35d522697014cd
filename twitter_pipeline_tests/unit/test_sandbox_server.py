"""The sandbox over HTTP: the same answers, real faults of connections, and a process that ends when it should."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.api import SandboxApi
from twitter_pipeline.sandbox.faults import FaultKind, Faults
from twitter_pipeline.sandbox.server import running_server
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline.sandbox.world import World

HEADERS = {"authorization": "Bearer sandbox-token-1"}


def api(*script: FaultKind | None, latency_s: float = 0.0) -> SandboxApi:
    world = World(1, accounts=[AccountSpec("author", tweets=120)])
    faults = Faults(script=script, latency_s=latency_s)
    return SandboxApi(world, tokens=[TokenSpec("sandbox-token-1")], faults=faults)


@pytest.fixture
def sandbox() -> SandboxApi:
    return api()


@pytest.fixture
def client(sandbox: SandboxApi) -> Iterator[httpx.Client]:
    with running_server(sandbox) as url, httpx.Client(base_url=url, headers=HEADERS) as client:
        yield client


def test_it_answers_over_http_as_in_process(client: httpx.Client, sandbox: SandboxApi) -> None:
    user_id = client.get("/2/users/by", params={"usernames": "author"}).json()["data"][0]["id"]
    page = client.get(f"/2/users/{user_id}/tweets", params={"max_results": 50})

    assert [int(tweet["id"]) for tweet in page.json()["data"]] == sandbox.world.served_ids("author")[:50]
    assert page.headers["x-sandbox"] == "made-up data"
    assert page.headers["x-rate-limit-remaining"] == "9999"


def test_it_says_what_it_is_and_what_is_true(client: httpx.Client, sandbox: SandboxApi) -> None:
    page = client.get("/")
    truth = client.get("/sandbox/truth", params={"username": "author"}).json()
    client.get("/2/users?ids=1")

    assert "made-up data" in page.text
    assert "/2/users/:id/tweets" in page.text
    assert [int(tweet_id) for tweet_id in truth["served_ids"]] == sandbox.world.served_ids("author")
    assert client.get("/sandbox/stats").json()["calls"] == 1
    assert client.get("/2/nonsense").status_code == 404
    assert all(client.get(path).headers["x-sandbox"] for path in ("/", "/nonsense", "/2/users"))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset", httpx.TransportError),
        ("cut", httpx.RemoteProtocolError),
        ("timeout", httpx.ReadTimeout),
    ],
)
def test_connections_fail_for_real(fault: FaultKind, error: type[httpx.TransportError]) -> None:
    with running_server(api(fault)) as url, httpx.Client(base_url=url, headers=HEADERS, timeout=0.5) as client:
        with pytest.raises(error):
            client.get("/2/users", params={"ids": "1"})

        assert client.get("/2/users", params={"ids": "1"}).status_code == 200


def test_a_server_with_an_answer_pending_ends_at_once() -> None:
    with running_server(api("timeout")) as url, httpx.Client(base_url=url, headers=HEADERS, timeout=0.2) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.get("/2/users", params={"ids": "1"})
        started = time.monotonic()
    assert time.monotonic() - started < 3


COMMAND = [sys.executable, "-m", "twitter_pipeline.sandbox", "--tokens", "2"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_listens_and_ends_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.json"
    accounts.write_text(json.dumps([{"username": "author", "tweets": 7, "created_at": "2020-01-01T00:00:00Z"}]))
    with subprocess.Popen([*COMMAND, "--accounts", accounts], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        truth = httpx.get(f"{ready['url']}/sandbox/truth", params={"username": "author"}).json()
        process.send_signal(number)
        status = process.wait(5)

    assert (status, truth["tweets"]) == (0, 7)
    assert ready["bearer_tokens"] == ["sandbox-token-1", "sandbox-token-2"]


def test_the_command_does_not_outlive_its_parent() -> None:
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen({[*COMMAND, '--exit-with-parent']!r}, stdout=subprocess.PIPE, text=True)\n"
        "print(child.stdout.readline(), end='', flush=True)\n"
        "import os; os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True, timeout=20)
    url = json.loads(done.stdout)["url"]

    assert _is_gone_within(5, url)


def _is_gone_within(seconds: float, url: str) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            httpx.get(url, timeout=1)
        except httpx.TransportError:
            return True
        time.sleep(0.1)
    return False


def test_wrong_accounts_are_one_message_and_status_2(tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.json"
    accounts.write_text('[{"username": "author", "tweet": 7}]')

    done = subprocess.run([*COMMAND, "--accounts", accounts], capture_output=True, text=True, check=False, timeout=20)

    assert done.returncode == 2
    assert "unknown tweet" in done.stderr
    assert "Traceback" not in done.stderr
