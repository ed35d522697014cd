"""`twitter-pipeline listen` as a process, beside the sensor and its runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from twitter_pipeline.local.postgres import EmbeddedServer
from twitter_pipeline.local.up import listener
from twitter_pipeline.sandbox.windows import STREAM, TokenSpec
from twitter_pipeline_tests.e2e.conftest import PATIENCE_S, MakeWorkshop, Workshop, command_lines, dump, leaks, silent
from twitter_pipeline_tests.e2e.test_watch import due_now, poll, requested, tick, watch_from_now

BEARER = "AAAAAAAAlisten-secret%3Dxyzzy"


class Listening:
    """A listener in a process of its own, and what it has said."""

    def __init__(self, workshop: Workshop) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "twitter_pipeline.cli", "--debug", "listen"],
            env=workshop.place.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []

    def wait_for(self, text: str, times: int = 1) -> None:
        assert self.process.stdout is not None
        while sum(text in line for line in self.said) < times:
            line = self.process.stdout.readline()
            assert line, f"it ended after saying {self.said}"
            self.said.append(line)

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """Ask it to end, and return its status and all that it has said."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        """Wait until it ends, and return its status and all that it has said."""
        rest, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, "".join(self.said) + rest


@contextmanager
def listening(workshop: Workshop) -> Iterator[Listening]:
    """Listen, and wait until the connection is there."""
    ear = Listening(workshop)
    try:
        ear.wait_for("connected with")
        yield ear
    finally:
        ear.process.kill()
        ear.process.communicate()


def wait_until_stored(workshop: Workshop, username: str, tweet_id: int) -> float:
    """Wait until a tweet is stored, and return how long that took."""
    began = time.monotonic()
    while tweet_id not in workshop.stored(username):
        assert time.monotonic() - began < PATIENCE_S
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stores_within_two_seconds_has_the_account_polled_and_stops_cleanly(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("TWITTER_SETTLE_SECONDS", "0")
    workshop = make_workshop([silent("alpha", 30), silent("beta", 8)], heartbeat_s=0.5)
    watch_from_now(workshop, "alpha", "beta")
    workshop.database.execute("UPDATE user_state SET next_poll_at = now() + interval '1 hour'")
    with listening(workshop) as ear:
        heard = workshop.sandbox.world.post("alpha", text="heard")
        took_s = wait_until_stored(workshop, "alpha", heard)
        status, said = ear.end(number)
    covered_before = workshop.database.execute("SELECT %s::bigint <@ covered FROM user_state", [heard])
    missed = workshop.sandbox.world.post("alpha", text="while nobody listened")

    request = requested(tick(workshop))
    report = poll(workshop, request)

    assert (status, said.splitlines()[-1].endswith("stopped"), "Traceback" in said) == (0, True, False)
    assert took_s < 2
    assert workshop.sandbox.api.open_streams() == 0
    assert not any(covered for (covered,) in covered_before)
    # The poll that the stream has asked for finds what it has missed; nothing is paid twice.
    assert workshop.outcomes(report) == {"alpha": "done"}
    assert (report.tweets_new, report.billed_posts) == (1, 1)
    assert workshop.stored("alpha")[:2] == [missed, heard]
    assert workshop.all_untrue() == {}
    billed = workshop.database.execute("SELECT sum(billed_posts) FROM api_calls")[0][0]
    assert billed == workshop.sandbox.api.posts_billed()


def test_killed_in_the_middle_it_leaves_nothing_that_stops_the_next_and_loses_nothing(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_SETTLE_SECONDS", "0")
    workshop = make_workshop([silent("alpha", 30)], heartbeat_s=0.5)
    watch_from_now(workshop, "alpha")
    with listening(workshop) as first:
        for number in range(20):
            workshop.sandbox.world.post("alpha", text=f"tweet {number}")
        first.process.kill()
    with listening(workshop) as second:
        last = workshop.sandbox.world.post("alpha", text="the last")
        wait_until_stored(workshop, "alpha", last)
        second.end()
    due_now(workshop)
    poll(workshop, requested(tick(workshop)))

    wanted = [tweet for tweet in workshop.truth("alpha") if tweet >= min(workshop.stored("alpha"))]
    assert workshop.stored("alpha") == wanted
    assert len(wanted) == 26
    assert workshop.all_untrue() == {}


def test_its_secret_is_nowhere(make_workshop: MakeWorkshop, postgres: EmbeddedServer, tmp_path: Path) -> None:
    workshop = make_workshop([silent("alpha", 5)], tokens=[TokenSpec(BEARER)], heartbeat_s=0.2)
    watch_from_now(workshop, "alpha")
    with listening(workshop) as ear:
        lines = command_lines()
        workshop.sandbox.api.end_streams("operational")
        ear.wait_for("connected with", times=2)
        workshop.sandbox.api.set_token_state(BEARER, "invalid")
        workshop.sandbox.api.end_streams("cut")
        status, said = ear.ended()

    texts = {"said": said, "tables": dump(postgres, workshop.place.database_url), "command lines": lines}
    assert status == 1
    assert "No token can listen to /2/tweets/search/stream:\n  TWITTER_BEARER_1: invalid since" in said
    assert leaks([BEARER], texts=texts, folders=[tmp_path]) == []


def test_make_up_runs_it_beside_the_daemon_and_takes_it_down(make_workshop: MakeWorkshop, tmp_path: Path) -> None:
    workshop = make_workshop([silent("alpha", 5)], heartbeat_s=0.5)
    watch_from_now(workshop, "alpha")
    with listener(workshop.place, folder=tmp_path) as service:
        deadline = time.monotonic() + PATIENCE_S
        while "connected with" not in service.log.read_text():
            service.check()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pid = service.process.pid

    assert not Path(f"/proc/{pid}").exists() or os.waitpid(pid, os.WNOHANG)
    assert service.log.read_text().splitlines()[-1].endswith("stopped")
    assert [call.status for call in workshop.sandbox.api.calls if call.endpoint == STREAM] == [200]
