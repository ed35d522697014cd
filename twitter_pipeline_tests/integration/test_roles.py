"""Roles: neither the program nor a query reaches the server's machine, and a reader can change nothing."""

import os
import re
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from twitter_pipeline.cli import db as cli_db
from twitter_pipeline.cli import main
from twitter_pipeline.cli.completing import stored_names
from twitter_pipeline.local.postgres import EmbeddedServer
from twitter_pipeline.local.socket_dir import READER, SUPERUSER, WRITER
from twitter_pipeline.settings import load_settings
from twitter_pipeline.store import partitions
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.partitions import TableInUse
from twitter_pipeline.store.schema import differences, require_current, upgrade
from twitter_pipeline_tests.conftest import Databases
from twitter_pipeline_tests.integration import released

# Where the server's machine begins.
OUTSIDE = (
    "COPY (SELECT 1) TO PROGRAM 'touch {mark}'",
    "COPY (SELECT 1) TO '{mark}'",
    "COPY refused_names FROM '/etc/passwd'",
    "COPY refused_names FROM PROGRAM 'id'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_stat_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '{mark}')",
    "SELECT rolpassword FROM pg_authid",
    "ALTER SYSTEM SET archive_command = 'touch {mark}'",
    "SET session_preload_libraries = 'x'",
    "LOAD 'nothing'",
    "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'nothing'",
    "CREATE EXTENSION dblink",
    "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p",
    "CREATE ROLE another SUPERUSER",
    f"ALTER ROLE {WRITER} SUPERUSER",
    f"SET ROLE {SUPERUSER}",
    f"SET SESSION AUTHORIZATION {SUPERUSER}",
    f"RESET ROLE; RESET SESSION AUTHORIZATION; SET ROLE {SUPERUSER}",
    f"SELECT set_config('role', '{SUPERUSER}', false)",
    "SELECT pg_reload_conf()",
)

# What changes something, or keeps others from it.
CHANGES = (
    "INSERT INTO tokens (env_key) VALUES ('x')",
    "COMMIT; DROP TABLE tweets",
    "COMMIT; SET default_transaction_read_only = off; DELETE FROM tokens",
    "DO $$ BEGIN PERFORM set_config('transaction_read_only', 'off', false); DELETE FROM tokens; END $$",
    "TRUNCATE tokens",
    "SELECT * FROM tokens FOR UPDATE",
    "LOCK TABLE tokens IN ROW SHARE MODE",
    "SELECT nextval('fetch_runs_id_seq')",
    "SELECT setval('fetch_runs_id_seq', 9)",
    "CREATE TABLE mine ()",
    "CREATE SCHEMA mine",
    "CREATE VIEW mine AS SELECT 1",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION vector",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_xact_lock_shared(1, 1)",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'twitter_writer'",
    f"ALTER DATABASE postgres OWNER TO {READER}",
    f"SET ROLE {WRITER}",
    f"SET SESSION AUTHORIZATION {WRITER}",
)

OWNERS = """
SELECT pg_get_userbyid(owner)::text
FROM (
    SELECT relowner, relnamespace FROM pg_class
    UNION ALL SELECT typowner, typnamespace FROM pg_type
    UNION ALL SELECT proowner, pronamespace FROM pg_proc
    UNION ALL SELECT nspowner, oid FROM pg_namespace WHERE nspname <> 'public'
) AS made (owner, namespace)
JOIN pg_namespace n ON n.oid = namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
GROUP BY 1
"""


def plain(url: str) -> str:
    return url.replace("+psycopg", "")


def as_user(url: str, user: str) -> str:
    return re.sub(r"//\w+@", f"//{user}@", url)


@pytest.fixture
def reader(database_url: str) -> Iterator[psycopg.Connection]:
    with logged_in(database_url, READER) as connection:
        yield connection


