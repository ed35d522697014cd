"""Importing files: again and again, in any order, and never to the harm of what is stored."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twitter_pipeline.cli import main
from twitter_pipeline.importing import importer
from twitter_pipeline.importing.files import recognise
from twitter_pipeline.importing.found import Author
from twitter_pipeline.importing.importer import FileReport, Importer, ImportReport
from twitter_pipeline.prices import Prices
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import VANISHED, close_vanished_runs, load_run
from twitter_pipeline.store.tokens import register_tokens
from twitter_pipeline.store.users import save_users
from twitter_pipeline.words import FetchKind, RunStatus
from twitter_pipeline.x_api.parsing import User, read_users

PAYLOADS = Path(__file__).parent.parent / "payloads" / "import"
PAGES, FLATTENED = PAYLOADS / "twarc2_pages.jsonl", PAYLOADS / "twarc2_flattened.jsonl"
SCRIPTS = [PAYLOADS / "archive" / "data" / name for name in ("tweets.js", "tweets-part1.js")]

NOW = datetime(2026, 5, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
ADA = 1000000001


def bring(database: Database, *paths: Path, owner: Author | None = None, now: datetime = NOW) -> ImportReport:
    files = [recognise(str(path), owner=owner) for path in paths]
    return Importer(database, owner=owner, prices=Prices(), now=now).run(files)


def everything(database: Database) -> list[tuple[Any, ...]]:
    """All that an import writes but for its own run, byte for byte."""
    return [
        *database.execute("SELECT t::text, xmin FROM tweets t ORDER BY id"),
        *database.execute("SELECT u::text, xmin FROM users u ORDER BY id"),
        *database.execute("SELECT n::text, xmin FROM user_names n ORDER BY user_id, seen_from"),
        *database.execute("SELECT s::text, xmin FROM user_state s ORDER BY user_id"),
    ]


def page(*, read_at: datetime | None, user: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A response with one tweet of author 12, read at this instant or nobody knows when."""
    metrics = {"like_count": 1, "retweet_count": 1, "reply_count": 1, "quote_count": 1}
    created_at = "2020-01-01T00:00:00.000Z"
    tweet = {
        "id": "200",
        "author_id": "12",
        "text": "hello",
        "created_at": created_at,
        "public_metrics": metrics,
        **fields,
    }
    stamp = {} if read_at is None else {"__twarc": {"retrieved_at": read_at.isoformat()}}
    return {"data": [tweet], "includes": {"users": [user] if user else []}, **stamp}


def profile(username: str, *, user_id: int = 12, **fields: Any) -> dict[str, Any]:
    metrics = {"followers_count": 1, "following_count": 2, "tweet_count": 3, "listed_count": 4}
    return {"id": str(user_id), "username": username, "name": username, "public_metrics": metrics, **fields}


Bring = Callable[..., ImportReport]


@pytest.fixture
def bring_pages(database: Database, tmp_path: Path) -> Bring:
    """Import pages that are given as values, as a file of JSON lines."""

    def bring_lines(*pages: dict[str, Any]) -> ImportReport:
        path = tmp_path / "pages.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in pages))
        return bring(database, path)

    return bring_lines


def stored(database: Database) -> dict[str, Any]:
    (row,) = database.execute(
        "SELECT text, like_count, bookmark_count, last_read_at, last_read_run_id, first_read_run_id, deleted_seen_at"
        " FROM tweets"
    )
    names = ("text", "likes", "bookmarks", "last_read_at", "last_read_run_id", "first_read_run_id", "deleted_seen_at")
    return dict(zip(names, row, strict=True))


def likes(count: int, **others: int) -> dict[str, Any]:
    metrics = {"like_count": count, "retweet_count": 1, "reply_count": 1, "quote_count": 1, **others}
    return {"public_metrics": metrics}


def test_importing_again_changes_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "BATCH_TWEETS", 2)
    first = bring(database, PAGES, FLATTENED, *SCRIPTS)
    before = everything(database)
    again = bring(database, *SCRIPTS, PAGES, FLATTENED)

    assert [(each.tweets, each.new, each.updated) for each in first.files] == [
        (4, 4, 0),
        (4, 0, 0),
        (2, 0, 0),
        (2, 1, 0),
    ]
    assert [(each.tweets, each.new, each.updated) for each in again.files] == [
        (2, 0, 0),
        (2, 0, 0),
        (4, 0, 0),
        (4, 0, 0),
    ]
    assert everything(database) == before


