"""What Dagster's log tells the leader of a run and its workers of a step: whether it is due, has ended, and how."""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import EngineEventData
from dagster._core.execution.api import create_execution_plan
from dagster_celery.core_execution_loop import DELEGATE_MARKER

from twitter_pipeline.orchestration.step_log import StepLog


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


@dg.op(out={"some": dg.DynamicOut(str), "none": dg.DynamicOut(str), "absent": dg.DynamicOut(str, is_required=False)})
def spread(context: dg.OpExecutionContext) -> Iterator[dg.DynamicOutput[str]]:
    for key in ("a", "b") if context.retry_number else ("a", "b", "c"):
        yield dg.DynamicOutput(key, mapping_key=key, output_name="some")
    if context.retry_number == 0:
        raise dg.RetryRequested(max_retries=1)


@dg.op
def double(text: str) -> str:
    return text * 2


@dg.op
def gather(texts: list[str]) -> str:
    return "".join(texts)


@dg.job
def fanned_out() -> None:
    gather(spread().some.map(double).collect())


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def read(instance: dg.DagsterInstance, run_id: str) -> StepLog:
    log = StepLog(instance, run_id)
    log.read()
    return log


def told(instance: dg.DagsterInstance, run_id: str, step_key: str) -> list[list[str]]:
    wanted = ("STEP_START", "STEP_RESTARTED", "STEP_UP_FOR_RETRY", "STEP_SUCCESS", "STEP_FAILURE")
    attempts = read(instance, run_id).ended(step_key)
    return [[event.event_type_value for event in events if event.event_type_value in wanted] for events in attempts]


def test_each_attempt_has_its_own_end(instance: dg.DagsterInstance) -> None:
    run_id = retried.execute_in_process(instance=instance).run_id

    assert told(instance, run_id, "once_more") == [
        ["STEP_START", "STEP_UP_FOR_RETRY"],
        ["STEP_RESTARTED", "STEP_SUCCESS"],
    ]


def test_a_step_that_failed_has_ended(instance: dg.DagsterInstance) -> None:
    run_id = failed.execute_in_process(instance=instance, raise_on_error=False).run_id

    assert told(instance, run_id, "fail") == [["STEP_START", "STEP_FAILURE"]]


def test_a_step_whose_process_was_interrupted_is_to_be_done_again_and_only_that_counts(
    instance: dg.DagsterInstance,
) -> None:
    with pytest.raises(DagsterExecutionInterruptedError):
        stopped_once.execute_in_process(instance=instance, tags={"stop": "yes"})
    (run,) = instance.get_runs(dg.RunsFilter(job_name="stopped_once"))

    assert told(instance, run.run_id, "stop_if_told") == []

    # Another process goes through the same step of the same run.
    again = stopped_once.execute_in_process(instance=instance).run_id
    for entry in instance.all_logs(again):
        if entry.is_dagster_event:
            instance.handle_new_event(entry._replace(run_id=run.run_id))

    assert told(instance, run.run_id, "stop_if_told") == [["STEP_START", "STEP_SUCCESS"]]


def test_another_step_and_another_run_tell_nothing(instance: dg.DagsterInstance) -> None:
    run_id = retried.execute_in_process(instance=instance).run_id

    assert told(instance, run_id, "fail") == []
    assert told(instance, "00000000-0000-0000-0000-000000000000", "once_more") == []


def test_a_step_is_due_from_its_submission_to_its_end(instance: dg.DagsterInstance) -> None:
    run_id = retried.execute_in_process(instance=instance).run_id
    run = instance.get_run_by_id(run_id)
    assert run is not None

    def submit() -> None:
        instance.report_engine_event(
            "submitted", run, EngineEventData(marker_start=DELEGATE_MARKER), step_key="once_more"
        )

    log = StepLog(instance, run_id)
    due = [log.is_due("once_more")]
    for _ in range(3):
        submit()
        log.read()
        due.append(log.is_due("once_more"))

    # Two attempts have ended.
    assert due == [False, False, False, True]
    assert not log.is_due("fail")


def test_what_is_committed_late_is_not_missed(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = retried.execute_in_process(instance=instance).run_id
    records = instance.get_records_for_run(run_id)
    early, log = read(instance, run_id), StepLog(instance, run_id)
    late = next(record for record in records.records if record.event_log_entry.step_key == "once_more")
    rest = records._replace(records=[record for record in records.records if record is not late])
    monkeypatch.setattr(instance, "get_records_for_run", lambda *_, **__: rest)
    log.read()
    monkeypatch.undo()
    log.read()

    assert log.ended("once_more") == early.ended("once_more")


def test_a_worker_knows_of_the_steps_before_what_their_leader_knows(instance: dg.DagsterInstance) -> None:
    run_id = fanned_out.execute_in_process(instance=instance).run_id
    log = read(instance, run_id)
    state = log.known_state(create_execution_plan(fanned_out), "gather")
    outputs = {(each.step_key, each.output_name, each.mapping_key) for each in state.ready_outputs}

    assert state.dynamic_mappings == {"spread": {"some": ["a", "b"], "none": [], "absent": None}}
    assert outputs == {
        ("spread", "some", "a"),
        ("spread", "some", "b"),
        ("double[a]", "result", None),
        ("double[b]", "result", None),
        ("gather", "result", None),
    }
    assert state.previous_retry_attempts == {"gather": 1}
