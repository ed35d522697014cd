"""Write chosen tweets to a file in one of three formats, a few at a time."""

from collections.abc import Callable, Generator
from contextlib import closing
from enum import StrEnum
from typing import BinaryIO, TypeVar

from twitter_pipeline.exporting.lines import id_line_of, line_of
from twitter_pipeline.store.exports import Selection, Snapshot

Row = TypeVar("Row")

Progress = Callable[[int], None]


class ExportFormat(StrEnum):
    """How tweets are written."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


def export_tweets(
    snapshot: Snapshot,
    selection: Selection,
    file: BinaryIO,
    form: ExportFormat,
    *,
    ids_only: bool,
    progress: Progress = lambda _: None,
) -> int:
    """Write the chosen tweets, or only their ids, lowest id first; return how many they were.

    `progress` is told now and then how many are written. The memory it takes does not depend on how many there are.
    """
    match form:
        case ExportFormat.CSV:
            return snapshot.write_csv(selection, file.write, ids_only=ids_only, progress=progress)
        case ExportFormat.JSONL:
            return _export_lines(snapshot, selection, file, ids_only=ids_only, progress=progress)
        case ExportFormat.PARQUET:
            return _export_parquet(snapshot, selection, file, ids_only=ids_only, progress=progress)


def _export_lines(
    snapshot: Snapshot, selection: Selection, file: BinaryIO, *, ids_only: bool, progress: Progress
) -> int:
    if ids_only:
        return _write_each(snapshot.ids(selection), lambda rows: file.writelines(map(id_line_of, rows)), progress)
    return _write_each(snapshot.tweets(selection), lambda rows: file.writelines(map(line_of, rows)), progress)


def _export_parquet(
    snapshot: Snapshot, selection: Selection, file: BinaryIO, *, ids_only: bool, progress: Progress
) -> int:
    # Loading the library takes as long as a small export in another format.
    from twitter_pipeline.exporting.parquet import ParquetFile

    with ParquetFile(file, ids_only=ids_only) as parquet:
        if ids_only:
            return _write_each(snapshot.ids(selection), parquet.write, progress)
        return _write_each(snapshot.tweets(selection), parquet.write, progress)


def _write_each(batches: Generator[list[Row]], write: Callable[[list[Row]], None], progress: Progress) -> int:
    written = 0
    with closing(batches):
        for rows in batches:
            write(rows)
            written += len(rows)
            progress(written)
    return written
