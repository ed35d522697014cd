"""The last entry on the page of a run: its accounts, its charts and its numbers, however the run ended."""

import base64
import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from urllib.parse import unquote

import dagster as dg
import pytest
from PIL import Image

from twitter_pipeline.definitions import defs
from twitter_pipeline.orchestration.progress import LONGEST_SILENCE_S, LOOK_EVERY_S, silence_s
from twitter_pipeline.orchestration.reports import describe_run
from twitter_pipeline.orchestration.run_pages import SAID, run_pages_sensor
from twitter_pipeline.orchestration.sensors import fail_vanished_runs
from twitter_pipeline.prices import Prices
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent

CHARTS = {"tweets by account", "calls against the limits"}

COLUMNS = "account asked new stored span calls waited cost outcome"

MOST_BYTES = 50_000
"""Of a chart, which lies in the event; the UI loads it with the log."""

# A run is looked at when it ended two seconds ago.
MOVED_BACK = """
WITH ended AS (
    UPDATE fetch_runs
    SET started_at = started_at - interval '3 seconds', finished_at = finished_at - interval '3 seconds'
    WHERE finished_at > now() - interval '2 seconds'
    RETURNING id
)
UPDATE api_calls SET called_at = called_at - interval '3 seconds' FROM ended WHERE fetch_run_id = ended.id
"""


def tick(workshop: Workshop, cursor: str | None = None) -> tuple[str, str | None]:
    """Evaluate the sensor as the daemon does, some seconds later; return what it says and its next cursor."""
    workshop.database.execute(MOVED_BACK)
    with (
        dg.DagsterInstance.get() as instance,
        dg.build_sensor_context(
            instance=instance, cursor=cursor, resources={"database": workshop.opened}, definitions=defs
        ) as context,
    ):
        told = run_pages_sensor(context)
        assert isinstance(told, dg.SkipReason)
        return str(told.skip_message), context.cursor


def entries_of(dagster_run_id: str) -> list[Mapping[str, dg.MetadataValue]]:
    """The metadata of the last entry, once for each time that it was made."""
    with dg.DagsterInstance.get() as instance:
        logs = instance.all_logs(dagster_run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    events = [each.dagster_event for each in logs if each.dagster_event]
    return [event.engine_event_data.metadata for event in events if event.message == SAID]


def entry_of(dagster_run_id: str) -> Mapping[str, dg.MetadataValue]:
    (entry,) = entries_of(dagster_run_id)
    return entry


def picture_in(value: dg.MetadataValue[Any]) -> tuple[bytes, tuple[int, int]]:
    """The PNG in a chart's Markdown, as a browser reads it, and its size in pixels."""
    assert isinstance(value, dg.MarkdownMetadataValue)
    image = re.fullmatch(r"!\[[a-z ]+\]\(data:image/svg\+xml,(.*)\)", str(value.md_str))
    assert image is not None
    encoded = re.search(r"href='data:image/png;base64,([^']+)'", unquote(image[1]))
    assert encoded is not None
    png = base64.b64decode(encoded[1], validate=True)
    return png, Image.open(BytesIO(png)).size


def rows_in(entry: Mapping[str, dg.MetadataValue]) -> list[dict[str, Any]]:
    table = entry["accounts"]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


def columns_in(entry: Mapping[str, dg.MetadataValue]) -> str:
    table = entry["accounts"]
    assert isinstance(table, dg.TableMetadataValue)
    assert table.schema is not None
    return " ".join(column.name for column in table.schema.columns)


def test_a_run_that_is_done_ends_with_its_accounts_and_two_pictures(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 170), silent("beta", 120)])
    result = workshop.fetch("alpha", "beta", "missing_isle")
    told, cursor = tick(workshop)
    entry = entry_of(result.dagster_run_id)

    assert told == "finished the 1 page of runs that have ended"
    # The UI shows the first lines.
    assert list(entry)[:2] == ["tweets by account", "calls against the limits"]
    assert columns_in(entry) == COLUMNS
    assert [(row["account"], row["new"], row["outcome"]) for row in rows_in(entry)] == [
        ("@alpha", 170, "done"),
        ("@beta", 120, "done"),
        ("@missing_isle", 0, "unavailable"),
    ]
    for name in CHARTS:
        png, (width, height) = picture_in(entry[name])
        assert 2_000 < len(png) < MOST_BYTES
        assert (width, height > 200) == (1840, True)
    assert (entry["status"].value, entry["tweets new"].value, entry["cost (USD)"].value) == ("done", 290, 1.47)
    # What was shown is not shown again, by whatever cursor.
    assert tick(workshop, cursor)[0] == tick(workshop)[0] == "no run has ended since the last look"
    assert len(entries_of(result.dagster_run_id)) == 1


