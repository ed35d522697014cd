"""A place to work in: a database and an API, whether a person has brought them or not."""

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from twitter_pipeline.errors import PipelineError
from twitter_pipeline.local.accounts import make_private
from twitter_pipeline.local.instance import dagster_storage_url, prepare_dagster_home
from twitter_pipeline.local.logs import indented, tail
from twitter_pipeline.local.postgres import EmbeddedServer, embedded_server
from twitter_pipeline.local.processes import Service, stop_group
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.settings import SANDBOX_PREFIX, Settings, with_tokens

SANDBOX_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class WorkingPlace:
    """Where to work: two PostgreSQL URLs, which may hold a password, the API, and the tokens by the keys of `.env`.

    With `sandbox` the API is the local one, whose accounts and tweets are made up.
    """

    database_url: str
    dagster_url: str
    dagster_home: Path
    api_url: str
    bearer_tokens: Mapping[str, BearerToken]
    sandbox: Service | None
    server: EmbeddedServer | None

    def environment(self) -> dict[str, str]:
        """Return the environment for a child process that works here: ours, with the secrets of this place alone."""
        return {**with_tokens(os.environ, self.bearer_tokens), **self._addresses()}

    def check(self) -> None:
        """Bring back a killed server; raise PipelineError when the sandbox has stopped."""
        if self.server is not None:
            self.server.ensure_running()
        if self.sandbox is not None:
            self.sandbox.check()

    def _addresses(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.database_url,
            "DAGSTER_POSTGRES_URL": self.dagster_url,
            "DAGSTER_HOME": str(self.dagster_home),
            "TWITTER_API_URL": self.api_url,
        }


@contextmanager
def working_place(settings: Settings, *, local_dir: Path | None = None) -> Generator[WorkingPlace]:
    """Bring up what the settings leave to us, and take it down again: the embedded server, the sandbox API.

    On the embedded server, what the sandbox makes up has databases of its own: it never mixes with real tweets.
    `local_dir` is the folder for the server and the logs, by default that of the settings.
    """
    folder = local_dir or settings.local_dir
    prepare_dagster_home(settings.dagster_home, keep_existing=settings.dagster_home != Settings().dagster_home)
    with ExitStack() as stack:
        server = None if settings.database_url else stack.enter_context(embedded_server(folder / "postgres"))
        make_private(folder)
        made_up = None if settings.bearer_tokens else stack.enter_context(sandbox(folder / "logs"))
        database_url, dagster_url = _storage(settings.database_url, server, made_up)
        yield WorkingPlace(
            database_url=database_url,
            dagster_url=dagster_url,
            dagster_home=settings.dagster_home,
            api_url=made_up.url if made_up else settings.api_url,
            bearer_tokens=made_up.bearer_tokens if made_up else settings.bearer_tokens,
            sandbox=made_up.service if made_up else None,
            server=server,
        )


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox API and the tokens that it knows."""

    url: str
    bearer_tokens: Mapping[str, BearerToken]
    service: Service


@contextmanager
def sandbox(folder: Path) -> Generator[Sandbox]:
    """Run the sandbox API on a free port while the context lasts, its log in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "sandbox.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "twitter_pipeline.sandbox", "--port", "0", "--exit-with-parent"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    service = Service("sandbox", process, log)
    try:
        yield _read_announcement(service)
    finally:
        stop_group(process)
        if process.stdout is not None:
            process.stdout.close()


def _read_announcement(service: Service) -> Sandbox:
    """Read the one line that the sandbox prints when it is ready."""
    line = _first_line(service.process)
    try:
        said = json.loads(line)
        tokens = enumerate(said["bearer_tokens"], start=1)
        named = {f"{SANDBOX_PREFIX}{number}": BearerToken(token) for number, token in tokens}
        return Sandbox(said["url"], named, service)
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"The sandbox API did not start. The end of its log, {service.log}:\n{indented(tail(service.log))}"
        ) from error


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """Return the first line of the output; nothing when there is none in time."""
    if process.stdout is None:
        return b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(SANDBOX_START_SECONDS) else b""


def _storage(given: str | None, server: EmbeddedServer | None, made_up: Sandbox | None) -> tuple[str, str]:
    """Return the URLs of the tables and of Dagster's storage."""
    if server is not None:
        tables, dagster = ("sandbox", "dagster_sandbox") if made_up else ("twitter", "dagster")
        return server.url(tables), server.url(dagster, driver="psycopg2")
    return given or "", dagster_storage_url(given or "")
