"""A worker: takes steps from the broker, works on them in child processes, and hands them over when it ends.

Needs the extra `workers`. Each step is worked on once at a time, and what was finished is not done again, however often
the broker hands it out. Of a message only the names of a run and of a step are used: see `execute_step`.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import importlib
import logging
import os
import re
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import Any

import celery
import dagster as dg
from celery import bootsteps, signals
from celery.exceptions import Reject
from celery.worker.state import reserved_requests
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.events import EngineEventData

# The plan as the run's leader has made it; public `create_execution_plan` makes another.
from dagster._core.execution.api import (
    _get_execution_plan_from_run,  # pyright: ignore[reportPrivateUsage]
    create_execution_plan,
    execute_plan_iterator,
)
from dagster._core.execution.plan.handle import StepHandle
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.execution.retries import RetryMode
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster_celery.core_execution_loop import DELEGATE_MARKER
from dagster_celery.make_app import make_app

from twitter_pipeline.broker import NO_RESULTS, STEP_TASK, broker_of, celery_config
from twitter_pipeline.held_tokens import hold_tokens
from twitter_pipeline.orchestration.joining import WORKER_ENDS
from twitter_pipeline.orchestration.resources import open_database
from twitter_pipeline.orchestration.step_log import StepLog
from twitter_pipeline.runs import step_alone
from twitter_pipeline.settings import LogFormat, Settings, load_settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import find_fit_tokens
from twitter_pipeline.texts import first_line

logger = logging.getLogger(__name__)

QUEUE = "dagster"
DEFINITIONS = "twitter_pipeline.definitions"

RENEWALS = 4
"""So often is told that a step is worked on, in the time after which its worker would be taken for dead."""

OTHERS_FIRST_S = 1.0

RUN_ID = re.compile(r"[0-9a-f-]{36}")
STEP_KEY = re.compile(r"[A-Za-z0-9_.\[\]]+")


def execute_step(*, run_id: str, step_key: str) -> None:
    """Execute a step that the leader of its run has submitted; ignore a message about any other.

    The message is believed in nothing else: what the step is and does comes from Dagster's storage and our definitions.
    """
    if not (RUN_ID.fullmatch(run_id) and STEP_KEY.fullmatch(step_key)):
        raise ValueError("the message names no step")
    try:
        with (
            open_database(os.environ) as opened,
            step_alone(opened.database, run_id, step_key),
            dg.DagsterInstance.get() as instance,
        ):
            run, log = instance.get_run_by_id(run_id), StepLog(instance, run_id)
            log.read()
            if run is None or run.status is not dg.DagsterRunStatus.STARTED or not log.is_due(step_key):
                logger.info("The run %s does not wait for the step %s.", run_id, step_key)
                return
            fit = find_fit_tokens(opened.database, opened.settings.bearer_tokens)
            if fit.elsewhere and not fit.here:
                # It would fail here, and the next one too, while the workers that can go on have their hands full.
                raise Unfit
            try:
                _execute(instance, run, step_key, log)
            except Exception:  # noqa: BLE001 the run waits for an end, whatever it is
                _report_failure(instance, run, step_key)
    except Exception as error:
        # Nothing is known of the step, so it is not lost: this process or another tries again.
        if not isinstance(error, Unfit):
            logger.warning("The step %s of the run %s is not begun: %s", step_key, run_id, first_line(error))
        process.ends.wait(OTHERS_FIRST_S)
        raise Reject(requeue=True) from error


class Unfit(Exception):
    """Another worker has a token that works, and this one has none."""


def _execute(instance: dg.DagsterInstance, run: dg.DagsterRun, step_key: str, log: StepLog) -> None:
    """Execute a step of a job of our own definitions; its events go into Dagster's log."""
    job = (
        ReconstructableRepository.for_module(DEFINITIONS, "defs")
        .get_reconstructable_job(run.job_name)
        .get_subset(
            op_selection=run.resolved_op_selection,
            asset_selection=run.asset_selection,
            asset_check_selection=run.asset_check_selection,
        )
    )
    known_state = log.known_state(_get_execution_plan_from_run(job, run, instance), step_key)
    plan = create_execution_plan(
        job, run.run_config, step_keys_to_execute=[step_key], known_state=known_state, tags=run.tags
    )
    instance.report_engine_event(
        f"A worker executes the step {step_key}.",
        run,
        EngineEventData({"host": socket.gethostname(), "pid": os.getpid()}, marker_end=DELEGATE_MARKER),
        step_key=step_key,
    )
    joined = WORKER_ENDS.set(process.ends)
    try:
        deque(execute_plan_iterator(plan, job, run, instance, RetryMode.DEFERRED, run.run_config), maxlen=0)
    finally:
        WORKER_ENDS.reset(joined)


