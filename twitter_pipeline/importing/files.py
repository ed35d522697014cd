"""A file that somebody gives: what it is, by its content and not by its name, and the tweets in it."""

import gzip
import hashlib
import re
import sys
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.importing import archive
from twitter_pipeline.importing.found import Author, Findings, Gauge, Origin, Unreadable
from twitter_pipeline.importing.items import EXPECTED, Item, is_made_up, read_item, read_items
from twitter_pipeline.importing.rows import REQUIRED, is_made_up_row, read_rows
from twitter_pipeline.importing.splitting import Piece, Pieces, lines_of, objects_of
from twitter_pipeline.x_api.problems import one_line

if TYPE_CHECKING:
    from twitter_pipeline.importing.tables import PlacedRows

STDIN = "-"

_READABLE_AMONG = 100
"""How many lines or objects are looked at for one that tells what the file is."""
_HEAD = 4096
_MANIFEST_BYTES = 2**20

_GZIP, _ZSTD, _ZIP, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK", b"PAR1"
_SCRIPT_NAME = re.compile(r"(?P<folder>(?:.*/)?)tweets?(?:-part\d+)?\.js")
_CSV_NAME = re.compile(r'"?(\w+)"?')
_DAMAGED = (OSError, EOFError, zlib.error, BadZipFile)


class FileFormat(StrEnum):
    """What a file holds, as it is told to a person and written into `fetch_runs.request`."""

    RESPONSES = "responses of the API"
    TWEETS = "tweets, flattened"
    EXPORT_LINES = "export, JSON lines"
    EXPORT_PARQUET = "export, Parquet"
    EXPORT_CSV = "export, CSV"
    ARCHIVE = "account archive of X"
    ARCHIVE_SCRIPT = "script of an account archive of X"


class WrongFile(ConfigurationError):
    """A file from which nothing can be imported; the text says what was expected, and where it is not so."""


