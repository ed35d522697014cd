"""`export` on a real database: what is chosen, in which order, from which instant, and what becomes of a broken one."""

import csv
import gzip
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import psycopg
import pyarrow.parquet as pq
import pytest

from twitter_pipeline.cli import main
from twitter_pipeline.exporting.destination import new_file
from twitter_pipeline.exporting.export import ExportFormat, export_tweets
from twitter_pipeline.exporting.lines import joined
from twitter_pipeline.settings import load_settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.exports import BATCH, NEVER_SORT, ROWS, Selection, StoredTweet, snapshot
from twitter_pipeline.store.tokens import register_tokens

AT = datetime(2026, 11, 1, 12, 0, 0, 5, tzinfo=UTC)
NASA, ESA = 11, 12
FORMATS = list(ExportFormat)
COLUMNS = [name for name in StoredTweet._fields if name not in ("username", "sandbox")]

ODD_TEXTS = [
    "",
    " ",
    "\\N",
    "\\.",
    "NULL",
    '=HYPERLINK("https://d.example","x")',
    'one, "two"\nthree\r\nfour\rfive;\t\\six',
    "\u2028\u2029\x01\x1b[2J\x7f\x9b \u05e9\u05dc\u05d5\u05dd 🚀",
]
ODD_RAWS = [
    b'{"id":"1","text":"\\u0000\\ud83d \\"x\\" \\n","includes":{"media":[{"media_key":"3_1"}]}}',
    b'{\n  "id": "1",\r\n\t"b": 1e400, "b": [2]\n}',
    b"{}",
    '{"id":"1","text":"=1+1, \u2028🚀","includes":{}}'.encode(),
]


def tweet(tweet_id: int, **values: Any) -> StoredTweet:
    named: dict[str, Any] = dict.fromkeys(StoredTweet._fields) | {
        "id": tweet_id,
        "author_id": NASA,
        "username": "nasa",
        "created_at": AT,
        "kind": "original",
        "text": "hello",
        "first_read_at": AT,
        "last_read_at": AT,
        "sandbox": False,
        "raw": b'{"id":"%d","includes":{}}' % tweet_id,
    }
    return StoredTweet(**{**named, **values})


def store(database: Database, tweets: Sequence[StoredTweet]) -> None:
    values = ", ".join(f"%({name})s{'::json' if name == 'raw' else ''}" for name in COLUMNS)
    statement = f"INSERT INTO tweets ({', '.join(COLUMNS)}) VALUES ({values})"
    with database.transaction() as connection:
        rows = [{**each._asdict(), "raw": each.raw.decode()} for each in tweets]
        connection.cursor().executemany(cast("Any", statement), rows)


ODD = [
    tweet(
        number,
        author_id=NASA if number % 2 else 99,
        username="nasa" if number % 2 else None,
        text=text,
        raw=ODD_RAWS[number % len(ODD_RAWS)],
        kind="reply",
        lang=["en", None, ""][number % 3],
        created_at=AT - timedelta(microseconds=number),
        conversation_id=2**63 - 1,
        edit_history_ids=[None, [], [number, 2**62]][number % 3],
        like_count=0,
        impression_count=10**12,
        first_read_run_id=3,
        deleted_seen_at=AT if number % 2 else None,
    )
    for number, text in enumerate(ODD_TEXTS, start=1)
]


@pytest.fixture
def accounts(database: Database) -> None:
    database.execute("INSERT INTO users (id, username) VALUES (%s, 'nasa'), (%s, 'esa')", (NASA, ESA))


@pytest.fixture
def odd(accounts: None, database: Database) -> list[StoredTweet]:
    store(database, ODD)
    return ODD


def exported(
    database: Database, form: ExportFormat, selection: Selection | None = None, *, ids_only: bool = False
) -> bytes:
    file = io.BytesIO()
    with snapshot(database, sandbox=False) as stored:
        export_tweets(stored, selection or Selection(), file, form, ids_only=ids_only)
    return file.getvalue()


def read_csv(content: bytes, database: Database) -> list[StoredTweet]:
    """Read CSV back by PostgreSQL's own reader."""
    header = content.split(b"\n", 1)[0].decode()
    assert header == ",".join(StoredTweet._fields)
    with database.transaction() as connection:
        connection.execute("SET LOCAL TIME ZONE 'UTC'; SET LOCAL DateStyle = 'ISO'")
        connection.execute("CREATE TEMP TABLE back (LIKE tweets, username text, sandbox boolean) ON COMMIT DROP")
        with connection.cursor().copy(cast("Any", f"COPY back ({header}) FROM STDIN (FORMAT csv, HEADER)")) as copy:
            copy.write(content)
        rows = connection.execute(cast("Any", f"SELECT {header.replace('raw', 'raw::text')} FROM back ORDER BY id"))
        return [StoredTweet(*row[:-1], row[-1].encode()) for row in rows]


