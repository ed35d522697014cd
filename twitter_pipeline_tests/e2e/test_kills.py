"""Runs that are stopped and killed: what is stored stays true, the run is closed, running again does the rest."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import dagster as dg
import psycopg
import pytest

from twitter_pipeline.orchestration import sensors
from twitter_pipeline.orchestration.launch import fetch_job, run_fetch_job
from twitter_pipeline.orchestration.outputs import EventLogOutputs
from twitter_pipeline.orchestration.sensors import close_failed_runs, fail_vanished_runs
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.settings import load_settings
from twitter_pipeline.store.runs import VANISHED, close_vanished_runs
from twitter_pipeline_tests.e2e.conftest import (
    MakeWorkshop,
    Trap,
    Workshop,
    assert_as_if_never_killed,
    ended,
    signalled,
    silent,
    status_in_dagster,
)

# Ends all connections to the database but the one that asks for it, as a restart of the server does.
CUT = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
"""

NAMES = ("alpha", "beta", "gamma")
REQUEST = ({"username": "alpha", "track_after": True}, "beta", {"username": "gamma", "fetch_mode": "limit:300"})


def make(make_workshop: MakeWorkshop, trap: Trap) -> Workshop:
    """Three accounts, 48 pages in all, and an API that takes its time."""
    accounts = [silent("alpha", 1500), silent("beta", 600), silent("gamma", 900)]
    return make_workshop(accounts, script=trap, latency_s=0.03)


def assert_complete(workshop: Workshop) -> None:
    assert workshop.stored("alpha") == workshop.truth("alpha")
    assert workshop.stored("beta") == workshop.truth("beta")
    assert workshop.stored("gamma") == workshop.truth("gamma")[:300]


def assert_true(workshop: Workshop) -> None:
    assert [workshop.untrue(name) for name in NAMES] == [[], [], []]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_run_that_is_asked_to_stop_ends_soon_as_cancelled_and_goes_on_where_it_was(
    make_workshop: MakeWorkshop, number: signal.Signals
) -> None:
    trap = Trap(at=10)
    workshop = make(make_workshop, trap)
    process = workshop.start(*REQUEST)
    trap.action = signalled(process, number)
    assert trap.sprung.wait(60)
    asked_at = time.monotonic()
    said, status = ended(process)
    took_s = time.monotonic() - asked_at

    report = workshop.last_report()
    assert status == 130, said
    assert took_s < 5
    assert (report.status, report.error) == ("cancelled", "stopped on request")
    assert status_in_dagster(str(report.dagster_run_id)) == "CANCELED"
    assert set(workshop.outcomes(report).values()) == {"interrupted"}
    assert report.tweets_new == sum(len(workshop.stored(name)) for name in NAMES) > 0
    assert report.calls == len(workshop.sandbox.api.calls)
    assert_true(workshop)

    again = workshop.fetch(*REQUEST)

    assert again.error is None
    assert_complete(workshop)
    # What was under way was waited for and stored.
    assert workshop.bought_twice() == 0


