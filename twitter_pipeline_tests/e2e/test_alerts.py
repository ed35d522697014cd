"""Alerts as the sensor tells them: over real runs, the sandbox and a receiver of webhooks."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from twitter_pipeline import calls
from twitter_pipeline.cli import main
from twitter_pipeline.definitions import defs
from twitter_pipeline.orchestration import alerts as orchestration
from twitter_pipeline.orchestration.alerts import WATCH_CHECKS, alerts_sensor
from twitter_pipeline.orchestration.checks import checks_sensor
from twitter_pipeline.sandbox.faults import FaultKind
from twitter_pipeline.sandbox.windows import USERS
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent
from twitter_pipeline_tests.webhooks import Receiver, receiver

TOKEN_1, TOKEN_2 = "TWITTER_BEARER_1", "TWITTER_BEARER_2"


@pytest.fixture
def make_healthy(make_workshop: MakeWorkshop) -> MakeWorkshop:
    """Make a workshop whose checks were green, whatever other tests have left in the storage that they share."""

    def make(*arguments: Any, **options: Any) -> Workshop:
        workshop = make_workshop(*arguments, **options)
        with dg.DagsterInstance.get() as instance:
            for key in WATCH_CHECKS:
                green = dg.AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, passed=True, metadata={})
                instance.report_runless_asset_event(green)
        return workshop

    return make


@pytest.fixture
def slack(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver that the environment names."""
    with receiver() as served:
        monkeypatch.setenv("TWITTER_ALERT_WEBHOOK", served.url.reveal())
        yield served


def tick(workshop: Workshop) -> str:
    """Let the sensor look once, as in a daemon that has just been started, and return what the tick says."""
    with dg.DagsterInstance.get() as instance, pytest.MonkeyPatch.context() as patch:
        # Of the runs in Dagster's storage, which the tests share, only those of this test.
        patch.setattr(orchestration, "LOOK_BACK", datetime.now(UTC) - workshop.opened_at)
        result = alerts_sensor(dg.build_sensor_context(instance=instance, resources={"database": workshop.opened}))
    assert isinstance(result, dg.SkipReason)
    return str(result.skip_message)


def check(workshop: Workshop) -> None:
    """Let the other sensor make its checks, whose results the daemon writes down."""
    with dg.DagsterInstance.get() as instance:
        result = checks_sensor(dg.build_sensor_context(instance=instance, resources={"database": workshop.opened}))
        assert isinstance(result, dg.SensorResult)
        for event in result.asset_events:
            instance.report_runless_asset_event(event)


def run_job(name: str, *, tags: dict[str, str] | None = None) -> bool:
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def(name)
        return job.execute_in_process(instance=instance, raise_on_error=False, tags=tags).success


