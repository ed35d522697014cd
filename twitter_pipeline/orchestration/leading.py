"""A run whose steps other processes work on: the process that leads it opens it and closes it."""

import os
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import dagster as dg

from twitter_pipeline.orchestration.failures import cause_of
from twitter_pipeline.orchestration.materializations import report_written
from twitter_pipeline.orchestration.progress import ProgressTag
from twitter_pipeline.orchestration.requests import requests_of
from twitter_pipeline.orchestration.resources import note_cancelling, open_database
from twitter_pipeline.orchestration.tags import kind_of, tag_run
from twitter_pipeline.prices import Prices
from twitter_pipeline.runs import OpenRun
from twitter_pipeline.session import AS_ITS_ACCOUNTS, CANCELLED, ESTIMATED, Broken, how_it_broke
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import load_tokens, retest_tokens


class LedRun:
    """A run in `fetch_runs` that this process holds open, whether a step is worked on or none is. Use it as a context.

    While this process lives the run does; leaving the context closes the run, unless its last step has, as cancelled
    when it was interrupted, as failed when a step broke, else as its accounts came out.
    """

    def __init__(self, run: dg.DagsterRun, instance: dg.DagsterInstance) -> None:
        self._run = run
        self._instance = instance
        self._broken: Broken | None = None
        self._database: Database | None = None
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            opened = stack.enter_context(open_database(os.environ))
            self._database = opened.database
            kind = kind_of(self._run.tags)
            requests = requests_of(kind, self._run, self._instance, opened.database)
            if kind in ESTIMATED:
                # A user has started it, and has perhaps just fixed a token; workers may have others than this process.
                retest_tokens(opened.database, [token.env_key for token in load_tokens(opened.database)])
            stack.callback(report_written, self._instance, self._run, opened.database)
            fetch_run = stack.enter_context(
                OpenRun(opened.database, dagster_run_id=self._run.run_id, kind=kind, requests=requests, is_shared=True)
            )
            stack.callback(self._close, fetch_run, opened.settings.prices)
            stack.enter_context(
                ProgressTag(
                    self._instance, self._run.run_id, requests, settings=opened.settings, database=opened.database
                )
            )
            tag_run(self._instance, self._run, accounts=len(requests), is_made_up=opened.settings.uses_sandbox)
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            self._broken = self._broken or CANCELLED
            self._hurry()
        elif error is not None:
            self._broken = self._broken or how_it_broke(type(error).__name__, str(error))
        self._resources.close()

    def note_interruption(self) -> None:
        """Let those who work on the steps know that the run is to end."""
        self._broken = CANCELLED
        self._hurry()
        note_cancelling(self._instance, self._run.run_id)

    def note(self, event: dg.DagsterEvent) -> None:
        """Remember how a step broke; only the first counts. One that only left accounts unfinished did not break."""
        if not event.is_step_failure:
            return
        error = event.step_failure_data.error
        name, text = ("", "") if error is None else cause_of(error)
        if name != dg.Failure.__name__:
            self._broken = self._broken or how_it_broke(name, text)

    def _hurry(self) -> None:
        if self._database is not None:
            self._database.hurry()

    def _close(self, fetch_run: OpenRun, prices: Prices) -> None:
        broken = self._broken or AS_ITS_ACCOUNTS
        fetch_run.close(status=broken.status, error=broken.error, cause=broken.cause, prices=prices)
