"""Bearer tokens with values that nothing else has, looked for everywhere after runs that went well and ill."""

import io
import logging
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import httpcore
import pytest
from rich.console import Console
from rich.traceback import Traceback

from twitter_pipeline import calls
from twitter_pipeline.errors import ApiError, ConfigurationError, ConnectionFault, ServerFault, UnreadableAnswer
from twitter_pipeline.local.postgres import EmbeddedServer
from twitter_pipeline.orchestration.alerts import alerts_sensor
from twitter_pipeline.sandbox.faults import FaultKind, Faults
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.settings import load_settings
from twitter_pipeline.x_api import transport
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline_tests.conftest import MakeSandbox
from twitter_pipeline_tests.e2e.conftest import (
    MakeWorkshop,
    Trap,
    command_lines,
    dump,
    ended,
    leaks,
    signalled,
    silent,
)
from twitter_pipeline_tests.webhooks import SECRET_PATH, receiver

SECRETS = ("AAAAAAAAe2e-secret-one%3Dxyzzy", "AAAAAAAAe2e-secret-two%3Dplugh")
TOKENS = [TokenSpec(SECRETS[0], state="invalid"), TokenSpec(SECRETS[1])]


def test_a_secret_that_is_somewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(SECRETS[1])

    found = leaks(SECRETS, texts={"header": f"Bearer {SECRETS[0]}", "other": "Bearer"}, folders=[tmp_path])

    assert found == ["header", str(tmp_path / "file")]


def test_no_secret_is_in_databases_logs_files_or_command_lines_of_runs_that_succeed_fail_and_are_cancelled(
    make_workshop: MakeWorkshop,
    postgres: EmbeddedServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # SQLAlchemy is silent until it is asked by its name.
    for name in (None, "sqlalchemy"):
        caplog.set_level(logging.DEBUG, logger=name)
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.001)
    texts: dict[str, str] = {}
    trap = Trap(at=6)
    workshop = make_workshop([silent("alpha", 900), silent("beta", 60)], tokens=TOKENS, script=trap, latency_s=0.03)

    # Cancelled, in a process of its own that logs everything there is; the other token is rejected on the way.
    process = workshop.start("alpha", words=["--debug"])

    def cancel() -> None:
        texts["command lines"] = command_lines()
        signalled(process, signal.SIGTERM)()

    trap.action = cancel
    texts["debug output of a cancelled run"], cancelled = ended(process)
    succeeded = workshop.fetch("beta")
    trap.fault = "reset"
    failed_in_the_connection = workshop.fetch("alpha")
    workshop.sandbox.api.set_token_state(SECRETS[1], "invalid")
    failed_for_want_of_a_token = workshop.fetch("alpha", "gamma")

    texts |= {"stdout and stderr": "".join(capfd.readouterr()), "log": caplog.text}
    texts |= {
        "tables": dump(postgres, workshop.place.database_url),
        "Dagster": dump(postgres, workshop.place.dagster_url),
    }
    results = (succeeded, failed_in_the_connection, failed_for_want_of_a_token)
    texts["results"] = repr((results, workshop.place))
    # Each place is one where the names of the tokens, or of the calls made with them, do appear.
    assert cancelled == 130
    assert [result.error is None for result in results] == [True, False, False]
    assert "twitter_pipeline_tests.e2e.child" in texts["command lines"]
    assert "send_request_headers" in texts["debug output of a cancelled run"] + texts["log"]
    assert "TWITTER_BEARER_1" in texts["debug output of a cancelled run"]
    assert all("TWITTER_BEARER_2: invalid" in texts[name] for name in ("tables", "Dagster", "results"))
    assert "TWITTER_BEARER_2 is invalid" in texts["log"]
    talkers = {record.name.partition(".")[0] for record in caplog.records if record.levelno <= logging.DEBUG}
    assert {"httpcore", "sqlalchemy"} <= talkers
    assert leaks(SECRETS, texts=texts, folders=[tmp_path]) == []