def test_an_import_is_a_run_that_claims_nothing_and_costs_nothing(database: Database) -> None:
    imported = bring(database, PAGES)
    run = load_run(database, run_id=imported.fetch_run_id)

    assert run is not None
    assert (run.kind, run.status, run.tweets_fetched, run.tweets_new) == (FetchKind.IMPORT, RunStatus.DONE, 4, 4)
    assert (run.calls, run.billed_posts, run.cost_usd, run.error) == (0, 0, 0, None)
    assert [(each.username, each.user_id, each.fetch_mode, each.tweets_new) for each in run.account_reports] == [
        ("ada_example", ADA, "import", 4)
    ]
    assert database.execute("SELECT request FROM fetch_runs") == [
        (
            [
                {
                    "file": "twarc2_pages.jsonl",
                    "format": "responses of the API",
                    "bytes": PAGES.stat().st_size,
                    "sha256": imported.files[0].sha256,
                }
            ],
        )
    ]
    assert database.execute(
        "SELECT DISTINCT first_read_run_id, last_read_run_id, first_read_at = last_read_at FROM tweets"
    ) == [(run.id, run.id, True)]
    assert database.execute(
        "SELECT user_id, isempty(covered), isempty(searched), isempty(unreachable), last_seen_id FROM user_state"
    ) == [(ADA, True, True, True, None)]
    assert database.execute("SELECT username, tweet_count, availability::text, profile_read_at FROM users") == [
        ("ada_example", 300, "active", datetime(2023, 3, 15, 15, 53, 21, tzinfo=UTC))
    ]


def test_referenced_tweets_stay_with_the_tweet_that_refers_to_them(database: Database) -> None:
    bring(database, FLATTENED)

    assert database.execute("SELECT count(*), count(DISTINCT author_id) FROM tweets") == [(4, 1)]
    assert database.execute("SELECT raw #>> '{includes,tweets,0,id}' FROM tweets WHERE kind = 'retweet'") == [
        ("1600000000000000003",)
    ]


def test_what_was_read_later_wins_in_whatever_order_it_is_imported(database: Database, bring_pages: Bring) -> None:
    older, newer = page(read_at=NOW - 2 * YEAR, **likes(5)), page(read_at=NOW - YEAR, **likes(9))
    first = bring_pages(older)
    second = bring_pages(newer)
    third = bring_pages(older)

    assert [(each.files[0].new, each.files[0].updated) for each in (first, second, third)] == [(1, 0), (0, 1), (0, 0)]
    after = stored(database)
    assert (after["likes"], after["last_read_at"]) == (9, NOW - YEAR)
    assert (after["first_read_run_id"], after["last_read_run_id"]) == (first.fetch_run_id, second.fetch_run_id)


def test_of_a_tweet_that_is_in_a_file_twice_the_later_reading_stays(database: Database, bring_pages: Bring) -> None:
    versions = [page(read_at=NOW - YEAR * number, **likes(number)) for number in (3, 1, 2)]
    bring_pages(*versions)

    assert (stored(database)["likes"], stored(database)["last_read_at"]) == (1, NOW - YEAR)


@pytest.mark.parametrize(
    ("poorer", "counts"),
    [
        (page(read_at=NOW, text="hello world", public_metrics={"like_count": 9}), (9, 2)),
        (page(read_at=NOW, text="hello wor…", **likes(9, bookmark_count=1)), (9, 1)),
    ],
    ids=["without counts", "with the text cut"],
)
def test_a_poorer_reading_brings_its_counts_and_removes_nothing(
    database: Database, bring_pages: Bring, poorer: dict[str, Any], counts: tuple[int, int]
) -> None:
    bring_pages(page(read_at=NOW - YEAR, text="hello world", **likes(1, bookmark_count=2)))
    report = bring_pages(poorer)
    after = stored(database)

    assert (after["text"], after["likes"], after["bookmarks"], after["last_read_at"]) == ("hello world", *counts, NOW)
    assert report.files[0].updated == 1


