"""`make up`: a working place with Dagster's web server and daemon, until Ctrl-C."""

import http.client
import os
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from twitter_pipeline.errors import ConfigurationError, PipelineError
from twitter_pipeline.local.accounts import make_private
from twitter_pipeline.local.locks import FileLock
from twitter_pipeline.local.logs import indented, tail
from twitter_pipeline.local.places import WorkingPlace, working_place
from twitter_pipeline.local.processes import Service, ending_signals_interrupt, let_go_of_stdout, started
from twitter_pipeline.settings import PROJECT_DIR, LogFormat, Settings, load_log_format
from twitter_pipeline.store.urls import read_url, shown

HOST = "127.0.0.1"
UI_START_SECONDS = 120.0
SUPERVISION_SECONDS = 1.0

# Dagster looks at five finished runs a tick for its run status sensors, and falls behind when more end.
DAGSTER_DEFAULTS = {"DAGSTER_RUN_STATUS_SENSOR_PROCESS_LIMIT": "50"}


def say_at_once(line: str) -> None:
    """Print a line, and not only when more has come together: somebody waits for it."""
    print(line, flush=True)


def up(
    settings: Settings,
    *,
    prepare: Callable[[WorkingPlace], None],
    say: Callable[[str], None] = say_at_once,
    announce: Callable[[WorkingPlace], None] | None = None,
    local_dir: Path | None = None,
    listen: bool = False,
) -> None:
    """Run Dagster's UI and daemon over a working place until a signal asks to end; leave no process behind.

    `prepare` is called when the database is there and before Dagster starts, for the schema. With `listen` a listener
    to X's filtered stream runs beside them. `announce` is called once all is up; by default it is said where to look.
    What is said to somebody who does not read any more is dropped: the work goes on.
    Raises ConfigurationError when the port is taken or another `up` runs, PipelineError when a process fails.
    """
    folder = local_dir or settings.local_dir
    port = settings.dagster_port

    def describe_place(place: WorkingPlace) -> None:
        say(describe(place, port=port, logs=folder / "logs"))

    with ending_signals_interrupt(), only_one(folder):
        require_free_port(port)
        try:
            with working_place(settings, local_dir=folder) as place:
                prepare(place)
                with dagster(place, port=port, folder=folder / "logs") as services:
                    wait_for_ui(port, services)
                    with listener(place, folder=folder / "logs") if listen else nullcontext() as hearing:
                        with unless_nobody_reads():
                            (announce or describe_place)(place)
                        supervise(place, services, listener=hearing, say=say)
        except KeyboardInterrupt:
            with unless_nobody_reads():
                say("Stopped.")


@contextmanager
def unless_nobody_reads() -> Generator[None]:
    """Go on when whoever read our output has gone, as `head` has after a line and `tee` at Ctrl-C."""
    try:
        yield
    except BrokenPipeError:
        let_go_of_stdout()


@contextmanager
def only_one(folder: Path) -> Generator[None]:
    """Refuse to run twice in one checkout; the lock file holds the process id for `stop`."""
    make_private(folder)
    path = folder / "up.lock"
    with FileLock(path) as lock:
        if not lock.try_take():
            raise ConfigurationError(f"`make up` runs already in {folder.parent}, as process {path.read_text()}.")
        path.write_text(str(os.getpid()))
        yield


def require_free_port(port: int) -> None:
    """Raise ConfigurationError when another program listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} cannot be used for the Dagster UI: {error.strerror}.\n"
                f"Stop what listens there, or choose another port: DAGSTER_PORT={port + 1} make up"
            ) from error


@contextmanager
def dagster(place: WorkingPlace, *, port: int, folder: Path) -> Generator[Sequence[Service]]:
    """Run Dagster's web server and daemon while the context lasts, their logs in `folder`."""
    environment = {**DAGSTER_DEFAULTS, **place.environment()}
    options = ["-w", str(PROJECT_DIR / "workspace.yaml")]
    if load_log_format(environment) is LogFormat.JSON:
        options += ["--log-format", "json"]
    webserver = [sys.executable, "-m", "twitter_pipeline.ui", "-h", HOST, "-p", str(port), *options]
    daemon = [sys.executable, "-m", "dagster._daemon", "run", *options]
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # They run in the folder of the logs because Dagster would let a .env in its folder win over the environment.
        yield [
            stack.enter_context(started(name, words, environment=environment, folder=folder))
            for name, words in (("dagster-webserver", webserver), ("dagster-daemon", daemon))
        ]


@contextmanager
def listener(place: WorkingPlace, *, folder: Path) -> Generator[Service]:
    """Run `twitter-pipeline listen` while the context lasts, its log in `folder`."""
    words = [sys.executable, "-m", "twitter_pipeline.cli", "listen"]
    with started("listen", words, environment=place.environment(), folder=folder) as service:
        yield service


def wait_for_ui(port: int, services: Sequence[Service]) -> None:
    """Wait until the UI answers; raise PipelineError when a service stops before, or it takes too long."""
    deadline = time.monotonic() + UI_START_SECONDS
    while not _answers(port):
        for service in services:
            service.check()
        if time.monotonic() > deadline:
            webserver = services[0]
            raise PipelineError(
                f"The Dagster UI did not answer within {UI_START_SECONDS:.0f} s. The end of its log, {webserver.log}:\n"
                f"{indented(tail(webserver.log))}"
            )
        time.sleep(0.1)


def supervise(
    place: WorkingPlace, services: Sequence[Service], *, listener: Service | None, say: Callable[[str], None]
) -> None:
    """Watch until interrupted; raise PipelineError when something stops that cannot be brought back.

    Without the listener the polls still find everything, so its end is told, and the rest goes on.
    """
    while True:
        place.check()
        for service in services:
            service.check()
        try:
            if listener is not None:
                listener.check()
        except PipelineError as error:
            with unless_nobody_reads():
                say(f"{error}\nPolling goes on without it.")
            listener = None
        time.sleep(SUPERVISION_SECONDS)


def describe(place: WorkingPlace, *, port: int, logs: Path) -> str:
    """Say where to look; tokens by the names of their variables only, the database's password hidden."""
    url = read_url(place.database_url)
    if place.server is not None and url.database is not None:
        database = place.server.psql_command(url.database)
    else:
        database = shown(place.database_url)
    tokens = ", ".join(place.bearer_tokens)
    api = f"{place.api_url}, the sandbox: all accounts and tweets are made up" if place.sandbox else place.api_url
    return "\n".join(
        [
            f"Dagster UI  {ui_url(port)}",
            f"Database    {database}",
            f"X API       {api}",
            f"Tokens      {tokens}",
            f"Logs        {logs}",
            "Ctrl-C stops everything.",
        ]
    )


def ui_url(port: int) -> str:
    """Return the address of the UI."""
    return f"http://{HOST}:{port}"


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/server_info")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
