"""The files in sql/, the models and the words of the code: one schema."""

import re
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum

import pytest
from sqlalchemy.exc import DBAPIError

from twitter_pipeline.errors import Availability, SchemaNotCurrent
from twitter_pipeline.settings import PROJECT_DIR
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.schema import VERSION_TABLE, differences, require_current, upgrade
from twitter_pipeline.words import (
    AccountOutcome,
    AlertKind,
    CallOutcome,
    DoubtKind,
    FetchKind,
    HoleCause,
    RunStatus,
    TokenStatus,
)
from twitter_pipeline.x_api.parsing import TweetKind

ENUMS: dict[str, type[StrEnum]] = {
    "account_outcome": AccountOutcome,
    "alert_kind": AlertKind,
    "availability": Availability,
    "call_outcome": CallOutcome,
    "doubt_kind": DoubtKind,
    "fetch_kind": FetchKind,
    "hole_cause": HoleCause,
    "run_status": RunStatus,
    "token_status": TokenStatus,
    "tweet_kind": TweetKind,
}

UPGRADE = """
import sys
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.schema import require_current, upgrade

database = Database(sys.argv[1])
upgrade(database.engine)
require_current(database.engine)
"""


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    database = Database(empty_database_url)
    yield database
    database.close()


def test_the_tables_are_those_of_the_models(database: Database) -> None:
    assert differences(database.engine) is None


def test_a_difference_is_told(database: Database) -> None:
    database.execute("ALTER TABLE tweets ADD COLUMN surplus text")

    assert "surplus" in (differences(database.engine) or "")


def test_the_enums_have_the_words_of_the_code_in_their_order(database: Database) -> None:
    rows = database.execute(
        "SELECT t.typname::text, array_agg(e.enumlabel::text ORDER BY e.enumsortorder) "
        "FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid GROUP BY 1"
    )

    assert dict(rows) == {name: [word.value for word in words] for name, words in ENUMS.items()}


def test_every_sql_file_is_applied(database: Database) -> None:
    files = sorted((PROJECT_DIR / "sql").glob("*.sql"))
    created = {
        name
        for file in files
        for name in re.findall(r"^CREATE TABLE (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    found = database.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND (NOT relispartition OR relname LIKE '%%\\_other')",
        (),
    )
    tables = {name for (name,) in found}

    assert tables == created | {VERSION_TABLE}


def test_a_current_schema_passes(database: Database) -> None:
    require_current(database.engine)


def test_an_empty_database_is_told_what_to_do(empty: Database) -> None:
    with pytest.raises(SchemaNotCurrent, match=r"has no tables of this project yet.*Run: twitter-pipeline db upgrade"):
        require_current(empty.engine)


def test_an_older_schema_is_told_what_to_do_without_the_password(database: Database) -> None:
    database.execute("UPDATE twitter_pipeline_version SET version_num = '0000'")
    url = database.engine.url.set(password="hunter2")  # noqa: S106 nobody's
    engine = Database(url.render_as_string(hide_password=False)).engine

    with pytest.raises(SchemaNotCurrent, match=r"has schema version 0000, and this code needs version \d{4}") as raised:
        require_current(engine)
    engine.dispose()

    assert "hunter2" not in str(raised.value)


def test_upgrading_twice_is_upgrading_once(empty: Database) -> None:
    upgrade(empty.engine)
    empty.execute("INSERT INTO tokens (env_key) VALUES ('TWITTER_BEARER_1')")
    upgrade(empty.engine)

    require_current(empty.engine)
    assert empty.execute("SELECT count(*) FROM tokens") == [(1,)]


def test_several_processes_may_upgrade_at_once(empty: Database, empty_database_url: str) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", UPGRADE, empty_database_url], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    failures = [process.communicate()[1] for process in processes]

    assert failures == ["", ""]
    require_current(empty.engine)


def test_an_upgrade_that_fails_leaves_nothing_behind(empty: Database) -> None:
    empty.execute("CREATE TABLE fetch_runs (stands_in_the_way integer)")
    with pytest.raises(DBAPIError, match="already exists"):
        upgrade(empty.engine)

    tables = empty.execute("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
    assert tables == [("fetch_runs",)]


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("INSERT INTO tokens (env_key) VALUES ('SECRET')", "token_env_key_names_a_bearer"),
        ("INSERT INTO tokens (env_key) VALUES ('TWITTER_BEARER_1'), ('TWITTER_BEARER_1')", "token_env_key_is_unique"),
        (
            "INSERT INTO tokens (env_key, status) VALUES ('TWITTER_BEARER_1', 'invalid')",
            "token_out_of_use_has_a_reason",
        ),
        ("INSERT INTO tokens_endpoint_rl (token_id, endpoint) VALUES (9, 'x')", "token_window_belongs_to_a_token"),
        ("INSERT INTO users (id, username) VALUES (1, 'with blank')", "user_username_is_a_handle"),
        ("INSERT INTO users (id, username) VALUES (1, 'Nasa'), (2, 'nASA')", "users_username"),
        (
            "INSERT INTO fetch_runs (kind, request, status) VALUES ('history', '[]', 'done')",
            "fetch_run_is_finished_or_running",
        ),
        (
            "WITH u AS (INSERT INTO users (id) VALUES (1)) INSERT INTO user_state (user_id, covered) "
            "VALUES (1, '{[1,)}')",
            "user_state_covered_is_bounded",
        ),
    ],
)
def test_what_must_not_be_is_refused_by_the_name_of_its_rule(database: Database, statement: str, rule: str) -> None:
    with pytest.raises(Exception, match=rule):
        database.execute(statement)  # pyright: ignore[reportArgumentType]