def test_an_undated_reading_changes_nothing(database: Database, bring_pages: Bring) -> None:
    bring_pages(page(read_at=NOW - YEAR, **likes(1)))
    before = everything(database)
    bring_pages(page(read_at=None, text="hello world", **likes(9, bookmark_count=1)))

    assert everything(database) == before


def test_a_deleted_tweet_does_not_come_back(database: Database, bring_pages: Bring) -> None:
    bring_pages(page(read_at=NOW - 3 * YEAR))
    database.execute("UPDATE tweets SET text = '', raw = '{}', like_count = NULL, deleted_seen_at = %s", (NOW - YEAR,))
    before = everything(database)
    bring_pages(page(read_at=NOW - 2 * YEAR))

    assert everything(database) == before


def test_a_tweet_that_was_read_after_it_was_missed_is_not_deleted(database: Database, bring_pages: Bring) -> None:
    bring_pages(page(read_at=NOW - 3 * YEAR))
    database.execute("UPDATE tweets SET deleted_seen_at = %s", (NOW - 2 * YEAR,))
    bring_pages(page(read_at=NOW - YEAR, **likes(9)))

    assert (stored(database)["deleted_seen_at"], stored(database)["likes"]) == (None, 9)


@given(st.permutations([(3, 5), (2, 6), (1, 7)]), st.lists(st.booleans(), min_size=3, max_size=3))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_files_does_not_matter(
    database: Database, bring_pages: Bring, readings: list[tuple[int, int]], twice: list[bool]
) -> None:
    database.execute("TRUNCATE tweets, users, user_names, user_state CASCADE")
    for (years, count), again in zip(readings, twice, strict=True):
        for _ in range(1 + again):
            bring_pages(page(read_at=NOW - years * YEAR, user=profile(f"name_{years}"), **likes(count)))

    assert (stored(database)["likes"], stored(database)["last_read_at"]) == (7, NOW - YEAR)
    assert database.execute("SELECT username, profile_read_at FROM users") == [("name_1", NOW - YEAR)]
    assert {name for (name,) in database.execute("SELECT username FROM user_names")} == {"name_1", "name_2", "name_3"}


def read_profile(username: str, **fields: Any) -> User:
    (user,) = read_users(json.dumps({"data": [profile(username, **fields)]}).encode()).users
    return user


def names(database: Database) -> dict[int, str | None]:
    return dict(database.execute("SELECT id, username FROM users"))


def test_a_name_that_an_old_file_tells_does_not_take_the_place_of_todays(
    database: Database, bring_pages: Bring
) -> None:
    save_users(database, [read_profile("ada_now", followers_count=7)], read_at=NOW - YEAR)
    bring_pages(page(read_at=NOW - 2 * YEAR, user=profile("ada_then", description="then")))

    assert database.execute("SELECT username, description, profile_read_at FROM users") == [
        ("ada_now", None, NOW - YEAR)
    ]
    assert database.execute("SELECT username, seen_from, seen_until FROM user_names ORDER BY seen_from") == [
        ("ada_then", NOW - 2 * YEAR, NOW - 2 * YEAR),
        ("ada_now", NOW - YEAR, None),
    ]


def test_a_newer_file_brings_name_and_profile_up_to_date(database: Database, bring_pages: Bring) -> None:
    save_users(database, [read_profile("ada_then")], read_at=NOW - 2 * YEAR)
    bring_pages(page(read_at=NOW - YEAR, user=profile("ada_now", description="now")))

    assert database.execute("SELECT username, description, profile_read_at FROM users") == [
        ("ada_now", "now", NOW - YEAR)
    ]
    assert database.execute("SELECT username, seen_until FROM user_names ORDER BY seen_from") == [
        ("ada_then", NOW - YEAR),
        ("ada_now", None),
    ]


def test_a_name_that_changed_hands_belongs_to_whoever_was_seen_with_it_last(
    database: Database, bring_pages: Bring
) -> None:
    save_users(database, [read_profile("nasa", user_id=99)], read_at=NOW - 2 * YEAR)
    bring_pages(page(read_at=NOW - 3 * YEAR, user=profile("NASA")))
    assert names(database) == {99: "nasa", 12: None}

    bring_pages(page(read_at=NOW - YEAR, user=profile("NASA")))
    assert names(database) == {99: None, 12: "NASA"}