def interrupt_before_the_first_step(_: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda _: signal.raise_signal(signal.SIGINT)


def interrupt_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def load(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(EventLogOutputs, "load_input", load)
    return lambda _: None


@pytest.mark.parametrize("interrupt", [interrupt_before_the_first_step, interrupt_between_two_steps])
def test_a_signal_that_comes_while_no_step_works_cancels_the_run_too(
    make_workshop: MakeWorkshop,
    monkeypatch: pytest.MonkeyPatch,
    interrupt: Callable[[pytest.MonkeyPatch], Callable[[str], None]],
) -> None:
    workshop = make(make_workshop, Trap())
    started: list[str] = []
    on_start = interrupt(monkeypatch)

    def note_and_go_on(dagster_run_id: str) -> None:
        started.append(dagster_run_id)
        on_start(dagster_run_id)

    with pytest.raises(KeyboardInterrupt):
        run_fetch_job([FetchRequest("alpha")], workshop.place, on_start=note_and_go_on)

    assert status_in_dagster(started[0]) == "CANCELED"
    assert workshop.database.execute("SELECT count(*) FROM fetch_runs WHERE status = 'running'") == [(0,)]
    assert_true(workshop)


def kill_in_a_call(workshop: Workshop, trap: Trap) -> None:
    process = workshop.start(*REQUEST)
    trap.action = signalled(process, signal.SIGKILL)
    assert ended(process)[1] == -signal.SIGKILL


def kill_between_an_answer_and_its_storing(workshop: Workshop, trap: Trap) -> None:
    trap.at = None
    workshop.kill(*REQUEST, at="before-a-page:11")


@pytest.mark.parametrize("kill", [kill_in_a_call, kill_between_an_answer_and_its_storing])
def test_a_run_that_is_killed_is_closed_with_what_it_achieved_and_the_next_buys_at_most_a_page_a_worker_twice(
    make_workshop: MakeWorkshop, kill: Callable[[Workshop, Trap], None]
) -> None:
    trap = Trap(at=10)
    workshop = make(make_workshop, trap)
    kill(workshop, trap)
    killed = workshop.last_report()

    assert (killed.status, status_in_dagster(str(killed.dagster_run_id))) == ("running", "STARTED")
    assert_true(workshop)

    workshop.time_passes(seconds=6)
    again = workshop.fetch(*REQUEST)
    closed = workshop.report(str(killed.dagster_run_id))

    assert (closed.status, closed.error) == ("failed", VANISHED)
    assert status_in_dagster(str(killed.dagster_run_id)) == "FAILURE"
    assert set(workshop.outcomes(closed).values()) == {"interrupted"}
    assert again.error is None
    assert again.report is not None
    assert closed.tweets_new > 0
    assert closed.tweets_new + again.report.tweets_new == 1500 + 600 + 300
    assert_complete(workshop)
    assert workshop.bought_twice() <= 50 * len(NAMES)
    # The account that was to be watched is, although the run that began with it was killed.
    assert workshop.database.execute("SELECT count(*) FROM user_state WHERE is_tracked") == [(1,)]


@dataclass
class Calendar:
    """The clock of a world that can be stopped, so that nobody tweets any more."""

    stopped_at: float | None = None

    def __call__(self) -> float:
        return time.time() if self.stopped_at is None else self.stopped_at

    def stop(self) -> None:
        self.stopped_at = time.time()


def test_runs_that_are_killed_again_and_again_while_accounts_tweet_lose_nothing_and_buy_little_twice(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is younger than the settle time is read again on purpose; here nothing appears late.
    monkeypatch.setenv("TWITTER_SETTLE_SECONDS", "0")
    monkeypatch.setattr(sensors, "LONGEST_BEGINNING_S", 0.0)
    kills, names, clock, random = 14, ["one", "two", "three", "four", "five", "six"], Calendar(), Random(20)
    accounts = [AccountSpec(username=name, tweets=2900, tweets_per_day=3 * 86_400) for name in names]
    workshop = make_workshop(accounts, clock=clock, latency_s=(0.05, 0.25))
    for _ in range(kills):
        workshop.kill(*names, after_s=random.uniform(0.1, 1.6))
        workshop.time_passes(seconds=6)
        assert workshop.all_untrue() == {}
    before_the_last = workshop.tweets_stored()
    clock.stop()
    again = workshop.fetch(*names)

    assert again.error is None
    assert again.report is not None
    assert 0 < before_the_last < before_the_last + again.report.tweets_new == workshop.tweets_stored()
    assert_as_if_never_killed(workshop, kills=kills)
    assert all(2900 < len(workshop.truth(name)) < 3200 for name in names)


def test_a_killed_run_that_a_command_has_closed_in_the_tables_is_failed_in_dagster_too(
    make_workshop: MakeWorkshop,
) -> None:
    trap = Trap(at=3)
    workshop = make(make_workshop, trap)
    kill_in_a_call(workshop, trap)
    dagster_run_id = str(workshop.last_report().dagster_run_id)
    workshop.time_passes(seconds=6)
    closed = close_vanished_runs(workshop.database, prices=load_settings(os.environ).prices)

    with dg.DagsterInstance.get() as instance:
        failed, failed_again = (fail_vanished_runs(instance, workshop.opened) for _ in range(2))

    assert closed == failed == [dagster_run_id]
    assert failed_again == []
    assert status_in_dagster(dagster_run_id) == "FAILURE"


def test_a_run_that_was_killed_before_it_had_a_row_is_failed_in_dagster(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop([])
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(fetch_job(), status=dg.DagsterRunStatus.STARTED)
        early = fail_vanished_runs(instance, workshop.opened)
        monkeypatch.setattr(sensors, "LONGEST_BEGINNING_S", -1.0)
        late = fail_vanished_runs(instance, workshop.opened)

    assert (early, late) == ([], [run.run_id])
    assert status_in_dagster(run.run_id) == "FAILURE"


def test_a_run_that_works_is_not_taken_for_a_vanished_one(make_workshop: MakeWorkshop) -> None:
    failed: list[str] = []

    def look() -> None:
        workshop.time_passes(seconds=60)
        with dg.DagsterInstance.get() as instance:
            failed.extend(fail_vanished_runs(instance, workshop.opened))

    trap = Trap(at=5, action=look)
    workshop = make(make_workshop, trap)
    result = workshop.fetch(*REQUEST)

    assert trap.sprung.is_set()
    assert failed == []
    assert result.report is not None
    assert result.report.status == "done"


def test_the_sensor_closes_a_run_that_dagster_says_has_failed(make_workshop: MakeWorkshop) -> None:
    trap = Trap(at=10)
    workshop = make(make_workshop, trap)
    kill_in_a_call(workshop, trap)
    dagster_run_id = str(workshop.last_report().dagster_run_id)
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(dagster_run_id)
        assert run is not None
        event = instance.report_run_failed(run, "Run process terminated by signal 9.")
        context = dg.build_run_status_sensor_context("close_failed_runs", event, instance, run).for_run_failure()
        close_failed_runs(context, database=workshop.opened)

    report = workshop.report(dagster_run_id)
    assert (report.status, report.error) == ("failed", "Run process terminated by signal 9.")
    assert report.tweets_new == sum(len(workshop.stored(name)) for name in NAMES) > 0


def test_a_run_whose_database_goes_away_for_a_moment_completes(make_workshop: MakeWorkshop, database_url: str) -> None:
    def cut_all_connections() -> None:
        with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
            connection.execute(CUT)

    trap = Trap(at=8, action=cut_all_connections)
    workshop = make(make_workshop, trap)
    result = workshop.fetch(*REQUEST)

    assert trap.sprung.is_set()
    assert result.error is None
    assert_complete(workshop)
