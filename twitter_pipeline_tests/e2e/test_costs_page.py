"""The page of the costs: what the job and the sensor of the tokens show of them on the asset `costs`."""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster_shared.serdes import serialize_value

from twitter_pipeline.definitions import defs
from twitter_pipeline.orchestration.costs_page import observe_costs
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.token_page import tokens_sensor
from twitter_pipeline.settings import load_settings
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent
from twitter_pipeline_tests.e2e.test_budgets import UNKNOWN_BILLS

CHARTS = ["cost by day", "cost by account", "cost by run"]

MOST_BYTES = 100_000
"""Of an observation, which is kept for good."""


def paid(make_workshop: MakeWorkshop) -> Workshop:
    """A place where 150 posts and two profiles were read."""
    workshop = make_workshop([silent("alpha", 100), silent("beta", 50)])
    assert workshop.fetch("alpha", "beta").error is None
    return workshop


def shown_on_the_page() -> dg.AssetObservation:
    """What the page of the asset shows last."""
    with dg.DagsterInstance.get() as instance:
        (record,) = instance.fetch_observations(dg.AssetKey("costs"), limit=1).records
    assert record.asset_observation is not None
    return record.asset_observation


def tick(workshop: Workshop, cursor: str | None) -> dg.SensorResult:
    with dg.DagsterInstance.get() as instance:
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"database": workshop.opened})
        result = tokens_sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def assets_of(result: dg.SensorResult) -> list[str]:
    return [each.asset_key.to_user_string() for each in result.asset_events]


def test_the_job_shows_what_was_paid_by_day_account_run_and_kind(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_BUDGET_DAY_USD", "5")
    paid(make_workshop).database.execute(UNKNOWN_BILLS)
    with dg.DagsterInstance.get() as instance:
        assert defs.resolve_job_def("show_costs").execute_in_process(instance=instance).success
    observation = shown_on_the_page()
    shown = observation.metadata
    table = shown["cost by kind"]
    assert isinstance(table, dg.TableMetadataValue)

    assert list(shown)[:3] == CHARTS
    assert all("data:image/" in str(shown[name].value) for name in CHARTS)
    assert [dict(row.data) for row in table.records] == [
        {"kind": "history", "calls": 4, "posts": 150, "profiles": 2, "cost (USD)": 0.77},
        {"kind": "without a run", "calls": 2, "posts": 0, "profiles": 0, "cost (USD)": 0.0},
    ]
    assert (shown["cost of 30 days (USD)"].value, shown["budget of the day"].value) == (0.77, "$1.29 of $5.00")
    assert str(shown["unknown"].value).startswith("2 calls got no whole response, so X may have billed up to 100 posts")
    assert str(observation.description).startswith("$0.77 since ")
    assert len(serialize_value(observation)) < MOST_BYTES


def test_where_nothing_was_paid_there_is_nothing_to_see(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 10)])
    workshop.fetch("alpha")
    later = datetime.now(UTC) + timedelta(days=40)

    assert observe_costs(OpenDatabase(workshop.database, load_settings({})), later) is None


def test_the_sensor_of_the_tokens_shows_the_costs_once_a_utc_day(make_workshop: MakeWorkshop) -> None:
    workshop = paid(make_workshop)
    first = tick(workshop, None)
    seen = json.loads(first.cursor or "")
    # Ten minutes later more was called, on the same day and on the next.
    later = {**seen, "at": seen["at"] - 600, "last_call": -1}
    same_day = tick(workshop, json.dumps(later))
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    next_day = tick(workshop, json.dumps({**later, "costs_of": yesterday}))

    assert assets_of(first) == assets_of(next_day) == ["tokens", "costs"]
    assert assets_of(same_day) == ["tokens"]
