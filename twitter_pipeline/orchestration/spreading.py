"""Steps spread over workers by Dagster's Celery executor; this process leads the run. Needs the extra `workers`."""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import logging
import os
import time
from collections.abc import Generator
from typing import Any

import dagster as dg
from celery import Celery
from celery.exceptions import TaskRevokedError
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode
from dagster._serdes import serialize_value
from dagster_celery.core_execution_loop import TICK_SECONDS, core_celery_execution_loop
from dagster_celery.executor import CeleryExecutor

from twitter_pipeline.broker import NO_RESULTS, STEP_TASK, broker_of, celery_config, require_broker
from twitter_pipeline.orchestration.leading import LedRun
from twitter_pipeline.orchestration.resources import open_database
from twitter_pipeline.orchestration.step_log import StepLog
from twitter_pipeline.runs import is_worked_on
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import find_fit_tokens

logger = logging.getLogger(__name__)


class SpreadingExecutor(CeleryExecutor):
    """Has the steps of a run worked on by whichever workers listen at the broker."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            retries=RetryMode.ENABLED,
            broker=broker_of(settings).reveal(),
            backend=NO_RESULTS,
            config_source=celery_config(settings),
        )
        self._settings = settings

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Generator[dg.DagsterEvent]:
        """Submit steps as they become due, and return their events as they end."""
        require_broker(self._settings)
        run, instance = plan_context.dagster_run, plan_context.instance
        with LedRun(run, instance) as led, open_database(os.environ) as opened:
            steps = Steps(StepLog(instance, run.run_id), run.run_id, opened.database)
            for event in core_celery_execution_loop(plan_context, execution_plan, step_execution_fn=steps.submit):
                if _is_interruption(event):
                    led.note_interruption()
                led.note(event)
                yield event


class Steps:
    """Submits the steps of a run, and looks in Dagster's log for their ends."""

    def __init__(self, log: StepLog, run_id: str, database: Database) -> None:
        self.log = log
        self._run_id = run_id
        self._database = database
        self._read_at: float | None = None
        self._revoked: set[str] = set()
        self.left: set[str] = set()

    def submit(
        self, app: Celery, _context: PlanOrchestrationContext, step: ExecutionStep, queue: str, priority: int, _: Any
    ) -> "StepEnd":
        """Submit a step; the message names it, and the worker finds the rest in Dagster's storage."""
        if self._read_at is None and not find_fit_tokens(self._database, ()).elsewhere:
            logger.warning(
                "No worker with a token that works is there yet; the steps wait until one is started: "
                "twitter-pipeline worker"
            )
        self.read()
        end = StepEnd(self, step.key)
        app.send_task(STEP_TASK, kwargs={"run_id": self._run_id, "step_key": step.key}, queue=queue, priority=priority)
        return end

    def revoke(self, step_key: str) -> None:
        """Wait no longer for a step than a worker works on it; who takes it later sees that the run is over."""
        self._revoked.add(step_key)

    def read(self) -> None:
        """Read the log, once for all the steps that are waited for, and see which of the revoked ones were left."""
        if self._read_at is None or time.monotonic() >= self._read_at + TICK_SECONDS / 2:
            # Before the log, so that what ended meanwhile is in it.
            worked_on = {key for key in self._revoked if is_worked_on(self._database, self._run_id, key)}
            self.log.read()
            self.left = self._revoked - worked_on
            self._read_at = time.monotonic()


class StepEnd:
    """The end of a step that was submitted, for the executor's loop in the place of Celery's result."""

    def __init__(self, steps: Steps, step_key: str) -> None:
        self._steps = steps
        self._step_key = step_key
        self._attempt = len(steps.log.ended(step_key))

    def ready(self) -> bool:
        """Whether the step has ended, or will not be begun any more."""
        self._steps.read()
        return self._has_ended() or self._step_key in self._steps.left

    def get(self) -> list[str]:
        """Return the events of the step, serialized."""
        if not self._has_ended():
            raise TaskRevokedError
        return [serialize_value(event) for event in self._steps.log.ended(self._step_key)[self._attempt]]

    def revoke(self) -> None:
        """End the wait for it unless a worker works on it."""
        self._steps.revoke(self._step_key)

    def _has_ended(self) -> bool:
        return len(self._steps.log.ended(self._step_key)) > self._attempt


def _is_interruption(event: dg.DagsterEvent) -> bool:
    return event.is_engine_event and "steps_interrupted" in event.engine_event_data.metadata
