"""What steps leave for each other lies in Dagster's event log, where any machine finds it."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from twitter_pipeline.orchestration.outputs import RECORDS_A_READ, EventLogOutputs, EventLogOutputsResource

COUNT = RECORDS_A_READ + 20


@dg.op(out=dg.DynamicOut(dict[str, Any]))
def deal() -> Iterator[dg.DynamicOutput[dict[str, Any]]]:
    for number in range(COUNT):
        yield dg.DynamicOutput({"number": number, "text": "é\u2028"}, mapping_key=f"number_{number}")


@dg.op
def take(given: dict[str, Any]) -> int:
    return int(given["number"])


@dg.op
def add(numbers: list[int]) -> int:
    return sum(numbers)


@dg.job(resource_defs={"io_manager": EventLogOutputsResource()}, executor_def=dg.in_process_executor)
def adding() -> None:
    add(deal().map(take).collect())


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="module")
def result(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return adding.execute_in_process(instance=instance)


def of_step(run_id: str, step_key: str, mapping_key: str | None = None) -> dg.InputContext:
    output = dg.build_output_context(run_id=run_id, step_key=step_key, name="result", mapping_key=mapping_key)
    return dg.build_input_context(upstream_output=output)


def test_steps_get_what_others_have_left(result: dg.ExecuteInProcessResult) -> None:
    assert result.output_for_node("add") == sum(range(COUNT))


def test_another_process_finds_every_output(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> None:
    elsewhere = EventLogOutputs(instance)

    # The first and the last, of which one lies beyond the first read.
    for number in (0, COUNT - 1):
        given = elsewhere.load_input(of_step(result.run_id, "deal", f"number_{number}"))
        assert given == {"number": number, "text": "é\u2028"}
    assert elsewhere.load_input(of_step(result.run_id, "take[number_7]")) == 7


def test_an_output_that_is_not_there_is_an_error_that_names_it(
    instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult
) -> None:
    with pytest.raises(dg.DagsterInvariantViolationError, match="no output result of its step take"):
        EventLogOutputs(instance).load_input(of_step(result.run_id, "take[number_none]"))
