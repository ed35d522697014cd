"""A page and the interval that it proves, in one transaction."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twitter_pipeline.coverage import BEYOND_ALL_IDS, LOWEST_ID, Coverage, IdRange, id_at
from twitter_pipeline.errors import PipelineError
from twitter_pipeline.planning import PageVerdict
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import begin_account
from twitter_pipeline.store.timelines import PageToSave, SavedPage, TimelineStore
from twitter_pipeline.x_api.parsing import Tweet, read_tweets_page

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
USER = 12


def body(tweet_id: int, **fields: Any) -> dict[str, Any]:
    created_at = f"{NOON:%Y-%m-%dT%H:%M:%S}.000Z"
    return {"id": str(tweet_id), "author_id": str(USER), "created_at": created_at, "text": "hello", **fields}


def read(*bodies: dict[str, Any]) -> tuple[Tweet, ...]:
    return read_tweets_page(orjson.dumps({"data": bodies})).tweets


def tweets(*ids: int) -> tuple[Tweet, ...]:
    return read(*map(body, ids))


class Desk:
    """One account in one run, with a call to bill pages to."""

    def __init__(self, database: Database) -> None:
        self.database = database
        database.execute("INSERT INTO users (id, username) VALUES (%s, 'someone')", (USER,))
        database.execute("INSERT INTO user_state (user_id) VALUES (%s)", (USER,))
        self.store = self.run()

    def run(self) -> TimelineStore:
        """Begin another run on the account."""
        rows = self.database.execute("INSERT INTO fetch_runs (kind, request) VALUES ('history', '[]') RETURNING id")
        self.run_id = int(rows[0][0])
        begin_account(self.database, self.run_id, FetchRequest("someone"), user_id=USER)
        return TimelineStore(self.database, user_id=USER, fetch_run_id=self.run_id, asked_as="someone")

    def save(
        self,
        page: Sequence[Tweet],
        proved: IdRange | None = None,
        *,
        unreachable: IdRange | None = None,
        rest: IdRange | None = None,
        at: datetime = NOON,
        store: TimelineStore | None = None,
    ) -> SavedPage:
        return (store or self.store).save_page(
            PageToSave(
                tweets=page,
                verdict=PageVerdict(Coverage(() if proved is None else (proved,)), unreachable),
                rest=rest,
                read_at=at,
                call_id=self.call(len(page)),
                calls=1,
                waited_s=0.5,
            )
        )

    def call(self, posts: int) -> int:
        rows = self.database.execute(
            "INSERT INTO api_calls (endpoint, token_id, billed_posts, outcome) VALUES ('x', 1, %s, 'ok') RETURNING id",
            (posts,),
        )
        return int(rows[0][0])

    def rows(self, columns: str) -> list[tuple[Any, ...]]:
        # The columns are written out in each test.
        return self.database.execute(f"SELECT {columns} FROM tweets ORDER BY id")  # pyright: ignore[reportArgumentType]

    def billed(self) -> list[int]:
        return [posts for (posts,) in self.database.execute("SELECT billed_posts FROM api_calls ORDER BY id")]

    def tally(self) -> tuple[Any, ...]:
        (row,) = self.database.execute(
            "SELECT tweets_fetched, tweets_new, billed_posts, calls, waited_s FROM fetch_run_accounts "
            "WHERE fetch_run_id = %s",
            (self.run_id,),
        )
        return row


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def test_a_page_and_what_it_proves_are_stored_together(desk: Desk) -> None:
    saved = desk.save(tweets(300, 200), IdRange(200, 301))

    assert (saved.state.covered.ranges, saved.state.unreachable, saved.new, saved.billed) == (
        (IdRange(200, 301),),
        Coverage(),
        2,
        2,
    )
    assert desk.rows("id, author_id, created_at, text, kind::text, first_read_run_id") == [
        (tweet_id, USER, NOON, "hello", "original", desk.run_id) for tweet_id in (200, 300)
    ]
    assert desk.tally() == (2, 2, 2, 1, 0.5)


def test_a_page_applied_twice_equals_once(desk: Desk) -> None:
    page = tweets(300, 200)
    once = desk.save(page, IdRange(200, 301))
    rows = desk.rows("*")
    twice = desk.save(page, IdRange(200, 301))

    stored = [tuple(map(str, row)) for row in rows]
    assert (twice.state.covered, twice.state.unreachable) == (once.state.covered, once.state.unreachable)
    assert [tuple(map(str, row)) for row in desk.rows("*")] == stored
    assert (twice.new, desk.store.count()) == (0, 2)


def test_of_a_page_that_cannot_be_stored_nothing_is(desk: Desk) -> None:
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        desk.save(tweets(300, 200), IdRange(200, BEYOND_ALL_IDS + 1))

    assert (desk.store.load_state().covered, desk.store.count(), desk.tally()[0]) == (Coverage(), 0, 0)


def test_an_empty_page_may_prove_a_hole_empty(desk: Desk) -> None:
    saved = desk.save([], IdRange(LOWEST_ID, 200))

    assert (saved.state.covered.ranges, saved.new, saved.billed) == ((IdRange(LOWEST_ID, 200),), 0, 0)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 60), st.integers(1, 30)), max_size=8),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_coverage_adds_up_as_sets_do_and_wins_over_unreachable(desk: Desk, pieces: list[tuple[bool, int, int]]) -> None:
    desk.database.execute("UPDATE user_state SET covered = '{}', unreachable = '{}'")
    proved: set[int] = set()
    unreachable: set[int] = set()
    for is_proved, lo, size in pieces:
        piece = IdRange(lo, lo + size)
        desk.save([], piece if is_proved else None, unreachable=None if is_proved else piece)
        (proved if is_proved else unreachable).update(range(lo, lo + size))
    state = desk.store.load_state()

    assert {each for each in range(100) if each in state.covered} == proved
    assert {each for each in range(100) if each in state.unreachable} == unreachable - proved


def test_last_seen_id_is_the_top_of_what_is_covered(desk: Desk) -> None:
    desk.save([], IdRange(10, 20))
    desk.save([], IdRange(50, 61))

    assert desk.database.execute("SELECT last_seen_id, last_polled_at FROM user_state") == [(60, NOON)]


def test_a_tweet_read_again_takes_what_it_is_now_and_keeps_when_it_was_first_read(desk: Desk) -> None:
    first_run, later = desk.run_id, NOON + timedelta(days=2)
    desk.save(read(body(200, public_metrics={"like_count": 1})))
    second = desk.run()
    edited = body(200, text="hello again", public_metrics={"like_count": 7}, edit_history_tweet_ids=["200", "190"])
    desk.save(read(edited), at=later, store=second)

    assert desk.rows(
        "text, like_count, edit_history_ids, first_read_at, first_read_run_id, last_read_at, last_read_run_id"
    ) == [("hello again", 7, [200, 190], NOON, first_run, later, desk.run_id)]


@pytest.mark.parametrize(
    ("first", "again", "billed"),
    [
        (NOON, NOON + timedelta(hours=11, minutes=59), 0),
        (NOON, NOON + timedelta(hours=12), 2),
        (NOON - timedelta(seconds=1), NOON + timedelta(days=365), 2),
        (NOON.astimezone(UTC).replace(hour=0), NOON.replace(hour=23, minute=59), 0),
    ],
)
def test_a_post_is_billed_once_a_utc_day(desk: Desk, first: datetime, again: datetime, billed: int) -> None:
    desk.save(tweets(300, 200), at=first)
    saved = desk.save(tweets(300, 200), at=again)

    assert (saved.new, saved.billed, desk.billed()) == (0, billed, [2, billed])
    assert desk.tally()[:3] == (2 + billed, 2, 2 + billed)


def test_a_page_with_new_and_known_posts_bills_the_new_ones(desk: Desk) -> None:
    desk.save(tweets(300, 200))
    saved = desk.save(tweets(400, 300), at=NOON + timedelta(hours=1))

    assert (saved.new, saved.billed, desk.billed()) == (1, 1, [2, 1])


def test_text_that_postgresql_refuses_is_cleaned_and_kept_as_an_escape_in_raw(desk: Desk) -> None:
    nasty = rb'{"data": [{"id": "200", "text": "a\u0000b\ud83dc\ude00 \ud83d\ude00", "lang": "e\u0000"}]}'
    desk.save(read_tweets_page(nasty).tweets)

    ((text, lang, raw),) = desk.rows("text, lang, raw::text")
    assert (text, lang) == ("a\ufffdb\ufffdc\ufffd \U0001f600", "e\ufffd")
    assert (r"\u0000" in raw, r"\ud83d" in raw) == (True, True)


@pytest.mark.parametrize("text", ['{"quoted", \\N}', "back\\slash", "", "NULL", "{}", "a,b", "\u2028\r\n\t", "'; --"])
def test_text_comes_back_as_it_was(desk: Desk, text: str) -> None:
    desk.save(read(body(200, text=text, lang=text or None)))

    assert desk.rows("text, lang") == [(text, text or None)]


def test_fields_that_are_not_known_yet_are_kept_in_raw(desk: Desk) -> None:
    desk.save(read(body(200, novelty={"deep": [1, None]}, another=True)))

    ((raw,),) = desk.rows("raw")
    assert (raw["novelty"], raw["another"], raw["includes"]) == ({"deep": [1, None]}, True, {})


def test_a_tweet_with_nothing_but_an_id_is_dated_by_it(desk: Desk) -> None:
    tweet_id = id_at(NOON)
    desk.save(read({"id": str(tweet_id)}))

    assert desk.rows("id, author_id, created_at, text, like_count") == [(tweet_id, USER, NOON, "", None)]


def test_ids_from_before_november_2010_are_counted_by_their_order(desk: Desk) -> None:
    early = datetime(2006, 3, 21, 20, 50, 14, tzinfo=UTC)
    old = [body(each, created_at=f"{early + timedelta(days=each):%Y-%m-%dT%H:%M:%S}.000Z") for each in (20, 21, 900)]
    late = id_at(NOON)
    desk.save(read(*old, body(late)))

    counts = [desk.store.count_from(lowest) for lowest in (LOWEST_ID, 20, 21, 900, 901, late, late + 1, BEYOND_ALL_IDS)]
    assert counts == [4, 4, 3, 2, 1, 1, 0, 0]


def test_a_count_includes_the_second_of_its_bound(desk: Desk) -> None:
    within = id_at(NOON + timedelta(milliseconds=700))
    desk.save(tweets(within))

    assert [desk.store.count_from(within), desk.store.count_from(within + 1)] == [1, 0]


def test_an_account_that_was_never_resolved_is_an_error(database: Database) -> None:
    store = TimelineStore(database, user_id=99, fetch_run_id=1, asked_as="nobody")

    with pytest.raises(PipelineError, match="user 99 has no row"):
        store.load_state()


def test_threads_that_save_overlapping_pages_do_not_deadlock(desk: Desk) -> None:
    stores = [desk.store, desk.run(), desk.run(), desk.run()]
    forwards = tweets(*range(1, 61))

    def save_all(number: int) -> None:
        for start in range(0, 40, 4):
            page = forwards[start : start + 20]
            page = page[::-1] if number % 2 else page
            desk.save(page, IdRange(start + 1, start + 21), store=stores[number])

    with ThreadPoolExecutor(len(stores)) as threads:
        for saved in [threads.submit(save_all, number) for number in range(len(stores))]:
            saved.result(timeout=30)

    assert desk.store.count() == 56
    assert desk.store.load_state().covered.ranges == (IdRange(1, 57),)


def test_what_an_import_had_left_out_comes_with_the_next_reading(database: Database) -> None:
    desk = Desk(database)
    desk.save(tweets(100))
    desk.save(read(body(100, conversation_id="90", in_reply_to_user_id="7")))
    desk.save(tweets(100))

    assert database.execute("SELECT conversation_id, in_reply_to_user_id FROM tweets") == [(90, 7)]


OTHERS = """
INSERT INTO tweets (id, author_id, created_at, kind, text, first_read_at, last_read_at, raw)
SELECT n, 13, %(at)s, 'original', '', %(at)s, %(at)s, '{}'
FROM generate_series(%(lowest)s::bigint, %(highest)s::bigint, %(step)s) AS n
"""

TUPLES_READ = """
SELECT sum(seq_tup_read + idx_tup_fetch)::int FROM pg_stat_user_tables WHERE starts_with(relname, 'tweets')
"""


def tuples_read(database: Database) -> int:
    """How many rows of tweets the only connection has read up to now."""
    database.execute("SELECT pg_stat_force_next_flush()")
    return database.execute(TUPLES_READ)[0][0]


@pytest.mark.parametrize("stored_before", [True, False])
def test_of_all_that_others_wrote_in_the_span_of_a_page_nothing_is_read(database_url: str, stored_before: bool) -> None:
    database = Database(database_url, pool_size=1)
    desk = Desk(database)
    begin, noon, end = (id_at(NOON + timedelta(hours=hours)) for hours in (-24, 0, 1))
    page = tweets(*(end - 1 - number * ((end - noon) // 50) for number in range(50)))
    database.execute(OTHERS, {"at": NOON, "lowest": begin, "highest": noon - 1, "step": (noon - begin) // 20_000})
    if stored_before:
        desk.save(page, IdRange(noon, end))
    # What comes after it is beyond what PostgreSQL knows of the ids.
    database.execute("ANALYZE tweets")
    database.execute(OTHERS, {"at": NOON, "lowest": noon, "highest": end - 1, "step": (end - noon) // 5_000})
    before = tuples_read(database)
    desk.save(page, IdRange(noon, end))
    after = tuples_read(database)
    database.close()

    # Those of the page, looked up and written over.
    assert after - before < 3 * len(page)
