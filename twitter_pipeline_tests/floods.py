"""Answers and files that would fill the memory; the program reads each in a process of its own and tells its peak."""

import json
import os
import resource
import sys
import zlib
from collections.abc import Callable, Iterator

import httpx

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


ATTACKS: dict[str, Callable[[], None]] = {
    "2 GiB of nothing in 2 MB of gzip": _packed(bytes(_MIB), 2048),
    "gzip in gzip": lambda: _answer(httpx.ByteStream(gzip_of(gzip_of(bytes(_MIB), 2048), 1)), "gzip, gzip"),
    "an answer without an end": lambda: _answer(Lazily(bytes(_MIB), 2048), ""),
    "gzip without an end": lambda: _answer(Lazily(gzip_of(os.urandom(_MIB), 1), 2048), "gzip"),
    "empty objects": _plain(lambda: b'{"data":[' + b"{}," * 20_000_000 + b"{}]}"),
    "many numbers for tweets": _plain(lambda: b'{"data":[' + b"0," * 1_900_000 + b"0]}"),
    "an include that all tweets share": _plain(_sharing),
    "one endless text with a control character in it": _plain(lambda: b'{"data":["\x01' + b"\\n" * 30_000_000 + b'"]}'),
}


def peak_of(attack: Callable[[], None]) -> tuple[int, str]:
    """Return by how many MiB the memory of a child grows, and what the attack is answered with."""
    reads, writes = os.pipe()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (_GIVE_UP_AT, _GIVE_UP_AT))
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


if __name__ == "__main__":
    for name in sys.argv[1:] or ATTACKS:
        print(json.dumps([name, *peak_of(ATTACKS[name])]), flush=True)