def test_a_partial_run_and_a_killed_one_say_what_became_of_the_accounts_too(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 170), silent("beta", 120)])
    refused = str(workshop.user_id("beta"))
    handle = workshop.sandbox.api.handle
    workshop.sandbox.api.handle = lambda method, path, query, headers, body=b"": handle(
        method, path, "max_results=1" if refused in path else query, headers, body
    )
    partial = workshop.fetch("alpha", "beta")
    workshop.sandbox.api.handle = handle
    workshop.kill("beta", at="after-a-page:1")
    workshop.time_passes(seconds=60)
    with dg.DagsterInstance.get() as instance:
        (killed,) = fail_vanished_runs(instance, workshop.opened)
    tick(workshop)
    of_partial, of_killed = entry_of(partial.dagster_run_id), entry_of(killed)

    assert partial.error is not None
    assert (of_partial["status"].value, of_killed["status"].value) == ("partial", "failed")
    assert [(row["account"], row["outcome"]) for row in rows_in(of_partial)] == [
        ("@alpha", "done"),
        ("@beta", "failed"),
    ]
    assert [row["outcome"] for row in rows_in(of_killed)] == ["interrupted"]
    assert set(of_partial) >= CHARTS
    assert set(of_killed) >= CHARTS


def test_a_run_that_finds_nothing_new_has_no_chart_of_tweets(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 30)])
    workshop.fetch("alpha")
    _, cursor = tick(workshop)
    again = workshop.fetch("alpha")
    tick(workshop, cursor)

    assert CHARTS & set(entry_of(again.dagster_run_id)) == {"calls against the limits"}


@pytest.mark.parametrize(("tweets", "entries"), [(49, 0), (50, 1)])
def test_a_poll_has_charts_only_when_it_brought_a_page(make_workshop: MakeWorkshop, tweets: int, entries: int) -> None:
    workshop = make_workshop([silent("alpha", tweets)])
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def("poll_tracked_users")
        result = job.execute_in_process(run_config={"accounts": ["alpha"]}, instance=instance)
    tick(workshop)

    assert len(entries_of(result.run_id)) == entries


def test_the_table_of_a_poll_is_of_those_that_have_news_or_trouble(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 60), silent("beta", 5), silent("gamma", 5)])
    workshop.fetch("beta", "gamma")
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def("poll_tracked_users")
        names = ["alpha", "beta", "gamma", "missing_isle"]
        result = job.execute_in_process(run_config={"accounts": names}, instance=instance)
    described = describe_run(workshop.report(result.run_id), workshop.database, Prices())

    assert [row["account"] for row in rows_in(described)] == ["@alpha"]
    assert described["accounts left out"].value == 3


def test_a_run_that_dagster_has_not_ended_yet_waits_for_the_next_tick(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 60)])
    result = workshop.fetch("alpha")
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(result.dagster_run_id)
        assert run is not None
        working = instance.create_run_for_job(
            defs.resolve_job_def("fetch_tweets"), status=dg.DagsterRunStatus.STARTED, run_id=None
        )
    workshop.database.execute("UPDATE fetch_runs SET dagster_run_id = %s", (working.run_id,))
    _, cursor = tick(workshop)
    workshop.database.execute("UPDATE fetch_runs SET dagster_run_id = %s", (result.dagster_run_id,))
    tick(workshop, cursor)

    assert entries_of(working.run_id) == []
    assert len(entries_of(result.dagster_run_id)) == 1


def test_a_run_of_eight_hours_writes_less_than_six_hundred_lines_on_its_progress() -> None:
    ages = [0.0]
    while ages[-1] < 8 * 3600:
        ages.append(ages[-1] + max(LOOK_EVERY_S, silence_s(ages[-1])))

    assert ages[1:4] == [5, 10, 15]
    assert len(ages) < 600
    assert ages[-1] - ages[-2] == LONGEST_SILENCE_S
