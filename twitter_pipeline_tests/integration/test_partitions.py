"""`tweets` and `api_calls` in partitions: everything lands, old months go, and nobody who works is disturbed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import orjson
import psycopg
import pytest

from twitter_pipeline.coverage import BEYOND_ALL_IDS, id_at
from twitter_pipeline.planning import PageVerdict
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.store import partitions
from twitter_pipeline.store.database import Database, Params
from twitter_pipeline.store.partitions import (
    API_CALLS,
    TABLES,
    TWEETS,
    TableInUse,
    count_ahead,
    make_missing,
    make_partitions,
    renew_statistics,
)
from twitter_pipeline.store.retention import delete_old_calls
from twitter_pipeline.store.runs import begin_account
from twitter_pipeline.store.timelines import PageToSave, TimelineStore
from twitter_pipeline.x_api.parsing import read_tweets_page

NOW = datetime.now(UTC)
QUARTER = timedelta(days=90)
USER = 12


def add_tweets(database: Database, *ids: int) -> None:
    for tweet_id in ids:
        database.execute(
            "INSERT INTO tweets (id, author_id, created_at, kind, text, raw)"
            " VALUES (%s, 12, '2020-01-01', 'original', '', '{}')",
            (tweet_id,),
        )


def add_call(
    database: Database, called_at: datetime, *, run_id: int | None = None, reserved: int | None = None
) -> None:
    database.execute(
        "INSERT INTO api_calls (called_at, endpoint, token_id, fetch_run_id, reserved_posts, reserved_users)"
        " VALUES (%s, 'x', 1, %s, %s, %s)",
        (called_at, run_id, reserved, reserved),
    )


def add_months(database: Database, *, until: datetime, months: int) -> list[str]:
    """Make the months of calls that an earlier time would have left behind, in place of those that are there."""
    with database.connection() as connection:
        for name in names(database, "api_calls"):
            if name != "api_calls_other":
                connection.execute(f"DROP TABLE {name}")  # pyright: ignore[reportArgumentType, reportCallIssue]
        make_missing(connection, now=until - months * timedelta(days=31))
    make_partitions(database)
    return names(database, "api_calls")


def names(database: Database, table: str) -> list[str]:
    rows = database.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass ORDER BY 1", (table,)
    )
    return [name for (name,) in rows]


def where(database: Database, table: str, key: str) -> list[tuple[Any, str]]:
    """Return for each row in which partition it lies."""
    return database.execute(f"SELECT {key}, tableoid::regclass::text FROM {table} ORDER BY 1")  # pyright: ignore[reportArgumentType]


def at(year: int, month: int = 1) -> datetime:
    return datetime(year, month, 1, tzinfo=UTC)


def test_tweets_of_every_age_land_in_their_year(database: Database) -> None:
    this_year = NOW.year
    new_year = id_at(at(this_year))
    add_tweets(database, 20, id_at(at(2010, 12)), id_at(at(2011)), new_year - 1, new_year, id_at(NOW), BEYOND_ALL_IDS)

    assert [name for _, name in where(database, "tweets", "id")] == [
        "tweets_2010",
        "tweets_2010",
        "tweets_2011",
        f"tweets_{this_year - 1}",
        f"tweets_{this_year}",
        f"tweets_{this_year}",
        "tweets_other",
    ]


def test_calls_of_any_time_are_taken(database: Database) -> None:
    for called_at in (at(2007), NOW, at(2500)):
        add_call(database, called_at)

    assert [name for _, name in where(database, "api_calls", "called_at")] == [
        "api_calls_other",
        f"api_calls_{NOW:%Y_%m}",
        "api_calls_other",
    ]


def test_partitions_are_made_once_however_often_and_by_however_many(database: Database) -> None:
    later = NOW + timedelta(days=900)

    def make() -> list[str]:
        with database.connection() as connection:
            return make_missing(connection, now=later)

    before = {table.name: names(database, table.name) for table in TABLES}
    with ThreadPoolExecutor(8) as pool:
        made = sorted(name for each in pool.map(lambda _: make(), range(8)) for name in each)

    after = {table.name: names(database, table.name) for table in TABLES}
    assert made == sorted(set(made))
    assert made == sorted(name for table in TABLES for name in set(after[table.name]) - set(before[table.name]))
    assert f"tweets_{later.year + TWEETS.ahead}" in made
    assert make() == []
    assert make_partitions(database) == []


def test_every_partition_is_as_the_whole(database: Database) -> None:
    rows = database.execute(
        "SELECT i.inhparent::regclass::text, array_agg(DISTINCT x.indexes), array_agg(DISTINCT x.checks)"
        " FROM pg_inherits i CROSS JOIN LATERAL (SELECT"
        " (SELECT count(*) FROM pg_index p WHERE p.indrelid = i.inhrelid AND p.indisvalid) AS indexes,"
        " (SELECT count(*) FROM pg_constraint c WHERE conrelid = i.inhrelid AND contype IN ('c', 'p')) AS checks) AS x"
        " WHERE i.inhparent IN ('tweets'::regclass, 'api_calls'::regclass) GROUP BY 1 ORDER BY 1"
    )
    room = database.execute(
        "SELECT DISTINCT reloptions FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid"
        " WHERE i.inhparent = 'api_calls'::regclass"
    )

    assert rows == [("api_calls", [2], [5]), ("tweets", [3], [1])]
    assert room == [(["fillfactor=60"],)]


def test_what_lay_with_the_others_is_moved_and_counted_no_second_time(database: Database) -> None:
    next_years = NOW + timedelta(days=800)
    in_half_a_year = NOW + timedelta(days=180)
    database.execute("INSERT INTO spending (day) VALUES (%s)", (in_half_a_year.date(),))
    add_tweets(database, id_at(next_years + timedelta(days=400)), BEYOND_ALL_IDS)
    add_call(database, in_half_a_year, reserved=3)
    add_call(database, at(2007))
    with database.connection() as connection:
        make_missing(connection, now=next_years)

    assert [name for _, name in where(database, "tweets", "id")] == [
        f"tweets_{(next_years + timedelta(days=400)).year}",
        "tweets_other",
    ]
    assert [name for _, name in where(database, "api_calls", "called_at")] == [
        "api_calls_other",
        f"api_calls_{in_half_a_year:%Y_%m}",
    ]
    assert database.execute("SELECT reserved_posts, reserved_users FROM spending") == [(3, 3)]


def test_ids_go_on_across_partitions(database: Database) -> None:
    for called_at in (NOW, NOW + timedelta(days=40), at(2007)):
        add_call(database, called_at)

    assert database.execute("SELECT id FROM api_calls ORDER BY id") == [(1,), (2,), (3,)]


@contextmanager
def reader(url: str) -> Iterator[psycopg.Connection]:
    """Somebody who has read everything and has not ended the transaction, as an export."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("SELECT count(*) FROM tweets")
        connection.execute("SELECT count(*) FROM api_calls")
        yield connection
        connection.rollback()