@pytest.mark.parametrize("status", [200, 302, 500, None], ids=["takes it", "redirects", "refuses", "is gone"])
def test_the_address_of_the_webhook_is_in_no_table_log_tick_or_event_whether_it_takes_alerts_or_not(
    status: int | None,
    make_workshop: MakeWorkshop,
    postgres: EmbeddedServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in (None, "sqlalchemy"):
        caplog.set_level(logging.DEBUG, logger=name)
    workshop = make_workshop([silent("alpha", 5)], tokens=[TokenSpec("nobodys", state="invalid")])
    with receiver() as slack:
        slack.status, slack.location = status or 200, f"https://elsewhere.invalid{SECRET_PATH}"
        # Nobody listens on port 9.
        address = slack.url.reveal() if status else f"http://127.0.0.1:9{SECRET_PATH}"
        os.environ["TWITTER_ALERT_WEBHOOK"] = address
        workshop.fetch("alpha")
        with dg.DagsterInstance.get() as instance:
            context = dg.build_sensor_context(instance=instance, resources={"database": workshop.opened})
            told = alerts_sensor(context)

    assert isinstance(told, dg.SkipReason)
    texts = {"tick": repr(told), "stdout and stderr": "".join(capfd.readouterr()), "log": caplog.text}
    texts |= {
        "settings": repr(workshop.opened),
        "tables": dump(postgres, workshop.place.database_url),
        "Dagster": dump(postgres, workshop.place.dagster_url),
        "command lines": command_lines(),
    }
    assert (SECRET_PATH in slack.paths) == (status is not None)
    assert "No token is left" in texts["log"]
    assert "No token is left" in texts["tables"]
    assert ("the webhook takes no messages" in texts["tick"]) == (status != 200)
    assert leaks([SECRET_PATH], texts=texts, folders=[tmp_path]) == []


FAULTS: list[FaultKind] = ["500", "html_200", "cut", "reset", "bare_429"]


@pytest.mark.parametrize("fault", [*FAULTS, "401"])
def test_no_secret_is_in_what_an_error_of_the_http_client_shows_with_all_locals(
    make_sandbox: MakeSandbox, fault: FaultKind, caplog: pytest.LogCaptureFixture
) -> None:
    # The value itself is in no local variable of the test, whose frame is shown too.
    caplog.set_level(logging.DEBUG)
    sandbox = make_sandbox(tokens=[TokenSpec(SECRETS[0])], faults=Faults(script=lambda *_: fault))
    if fault == "401":
        sandbox.api.set_token_state(SECRETS[0], "invalid")
    with XApiClient(sandbox.serve()) as client, pytest.raises(ApiError) as caught:
        client.fetch_users_by_usernames(["nasa"], bearer_token=BearerToken(SECRETS[0]))

    assert_shows_no_secret(caught.value, caplog.text)


def assert_shows_no_secret(error: BaseException, log: str) -> None:
    """Assert it of all that can be shown of an error: its text, attributes, causes, and the locals of every frame."""
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    page = io.StringIO()
    told = Traceback.from_exception(
        type(error), error, error.__traceback__, show_locals=True, locals_max_length=None, locals_max_string=None
    )
    Console(file=page, width=1000).print(told)
    assert "bearer_token = BearerToken('***')" in shown
    assert "bearer_token = BearerToken('***')" in page.getvalue()
    texts = {"traceback": shown, "rich": page.getvalue(), "attributes": repr((error, vars(error))), "log": log}
    assert leaks(SECRETS, texts=texts) == []


@dataclass
class Peer:
    """A server that takes every connection, answers with these bytes, if any, and keeps what it was sent."""

    answer: bytes = b""
    heard: bytes = field(default=b"", repr=False)
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def address(self) -> str:
        return "127.0.0.1:{1}".format(*self.listener.getsockname())

    def serve(self) -> None:
        """Serve until the socket is shut."""
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection:
                    self.heard += connection.recv(65_536)
                    connection.sendall(self.answer)
                    # Until the other side has had enough.
                    while self.answer == b"" and connection.recv(65_536):
                        pass


@pytest.fixture
def make_peer() -> Iterator[Callable[[bytes], Peer]]:
    with ExitStack() as cleanup:

        def make(answer: bytes) -> Peer:
            peer = Peer(answer)
            thread = threading.Thread(target=peer.serve)
            thread.start()
            cleanup.callback(thread.join)
            cleanup.callback(peer.listener.close)
            cleanup.callback(peer.listener.shutdown, socket.SHUT_RDWR)
            return peer

        yield make


REDIRECT = "HTTP/1.1 {} Elsewhere\r\nLocation: {}/2/users/by\r\nContent-Length: 0\r\n\r\n"
FAILURES = {
    "refused": ("http://127.0.0.1:9", b"", ConnectionFault),
    "of another name": ("https://no-such-host.invalid", b"", ConnectionFault),
    "TLS": ("https://{}", b"HTTP/1.1 400 Bad Request\r\n\r\n", ConnectionFault),
    "silent": ("http://{}", b"", ConnectionFault),
    "no HTTP": ("http://{}", b"SSH-2.0-OpenSSH_9.2\r\n", ConnectionFault),
    "bad headers": ("http://{}", b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", ConnectionFault),
    "bad length": ("http://{}", b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", ConnectionFault),
    "cut": ("http://{}", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", UnreadableAnswer),
    "no gzip": ("http://{}", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", ApiError),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_no_secret_is_in_what_a_broken_connection_shows_with_all_locals(
    make_peer: Callable[[bytes], Peer], failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url, answer, expected = FAILURES[failure]
    peer = make_peer(answer)
    with XApiClient(url.format(peer.address), read_timeout_s=0.2) as client, pytest.raises(expected) as caught:
        client.fetch_users_by_usernames(["nasa"], bearer_token=BearerToken(SECRETS[0]))

    assert_shows_no_secret(caught.value, caplog.text)
    assert (SECRETS[0].encode() in peer.heard) == ("{}" in url and failure != "TLS")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_no_secret_to_another_server(
    make_peer: Callable[[bytes], Peer], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    other = make_peer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    peer = make_peer(REDIRECT.format(status, f"http://{other.address}").encode())
    with XApiClient(f"http://{peer.address}") as client, pytest.raises(ServerFault, match=f"status {status}") as caught:
        client.fetch_users_by_usernames(["nasa"], bearer_token=BearerToken(SECRETS[0]))

    assert_shows_no_secret(caught.value, caplog.text)
    assert SECRETS[0].encode() in peer.heard
    assert other.heard == b""


@pytest.mark.parametrize(
    ("broken_by", "expected"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("a fault of a library"), RuntimeError),
        (httpcore.WriteTimeout(), ConnectionFault),
    ],
    ids=["Ctrl-C", "a fault of a library", "a time-out"],
)
def test_no_secret_is_in_what_breaks_off_while_it_is_sent_with_all_locals(
    make_peer: Callable[[bytes], Peer],
    broken_by: BaseException,
    expected: type[BaseException],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(_stream: object, buffer: bytes, timeout: float | None = None) -> None:
        assert SECRETS[0].encode() in buffer, timeout
        raise broken_by

    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(transport._BoundedStream, "write", write)
    with XApiClient(f"http://{make_peer(b'').address}") as client, pytest.raises(expected) as caught:
        client.fetch_users_by_usernames(["nasa"], bearer_token=BearerToken(SECRETS[0]))

    assert_shows_no_secret(caught.value, caplog.text)


@pytest.mark.parametrize(
    "environ",
    [
        {"TWITTER_PAGE_SIZE": "4"},
        {"TWITTER_BEARER_3": f'"{SECRETS[1]}"'},
        {"TWITTER_BEARER_3": f"Bearer {SECRETS[1]}"},
        {"TWITTER_BEARER_3": SECRETS[0]},
        {"TWITTER_ALERT_WEBHOOK": f"http://hooks.example.com/{SECRETS[1]}"},
        {"TWITTER_ALERT_WEBHOOK": f"https://hooks.example.com:port/{SECRETS[1]}"},
        {"TWITTER_ALERT_WEBHOOK": f"https://hooks.example.com/{SECRETS[1]} {SECRETS[0]}"},
    ],
    ids=[
        "a wrong setting",
        "quotes",
        "a word too many",
        "twice",
        "a webhook in clear",
        "a webhook with a port that is none",
        "a webhook with a blank",
    ],
)
def test_no_secret_is_in_what_an_error_of_the_settings_shows_with_all_locals(
    environ: dict[str, str], tmp_path: Path
) -> None:
    given = _Masked({"TWITTER_BEARER_1": SECRETS[0], **environ})
    environ = given
    with pytest.raises(ConfigurationError) as caught:
        load_settings(given, env_file=tmp_path / ".env")

    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "variables = _Variables(['TWITTER_BEARER_1'" in shown
    assert leaks(SECRETS, texts={"traceback": shown}) == []


class _Masked(dict[str, str]):
    """The variables, in a test whose own locals are shown too."""

    def __repr__(self) -> str:
        return "***"
