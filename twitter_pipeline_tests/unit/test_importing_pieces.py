"""Files of JSON in pieces: whatever they hold, the pieces are its own bytes, and where it breaks is told."""

import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twitter_pipeline.importing import splitting
from twitter_pipeline.importing.found import Unreadable
from twitter_pipeline.importing.splitting import Piece, lines_of, objects_of

texts = st.text(st.sampled_from('ab{}[]",\\\n\ud83d\u0000é'), max_size=8)
values: st.SearchStrategy[Any] = st.recursive(
    texts | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, values, max_size=4)


def bodies(file: bytes, *, after: bytes = b"") -> list[Any]:
    return [
        piece.body if isinstance(piece, Piece) else str(piece) for piece in objects_of(io.BytesIO(file), after=after)
    ]


@pytest.fixture(params=[1, 7, 2**18], ids="read by {}".format)
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "_CHUNK", request.param)


@pytest.mark.usefixtures("chunk")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(objects, max_size=5), st.sampled_from([None, 2]), st.booleans())
def test_the_objects_of_a_list_come_out_as_they_stand_there(
    items: list[dict[str, Any]], indent: int | None, is_list: bool
) -> None:
    written = [json.dumps(item, indent=indent).encode() for item in items]
    file = b" [" + b" , ".join(written) + b"]\n" if is_list else b"\n".join(written)

    assert bodies(file) == written


def test_an_object_is_told_with_the_line_that_it_begins_in() -> None:
    file = b'\xef\xbb\xbf[\n{"a":\n1},\n\n  {"b": "\\"}\\n{"}]'

    assert list(objects_of(io.BytesIO(file))) == [Piece(2, b'{"a":\n1}'), Piece(5, b'{"b": "\\"}\\n{"}')]


def test_what_stands_before_the_list_is_passed_over() -> None:
    assert bodies(b'window.x = [{"a": 1}]', after=b"window.x = ") == [b'{"a": 1}']


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (b'[{"a": 1},\n{"b": ', "line 2: the file ends within the object that begins here"),
        (b'[{"a": 1},\n{"b": "}', "line 2: the file ends within the object that begins here"),
        (b'[{"a": 1}\n', "line 2: the file ends within the list that begins in line 1"),
        (b'[{"a": 1},\n 7]', "line 2: expected an object, found '7'"),
        (b'[{"a": 1}, [{"b": 1}]]', "line 1: expected an object, found '['"),
        (b'{"a": 1}\n]', "line 2: expected an object, found ']'"),
    ],
)
def test_a_broken_file_gives_what_comes_before_and_tells_where_it_breaks(file: bytes, told: str) -> None:
    assert bodies(file) == [b'{"a": 1}', told]


def test_lines_are_numbered_with_the_blank_ones() -> None:
    assert list(lines_of(io.BytesIO(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"b": 2}'))) == [
        Piece(1, b'{"a": 1}'),
        Piece(4, b'{"b": 2}'),
    ]


def test_what_is_too_long_is_not_taken_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "LONGEST", 2**20)
    long = b'{"a": "' + b"x" * 2**22 + b'"}'
    told = "what begins here is longer than 1 MiB; nothing after it is read"

    assert list(lines_of(io.BytesIO(b"{}\n" + long))) == [Piece(1, b"{}"), Unreadable("line 2", told)]
    assert list(objects_of(io.BytesIO(b"[{},\n" + long))) == [Piece(1, b"{}"), Unreadable("line 2", told)]