def test_authors_who_swap_names_within_a_file_get_the_last_ones(database: Database, bring_pages: Bring) -> None:
    def one(years: int, user_id: int, name: str) -> dict[str, Any]:
        return page(
            read_at=NOW - years * YEAR,
            user=profile(name, user_id=user_id),
            id=str(user_id),
            author_id=str(user_id),
        )

    bring_pages(one(1, 5, "right"), one(1, 6, "left"), one(3, 5, "left"), one(3, 6, "right"), one(2, 7, "left"))

    assert names(database) == {5: "right", 6: "left", 7: None}


def test_that_an_account_was_suspended_since_is_not_forgotten(database: Database, bring_pages: Bring) -> None:
    save_users(database, [read_profile("ada")], read_at=NOW - 3 * YEAR)
    database.execute(
        "UPDATE users SET availability = 'suspended', availability_reason = 'gone', availability_since = %s",
        (NOW - YEAR,),
    )
    bring_pages(page(read_at=NOW - 2 * YEAR, user=profile("ada", description="new")))

    assert database.execute("SELECT availability::text, availability_reason, description FROM users") == [
        ("suspended", "gone", "new")
    ]


def test_an_author_of_whom_only_the_id_is_told_is_stored_without_a_name(database: Database, bring_pages: Bring) -> None:
    report = bring_pages(page(read_at=NOW - YEAR))
    run = load_run(database, run_id=report.fetch_run_id)

    assert database.execute("SELECT id, username, profile_read_at FROM users") == [(12, None, None)]
    assert run is not None
    assert [(each.username, each.user_id) for each in run.account_reports] == [("id 12", 12)]

    bring_pages(page(read_at=None, user=profile("ada")))
    assert database.execute("SELECT username, tweet_count, profile_read_at FROM users") == [("ada", 3, None)]


