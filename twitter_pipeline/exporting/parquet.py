"""Stored tweets as a Parquet file: typed columns, compressed, in row groups of bounded size."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# pyarrow brings no types.

from collections.abc import Sequence
from datetime import datetime
from types import NoneType, TracebackType, UnionType
from typing import Any, BinaryIO, Self, get_args, get_type_hints

import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from twitter_pipeline.exporting.lines import VERSION
from twitter_pipeline.store.exports import StoredTweet

VERSION_KEY = b"twitter_pipeline.version"
"""Of the file's metadata: the version of the form of its rows."""

GROUP_ROWS = 50_000
GROUP_BYTES = 32 * 2**20
"""A row group ends with the first of both; its bytes are those before compression, and lie in memory until then."""

_TYPES: dict[Any, Any] = {
    bool: pa.bool_(),
    int: pa.int64(),
    list[int]: pa.list_(pa.int64()),
    str: pa.string(),
    # JSON, as text: Parquet's own type for it is read by few.
    bytes: pa.string(),
    datetime: pa.timestamp("us", tz="UTC"),
}


def _field(name: str, hint: Any) -> Any:
    wanted, *others = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return pa.field(name, _TYPES[wanted], nullable=NoneType in others)


_METADATA = {VERSION_KEY: str(VERSION).encode()}
SCHEMA: Any = pa.schema([_field(*each) for each in get_type_hints(StoredTweet).items()], metadata=_METADATA)
IDS_SCHEMA: Any = pa.schema([SCHEMA.field("id")], metadata=_METADATA)


class ParquetFile:
    """Writes rows to a file as they are given; the file is whole when the context has ended without an error."""

    def __init__(self, file: BinaryIO, *, ids_only: bool) -> None:
        self._schema = IDS_SCHEMA if ids_only else SCHEMA
        self._writer = ParquetWriter(file, self._schema, compression="zstd")
        self._group: list[Any] = []
        self._rows = self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._end_group()
                self._writer.close()
        finally:
            # Else it would close itself once more when it is collected, and write into a file that is gone.
            self._writer.is_open = False

    def write(self, rows: Sequence[tuple[object, ...]]) -> None:
        """Write rows whose values are in the order of the schema; at least one."""
        columns = zip(zip(*rows, strict=True), self._schema, strict=True)
        arrays = [pa.array(values, field.type) for values, field in columns]
        batch: Any = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._group.append(batch)
        self._rows += len(rows)
        self._bytes += batch.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._end_group()

    def _end_group(self) -> None:
        if self._group:
            self._writer.write_table(pa.Table.from_batches(self._group), row_group_size=self._rows)
        self._group, self._rows, self._bytes = [], 0, 0