def test_who_reads_for_long_is_waited_for_and_holds_up_nobody_else(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "TRIED_FOR_S", 0.0)
    before = names(database, "tweets")
    with reader(database_url), ThreadPoolExecutor(1) as pool, database.connection() as connection:
        making = pool.submit(make_missing, connection, now=NOW + timedelta(days=900))
        add_tweets(database, id_at(NOW))
        with pytest.raises(TableInUse, match="somebody is reading or writing tweets all the time"):
            making.result()

    assert names(database, "tweets") == before
    with database.connection() as connection:
        assert make_missing(connection, now=NOW + timedelta(days=900)) != []


def test_old_months_are_dropped_whole_and_the_rest_by_rows(database: Database) -> None:
    months = add_months(database, until=NOW, months=8)
    for days in (200, 150, 91, 89, 0):
        add_call(database, NOW - timedelta(days=days))
    add_call(database, NOW - timedelta(days=2000))
    deleted = delete_old_calls(database, keep=QUARTER)

    left = names(database, "api_calls")
    gone = [name for name in months if name not in left]
    assert deleted == 4
    assert database.execute("SELECT count(*) FROM api_calls WHERE called_at > now() - interval '90 days'") == [(2,)]
    assert database.execute("SELECT count(*) FROM api_calls") == [(2,)]
    assert gone == [name for name in months if name[-7:] < f"{NOW - QUARTER:%Y_%m}"]
    assert len(gone) > 3
    assert "api_calls_other" in left


