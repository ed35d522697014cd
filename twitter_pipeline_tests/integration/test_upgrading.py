"""Databases of every released version come to the present one with all that is in them, whatever interrupts it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from twitter_pipeline.budgets import Budgets, Limit
from twitter_pipeline.coverage import BEYOND_ALL_IDS, Coverage, IdRange, id_at
from twitter_pipeline.planning import PageVerdict
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.store import partitions
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.partitions import TWEETS, TableInUse, count_ahead
from twitter_pipeline.store.runs import begin_account
from twitter_pipeline.store.schema import differences, require_current, sql_file, upgrade
from twitter_pipeline.store.spending import count_spending
from twitter_pipeline.store.timelines import PageToSave, TimelineStore
from twitter_pipeline.store.windows import lease_call
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.parsing import read_tweets_page
from twitter_pipeline_tests.conftest import Databases
from twitter_pipeline_tests.integration import released

LATEST = released.VERSIONS[-1]
YEAR = datetime.now(UTC).year

UPGRADE = """
import sys
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.schema import upgrade

upgrade(Database(sys.argv[1]).engine)
"""

# Everything but how the rows are parted.
SCHEMA = """
SELECT 'column', c.relname::text, a.attname::text, format_type(atttypid, atttypmod),
       attnotnull::text || attidentity::text,
       pg_get_expr(d.adbin, d.adrelid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT relispartition
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid), convalidated::text, NULL
FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = conrelid)
UNION ALL
SELECT 'index', i.indrelid::regclass::text, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid),
       i.indisvalid::text, NULL
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition
UNION ALL
SELECT 'trigger', tgrelid::regclass::text, tgname::text, pg_get_triggerdef(oid), tgenabled::text, NULL
FROM pg_trigger WHERE NOT tgisinternal AND tgparentid = 0
UNION ALL
SELECT 'function', proname::text, NULL, pg_get_functiondef(oid), NULL, NULL
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'sequence', relname::text, NULL, NULL, NULL, NULL
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S'
ORDER BY 1, 2, 3, 4
"""


@pytest.fixture
def older(empty_database_url: str) -> Iterator[Callable[[str], Database]]:
    """Make this test's database one of a released version, with rows in it."""
    database = Database(empty_database_url)

    def make(version: str = LATEST) -> Database:
        released.apply(database, version)
        released.fill(database, version)
        return database

    yield make
    database.close()


