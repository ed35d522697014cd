"""What something will cost, asked before: on the command line, as a job in Dagster, and beside the bill of a run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from twitter_pipeline import calls
from twitter_pipeline.cli import main
from twitter_pipeline.definitions import defs
from twitter_pipeline.errors import InvalidRequest
from twitter_pipeline.orchestration.reports import describe_run
from twitter_pipeline.orchestration.requests import run_config_for
from twitter_pipeline.prices import Prices
from twitter_pipeline.request import read_request
from twitter_pipeline.sandbox.faults import Faults
from twitter_pipeline.settings import load_settings
from twitter_pipeline.texts import counted
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent

WRITTEN = "SELECT (SELECT count(*) FROM tweets), (SELECT count(*) FROM fetch_runs)"


@pytest.fixture
def workshop(make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setitem(load_settings.__kwdefaults__ or {}, "env_file", Path("/nonexistent/.env"))
    return make_workshop([silent("Alpha", 170), silent("beta", 900), silent("gamma", 0)])


def words(shown: str) -> list[list[str]]:
    return [line.split() for line in shown.splitlines() if line.strip() and "─" not in line]


def estimated_in_dagster(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Run the job and return what its step shows."""
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def("estimate_fetch")
        result = job.execute_in_process(run_config=run_config_for(read_request(entries)), instance=instance)
    (output,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    return dict(output.step_output_data.metadata)


def test_a_dry_run_shows_what_each_account_takes_and_what_asking_has_cost(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["fetch", "@gamma", "@alpha", "@Beta", "@missing_isle", "--dry-run"])
    shown = capsys.readouterr().out
    billed = workshop.sandbox.api.users_billed(), workshop.sandbox.api.posts_billed()
    main(["fetch", "@gamma", "@alpha", "@beta", "--dry-run"])
    again = capsys.readouterr().out

    assert code == 0
    assert [row[:7] for row in words(shown)[1:4]] == [
        ["@beta", "full", "900", "0", "900", "18", "$4.50"],
        ["@alpha", "full", "170", "0", "170", "4", "$0.850"],
        ["@gamma", "full", "0", "0", "0", "1", "$0.000"],
    ]
    assert "@missing_isle cannot be had: X knows no account of this name\n" in shown
    assert "Nothing was fetched | 3 accounts | 1,070 tweets to fetch | 24 calls | about $5.35, at most $5.35" in shown
    assert "The estimate looked up 4 names with 1 call: $0.030.\n" in shown
    assert billed == (3, 0)
    assert "The estimate cost nothing: all names were known.\n" in again
    assert workshop.database.execute(WRITTEN) == [(0, 0)]


def test_a_dry_run_as_json_is_what_the_run_then_takes_and_both_are_kept(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "@alpha", "@beta", "--dry-run", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)
    report = workshop.fetch("alpha", "beta").report
    assert report is not None
    assert main(["runs", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    main(["runs"])
    shown = capsys.readouterr().out

    assert estimate["dry_run"] is True
    assert estimate["likely"] == {
        "tweets": report.tweets_new,
        "calls": report.calls,
        "billed_posts": report.billed_posts,
        "cost_usd": float(report.cost_usd),
    }
    assert estimate["seconds"] > 0
    assert [each["username"] for each in estimate["accounts"]] == ["beta", "alpha"]
    assert (run["estimated_usd"], run["estimated_calls"], run["cost_usd"]) == (5.35, report.calls, 5.35)
    assert [word for word in words(shown)[1] if word.startswith("$")] == ["$5.35", "$5.35"]
    metadata = {name: each.value for name, each in describe_run(report, workshop.database, Prices()).items()}
    assert (metadata["estimated cost (USD)"], metadata["cost (USD)"]) == (5.35, 5.35)
    assert metadata["estimated calls"] == metadata["calls"]


def test_a_dry_run_of_a_bad_request_is_refused_before_any_call(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "@alpha", "--mode", "some", "--dry-run"]) == 2
    assert "fetch_mode" in capsys.readouterr().err
    assert list(workshop.sandbox.api.calls) == []


@pytest.mark.parametrize("known", [(), ("alpha",)])
def test_a_dry_run_names_the_accounts_that_could_not_be_looked_up_and_why_and_is_no_success(
    make_workshop: MakeWorkshop,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    known: Sequence[str],
) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.0001)
    monkeypatch.setattr(calls, "TRIES_ON_FAULT", 2)
    workshop = make_workshop([silent("alpha", 170), silent("beta", 900)])
    if known:
        assert main(["fetch", *(f"@{name}" for name in known), "--dry-run"]) == 0
    capsys.readouterr()
    workshop.sandbox.api.faults = Faults(rates={"503": 1.0})
    request = ["fetch", "@alpha", "@beta", "--dry-run"]
    code, shown = main(request), capsys.readouterr()
    code_of_json, values = main([*request, "--json"]), json.loads(capsys.readouterr().out)
    with dg.DagsterInstance.get() as instance:
        config = run_config_for(read_request([{"username": "alpha"}, {"username": "beta"}]))
        job = defs.resolve_job_def("estimate_fetch")
        result = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    failed = [name for name in ("alpha", "beta") if name not in known]
    failure = result.failure_data_for_node("estimate_accounts")

    assert (code, code_of_json) == (1, 1)
    for name in failed:
        assert f"@{name} not estimated: GET /2/users/by for " in shown.err
    assert "was answered with status 503: Service Unavailable" in shown.err
    assert f"Nothing was fetched | {counted(len(known), 'account')} | {len(failed)} not estimated | " in shown.out
    assert [each["username"] for each in values["accounts"]] == [*known]
    assert [each["username"] for each in values["not_estimated"]] == failed
    assert failure is not None
    assert failure.user_failure_data is not None
    assert f"{len(failed)} of 2 accounts could not be looked up" in (failure.user_failure_data.description or "")
    assert {"accounts", "not estimated"} <= set(failure.user_failure_data.metadata)


def test_a_backfill_is_estimated_for_the_accounts_that_it_would_fill(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = main(["backfill", "--from", "2023-01", "--dry-run"])
    said = capsys.readouterr().err
    workshop.fetch({"username": "beta", "track_after": True, "fetch_mode": "limit:5"})
    assert main(["backfill", "--dry-run", "--json"]) == 0
    estimate, written = json.loads(capsys.readouterr().out), workshop.database.execute(WRITTEN)
    assert main(["backfill", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)

    assert nobody == 2
    assert "No account is tracked" in said
    (account,) = estimate["accounts"]
    assert account["username"] == "beta"
    assert account["fetch_mode"].startswith("months:2006-03..")
    assert account["likely"]["tweets"] == 895
    assert written == [(5, 1)]
    assert (estimate["likely"]["calls"], estimate["likely"]["billed_posts"]) == (run["calls"], run["billed_posts"])
    assert run["estimated"]["cost_usd"] == run["cost_usd"] == 4.475


def test_the_job_shows_the_table_in_its_metadata_and_fetches_nothing(workshop: Workshop) -> None:
    entries = [
        {"username": "alpha"},
        {"username": "Beta", "fetch_mode": "limit:120"},
        {"username": "protected_reef"},
    ]
    metadata = estimated_in_dagster(entries)
    again = estimated_in_dagster(entries[:2])
    report = workshop.fetch(*entries[:2]).report

    assert report is not None
    table = metadata["accounts"]
    assert isinstance(table, dg.TableMetadataValue)
    columns = ("account", "asked", "X counts", "stored", "to fetch", "calls", "cost (USD)")
    assert [tuple(record.data[name] for name in columns) for record in table.records] == [
        ("@alpha", "full", 170, 0, 170, 4, 0.85),
        ("@beta", "limit:120", 900, 0, 120, 3, 0.6),
    ]
    values = {name: each.value for name, each in metadata.items() if name != "accounts"}
    assert (values["tweets to fetch"], values["posts to be billed"], values["cost (USD)"]) == (290, 290, 1.45)
    assert (values["names looked up for this"], values["cost of this estimate (USD)"]) == (3, 0.03)
    assert values["cannot be had"] == "@protected_reef: the account is protected: only its followers can read it"
    assert values["takes (minutes)"] >= 0
    assert (again["calls"].value, again["cost of this estimate (USD)"].value) == (report.calls, 0.0)
    assert (report.tweets_new, float(report.cost_usd), report.id) == (290, 1.45, 1)


def test_the_job_refuses_a_bad_request_before_a_run_exists(workshop: Workshop) -> None:
    before = workshop.statuses_in_dagster()
    with dg.DagsterInstance.get() as instance, pytest.raises(dg.DagsterConfigMappingFunctionError) as raised:
        defs.resolve_job_def("estimate_fetch").execute_in_process(
            run_config={"request": [{"username": "no name"}]}, instance=instance
        )

    assert isinstance(raised.value.__cause__, InvalidRequest)
    assert workshop.statuses_in_dagster() == before
