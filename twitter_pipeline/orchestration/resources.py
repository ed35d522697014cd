"""Resources: the database, and the run that calls the X API, as the steps of one run share them."""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

# The base of public ConfigurableResource, for a resource that yields a plain object instead of itself.
from dagster._config.pythonic_config import ConfigurableResourceFactory

from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.orchestration.joining import WORKER_ENDS, StepWatch
from twitter_pipeline.orchestration.materializations import report_written
from twitter_pipeline.orchestration.progress import ProgressTag
from twitter_pipeline.orchestration.requests import is_confirmed, requests_of
from twitter_pipeline.orchestration.storage import hurry
from twitter_pipeline.orchestration.tags import kind_of, tag_run
from twitter_pipeline.session import FetchSession
from twitter_pipeline.settings import Settings, load_settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.schema import require_current


@dataclass(frozen=True, slots=True)
class OpenDatabase:
    """The open database and the settings that go with it."""

    database: Database
    settings: Settings


class DatabaseResource(ConfigurableResourceFactory[OpenDatabase]):
    """The database with the tables, as the environment names it; nothing of it is in the run's config."""

    def create_resource(self, context: dg.InitResourceContext) -> OpenDatabase:
        """Open the database that the environment names."""
        return _database_of(load_settings(os.environ))

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[OpenDatabase]:
        """Hold the database open while a run or a tick needs it; refuse one whose schema is missing or old."""
        with open_database(os.environ) as opened:
            yield opened


@contextmanager
def open_database(environ: Mapping[str, str]) -> Generator[OpenDatabase]:
    """Hold the database open that the environment names; refuse one whose schema is missing or old."""
    opened = _database_of(load_settings(environ))
    try:
        require_current(opened.database.engine)
        yield opened
    finally:
        opened.database.close()


def _database_of(settings: Settings) -> OpenDatabase:
    if settings.database_url is None:
        raise ConfigurationError(
            "DATABASE_URL is not set. Start Dagster with `make up`, which sets it, or set it in .env"
        )
    return OpenDatabase(Database(settings.database_url), settings)


class XApiResource(ConfigurableResourceFactory[FetchSession]):
    """The X API behind the token pool, and the run that calls it: opened with the run, closed with it."""

    database: dg.ResourceDependency[OpenDatabase]

    def create_resource(self, context: dg.InitResourceContext) -> FetchSession:
        """Make the session of the run that the context belongs to."""
        run, instance = _run_of(context)
        kind, opened = kind_of(run.tags), self.database
        return FetchSession(
            opened.settings,
            opened.database,
            dagster_run_id=run.run_id,
            requests=requests_of(kind, run, instance, opened.database),
            kind=kind,
            confirmed=is_confirmed(kind, run),
            leads=WORKER_ENDS.get() is None,
            on_interruption=lambda: hurry(instance),
        )

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[FetchSession]:
        """Hold the session open during the run; leaving it ends all calls and closes the run in `fetch_runs`.

        Steps that failed come here too, so this is where every run reports what it has written. Where a worker works on
        a step, the process that leads the run does all that concerns the run (LedRun).
        """
        run, instance = _run_of(context)
        if (worker_ends := WORKER_ENDS.get()) is not None:
            with self.create_resource(context) as session, StepWatch(session, instance, run.run_id, worker_ends):
                yield session
            return
        opened = self.database
        with (
            self.create_resource(context) as session,
            ProgressTag(instance, run.run_id, session.requests, settings=opened.settings, database=opened.database),
        ):
            tag_run(instance, run, accounts=len(session.requests), is_made_up=opened.settings.uses_sandbox)
            yield session
        if session.was_interrupted:
            note_cancelling(instance, run.run_id)
        report_written(instance, run, opened.database)


def _run_of(context: dg.InitResourceContext) -> tuple[dg.DagsterRun, dg.DagsterInstance]:
    if context.run is None or context.instance is None:
        raise ConfigurationError("the X API resource works inside a run only")
    return context.run, context.instance


def note_cancelling(instance: dg.DagsterInstance, run_id: str) -> None:
    """Tell Dagster that a run ends because it was asked to.

    It takes a signal for a failure unless the run is known to be cancelling, as it is when the UI sent the signal.
    """
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status is dg.DagsterRunStatus.STARTED:
        instance.report_run_canceling(run, message="A signal asked the run to stop.")