def test_what_cannot_be_read_makes_the_run_partial(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(PAGES.read_bytes() + b"{}\n" * 9)
    report = bring(database, path)
    run = load_run(database, run_id=report.fetch_run_id)

    assert run is not None
    assert (run.status, run.tweets_new, report.is_complete) == (RunStatus.PARTIAL, 4, False)
    assert str(run.error).startswith(f"{path}: 9 places could not be read: line 3: expected a response")
    assert str(run.error).endswith("; and 4 more")


def many(count: int) -> bytes:
    """A file of so many tweets, one a line."""
    return b"".join(json.dumps(page(read_at=NOW, id=str(number))).encode() + b"\n" for number in range(1, count + 1))


def count_tweets(database: Database) -> int:
    return int(database.execute("SELECT count(*) FROM tweets")[0][0])


def test_an_import_that_is_killed_is_closed_and_completed_by_the_next(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "many.jsonl"
    path.write_bytes(many(5000))
    words = [sys.executable, "-m", "twitter_pipeline.cli", "import", "-"]
    with subprocess.Popen(
        words, env={**os.environ, "DATABASE_URL": database_url}, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        process.stdin.write(many(2500))
        process.stdin.flush()
        give_up_at = time.monotonic() + 60
        while count_tweets(database) == 0:
            assert time.monotonic() < give_up_at
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    # The server notices a moment later that the process has gone.
    while (killed := load_run(database, run_id=1)) is None or killed.status is RunStatus.RUNNING:
        assert time.monotonic() < give_up_at
        close_vanished_runs(database, prices=Prices(), grace_s=0)

    assert (killed.status, killed.error, killed.tweets_new) == (RunStatus.FAILED, VANISHED, 2000)
    report = bring(database, path)
    assert (report.files[0].new, count_tweets(database)) == (3000, 5000)


def test_an_import_that_is_interrupted_keeps_what_it_has_written(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH_TWEETS", 10)
    path = tmp_path / "many.jsonl"
    path.write_bytes(many(50))
    files = [recognise(str(path), owner=None)]

    def interrupt(report: FileReport) -> None:
        if report.tweets >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Importer(database, owner=None, prices=Prices(), now=NOW, progress=interrupt).run(files)
    run = load_run(database, run_id=1)

    assert run is not None
    assert (run.status, run.tweets_new, count_tweets(database)) == (RunStatus.CANCELLED, 30, 30)


def command(*words: str) -> int:
    return main(["import", *words])


@pytest.fixture
def _configured(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)


@pytest.mark.usefixtures("_configured")
def test_the_command_tells_what_became_of_each_file(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(PAGES.read_bytes() + b"oops\n")

    assert command(str(PAGES), str(FLATTENED)) == 0
    shown = capsys.readouterr().out
    assert [line.split()[-4:] for line in shown.splitlines() if ".jsonl" in line] == [
        ["4", "4", "0", "0"],
        ["4", "0", "0", "0"],
    ]
    assert "Run 1 done | 8 tweets, 4 new" in shown

    assert command(str(bad), "--json") == 1
    said = capsys.readouterr()
    (told,) = json.loads(said.out)["files"]
    assert (told["tweets"], told["new"], told["kept"], told["unreadable"]) == (4, 0, 4, 1)
    assert f"{bad}: one place could not be read: line 3: expected" in said.err
    assert count_tweets(database) == 4


@pytest.mark.usefixtures("_configured")
def test_strict_imports_nothing_of_a_file_with_a_bad_line(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(PAGES.read_bytes() + b"oops\n")

    assert command(str(PAGES), str(bad), "--strict") == 2
    assert f"Nothing was imported.\n{bad}: one place could not be read: line 3: " in capsys.readouterr().err
    assert (count_tweets(database), database.execute("SELECT count(*) FROM fetch_runs")) == (0, [(0,)])
    assert command(str(PAGES), "--strict") == 0


@pytest.mark.usefixtures("_configured")
def test_a_wrong_file_stops_all_before_anything_is_written(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "letter.txt"
    wrong.write_text("Dear all,\n")

    assert command(str(PAGES), str(wrong)) == 2
    assert f"The file {wrong} cannot be imported: line 1: expected a response of the API" in capsys.readouterr().err
    assert (count_tweets(database), database.execute("SELECT count(*) FROM fetch_runs")) == (0, [(0,)])


@pytest.mark.usefixtures("_configured")
def test_standard_input_takes_lines(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pipe(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    pipe(PAGES.read_bytes())
    assert (command("-"), count_tweets(database)) == (0, 4)
    pipe(json.dumps([{}]).encode())
    assert command("-") == 2
    pipe(b"")
    assert command("-", "--strict") == 2
    assert capsys.readouterr().err.count("Standard input cannot be imported: line 1: expected") == 2


@pytest.mark.usefixtures("_configured")
def test_the_account_of_a_script_is_given_by_id_or_by_a_name_that_is_known(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "tweets.js"
    script.write_bytes(SCRIPTS[0].read_bytes())

    assert command(str(script)) == 2
    assert command(str(script), "--account", "@ada_example") == 2
    assert command(str(script), "--account", "ada_example") == 2
    said = capsys.readouterr().err
    assert "say whose they are: --account ID or --account @NAME" in said
    assert "No account @ada_example is stored" in said
    assert "--account takes an account's id, or @NAME; got ada_example" in said

    save_users(database, [read_profile("ada_example", user_id=ADA)], read_at=NOW)
    assert command(str(script), "--account", "@Ada_Example") == 0
    assert database.execute("SELECT DISTINCT author_id FROM tweets") == [(ADA,)]
    assert command(str(script), "--account", "77") == 0
    assert database.execute("SELECT DISTINCT author_id FROM tweets") == [(ADA,)]


@pytest.mark.usefixtures("_configured")
def test_made_up_tweets_do_not_come_among_real_ones(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"version": 1, "author": {"id": "1", "username": "ada"}, "sandbox": True, "id": "20"}
    path = tmp_path / "export.jsonl"
    path.write_text(json.dumps({"data": {}, "includes": {}, "twitter_pipeline": told}) + "\n")
    register_tokens(database, ["TWITTER_BEARER_1"], [])

    assert command(str(path)) == 2
    assert "is an export of the sandbox: its tweets are made up" in capsys.readouterr().err


@pytest.mark.usefixtures("_configured")
def test_that_real_tweets_come_among_made_up_ones_is_told(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    register_tokens(database, ["TWITTER_BEARER_SANDBOX_1"], [])

    assert command(str(PAGES)) == 0
    assert "Warning: this database holds the sandbox's made-up tweets" in capsys.readouterr().err
