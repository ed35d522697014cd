"""Runs whose accounts are fetched by worker processes: the same tweets, whoever of them is stopped or killed."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import psutil
import pytest

from twitter_pipeline import runs
from twitter_pipeline.errors import NoTokenAvailable, PipelineError
from twitter_pipeline.request import read_request
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.windows import USER_TWEETS, TokenSpec
from twitter_pipeline.session import FetchSession
from twitter_pipeline.settings import Settings, load_settings
from twitter_pipeline.store.runs import AccountReport
from twitter_pipeline.workers import fetcher
from twitter_pipeline_tests.e2e.conftest import (
    PAGE_SIZE,
    MakeWorkshop,
    Trap,
    Workshop,
    assert_as_if_never_killed,
    command_lines,
    ended,
    leaks,
    silent,
)

SECRETS = ("AAAAAAAAe2e-secret-six%3Dxyzzy", "AAAAAAAAe2e-secret-ten%3Dplugh")
SIZES = {"alpha": 700, "beta": 30, "gamma": 450, "delta": 0, "epsilon": 300, "zeta": 120}
THREADS = 4
"""Of all workers of a run."""

AGAIN = "run again to fetch the rest"


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run have two workers with two threads each, whatever its size and the machine's."""
    monkeypatch.setattr(fetcher, "PAGES_WORTH_WORKERS", 1)
    monkeypatch.setattr(fetcher, "usable_cores", lambda: 2)
    monkeypatch.setenv("TWITTER_CONCURRENCY", str(THREADS))


def accounts() -> list[AccountSpec]:
    return [silent(name, tweets) for name, tweets in SIZES.items()]


def workers_of(pid: int) -> list[psutil.Process]:
    """The worker processes that a process has now, the first one first."""
    found: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if "twitter_pipeline.workers" in child.cmdline():
                    found.append(child)
    return found


def fetch(workshop: Workshop, names: Sequence[str] = tuple(SIZES), **changes: object) -> Sequence[AccountReport]:
    """Fetch accounts as the steps of a job do, without Dagster."""
    settings: Settings = replace(load_settings(os.environ), **changes)  # pyright: ignore[reportArgumentType]
    entries = [{"username": name, "track_after": name == "alpha"} for name in names]
    with FetchSession(settings, workshop.database, requests=read_request(entries)) as session:
        for batch in session.resolve().batches:
            session.fetch(batch)
        return session.finish().account_reports


def outcomes(reports: Sequence[AccountReport]) -> dict[str, str]:
    return {report.username: report.outcome.value for report in reports}


def assert_complete(workshop: Workshop) -> None:
    names = workshop.usernames
    assert {name: workshop.stored(name) for name in names} == {name: workshop.truth(name) for name in names}
    assert workshop.all_untrue() == {}


