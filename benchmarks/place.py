"""Where the benchmarks run: a server, a sandbox and commands, all in a temporary folder and gone at the end."""

import json
import os
import resource
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
from dotenv import dotenv_values

from twitter_pipeline.local.logs import tail
from twitter_pipeline.local.postgres import EmbeddedServer, embedded_server
from twitter_pipeline.local.processes import ending_signals_interrupt, stop_group
from twitter_pipeline.local.socket_dir import SUPERUSER
from twitter_pipeline.settings import PROJECT_DIR
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.schema import upgrade

COMMAND = Path(sys.executable).parent / "twitter-pipeline"
OURS = ("TWITTER_", "DATABASE_URL", "DAGSTER_")
START_SECONDS = 30.0
UP_S = 60.0
WATCH_EVERY_S = 0.2

# Pages whose tweets are older than two days never change in the sandbox, so it keeps them. It also leaves nothing
# within the settling time, which would rightly be read again.
DAYS_SILENT = 3


class Unusable(Exception):
    """The benchmark could not be run; the text says why."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox API."""

    url: str
    bearer_tokens: Sequence[str]

    def environment(self) -> dict[str, str]:
        """Return the variables with which a command uses it."""
        tokens = {f"TWITTER_BEARER_{number}": token for number, token in enumerate(self.bearer_tokens, start=1)}
        # Its windows are shorter than X's too.
        return {"TWITTER_API_URL": self.url, "TWITTER_CONFIRM_AFTER_SECONDS": "1", **tokens}


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended: what it printed, when it was started, the peak memory of each of its processes.

    `cpu_s` is what its processes have computed, which others on the machine disturb less than its `seconds`.
    """

    output: str
    started_at: datetime
    seconds: float
    peaks_mb: Sequence[float]
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """A temporary folder with an embedded server whose settings are the ordinary, durable ones."""

    folder: Path
    server: EmbeddedServer

    @contextmanager
    def database(self, name: str) -> Generator[str]:
        """Make a fresh database with all tables and give its URL; it is dropped at the end.

        What earlier ones have left to write is written before.
        """
        url = self.server.url(name)
        database = Database(url, pool_size=1)
        upgrade(database.engine)
        database.close()
        self.admin("CHECKPOINT")
        try:
            yield url
        finally:
            self.admin(f'DROP DATABASE "{name}" WITH (FORCE)')

    def admin(self, statement: str) -> None:
        """Run a statement on the server."""
        with psycopg.connect(self.server.conninfo("postgres", user=SUPERUSER), autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def sandbox(
        self,
        accounts: Sequence[Mapping[str, Any]] = (),
        *,
        tokens: int = 4,
        page_cache_mb: int = 96,
        latency_ms: int = 0,
        window_seconds: float = 900.0,
        limits: Mapping[str, int] | None = None,
    ) -> Generator[Sandbox]:
        """Serve the sandbox from a process of its own, but for `limits` without any that would be met."""
        started_at = datetime.now(UTC) - timedelta(days=DAYS_SILENT)
        wanted = self.folder / "accounts.json"
        wanted.write_text(json.dumps(list(accounts)))
        options = {
            "--accounts": wanted,
            "--tokens": tokens,
            "--started-at": started_at.isoformat(),
            "--limit": "/2/users/:id/tweets=1000000",
            "--page-cache-mb": page_cache_mb,
            "--latency-ms": latency_ms,
            "--window-seconds": window_seconds,
        }
        words = [str(word) for option in options.items() for word in option]
        for endpoint, calls in (limits or {}).items():
            words += ["--limit", f"{endpoint}={calls}"]
        log = self.folder / "sandbox.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "twitter_pipeline.sandbox", "--exit-with-parent", *words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        try:
            said = json.loads(_first_line(process) or "null")
            if said is None:
                raise Unusable(f"the sandbox did not start: {tail(log, lines=30)}")
            yield Sandbox(said["url"], said["bearer_tokens"])
        finally:
            stop_group(process)
            if process.stdout is not None:
                process.stdout.close()

    def environment(self, **values: str) -> dict[str, str]:
        """Return our environment with nothing of a person's tokens and settings in it, and `values` above it.

        What their .env sets is blanked, not left out: a blank wins over the file.
        """
        theirs = {name: "" for name in dotenv_values(PROJECT_DIR / ".env") if name.startswith(OURS)}
        ours = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        # Nobody is asked whether a benchmark may cost so much.
        own = {"DAGSTER_HOME": str(self.folder / "dagster"), "TWITTER_CONFIRM_USD": "1000000"}
        return {**ours, **theirs, **own, **values}

    def fetch(
        self,
        database_url: str,
        sandbox: Sandbox,
        request: Sequence[Mapping[str, Any]],
        *,
        limit_s: float,
        command: Sequence[str | Path] = (COMMAND,),
    ) -> Ended:
        """Run the main job on a request by the command line, in a process of its own."""
        path = self.folder / "request.json"
        path.write_text(json.dumps(list(request)))
        environment = self.environment(DATABASE_URL=database_url, PYTHONPATH=str(PROJECT_DIR), **sandbox.environment())
        return self.run([*command, "fetch", path, "--json"], environment, limit_s=limit_s)

    def run(self, words: Sequence[str | Path], environment: Mapping[str, str], *, limit_s: float) -> Ended:
        """Run a command to its end, watching the memory of its processes; raise Unusable when it fails or hangs."""
        log = self.folder / "command.log"
        output = self.folder / "command.out"
        computed = _computed_s()
        with log.open("wb") as errors, output.open("wb") as out:
            started_at, began = datetime.now(UTC), time.monotonic()
            process = subprocess.Popen(
                words,
                env=dict(environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                start_new_session=True,
            )
        peaks: dict[int, float] = {}
        try:
            while process.poll() is None:
                note_peaks(process.pid, peaks)
                if time.monotonic() - began > limit_s:
                    raise Unusable(f"{' '.join(map(str, words))} took more than {limit_s:.0f} s: {tail(log, lines=30)}")
                _wait(process, WATCH_EVERY_S)
            seconds = time.monotonic() - began
        finally:
            stop_group(process)
        if process.returncode != 0:
            raise Unusable(f"{' '.join(map(str, words))} ended with {process.returncode}: {tail(log, lines=30)}")
        cpu_s = _computed_s() - computed
        return Ended(output.read_text(), started_at, seconds, sorted(peaks.values(), reverse=True), cpu_s)

    @contextmanager
    def up(self, environment: Mapping[str, str], *words: str) -> Generator[str]:
        """Run `up` with these words, from when it is ready, and give the address of the UI."""
        port = _free_port()
        log = self.folder / "up.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [COMMAND, "up", *words],
                env={**environment, "DAGSTER_PORT": str(port)},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + UP_S
            while b"Ctrl-C stops everything" not in log.read_bytes():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Unusable(f"`up` did not come up: {tail(log)}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            # One signal, and then patience: it has processes of its own to stop.
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(40)
            stop_group(process)

    def checkout(self) -> Path:
        """Copy the program into the folder, so that a command without DATABASE_URL works there and nowhere else."""
        copy = self.folder / "checkout"
        if not copy.exists():
            ignore = shutil.ignore_patterns("__pycache__")
            for name in ("twitter_pipeline", "sql"):
                shutil.copytree(PROJECT_DIR / name, copy / name, ignore=ignore)
            for name in ("dagster.yaml", "workspace.yaml"):
                shutil.copy(PROJECT_DIR / name, copy / name)
        return copy


@contextmanager
def benchmark_place() -> Generator[Place]:
    """Make the folder and start the server; remove both at the end, whatever ends us."""
    with (
        ending_signals_interrupt(),
        tempfile.TemporaryDirectory(prefix="twitter-pipeline-bench-") as folder,
        embedded_server(Path(folder) / "postgres") as server,
    ):
        yield Place(Path(folder), server)


@contextmanager
def connected(url: str) -> Generator[psycopg.Connection]:
    """Connect to a database by its SQLAlchemy URL; each statement is a transaction of its own."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def note_peaks(pid: int, peaks: dict[int, float]) -> None:
    """Note the peak memory so far, in MB, of a process and all that it has started."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        peak = _peak_mb(process)
        peaks[process.pid] = max(peak, peaks.get(process.pid, 0.0))


def _peak_mb(process: psutil.Process) -> float:
    """Return the high-water mark that the kernel keeps; where it keeps none, what is used now."""
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return 0.0
    except OSError:
        pass
    try:
        return process.memory_info().rss / 1024**2
    except psutil.Error:
        return 0.0


def _computed_s() -> float:
    """Return the CPU seconds of all processes that we, or those that we started, have started and seen end."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    if process.stdout is None:
        return b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(START_SECONDS) else b""
