"""Rows of Parquet and CSV files, a few at a time."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyarrow brings no types.

import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeAlias

import pyarrow as pa
from pyarrow import csv
from pyarrow.parquet import ParquetFile

from twitter_pipeline.importing.found import Unreadable
from twitter_pipeline.importing.rows import Row
from twitter_pipeline.x_api.problems import one_line

PlacedRows: TypeAlias = Iterator[tuple[str, Row] | Unreadable]

_ROWS = 1000
_CSV_BLOCK = 4 * 2**20
"""Bytes that are read at once; a row must fit in."""


def parquet_columns(file: BinaryIO) -> list[str]:
    """Return the names of the columns; raises ValueError when it is no Parquet file."""
    try:
        return list(ParquetFile(file).schema_arrow.names)
    except pa.ArrowException as error:
        raise ValueError(one_line(str(error))) from error


def parquet_rows(file: BinaryIO) -> PlacedRows:
    """Give the rows with their places; where the file is damaged it ends."""
    return _placed(ParquetFile(file).iter_batches(batch_size=_ROWS), {})


def csv_rows(file: BinaryIO, columns: list[str]) -> PlacedRows:
    """Give the rows below the header, all values as text; a field without quotes and content is null.

    Rows are counted, not lines: a text may hold line breaks. One with too few or too many fields is passed over.
    """
    passed_over: dict[int, str] = {}

    def pass_over(row: csv.InvalidRow) -> str:
        # The header is the first.
        passed_over[row.number - 1] = f"expected {row.expected_columns} fields, found {row.actual_columns}"
        return "skip"

    return _placed(_csv_batches(file, columns, pass_over), passed_over)


def _csv_batches(
    file: BinaryIO, columns: list[str], pass_over: Callable[[csv.InvalidRow], str]
) -> Iterator[pa.RecordBatch]:
    reader = csv.open_csv(
        file,
        # Without threads, since only so it tells the numbers of rows.
        read_options=csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK),
        parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=pass_over),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    for batch in reader:
        for start in range(0, batch.num_rows, _ROWS):
            yield batch.slice(start, _ROWS)


def _placed(batches: Iterator[pa.RecordBatch], passed_over: dict[int, str]) -> PlacedRows:
    """Number the rows; `passed_over` holds those, by number, that the batch at hand has left out."""
    number = 1
    try:
        for batch in batches:
            rows: list[dict[str, Any]] = batch.to_pylist()
            for row in rows:
                while number in passed_over:
                    number += 1
                yield f"row {number}", row
                number += 1
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        yield Unreadable(f"row {number}", f"the file is broken from here on: {one_line(str(error))}")
    for left_out, reason in passed_over.items():
        yield Unreadable(f"row {left_out}", reason)
