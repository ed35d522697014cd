"""The embedded PostgreSQL: shared, started once, stopped with its last user, back after any kill."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.local.accounts import Account, choose_account, make_private
from twitter_pipeline.local.postgres import EmbeddedServer, embedded_server, stop_server

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account to hand the server to")

# A user of the server in a process of its own: says where the database is, and stays until its input ends.
USER = """
import sys
from pathlib import Path
from twitter_pipeline.local.postgres import embedded_server

with embedded_server(Path(sys.argv[1]), durable=False) as server:
    print(server.url("shared"), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for a server that every account may reach, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        root = Path(name)
        root.chmod(0o755)
        yield root / "postgres"
        stop_server(root / "postgres")


class User:
    """Another process that uses the server."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(folder)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def url(self) -> str:
        """Wait until the process is at work, and return its database."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> int:
        """Let the process end in good order; return its exit status."""
        self.process.communicate("")
        return self.process.returncode

    def kill(self) -> None:
        """Kill the process as no handler can answer."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def user(folder: Path) -> Iterator[Callable[..., User]]:
    """Start another process that uses the server in `folder`."""
    with ExitStack() as cleanup:

        def start(**environment: str) -> User:
            started = User(folder, environment)
            cleanup.callback(started.kill)
            return started

        yield start


@contextmanager
def connected(server: EmbeddedServer, database: str = "shared") -> Generator[psycopg.Connection]:
    url = server.url(database).replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def postmaster(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def runs(pid: int) -> bool:
    """Whether a process is alive; a zombie is not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_the_server_keeps_its_data_and_leaves_no_process_between_two_uses(folder: Path) -> None:
    with embedded_server(folder, durable=False) as server, connected(server) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
        first = postmaster(folder)
    with embedded_server(folder, durable=False) as server, connected(server) as connection:
        kept = connection.execute("SELECT number FROM kept").fetchall()

    assert kept == [(1,)]
    assert not runs(first)
    assert not (folder / "run").exists()


def test_the_server_is_private_sorts_alike_everywhere_and_listens_on_no_network(folder: Path) -> None:
    with embedded_server(folder) as server, connected(server) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()
            for name in ("listen_addresses", "server_encoding", "fsync", "synchronous_commit", "full_page_writes")
        }
        locale = connection.execute(
            "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = current_database()"
        ).fetchone()
        modes = {path.stat().st_mode & 0o777 for path in (folder, folder / "data", server.socket_dir)}

    assert shown == {
        "listen_addresses": ("",),
        "server_encoding": ("UTF8",),
        "fsync": ("on",),
        "synchronous_commit": ("on",),
        "full_page_writes": ("on",),
    }
    assert locale == ("b", "C.UTF-8")
    assert modes == {0o700}


def test_six_processes_that_start_at_once_share_one_server(folder: Path, user: Callable[..., User]) -> None:
    users = [user() for _ in range(6)]

    urls = {each.url() for each in users}
    pid = postmaster(folder)
    statuses = [each.leave() for each in users]

    assert urls == {f"postgresql+psycopg://twitter_writer@/shared?host={folder}/run&port=5432"}
    assert statuses == [0] * 6
    assert not runs(pid)
    assert (folder / "server.log").read_text().count("ready to accept connections") == 1


def test_the_last_user_to_leave_stops_the_server_whoever_started_it(folder: Path, user: Callable[..., User]) -> None:
    starter = user()
    starter.url()
    with embedded_server(folder) as server:
        starter.leave()
        with connected(server) as connection:
            still_there = connection.execute("SELECT 1").fetchone()
        pid = postmaster(folder)

    assert still_there == (1,)
    assert not runs(pid)


def test_kill_9_of_the_starter_leaves_the_server_to_the_others_and_no_orphan(
    folder: Path, user: Callable[..., User]
) -> None:
    starter = user()
    starter.url()
    with embedded_server(folder) as server:
        starter.kill()
        with connected(server) as connection:
            still_there = connection.execute("SELECT 1").fetchone()
        pid = postmaster(folder)

    assert still_there == (1,)
    assert not runs(pid)


def test_kill_9_of_the_only_user_leaves_a_server_that_the_next_one_takes_over(
    folder: Path, user: Callable[..., User]
) -> None:
    killed = user()
    killed.url()
    pid = postmaster(folder)
    killed.kill()
    assert runs(pid)

    with embedded_server(folder):
        taken_over = postmaster(folder)

    assert taken_over == pid
    assert not runs(pid)


