"""The ledger from the tables: what lies around a gap, which runs asked for it, and ten thousand accounts at once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest
from sqlalchemy import event

from twitter_pipeline.coverage import id_at
from twitter_pipeline.ledger import Hole, Ledger
from twitter_pipeline.store.database import Database, Params
from twitter_pipeline.store.ledger import AROUND, load_ledgers
from twitter_pipeline.words import HoleCause

BORN = datetime(2026, 1, 1, tzinfo=UTC)
COUNTED_AT = BORN + timedelta(days=100)

ADD_TWEET = """
INSERT INTO tweets (id, author_id, created_at, kind, text, first_read_at, first_read_run_id, last_read_run_id,
                    deleted_seen_at, raw)
VALUES (%(id)s, %(author_id)s, date_trunc('second', %(at)s::timestamptz), 'original', '', %(read_at)s, %(run_id)s,
        %(last_run_id)s, %(deleted_at)s, '{}')
"""


def day(number: float) -> datetime:
    """So many days after the accounts were made."""
    return BORN + timedelta(days=number)


def spans(*days: tuple[float, float]) -> str:
    """The ids written between these days, as PostgreSQL writes them."""
    return "{" + ",".join(f"[{id_at(day(since))},{id_at(day(until))})" for since, until in days) + "}"


class Stored:
    """Accounts, tweets and runs, written straight into the tables."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def account(self, user_id: int = 1, *, count: int | None = None, **states: object) -> None:
        self.database.execute(
            "INSERT INTO users (id, username, created_at, tweet_count, profile_read_at) VALUES (%s, %s, %s, %s, %s)",
            (user_id, f"user_{user_id}", BORN, count, COUNTED_AT),
        )
        values = {"covered": "{}", "searched": "{}", "unreachable": "{}", "tracked_since": None, **states}
        self.database.execute(
            "INSERT INTO user_state (user_id, covered, searched, unreachable, is_tracked, tracked_since) VALUES"
            " (%(id)s, %(covered)s::int8multirange, %(searched)s::int8multirange, %(unreachable)s::int8multirange,"
            "  %(tracked_since)s::timestamptz IS NOT NULL, %(tracked_since)s)",
            {"id": user_id, **values},
        )

    def tweets(self, *days: float, author_id: int = 1, run_id: int | None = None, **facts: object) -> None:
        for number in days:
            at = day(number)
            values = {"read_at": at, "last_run_id": run_id, "deleted_at": None, **facts}
            self.database.execute(
                ADD_TWEET, {"id": id_at(at), "author_id": author_id, "at": at, "run_id": run_id, **values}
            )

    def run(
        self, mode: str, cause: HoleCause | None, *, user_id: int = 1, until: float = 99, kind: str = "history"
    ) -> int:
        outcome = "done" if cause is None else "failed"
        ((run_id,),) = self.database.execute(
            "INSERT INTO fetch_runs (kind, request) VALUES (%s::fetch_kind, '[]') RETURNING id", (kind,)
        )
        self.database.execute(
            "INSERT INTO fetch_run_accounts (fetch_run_id, username, user_id, fetch_mode, outcome, reason, cause,"
            " finished_at) VALUES (%s, %s, %s, %s, %s::account_outcome, 'why', %s::hole_cause, %s)",
            (run_id, f"user_{user_id}", user_id, mode, outcome, cause, day(until)),
        )
        return int(run_id)

    def ledger(self, user_id: int = 1) -> Ledger:
        (found,) = load_ledgers(self.database, user_ids=[user_id])
        return found

    def holes(self) -> list[tuple[float, float, HoleCause | None, int | None]]:
        """The holes of the first account by days."""
        return [(_days(each.at.since), _days(each.at.until), each.cause, each.size) for each in self.ledger().holes]

    def hole(self) -> Hole:
        (found,) = self.ledger().holes
        return found


def _days(at: datetime) -> float:
    return round((at - BORN) / timedelta(days=1), 3)


@pytest.fixture
def stored(database: Database) -> Stored:
    return Stored(database)


