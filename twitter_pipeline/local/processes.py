"""Child processes that stop with us, with all of their own children."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from twitter_pipeline.errors import PipelineError
from twitter_pipeline.local import with_parent
from twitter_pipeline.local.logs import indented, tail

# SIGINT is what Ctrl-C would send: Dagster's run processes answer it by recording that they were interrupted.
STOP_SIGNALS = ((signal.SIGINT, 12.0), (signal.SIGKILL, 5.0))
POLL_SECONDS = 0.05

# A terminal that is closed, Ctrl-C, and what `kill` and process managers send.
ENDING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Service:
    """A running child process; its output goes to `log`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise PipelineError with the end of the log when the process has ended."""
        status = self.process.poll()
        if status is not None:
            raise PipelineError(
                f"{self.name} stopped by itself, with status {status}. The end of its log, {self.log}:\n"
                f"{indented(tail(self.log))}"
            )


@contextmanager
def started(name: str, words: Sequence[str], *, environment: Mapping[str, str], folder: Path) -> Generator[Service]:
    """Run a command in `folder` while the context lasts, its output in a log file there.

    It has a session of its own, so that Ctrl-C reaches only us, and we stop things in their order.
    """
    log = folder / f"{name}.log"
    command = [sys.executable, "-I", "-S", with_parent.__file__, *words]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Service(name, process, log)
    finally:
        stop_group(process)


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """Stop a process that leads a group, and everything in the group."""
    for number, patience in STOP_SIGNALS:
        _signal_group(process.pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            # Polled first: until its status is fetched, a process that has ended still counts as one.
            if process.poll() is not None and not _lives(process.pid):
                return
            time.sleep(POLL_SECONDS)


@contextmanager
def ending_signals_interrupt() -> Generator[None]:
    """Turn the first signal that asks us to end into KeyboardInterrupt, so that `finally` runs, and ignore the others.

    Python runs no clean-up at SIGTERM or SIGHUP by itself, and a second Ctrl-C would cut short that of the first.
    Only for the main thread.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def let_go_of_stdout() -> None:
    """Drop what could not be written: Python would try once more at the end, complain, and end with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # Nobody is left; macOS says so with the other error when only zombies are.
        return


def _lives(group: int) -> bool:
    """Whether a process of the group is alive; where nobody collects orphans, zombies may stay for ever."""
    if not Path("/proc/self/stat").exists():
        return _exists(group)
    return any(_group_and_state(stat) == (group, True) for stat in Path("/proc").glob("[0-9]*/stat"))


def _group_and_state(stat: Path) -> tuple[int, bool]:
    try:
        # The name before the bracket may contain anything.
        state, _parent, group, *_ = stat.read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return 0, False
    return int(group), state not in "ZX"


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