def _report_failure(instance: dg.DagsterInstance, run: dg.DagsterRun, step_key: str) -> None:
    """Write the end of a step that could not be executed, as Dagster does for what goes wrong within one."""
    error = serializable_error_info_from_exc_info(sys.exc_info())
    failure = dg.DagsterEvent(
        dg.DagsterEventType.STEP_FAILURE.value,
        job_name=run.job_name,
        step_handle=StepHandle.parse_from_key(step_key),  # pyright: ignore[reportArgumentType] no step of many is due
        event_specific_data=StepFailureData(error, user_failure_data=None),
        message=f"The step {step_key} could not be executed.",
    )
    instance.report_dagster_event(failure, run.run_id, logging.ERROR)


class Renewal(bootsteps.StartStopStep):
    """Tells the broker again and again which steps are worked on, so that it hands out none of them once more.

    Kombu notes when a message was delivered, and takes that for the last sign of life. One whose step has ended while
    the broker was away it would hold for ever, and the worker would ask for no other.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Begin with a consumer's connection."""
        lost_after_s = parent.app.conf.broker_transport_options["visibility_timeout"]
        self._timer = parent.timer.call_repeatedly(lost_after_s / RENEWALS, self._renew, (parent,))

    def stop(self, parent: Any) -> None:
        """End with the connection."""
        self._timer.cancel()

    def _renew(self, consumer: Any) -> None:
        channel = consumer.task_consumer.channel
        held = channel.qos._delivered.keys() - channel.qos._dirty
        if not held:
            return
        at_work = {request.message.delivery_tag for request in reserved_requests}
        try:
            for unanswered in held - at_work:
                # Whoever takes it sees that the step has ended, or works on it.
                channel.basic_reject(unanswered, requeue=True)
            with channel.conn_or_acquire() as client:
                client.zadd(channel.unacked_index_key, dict.fromkeys(held & at_work, time.time()), xx=True)
        except channel.connection_errors as error:
            logger.debug("The broker could not be told what is worked on: %s", first_line(error))


class Process:
    """What a worker's child process knows of the worker.

    All share a pipe of which only the worker holds the end for writing: it is closed when the worker is to end, and by
    the system when the worker is killed.
    """

    def __init__(self) -> None:
        self.ends = threading.Event()
        self._reading, self._writing = os.pipe()

    def begin(self, **_: object) -> None:
        """Listen, in a child."""
        # Ctrl-C in a terminal would reach the child too, and break the step off.
        os.setpgid(0, 0)
        os.close(self._writing)
        for target in (self._listen, self._hold_tokens):
            threading.Thread(target=target, daemon=True).start()

    def tell(self, **_: object) -> None:
        """Tell all children, in the worker, that it is to end; once."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1

    def _listen(self) -> None:
        os.read(self._reading, 1)
        self.ends.set()

    def _hold_tokens(self) -> None:
        settings = load_settings(os.environ)
        if settings.database_url is not None:
            with closing(Database(settings.database_url, pool_size=1)) as database:
                hold_tokens(database, settings.bearer_tokens, until=self.ends)


process = Process()


def work(settings: Settings, *, concurrency: int, ready: Callable[[], None]) -> int:
    """Take steps until a signal asks to end; return the exit code.

    SIGTERM and Ctrl-C let what is under way be stored, and hand the steps over; a second Ctrl-C breaks off. `ready` is
    called when the broker is connected.
    """
    # Once, before the children are made.
    importlib.import_module(DEFINITIONS)
    app = app_of(settings)
    app.steps["consumer"].add(Renewal)  # pyright: ignore[reportOptionalSubscript] until it is made

    def tell_ready(**_: object) -> None:
        ready()

    signals.worker_ready.connect(tell_ready)
    signals.worker_process_init.connect(process.begin)
    signals.worker_shutting_down.connect(process.tell)
    if settings.log_format is LogFormat.JSON:
        # Where somebody sets up logs Celery leaves them alone; what nobody handles is written as the settings say.
        signals.setup_logging.connect(leave_logs_alone)
    worker = app.Worker(
        hostname=f"worker-{os.getpid()}@{socket.gethostname()}",
        concurrency=concurrency,
        pool="prefork",
        queues=[QUEUE],
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def leave_logs_alone(**_: object) -> None:
    """Be somebody who sets up logs."""


def app_of(settings: Settings) -> celery.Celery:
    """Return Celery's application, whose only task executes a step."""
    app = make_app({"broker": broker_of(settings).reveal(), "backend": NO_RESULTS})
    app.conf.update(celery_config(settings))
    app.finalize()
    # Celery's own tasks, which any message could start.
    app.tasks.clear()
    app.task(execute_step, name=STEP_TASK)
    return app