def read_jsonl(content: bytes) -> list[StoredTweet]:
    return [_of_line(line) for line in content.split(b"\n")[:-1]]


def _of_line(line: bytes) -> StoredTweet:
    told = json.loads(line)["twitter_pipeline"]
    if "raw" not in told:
        data, rest = line.removeprefix(b'{"data":').split(b',"includes":', 1)
        told["raw"] = joined(data, rest.split(b',"twitter_pipeline":')[0]).decode()
    author = told.pop("author")
    del told["version"]
    return _typed({**told, "author_id": author["id"], "username": author["username"]})


def read_parquet(content: bytes) -> list[StoredTweet]:
    return [_typed(row) for row in pq.read_table(io.BytesIO(content)).to_pylist()]


def _typed(row: dict[str, Any]) -> StoredTweet:
    for name, value in row.items():
        if name.endswith("_at") and isinstance(value, str):
            row[name] = datetime.fromisoformat(value)
        elif (name == "id" or name.endswith("_id")) and value is not None:
            row[name] = int(value)
    if row["edit_history_ids"] is not None:
        row["edit_history_ids"] = [int(each) for each in row["edit_history_ids"]]
    return StoredTweet(**{**row, "raw": row["raw"].encode()})


def read(form: ExportFormat, content: bytes, database: Database) -> list[StoredTweet]:
    match form:
        case ExportFormat.CSV:
            return read_csv(content, database)
        case ExportFormat.JSONL:
            return read_jsonl(content)
        case ExportFormat.PARQUET:
            return read_parquet(content)


@pytest.mark.parametrize("form", FORMATS)
def test_every_value_comes_out_as_it_is_stored_in_the_order_of_ids(
    form: ExportFormat, odd: list[StoredTweet], database: Database
) -> None:
    assert read(form, exported(database, form), database) == odd


def test_csv_is_what_every_reader_of_rfc_4180_understands(odd: list[StoredTweet], database: Database) -> None:
    rows = list(csv.DictReader(io.StringIO(exported(database, ExportFormat.CSV).decode(), newline="")))

    assert [row["text"] for row in rows] == ODD_TEXTS
    assert [row["raw"].encode() for row in rows] == [each.raw for each in odd]
    assert [row["edit_history_ids"] for row in rows[:3]] == ["{}", "{2,4611686018427387904}", ""]
    assert rows[0]["created_at"] == "2026-11-01 12:00:00.000004+00"


@pytest.mark.parametrize("form", FORMATS)
def test_instants_are_in_utc_whatever_the_server_is_set_to(
    form: ExportFormat, odd: list[StoredTweet], database: Database
) -> None:
    name = database.engine.url.database
    database.execute(cast("Any", f"ALTER DATABASE {name} SET timezone = 'Asia/Kolkata'"))
    database.execute(cast("Any", f"ALTER DATABASE {name} SET datestyle = 'German, DMY'"))
    database.close()

    assert read(form, exported(database, form), database) == odd


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        (Selection(), [1, 2, 3, 4]),
        (Selection([NASA]), [1, 2, 4]),
        (Selection([NASA, ESA]), [1, 2, 3, 4]),
        (Selection([]), []),
        (Selection(since=AT), [2, 3, 4]),
        (Selection(until=AT), [1]),
        (Selection([NASA], since=AT, until=AT + timedelta(hours=1)), [2]),
        (Selection(without_deleted=True), [1, 2, 3]),
    ],
)
def test_what_is_chosen_is_written_and_nothing_else(
    form: ExportFormat, selection: Selection, ids: list[int], accounts: None, database: Database
) -> None:
    last = tweet(4, created_at=AT + timedelta(hours=1), deleted_seen_at=AT)
    store(database, [last, tweet(1, created_at=AT - timedelta(seconds=1)), tweet(3, author_id=ESA), tweet(2)])
    whole = [each.id for each in read(form, exported(database, form, selection), database)]
    only_ids = exported(database, form, selection, ids_only=True)

    assert whole == ids
    assert read_ids(form, only_ids) == ids


def read_ids(form: ExportFormat, content: bytes) -> list[int]:
    """Read a file that holds nothing but ids."""
    match form:
        case ExportFormat.CSV:
            header, *lines = content.decode().splitlines()
            assert header == "id"
            return list(map(int, lines))
        case ExportFormat.JSONL:
            return [int(json.loads(line)["id"]) for line in content.splitlines()]
        case ExportFormat.PARQUET:
            table = pq.read_table(io.BytesIO(content))
            assert table.column_names == ["id"]
            return table["id"].to_pylist()


