"""Budgets over whole runs: where they stop, what the next run buys, what the sensor says, and who is asked first."""

import json
import os
import pty
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pytest

from twitter_pipeline.budgets import dollars
from twitter_pipeline.cli import main
from twitter_pipeline.definitions import defs
from twitter_pipeline.months import Months
from twitter_pipeline.orchestration.launch import FetchResult, run_backfill
from twitter_pipeline.orchestration.requests import run_config_for
from twitter_pipeline.request import read_request
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.ledger import load_ledgers
from twitter_pipeline.store.runs import RunReport, close_vanished_runs
from twitter_pipeline.words import HoleCause, Source
from twitter_pipeline.workers import fetcher
from twitter_pipeline_tests.conftest import MakeSandbox
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent
from twitter_pipeline_tests.e2e.test_cli import PROGRAM
from twitter_pipeline_tests.e2e.test_watch import due_now, poll, reason, requested, tick, watch_from_now
from twitter_pipeline_tests.integration.test_budgets import assert_counted_as_billed

UNKNOWN_BILLS = """
INSERT INTO api_calls (endpoint, token_id, outcome, reserved_posts, reserved_users)
VALUES ('x', 1, 'lost', 50, 1), ('x', 1, 'unreadable_answer', 50, 1)
"""

PROFILE = Decimal("0.010")
POST = Decimal("0.005")


