"""File locks that the kernel drops when their holder ends, however it ends."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self


class FileLock:
    """A `flock` on a file of its own, created when missing; two of them exclude each other even within one process.

    The lock belongs to the open file: a child that inherits the descriptor shares it, and it is free once
    every process that shares it has closed the file or died.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def fileno(self) -> int:
        """Return the descriptor, for a child that shall hold the lock as well."""
        return self._descriptor

    def share(self) -> None:
        """Take the lock together with others who share it; wait while somebody has it alone."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def take(self) -> None:
        """Take the lock alone; wait until everybody else has let go."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def try_take(self) -> bool:
        """Take the lock alone if nobody else holds it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go, unless a child still holds the lock through the same open file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@contextmanager
def alone(path: Path) -> Generator[None]:
    """Hold the lock on `path` exclusively, waiting for it."""
    with FileLock(path) as lock:
        lock.take()
        yield