@dataclass(frozen=True, slots=True)
class ImportFile:
    """A file whose format is known. `made_up` tells that it is an export of the sandbox's tweets."""

    name: str
    format: FileFormat
    size: int | None
    modified_at: datetime
    made_up: bool
    _read: Callable[[Origin], Findings]

    def read(self, *, owner: Author | None, now: datetime, gauge: Gauge) -> Findings:
        """Give the tweets of the file in its order, and the places that cannot be read.

        `owner` wrote the tweets that do not name their author. `gauge` tells how far the reading is.
        """
        return self._read(Origin(owner, self.modified_at, now, gauge))

    def sha256(self) -> str | None:
        """Return the digest of the file as it is; None for standard input."""
        if self.name == STDIN:
            return None
        with open(self.name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def recognise(name: str, *, owner: Author | None) -> ImportFile:
    """Find out what a file is; raises WrongFile when nothing can be imported from it.

    `owner` is needed where neither the file nor an `account.js` beside it tells whose tweets it holds.
    """
    if name == STDIN:
        return _recognise_stdin()
    try:
        return _recognise_by_content(Path(name), owner)
    except _DAMAGED as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise WrongFile(f"The file {name} cannot be read: {one_line(why)}") from error


def _recognise_by_content(path: Path, owner: Author | None) -> ImportFile:
    with _unpacked(path) as file:
        head = file.read(_HEAD)
    if not head.strip():
        raise _wrong(path, "it is empty")
    if head.startswith(_ZSTD):
        raise _wrong(path, "it is compressed with zstd; unpack it first (gzip may stay)")
    if head.startswith(_ZIP):
        return _recognise_archive(path, owner)
    if head.startswith(_PARQUET):
        return _recognise_parquet(path)
    if archive.SCRIPT.match(head):
        return _recognise_script(path, head, owner)
    if (columns := _csv_columns(head)) is not None:
        return _recognise_csv(path, columns)
    return _recognise_json(path, head)


def _recognise_stdin() -> ImportFile:
    rest, seen = lines_of(sys.stdin.buffer), list[Piece | Unreadable]()

    def noted() -> Pieces:
        for piece in rest:
            seen.append(piece)
            yield piece

    first = _first_item(noted())
    if isinstance(first, Unreadable):
        raise WrongFile(f"Standard input cannot be imported: {first}. It takes JSON lines only.")
    return ImportFile(
        STDIN,
        _format_of(first),
        size=None,
        modified_at=datetime.now(UTC),
        made_up=is_made_up(first),
        _read=lambda origin: read_items(chain(seen, rest), origin),
    )


def _recognise_json(path: Path, head: bytes) -> ImportFile:
    split = objects_of if _is_document(path, head) else lines_of
    first = _first_item(_pieces(path, split, Gauge()))
    if isinstance(first, Unreadable):
        raise _wrong(path, str(first))
    return _file(
        path,
        _format_of(first),
        lambda origin: read_items(_pieces(path, split, origin.gauge), origin),
        made_up=is_made_up(first),
    )


def _first_item(pieces: Pieces) -> Item | Unreadable:
    """Return the first piece that is something to import, else what is wrong with the first one."""
    wrong: Unreadable | None = None
    for piece in islice(pieces, _READABLE_AMONG):
        read = piece if isinstance(piece, Unreadable) else read_item(piece)
        if not isinstance(read, Unreadable):
            return read
        wrong = wrong or read
    return wrong or Unreadable("line 1", f"expected {EXPECTED}, found nothing")


def _format_of(item: Item) -> FileFormat:
    if item.is_exported:
        return FileFormat.EXPORT_LINES
    return FileFormat.RESPONSES if item.is_answer else FileFormat.TWEETS


def _is_document(path: Path, head: bytes) -> bool:
    """Whether it is to be read object by object: a list, or an object over several lines, and not JSON lines."""
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if begin.startswith(b"["):
        return True
    with _unpacked(path) as file:
        lines = [piece for piece in islice(lines_of(file), 2) if isinstance(piece, Piece)]
    # Within an object no line begins with a brace, but for a value that stands in a line of its own.
    return len(lines) == 2 and lines[0].body.startswith(b"{") and not lines[1].body.startswith(b"{")


def _recognise_parquet(path: Path) -> ImportFile:
    # Loading the library takes as long as a small import.
    from twitter_pipeline.importing.tables import parquet_columns, parquet_rows

    with path.open("rb") as file:
        try:
            columns = parquet_columns(file)
        except ValueError as error:
            raise _wrong(path, f"it begins as Parquet does, but {one_line(str(error))}") from error
    return _recognise_rows(path, FileFormat.EXPORT_PARQUET, columns, parquet_rows)


def _csv_columns(head: bytes) -> list[str] | None:
    """Return the names in the first line when it is the header of a CSV file."""
    line = head.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode("latin-1").strip()
    names = [_CSV_NAME.fullmatch(name) for name in line.split(",")]
    found = [name[1] for name in names if name]
    return found if len(found) == len(names) and "id" in found else None


def _recognise_csv(path: Path, columns: list[str]) -> ImportFile:
    from twitter_pipeline.importing.tables import csv_rows

    return _recognise_rows(path, FileFormat.EXPORT_CSV, columns, partial(csv_rows, columns=columns))


def _recognise_rows(
    path: Path, form: FileFormat, columns: list[str], rows_of: Callable[[BinaryIO], "PlacedRows"]
) -> ImportFile:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise _wrong(path, f"expected an export with all columns; {', '.join(missing)} are missing")

    def rows(gauge: Gauge) -> "PlacedRows":
        with _unpacked(path, gauge) as file:
            yield from rows_of(file)

    first = next(rows(Gauge()), None)
    made_up = isinstance(first, tuple) and is_made_up_row(first[1])
    return _file(path, form, lambda origin: read_rows(rows(origin.gauge), origin), made_up=made_up)


def _recognise_script(path: Path, head: bytes, owner: Author | None) -> ImportFile:
    script = archive.SCRIPT.match(head)
    if script is None or script["what"] not in (b"tweet", b"tweets"):
        what = script["what"].decode() if script else "nothing"
        raise _wrong(path, f"line 1: expected window.YTD.tweets, the tweets of an account archive, found {what}")
    known = _account_beside(path) or owner
    if known is None:
        raise _wrong(
            path,
            "it does not tell whose tweets it holds. Give the archive's zip, leave account.js beside it, "
            "or say whose they are: --account ID or --account @NAME",
        )

    def findings(origin: Origin) -> Findings:
        with _unpacked(path, origin.gauge) as file:
            yield from archive.read_script(file, known, origin, generated_at=None)

    return _file(path, FileFormat.ARCHIVE_SCRIPT, findings)


def _account_beside(path: Path) -> Author | None:
    try:
        with path.with_name("account.js").open("rb") as file:
            return archive.read_account(file)
    except FileNotFoundError:
        return None


def _recognise_archive(path: Path, owner: Author | None) -> ImportFile:
    with ZipFile(path) as opened:
        names = opened.namelist()
        scripts = sorted((name for name in names if _SCRIPT_NAME.fullmatch(name)), key=_part_of)
        if not scripts:
            raise _wrong(path, "expected an account archive of X, with data/tweets.js or data/tweet.js in it")
        folder = scripts[0].rpartition("/")[0]
        account, manifest = (str(PurePosixPath(folder, each)) for each in ("account.js", "manifest.js"))
        for name in {*scripts, account, manifest}.intersection(names):
            # Of bzip2 and LZMA a few bytes are unpacked as a whole, whatever they become.
            if opened.getinfo(name).compress_type not in (ZIP_STORED, ZIP_DEFLATED):
                raise _wrong(path, f"{name} in it is packed otherwise than X packs it; make a zip with deflate of it")
        known = owner
        if account in names:
            with opened.open(account) as file:
                known = archive.read_account(cast("BinaryIO", file)) or owner
        if known is None:
            raise _wrong(path, "its account.js does not tell the account; say whose it is: --account ID or @NAME")
        generated_at = None
        if manifest in names:
            with opened.open(manifest) as file:
                generated_at = archive.read_generation_date(file.read(_MANIFEST_BYTES))

    def findings(origin: Origin) -> Findings:
        with path.open("rb") as packed, ZipFile(packed) as opened:
            origin.gauge.file = packed
            for name in scripts:
                with opened.open(name) as file:
                    script = cast("BinaryIO", file)
                    yield from archive.read_script(script, known, origin, generated_at=generated_at, within=name)

    return _file(path, FileFormat.ARCHIVE, findings)


def _part_of(name: str) -> tuple[int, str]:
    number = re.search(r"-part(\d+)\.js$", name)
    return (int(number[1]) if number else 0, name)


def _file(path: Path, form: FileFormat, read: Callable[[Origin], Findings], *, made_up: bool = False) -> ImportFile:
    about = path.stat()
    modified_at = datetime.fromtimestamp(about.st_mtime, UTC)
    return ImportFile(str(path), form, about.st_size, modified_at, made_up, _told_when_damaged(read))


def _told_when_damaged(read: Callable[[Origin], Findings]) -> Callable[[Origin], Findings]:
    """Make what the disk or the compression refuses a place that cannot be read, at the end of what can."""

    def findings(origin: Origin) -> Findings:
        try:
            yield from read(origin)
        except _DAMAGED as error:
            yield Unreadable("after what was read", f"the file is damaged: {one_line(str(error))}")

    return findings


def _pieces(path: Path, split: Callable[[BinaryIO], Pieces], gauge: Gauge) -> Pieces:
    with _unpacked(path, gauge) as file:
        yield from split(file)


@contextmanager
def _unpacked(path: Path, gauge: Gauge | None = None) -> Generator[BinaryIO]:
    """Open a file; one that is compressed with gzip is unpacked as it is read."""
    with path.open("rb") as file:
        if gauge is not None:
            gauge.file = file
        is_compressed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        if is_compressed:
            with gzip.open(file) as unpacked:
                yield cast("BinaryIO", unpacked)
        else:
            yield file


def _wrong(path: Path, why: str) -> WrongFile:
    return WrongFile(f"The file {path} cannot be imported: {why}")
