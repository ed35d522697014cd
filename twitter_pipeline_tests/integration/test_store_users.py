"""Accounts and their names: who holds which now, and who held it before."""

import io
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from rich.console import Console

from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.cli.usernames import find_named
from twitter_pipeline.errors import Availability
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.users import KnownUser, find_users, save_availability, save_users, set_tracked
from twitter_pipeline.x_api.parsing import User, read_users

FIRST = datetime(2026, 11, 1, tzinfo=UTC)
THEN, LATER = FIRST + timedelta(days=3), FIRST + timedelta(days=9)


def user(user_id: int, username: str, *, protected: bool = False) -> User:
    body = {"id": str(user_id), "username": username, "protected": protected, "public_metrics": {"tweet_count": 5}}
    return read_users(orjson.dumps({"data": [body]})).users[0]


def names(database: Database) -> list[tuple[Any, ...]]:
    return database.execute("SELECT user_id, username, seen_from, seen_until FROM user_names ORDER BY seen_from, 1")


def holders(database: Database) -> list[tuple[Any, ...]]:
    return database.execute("SELECT id, username FROM users ORDER BY id")


def test_a_new_account_gets_a_row_a_name_and_an_empty_state(database: Database) -> None:
    save_users(database, [user(1, "Nasa")], read_at=FIRST)

    assert find_users(database, ["nasa"]) == {"nasa": KnownUser(1, "Nasa", Availability.ACTIVE, None, 5, FIRST)}
    assert names(database) == [(1, "Nasa", FIRST, None)]
    assert database.execute("SELECT user_id, is_tracked, isempty(covered) FROM user_state") == [(1, False, True)]


def test_saving_the_same_again_changes_only_when_it_was_read(database: Database) -> None:
    for read_at in (FIRST, THEN):
        save_users(database, [user(1, "Nasa"), user(2, "Esa")], read_at=read_at)

    assert names(database) == [(1, "Nasa", FIRST, None), (2, "Esa", FIRST, None)]
    assert database.execute("SELECT DISTINCT availability_since >= profile_read_at, profile_read_at FROM users") == [
        (True, THEN)
    ]


def test_a_rename_keeps_the_row_and_both_names_with_their_dates(database: Database) -> None:
    save_users(database, [user(1, "before")], read_at=FIRST)
    save_users(database, [user(1, "after")], read_at=THEN)

    assert (holders(database), names(database)) == (
        [(1, "after")],
        [(1, "before", FIRST, THEN), (1, "after", THEN, None)],
    )
    found = find_users(database, ["before", "after"])
    assert {name: (known.id, known.is_former_name) for name, known in found.items()} == {
        "before": (1, True),
        "after": (1, False),
    }


def test_a_recycled_name_belongs_to_whoever_holds_it_now(database: Database) -> None:
    save_users(database, [user(1, "wanted")], read_at=FIRST)
    save_users(database, [user(2, "Wanted")], read_at=THEN)

    assert (holders(database), names(database)) == (
        [(1, None), (2, "Wanted")],
        [(1, "wanted", FIRST, THEN), (2, "Wanted", THEN, None)],
    )
    assert find_users(database, ["wanted"])["wanted"].id == 2


def test_whoever_lost_a_name_is_found_under_the_new_one(database: Database) -> None:
    save_users(database, [user(1, "wanted")], read_at=FIRST)
    save_users(database, [user(2, "wanted")], read_at=THEN)
    save_users(database, [user(1, "moved")], read_at=LATER)

    assert holders(database) == [(1, "moved"), (2, "wanted")]
    assert names(database)[-1] == (1, "moved", LATER, None)


def test_two_accounts_may_swap_their_names_between_two_reads(database: Database) -> None:
    save_users(database, [user(1, "one"), user(2, "two")], read_at=FIRST)
    save_users(database, [user(1, "two"), user(2, "one")], read_at=THEN)

    assert holders(database) == [(1, "two"), (2, "one")]
    assert [row[:2] for row in names(database) if row[3] is None] == [(1, "two"), (2, "one")]


def test_an_account_that_takes_its_old_name_back_has_it_twice_in_its_history(database: Database) -> None:
    for read_at, name in ((FIRST, "old"), (THEN, "new"), (LATER, "old")):
        save_users(database, [user(1, name)], read_at=read_at)

    assert [row[1] for row in names(database)] == ["old", "new", "old"]


def test_a_name_written_in_another_case_is_the_same_name(database: Database) -> None:
    save_users(database, [user(1, "NASA")], read_at=FIRST)
    save_users(database, [user(1, "Nasa")], read_at=THEN)

    assert holders(database) == [(1, "Nasa")]
    assert find_users(database, ["nasa"])["nasa"].is_former_name is False


