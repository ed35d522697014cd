"""Where steps leave what the next ones need: in Dagster's event log, which all machines share."""

from collections.abc import Iterator
from typing import Any, Final

import dagster as dg

# What the public type of such an event holds.
from dagster._core.events import HandledOutputData

OUTPUT: Final = "output"
VALUE: Final = "value"
MAPPING_KEY: Final = "mapping_key"

RECORDS_A_READ = 100

Key = tuple[str, str, str, str | None]


class EventLogOutputs(dg.IOManager):
    """Keeps outputs as metadata of the events that tell of them: they are small, and deleted with their run.

    Files, Dagster's usual way, would have to lie on a disk that all machines share. Only what JSON holds can be kept.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._known: dict[Key, Any] = {}

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Keep an output."""
        kept = {VALUE: obj, MAPPING_KEY: context.mapping_key}
        context.add_output_metadata({OUTPUT: dg.MetadataValue.json(kept)})
        self._known[_key_of(context)] = obj

    def load_input(self, context: dg.InputContext) -> Any:
        """Return what the step before has left, here or in the run that is executed again."""
        if context.upstream_output is None:
            raise dg.DagsterInvariantViolationError("an input comes from an output of the run")
        key = _key_of(context.upstream_output)
        if key not in self._known:
            self._read(key)
        return self._known[key]

    def _read(self, wanted: Key) -> None:
        """Read outputs, the latest first, until the wanted one: a step that was taken up again has left two."""
        for key, value in self._outputs_of(wanted[0]):
            self._known.setdefault(key, value)
            if key == wanted:
                return
        raise dg.DagsterInvariantViolationError(
            f"the run {wanted[0]} has no output {wanted[2]} of its step {wanted[1]}"
        )

    def _outputs_of(self, run_id: str) -> Iterator[tuple[Key, Any]]:
        cursor, has_more = None, True
        while has_more:
            read = self._instance.get_records_for_run(
                run_id,
                cursor=cursor,
                of_type=dg.DagsterEventType.HANDLED_OUTPUT,
                limit=RECORDS_A_READ,
                ascending=False,
            )
            cursor, has_more = read.cursor, read.has_more
            for record in read.records:
                event = record.event_log_entry.dagster_event
                data = None if event is None else event.event_specific_data
                if event is None or event.step_key is None or not isinstance(data, HandledOutputData):
                    continue
                kept = data.metadata.get(OUTPUT)
                if isinstance(kept, dg.JsonMetadataValue) and isinstance(kept.data, dict):
                    yield (run_id, event.step_key, data.output_name, kept.data[MAPPING_KEY]), kept.data[VALUE]


class EventLogOutputsResource(dg.ConfigurableIOManagerFactory[EventLogOutputs]):
    """The outputs of steps, in the instance that runs them."""

    def create_io_manager(self, context: dg.InitResourceContext) -> EventLogOutputs:
        """Return the outputs of a run's instance."""
        if context.instance is None:
            raise dg.DagsterInvariantViolationError("outputs are kept in an instance")
        return EventLogOutputs(context.instance)


def _key_of(context: dg.OutputContext) -> Key:
    return context.run_id, context.step_key, context.name, context.mapping_key
