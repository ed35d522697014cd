"""Bodies of answers: read and unpacked as far as an answer of X's can reach, and no further.

The largest page that is honest by any stretch: 500 tweets, each a note of 25,000 letters with 25 KB of annotations,
links and mentions, and each with such a note that it quotes among the includes: 500 * 2 * 50 KB = 50 MB. Letters that
JSON escapes take six times as much: 100 such tweets, the largest page of a timeline, have 36 MB with those they quote.
gzip makes such text four times smaller; of what attacks, one byte may stand for a thousand.
"""

import zlib
from collections.abc import Iterable, Mapping

import httpx

from twitter_pipeline.errors import UnreadableAnswer
from twitter_pipeline.x_api.problems import one_line

MOST_PACKED = 16 * 2**20
MOST_BYTES = 64 * 2**20
"""Bytes of a body as it came, when it is packed, and of one that is not or no longer."""

_GZIP = zlib.MAX_WBITS | 16


def body_of(response: httpx.Response) -> Iterable[bytes]:
    """Return a body in the pieces in which it comes, packed as it is."""
    # httpx would unpack it, in as many layers as the answer names and however much that becomes.
    if not isinstance(response.stream, httpx.SyncByteStream):
        raise TypeError("the response is one of asynchronous httpx")
    return response.stream


def encoding_of(headers: Mapping[str, str]) -> str:
    """Return how a body is packed, "" for not at all."""
    encoding = headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def read_body(response: httpx.Response, headers: Mapping[str, str]) -> bytes:
    """Read a whole body and unpack it.

    Raises UnreadableAnswer for one that is too long, or not packed as it was asked for, and httpx.HTTPError for one
    that did not come whole.
    """
    encoding = encoding_of(headers)
    if encoding not in ("", "gzip"):
        raise UnreadableAnswer(f"its body is packed as {one_line(encoding)!r}, and gzip was asked for")
    most = MOST_PACKED if encoding else MOST_BYTES
    body = bytearray()
    for piece in body_of(response):
        body += piece
        if len(body) > most:
            raise _too_long(most, "of gzip" if encoding else "")
    return _unpacked(body) if encoding and body else bytes(body)


def _unpacked(packed: bytearray) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        body = unpacker.decompress(packed, MOST_BYTES + 1)
    except zlib.error as error:
        raise UnreadableAnswer(f"its body is no gzip: {one_line(str(error))}") from error
    if len(body) > MOST_BYTES:
        raise _too_long(MOST_BYTES, f"unpacked, from {len(packed):,} of gzip")
    if not unpacker.eof:
        raise UnreadableAnswer(f"its body of {len(packed)} bytes of gzip is cut off")
    return body


def _too_long(most: int, what: str) -> UnreadableAnswer:
    return UnreadableAnswer(f"its body is longer than {most // 2**20} MiB {what}".rstrip())
