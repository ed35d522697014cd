"""Steps spread over workers by Dagster's Celery executor; this process leads the run. Needs the extra `workers`."""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import logging
import warnings
from collections.abc import Generator
from typing import Any

import dagster as dg
from celery import Celery, states
from celery.exceptions import DuplicateTaskNameWarning
from celery.result import AsyncResult
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster_celery.core_execution_loop import core_celery_execution_loop

# What the executor itself hands to its loop; the results of what it submits are known to nobody else.
from dagster_celery.executor import CeleryExecutor, _submit_task  # pyright: ignore[reportPrivateUsage]

from twitter_pipeline.broker import broker_of, celery_config, require_broker
from twitter_pipeline.orchestration.leading import LedRun
from twitter_pipeline.settings import Settings

logger = logging.getLogger(__name__)

SECONDS_FOR_AN_ANSWER = 1.0


class SpreadingExecutor(CeleryExecutor):
    """Has the steps of a run worked on by whichever workers listen at the broker."""

    def __init__(self, settings: Settings) -> None:
        broker = broker_of(settings).reveal()
        super().__init__(
            retries=RetryMode.ENABLED, broker=broker, backend=broker, config_source=celery_config(settings)
        )
        self._settings = settings
        self._submitted: list[tuple[Celery, AsyncResult]] = []

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Generator[dg.DagsterEvent]:
        """Submit steps as they become due, and return their events as they end."""
        require_broker(self._settings)
        with LedRun(plan_context.dagster_run, plan_context.instance) as run:
            for event in core_celery_execution_loop(plan_context, execution_plan, step_execution_fn=self._submit):
                if _is_interruption(event):
                    run.note_interruption()
                    self._revoke_what_nobody_took()
                run.note(event)
                yield event

    def _submit(self, app: Celery, context: PlanOrchestrationContext, *step: Any) -> AsyncResult:
        if not self._submitted and not app.control.ping(timeout=SECONDS_FOR_AN_ANSWER, limit=1):
            logger.warning("No worker answers yet; the steps wait until one is started: twitter-pipeline worker")
        with warnings.catch_warnings():
            # The executor makes its task anew for each step, and Celery keeps the first.
            warnings.simplefilter("ignore", DuplicateTaskNameWarning)
            result = _submit_task(app, context, *step)
        self._submitted.append((app, result))
        return result

    def _revoke_what_nobody_took(self) -> None:
        """End the wait for steps that lie at the broker: without a worker nobody else would."""
        for app, result in self._submitted:
            if result.state == states.PENDING:
                app.backend.mark_as_revoked(result.id, reason="the run was cancelled")


def _is_interruption(event: dg.DagsterEvent) -> bool:
    return event.is_engine_event and "steps_interrupted" in event.engine_event_data.metadata
