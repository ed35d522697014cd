"""A worker: takes steps from the broker, works on them in child processes, and hands them over when it ends.

Needs the extra `workers`. Each step is worked on once at a time, and what was finished is not done again, however often
the broker hands it out.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import gc
import importlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import celery
import dagster as dg
from celery import bootsteps, signals
from celery.exceptions import Reject
from dagster._grpc.types import ExecuteStepArgs
from dagster._serdes import pack_value, serialize_value, unpack_value
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_task
from dagster_shared import record

from twitter_pipeline.broker import broker_of, celery_config
from twitter_pipeline.held_tokens import hold_tokens
from twitter_pipeline.orchestration.failures import cause_of
from twitter_pipeline.orchestration.joining import WORKER_ENDS, run_goes_on
from twitter_pipeline.orchestration.resources import open_database
from twitter_pipeline.runs import step_alone
from twitter_pipeline.settings import LogFormat, Settings, load_settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import find_fit_tokens
from twitter_pipeline.texts import first_line

logger = logging.getLogger(__name__)

QUEUE = "dagster"

RENEWALS = 4
"""So often is told that a step is worked on, in the time after which its worker would be taken for dead."""

OTHERS_FIRST_S = 1.0

BEGINNINGS = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}
ENDINGS = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SKIPPED,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
}


class Step(celery.Task):
    """Dagster's task that executes a step, made safe against being handed out twice."""

    def __call__(self, *, execute_step_args_packed: dict[str, Any], executable_dict: dict[str, Any]) -> list[str]:
        """Execute a step and return its events; of one that has ended already, those that it left."""
        args = unpack_value(execute_step_args_packed, as_type=ExecuteStepArgs)
        step_key = (args.step_keys_to_execute or [""])[0]
        with (
            open_database(os.environ) as opened,
            step_alone(opened.database, args.run_id, step_key),
            dg.DagsterInstance.get() as instance,
        ):
            if not run_goes_on(instance, args.run_id):
                logger.info("Step %s is of a run that is over: %s", step_key, args.run_id)
                return []
            # The log of a large run is long: it is read only for what was handed out before.
            if (self.request.delivery_info or {}).get("redelivered"):
                attempt = args.known_state.get_retry_state().get_attempt_count(step_key) if args.known_state else 0
                if ended := events_of(instance, args.run_id, step_key, attempt=attempt):
                    return ended
            fit = find_fit_tokens(opened.database, opened.settings.bearer_tokens)
            if fit.elsewhere and not fit.here:
                # It would fail here, and the next one too, while the workers that can go on have their hands full.
                process.ends.wait(OTHERS_FIRST_S)
                raise Reject("another worker has tokens", requeue=True)
            # This machine's own folders, not those of the one that handed the step out.
            own = record.copy(args, instance_ref=instance.get_ref())
            joined = WORKER_ENDS.set(process.ends)
            try:
                events: list[str] = self.run(execute_step_args_packed=pack_value(own), executable_dict=executable_dict)
            finally:
                WORKER_ENDS.reset(joined)
                # Dagster's task leaves an instance with two connections behind, which only a collection closes.
                gc.collect()
            return events


def events_of(instance: dg.DagsterInstance, run_id: str, step_key: str, *, attempt: int) -> list[str]:
    """Return the events of a step's attempt, 0 being the first, serialized; none unless it has ended.

    The log has them when its worker died before it could answer for it. What broke off without an end, or because the
    process was interrupted, is to be done again.
    """
    events: list[dg.DagsterEvent] = []
    ended = 0
    for entry in instance.all_logs(run_id, of_type=set(dg.DagsterEventType)):
        event = entry.dagster_event
        if event is None or event.step_key != step_key or _is_interruption(event):
            continue
        if ended == attempt:
            if event.event_type in BEGINNINGS:
                # A process that died in the middle may have left outputs, which the next one has left again.
                events.clear()
            events.append(event)
        ended += event.event_type in ENDINGS
    return [serialize_value(event) for event in events] if ended > attempt else []


def _is_interruption(event: dg.DagsterEvent) -> bool:
    if not event.is_step_failure or event.step_failure_data.error is None:
        return False
    return cause_of(event.step_failure_data.error)[0] == "DagsterExecutionInterruptedError"


class Renewal(bootsteps.StartStopStep):
    """Tells the broker again and again which steps are worked on, so that it hands out none of them once more.

    Kombu notes when a message was delivered, and takes that for the last sign of life.
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
        held = dict.fromkeys(channel.qos._delivered, time.time())
        if not held:
            return
        try:
            with channel.conn_or_acquire() as client:
                client.zadd(channel.unacked_index_key, held, xx=True)
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
    importlib.import_module("twitter_pipeline.definitions")
    app = app_of(settings)
    create_task(app, base=Step)
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
    """Return Celery's application with the settings of those who hand out steps."""
    broker = broker_of(settings).reveal()
    app = make_app({"broker": broker, "backend": broker})
    app.conf.update(celery_config(settings))
    return app
