"""What Dagster's event log says of a run's steps: the one source for the process that leads it, and for its workers.

Redis only carries work to the workers. Whoever writes there could claim that a step has ended or ask for one that the
run does not want, so neither is believed from there.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Final

import dagster as dg
from dagster._core.event_api import EventLogCursor
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster_celery.core_execution_loop import DELEGATE_MARKER

from twitter_pipeline.orchestration.failures import cause_of

BEGINNINGS: Final = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}
ENDINGS: Final = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SKIPPED,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
}
TYPES: Final = {*BEGINNINGS, *ENDINGS, dg.DagsterEventType.STEP_OUTPUT, dg.DagsterEventType.ENGINE_EVENT}

COMMITTED_AFTER_S: Final = 30.0
"""An event gets its number before it is committed, so one with a higher number may be seen first, but not so long."""


class StepLog:
    """The events of a run's steps, as far as they were read."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._instance = instance
        self._run_id = run_id
        self._events: defaultdict[str, dict[int, dg.DagsterEvent]] = defaultdict(dict)
        self._cursor: str | None = None
        self._reads: deque[tuple[float, int]] = deque()

    def read(self) -> None:
        """Read what is new, and once more what may have been committed since."""
        began = time.monotonic()
        while self._reads and self._reads[0][0] < began - COMMITTED_AFTER_S:
            self._cursor = EventLogCursor.from_storage_id(self._reads.popleft()[1]).to_string()
        records = self._instance.get_records_for_run(self._run_id, cursor=self._cursor, of_type=TYPES).records
        for record in records:
            event = record.event_log_entry.dagster_event
            if event is not None and event.step_key is not None:
                self._events[event.step_key][record.storage_id] = event
        if records:
            self._reads.append((began, records[-1].storage_id))

    def ended(self, step_key: str) -> list[list[dg.DagsterEvent]]:
        """Return the events of each attempt of a step that has ended.

        What broke off without an end, or because its process was interrupted, is to be done again.
        """
        attempts: list[list[dg.DagsterEvent]] = []
        events: list[dg.DagsterEvent] = []
        for event in self._of(step_key):
            if event.is_engine_event or _is_interruption(event):
                continue
            if event.event_type in BEGINNINGS:
                # A process that died in the middle may have left outputs, which the next one has left again.
                events = []
            events.append(event)
            if event.event_type in ENDINGS:
                attempts.append(events)
                events = []
        return attempts

    def is_due(self, step_key: str) -> bool:
        """Whether the run's leader has submitted a step that has not ended since."""
        submitted = sum(
            event.is_engine_event and event.engine_event_data.marker_start == DELEGATE_MARKER
            for event in self._of(step_key)
        )
        return submitted > len(self.ended(step_key))

    def known_state(self, plan: ExecutionPlan, step_key: str) -> KnownExecutionState:
        """Return what a step has to know of the others: which outputs there are, and into what steps they fan out."""
        mappings = dict(plan.known_state.dynamic_mappings)
        for step in plan.step_dict.values():
            attempts = self.ended(step.key)
            if not attempts or not attempts[-1][-1].is_step_success:
                continue
            for output in step.step_outputs:
                if output.is_dynamic:
                    keys = [
                        event.step_output_data.mapping_key
                        for event in attempts[-1]
                        if event.is_successful_output and event.step_output_data.output_name == output.name
                    ]
                    # As Dagster has it: None means that what depends on it is skipped.
                    found = [key for key in keys if key is not None]
                    mappings[step.key] = {
                        **mappings.get(step.key, {}),
                        output.name: found if found or output.is_required else None,
                    }
        outputs = {
            event.step_output_data.step_output_handle
            for key in list(self._events)
            for attempt in self.ended(key)[-1:]
            for event in attempt
            if event.is_successful_output
        }
        return plan.known_state._replace(
            previous_retry_attempts={step_key: len(self.ended(step_key))},
            dynamic_mappings=mappings,
            ready_outputs=plan.known_state.ready_outputs | outputs,
        )

    def _of(self, step_key: str) -> Iterator[dg.DagsterEvent]:
        return (event for _, event in sorted(self._events[step_key].items()))


def _is_interruption(event: dg.DagsterEvent) -> bool:
    if not event.is_step_failure or event.step_failure_data.error is None:
        return False
    return cause_of(event.step_failure_data.error)[0] == "DagsterExecutionInterruptedError"