def test_an_account_without_a_state_or_a_tweet_has_an_empty_ledger(stored: Stored) -> None:
    stored.database.execute("INSERT INTO users (id, username) VALUES (1, 'user_1')")

    assert stored.ledger().holes == ()
    assert stored.ledger().asked_until is None


def test_the_density_around_a_hole_is_that_of_the_stretches_next_to_it(stored: Stored) -> None:
    stored.account(covered=spans((0, 20), (40, 60)), count=None)
    # One a day in the first stretch, three in the second, and a burst that lies too far to count.
    stored.tweets(*range(20), *(40 + number / 3 for number in range(60)))
    stored.account(2, covered=spans((0, 60)))
    stored.tweets(*(30 + number / 50 for number in range(99)), author_id=2)

    # One half as dense as twenty in twenty days, the other as the nearest fifty in a good sixteen.
    assert stored.holes() == [(20, 40, HoleCause.NOT_ASKED, round(10 * 20 / 20 + 10 * 50 / (49 / 3)))]


def test_what_is_stored_inside_a_hole_is_not_missing_nor_what_x_has_deleted_and_counts_no_more(stored: Stored) -> None:
    stored.account(covered=spans((50, 90)), count=100)
    stored.tweets(*range(50, 80))
    assert stored.hole().size == 70
    stored.tweets(10, 11, 12)
    assert stored.hole().size == 67
    stored.tweets(80, 81, deleted_at=day(95))
    assert stored.hole().size == 67
    # Written after X counted.
    stored.tweets(101, 102)
    assert stored.hole().size == 67


def test_a_hole_is_known_since_the_tweets_around_it_were_read(stored: Stored) -> None:
    stored.account(covered=spans((0, 20), (40, 60)))
    stored.tweets(19, read_at=day(70))
    stored.tweets(40, 45, read_at=day(61))

    assert stored.hole().known_since == day(70)


def test_the_latest_run_that_asked_explains_a_hole(stored: Stored) -> None:
    stored.account(covered=spans((50, 90)))
    first = stored.run("full", HoleCause.INTERRUPTED)
    stored.run("full", HoleCause.CAPPED)
    stored.run("months:2026-01..2026-01", HoleCause.FAULT, kind="backfill")
    stored.run("full", HoleCause.PROTECTED, user_id=2)

    assert [hole[:3] for hole in stored.holes()] == [(31, 50, HoleCause.CAPPED), (0, 31, HoleCause.FAULT)]
    stored.run("full", None)
    assert [hole[:3] for hole in stored.holes()] == [(0, 50, None)]
    # A run that is at work has met nothing yet.
    stored.database.execute(
        "UPDATE fetch_run_accounts SET outcome = 'pending', cause = NULL WHERE fetch_run_id > %s", [first]
    )
    assert [hole[:3] for hole in stored.holes()] == [(0, 50, HoleCause.INTERRUPTED)]


def test_a_limited_run_explains_the_hole_that_it_was_walking_into(stored: Stored) -> None:
    stored.account(covered=spans((50, 60), (80, 90)))
    old, later = stored.run("limit:100", HoleCause.CAPPED), stored.run("limit:100", HoleCause.INTERRUPTED)
    stored.tweets(50, run_id=old)
    stored.tweets(80, run_id=later)

    assert [hole[:3] for hole in stored.holes()] == [
        (60, 80, HoleCause.INTERRUPTED),
        (0, 50, HoleCause.CAPPED),
    ]


def test_whoever_has_more_above_than_a_timeline_reaches_is_filled_by_months(stored: Stored) -> None:
    stored.account(covered=spans((0, 10), (20, 90)), count=None)
    stored.database.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, raw)"
        " SELECT %(first)s + n, 1, %(at)s, 'original', '', '{}' FROM generate_series(1, 2850) n",
        {"first": id_at(day(85)), "at": day(85)},
    )
    fetch = stored.hole().fill
    stored.tweets(*(number / 4 for number in range(40)))
    fetch_still = stored.hole().fill
    stored.tweets(*range(30, 60))

    assert fetch == fetch_still == "twitter-pipeline fetch @user_1"
    assert stored.hole().fill == "twitter-pipeline backfill user_1 --from 2026-01 --to 2026-01"


