"""What is exported and imported again is what it was: every column, whatever is in it."""

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from twitter_pipeline.cli import main
from twitter_pipeline.exporting.export import ExportFormat, export_tweets
from twitter_pipeline.importing.files import FileFormat, recognise
from twitter_pipeline.importing.importer import Importer, ImportReport
from twitter_pipeline.models import Tweet
from twitter_pipeline.prices import Prices
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.exports import Selection, snapshot
from twitter_pipeline_tests.conftest import Databases

PAYLOADS = Path(__file__).parent.parent / "payloads" / "import"
NOW = datetime(2026, 5, 1, tzinfo=UTC)

# Every column but the runs, which are those of another database, and all as text.
COLUMNS = [column.name for column in Tweet.__table__.columns if not column.name.endswith("_run_id")]
ROWS = f"""
SELECT ROW({", ".join(COLUMNS)}, (SELECT username FROM users u WHERE u.id = t.author_id))::text
FROM tweets t ORDER BY id
"""

INSERT = """
INSERT INTO tweets
SELECT * FROM json_populate_record(NULL::tweets, %(row)s::json)
"""

ODD_ROWS: list[dict[str, Any]] = [
    {"text": "", "raw": "{}", "deleted_seen_at": "2026-04-01T00:00:00.000001Z"},
    {"text": 'quotes " and \\ and "" and \\. and \\N', "lang": "", "raw": '{"id":"1","includes":{}}'},
    {"text": "\\.", "lang": "NULL", "raw": '{"a":"\\ud83d \\u0000","includes":{"media":[{"b":"\\\\ud83d"}]}}'},
    {"text": "lines\r\n\n\rand\ttabs, and;\u2028\u0085\ufeff", "raw": '{\n "a": 1,\r\n "includes": {}\n}'},
    {"text": "\U0001f600 \u202e \ufffd", "raw": '{"includes":{},"a":1}', "edit_history_ids": [1, 9223372036854775807]},
    {"text": " ", "raw": " {} ", "like_count": 9223372036854775807, "created_at": "2006-03-21T20:50:14Z"},
    {"text": "'", "raw": '{"n":1e400,"n":18446744073709551616,"includes":{"users":[]}}', "quoted_tweet_id": 20},
    {"text": "1", "lang": "1", "raw": '[1,"a"]', "last_read_at": "2026-04-02T03:04:05.678901Z"},
]


@pytest.fixture
def other(databases: Databases) -> Iterator[Database]:
    """An empty database to import into."""
    url = databases.create()
    other = Database(url)
    yield other
    other.close()
    databases.drop(url)


def put(database: Database, rows: list[dict[str, Any]]) -> None:
    """Store rows as they are, those columns that they leave out with plain values."""
    database.execute("INSERT INTO users (id, username) VALUES (5, 'ada'), (6, NULL) ON CONFLICT DO NOTHING")
    for number, row in enumerate(rows, start=1):
        plain: dict[str, Any] = {
            "id": number,
            "author_id": 5 + number % 2,
            "created_at": "2024-01-02T03:04:05Z",
            "kind": "original",
            "first_read_at": "2024-01-02T03:04:06.7Z",
            "first_read_run_id": 1,
            "last_read_at": "2024-01-02T03:04:07Z",
        }
        raw = row["raw"]
        # As text, so that nothing on the way decodes it.
        database.execute(INSERT, {"row": json.dumps({**plain, **row, "raw": {}})})
        database.execute("UPDATE tweets SET raw = %s::json WHERE id = %s", (raw, number))


def export_to(database: Database, path: Path, form: ExportFormat) -> None:
    with path.open("wb") as file, snapshot(database, sandbox=False) as stored:
        export_tweets(stored, Selection(), file, form, ids_only=False)


def bring(database: Database, path: Path) -> ImportReport:
    return Importer(database, owner=None, prices=Prices(), now=NOW).run([recognise(str(path), owner=None)])


def rows_of(database: Database) -> list[tuple[Any, ...]]:
    # Made of the names of columns only.
    return database.execute(ROWS)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("form", ExportFormat)
def test_a_round_trip_gives_back_every_column(
    database: Database, other: Database, tmp_path: Path, form: ExportFormat
) -> None:
    put(database, ODD_ROWS)
    imported = [PAYLOADS / "twarc2_flattened.jsonl", PAYLOADS / "archive" / "data" / "tweets-part1.js"]
    for path in imported:
        bring(database, path)
    export_to(database, tmp_path / "export", form)
    report = bring(other, tmp_path / "export")

    assert rows_of(other) == rows_of(database)
    assert (report.files[0].new, report.is_complete) == (len(ODD_ROWS) + 5, True)
    assert (
        report.files[0].file.format
        == {
            ExportFormat.JSONL: FileFormat.EXPORT_LINES,
            ExportFormat.PARQUET: FileFormat.EXPORT_PARQUET,
            ExportFormat.CSV: FileFormat.EXPORT_CSV,
        }[form]
    )


@pytest.mark.parametrize("form", ExportFormat)
def test_what_was_exported_changes_nothing_where_it_came_from(
    database: Database, tmp_path: Path, form: ExportFormat
) -> None:
    put(database, ODD_ROWS)
    export_to(database, tmp_path / "export", form)
    before = database.execute("SELECT xmin, t::text FROM tweets t ORDER BY id")
    report = bring(database, tmp_path / "export")

    assert (report.files[0].new, report.files[0].updated, report.files[0].kept) == (0, 0, len(ODD_ROWS))
    assert database.execute("SELECT xmin, t::text FROM tweets t ORDER BY id") == before