def test_kill_9_of_the_server_loses_nothing_that_was_committed(folder: Path) -> None:
    with embedded_server(folder) as server:
        with connected(server) as connection:
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 10000) AS number")
            os.kill(postmaster(folder), signal.SIGKILL)
            server.ensure_running()
        with connected(server) as connection:
            kept = connection.execute("SELECT count(*) FROM kept").fetchone()

    assert kept == (10000,)


def test_the_next_user_starts_a_server_that_was_killed_under_another(folder: Path, user: Callable[..., User]) -> None:
    other = user()
    other.url()
    killed = postmaster(folder)
    os.kill(killed, signal.SIGKILL)

    with embedded_server(folder) as server, connected(server) as connection:
        answer = connection.execute("SELECT 1").fetchone()
        restarted = postmaster(folder)

    assert answer == (1,)
    assert runs(restarted), "the other process still uses the server"
    assert other.leave() == 0
    assert not runs(restarted)


def test_a_process_id_that_is_another_programs_by_now_is_neither_trusted_nor_killed(folder: Path) -> None:
    with embedded_server(folder, durable=False):
        left_behind = (folder / "data" / "postmaster.pid").read_text()
        os.kill(postmaster(folder), signal.SIGKILL)
    with subprocess.Popen(["sleep", "60"]) as innocent:
        (folder / "data" / "postmaster.pid").write_text(
            left_behind.replace(left_behind.split()[0], str(innocent.pid), 1)
        )

        with embedded_server(folder, durable=False) as server, connected(server) as connection:
            answer = connection.execute("SELECT 1").fetchone()

        assert innocent.poll() is None
        innocent.kill()
    assert answer == (1,)


def test_an_interrupted_initdb_leaves_nothing_that_stops_the_next_start(
    folder: Path, user: Callable[..., User]
) -> None:
    first = user()
    while not (folder / "data.unfinished" / "base").exists():
        time.sleep(0.001)
    os.killpg(first.process.pid, signal.SIGKILL)
    first.kill()
    assert not (folder / "data").exists()

    with embedded_server(folder, durable=False) as server, connected(server) as connection:
        answer = connection.execute("SELECT 1").fetchone()

    assert answer == (1,)
    assert not (folder / "data.unfinished").exists()


def test_a_path_too_long_or_too_odd_for_a_socket_gets_a_short_private_folder(folder: Path) -> None:
    odd = folder.parent / ("long" * 30) / "with 'quotes', $(signs) and blanks" / "postgres"
    with embedded_server(odd, durable=False) as server, connected(server) as connection:
        answer = connection.execute("SELECT 1").fetchone()
        socket_dir = server.socket_dir
        mode = socket_dir.stat().st_mode & 0o777
        psql = subprocess.run(
            f"{server.psql_command('shared')} -Atc 'SELECT 2'", shell=True, capture_output=True, text=True, check=True
        )

    assert (answer, psql.stdout, mode) == ((1,), "2\n", 0o700)
    assert len(str(socket_dir)) < 60
    assert not socket_dir.exists()


def test_a_copy_of_a_running_checkout_leaves_the_server_of_the_original_alone(folder: Path) -> None:
    original, copy = (folder.parent / name / ("long" * 30) / "postgres" for name in ("original", "copy"))
    with embedded_server(original, durable=False) as server:
        server.url("shared")
        shutil.copytree(original, copy, symlinks=True)
        with embedded_server(copy, durable=False) as copied, connected(copied) as connection:
            assert copied.socket_dir != server.socket_dir
            connection.execute("CREATE TABLE only_in_the_copy ()")
        (copy / "run").symlink_to(server.socket_dir)
        stop_server(copy)
        with connected(server) as connection:
            found = connection.execute("SELECT to_regclass('only_in_the_copy')").fetchone()

    assert found == (None,)


def test_a_checkout_reached_by_a_link_has_the_same_server(folder: Path) -> None:
    real, link = folder.parent / ("long" * 30), folder.parent / "link"
    real.mkdir()
    link.symlink_to(real)
    with (
        embedded_server(real / "postgres", durable=False) as server,
        embedded_server(link / "postgres", durable=False) as linked,
    ):
        urls = {server.url("shared"), linked.url("shared")}

    assert len(urls) == 1