def wait_until(holds: Callable[[], bool], *, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return held


def test_a_large_request_is_fetched_by_workers_that_show_no_secret_and_are_gone_at_the_end(
    make_workshop: MakeWorkshop,
    two_workers: None,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[list[psutil.Process]] = []
    texts: dict[str, str] = {}

    def look() -> None:
        seen.append(workers_of(os.getpid()))
        texts["command lines"] = command_lines()

    trap = Trap(at=8, action=look)
    workshop = make_workshop(accounts(), tokens=[TokenSpec(secret) for secret in SECRETS], script=trap)
    result = workshop.fetch(*SIZES)

    assert result.error is None
    assert result.report is not None
    assert workshop.outcomes(result.report) == dict.fromkeys(SIZES, "done")
    assert result.report.tweets_new == sum(SIZES.values())
    assert result.report.calls == len(workshop.sandbox.api.calls)
    assert_complete(workshop)
    assert workshop.bought_twice() == 0
    assert [len(workers) for workers in seen] == [2]
    assert workers_of(os.getpid()) == []
    texts |= {"output": "".join(capfd.readouterr()), "log": caplog.text}
    assert "twitter_pipeline.workers" in texts["command lines"]
    assert texts["output"] == ""
    assert leaks(SECRETS, texts=texts) == []


def test_a_request_that_is_small_or_stored_already_starts_no_process(
    make_workshop: MakeWorkshop, two_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    start = subprocess.Popen.__init__

    def note(process: subprocess.Popen[bytes], *given: object, **named: object) -> None:
        started.append(process)
        start(process, *given, **named)  # pyright: ignore[reportArgumentType, reportCallIssue]

    workshop = make_workshop(accounts())
    monkeypatch.setattr(subprocess.Popen, "__init__", note)
    # 700 tweets and 450 are 23 pages.
    monkeypatch.setattr(fetcher, "PAGES_WORTH_WORKERS", 24)
    small = fetch(workshop, ["alpha", "gamma"])
    started_for_a_small_one = len(started)
    # 300 and 120 make 32 of it, but what is stored is not missing.
    fetch(workshop, ["alpha", "gamma", "epsilon", "zeta"])
    started_for_what_is_stored = len(started)
    monkeypatch.setattr(fetcher, "PAGES_WORTH_WORKERS", 5)
    large = fetch(workshop)

    assert outcomes(small) == {"alpha": "done", "gamma": "done"}
    assert outcomes(large) == dict.fromkeys(SIZES, "done")
    assert (started_for_a_small_one, started_for_what_is_stored, len(started)) == (0, 0, 2)
    assert_complete(workshop)


def test_a_worker_that_is_killed_loses_its_accounts_alone_and_running_again_fetches_their_rest(
    make_workshop: MakeWorkshop, two_workers: None
) -> None:
    trap = Trap(at=8, action=lambda: workers_of(os.getpid())[0].kill())
    workshop = make_workshop(accounts(), script=trap, latency_s=0.02)
    killed = fetch(workshop)
    report = workshop.last_report()

    lost = [each for each in killed if each.outcome == "failed"]
    assert 1 <= len(lost) <= THREADS // 2
    assert {each.reason for each in lost} == {f"the worker process that fetched it was killed (signal 9); {AGAIN}"}
    assert all(each.tweets_stored == len(workshop.stored(each.username)) for each in lost)
    assert {each.outcome for each in killed if each not in lost} == {"done"}
    assert (report.status, report.error) == ("partial", None)
    assert workshop.all_untrue() == {}
    assert workshop.database.execute("SELECT count(*) FROM user_state WHERE is_tracked") == [(1,)]

    assert outcomes(fetch(workshop)) == dict.fromkeys(SIZES, "done")
    assert_complete(workshop)
    assert workshop.bought_twice() <= PAGE_SIZE * THREADS // 2


def test_when_all_workers_are_killed_no_account_is_left_open(make_workshop: MakeWorkshop, two_workers: None) -> None:
    def kill_all() -> None:
        for worker in workers_of(os.getpid()):
            worker.kill()

    names = [f"number_{number}" for number in range(THREADS + 2)]
    trap = Trap(at=2, action=kill_all)
    workshop = make_workshop([silent(name, 300) for name in names], script=trap, latency_s=0.02)
    killed = fetch(workshop, names)

    assert set(outcomes(killed).values()) == {"failed"}
    assert {each.reason for each in killed if each.outcome == "failed"} == {
        f"the worker process that fetched it was killed (signal 9); {AGAIN}",
        f"all worker processes were killed; {AGAIN}",
    }
    assert workshop.last_report().status == "partial"

    assert set(outcomes(fetch(workshop, names)).values()) == {"done"}
    assert_complete(workshop)


def test_when_the_runs_process_is_killed_no_worker_stays_and_the_next_run_does_the_rest(
    make_workshop: MakeWorkshop, two_workers: None
) -> None:
    workers: list[psutil.Process] = []

    def kill() -> None:
        workers.extend(workers_of(process.pid))
        process.kill()

    trap = Trap(at=10, action=kill)
    workshop = make_workshop(accounts(), script=trap, latency_s=0.02)
    process = workshop.start(*SIZES, words=["--workers", "2"])
    said, status = ended(process)

    assert (status, said) == (-signal.SIGKILL, "")
    assert len(workers) == 2
    assert wait_until(lambda: not any(worker.is_running() for worker in workers))
    assert workshop.last_report().status == "running"

    workshop.time_passes(seconds=6)
    again = workshop.fetch(*SIZES)

    assert again.error is None
    assert_as_if_never_killed(workshop, kills=1)
    # Each page that was under way was waited for and stored by the worker that had asked for it.
    assert workshop.bought_twice() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_to_all_processes_at_once_ends_the_run_as_cancelled_and_each_page_under_way_is_stored(
    make_workshop: MakeWorkshop, two_workers: None, number: signal.Signals
) -> None:
    workers: list[psutil.Process] = []

    def signal_all() -> None:
        workers.extend(workers_of(process.pid))
        for each in (*workers, process):
            each.send_signal(number)

    trap = Trap(at=8, action=signal_all)
    workshop = make_workshop(accounts(), script=trap, latency_s=0.02)
    process = workshop.start(*SIZES, words=["--workers", "2"])
    said, status = ended(process)
    report = workshop.last_report()

    assert (status, said) == (130, "")
    assert len(workers) == 2
    assert not any(worker.is_running() for worker in workers)
    assert (report.status, report.error) == ("cancelled", "stopped on request")
    assert set(workshop.outcomes(report).values()) <= {"interrupted", "done"}
    assert report.calls == len(workshop.sandbox.api.calls)

    again = workshop.fetch(*SIZES)

    assert again.error is None
    assert_complete(workshop)
    assert workshop.bought_twice() == 0


def test_when_no_token_can_go_on_the_run_ends_with_the_state_of_each(
    make_workshop: MakeWorkshop, two_workers: None
) -> None:
    tokens = [TokenSpec(secret) for secret in SECRETS]

    def revoke() -> None:
        for token in tokens:
            workshop.sandbox.api.set_token_state(token.bearer, "invalid")

    workshop = make_workshop(accounts(), tokens=tokens, script=Trap(at=8, action=revoke))
    with pytest.raises(NoTokenAvailable) as raised:
        fetch(workshop)
    report = workshop.last_report()

    assert str(raised.value).startswith("No token can call /2/users/:id/tweets:\n  TWITTER_BEARER_1: invalid")
    assert "\n  TWITTER_BEARER_2: invalid" in str(raised.value)
    assert report.status == "failed"
    assert report.error == str(raised.value)
    assert "failed" in workshop.outcomes(report).values()
    assert workers_of(os.getpid()) == []


def test_what_workers_wait_for_is_shown_with_the_run_and_logged_once(
    make_workshop: MakeWorkshop,
    two_workers: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, "twitter_pipeline")
    monkeypatch.setattr(runs, "BEAT_EVERY_S", 0.2)
    # 23 calls: whenever the first window ends, those of the second are used up at its beginning.
    workshop = make_workshop(accounts(), tokens=1, limits={USER_TWEETS: 10}, window_seconds=4.0)
    running = threading.Thread(target=fetch, args=(workshop, ["alpha", "gamma"]))
    running.start()
    waits = "SELECT waiting_for FROM fetch_runs WHERE waiting_until > now()"
    shown = wait_until(lambda: workshop.database.execute(waits) == [("/2/users/:id/tweets",)])
    running.join(60)

    assert shown
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Waiting for budget")]
    assert lines
    assert len(lines) == len(set(lines))
    assert workshop.outcomes(workshop.last_report()) == {"alpha": "done", "gamma": "done"}


def test_a_worker_that_hangs_is_killed_when_the_run_ends(
    make_workshop: MakeWorkshop, two_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "LONGEST_END_S", 1.0)
    trap = Trap(at=8, action=lambda: workers_of(os.getpid())[0].suspend())
    workshop = make_workshop(accounts(), script=trap, latency_s=0.02)
    requests = read_request([{"username": name} for name in SIZES])
    with FetchSession(load_settings(os.environ), workshop.database, requests=requests) as session:
        session.resolve()
        assert trap.sprung.wait(30)

    assert workers_of(os.getpid()) == []
    assert "interrupted" in workshop.outcomes(workshop.last_report()).values()
    assert workshop.all_untrue() == {}


def test_a_worker_that_cannot_be_started_ends_the_run_with_the_reason(
    make_workshop: MakeWorkshop, two_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop(accounts())
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(PipelineError) as raised:
        fetch(workshop)

    assert str(raised.value) == "A worker process cannot be started: No such file or directory"
    assert workshop.last_report().error == f"PipelineError: {raised.value}"


def test_a_worker_that_cannot_go_on_ends_the_run_with_the_reason(
    make_workshop: MakeWorkshop, two_workers: None
) -> None:
    workshop = make_workshop(accounts())
    with pytest.raises(PipelineError) as raised:
        fetch(workshop, settle=timedelta(seconds=0.5))

    assert str(raised.value) == (
        "A worker process could not go on: ConfigurationError: "
        "TWITTER_SETTLE_SECONDS is '0.5'; expected a whole number from 0 to 3600"
    )
    assert workshop.last_report().status == "failed"
    assert workers_of(os.getpid()) == []


def test_a_worker_imports_nothing_that_it_does_not_need() -> None:
    script = "import sys, twitter_pipeline.workers.__main__; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()

    assert "twitter_pipeline.history" in imported
    assert {"dagster", "pandas", "alembic"}.isdisjoint(imported)
