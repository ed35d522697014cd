"""What the log tells of a step that the broker hands out a second time: whether it has ended, and how."""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster_shared.serdes import deserialize_value

from twitter_pipeline.orchestration.worker import events_of


@dg.op
def once_more(context: dg.OpExecutionContext) -> None:
    if context.retry_number == 0:
        raise dg.RetryRequested(max_retries=1)


@dg.op
def fail() -> None:
    raise dg.Failure("as it should")


@dg.op
def stop_if_told(context: dg.OpExecutionContext) -> None:
    if "stop" in context.run.tags:
        raise DagsterExecutionInterruptedError


@dg.job
def retried() -> None:
    once_more()


@dg.job
def failed() -> None:
    fail()


@dg.job
def stopped_once() -> None:
    stop_if_told()


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def told(instance: dg.DagsterInstance, run_id: str, step_key: str, attempt: int) -> list[str]:
    events = [
        deserialize_value(event, dg.DagsterEvent) for event in events_of(instance, run_id, step_key, attempt=attempt)
    ]
    wanted = ("STEP_START", "STEP_RESTARTED", "STEP_UP_FOR_RETRY", "STEP_SUCCESS", "STEP_FAILURE")
    return [event.event_type_value for event in events if event.event_type_value in wanted]


def test_each_attempt_has_its_own_end(instance: dg.DagsterInstance) -> None:
    run_id = retried.execute_in_process(instance=instance).run_id

    assert told(instance, run_id, "once_more", 0) == ["STEP_START", "STEP_UP_FOR_RETRY"]
    assert told(instance, run_id, "once_more", 1) == ["STEP_RESTARTED", "STEP_SUCCESS"]
    assert told(instance, run_id, "once_more", 2) == []


def test_a_step_that_failed_has_ended(instance: dg.DagsterInstance) -> None:
    run_id = failed.execute_in_process(instance=instance, raise_on_error=False).run_id

    assert told(instance, run_id, "fail", 0) == ["STEP_START", "STEP_FAILURE"]


def test_a_step_whose_process_was_interrupted_is_to_be_done_again_and_only_that_counts(
    instance: dg.DagsterInstance,
) -> None:
    with pytest.raises(DagsterExecutionInterruptedError):
        stopped_once.execute_in_process(instance=instance, tags={"stop": "yes"})
    (run,) = instance.get_runs(dg.RunsFilter(job_name="stopped_once"))

    assert told(instance, run.run_id, "stop_if_told", 0) == []

    # Another process goes through the same step of the same run.
    again = stopped_once.execute_in_process(instance=instance).run_id
    for entry in instance.all_logs(again):
        if entry.is_dagster_event:
            instance.handle_new_event(entry._replace(run_id=run.run_id))

    assert told(instance, run.run_id, "stop_if_told", 0) == ["STEP_START", "STEP_SUCCESS"]


def test_another_step_and_another_run_tell_nothing(instance: dg.DagsterInstance) -> None:
    run_id = retried.execute_in_process(instance=instance).run_id

    assert told(instance, run_id, "fail", 0) == []
    assert told(instance, "00000000-0000-0000-0000-000000000000", "once_more", 0) == []