def test_a_token_that_is_revoked_is_told_once_and_once_more_when_it_works_again(
    make_healthy: MakeWorkshop, slack: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The call that tests a suspended token follows at once.
    monkeypatch.setattr("twitter_pipeline.store.tokens.SUSPENDED_S", 0)
    workshop = make_healthy([silent("alpha", 60)])
    api = workshop.sandbox.api
    quiet = tick(workshop)
    api.set_token_state("sandbox-token-1", "suspended_app")
    workshop.fetch("alpha")
    ticks = [tick(workshop) for _ in range(2)]
    api.set_token_state("sandbox-token-1", "active")
    assert main(["tokens", "check"]) == 0
    ticks += [tick(workshop) for _ in range(2)]

    assert quiet == "nothing new; 0 open"
    assert ticks == [
        "1 new alert, 1 message posted; 1 open",
        "nothing new; 1 open",
        "1 over, 1 message posted; 0 open",
        "nothing new; 0 open",
    ]
    assert slack.alerts == [("token_out_of_use", TOKEN_1, False), ("token_out_of_use", TOKEN_1, True)]
    told, over = slack.texts()
    assert told.startswith(f"Token {TOKEN_1} is revoked since ")
    assert told.endswith("mend it in X's developer console, then: twitter-pipeline tokens check")
    assert over.startswith(f"Token {TOKEN_1} works again")


def test_the_last_token_that_goes_is_told_with_the_run_that_it_broke(
    make_healthy: MakeWorkshop, slack: Receiver
) -> None:
    workshop = make_healthy([silent("alpha", 60)], tokens=1)
    workshop.sandbox.api.set_token_state("sandbox-token-1", "invalid")
    failed = workshop.fetch("alpha")
    tick(workshop)
    tick(workshop)

    kinds = [(kind, is_over) for kind, _, is_over in slack.alerts]
    assert sorted(kinds) == [("no_token_left", False), ("run_failed", False), ("token_out_of_use", False)]
    (of_run,) = [each for each in slack.posted[0]["alerts"] if each["kind"] == "run_failed"]
    assert of_run["subject"] == failed.dagster_run_id
    assert of_run["message"].startswith(f"The run {failed.dagster_run_id[:8]} of fetch_tweets failed at ")
    assert "No token can call /2/users/by" in of_run["message"]


def test_a_tracked_account_that_is_suspended_is_told_and_told_when_it_is_back(
    make_healthy: MakeWorkshop, slack: Receiver
) -> None:
    workshop = make_healthy([silent("alpha", 5), silent("beta", 5)])
    workshop.fetch({"username": "alpha", "track_after": True}, "beta")
    for availability in ("suspended", "active"):
        for name in ("alpha", "beta"):
            workshop.sandbox.world.set_availability(name, availability)
        workshop.database.execute("UPDATE users SET profile_read_at = profile_read_at - interval '8 days'")
        run_job("check_accounts")
        workshop.fetch("beta")
        tick(workshop)

    subject = str(workshop.user_id("alpha"))
    assert slack.alerts == [("account_gone", subject, False), ("account_gone", subject, True)]
    assert slack.texts()[0].startswith("The tracked account @alpha is suspended since ")
    assert slack.texts()[1].startswith("The tracked account @alpha can be read again")


def test_a_broken_promise_is_told_when_its_check_fails_and_when_it_passes_again(
    make_healthy: MakeWorkshop, slack: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_healthy([silent("alpha", 30)])
    workshop.fetch({"username": "alpha", "track_after": True})
    # Some of its tweets as if the watch had brought them, ten minutes after they were written.
    workshop.database.execute(
        "UPDATE tweets t SET id = id_at(first_read_at - interval '10 minutes') + n, first_read_run_id = NULL,"
        " created_at = first_read_at - interval '10 minutes'"
        " FROM (SELECT id, row_number() OVER () AS n FROM tweets) AS numbered WHERE numbered.id = t.id"
    )
    workshop.database.execute("UPDATE user_state SET tracked_since = now() - interval '1 hour'")
    for promise in ("900", "300", "300", "900"):
        monkeypatch.setenv("TWITTER_WATCH_PROMISE_SECONDS", promise)
        check(workshop)
        tick(workshop)

    name = "stored_within_the_promise"
    assert slack.alerts == [("promise_broken", name, False), ("promise_broken", name, True)]
    assert "0 % within 300 s. To do: see the check stored_within_the_promise of the asset tweets" in slack.texts()[0]


def test_a_watch_that_stands_still_breaks_the_promise_too(make_healthy: MakeWorkshop, slack: Receiver) -> None:
    workshop = make_healthy([silent("alpha", 30)])
    workshop.fetch({"username": "alpha", "track_after": True})
    workshop.database.execute(
        "UPDATE user_state SET last_polled_at = now() - interval '9 hours', tracked_since = now() - interval '9 hours'"
    )
    check(workshop)
    tick(workshop)

    assert slack.alerts == [("promise_broken", "every_tracked_account_seen_lately", False)]


def test_the_checks_that_are_looked_at_are_there() -> None:
    assert {*WATCH_CHECKS} <= {*defs.resolve_asset_graph().asset_check_keys}


def test_a_job_that_fails_by_itself_is_one_trouble_until_a_run_of_it_succeeds(
    make_healthy: MakeWorkshop, slack: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "LONGEST_PAUSE_S", 0.002)
    faults: list[FaultKind | None] = ["500"]
    workshop = make_healthy([silent("alpha", 5)], script=lambda endpoint, _: faults[-1] if endpoint == USERS else None)
    workshop.fetch({"username": "alpha", "track_after": True})
    workshop.database.execute("UPDATE users SET profile_read_at = profile_read_at - interval '8 days'")
    by_itself = {"dagster/schedule_name": "check_accounts_weekly"}
    for _ in range(2):
        assert not run_job("check_accounts", tags=by_itself)
        tick(workshop)
    faults.append(None)
    assert run_job("check_accounts", tags=by_itself)
    tick(workshop)
    tick(workshop)

    assert slack.alerts == [("run_failed", "check_accounts", False), ("run_failed", "check_accounts", True)]
    assert "The job check_accounts, which starts by itself, fails since" in slack.texts()[0]
    assert "1 look-ups failed" in slack.texts()[0]


def test_a_budget_that_is_used_up_is_told_until_it_is_raised(
    make_healthy: MakeWorkshop, slack: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_healthy([silent("alpha", 120)])
    monkeypatch.setenv("TWITTER_BUDGET_DAY_POSTS", "100")
    workshop.fetch("alpha")
    tick(workshop)
    tick(workshop)
    monkeypatch.setenv("TWITTER_BUDGET_DAY_POSTS", "1000")
    tick(workshop)

    of_budget = [each for each in slack.alerts if each[0] == "budget_reached"]
    assert of_budget == [("budget_reached", "day", False), ("budget_reached", "day", True)]
    assert any(line.startswith("The budget of the day is used up (100 of 100 posts") for line in slack.texts())


def test_a_webhook_that_fails_breaks_nothing_and_gets_everything_when_it_is_back(
    make_healthy: MakeWorkshop, slack: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop = make_healthy([silent("alpha", 5)])
    workshop.sandbox.api.set_token_state("sandbox-token-2", "invalid")
    slack.status = 503
    main(["tokens", "check"])
    failing = [tick(workshop) for _ in range(2)]
    slack.status = 204
    slack.posted.clear()
    back = tick(workshop)
    capsys.readouterr()
    assert main(["alerts", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert main(["alerts"]) == 0
    shown = capsys.readouterr().out

    assert failing == [
        "1 new alert, the webhook takes no messages: status 503; 1 open",
        "the webhook takes no messages: status 503; 1 open",
    ]
    assert back == "1 message posted; 1 open"
    assert slack.alerts == [("token_out_of_use", TOKEN_2, False)]
    assert (listed["kind"], listed["subject"], listed["is_open"]) == ("token_out_of_use", TOKEN_2, True)
    assert listed["told_at"] is not None
    assert f"Token {TOKEN_2} is invalid since" in shown
    assert "open" in shown


def test_the_list_says_when_there_is_nothing(make_healthy: MakeWorkshop, capsys: pytest.CaptureFixture[str]) -> None:
    make_healthy([])

    assert main(["alerts"]) == 0
    assert capsys.readouterr().out == "There was no alert yet.\n"
