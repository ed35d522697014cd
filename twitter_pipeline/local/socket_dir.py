"""The folder of a server's socket: private, and of a path that every program can take."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twitter_pipeline.local.accounts import Account

PORT = 5432  # only a part of the socket's name: the server listens on no network

SUPERUSER = "twitter_pipeline"
"""Creates databases and roles; used for nothing else."""

# Of `sql/roles.sql`.
WRITER = "twitter_writer"
READER = "twitter_reader"

# The kernel's limit for a socket's path is 107 bytes on Linux and 103 on macOS.
LONGEST_SOCKET_PATH = 103

# Paths of other characters would have to be quoted differently for libpq, for URLs and for the server's own list.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")


class SocketDir:
    """The folder `run` of a server's folder, or a link of that name to one with a short path."""

    def __init__(self, server_folder: Path) -> None:
        self._run = server_folder / "run"
        digest = hashlib.sha256(os.fsencode(server_folder)).hexdigest()
        self._short_prefix = f"twitter-pipeline-{digest[:12]}-"

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self._run.resolve()

    def conninfo(self, database: str, *, user: str = WRITER) -> str:
        """Return what libpq takes to connect to a database, which need not be there, nor the server run."""
        # The port is named because PGPORT in a person's environment would otherwise choose another.
        return f"host={self.path} port={PORT} user={user} dbname={database}"

    def prepare(self, account: Account) -> None:
        """Make the folder of the socket: ours, or one with a short name that ours points to."""
        if self._is_usable(account):
            return
        self.remove()
        if _fits_a_socket(self._run):
            self._run.mkdir(mode=0o700)
        else:
            short = Path(tempfile.mkdtemp(prefix=self._short_prefix, dir=_short_temporary_folder()))
            self._run.symlink_to(short)
        account.own(self.path)

    def _is_usable(self, account: Account) -> bool:
        if not self._run.exists() or not _fits_a_socket(self.path):
            return False
        status = self.path.stat()
        owner = account.uid if account.switches else os.geteuid()
        return status.st_uid == owner and stat.S_IMODE(status.st_mode) == 0o700

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._run.is_symlink():
            self._run.unlink()

    def drop_link_of_another(self) -> None:
        """Remove a link to the socket of another server: that is what a copy of a whole checkout contains."""
        if self._run.is_symlink() and not self.path.name.startswith(self._short_prefix):
            self._run.unlink()

    def remove_sockets(self) -> None:
        """Remove the sockets of a server that is gone."""
        for leftover in self.path.glob(".s.PGSQL.*"):
            leftover.unlink(missing_ok=True)


def is_plain(path: str) -> bool:
    """Whether a path needs no quoting anywhere."""
    return PLAIN_PATH.fullmatch(path) is not None


def _fits_a_socket(folder: Path) -> bool:
    path = str(folder / f".s.PGSQL.{PORT}")
    return len(os.fsencode(path)) <= LONGEST_SOCKET_PATH and is_plain(path)


def _short_temporary_folder() -> str:
    """Return the system's folder for temporary files, or /tmp where that is itself too long for a socket."""
    usual = tempfile.gettempdir()
    return usual if _fits_a_socket(Path(usual) / "twitter-pipeline-0123456789ab-01234567") else "/tmp"