def test_a_month_stays_as_long_as_a_run_works_that_began_in_it(database: Database) -> None:
    add_months(database, until=NOW, months=8)
    began = NOW - timedelta(days=150)
    database.execute("INSERT INTO fetch_runs (kind, request, started_at) VALUES ('history', '[]', %s)", (began,))
    add_call(database, began, run_id=1)
    add_call(database, began + timedelta(days=31), run_id=1)
    add_call(database, began + timedelta(days=31))

    assert delete_old_calls(database, keep=timedelta(days=60)) == 1
    assert database.execute("SELECT fetch_run_id FROM api_calls") == [(1,), (1,)]
    database.execute("UPDATE fetch_runs SET status = 'done', finished_at = now()")
    assert delete_old_calls(database, keep=timedelta(days=60)) == 2


def test_a_month_that_is_read_for_long_goes_by_rows(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "TRIED_FOR_S", 0.0)
    months = add_months(database, until=NOW, months=5)
    add_call(database, NOW - timedelta(days=100))
    with reader(database_url):
        assert delete_old_calls(database, keep=timedelta(days=60)) == 1

    assert database.execute("SELECT count(*) FROM api_calls") == [(0,)]
    assert names(database, "api_calls") == months


def test_after_months_of_standstill_everything_that_is_missing_is_made(database: Database) -> None:
    add_months(database, until=NOW - timedelta(days=400), months=1)
    database.execute("DELETE FROM api_calls")
    with database.connection() as connection:
        for name in names(database, "api_calls"):
            if name != "api_calls_other":
                connection.execute(f"DROP TABLE {name}")  # pyright: ignore[reportArgumentType, reportCallIssue]
    add_call(database, NOW)
    assert count_ahead(database) == {"tweets": TWEETS.ahead, "api_calls": 0}

    make_partitions(database)
    assert count_ahead(database) == {"tweets": TWEETS.ahead, "api_calls": API_CALLS.ahead}
    assert [name for _, name in where(database, "api_calls", "called_at")] == [f"api_calls_{NOW:%Y_%m}"]


def test_statistics_of_the_whole_are_renewed_when_it_has_grown(database: Database) -> None:
    database.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, raw)"
        " SELECT id_at(now()) + n, n %% 7, now(), 'original', '', '{}' FROM generate_series(1, 500) AS n",
        (),
    )
    with database.connection() as connection:
        for name in names(database, "tweets"):
            connection.execute(f"ANALYZE {name}")  # pyright: ignore[reportArgumentType, reportCallIssue]

    assert renew_statistics(database) == ["tweets"]
    assert renew_statistics(database) == []
    assert database.execute(
        "SELECT n_distinct FROM pg_stats WHERE tablename = 'tweets' AND inherited AND attname = 'author_id'"
    ) == [(7.0,)]


class Watched(Database):
    """A database that notes which partitions its last statement has locked."""

    locked: Sequence[str] = ()

    def execute(self, statement: LiteralString, params: Params = ()) -> list[tuple[Any, ...]]:
        with self.transaction() as connection:
            found = connection.execute(statement, params, binary=True).fetchall()
            self.locked = [name for (name,) in connection.execute(LOCKED).fetchall()]
            return found


LOCKED = """
SELECT c.relname::text FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE l.pid = pg_backend_pid() AND c.relispartition AND c.relkind = 'r'
GROUP BY 1 ORDER BY 1
"""


def page_of(*ids: int) -> PageToSave:
    bodies = [{"id": str(each), "author_id": str(USER), "text": "hello"} for each in ids]
    tweets = read_tweets_page(orjson.dumps({"data": bodies})).tweets
    return PageToSave(tweets=tweets, verdict=PageVerdict(), rest=None, read_at=NOW, call_id=1, calls=1, waited_s=0.0)


def test_a_page_touches_the_partitions_of_its_tweets_and_no_others(database: Database) -> None:
    database.execute("INSERT INTO users (id, username) VALUES (%s, 'someone')", (USER,))
    database.execute("INSERT INTO user_state (user_id) VALUES (%s)", (USER,))
    database.execute("INSERT INTO fetch_runs (kind, request) VALUES ('history', '[]')")
    begin_account(database, 1, FetchRequest("someone"), user_id=USER)
    add_call(database, NOW)
    watched = Watched(database.url, pool_size=1)
    store = TimelineStore(watched, user_id=USER, fetch_run_id=1, asked_as="someone")
    may = id_at(at(2019, 5))
    saved = [store.save_page(page_of(*range(may, may + 50))) for _ in range(2)]
    watched.close()

    assert [each.new for each in saved] == [50, 0]
    assert [name for name in watched.locked if name.startswith("tweets")] == ["tweets_2019"]