def test_a_file_by_way_of_all_formats_is_what_it_was(database: Database, databases: Databases, tmp_path: Path) -> None:
    put(database, ODD_ROWS)
    here = database
    opened: list[Database] = []
    for number, form in enumerate([ExportFormat.CSV, ExportFormat.JSONL, ExportFormat.PARQUET, ExportFormat.JSONL]):
        path = tmp_path / str(number)
        export_to(here, path, form)
        here = Database(databases.create())
        opened.append(here)
        bring(here, path)
    last = rows_of(here)
    for each in opened:
        each.close()

    assert last == rows_of(database)


# Shrinking a row of a database takes minutes and shows little.
NO_SHRINKING = [phase for phase in Phase if phase is not Phase.shrink]

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
raws = st.tuples(st.dictionaries(st.text(max_size=3), json_values, max_size=2), json_values, st.booleans()).map(
    lambda drawn: json.dumps({**drawn[0], "includes": drawn[1]}, separators=(",", ":") if drawn[2] else None)
)
# What a text column can hold: neither a NUL nor half a surrogate pair.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
bigints = st.none() | st.integers(0, 2**63 - 1)
instants = st.datetimes(datetime(2006, 3, 21), datetime(2025, 12, 31)).map(lambda at: at.isoformat() + "Z")  # noqa: DTZ001
rows = st.fixed_dictionaries(
    {
        "text": texts,
        "lang": st.none() | texts,
        "raw": raws,
        "created_at": instants,
        "kind": st.sampled_from(["original", "reply", "retweet", "quote"]),
        "conversation_id": bigints,
        "impression_count": bigints,
        "edit_history_ids": st.none() | st.lists(st.integers(1, 2**63 - 1), min_size=2, max_size=3),
        "deleted_seen_at": st.none() | instants,
    }
)


@pytest.mark.parametrize("form", ExportFormat)
@given(st.lists(rows, min_size=1, max_size=4))
@settings(max_examples=15, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_row_holds_comes_back(
    database: Database, other: Database, tmp_path: Path, form: ExportFormat, rows: list[dict[str, Any]]
) -> None:
    for each in (database, other):
        each.execute("TRUNCATE tweets, users CASCADE")
    put(database, rows)
    export_to(database, tmp_path / "export", form)
    bring(other, tmp_path / "export")

    assert rows_of(other) == rows_of(database)


def test_a_mark_of_deletion_comes_along_with_a_tweet_that_is_stored_already(
    database: Database, other: Database, tmp_path: Path
) -> None:
    put(database, [{"text": "a", "raw": "{}", "deleted_seen_at": "2026-04-01T00:00:00Z"}])
    put(other, [{"text": "a", "raw": "{}"}])
    export_to(database, tmp_path / "export", ExportFormat.JSONL)
    bring(other, tmp_path / "export")

    assert rows_of(other) == rows_of(database)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("kind", "poem", "the column kind of the export is missing or cannot be read"),
        ("created_at", None, "the column created_at of the export is missing or cannot be read"),
        ("edit_history_ids", ["x"], "the column edit_history_ids of the export cannot be read"),
        ("version", 2, "it was exported in form 2, this program reads form 1"),
        ("raw", "{", "Input data was truncated"),
    ],
)
def test_a_bad_row_of_an_export_is_told_and_the_others_are_read(
    database: Database, other: Database, tmp_path: Path, column: str, value: object, told: str
) -> None:
    put(database, ODD_ROWS[:2])
    path = tmp_path / "export"
    export_to(database, path, ExportFormat.JSONL)
    first, second = path.read_bytes().splitlines()
    line = json.loads(first)
    line["twitter_pipeline"][column] = value
    path.write_bytes(json.dumps(line).encode() + b"\n" + second)
    report = bring(other, path)

    assert [str(place) for place in report.files[0].unreadable_places] == [f"line 1: {told}"]
    assert rows_of(other) == rows_of(database)[1:]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda file: file + b"9,9\n", "row 3: expected 26 fields, found 2"),
        (lambda file: file.replace(b",original,", b",poem,", 1), "row 1: the column kind of the export is missing"),
    ],
)
def test_a_broken_csv_file_is_told(
    database: Database, other: Database, tmp_path: Path, damage: Callable[[bytes], bytes], told: str
) -> None:
    put(database, ODD_ROWS[1:3])
    path = tmp_path / "export"
    export_to(database, path, ExportFormat.CSV)
    path.write_bytes(gzip.compress(damage(path.read_bytes())))
    (place,) = bring(other, path).files[0].unreadable_places

    assert str(place).startswith(told)


def test_the_commands_make_the_round_trip(
    database: Database, database_url: str, other: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(database, ODD_ROWS)
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert main(["export", "-o", str(tmp_path / "all.jsonl.gz")]) == 0
    monkeypatch.setenv("DATABASE_URL", other.url)
    assert main(["import", str(tmp_path / "all.jsonl.gz")]) == 0

    assert rows_of(other) == rows_of(database)
