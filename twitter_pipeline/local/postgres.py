"""An embedded PostgreSQL: the binaries of a wheel, one server a folder, shared by every process that wants it.

Three locks carry it, because the kernel drops a lock whenever its holder ends, even by kill -9:

- `start.lock` is held while somebody starts or stops the server, so that only one does.
- `users.lock` is shared by whoever uses the server; who leaves and finds nobody else stops it.
- `server.lock` is inherited by the server and all its children. While it is held there is a server, in whatever
  state; once it is free, what a server left behind (postmaster.pid, sockets) is rubbish. A process id could not tell:
  it may be a zombie's, or another program's by now.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.errors import DuplicateDatabase, UniqueViolation
from psycopg.pq import PGconn, Ping

from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.local.accounts import Account, account_of, choose_account
from twitter_pipeline.local.binaries import OTHER_SERVER_HINT, bin_dir_for
from twitter_pipeline.local.locks import FileLock, alone
from twitter_pipeline.local.logs import indented, tail
from twitter_pipeline.local.socket_dir import PORT, SUPERUSER, WRITER, SocketDir, is_plain
from twitter_pipeline.store.partitions import when_free
from twitter_pipeline.store.schema import sql_file

# A start after a crash replays the log first: up to max_wal_size, a gigabyte.
START_SECONDS = 60.0
POLL_SECONDS = 0.01
LOG_BYTES_KEPT = 1_000_000

# Fast shutdown, immediate shutdown, kill; and the seconds that each gets.
STOP_SIGNALS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "jit": "off",
    # On a disk without moving parts a page anywhere is read as fast as the next one. By PostgreSQL's own 4 it reads ten
    # thousand profiles through to find five hundred.
    "random_page_cost": "1.1",
    # Nothing replicates from here, so the log need not carry what a replica would want.
    "wal_level": "minimal",
    "max_wal_senders": "0",
}

# For data that may be thrown away: faster, and broken after a power cut. A kill still loses nothing, which tests
# rely on; with synchronous_commit off it would lose the last commits.
UNSAFE_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


def stop_server(folder: Path) -> None:
    """Stop the server in `folder`, whoever uses it; do nothing when there is none."""
    server = EmbeddedServer(folder)
    if server.folder.exists():
        with alone(server.start_lock):
            server.stop()


@contextmanager
def embedded_server(folder: Path, *, durable: bool = True) -> Generator["EmbeddedServer"]:
    """Use the server in `folder`: start it if it does not run, share it if it does, stop it with its last user.

    `durable=False` trades safety against a power cut for speed; it has no effect on a server that runs already.
    Raises ConfigurationError when the server cannot be started.
    """
    server = EmbeddedServer(folder, durable=durable)
    with _users_lock(server.folder) as users:
        try:
            with alone(server.start_lock):
                users.share()
                server.start_if_needed()
            yield server
        finally:
            with alone(server.start_lock):
                if users.try_take():
                    server.stop()


def _users_lock(folder: Path) -> FileLock:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return FileLock(folder / "users.lock")
    except OSError as error:
        raise ConfigurationError(
            f"The embedded PostgreSQL cannot use the folder {folder}: {error.strerror}.\n"
            f"Run the command as the user who made it, or remove it (its data are lost). {OTHER_SERVER_HINT}"
        ) from error


class EmbeddedServer:
    """A handle on the server in a folder, valid while `embedded_server()` is entered."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder.resolve()
        self.start_lock = self.folder / "start.lock"
        self._data = self.folder / "data"
        self._log = self.folder / "server.log"
        self._sockets = SocketDir(self.folder)
        self._settings = SETTINGS if durable else SETTINGS | UNSAFE_SETTINGS

    @property
    def bin_dir(self) -> Path:
        """The folder with psql, pg_dump and the other programs of the server's version."""
        return bin_dir_for(self._data)

    @property
    def socket_dir(self) -> Path:
        """The folder with the server's socket, which is `host` to libpq."""
        return self._sockets.path

    def url(self, database: str, driver: str = "psycopg", *, user: str = WRITER) -> str:
        """Return the SQLAlchemy URL of a database, which is created if missing and given to its roles."""
        self._prepare(database)
        return f"postgresql+{driver}{self._address(database, user)}"

    def conninfo(self, database: str, *, user: str = WRITER) -> str:
        """Return what libpq takes to connect to a database, which need not be there, nor the server run."""
        return self._sockets.conninfo(database, user=user)

    def psql_command(self, database: str) -> str:
        """Return a shell line that opens psql on a database."""
        return f"{_shell_word(self.bin_dir / 'psql')} 'postgresql{self._address(database, WRITER)}'"

    def ensure_running(self) -> None:
        """Start the server again if it was killed; return at once if it runs."""
        with alone(self.start_lock):
            self.start_if_needed()

    def start_if_needed(self) -> None:
        """Bring the server to where it accepts connections; the caller holds `start.lock`."""
        self._sockets.drop_link_of_another()
        deadline = time.monotonic() + START_SECONDS
        while not self._accepts_connections():
            if self._started():
                self._wait_until_ready(deadline)
                return
            # A server is there and does not answer: one that starts, or the last children of a killed one.
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {START_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Stop the server if it runs, disconnecting its clients; the caller holds `start.lock`."""
        self._sockets.drop_link_of_another()
        for number, patience in STOP_SIGNALS:
            if self._is_gone():
                break
            self._signal(number)
            _wait_for(self._is_gone, seconds=patience)
        if self._is_gone():
            self._remove_leftovers()
            self._sockets.remove()

    def _started(self) -> bool:
        """Start a server that holds `server.lock` from its first moment, unless somebody holds the lock already."""
        with FileLock(self.folder / "server.lock") as server_lock:
            if not server_lock.try_take():
                return False
            self._start(server_lock)
            return True

    def _start(self, server_lock: FileLock) -> None:
        account = self._prepare_data(server_lock)
        self._remove_leftovers()
        self._sockets.prepare(account)
        _rotate(self._log)
        settings = self._settings | {"unix_socket_directories": str(self.socket_dir)}
        server = [bin_dir_for(self._data) / "postgres", "-D", self._data]
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        # The shell leaves at once, so that the server is nobody's child here and never a zombie of ours.
        in_background = ["/bin/sh", "-c", '"$@" >>"$0" 2>&1 </dev/null &', self._log]
        output, status = _run(account, [*in_background, *server, *options], self.folder, keep=server_lock)
        if status != 0:
            raise self._failure(f"could not be started: {output}")

    def _wait_until_ready(self, deadline: float) -> None:
        while not self._accepts_connections():
            if self._is_gone():
                raise self._failure("stopped while starting")
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {START_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)

    def _prepare_data(self, server_lock: FileLock) -> Account:
        """Create the data folder if there is none, and return the account that owns it.

        initdb holds `server.lock` too: if we are killed it goes on for a moment, and nobody must start beside it.
        """
        if self._data.exists():
            return account_of(self._data)
        initdb = bin_dir_for(self._data) / "initdb"
        account = choose_account(initdb, near=self.folder.parent)
        for path in (self.folder, *self.folder.glob("*.lock")):
            account.own(path)
        # Renamed when finished: what an interrupted initdb leaves is never taken for a data folder.
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        # Neither the locale provider nor the sort order depends on what the machine has installed.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        words = [initdb, "-D", unfinished, "-U", SUPERUSER, "--auth=trust", "--no-instructions", *locale]
        if self._settings.get("fsync") == "off":
            words.append("--no-sync")
        output, status = _run(account, words, self.folder, keep=server_lock)
        if status != 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise ConfigurationError(
                f"The embedded PostgreSQL could not create its data in {self.folder}:\n{indented(output)}\n"
                f"Is the disk full? {OTHER_SERVER_HINT}"
            )
        unfinished.rename(self._data)
        return account

    def _remove_leftovers(self) -> None:
        """Remove what a killed server leaves, which the next one would take for the sign of a living one."""
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._sockets.remove_sockets()

    def _accepts_connections(self) -> bool:
        return PGconn.ping(f"{self.conninfo('postgres', user=SUPERUSER)} connect_timeout=5".encode()) == Ping.OK

    def _is_gone(self) -> bool:
        with FileLock(self.folder / "server.lock") as server_lock:
            return server_lock.try_take()

    def _signal(self, number: signal.Signals) -> None:
        pid = self._postmaster()
        if pid is not None:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return

    def _postmaster(self) -> int | None:
        """Return the server's process id; None while it has not written it, or when it is not a server's any more."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        try:
            return pid if Path(f"/proc/{pid}/comm").read_text().strip() == "postgres" else None
        except FileNotFoundError:
            return None if Path("/proc/self").exists() else pid

    def hand_over(self, database: str) -> None:
        """Give a database and what the superuser has made in it to the roles of `sql/roles.sql`."""

        def give() -> None:
            with psycopg.connect(self.conninfo(database, user=SUPERUSER)) as connection:
                connection.execute(sql_file("roles.sql").encode())

        when_free("the tables", give)

    def _prepare(self, database: str) -> None:
        """Create a database if it is missing, and hand over one that a superuser owns: new, or of an older version."""
        owner = self._owner_of(database)
        if owner is None:
            self._create(database)
        if owner != WRITER:
            self.hand_over(database)

    def _owner_of(self, database: str) -> str | None:
        with psycopg.connect(self.conninfo("postgres", user=SUPERUSER)) as connection:
            statement = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s"
            row = connection.execute(statement, [database]).fetchone()
            return None if row is None else str(row[0])

    def _create(self, database: str) -> None:
        with psycopg.connect(self.conninfo("postgres", user=SUPERUSER), autocommit=True) as connection:
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(
                sql.Identifier(database)
            )
            try:
                connection.execute(statement)
            except (DuplicateDatabase, UniqueViolation):
                # Another process was faster.
                return

    def _address(self, database: str, user: str) -> str:
        return f"://{user}@/{quote(database)}?host={self.socket_dir}&port={PORT}"

    def _failure(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"The embedded PostgreSQL in {self.folder} {what}. The end of its log, {self._log}:\n"
            f"{indented(tail(self._log))}\n"
            f"If the log does not help, remove the folder {self.folder} (its data are lost). {OTHER_SERVER_HINT}"
        )


def _run(account: Account, words: list[str | Path], folder: Path, *, keep: FileLock) -> tuple[str, int]:
    """Run a command to its end as `account`, holding the lock `keep`; return its output and exit status.

    Its environment is bare: tokens and passwords in ours are none of its business, and PG* variables would change
    what the binaries do.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
    with account.start(words, folder=folder, environment=environment, keep=[keep.fileno()]) as process:
        output, _ = process.communicate()
    return output, process.returncode


def _wait_for(condition: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _rotate(log: Path) -> None:
    """Start a new log when the last one has grown large; one old log is kept."""
    if log.exists() and log.stat().st_size > LOG_BYTES_KEPT:
        log.replace(log.with_name(f"{log.name}.1"))


def _shell_word(path: Path) -> str:
    text = str(path)
    return text if is_plain(text) else "'" + text.replace("'", "'\\''") + "'"