def test_tweets_whose_ids_carry_no_time_are_counted_all_the_same(stored: Stored) -> None:
    stored.account(covered="{[1,1000),[5000,9000)}", count=None)
    stored.database.execute("UPDATE users SET created_at = '2008-01-01'")
    stored.database.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, raw)"
        " SELECT n, 1, timestamptz '2008-06-01' + n * interval '1 hour', 'original', '', '{}'"
        " FROM generate_series(10, 8990, 20) n"
    )
    found = stored.hole()

    # 200 are stored inside; the bounds are so wide that the estimate is a rough one.
    assert (f"{found.at.since:%Y-%m}", f"{found.at.until:%Y-%m}") == ("2008-01", "2010-11")
    assert found.known_since is not None
    assert found.size is not None


class CountedDatabase(Database):
    """A database that counts the statements that are sent to it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.statements = 0
        event.listen(self.engine, "before_cursor_execute", self._count)

    def execute(self, statement: LiteralString, params: Params = ()) -> list[tuple[Any, ...]]:
        self.statements += 1
        return super().execute(statement, params)

    def _count(self, *_: object) -> None:
        self.statements += 1


@pytest.fixture
def counted(database_url: str) -> Iterator[CountedDatabase]:
    database = CountedDatabase(database_url)
    yield database
    database.close()


def test_ten_thousand_accounts_take_as_many_statements_as_one(counted: CountedDatabase) -> None:
    values = {"first": spans((10, 20), (40, 90)), "born": BORN, "read_at": COUNTED_AT}
    counted.execute(
        "INSERT INTO users (id, username, created_at, tweet_count, profile_read_at)"
        " SELECT n, 'user_' || n, %(born)s, 20, %(read_at)s FROM generate_series(1, 10000) n",
        values,
    )
    counted.execute("INSERT INTO user_state (user_id, covered) SELECT id, %(first)s::int8multirange FROM users", values)
    counted.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, raw)"
        " SELECT ((extract(epoch FROM at) * 1000)::bigint - 1288834974657 << 22) + u, u, at, 'original', '', '{}'"
        " FROM generate_series(1, 10000) u, generate_series(1, 5) n,"
        " LATERAL (SELECT %(born)s::timestamptz + (n * 15 + 1) * interval '1 day' AS at) AS written",
        values,
    )
    counted.execute("INSERT INTO fetch_runs (kind, request) VALUES ('history', '[]')")
    counted.execute(
        "INSERT INTO fetch_run_accounts"
        " (fetch_run_id, username, user_id, fetch_mode, outcome, reason, cause, finished_at)"
        " SELECT 1, username, id, 'full', 'failed', 'why', 'capped', %(read_at)s FROM users",
        values,
    )
    counted.execute("ANALYZE")
    counted.statements = 0
    load_ledgers(counted, user_ids=[1])
    for_one, counted.statements = counted.statements, 0
    found = load_ledgers(counted)

    assert (counted.statements, len(found)) == (for_one, 10_000)
    assert for_one <= 5
    for each in found:
        assert [(hole.cause, hole.size) for hole in each.holes] == [(HoleCause.CAPPED, 1), (HoleCause.CAPPED, 14)]


def test_the_tweets_around_many_gaps_are_looked_up_in_the_index(database: Database) -> None:
    database.execute("INSERT INTO users (id) SELECT generate_series(1, 2000)")
    database.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, raw)"
        " SELECT n, n %% 2000 + 1, now() - n * interval '1 minute', 'original', '', '{}'"
        " FROM generate_series(1, 60000) n"
    )
    database.execute("ANALYZE")
    instants = [BORN] * 2000
    values: dict[str, Any] = {
        **dict.fromkeys(("sinces", "untils", "below_since", "below_until", "above_since", "above_until"), instants),
        "user_ids": list(range(1, 2001)),
        "los": [1] * 2000,
        "his": [2] * 2000,
        "has_many": [True] * 2000,
        "nearest": 50,
        "many": 2880,
    }
    plan = "\n".join(line for (line,) in database.execute("EXPLAIN " + AROUND, values))

    assert plan.count("tweets_2010_author_id_created_at_idx") == 4
    assert "Seq Scan on tweets_2010 t" not in plan