@contextmanager
def logged_in(url: str, user: str) -> Generator[psycopg.Connection]:
    """Log in, and turn off what can be turned off."""
    with psycopg.connect(plain(as_user(url, user)), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        yield connection


def is_refused(url: str, user: str, statement: str) -> bool:
    with logged_in(url, user) as connection:
        try:
            connection.execute(statement.encode())
        except psycopg.Error:
            return True
        return False


@pytest.mark.parametrize("user", [WRITER, READER])
def test_neither_the_program_nor_a_reader_leaves_the_database(user: str, database_url: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    tmp_path.chmod(0o777)

    assert [each for each in OUTSIDE if not is_refused(database_url, user, each.format(mark=mark))] == []
    assert not mark.exists()


def test_a_reader_changes_nothing_and_blocks_no_one(database: Database, database_url: str) -> None:
    # A login of the program stays, which a reader might end.
    database.execute("INSERT INTO tokens (env_key) VALUES ('TWITTER_BEARER_1')")

    assert [each for each in CHANGES if not is_refused(database_url, READER, each)] == []
    assert database.execute("SELECT env_key FROM tokens") == [("TWITTER_BEARER_1",)]


def test_a_reader_reads_everything_also_what_is_made_later(reader: psycopg.Connection, database: Database) -> None:
    database.execute("DROP SCHEMA public CASCADE")
    database.execute("CREATE SCHEMA public")
    upgrade(database.engine)
    tables = [table for (table,) in database.execute("SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p')")]

    unreadable = reader.execute(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        " AND NOT has_table_privilege(oid, 'SELECT')"
    )
    assert "tweets" in tables
    assert unreadable.fetchall() == []
    assert reader.execute("SELECT id_at(now()) > 0, (SELECT count(*) FROM tweets)").fetchone() == (True, 0)


def test_a_reader_does_not_see_what_others_ask(reader: psycopg.Connection, database: Database) -> None:
    database.execute("SELECT 'private'")
    seen = reader.execute("SELECT DISTINCT query FROM pg_stat_activity WHERE usename <> current_user").fetchall()

    assert seen == [("<insufficient privilege>",)]


@pytest.fixture
def superusers_url(databases: Databases, empty_database_url: str) -> str:
    """A database as versions left it that did everything as the superuser."""
    name = psycopg.conninfo.conninfo_to_dict(plain(empty_database_url))["dbname"]
    databases.connection.execute(f'ALTER DATABASE "{name}" OWNER TO {SUPERUSER}'.encode())
    return as_user(empty_database_url, SUPERUSER)


@pytest.mark.parametrize("version", ["0001", released.VERSIONS[-1], "0012"])
def test_what_a_superuser_has_made_is_handed_over_with_all_that_is_in_it(
    version: str, superusers_url: str, postgres: EmbeddedServer
) -> None:
    old = Database(superusers_url)
    released.apply(old, version)
    released.fill(old, version)
    for statement in (
        "CREATE SCHEMA dagster",
        "CREATE TABLE dagster.runs (id serial PRIMARY KEY, body text)",
        "INSERT INTO dagster.runs (body) VALUES ('kept')",
        'CREATE VIEW "Mine" AS SELECT id, author_id FROM tweets',
        "CREATE MATERIALIZED VIEW dagster.counted AS SELECT count(*) FROM dagster.runs",
        "CREATE SEQUENCE alone",
        "CREATE TYPE pair AS (a int, b text)",
        "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
        "CREATE TYPE span AS RANGE (subtype = int)",
        "CREATE FUNCTION one(int, text DEFAULT 'x') RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE PROCEDURE nothing() LANGUAGE sql AS ''",
        "CREATE EXTENSION vector",
    ):
        old.execute(statement)  # pyright: ignore[reportArgumentType]
    before = released.rows(old)
    name = str(old.engine.url.database)
    url = postgres.url(name)
    new = Database(url)

    # A version that is running goes on.
    old.execute("INSERT INTO dagster.runs (body) VALUES ('kept too')")
    assert {owner for (owner,) in new.execute(OWNERS)} <= {WRITER, SUPERUSER}
    mine = new.execute(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE relowner <> %s::regrole AND relnamespace IN"
        " ('public'::regnamespace, 'dagster'::regnamespace)",
        (WRITER,),
    )
    assert mine == []
    assert released.rows(new) == before
    upgrade(new.engine)
    require_current(new.engine)
    new.execute("ALTER TABLE dagster.runs ADD COLUMN more int")
    new.execute("DROP ROUTINE one")
    new.execute("DROP TYPE pair, span")
    assert new.execute("SELECT nextval('alone'), (SELECT count(*) FROM dagster.runs)") == [(1, 2)]
    with psycopg.connect(plain(as_user(url, READER))) as reader:
        assert reader.execute('SELECT count(*) FROM "Mine"').fetchone() == (len(released.TWEETS),)
        assert reader.execute("SELECT * FROM dagster.counted").fetchone() == (1,)
    assert differences(new.engine) is None or version != "0012"
    old.close()
    new.close()


def test_a_superusers_tables_that_are_read_for_long_are_handed_over_later_and_whole(
    superusers_url: str, postgres: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "TRIED_FOR_S", 0.0)
    old = Database(superusers_url)
    upgrade(old.engine)
    name = str(old.engine.url.database)
    with psycopg.connect(plain(superusers_url)) as busy:
        busy.execute("SELECT count(*) FROM tweets")
        with pytest.raises(TableInUse, match="let that end and run again"):
            postgres.url(name)
        assert old.execute(OWNERS) == [(SUPERUSER,)]
    postgres.url(name)

    assert old.execute(OWNERS) == [(WRITER,)]
    old.close()


def test_processes_that_open_databases_of_an_older_version_at_once_all_get_them(
    superusers_url: str, postgres: EmbeddedServer
) -> None:
    old = Database(superusers_url)
    upgrade(old.engine)
    name = str(old.engine.url.database)
    urls: list[str] = []
    threads = [threading.Thread(target=lambda: urls.append(postgres.url(name))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert urls == [as_user(superusers_url, WRITER)] * 6
    assert old.execute(OWNERS) == [(WRITER,)]
    old.close()


@pytest.fixture
def _typed(monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path) -> None:
    monkeypatch.setitem(load_settings.__kwdefaults__ or {}, "env_file", tmp_path / ".env")
    monkeypatch.setenv("DATABASE_URL", database_url)


def query(statement: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["db", "query", "--csv", statement])
    return code, capsys.readouterr().err


@pytest.mark.usefixtures("_typed")
def test_a_query_runs_as_the_reader(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_READER_URL", as_user(database_url, READER))

    assert main(["db", "query", "--csv", "SELECT session_user, count(*) FROM tweets"]) == 0
    assert capsys.readouterr().out == f"session_user,count\n{READER},0\n"


@pytest.mark.usefixtures("_typed")
@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT; DROP TABLE tweets",
        "SET TRANSACTION READ WRITE",
        "DO $$ BEGIN PERFORM set_config('transaction_read_only', 'off', false); DELETE FROM tokens; END $$",
        "DO $$ BEGIN COMMIT; DELETE FROM tokens; END $$",
        "DO $$ BEGIN SET default_transaction_read_only = off; DELETE FROM tokens; END $$",
        "SELECT lo_create(0)",
    ],
)
def test_a_query_changes_nothing_where_there_is_no_reader(
    statement: str, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.execute("INSERT INTO tokens (env_key) VALUES ('TWITTER_BEARER_1')")

    code, err = query(statement, capsys)

    assert code == 2
    assert err.startswith("Error: The query was refused: ")
    assert database.execute("SELECT count(*) FROM tokens") == [(1,)]


@pytest.mark.usefixtures("_typed")
@pytest.mark.parametrize("role", [SUPERUSER, "programs", "disguised"])
def test_a_query_is_refused_to_a_role_that_could_leave_the_database(
    role: str,
    database_url: str,
    databases: Databases,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = as_user(database_url, SUPERUSER if role == "disguised" else role)
    if role == "programs":
        databases.connection.execute("DROP ROLE IF EXISTS programs")
        databases.connection.execute("CREATE ROLE programs LOGIN IN ROLE pg_execute_server_program, twitter_writer")
    if role == "disguised":
        url += f"&options=-crole%3D{WRITER}"
    monkeypatch.setenv("DATABASE_URL", url)

    code, err = query("SELECT 1", capsys)
    if role == "programs":
        databases.connection.execute("DROP ROLE programs")

    assert code == 2
    assert "DATABASE_READER_URL" in err
    assert "CREATE ROLE twitter_reader LOGIN PASSWORD" in err


def test_the_reader_that_is_advised_reads_also_what_a_restored_backup_has_made(
    database: Database, database_url: str, databases: Databases
) -> None:
    role = f"advised_{os.getpid()}"
    _, create, *grants, _ = cli_db.NEEDS_A_READER.replace("twitter_reader", role).splitlines()
    databases.connection.execute(create.encode())
    for grant in grants:
        database.execute(grant)  # pyright: ignore[reportArgumentType]
    reads = "SELECT count(*) FROM tweets"
    with psycopg.connect(plain(as_user(database_url, role)), autocommit=True) as reader:
        assert reader.execute(reads).fetchone() == (0,)
        database.execute("DROP SCHEMA public CASCADE")
        database.execute("CREATE SCHEMA public")
        upgrade(database.engine)
        assert reader.execute(reads).fetchone() == (0,)
    with psycopg.connect(plain(as_user(database_url, SUPERUSER)), autocommit=True) as superuser:
        superuser.execute(f"DROP OWNED BY {role}".encode())
        superuser.execute(f"DROP ROLE {role}".encode())


@pytest.mark.usefixtures("_typed")
def test_a_query_that_takes_too_long_is_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_db, "LONGEST_QUERY", "50ms")

    assert query("SELECT pg_sleep(30)", capsys) == (
        2,
        "Error: The query was ended, as it took longer than 50ms: limit it, or ask with db psql\n",
    )


@pytest.mark.usefixtures("_typed")
def test_names_are_completed_by_the_reader(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("INSERT INTO users (id, username) VALUES (1, 'nasa')")
    monkeypatch.setenv("DATABASE_URL", as_user(database_url, "nobody_at_all"))
    monkeypatch.setenv("DATABASE_READER_URL", as_user(database_url, READER))
    deadline = time.monotonic() + 20
    while not (names := stored_names("na", tracked=None, patience_s=5)) and time.monotonic() < deadline:
        pass

    assert names == ["nasa"]
