"""A file of JSON in pieces: its lines, or the objects of a list that need not fit into memory.

The pieces are the file's own bytes, which `raw` keeps. A parser that goes through a file by events, such as ijson,
gives values, from which a text as it came cannot be had back.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from twitter_pipeline.importing.found import Unreadable

LONGEST = 64 * 2**20
"""Bytes of one object or line. A response of X's is some megabytes at most."""

_CHUNK = 2**18

_MARK = b"\xef\xbb\xbf"
_BETWEEN = re.compile(rb"[\s,]*+")
# Up to the next brace that is in no string. Possessive: what was passed is not tried again.
_BRACE = re.compile(rb'[^"{}]*+(?:"(?:[^"\\]++|\\.)*+"[^"{}]*+)*+([{}])', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Piece:
    """A JSON text and the number of the line that it begins in."""

    line: int
    body: bytes


Pieces: TypeAlias = Iterator[Piece | Unreadable]


def lines_of(file: BinaryIO) -> Pieces:
    """Give the lines that are not blank. One that is too long ends it."""
    number = 0
    while line := file.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            yield _too_long(number)
            return
        if body := line.removeprefix(_MARK).strip():
            yield Piece(number, body)


def objects_of(file: BinaryIO, *, after: bytes = b"") -> Pieces:
    """Give the objects of a file that holds lists of objects, or objects one after the other.

    `after` is what stands before the first list, which is passed over. Where the file is broken nothing can be read any
    more, and so it ends: only braces and strings are looked at, what is in an object is left to whoever reads it.
    """
    window = _Window(file)
    window.pass_over(after)
    list_began: int | None = None
    while (char := window.next_char()) is not None:
        if char == b"[" and list_began is None:
            list_began = window.line
        elif char == b"]" and list_began is not None:
            list_began = None
        elif char == b"{":
            began = window.line
            body = window.take_object()
            if isinstance(body, Unreadable):
                yield body
                return
            yield Piece(began, body)
            continue
        else:
            yield Unreadable(f"line {window.line}", f"expected an object, found {char.decode('latin-1')!a}")
            return
        window.take(1)
    if list_began is not None:
        yield Unreadable(f"line {window.line}", f"the file ends within the list that begins in line {list_began}")


class _Window:
    """The part of a file that is being looked at; `line` is the number of the line in which it begins."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes = b""
        self._at = 0
        self.line = 1
        self._fill()
        self.pass_over(_MARK)

    def pass_over(self, prefix: bytes) -> None:
        """Take what the window begins with."""
        if self._bytes.startswith(prefix, self._at):
            self.take(len(prefix))

    def next_char(self) -> bytes | None:
        """Return the next byte that neither is blank nor parts objects, None at the end of the file."""
        while True:
            between = _BETWEEN.match(self._bytes, self._at)
            self.take(between.end() - self._at if between else 0)
            if self._at < len(self._bytes):
                return self._bytes[self._at : self._at + 1]
            if not self._fill():
                return None

    def take(self, count: int) -> bytes:
        """Move on, and return what was passed."""
        taken = self._bytes[self._at : self._at + count]
        self.line += taken.count(b"\n")
        self._at += count
        return taken

    def take_object(self) -> bytes | Unreadable:
        """Move behind the object that begins here, and return it."""
        depth = seen = 0
        while True:
            brace = _BRACE.match(self._bytes, self._at + seen)
            if brace is not None:
                depth += 1 if brace[1] == b"{" else -1
                seen = brace.end() - self._at
                if depth == 0:
                    return self.take(seen)
            elif len(self._bytes) - self._at > LONGEST:
                return _too_long(self.line)
            elif not self._fill():
                return Unreadable(f"line {self.line}", "the file ends within the object that begins here")

    def _fill(self) -> bool:
        """Read on; more at once the more there is, so that a large object is not copied over and over."""
        rest = self._bytes[self._at :]
        chunk = self._file.read(min(max(_CHUNK, len(rest)), LONGEST + 1))
        self._bytes, self._at = rest + chunk, 0
        return bool(chunk)


def _too_long(line: int) -> Unreadable:
    return Unreadable(
        f"line {line}", f"what begins here is longer than {LONGEST // 2**20} MiB; nothing after it is read"
    )
