"""Backups: written and put back whole or not at all, and no secret on a command line."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from twitter_pipeline.cli import main
from twitter_pipeline.local.postgres import EmbeddedServer
from twitter_pipeline.local.socket_dir import SUPERUSER, WRITER
from twitter_pipeline.settings import Settings, load_settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.schema import require_current, upgrade
from twitter_pipeline_tests.conftest import SERVER_FOLDER, Databases
from twitter_pipeline_tests.integration import released

Type = Callable[..., tuple[int, str, str]]


@pytest.fixture
def type_(
    database_url: str,
    postgres: EmbeddedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Type:
    """Run a command on this test's database: its address has a password, PostgreSQL's programs are on the PATH."""
    monkeypatch.setitem(load_settings.__kwdefaults__ or {}, "env_file", tmp_path / ".env")
    monkeypatch.setenv("DATABASE_URL", database_url.replace(f"{WRITER}@", f"{WRITER}:hunter%402@"))
    monkeypatch.setenv("PATH", f"{postgres.bin_dir}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["db", *words])
        read = capfd.readouterr()
        return code, read.out, read.err

    return run


@pytest.fixture
def filled(database: Database) -> Database:
    released.fill(database, released.VERSIONS[-1])
    database.execute("CREATE SCHEMA dagster CREATE TABLE runs (id int)")
    return database


def test_a_backup_brings_back_what_was_there(filled: Database, type_: Type, tmp_path: Path) -> None:
    before = released.rows(filled)
    dumped = type_("dump", "tweets.dump")
    filled.execute("DELETE FROM tweets")
    filled.execute("CREATE TABLE made_since ()")
    refused = type_("restore", "tweets.dump")
    restored = type_("restore", "--force", "tweets.dump")

    assert (dumped[0], (tmp_path / "tweets.dump").stat().st_mode & 0o777) == (0, 0o600)
    assert refused[0] == 2
    assert "To replace them all: --force" in refused[2]
    assert restored == (0, "", "tweets.dump is restored; next: twitter-pipeline db upgrade\n")
    assert released.rows(filled) == before
    require_current(filled.engine)
    assert filled.execute("SELECT count(*) FROM dagster.runs") == [(0,)]
    assert type_("dump", "tweets.dump")[0] == 2


def test_a_backup_that_is_not_whole_leaves_everything_as_it_was(
    filled: Database, type_: Type, postgres: EmbeddedServer, tmp_path: Path
) -> None:
    assert type_("dump", "tweets.dump")[0] == 0
    backup = tmp_path / "tweets.dump"
    script = subprocess.run(
        [postgres.bin_dir / "pg_restore", "--file=-", backup], stdout=subprocess.PIPE, check=True
    ).stdout
    end = script.index(b"-- PostgreSQL database dump complete")
    others = {
        # It ends with a second list of what is in it, without which it is read all the same.
        "cut.dump": backup.read_bytes()[: backup.stat().st_size // 2],
        "cut.sql": script[: end - 100],
        "wrong.sql": script[:end] + b"SELEC 1;\n" + script[end:],
        "another": b"hello",
        "empty": b"",
    }
    before = released.rows(filled)
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)

        assert type_("restore", "--force", name)[0] in (1, 2), name
        assert released.rows(filled) == before
    assert type_("restore", "--force", "missing")[2] == "Error: missing cannot be read: No such file or directory\n"


def test_a_dump_that_fails_leaves_no_file(
    type_: Type, tmp_path: Path, databases: Databases, database: Database
) -> None:
    # What the program may not read.
    name = str(database.engine.url.database)
    superuser = Database(databases.server.url(name, user=SUPERUSER))
    superuser.execute("CREATE TABLE hidden ()")
    superuser.close()

    code, _, err = type_("dump", "tweets.dump")

    assert code == 1
    assert "tweets.dump was not written: pg_dump: error: " in err
    assert "permission denied for table hidden" in err
    assert list(tmp_path.iterdir()) == []


def test_no_secret_is_on_the_command_line_of_a_program(type_: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    shows = ("psql", "--", "-Atc", "\\! tr '\\0' ' ' < /proc/$PPID/cmdline; echo; echo $PGPASSWORD")
    written = type_(*shows)
    monkeypatch.setenv("DATABASE_URL", os.environ["DATABASE_URL"].replace(":hunter%402@", "@") + "&password=hunter%402")
    behind = type_(*shows)
    monkeypatch.setenv("DATABASE_URL", os.environ["DATABASE_URL"] + "&sslpassword=hunter3")
    refused = type_("psql")

    for code, out, _ in (written, behind):
        arguments, *environment = out.splitlines()
        assert code == 0
        assert "hunter" not in arguments
        assert "dbname=postgresql://" in arguments
        assert environment == ["hunter@2"]
    assert refused[0] == 2
    assert "sslpassword from a service file only" in refused[2]
    assert "hunter" not in refused[2]


def test_the_url_has_no_password_unless_it_is_asked_for(type_: Type, database_url: str) -> None:
    plain = database_url.replace("+psycopg", "")
    code, out, err = type_("url")
    _, full, _ = type_("url", "--show-password")
    _, as_json, _ = type_("url", "--json")

    assert (code, make_url(out.strip())) == (0, make_url(plain))
    assert "--show-password" in err
    assert full == f"{out.strip()}\n".replace(f"{WRITER}@", f"{WRITER}:hunter%402@")
    assert "hunter" not in as_json


def test_a_program_that_is_missing_is_named(type_: Type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert type_("dump", "tweets.dump") == (
        2,
        "",
        "Error: pg_dump is not on the PATH. Install PostgreSQL's client programs, of the server's version or newer.\n",
    )


def test_a_backup_of_a_version_that_worked_as_a_superuser_is_the_writers_on_the_embedded_server(
    type_: Type, databases: Databases, empty_database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = databases.server
    old = Database(empty_database_url.replace(WRITER, SUPERUSER))
    released.apply(old, released.VERSIONS[-1])
    released.fill(old, released.VERSIONS[-1])
    words = ["pg_dump", "--file=tweets.sql", server.conninfo(str(old.engine.url.database), user=SUPERUSER)]
    subprocess.run(words, check=True, cwd=tmp_path)
    old.close()
    monkeypatch.setattr(Settings, "local_dir", Path(os.environ[SERVER_FOLDER]))
    monkeypatch.delenv("DATABASE_URL")
    Settings().local_dir.chmod(0o755)

    assert f"OWNER TO {SUPERUSER}" in (tmp_path / "tweets.sql").read_text()
    assert type_("restore", "tweets.sql")[0] == 0
    assert Settings().local_dir.stat().st_mode & 0o066 == 0
    database = Database(server.url("sandbox"))
    upgrade(database.engine)
    assert database.execute("SELECT count(*) FROM tweets") == [(len(released.TWEETS),)]
    database.close()
    databases.drop(database.url)
