"""A run is killed at every boundary that it passes; whatever was killed, running again leaves what one run would."""

import signal
import time
from collections.abc import Callable

import psycopg
import pytest

from twitter_pipeline.orchestration import sensors
from twitter_pipeline.sandbox.windows import USER_TWEETS
from twitter_pipeline_tests.e2e.conftest import (
    PATIENCE_S,
    MakeWorkshop,
    assert_as_if_never_killed,
    ended,
    silent,
)

REQUEST = ({"username": "alpha", "track_after": True}, "beta", {"username": "gamma", "fetch_mode": "limit:70"})
ACCOUNTS = (silent("alpha", 170), silent("beta", 60), silent("gamma", 110))
LIMITS = {"gamma": 70}

# Makes every page but the first wait in the middle of its transaction, until the test lets go of the lock.
GATE = """
CREATE FUNCTION wait_at_the_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM tweets) > 50 THEN
        PERFORM pg_advisory_xact_lock_shared(1);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER gate AFTER INSERT ON tweets FOR EACH ROW EXECUTE FUNCTION wait_at_the_gate()
"""

AT_THE_GATE = """
SELECT pid FROM pg_locks
WHERE locktype = 'advisory' AND objid = 1 AND NOT granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a run that Dagster and the tables disagree on for dead at once, as no other is under way."""
    monkeypatch.setattr(sensors, "LONGEST_BEGINNING_S", 0.0)
    monkeypatch.setattr(sensors, "LONGEST_ENDING_S", 0.0)


def eventually(condition: Callable[[], object]) -> None:
    """Wait for something that another process brings about."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("boundary", "number"),
    [
        ("before-the-run-starts", 1),
        ("after-the-run-is-opened", 1),
        ("before-a-look-up", 1),
        ("after-a-look-up", 1),
        ("after-the-users-are-stored", 1),
        ("between-ops", 1),
        ("after-an-account-begins", 2),
        ("after-a-lease", 4),
        ("before-a-call", 4),
        ("after-an-answer", 4),
        ("after-the-call-log", 4),
        ("before-a-page", 3),
        ("after-a-page", 3),
        ("before-an-account-ends", 1),
        ("after-an-account-ends", 2),
        ("between-ops", 4),
        ("before-the-run-is-closed", 1),
    ],
)
def test_a_run_that_is_killed_at_a_boundary_leaves_nothing_wrong_and_nothing_in_the_way(
    make_workshop: MakeWorkshop, boundary: str, number: int
) -> None:
    workshop = make_workshop(ACCOUNTS, latency_s=0.01)
    workshop.kill(*REQUEST, at=f"{boundary}:{number}")
    untrue = workshop.all_untrue()
    workshop.time_passes(seconds=6)
    again = workshop.fetch(*REQUEST)

    assert untrue == {}
    assert again.error is None
    assert again.report is not None
    assert again.report.waited_s < 5
    assert_as_if_never_killed(workshop, kills=1, limits=LIMITS)


def test_a_run_that_is_killed_after_it_was_closed_is_not_left_unfinished_in_dagster(
    make_workshop: MakeWorkshop,
) -> None:
    workshop = make_workshop(ACCOUNTS)
    workshop.kill(*REQUEST, at="after-the-run-is-closed:1")
    closed = workshop.last_report()
    again = workshop.fetch(*REQUEST)

    assert (closed.status, closed.tweets_new) == ("done", 170 + 60 + 70)
    assert again.report is not None
    assert (again.report.status, again.report.tweets_new) == ("done", 0)
    assert workshop.statuses_in_dagster() == ["FAILURE", "SUCCESS"]


def test_a_run_that_is_killed_while_it_waits_for_a_reset_spends_no_call_of_the_next_window(
    make_workshop: MakeWorkshop,
) -> None:
    workshop = make_workshop(ACCOUNTS, tokens=1, window_seconds=4.0, limits={USER_TWEETS: 5})
    workshop.kill(*REQUEST, at="while-waiting-for-a-reset:1")
    workshop.time_passes(seconds=6)
    again = workshop.fetch(*REQUEST)

    assert again.error is None
    assert {call.status for call in workshop.sandbox.api.calls} == {200}
    assert_as_if_never_killed(workshop, kills=1, limits=LIMITS)


def finish(_: psycopg.Connection, __: int) -> None:
    """Let the server go on: it does not look whether its client is still there."""


def break_off(connection: psycopg.Connection, backend: int) -> None:
    connection.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,))


@pytest.mark.parametrize(("end", "stored"), [(finish, 100), (break_off, 50)])
def test_of_a_page_whose_transaction_was_under_way_at_the_kill_all_is_stored_or_nothing(
    make_workshop: MakeWorkshop,
    database_url: str,
    end: Callable[[psycopg.Connection, int], None],
    stored: int,
) -> None:
    workshop = make_workshop([silent("alpha", 170)])
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(GATE)
        connection.execute("SELECT pg_advisory_lock(1)")
        process = workshop.start("alpha")
        eventually(lambda: connection.execute(AT_THE_GATE).fetchall())
        [(backend,)] = connection.execute(AT_THE_GATE).fetchall()
        process.kill()
        assert ended(process)[1] == -signal.SIGKILL
        end(connection, backend)
    eventually(lambda: workshop.held_by_others() == [])
    after_the_kill = len(workshop.stored("alpha"))
    untrue = workshop.all_untrue()
    workshop.time_passes(seconds=6)
    again = workshop.fetch("alpha")

    assert after_the_kill == stored
    assert untrue == {}
    assert again.error is None
    assert_as_if_never_killed(workshop, kills=1)
