"""Why a run failed, as its first error says it to a person."""

import re
from collections.abc import Iterable

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from twitter_pipeline import errors

# How Python and Dagster write an exception: its class with the module, a colon, its text.
_CLASS_AND_TEXT = re.compile(r"(?:\w+\.)*(\w+)(?:: (.*))?", re.DOTALL)


def errors_of(events: Iterable[dg.DagsterEvent]) -> list[SerializableErrorInfo]:
    """Return the errors that ended a run and its steps, in the order of the events."""
    found: list[SerializableErrorInfo] = []
    for event in events:
        if event.is_step_failure:
            error = event.step_failure_data.error
        elif event.is_failure:
            error = getattr(event.event_specific_data, "error", None)
        else:
            continue
        if error is not None:
            found.append(error)
    return found


def first_failure(events: Iterable[dg.DagsterEvent]) -> str:
    """Say why a run failed: no stack, nothing of Dagster's own."""
    events = list(events)
    for error in errors_of(events):
        return _told(error)
    return next((event.message for event in events if event.is_failure and event.message), "the run failed")


def cause_of(error: SerializableErrorInfo) -> tuple[str, str]:
    """Return the class's name and the text of the first error in a chain that is not Dagster's wrapping of another.

    The name is empty when Dagster does not tell it.
    """
    while error.cause is not None and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    match = _CLASS_AND_TEXT.fullmatch(error.message.strip())
    return ("", error.message.strip()) if match is None else (match[1], (match[2] or "").strip())


def _told(error: SerializableErrorInfo) -> str:
    name, text = cause_of(error)
    is_for_people = not name or name == "Failure" or issubclass(getattr(errors, name, object), errors.PipelineError)
    return text if text and is_for_people else f"{name}: {text}".removesuffix(": ")