def keeps(before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether every row is still there with every value that it had; later versions have added columns and tables."""
    return all(
        len(rows) == len(after[table])
        and all(
            any(row.items() <= other.items() for other in map(_hashable, after[table])) for row in map(_hashable, rows)
        )
        for table, rows in before.items()
    )


def _hashable(row: dict[str, Any]) -> dict[str, str]:
    return {name: repr(value) for name, value in row.items()}


def partition_of(database: Database, table: str, key: str) -> list[tuple[Any, str]]:
    return database.execute(f"SELECT {key}, tableoid::regclass::text FROM {table} ORDER BY 1")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("version", released.VERSIONS)
def test_a_database_of_every_released_version_comes_up_with_all_its_rows(
    version: str, older: Callable[[str], Database], database: Database
) -> None:
    old = older(version)
    before = released.rows(old)
    upgrade(old.engine)

    require_current(old.engine)
    assert differences(old.engine) is None
    assert keeps(before, released.rows(old))
    assert old.execute(SCHEMA) == database.execute(SCHEMA)
    assert {name for _, name in partition_of(old, "tweets", "id")} == {"tweets_first"}
    assert {name for _, name in partition_of(old, "api_calls", "id")} == {"api_calls_first"}


def test_no_row_is_copied(older: Callable[[], Database]) -> None:
    database = older()
    files = "SELECT pg_relation_filenode(%s), pg_relation_filenode(%s), pg_relation_filenode(%s)"
    before = database.execute(files, ("tweets", "tweets_pkey", "tweets_author_created_at"))
    upgrade(database.engine)

    after = database.execute(files, ("tweets_first", "tweets_first_pkey", "tweets_first_author_created_at"))
    assert after == before


def test_what_comes_after_the_first_partition_lies_in_its_own(older: Callable[[], Database]) -> None:
    database = older()
    upgrade(database.engine)
    (end,) = database.execute("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'tweets_first'")[0]
    year = int(database.execute("SELECT min(relname) FROM pg_class WHERE relname ~ '^tweets_[0-9]{4}$'")[0][0][-4:])
    for tweet_id in (id_at(datetime(year, 1, 1, tzinfo=UTC)) - 1, id_at(datetime(year, 1, 1, tzinfo=UTC))):
        database.execute(
            "INSERT INTO tweets (id, author_id, created_at, kind, text, raw) VALUES (%s, 1, now(), 'reply', '', '{}')",
            (tweet_id,),
        )
    call = database.execute("INSERT INTO api_calls (endpoint, token_id) VALUES ('x', 1) RETURNING id")

    assert year in (YEAR + 1, YEAR + 2)
    assert str(id_at(datetime(year, 1, 1, tzinfo=UTC))) in end
    assert [name for _, name in partition_of(database, "tweets", "id")][-2:] == ["tweets_first", f"tweets_{year}"]
    assert call == [(len(released.CALLS) + 1,)]
    assert count_ahead(database)["tweets"] >= TWEETS.ahead


def test_an_id_of_the_far_future_puts_off_the_end_of_the_first_partition(older: Callable[[], Database]) -> None:
    database = older()
    database.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, raw) VALUES (%s, 1, now(), 'reply', '', '{}')",
        (id_at(datetime(2060, 5, 1, tzinfo=UTC)),),
    )
    upgrade(database.engine)

    assert {name for _, name in partition_of(database, "tweets", "id")} == {"tweets_first"}
    (end,) = database.execute("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'tweets_first'")[0]
    assert str(id_at(datetime(2061, 1, 1, tzinfo=UTC))) in end


def test_calls_are_counted_once_as_before(older: Callable[[], Database]) -> None:
    database = older()
    database.execute(
        "INSERT INTO api_calls (called_at, endpoint, token_id) VALUES (now() - interval '1 hour', 'never settled', 1)"
    )
    upgrade(database.engine)
    day = datetime.now(UTC).date()
    database.execute("INSERT INTO spending (day) VALUES (%s)", (day,))
    database.execute("INSERT INTO api_calls (endpoint, token_id, reserved_posts, reserved_users) VALUES ('x', 1, 5, 0)")
    database.execute("UPDATE api_calls SET outcome = 'ok', billed_posts = 3, billed_users = 0 WHERE endpoint = 'x'")

    assert database.execute("SELECT posts, reserved_posts FROM spending WHERE day = %s", (day,)) == [(3, 0)]
    count_spending(database, Budgets(day=Limit(posts=1)))
    assert database.execute("SELECT outcome::text FROM api_calls WHERE endpoint = 'never settled'") == [("lost",)]
    assert database.execute("SELECT sum(posts), sum(reserved_posts) FROM spending WHERE day >= %s", (day,)) == [(53, 0)]


class Died(Exception):
    """The process is gone."""


def test_an_upgrade_that_dies_at_any_statement_goes_on_when_it_is_begun_again(
    older: Callable[[], Database], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = older()
    before = released.rows(old)
    execute, left = psycopg.Cursor.execute, [0]

    def die_after_a_while(self: psycopg.Cursor[Any], *args: Any, **options: Any) -> psycopg.Cursor[Any]:
        if left[0] == 0:
            # What a killed process leaves behind: a connection that is gone.
            self.connection.close()
            raise Died
        left[0] -= 1
        return execute(self, *args, **options)

    deaths, versions = 0, set[str]()
    for statements in range(1000):
        engine = Database(old.url, pool_size=1).engine
        left[0] = statements
        with monkeypatch.context() as patch:
            patch.setattr(psycopg.Cursor, "execute", die_after_a_while)
            try:
                upgrade(engine)
            except (Died, DBAPIError, psycopg.Error):
                deaths += 1
            else:
                break
        engine.dispose()
        versions.add(released.version_of(old))
        assert keeps(before, released.rows(old))

    engine.dispose()
    assert deaths > 20
    assert versions == {LATEST, released.version_of(database)}
    assert old.execute(SCHEMA) == database.execute(SCHEMA)
    assert keeps(before, released.rows(old))


def test_an_index_that_was_half_made_when_the_process_was_killed_is_made_again(
    older: Callable[[], Database], database: Database
) -> None:
    old = older()
    plain = old.url.replace("+psycopg", "")
    with psycopg.connect(plain) as reader:
        # The last step of making an index waits for everybody who began to read before.
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM tokens")
        process = subprocess.Popen([sys.executable, "-c", UPGRADE, old.url])
        waiting = "SELECT pid FROM pg_stat_progress_create_index WHERE phase = 'waiting for old snapshots'"
        deadline = time.monotonic() + 30
        while not (found := old.execute(waiting)) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        old.execute("SELECT pg_terminate_backend(%s, 5000)", found[0])
    half_made = old.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'api_calls_first_pkey'::regclass")
    version = released.version_of(old)
    upgrade(old.engine)

    assert (half_made, version) == ([(False,)], LATEST)
    assert old.execute(SCHEMA) == database.execute(SCHEMA)


def test_several_processes_may_upgrade_a_full_database_at_once(older: Callable[[], Database]) -> None:
    old = older()
    before = released.rows(old)
    processes = [
        subprocess.Popen([sys.executable, "-c", UPGRADE, old.url], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    failures = [process.communicate()[1] for process in processes]

    assert failures == [""] * 3
    require_current(old.engine)
    assert keeps(before, released.rows(old))


class Writer(threading.Thread):
    """Saves pages and leases calls until it is told to stop, as a run does."""

    def __init__(self, url: str, username: str, user_id: int) -> None:
        super().__init__()
        self.database = Database(url, pool_size=1)
        self.database.execute("INSERT INTO users (id, username) VALUES (%s, %s)", (user_id, username))
        self.database.execute("INSERT INTO user_state (user_id) VALUES (%s)", (user_id,))
        begin_account(self.database, 1, FetchRequest(username), user_id=user_id)
        self.store = TimelineStore(self.database, user_id=user_id, fetch_run_id=1, asked_as=username)
        self.user_id = user_id
        self.saved: list[int] = []
        self.calls: list[int] = []
        self.error: Exception | None = None
        self.stopped = threading.Event()

    def run(self) -> None:
        tweet_id = id_at(datetime.now(UTC) - timedelta(days=4000)) + self.user_id
        try:
            while not self.stopped.is_set():
                self.lease()
                ids = [tweet_id + (number << 40) for number in range(20)]
                tweet_id = ids[-1] + (1 << 40)
                self.save(ids)
        except Exception as error:  # noqa: BLE001 told by the test
            self.error = error
        finally:
            self.database.close()

    def lease(self) -> None:
        lease = lease_call(self.database, Endpoint.USER_TWEETS, ["TWITTER_BEARER_1"], lease_s=0)
        assert lease is not None
        self.calls.append(lease.call_id)

    def save(self, ids: list[int]) -> None:
        bodies = [{"id": str(each), "author_id": str(self.user_id), "text": "hello"} for each in ids]
        tweets = read_tweets_page(orjson.dumps({"data": bodies})).tweets
        verdict = PageVerdict(Coverage((IdRange(ids[0], ids[-1] + 1),)))
        page = PageToSave(
            tweets=tweets, verdict=verdict, rest=None, read_at=datetime.now(UTC), call_id=1, calls=1, waited_s=0.0
        )
        assert self.store.save_page(page).new == len(ids)
        self.saved += ids


def test_runs_go_on_writing_while_the_tables_are_parted(older: Callable[[], Database]) -> None:
    old = older()
    # The writers are of this version, which writes to some columns more.
    old.execute("ALTER TABLE user_state ADD COLUMN timeline_read_at timestamptz")
    with psycopg.connect(old.url.replace("+psycopg", ""), autocommit=True) as later:
        later.execute(sql_file("17_refusals.sql").encode())
    old.execute(
        'UPDATE tokens_endpoint_rl SET "limit" = 1000000, remaining = 1000000, reset_epoch = 1,'
        " reset_at = now() + interval '1 hour'"
    )
    writers = [Writer(old.url, f"writer_{number}", 100 + number) for number in range(3)]
    for writer in writers:
        writer.start()
    time.sleep(0.3)
    upgrade(old.engine)
    time.sleep(0.3)
    for writer in writers:
        writer.stopped.set()
    for writer in writers:
        writer.join()

    assert [writer.error for writer in writers] == [None, None, None]
    for writer in writers:
        stored = old.execute("SELECT id FROM tweets WHERE author_id = %s ORDER BY id", (writer.user_id,))
        assert [tweet_id for (tweet_id,) in stored] == writer.saved
        assert len(writer.saved) > 40
    calls = sorted(call for writer in writers for call in writer.calls)
    assert [call for (call,) in old.execute("SELECT id FROM api_calls WHERE id > 3 ORDER BY id")] == calls
    assert len(set(calls)) == len(calls)


def test_who_reads_for_long_keeps_the_tables_as_they_are(
    older: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "TRIED_FOR_S", 0.0)
    old = older()
    with psycopg.connect(old.url.replace("+psycopg", "")) as reader:
        reader.execute("SELECT count(*) FROM tweets")
        with pytest.raises(TableInUse, match="let that end and run again"):
            upgrade(old.engine)
        assert released.version_of(old) == LATEST
        reader.rollback()
    upgrade(old.engine)

    require_current(old.engine)


def test_rights_and_views_that_people_gave_and_made_stay(older: Callable[[], Database], databases: Databases) -> None:
    old = older()
    role = f"analyst_{os.getpid()}"
    databases.connection.execute(f"CREATE ROLE {role}".encode())
    try:
        old.execute(f"GRANT SELECT ON tweets TO {role} WITH GRANT OPTION")  # pyright: ignore[reportArgumentType]
        old.execute(f"GRANT SELECT (endpoint), INSERT ON api_calls TO {role}")  # pyright: ignore[reportArgumentType]
        old.execute("CREATE VIEW newest WITH (security_barrier = true) AS SELECT id, text FROM tweets WHERE id > 20")
        old.execute("CREATE VIEW newest_of_all AS SELECT max(id) AS id FROM newest")
        upgrade(old.engine)
        future = BEYOND_ALL_IDS - 1
        old.execute(
            "INSERT INTO tweets (id, author_id, created_at, kind, text, raw) VALUES (%s, 1, now(), 'reply', '', '{}')",
            (future,),
        )
        rights = old.execute(
            "SELECT has_table_privilege(%(role)s, 'tweets', 'SELECT WITH GRANT OPTION'),"
            " has_table_privilege(%(role)s, 'tweets', 'INSERT'), has_table_privilege(%(role)s, 'api_calls', 'SELECT'),"
            " has_table_privilege(%(role)s, 'api_calls', 'INSERT'),"
            " has_column_privilege(%(role)s, 'api_calls', 'endpoint', 'SELECT')",
            {"role": role},
        )

        assert rights == [(True, False, False, True, True)]
        assert old.execute("SELECT id FROM newest_of_all") == [(future,)]
        assert old.execute("SELECT reloptions FROM pg_class WHERE relname = 'newest'") == [(["security_barrier=true"],)]
    finally:
        old.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}")  # pyright: ignore[reportArgumentType]
        databases.connection.execute(f"DROP ROLE {role}".encode())


def test_what_cannot_be_taken_along_is_named_before_anything_is_changed(older: Callable[[], Database]) -> None:
    old = older()
    old.execute("CREATE MATERIALIZED VIEW likes AS SELECT sum(like_count) FROM tweets")
    with pytest.raises(DBAPIError, match="would see old rows only: likes"):
        upgrade(old.engine)
    assert released.version_of(old) == LATEST
    old.execute("DROP MATERIALIZED VIEW likes")
    upgrade(old.engine)

    require_current(old.engine)