class Watched(io.BytesIO):
    """A file at whose first bytes something happens."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self._happens = [happens]

    def write(self, content: Any, /) -> int:
        while self._happens:
            self._happens.pop()()
        return super().write(content)

    def writelines(self, lines: Any, /) -> None:
        self.write(b"".join(lines))


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_run_writes_meanwhile_does_no_harm(form: ExportFormat, accounts: None, database: Database) -> None:
    before = [tweet(number) for number in range(1, 2 * BATCH + 2)]
    store(database, before)

    def write_meanwhile() -> None:
        store(database, [tweet(0), tweet(5 * BATCH)])
        database.execute("UPDATE tweets SET text = 'other', deleted_seen_at = now() WHERE id > %s", (BATCH,))
        database.execute("DELETE FROM tweets WHERE id = %s", (2 * BATCH,))

    file = Watched(write_meanwhile)
    with snapshot(database, sandbox=False) as stored:
        count = export_tweets(stored, Selection(), file, form, ids_only=False)

    assert count == len(before)
    assert read(form, file.getvalue(), database) == before


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("ids_only", [False, True])
def test_a_database_that_goes_away_leaves_no_half_file(
    form: ExportFormat, ids_only: bool, accounts: None, database: Database, tmp_path: Path
) -> None:
    database.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, raw)"
        " SELECT n, %s, now(), 'original', repeat(md5(n::text), 40), '{}' FROM generate_series(1, 20000) n",
        (NASA,),
    )

    def go_away() -> None:
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
            " AND state <> 'idle'"
        )

    def export_to_file() -> None:
        with new_file(tmp_path / "tweets", compressed=False) as file, snapshot(database, sandbox=False) as stored:
            export_tweets(stored, Selection(), cast("BinaryIO", Breaking(file, go_away)), form, ids_only=ids_only)

    with pytest.raises(psycopg.OperationalError):
        export_to_file()
    assert list(tmp_path.iterdir()) == []


class Breaking(Watched):
    """A file that is written through, at whose first bytes something happens."""

    def __init__(self, file: BinaryIO, happens: Callable[[], object]) -> None:
        super().__init__(happens)
        self._file = file

    def write(self, content: Any, /) -> int:
        super().write(content)
        return self._file.write(content)


def test_all_tweets_come_by_the_index_and_are_not_sorted(accounts: None, database: Database) -> None:
    """A sort of whole tweets would write them all once more onto the server's disk."""
    database.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, raw)"
        " SELECT hashint8extended(n, 0), n %% 50, now(), 'original', repeat('x', 500), '{}'"
        " FROM generate_series(1, 20000) n"
    )
    database.execute("ANALYZE tweets")
    with database.transaction() as connection:
        # As on a disk that is slow to seek.
        connection.execute("SET LOCAL random_page_cost = 100")
        left_to_itself = plan_of_all(connection)
        connection.execute(NEVER_SORT)
        told = plan_of_all(connection)

    assert "Sort  (" in left_to_itself
    assert "Sort  (" not in told
    assert "tweets_2010_pkey" in told