def test_postgresql_variables_of_the_environment_do_not_lead_astray(folder: Path, user: Callable[..., User]) -> None:
    misled = user(PGPORT="1", PGHOST="/nowhere", PGDATA="/nowhere", PGDATABASE="nowhere", PGUSER="nobody")

    assert misled.url().startswith("postgresql+psycopg://twitter_writer@/shared?")
    assert misled.leave() == 0


def test_the_server_does_not_inherit_the_secrets_of_whoever_starts_it(folder: Path, user: Callable[..., User]) -> None:
    starter = user(TWITTER_BEARER_1="a-secret-of-the-test")
    starter.url()

    environment = Path(f"/proc/{postmaster(folder)}/environ").read_text()

    assert "a-secret-of-the-test" not in environment
    assert "LC_ALL=C" in environment


def test_a_server_that_cannot_start_says_why_and_what_to_do(folder: Path) -> None:
    with embedded_server(folder, durable=False):
        pass
    with (folder / "data" / "postgresql.conf").open("a") as settings:
        settings.write("work_mem = 'plenty'\n")

    with pytest.raises(ConfigurationError) as refused, embedded_server(folder, durable=False):
        pass

    message = str(refused.value)
    assert 'invalid value for parameter "work_mem": "plenty"' in message
    assert "DATABASE_URL" in message


def test_data_of_another_version_are_left_alone_and_named(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "PG_VERSION").write_text("9\n")

    with pytest.raises(ConfigurationError, match="made by PostgreSQL 9"), embedded_server(folder):
        pass


@is_root
def test_root_uses_a_namespace_so_that_all_files_stay_its_own_under_a_closed_folder(folder: Path) -> None:
    closed = folder.parent / "closed"
    closed.mkdir(mode=0o700)
    with embedded_server(closed / "postgres", durable=False) as server, connected(server) as connection:
        answer = connection.execute("SELECT 1").fetchone()
        owners = {path.stat().st_uid for path in closed.rglob("*")}

    assert (answer, owners) == ((1,), {0})
    assert closed.stat().st_mode & 0o777 == 0o700


@is_root
def test_root_hands_the_server_to_a_service_account_where_namespaces_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Account, "obstacle", refuse_namespaces(Account.obstacle))
    with embedded_server(folder, durable=False) as server, connected(server) as connection:
        answer = connection.execute("SELECT 1").fetchone()
        owners = {path.stat().st_uid for path in (folder, folder / "data", server.socket_dir)}
    with embedded_server(folder, durable=False) as server, connected(server) as connection:
        again = connection.execute("SELECT 1").fetchone()

    assert (answer, again) == ((1,), (1,))
    assert 0 not in owners
    assert len(owners) == 1
    assert folder.parent.stat().st_uid == 0


@is_root
def test_root_is_told_what_to_do_where_neither_way_is_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Account, "obstacle", refuse_namespaces(Account.obstacle))
    folder.parent.chmod(0o700)

    with pytest.raises(ConfigurationError) as refused, embedded_server(folder):
        pass

    assert "as nobody in a user namespace: Operation not permitted\n" in str(refused.value)
    assert "DATABASE_URL" in str(refused.value)
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def refuse_namespaces(obstacle: Callable[..., str | None]) -> Callable[..., str | None]:
    """Answer as in a container that forbids user namespaces."""

    def answer(account: Account, binary: Path, *, near: Path) -> str | None:
        return "Operation not permitted" if account.in_namespace else obstacle(account, binary, near=near)

    return answer


def test_the_projects_folder_is_closed_to_others_but_for_a_service_account_to_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = os.geteuid() == 0
    new, older, services = (tmp_path / name for name in ("new", "older", "services"))
    for folder in (older, services):
        (folder / "postgres" / "data").mkdir(parents=True)
        folder.chmod(0o755)
    if root:
        os.chown(services / "postgres" / "data", pwd.getpwnam("nobody").pw_uid, -1)
    for folder in (new, older, services):
        make_private(folder)

    modes = [folder.stat().st_mode & 0o777 for folder in (new, older, services)]
    assert modes == ([0o711, 0o700, 0o711] if root else [0o700] * 3)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be used: Not a directory"):
        make_private(tmp_path / "file" / "folder")


def test_an_ordinary_user_needs_no_other_account(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)

    chosen = choose_account(Path("/bin/true"), near=folder)

    assert not chosen.in_namespace
    assert not chosen.switches
