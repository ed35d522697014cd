"""`python -m twitter_pipeline_tests.e2e.child [REQUEST]`: run the job where it can be killed.

The working place is the environment's. Exit codes are those of the command line. Without a request it serves orders.
"""

import argparse
import functools
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from twitter_pipeline import accounts, history, runs, session, tokens
from twitter_pipeline.local.places import WorkingPlace
from twitter_pipeline.local.processes import ending_signals_interrupt
from twitter_pipeline.orchestration import launch
from twitter_pipeline.orchestration.launch import run_fetch_job
from twitter_pipeline.orchestration.outputs import EventLogOutputs
from twitter_pipeline.request import parse_request
from twitter_pipeline.runs import OpenRun
from twitter_pipeline.settings import load_settings
from twitter_pipeline.store.timelines import TimelineStore
from twitter_pipeline.tokens import TokenPool
from twitter_pipeline.workers import fetcher
from twitter_pipeline.x_api.client import XApiClient


@dataclass(frozen=True, slots=True)
class Boundary:
    """The instant before or after a function of the product, by the name under which it is called."""

    owner: Any
    name: str
    after: bool = False


# In the order in which a run comes to them.
BOUNDARIES = {
    "before-the-run-starts": Boundary(launch, "execute_run"),
    "after-the-run-is-opened": Boundary(OpenRun, "__enter__", after=True),
    "before-a-look-up": Boundary(XApiClient, "fetch_users_by_usernames"),
    "after-a-look-up": Boundary(XApiClient, "fetch_users_by_usernames", after=True),
    "after-the-users-are-stored": Boundary(accounts, "save_users", after=True),
    "between-ops": Boundary(EventLogOutputs, "load_input"),
    "after-an-account-begins": Boundary(history, "begin_account", after=True),
    "after-a-lease": Boundary(tokens, "lease_call", after=True),
    "while-waiting-for-a-reset": Boundary(TokenPool, "_announce", after=True),
    "before-a-call": Boundary(XApiClient, "fetch_user_tweets"),
    "after-an-answer": Boundary(XApiClient, "fetch_user_tweets", after=True),
    "after-the-call-log": Boundary(tokens, "settle_call", after=True),
    "before-a-page": Boundary(TimelineStore, "save_page"),
    "after-a-page": Boundary(TimelineStore, "save_page", after=True),
    "before-an-account-ends": Boundary(history, "end_account"),
    "after-an-account-ends": Boundary(history, "end_account", after=True),
    "before-the-run-is-closed": Boundary(session.FetchSession, "_close_run"),
    "after-the-run-is-closed": Boundary(runs, "close_run", after=True),
}


def die_at_passing(boundary: Boundary, number: int) -> None:
    """Be killed at the passing `number` of a boundary, 1 being the first, in whatever thread."""
    passings, passed = count(1), getattr(boundary.owner, boundary.name)

    def note_passing() -> None:
        if next(passings) >= number:
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(passed)
    def pass_or_die(*given: Any, **named: Any) -> Any:
        if not boundary.after:
            note_passing()
        result = passed(*given, **named)
        if boundary.after:
            note_passing()
        return result

    setattr(boundary.owner, boundary.name, pass_or_die)


def serve() -> None:
    """Run one job after another, each in a fork of this process, as the lines of the input say.

    What a run imports costs more than what it does here, and is paid for once. The answers are exit statuses.
    """
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            os._exit(run_ordered(order["request"], order["die_at"], order["environment"]))
        if order["kill_after_s"] is not None:
            time.sleep(order["kill_after_s"])
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run_ordered(request: str, die_at: str | None, environment: Mapping[str, str]) -> int:
    """Run the job where an order says; the output is for the answers."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ.clear()
    os.environ.update(environment)
    if die_at is not None:
        name, _, number = die_at.rpartition(":")
        die_at_passing(BOUNDARIES[name], int(number))
    return run_request(request)


def run_request(request: str) -> int:
    """Run the job on a request; return the exit code."""
    settings = load_settings(os.environ)
    place = WorkingPlace(
        database_url=settings.database_url or "",
        dagster_url=os.environ["DAGSTER_POSTGRES_URL"],
        dagster_home=settings.dagster_home,
        api_url=settings.api_url,
        bearer_tokens=settings.bearer_tokens,
        sandbox=None,
        server=None,
    )
    try:
        with ending_signals_interrupt():
            result = run_fetch_job(parse_request(request), place)
    except KeyboardInterrupt:
        return 130
    print(result.error or "done")
    return 1 if result.error else 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("request", nargs="?")
    parser.add_argument("--workers", type=int, metavar="N")
    parser.add_argument("--debug", action="store_true")
    options = parser.parse_args()
    if options.debug:
        logging.basicConfig(level=logging.DEBUG)
    if options.workers is not None:
        fetcher.PAGES_WORTH_WORKERS, fetcher.usable_cores = 1, lambda: options.workers
    if options.request is None:
        serve()
        return 0
    return run_request(options.request)


if __name__ == "__main__":
    sys.exit(main())