def settings(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    """Set variables, or take them back with None."""
    for name, value in values.items():
        monkeypatch.setenv(f"TWITTER_{name}", "" if value is None else str(value))


def report_of(result: FetchResult) -> RunReport:
    assert result.report is not None
    return result.report


def bill(workshop: Workshop) -> tuple[int, int]:
    """All that X has charged: posts and profiles, as the calls say."""
    (row,) = workshop.database.execute("SELECT sum(billed_posts), sum(billed_users) FROM api_calls")
    return row


def test_a_run_stops_at_its_budget_and_a_larger_one_buys_the_rest_and_nothing_twice(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop([silent("alpha", 400), silent("beta", 300)])
    settings(monkeypatch, BUDGET_RUN_USD="2.00")

    stopped = workshop.fetch("alpha", "beta")
    report = report_of(stopped)

    # Two profiles leave $1.98: seven pages of fifty.
    assert (report.billed_posts, report.billed_users, report.cost_usd) == (350, 2, Decimal("1.770"))
    assert report.status.value == "partial"
    said = "the budget of the run is used up ($1.77 of $2.00, and the next call could cost $0.25)"
    assert (report.error, stopped.error) == (said, said)
    ended = {(each.outcome.value, each.reason, each.cause) for each in report.unfinished}
    assert ended == {("interrupted", said, HoleCause.BUDGET)}
    assert workshop.all_untrue() == {}
    assert_counted_as_billed(workshop.database)
    holes = [hole.why for ledger in load_ledgers(workshop.database) for hole in ledger.holes]
    assert set(holes) == {"a budget was used up"}

    settings(monkeypatch, BUDGET_RUN_USD="20")
    rest = report_of(workshop.fetch("alpha", "beta"))

    assert rest.status.value == "done"
    assert rest.billed_posts == 350
    assert {name: workshop.stored(name) for name in workshop.usernames} == {
        name: workshop.truth(name) for name in workshop.usernames
    }
    assert workshop.bought_twice() == 0
    assert_counted_as_billed(workshop.database)


def test_the_day_is_shared_by_runs_and_the_sensor_steps_aside_until_it_is_over(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop([silent("alpha", 40), silent("beta", 400)])
    watch_from_now(workshop, "alpha")
    before_posts, before_users = bill(workshop)
    before = before_posts * POST + before_users * PROFILE
    settings(monkeypatch, BUDGET_DAY_USD=before + Decimal("1.00"))

    report = report_of(workshop.fetch("beta"))
    due_now(workshop)
    calls = workshop.timeline_calls()

    assert report.status.value == "partial"
    posts, users = bill(workshop)
    spent = posts * POST + users * PROFILE
    assert before + Decimal("0.75") < spent <= before + 1
    said = reason(tick(workshop))
    assert said.startswith(f"the budget of the day is used up ({dollars(spent)} of {dollars(before + 1)}, ")
    assert said.endswith(" until 00:00 UTC")
    assert workshop.timeline_calls() == calls

    settings(monkeypatch, BUDGET_DAY_USD=before + 2)
    poll(workshop, requested(tick(workshop)))
    assert_counted_as_billed(workshop.database)


def test_posts_that_are_free_on_the_same_day_come_off_the_budget_too(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop([silent("alpha", 120)])
    settings(monkeypatch, BUDGET_DAY_POSTS=240)
    workshop.fetch("alpha")
    workshop.database.execute("UPDATE user_state SET covered = '{}', unreachable = '{}'")

    again = report_of(workshop.fetch("alpha"))

    assert (again.status.value, again.tweets_fetched, again.billed_posts) == ("done", 0, 0)
    assert workshop.database.execute(
        "SELECT posts, reserved_posts FROM spending WHERE posts > 0 AND day IS NOT NULL"
    ) == [(120, 0)]
    assert_counted_as_billed(workshop.database)


def test_worker_processes_share_the_budget_of_their_run(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "PAGES_WORTH_WORKERS", 1)
    monkeypatch.setattr(fetcher, "usable_cores", lambda: 2)
    workshop = make_workshop([silent(f"user_{number}", 200) for number in range(4)])
    settings(monkeypatch, BUDGET_RUN_POSTS=500)

    report = report_of(workshop.fetch(*workshop.usernames))

    assert (report.billed_posts, report.status.value) == (500, "partial")
    assert report.error == "the budget of the run is used up (500 of 500 posts)"
    assert {each.cause for each in report.unfinished} == {HoleCause.BUDGET}
    assert_counted_as_billed(workshop.database)


def test_names_are_not_looked_up_when_the_budget_has_no_room_for_their_profiles(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop([silent(f"user_{number}", 5) for number in range(3)])
    settings(monkeypatch, BUDGET_MONTH_USD="0.02")

    report = report_of(workshop.fetch(*workshop.usernames))

    assert (report.status.value, report.calls) == ("partial", 0)
    assert report.error is not None
    assert "the budget of the month is used up ($0.00 of $0.02, and the next call could cost $0.03)" in report.error
    assert {(each.outcome.value, each.cause) for each in report.account_reports} == {("interrupted", HoleCause.BUDGET)}
    assert len(workshop.sandbox.api.calls) == 0


def test_what_the_calls_of_a_killed_run_may_have_cost_is_spent(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop([silent("alpha", 400)])
    settings(monkeypatch, BUDGET_DAY_POSTS=449)
    workshop.kill("alpha", at="before-a-call:4")
    counted = "SELECT posts, reserved_posts FROM spending WHERE day IS NOT NULL ORDER BY day DESC LIMIT 1"
    assert workshop.database.execute(counted) == [(150, 50)]

    workshop.time_passes(seconds=60)
    close_vanished_runs(workshop.database, prices=workshop.opened.settings.prices)

    assert workshop.database.execute(counted) == [(200, 0)]
    assert_counted_as_billed(workshop.database)
    short = report_of(workshop.fetch("alpha"))
    settings(monkeypatch, BUDGET_DAY_POSTS=450)
    rest = report_of(workshop.fetch("alpha"))
    assert [(short.status.value, short.billed_posts), (rest.status.value, rest.billed_posts)] == [
        ("partial", 200),
        ("done", 50),
    ]
    assert workshop.stored("alpha") == workshop.truth("alpha")
    assert workshop.bought_twice() == 0


def test_a_backfill_stops_at_its_budget_and_says_so(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop([silent("alpha", 300)])
    settings(monkeypatch, BUDGET_RUN_POSTS=100, ARCHIVE_PAGE_SIZE=50)
    today = datetime.now(UTC).date()
    months = Months(date(today.year - 4, 1, 1), today.replace(day=1))

    result = run_backfill(["alpha"], months, Source.SEARCH, workshop.place)
    report = report_of(result)

    assert (report.billed_posts, report.status.value) == (100, "partial")
    assert result.error is not None
    assert "the budget of the run is used up (100 of 100 posts)" in result.error
    assert {each.cause for each in report.unfinished} == {HoleCause.BUDGET}
    assert_counted_as_billed(workshop.database)


# Who is asked first


def test_a_dear_request_fetches_no_tweet_until_it_is_confirmed(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop([silent("alpha", 300)])
    settings(monkeypatch, CONFIRM_USD="1")
    request = read_request([{"username": "alpha"}])

    refused = workshop.fetch("alpha")

    assert refused.wants_confirmation
    assert refused.error is not None
    assert refused.error.startswith("Fetching 1 account would cost about $1.50, at most $")
    assert "That is more than $1.00 (TWITTER_CONFIRM_USD), so no tweet was fetched." in refused.error
    assert "`confirm: true`" in refused.error
    assert "--yes" in refused.error
    report = report_of(refused)
    assert (report.status.value, report.error) == ("failed", refused.error)
    assert {(each.outcome.value, each.cause) for each in report.account_reports} == {
        ("interrupted", HoleCause.NOT_ASKED)
    }
    assert workshop.timeline_calls() == 0

    with dg.DagsterInstance.get() as instance:
        confirmed = defs.resolve_job_def("fetch_tweets").execute_in_process(
            instance=instance, run_config=run_config_for(request, confirm=True)
        )
    assert confirmed.success
    assert len(workshop.stored("alpha")) == 300


@pytest.mark.parametrize(
    ("entry", "budget"),
    [({"username": "alpha", "fetch_mode": "limit:300"}, None), ({"username": "alpha"}, "5")],
    ids=["a limit bounds itself", "a budget bounds everything"],
)
def test_what_is_bounded_already_wants_no_confirmation(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch, entry: dict[str, str], budget: str | None
) -> None:
    workshop = make_workshop([silent("alpha", 300)])
    settings(monkeypatch, CONFIRM_USD="1", BUDGET_RUN_USD=budget)

    assert report_of(workshop.fetch(entry)).status.value == "done"


def test_a_dear_backfill_wants_confirmation_too(make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = make_workshop([silent("alpha", 300)])
    settings(monkeypatch, CONFIRM_USD="0.5")
    today = datetime.now(UTC).date()
    months = Months(date(today.year - 4, 1, 1), today.replace(day=1))

    refused = run_backfill(["alpha"], months, Source.TIMELINE, workshop.place)
    assert refused.wants_confirmation
    assert workshop.timeline_calls() == 0

    confirmed = run_backfill(["alpha"], months, Source.TIMELINE, workshop.place, confirm=True)
    assert not confirmed.wants_confirmation
    assert len(workshop.stored("alpha")) == 300


@pytest.fixture
def variables(make_sandbox: MakeSandbox, database_url: str, tmp_path: Path) -> dict[str, str]:
    """The environment of commands on a sandbox with one account of 300 tweets, which the threshold is below."""
    sandbox = make_sandbox([silent("alpha", 300)], tokens=1)
    return {
        **os.environ,
        **sandbox.environment(sandbox.serve()),
        "DATABASE_URL": database_url,
        "DAGSTER_HOME": str(tmp_path / "dagster"),
        "TWITTER_CONFIRM_USD": "1",
    }


def command(variables: dict[str, str], *words: str) -> tuple[int, str, str]:
    """Run a command where nobody is there to be asked; return its exit code and what it said."""
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return process.returncode, process.stdout, process.stderr


def at_a_terminal(variables: dict[str, str], answer: str, *words: str) -> tuple[int, str]:
    """Run a command at a terminal, answer its questions, and return its exit code and all that was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], env=variables, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown, answered, deadline = b"", 0, time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end was closed
            break
        shown += piece
        if not piece:
            break
        if shown.count(b"[y/N]") > answered:
            os.write(ours, answer.encode() + b"\n")
            answered += 1
    os.close(ours)
    return process.wait(10), shown.decode(errors="replace")


def test_a_dear_request_is_refused_where_nobody_can_be_asked_and_else_a_person_has_it_their_way_and_sees_what_it_cost(
    variables: dict[str, str],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = command(variables, "fetch", "@alpha", "--json")
    assert code == 2
    assert "Error: Fetching 1 account would cost about $1.50" in err
    assert json.loads(out)["tweets_fetched"] == 0

    code, shown = at_a_terminal(variables, "y", "fetch", "@alpha", "--quiet")
    assert (code, "would cost about $1.50" in shown) == (0, True)

    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def costs(*words: str) -> str:
        assert main(["costs", *words]) == 0
        return capsys.readouterr().out

    told = {by: json.loads(costs("--by", by, "--json")) for by in ("day", "account", "run", "kind")}
    assert {by: values["total"]["cost_usd"] for by, values in told.items()} == dict.fromkeys(told, 1.51)
    assert {by: [(line[by], line["cost_usd"]) for line in values["lines"]] for by, values in told.items()} == {
        "day": [(f"{datetime.now(UTC):%Y-%m-%d}", 1.51)],
        "account": [("@alpha", 1.5), ("several accounts", 0.01)],
        "run": [("run 3, history", 1.5), ("run 1, history", 0.01)],
        "kind": [("history", 1.51)],
    }

    assert told["day"]["unknown"] == {"calls": 0, "posts": 0, "users": 0, "cost_usd": 0}
    assert "no whole response" not in costs()

    database.execute(UNKNOWN_BILLS)
    settings(monkeypatch, BUDGET_DAY_USD="3", BUDGET_MONTH_POSTS="1000")
    shown = costs()
    assert "Budget of the day: $2.03 of $3.00 until 00:00 UTC" in shown
    assert "Budget of the month: 400 of 1,000 posts until " in shown
    assert f"$1.51 since {datetime.now(UTC) - timedelta(days=29):%Y-%m-%d}: 300 posts, 1 profile" in shown
    assert (
        "2 calls got no whole response, so X may have billed up to 100 posts and 2 profiles more ($0.52); budgets count"
        " them as spent" in " ".join(shown.split())
    )
    assert json.loads(costs("--json"))["unknown"] == {"calls": 2, "posts": 100, "users": 2, "cost_usd": 0.52}


def test_names_are_not_looked_up_for_much_before_somebody_has_agreed(
    variables: dict[str, str], database: Database
) -> None:
    dear = {**variables, "TWITTER_CONFIRM_USD": "0.02"}
    names = ["@alpha", "@beta", "@gamma"]

    for words in (["track"], ["fetch"], ["fetch", "--dry-run"]):
        code, _, err = command(dear, *words, *names)
        assert code == 2
        assert "Looking up 3 accounts would cost up to $0.03" in " ".join(err.split())
    code, shown = at_a_terminal(dear, "n", "track", *names)
    assert (code, "Look them up? [y/N]" in shown) == (2, True)
    assert database.execute("SELECT count(*) FROM api_calls") == [(0,)]

    code, shown = at_a_terminal(dear, "y", "fetch", *names)
    assert [code, shown.count("Look them up? [y/N]"), shown.count("Fetch it? [y/N]")] == [0, 1, 1]
    assert database.execute("SELECT sum(billed_users) FROM api_calls") == [(3,)]


def test_whoever_says_yes_beforehand_is_not_asked(make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = make_workshop([silent("alpha", 300)])
    settings(monkeypatch, CONFIRM_USD="1")
    monkeypatch.setenv("DATABASE_URL", workshop.place.database_url)

    assert main(["fetch", "@alpha", "--yes", "--quiet"]) == 0
    assert len(workshop.stored("alpha")) == 300
