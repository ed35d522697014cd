"""Answers and files that would fill the memory; the program reads each in a process of its own and tells its peak."""

import json
import os
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from twitter_pipeline.importing.files import recognise
from twitter_pipeline.importing.found import Gauge, Unreadable
from twitter_pipeline.importing.rows import REQUIRED
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.x_api.client import XApiClient

_MIB = 2**20
_GIVE_UP_AT = 3 * 2**30


class Lazily(httpx.SyncByteStream):
    """A body of equal pieces, none of which is made before it is read."""

    def __init__(self, piece: bytes, times: int) -> None:
        self._piece, self._times = piece, times

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self._times):
            yield self._piece


def gzip_of(piece: bytes, times: int, *, before: bytes = b"", after: bytes = b"") -> bytes:
    """Pack a text of equal pieces, packing the piece once."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    begin = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    middle = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    # The checksum at the end is wrong: whoever gets so far has unpacked everything.
    return begin + middle * times + packer.compress(after) + packer.flush()


def _answer(stream: httpx.SyncByteStream, encoding: str) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": encoding} if encoding else {}, stream=stream)

    with XApiClient("https://api.example", transport=httpx.MockTransport(handle)) as client:
        client.fetch_user_tweets(12, bearer_token=BearerToken("madeUp"), max_results=50)


def _packed(piece: bytes, times: int, *, before: bytes = b"", encoding: str = "gzip") -> Callable[[], None]:
    return lambda: _answer(httpx.ByteStream(gzip_of(piece, times, before=before)), encoding)


def _plain(body: Callable[[], bytes]) -> Callable[[], None]:
    return lambda: _answer(httpx.ByteStream(body()), "")


def _sharing() -> bytes:
    """Build a page of which every tweet refers to the same large object."""
    media = json.dumps({"media_key": "3_1", "alt_text": "x" * (_MIB - 100)})
    tweets = [
        {"id": str(20 + number), "text": "t", "author_id": "12", "attachments": {"media_keys": ["3_1"]}}
        for number in range(10_000)
    ]
    meta = {"result_count": len(tweets)}
    return f'{{"data":{json.dumps(tweets)},"includes":{{"media":[{media}]}},"meta":{json.dumps(meta)}}}'.encode()


def _import(name: str, write: Callable[[Path], object]) -> Callable[[], None]:
    """Read a file that another process writes, so that what that takes does not count."""

    def attack() -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder, name)
            _, told = peak_of(lambda: write(path), limit=resource.RLIM_INFINITY)
            assert told == "nothing", told
            findings = recognise(str(path), owner=None).read(owner=None, now=datetime.now(UTC), gauge=Gauge())
            raise ValueError("; ".join(str(each) for each in findings if isinstance(each, Unreadable)))

    return attack


def _parquet(*, rows: int, characters: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        columns: dict[str, Any] = {name: ["1"] * rows for name in REQUIRED}
        columns["text"] = pa.DictionaryArray.from_arrays([0] * rows, ["x" * characters])
        pq.write_table(pa.table(columns), path, compression="zstd")

    return write


def _packed_file(piece: bytes, before: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(gzip_of(piece, 500, before=before))


_CSV_HEAD = ",".join(REQUIRED).encode() + b"\n" + b'20,1,"'

ATTACKS: dict[str, Callable[[], None]] = {
    "a Parquet file of rows that share a text": _import("b.parquet", _parquet(rows=400, characters=2 * _MIB)),
    "a Parquet file of few long texts": _import("c.parquet", _parquet(rows=2, characters=65 * _MIB)),
    "a line without an end": _import("a.jsonl.gz", _packed_file(b" " * _MIB, b'{"id":"20"}\n{"id":"21","text":"')),
    "a document of one text": _import("a.json.gz", _packed_file(b"x" * _MIB, b'[{"id":"20","text":"')),
    "a CSV field without an end": _import("a.csv.gz", _packed_file(b"x" * _MIB, _CSV_HEAD)),
    "2 GiB of nothing in 2 MB of gzip": _packed(bytes(_MIB), 2048),
    "gzip in gzip": lambda: _answer(httpx.ByteStream(gzip_of(gzip_of(bytes(_MIB), 2048), 1)), "gzip, gzip"),
    "an answer without an end": lambda: _answer(Lazily(bytes(_MIB), 2048), ""),
    "gzip without an end": lambda: _answer(Lazily(gzip_of(os.urandom(_MIB), 1), 2048), "gzip"),
    "empty objects": _plain(lambda: b'{"data":[' + b"{}," * 20_000_000 + b"{}]}"),
    "many numbers for tweets": _plain(lambda: b'{"data":[' + b"0," * 1_900_000 + b"0]}"),
    "an include that all tweets share": _plain(_sharing),
    "one endless text with a control character in it": _plain(lambda: b'{"data":["\x01' + b"\\n" * 30_000_000 + b'"]}'),
}


def peak_of(attack: Callable[[], object], *, limit: int = _GIVE_UP_AT) -> tuple[int, str]:
    """Return by how many MiB the memory of a child grows, and what the attack is answered with."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        try:
            attack()
            told = "nothing"
        except BaseException as error:  # noqa: BLE001 whatever it is is compared
            told = f"{type(error).__name__}: {error}"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(writes, f"{grown // 1024} {told}".encode()[:4000])
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        grown, _, told = pipe.read().decode(errors="replace").partition(" ")
    os.waitpid(child, 0)
    return int(grown), told


def flood(names: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Return `peak_of` attacks by their names, from a new process, where little lies in memory."""
    program = [sys.executable, "-m", "twitter_pipeline_tests.floods", *names]
    ran = subprocess.run(program, check=True, capture_output=True, timeout=90)
    return {name: (mib, told) for name, mib, told in map(json.loads, ran.stdout.splitlines())}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps([name, *peak_of(ATTACKS[name])]), flush=True)
