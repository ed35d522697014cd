"""The token page: what the job and the sensor show of the tokens, on the asset of their table."""

from collections.abc import Mapping

import dagster as dg

from twitter_pipeline.cli import main
from twitter_pipeline.definitions import defs
from twitter_pipeline.orchestration.token_page import tokens_sensor
from twitter_pipeline.sandbox.windows import USER_TWEETS, TokenSpec
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent

Shown = Mapping[str, dg.MetadataValue]


def used(make_workshop: MakeWorkshop) -> Workshop:
    """Three tokens after a fetch of four pages: one used up, one with two calls left, one that died."""
    limits = {USER_TWEETS: 3}
    workshop = make_workshop(
        [silent("alpha", 180)],
        tokens=[TokenSpec("one", limits=limits), TokenSpec("two", limits=limits), TokenSpec("three", state="invalid")],
        # A reset farther ahead than an hour is none that X sends.
        window_seconds=3_000,
    )
    assert workshop.fetch("alpha").error is None
    assert main(["tokens", "check"]) == 1
    return workshop


def rows(shown: Shown, name: str) -> list[dict[str, object]]:
    table = shown[name]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(row.data) for row in table.records]


def run_show_tokens() -> Shown:
    """Run the job and return what it shows on the asset, as its page gets it from Dagster's storage."""
    with dg.DagsterInstance.get() as instance:
        assert defs.resolve_job_def("show_tokens").execute_in_process(instance=instance).success
        (record,) = instance.fetch_observations(dg.AssetKey("tokens"), limit=1).records
    assert record.asset_observation is not None
    return record.asset_observation.metadata


def tick(workshop: Workshop, cursor: str | None) -> dg.SensorResult | dg.SkipReason:
    with dg.DagsterInstance.get() as instance:
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"database": workshop.opened})
        result = tokens_sensor(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def test_the_job_shows_state_limits_use_and_chart_of_every_token(make_workshop: MakeWorkshop) -> None:
    workshop = used(make_workshop)
    calls = len(workshop.sandbox.api.calls)
    shown = run_show_tokens()

    states = {str(row["token"]): row for row in rows(shown, "tokens")}
    assert [(name, row["status"]) for name, row in states.items()] == [
        ("TWITTER_BEARER_1", "active"),
        ("TWITTER_BEARER_2", "active"),
        ("TWITTER_BEARER_3", "invalid"),
    ]
    assert "401" in str(states["TWITTER_BEARER_3"]["reason"])
    timelines = [row for row in rows(shown, "limits") if row["endpoint"] == "/2/users/:id/tweets"]
    assert sorted((row["limit"], row["remaining"], row["state"]) for row in timelines) == [
        ("3", "0", "used up"),
        ("3", "2", "free"),
    ]
    assert all(row["resets (UTC)"] for row in timelines)
    use = rows(shown, "use of the last day")
    assert sum(int(str(row["calls"])) for row in use) == calls
    assert {row["calls"] for row in use if row["endpoint"] == "/2/users/:id/tweets"} >= {1, 3}
    failed = {str(row["token"]): row["failed"] for row in use if row["failed"]}
    assert failed == {"TWITTER_BEARER_3": 2}  # the call that tested it too
    assert (shown["billed posts, last day"].value, shown["calls, last day"].value) == (180, calls)
    chart = shown["chart of the last day"]
    assert isinstance(chart, dg.MarkdownMetadataValue)
    assert "](data:image/svg+xml," in str(chart.md_str)
    assert "TWITTER_BEARER_3: invalid since" in str(shown["what holds work up"].value)
    # To look costs nothing.
    assert len(workshop.sandbox.api.calls) == calls


def test_the_sensor_shows_what_has_changed_once_without_a_run(make_workshop: MakeWorkshop) -> None:
    workshop = used(make_workshop)
    first = tick(workshop, None)
    assert isinstance(first, dg.SensorResult)
    again = tick(workshop, first.cursor)
    workshop.database.execute("UPDATE tokens SET status = 'revoked', status_reason = 'suspended' WHERE id = 1")
    changed = tick(workshop, first.cursor)

    shown = [event.asset_key.to_user_string() for event in first.asset_events]
    # The costs go with them once a day.
    assert shown == ["tokens", "costs"]
    assert not first.run_requests
    assert isinstance(again, dg.SkipReason)
    assert isinstance(changed, dg.SensorResult)
    (of_tokens,) = changed.asset_events
    assert [row["status"] for row in rows(of_tokens.metadata, "tokens")] == ["revoked", "active", "invalid"]
    # What the sensor shows is kept for good: no picture.
    assert "chart of the last day" not in of_tokens.metadata


def test_before_the_first_call_the_page_says_so(make_workshop: MakeWorkshop) -> None:
    make_workshop([])
    shown = run_show_tokens()

    assert shown["what holds work up"].value == "- `No token is known yet.`"
    assert rows(shown, "tokens") == []
