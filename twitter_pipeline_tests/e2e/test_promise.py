"""The promise: how soon tweets are stored is told by the commands, the sensor, the run and a check that warns."""

import time

import dagster as dg
import pytest

from twitter_pipeline.cli import main
from twitter_pipeline.definitions import defs
from twitter_pipeline.orchestration.checks import checks_sensor
from twitter_pipeline.orchestration.promise import stored_within_the_promise
from twitter_pipeline.orchestration.watch import tracked_users_sensor
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent


def watched(workshop: Workshop, *, tracked_ago_s: float = 3600) -> None:
    """Track alpha since an hour, and let a poll find what it wrote ten minutes ago."""
    workshop.fetch({"username": "alpha", "track_after": True})
    workshop.database.execute(
        "UPDATE user_state SET tracked_since = now() - %s * interval '1 s', next_poll_at = NULL", (tracked_ago_s,)
    )
    workshop.sandbox.world.post("alpha", text="news", at=time.time() - 600)


def poll(workshop: Workshop) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.get() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"database": workshop.opened})
        request = tracked_users_sensor(context)
        assert isinstance(request, dg.RunRequest)
        job = defs.resolve_job_def("poll_tracked_users")
        return job.execute_in_process(instance=instance, run_config=request.run_config)


def show(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command and return what it shows."""
    assert main(words) == 0
    return capsys.readouterr().out


def checked(workshop: Workshop) -> dg.AssetCheckEvaluation:
    """Let the sensor check once."""
    with dg.DagsterInstance.get() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"database": workshop.opened})
        result = checks_sensor(context)
    assert isinstance(result, dg.SensorResult)
    (evaluation,) = [
        event
        for event in result.asset_events
        if isinstance(event, dg.AssetCheckEvaluation) and event.check_name == "stored_within_the_promise"
    ]
    return evaluation


def test_the_delay_is_told_by_the_run_the_next_tick_and_the_commands(
    make_workshop: MakeWorkshop, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop = make_workshop([silent("alpha", 30), silent("beta", 3)])
    workshop.fetch("beta")
    watched(workshop)
    outputs = [event for event in poll(workshop).all_events if event.event_type_value == "STEP_OUTPUT"]
    metadata = outputs[-1].event_specific_data.metadata  # type: ignore[union-attr]
    capsys.readouterr()

    assert metadata["tweets of tracked accounts, last day"].value == 1
    assert 600 <= metadata["delay, median of the last day (s)"].value < 700
    assert metadata["within the promise, last day (%)"].value == 100

    workshop.database.execute("UPDATE user_state SET next_poll_at = NULL WHERE is_tracked")
    poll(workshop)
    tick = capsys.readouterr().err
    shown = {words: show(capsys, *words.split()) for words in ("status", "status alpha", "tracked")}

    for told in (tick, shown["status"], shown["status alpha"], shown["tracked"]):
        assert "1 tweet in the last day, stored after 6" in told
    for table in (shown["status"], shown["tracked"]):
        (line,) = [line for line in table.splitlines() if "@alpha" in line]
        assert "10 min" in line
    assert "next poll" in shown["tracked"]


def test_a_check_passes_within_the_promise_and_warns_beyond_it(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop([silent("alpha", 30)])
    nothing = checked(workshop)
    watched(workshop)
    poll(workshop)
    kept = checked(workshop)
    monkeypatch.setenv("TWITTER_WATCH_PROMISE_SECONDS", "300")
    broken = checked(workshop)
    asked = stored_within_the_promise(workshop.opened)

    assert [each.passed for each in (nothing, kept, broken)] == [True, True, False]
    assert broken.severity is dg.AssetCheckSeverity.WARN
    assert "0 % within 300 s" in str(broken.description)
    slowest = broken.metadata["slowest accounts"]
    assert isinstance(slowest, dg.TableMetadataValue)
    assert [row.data["account"] for row in slowest.records] == ["@alpha"]
    assert isinstance(asked, dg.AssetCheckResult)
    assert not asked.passed
