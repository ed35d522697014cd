"""Which months and which accounts are whole, from what is covered and what is searched."""

from datetime import UTC, date, datetime

import pytest

from twitter_pipeline.coverage import LOWEST_ID, IdRange, id_at
from twitter_pipeline.months import Months, read_month
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.months import (
    Life,
    LifeState,
    MonthState,
    load_life_states,
    load_lives,
    load_month_states,
    load_tracked,
    load_tracked_names,
)

BORN = datetime(2020, 1, 10, tzinfo=UTC)
UNTIL = datetime(2020, 4, 20, tzinfo=UTC)
RUN = 7

JANUARY, FEBRUARY, MARCH, APRIL = (read_month(f"2020-0{month}") for month in (1, 2, 3, 4))


def instant(month: int, day: int = 1) -> datetime:
    return datetime(2020, month, day, tzinfo=UTC)


def add(
    database: Database,
    user_id: int,
    *,
    covered: str = "{}",
    searched: str = "{}",
    username: str | None = None,
    born: datetime | None = BORN,
) -> None:
    database.execute(
        "INSERT INTO users (id, username, created_at) VALUES (%s, %s, %s)",
        (user_id, username or f"name{user_id}", born),
    )
    database.execute(
        "INSERT INTO user_state (user_id, covered, searched) VALUES (%s, %s::int8multirange, %s::int8multirange)",
        (user_id, covered, searched),
    )


def ids(begin: datetime, end: datetime) -> str:
    """The ids of a span, as a set."""
    return f"{{[{id_at(begin)},{id_at(end)})}}"


def add_tweet(database: Database, user_id: int, at: datetime, *, run: int = RUN) -> None:
    database.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, raw, first_read_run_id)"
        " VALUES (%s, %s, %s, 'original', '', '{}', %s)",
        (id_at(at), user_id, at, run),
    )


def months(database: Database, *user_ids: int, first: date = JANUARY, last: date = APRIL) -> list[MonthState]:
    return load_month_states(database, user_ids, Months(first, last), until=UNTIL, run_id=RUN)


def test_a_month_is_whole_by_what_covers_it_and_lacks_the_accounts_that_have_a_hole(database: Database) -> None:
    add(database, 1, covered=ids(instant(1), instant(3)))
    add(database, 2, covered=ids(instant(1), instant(2)), searched=ids(instant(2), instant(2, 20)))
    add(database, 3, searched=ids(instant(1), instant(5)))

    assert months(database, 1, 2, 3) == [
        MonthState(JANUARY, 2, 1, (), 0, 0),
        MonthState(FEBRUARY, 1, 1, (2,), 0, 0),
        MonthState(MARCH, 0, 1, (1, 2), 0, 0),
        MonthState(APRIL, 0, 1, (1, 2), 0, 0),
    ]


def test_the_timeline_and_the_archive_complete_each_other(database: Database) -> None:
    add(database, 1, covered=ids(instant(1), instant(1, 20)), searched=ids(instant(1, 20), instant(2)))

    assert months(database, 1, last=JANUARY) == [MonthState(JANUARY, 0, 1, (), 0, 0)]


def test_nothing_is_missing_before_an_account_was_made_and_after_the_run_asked(database: Database) -> None:
    add(database, 1, covered=ids(BORN, UNTIL))

    assert months(database, 1, first=read_month("2006-03"), last=read_month("2006-03"))[0].missing == ()
    assert [each.missing for each in months(database, 1)] == [(), (), (), ()]
    assert months(database, 1, first=read_month("2020-06"), last=read_month("2020-06"))[0].missing == ()


def test_a_hole_of_one_id_is_a_hole(database: Database) -> None:
    begin, end = id_at(instant(2)), id_at(instant(3))
    add(database, 1, covered=f"{{[{begin},{end - 1})}}")

    assert months(database, 1, first=FEBRUARY, last=FEBRUARY)[0].missing == (1,)


def test_of_an_account_whose_age_is_not_known_all_months_are_asked_for(database: Database) -> None:
    add(database, 1, covered=ids(instant(1), instant(5)), born=None)

    assert months(database, 1, first=read_month("2019-12"))[0].missing == (1,)
    assert load_lives(database, [1])[0].months(UNTIL).first == date(2006, 3, 1)


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Pacific/Kiritimati"])
def test_tweets_count_for_their_month_in_utc(database: Database, zone: str) -> None:
    name = database.execute("SELECT current_database()")[0][0]
    database.execute(f"ALTER DATABASE {name} SET timezone = '{zone}'")  # type: ignore[arg-type]
    database.engine.dispose()
    add(database, 1)
    add(database, 2)
    add_tweet(database, 1, datetime(2020, 1, 31, 23, 59, 59, tzinfo=UTC))
    add_tweet(database, 1, instant(2), run=RUN - 1)
    add_tweet(database, 2, instant(3))

    assert [(each.tweets, each.tweets_new) for each in months(database, 1)] == [(1, 1), (1, 0), (0, 0), (0, 0)]


def test_without_an_account_no_month_lacks_anything(database: Database) -> None:
    assert months(database, last=JANUARY) == [MonthState(JANUARY, 0, 0, (), 0, 0)]


def test_an_account_is_whole_from_its_beginning_to_when_it_was_asked_for(database: Database) -> None:
    add(database, 1, covered=ids(BORN, UNTIL))
    add(database, 2, covered=ids(BORN, instant(2)), searched=ids(instant(2), UNTIL))
    add(database, 3, covered=ids(instant(2), instant(3)))
    add(database, 4, covered=ids(BORN, UNTIL), born=None)
    add_tweet(database, 1, instant(2))

    assert load_life_states(database, [1, 2, 3, 4], until=UNTIL) == [
        LifeState(1, is_by_timeline=True, missing=None, tweets=1),
        LifeState(2, is_by_timeline=False, missing=None, tweets=0),
        LifeState(3, is_by_timeline=False, missing=IdRange(id_at(BORN), id_at(UNTIL)), tweets=0),
        LifeState(4, is_by_timeline=False, missing=IdRange(LOWEST_ID, id_at(BORN)), tweets=0),
    ]
    assert load_lives(database, [4, 2]) == [Life(2, "name2", BORN), Life(4, "name4", None)]


def test_the_watch_list_is_told_by_first_names_and_asked_for_by_present_ones(database: Database) -> None:
    for user_id in (1, 2, 3, 4):
        add(database, user_id)
        database.execute(
            "UPDATE user_state SET is_tracked = %s, tracked_since = now() - %s * interval '1 s' WHERE user_id = %s",
            (user_id != 4, user_id, user_id),
        )
    database.execute(
        "INSERT INTO user_names (user_id, username, seen_from) VALUES (1, 'first', now() - interval '1 day'),"
        " (1, 'second', now()), (2, 'lost', now())"
    )
    database.execute("UPDATE users SET username = NULL WHERE id IN (2)")

    assert load_tracked(database) == [(3, "name3"), (2, "lost"), (1, "first")]
    assert load_tracked_names(database) == ["name1", "name3"]
