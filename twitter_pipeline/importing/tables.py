"""Rows of Parquet and CSV files, a few at a time."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportAttributeAccessIssue=false
# pyarrow brings no types, and makes the functions of pyarrow.compute when it is loaded.

import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, BinaryIO, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from pyarrow.parquet import ParquetFile

from twitter_pipeline.importing.found import Unreadable
from twitter_pipeline.importing.rows import Row
from twitter_pipeline.importing.splitting import LONGEST
from twitter_pipeline.x_api.problems import one_line

PlacedRows: TypeAlias = Iterator[tuple[str, Row] | Unreadable]

_ROWS = 1000
_CSV_BLOCK = 4 * 2**20
"""Bytes that are read at once; a row must fit in."""

_MOST_OF_COLUMN = 128 * 2**20
"""Bytes of a column in one row group, unpacked, which may be a single page, and as such lies in memory.

Exports end their row groups at 32 MiB of all columns.
"""

_MOST_VALUES = 1000
"""Values of a column for each of its rows, on the average: only the versions of an edited tweet are several."""

_AT_ONCE = 16 * 2**20
"""Bytes of the rows that are made values at once."""


def parquet_columns(file: BinaryIO) -> list[str]:
    """Return the names of the columns; raises ValueError when it is no Parquet file, or one that does not fit."""
    try:
        opened = ParquetFile(file)
    except pa.ArrowException as error:
        raise ValueError(one_line(str(error))) from error
    _check_groups(opened.metadata)
    return list(opened.schema_arrow.names)


def _check_groups(about: Any) -> None:
    for number in range(about.num_row_groups):
        group = about.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            size = column.total_uncompressed_size
            if size > _MOST_OF_COLUMN or column.num_values > _MOST_VALUES * max(group.num_rows, 1):
                raise ValueError(
                    f"its row group {number + 1} has {size // 2**20:,} MiB and {column.num_values:,} values of "
                    f"{one_line(column.path_in_schema)}, more than the {_MOST_OF_COLUMN // 2**20} MiB and "
                    f"{_MOST_VALUES:,} values a row that are read; write it with smaller row groups"
                )


def parquet_rows(file: BinaryIO) -> PlacedRows:
    """Give the rows with their places; where the file is damaged it ends."""
    # As a dictionary a text that many rows share lies in memory once.
    texts = [field.name for field in ParquetFile(file).schema_arrow if _is_text(field.type)]
    return _placed(ParquetFile(file, read_dictionary=texts).iter_batches(batch_size=_ROWS), {})


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_binary(kind)


def _few(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch into pieces of bounded size, all of whose rows may have its longest texts."""
    longest = sum(map(_longest, batch.columns))
    if longest > LONGEST:
        raise pa.ArrowInvalid(f"a row has {longest // 2**20:,} MiB, and more than {LONGEST // 2**20} are not read")
    rows = max(1, _AT_ONCE // max(longest, 1))
    for start in range(0, batch.num_rows, rows):
        yield pa.record_batch(list(map(_decoded, batch.slice(start, rows).columns)), batch.schema.names)


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column


def _longest(column: pa.Array) -> int:
    texts = column.dictionary if isinstance(column, pa.DictionaryArray) else column
    return pc.max(pc.binary_length(texts)).as_py() or 0 if _is_text(texts.type) else 0


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
        for batch in chain.from_iterable(map(_few, batches)):
            rows: list[dict[str, Any]] = batch.to_pylist()
            for row in rows:
                while number in passed_over:
                    number += 1
                yield f"row {number}", row
                number += 1
    except (pa.ArrowException, OSError, EOFError, zlib.error, OverflowError, LookupError) as error:
        # The last two are of times beyond the year 9999, or in a zone that there is not.
        yield Unreadable(f"row {number}", f"the file is broken from here on: {one_line(str(error))}")
    for left_out, reason in passed_over.items():
        yield Unreadable(f"row {left_out}", reason)