def plan_of_all(connection: psycopg.Connection) -> str:
    return "\n".join(line for (line,) in connection.execute(f"EXPLAIN {ROWS} ORDER BY t.id", {"sandbox": False}))


Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Run a command in this process."""
    monkeypatch.setitem(load_settings.__kwdefaults__ or {}, "env_file", Path("/nonexistent/.env"))
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "T.CSV.GZ", "t.jsonl.gz"])
def test_the_format_is_that_of_the_files_ending(
    name: str, here: Here, odd: list[StoredTweet], database: Database, tmp_path: Path
) -> None:
    path = tmp_path / name
    code, out, err = here("export", "-o", str(path), "--json")
    content = gzip.decompress(path.read_bytes()) if name.lower().endswith(".gz") else path.read_bytes()
    form = ExportFormat(name.lower().split(".")[1])

    assert (code, err) == (0, "")
    assert json.loads(out) == {"file": str(path), "format": form, "tweets": 8, "bytes": path.stat().st_size}
    assert read(form, content, database) == odd


def test_export_takes_names_a_span_and_what_to_leave_out(here: Here, odd: list[StoredTweet], tmp_path: Path) -> None:
    path = tmp_path / "tweets"
    words = ["export", "@NASA", "--since", "2026-11-01T17:30:00+05:30", "--until", "2026-11-02", "--format", "jsonl"]
    code, out, _ = here(*words, "-o", str(path))
    _, _, none_left = here(*words, "--without-deleted", "--ids-only", "-o", "-")

    assert (code, out) == (0, f"3 tweets written to {path} ({path.stat().st_size:,} bytes)\n")
    assert [each.id for each in read_jsonl(path.read_bytes())] == [1, 3, 5]
    assert none_left == "0 tweets written\n"


def test_standard_output_gets_the_tweets_and_nothing_else(here: Here, odd: list[StoredTweet]) -> None:
    code, out, err = here("export", "nasa", "--ids-only", "--format", "csv", "-o", "-")

    assert (code, out, err) == (0, "id\n1\n3\n5\n7\n", "4 tweets written\n")


def test_made_up_tweets_say_so_in_each_row(here: Here, odd: list[StoredTweet], database: Database) -> None:
    register_tokens(database, ["TWITTER_BEARER_SANDBOX_1"], [])
    _, out, err = here("export", "--format", "jsonl", "-o", "-")

    assert "made up" in err
    assert {each.sandbox for each in read_jsonl(out.encode())} == {True}


def test_a_file_that_exists_is_written_over_only_when_forced(
    here: Here, odd: list[StoredTweet], tmp_path: Path
) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("mine")
    refused = here("export", "--ids-only", "-o", str(path))
    kept = path.read_text()
    forced = here("export", "--ids-only", "-o", str(path), "--force")

    assert (refused[0], kept) == (2, "mine")
    assert refused[2] == f"Error: {path} exists already. Name another file, or write over it with --force.\n"
    assert (forced[0], path.read_text().splitlines()) == (0, ["id", *map(str, range(1, 9))])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nobody", "nasa", "no_one", "-o", "t.csv"], "Nothing is stored of @nobody, @no_one."),
        (["na sa", "-o", "t.csv"], "No username: na sa."),
        (["-o", "t.txt"], "In which format? Give --format parquet, csv, jsonl"),
        (["-o", "-"], "In which format?"),
        (["-o", "-", "--format", "parquet"], "A Parquet file is compressed in itself"),
        (["-o", "t.parquet.gz", "--format", "parquet"], "A Parquet file is compressed in itself"),
        (["-o", "-", "--format", "csv", "--json"], "leave out --json"),
        (["-o", "t.csv", "--since", "yesterday"], "--since yesterday is no date such as 2023-01-31"),
        (["-o", "t.csv", "--until", "2023-02-30"], "--until 2023-02-30 is no date"),
        (["-o", "t.csv", "--since", "2023-01-01", "--until", "2023-01-01"], "No time lies between"),
        (["-o", "nowhere/t.csv"], "does not exist"),
        ([], "Missing option '-o'"),
    ],
)
def test_a_wrong_request_is_refused_with_exit_code_2(
    words: list[str], why: str, here: Here, accounts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = here("export", *words)

    assert (code, out) == (2, "")
    assert why in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import pathlib, sys
from twitter_pipeline.settings import load_settings
load_settings.__kwdefaults__["env_file"] = pathlib.Path("/nonexistent/.env")
from twitter_pipeline.cli import main
sys.exit(main())
"""


def run_command(
    database_url: str, *words: str, stdout: int | BinaryIO = subprocess.PIPE, largest_file: int | None = None
) -> tuple[int, str]:
    """Run `export` as a process of its own, which can write no larger file; return its exit code and stderr."""

    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "export", *words],
        env={**os.environ, "DATABASE_URL": database_url},
        stdout=stdout,
        stderr=subprocess.PIPE,
        preexec_fn=limit,
        text=True,
    )
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def many(database: Database) -> None:
    """Store so much that no buffer or pipe holds it."""
    database.execute(
        "INSERT INTO tweets (id, author_id, created_at, kind, text, raw)"
        " SELECT n, 1, now(), 'original', repeat(md5(n::text), 40), '{}' FROM generate_series(1, 2000) n"
    )


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "t.jsonl.gz"])
def test_a_file_that_cannot_be_written_is_one_message_and_leaves_nothing(
    name: str, database: Database, database_url: str, tmp_path: Path
) -> None:
    many(database)
    path = tmp_path / name
    code, err = run_command(database_url, "-o", str(path), largest_file=20_000)

    assert (code, err) == (1, f"Error: {path} could not be written: File too large\n")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_message(database: Database, database_url: str) -> None:
    many(database)
    with Path("/dev/full").open("wb") as full:
        code, err = run_command(database_url, "--format", "csv", "-o", "-", stdout=full)

    assert code == 1
    assert err.splitlines() == [
        "Error: the disk is full: standard output could not be written and nothing was kept. "
        "Free some space and run again."
    ]


def test_a_reader_that_has_seen_enough_is_no_error(database: Database, database_url: str) -> None:
    many(database)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "export", "--format", "csv", "-o", "-"],
        env={**os.environ, "DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as out:
        first = out.readline()
    with process.stderr as error:
        said = error.read()

    assert (process.wait(60), said) == (1, b"")
    assert first.startswith(b"id,author_id,")