def test_who_is_meant_by_a_name_that_several_had_is_said(database: Database) -> None:
    save_users(database, [user(1, "Wanted"), user(4, "other")], read_at=FIRST)
    save_users(database, [user(2, "wanted")], read_at=THEN)
    save_users(database, [user(1, "moved"), user(3, "wanted"), user(4, "renamed")], read_at=LATER)
    terminal = Terminal(Console(file=io.StringIO()), Console(file=(err := io.StringIO()), width=1000))
    found = find_named(terminal, database, ["wanted", "renamed", "other"])

    assert {name: known.id for name, known in found.items()} == {"wanted": 3, "renamed": 4, "other": 4}
    assert err.getvalue().splitlines() == [
        "@other is a former name: @renamed (id 4) is meant",
        "@wanted is id 3; @moved (id 1) had this name until 2026-11-04 and is left out",
        "@wanted is id 3; id 2 had this name until 2026-11-10 and is left out",
    ]


def test_of_several_former_holders_the_last_is_found(database: Database) -> None:
    save_users(database, [user(1, "wanted")], read_at=FIRST)
    save_users(database, [user(2, "wanted")], read_at=THEN)
    save_users(database, [user(2, "moved")], read_at=LATER)

    found = find_users(database, ["wanted"])["wanted"]
    assert (found.id, found.is_former_name) == (2, True)


def test_names_that_nobody_had_are_left_out(database: Database) -> None:
    assert find_users(database, ["nobody", "no_one"]) == {}


def test_availability_keeps_since_when_it_is_so(database: Database) -> None:
    save_users(database, [user(1, "someone")], read_at=FIRST)
    for at in (THEN, LATER):
        save_availability(database, 1, Availability.SUSPENDED, reason="X says so", at=at)

    rows = database.execute("SELECT availability::text, availability_reason, availability_since FROM users")
    assert rows == [("suspended", "X says so", THEN)]


def test_an_account_that_is_back_is_active_since_it_was_read(database: Database) -> None:
    save_users(database, [user(1, "someone")], read_at=FIRST)
    save_availability(database, 1, Availability.NOT_FOUND, reason="gone", at=THEN)
    save_users(database, [user(1, "someone")], read_at=LATER)

    rows = database.execute("SELECT availability::text, availability_reason, availability_since FROM users")
    assert rows == [("active", None, LATER)]


def test_a_protected_profile_makes_the_account_protected(database: Database) -> None:
    save_users(database, [user(1, "someone", protected=True)], read_at=FIRST)

    assert find_users(database, ["someone"])["someone"].availability is Availability.PROTECTED


def test_tracking_tells_what_it_changed_and_keeps_since_when(database: Database) -> None:
    save_users(database, [user(1, "one"), user(2, "two")], read_at=FIRST)
    changed = [set_tracked(database, [1], tracked=True), set_tracked(database, [1, 2, 3], tracked=True)]
    since = database.execute("SELECT tracked_since IS NOT NULL FROM user_state")
    ended = set_tracked(database, [1, 2], tracked=False)

    assert (changed, since, ended) == ([{1}, {2}], [(True,), (True,)], {1, 2})
    assert database.execute("SELECT DISTINCT is_tracked, tracked_since FROM user_state") == [(False, None)]


@pytest.mark.parametrize("text", ["a\u0000b", "\ud83d", "\U0001f680 ok", "quote ' and \\"])
def test_profiles_with_text_that_postgresql_refuses_are_saved(database: Database, text: str) -> None:
    escaped = text.encode("unicode_escape").replace(b"\\x00", b"\\u0000").replace(b"\\U0001f680", b"\\ud83d\\ude80")
    body = b'{"data": [{"id": "1", "username": "x", "name": "%b", "description": "%b"}]}' % (escaped, escaped)
    save_users(database, read_users(body).users, read_at=FIRST)

    assert len(database.execute("SELECT name, raw FROM users")) == 1


def test_threads_that_save_the_same_accounts_do_not_deadlock(database: Database) -> None:
    users = [user(number, f"user_{number}") for number in range(1, 41)]

    def save(number: int) -> None:
        for _ in range(4):
            save_users(database, users[::-1] if number % 2 else users, read_at=FIRST + timedelta(seconds=number))

    with ThreadPoolExecutor(4) as threads:
        for saved in [threads.submit(save, number) for number in range(4)]:
            saved.result(timeout=30)

    assert len(holders(database)) == 40
