"""The sweep as its schedule runs it."""

import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from twitter_pipeline import sweeping
from twitter_pipeline.definitions import defs
from twitter_pipeline.orchestration.sweep import sweep_before_midnight
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent


@pytest.fixture(autouse=True)
def _until_midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep also in the last minutes of the day, in which the tests may run."""
    monkeypatch.setattr(sweeping, "LAST_CALL", timedelta(0))


def tick(workshop: Workshop) -> dg.RunRequest | dg.SkipReason:
    """Let the schedule look once."""
    with dg.DagsterInstance.get() as instance:
        answer = sweep_before_midnight(
            dg.build_schedule_context(instance=instance, resources={"database": workshop.opened})
        )
    assert isinstance(answer, dg.RunRequest | dg.SkipReason)
    return answer


def swept(workshop: Workshop) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def("sweep_day").execute_in_process(instance=instance)
    assert result.success
    return result


def posted(workshop: Workshop, count: int) -> list[int]:
    """Let alpha tweet today, and a fetch store it."""
    world, today = workshop.sandbox.world, sweeping.begin_of(datetime.now(UTC).date()).timestamp()
    ids = [world.post("alpha", text=f"{n}", at=max(today, time.time() - 90) + n / 10) for n in range(count)]
    workshop.fetch({"username": "alpha", "track_after": True})
    return ids


def deleted(workshop: Workshop) -> list[tuple[int, str]]:
    return workshop.database.execute("SELECT id, text FROM tweets WHERE deleted_seen_at IS NOT NULL ORDER BY id")


def test_nothing_is_swept_on_a_day_without_tweets(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 5)])
    workshop.fetch({"username": "alpha", "track_after": True})
    workshop.database.execute("UPDATE tweets SET created_at = created_at - interval '2 days'")

    answer = tick(workshop)
    assert isinstance(answer, dg.SkipReason)
    assert answer.skip_message == "no tracked account has written today"
    assert workshop.report(swept(workshop).run_id).accounts == 0


def test_the_schedule_steps_aside_at_a_budget_that_is_used_up_and_says_which(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_BUDGET_DAY_POSTS", "60")
    workshop = make_workshop([silent("alpha", 20)])
    posted(workshop, 8)
    answer = tick(workshop)

    assert isinstance(answer, dg.SkipReason)
    assert str(answer.skip_message).startswith("the budget of the day is used up (28 of 60 posts, and the next call")
    assert str(answer.skip_message).endswith(" until 00:00 UTC")


@pytest.mark.parametrize("remove", [False, True])
def test_the_schedule_launches_a_sweep_that_marks_what_x_has_deleted(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch, remove: bool
) -> None:
    monkeypatch.setenv("TWITTER_DELETE_CONTENT", str(remove))
    workshop = make_workshop([silent("alpha", 20)])
    ids = posted(workshop, 8)
    workshop.sandbox.world.delete(ids[3])
    answer = tick(workshop)
    result = swept(workshop)
    report = workshop.report(result.run_id)
    (output,) = [each for each in result.all_events if each.event_type_value == "STEP_OUTPUT"]
    metadata = output.event_specific_data.metadata  # type: ignore[union-attr]

    assert isinstance(answer, dg.RunRequest)
    assert answer.tags["twitter_pipeline/accounts"] == "1"
    assert (report.kind.value, report.status.value, report.billed_posts) == ("reconcile", "done", 0)
    assert deleted(workshop) == [(ids[3], "" if remove else "3")]
    assert (metadata["found deleted"].value, metadata["content removed"].value) == (1, int(remove))
