"""What runs of every kind report to the catalog, however they end, and how far they tell that they are."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import dagster as dg
import pytest

from twitter_pipeline.definitions import defs
from twitter_pipeline.orchestration import resources
from twitter_pipeline.orchestration.progress import PROGRESS_TAG, ProgressTag
from twitter_pipeline.orchestration.sensors import fail_vanished_runs
from twitter_pipeline.orchestration.tables import TABLES
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Trap, Workshop, silent

Report = Mapping[str, Mapping[str, Any]]


def reported(run_id: str) -> Report:
    """What a run has reported: the numbers by table, each table once."""
    with dg.DagsterInstance.get() as instance:
        records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    events = [event for record in records if (event := record.event_log_entry.asset_materialization) is not None]
    found = {
        event.asset_key.to_user_string(): {name: value.value for name, value in event.metadata.items()}
        for event in events
    }
    assert len(found) == len(events)
    return found


def run_job(name: str, config: Mapping[str, Any] | None = None) -> Report:
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def(name)
        return reported(job.execute_in_process(instance=instance, run_config=config).run_id)


def poll(*names: str) -> Report:
    return run_job("poll_tracked_users", {"accounts": [*names]})


def tags_of(run_id: str) -> Mapping[str, str]:
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        return run.tags


def rows(workshop: Workshop, table: str) -> int:
    return int(workshop.database.execute(f"SELECT count(*) FROM {table}")[0][0])  # type: ignore[arg-type]


def cap_all_tokens(workshop: Workshop) -> None:
    for bearer in workshop.sandbox.api.bearers:
        workshop.sandbox.api.set_token_state(bearer, "capped")


def test_a_request_reports_every_table_with_what_it_wrote_and_what_the_table_holds(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 60), silent("beta", 20)])
    result = workshop.fetch("alpha", "beta")
    found = reported(result.dagster_run_id)

    assert result.report is not None
    # That the tokens are there is older than the run.
    assert {*found, "tokens"} == {each.key.to_user_string() for each in TABLES}
    assert {table: numbers["dagster/row_count"] for table, numbers in found.items()} == {
        table: rows(workshop, table) for table in found
    }
    assert (found["tweets"]["tweets new"], found["tweets"]["tweets fetched"]) == (80, 80)
    assert found["api_calls"]["calls"] == result.report.calls == rows(workshop, "api_calls")
    assert found["api_calls"]["cost (USD)"] == float(result.report.cost_usd)
    assert found["users"]["billed profiles"] == 2
    assert found["user_state"]["accounts worked on"] == 2
    assert (found["fetch_runs"]["kind"], found["fetch_runs"]["status"]) == ("history", "done")


def test_a_run_whose_step_failed_reports_what_it_wrote(make_workshop: MakeWorkshop) -> None:
    trap = Trap(at=1)
    workshop = make_workshop([silent("alpha", 120)], script=trap)
    trap.action = partial(cap_all_tokens, workshop)
    result = workshop.fetch("alpha")
    found = reported(result.dagster_run_id)

    assert result.error is not None
    assert found["fetch_runs"]["status"] == "failed"
    assert found["fetch_runs"]["accounts unfinished"] == 1
    assert found["tweets"]["tweets new"] == rows(workshop, "tweets") == 100
    assert (found["tokens"]["active"], found["tokens"]["not active"]) == (0, 2)


def test_a_poll_that_brings_nothing_reports_its_calls_and_its_run_alone(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 20)])
    workshop.fetch({"username": "alpha", "track_after": True})
    nothing = poll("alpha")
    workshop.sandbox.world.post("alpha", text="news", at=time.time() - 600)
    something = poll("alpha")

    assert set(nothing) == {"tokens_endpoint_rl", "api_calls", "fetch_runs"}
    assert nothing["api_calls"]["billed posts"] == 0
    assert set(something) == {*nothing, "tweets", "user_state"}
    assert something["tweets"]["tweets new"] == 1


def test_sweeps_and_weekly_checks_and_pruning_report_too(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 3)])
    workshop.fetch({"username": "alpha", "track_after": True})
    workshop.database.execute("UPDATE users SET profile_read_at = now() - interval '10 days'")
    workshop.database.execute("UPDATE tweets SET created_at = now()")
    checked = run_job("check_accounts")
    swept = run_job("sweep_day")
    workshop.database.execute("UPDATE api_calls SET called_at = called_at - interval '1 year'")
    calls = rows(workshop, "api_calls")
    pruned = run_job("prune")

    assert swept["fetch_runs"]["kind"] == "reconcile"
    assert set(checked) == {"tokens_endpoint_rl", "api_calls", "users"}
    assert (checked["users"]["profiles read"], checked["users"]["renamed"]) == (1, 0)
    assert (checked["api_calls"]["calls"], checked["api_calls"]["cost (USD)"]) == (1, 0.01)
    assert pruned == {"api_calls": {"rows deleted": calls, "dagster/row_count": 0}}


def test_what_a_killed_run_wrote_is_reported_once_by_whoever_closes_it(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 120)])
    workshop.kill("alpha", at="after-a-page:2")
    workshop.time_passes(seconds=60)
    with dg.DagsterInstance.get() as instance:
        (run_id,) = fail_vanished_runs(instance, workshop.opened)
        fail_vanished_runs(instance, workshop.opened)
    found = reported(run_id)

    assert found["fetch_runs"]["status"] == "failed"
    assert found["tweets"]["tweets new"] == rows(workshop, "tweets") > 0


def test_a_long_run_tells_how_far_it_is_and_a_short_one_does_not(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop([silent(f"account_{number}", 300) for number in range(4)], latency_s=0.1)
    short = workshop.fetch({"username": "account_0", "fetch_mode": "limit:5"})
    monkeypatch.setattr(resources, "ProgressTag", partial(ProgressTag, every_s=0.1))
    long = workshop.fetch(*workshop.usernames)
    with dg.DagsterInstance.get() as instance:
        told = [each.message for each in instance.all_logs(long.dagster_run_id)]

    assert PROGRESS_TAG not in tags_of(short.dagster_run_id)
    # Its log says it too, while it works.
    assert [message for message in told if " of 4 accounts | " in message]
    # The last word is what it came to.
    assert long.report is not None
    assert tags_of(long.dagster_run_id)[PROGRESS_TAG] == (
        f"4 of 4 accounts | {long.report.tweets_fetched:,} tweets, {long.report.tweets_new:,} new"
        f" | {sum(each.calls for each in long.report.account_reports):,} calls"
    )
