"""Files that are too large for the memory are read up to there, and what else a file may hold breaks nothing."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import ZIP_BZIP2, ZIP_LZMA, ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twitter_pipeline.importing import tables
from twitter_pipeline.importing.files import WrongFile, recognise
from twitter_pipeline.importing.rows import REQUIRED
from twitter_pipeline.x_api.stream_messages import LONGEST_LINE
from twitter_pipeline_tests.floods import flood
from twitter_pipeline_tests.unit.test_importing_formats import ARCHIVE, found, unreadable, write

MOST_MIB = 400

READ = {
    "a Parquet file of rows that share a text": "row 1: the column",
    "a Parquet file of few long texts": "a row has 65 MiB, and more than 64 are not read",
    "a line without an end": "line 1: expected a response",
    "a document of one text": "line 1: what begins here is longer than 64 MiB",
    "a CSV field without an end": "row 1: the file is broken from here on: straddling object",
}


def parquet(path: Path, *, rows: int = 2, **columns: Any) -> Path:
    at = pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * rows)
    values: dict[str, Any] = {
        **{name: ["original"] * rows for name in REQUIRED},
        **dict.fromkeys(("created_at", "first_read_at", "last_read_at"), at),
        "id": range(20, 20 + rows),
        "author_id": [12] * rows,
        "raw": ["{}"] * rows,
    }
    pq.write_table(pa.table({**values, **columns}), path)
    return path


def test_no_file_fills_the_memory() -> None:
    flooded = flood(READ)

    assert [told for name, (_, told) in flooded.items() if READ[name] not in told] == []
    assert [(name, mib) for name, (mib, _) in flooded.items() if mib > MOST_MIB] == []


def test_rows_of_any_length_are_made_values_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_AT_ONCE", 100)
    texts = ["x" * 90, "", "y", None, "z" * 200, "y"]
    read = found(parquet(tmp_path / "file", rows=6, lang=texts))

    assert [(each.tweet.id, each.tweet.lang) for each in read] == list(enumerate(texts, start=20))


def test_a_row_group_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_OF_COLUMN", 2**20)
    path = parquet(tmp_path / "file", rows=1, text=["x" * 2 * 2**20])

    with pytest.raises(WrongFile, match="its row group 1 has 2 MiB and 1 values of text, more than the 1 MiB"):
        recognise(str(path), owner=None)


@pytest.mark.parametrize(("many", "is_read"), [(1_000, True), (1_001, False)])
def test_lists_without_end_are_not_read(many: int, is_read: bool, tmp_path: Path) -> None:
    path = parquet(tmp_path / "file", edit_history_ids=[[20] * many] * 2)
    if is_read:
        assert [len(each.tweet.edit_history_ids) for each in found(path)] == [many, many]
    else:
        with pytest.raises(WrongFile, match=r"has 0 MiB and 2,002 values of edit_history_ids\.list\.element"):
            recognise(str(path), owner=None)


@pytest.mark.parametrize(
    "instants",
    [
        pa.array([2**62, 0], pa.timestamp("us", tz="UTC")),
        pa.array([-(2**62), 0], pa.timestamp("us")),
        pa.array([0, 0], pa.timestamp("us", tz="Mars/Phobos")),
    ],
)
def test_times_that_python_does_not_know_end_the_reading(instants: Any, tmp_path: Path) -> None:
    (told,) = unreadable(parquet(tmp_path / "file", first_read_at=instants))

    assert told.startswith("row 1: the file is broken from here on: ")


@pytest.mark.parametrize("packing", [ZIP_BZIP2, ZIP_LZMA])
@pytest.mark.parametrize("script", ["account.js", "manifest.js", "tweets.js"])
def test_a_script_of_an_archive_that_is_packed_otherwise_is_not_unpacked(
    packing: int, script: str, tmp_path: Path
) -> None:
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in ARCHIVE.iterdir():
            archive.write(path, f"data/{path.name}", packing if path.name == script else None)

    with pytest.raises(WrongFile, match=f"data/{script} in it is packed otherwise"):
        recognise(str(tmp_path / "a.zip"), owner=None)


def test_a_name_that_nobody_can_have_is_none(tmp_path: Path) -> None:
    first, second = found(parquet(tmp_path / "file", username=["x" * 10_000, "nasa"]))

    assert (first.author.username, second.author.username) == (None, "nasa")


def test_a_tweet_alone_is_not_longer_than_one_can_be(tmp_path: Path) -> None:
    tweets = [
        {"id": str(tweet_id), "author_id": "12", "text": "a", "entities": {"a": "x" * length}}
        for tweet_id, length in ((20, 10), (21, LONGEST_LINE), (22, 10))
    ]
    path = write(tmp_path, "".join(json.dumps(tweet) + "\n" for tweet in tweets))

    assert unreadable(path) == [
        f"line 2: a tweet of {len(json.dumps(tweets[1])):,} bytes; none of X's has more than 4,000,000"
    ]
