"""`fetch` on requests that are wrong: exit code 2 and one readable message, whatever is given, and however much."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.cli import main
from twitter_pipeline.settings import load_settings

ENTRY = '{"username": "nasa", "track_after": false, "fetch_mode": "limit:50"}'
LONGEST_MESSAGE = 10_000


@pytest.fixture(autouse=True, scope="module")
def _nowhere() -> Iterator[None]:
    """A database that cannot be reached: a request that is right after all gets no further."""
    unreachable = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    no_file = {"env_file": Path("/nonexistent/.env")}
    with patch.dict(os.environ, unreachable), patch.dict(load_settings.__kwdefaults__ or {}, no_file):
        yield


def fetch(*words: str, given: bytes = b"") -> tuple[int, str, str]:
    """Run `fetch` and return its exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), patch("sys.stdin", io.TextIOWrapper(io.BytesIO(given))):
        code = main(["fetch", *words])
    return code, out.getvalue(), err.getvalue()


def assert_refused(result: tuple[int, str, str]) -> str:
    """Assert that a command was refused as one that a person typed; return what it said."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    assert "fault of the program" not in err
    assert len(err) <= LONGEST_MESSAGE
    assert all(line.isprintable() for line in err.splitlines())
    return err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "There is nothing on stdin"),
        (b"- username: nasa\n  fetch_mode: full\n", "line 1, column 2: got "),
        (b"username,fetch_mode\nnasa,full\n", "line 1, column 1: got "),
        (f"[{ENTRY},]".encode(), "line 1, column 70: got "),
        (f"[{ENTRY}".encode(), "line 1, column 70: got "),
        (f"[{ENTRY}]".encode("utf-16"), "request: got bytes that are no UTF-8 text, expected JSON in UTF-8"),
        (b'[{"username": "\xff"}]', "request: got bytes that are no UTF-8 text, expected JSON in UTF-8"),
        (b'[{"username": "nasa\\ud83d"}]', "line 1, column 20: got no low surrogate in string"),
        (b'[{"username": "na\\u0000sa"}]', r'entry 1, username: got "na\u0000sa"'),
        (b'[{"username": "\\u001b[2J\\u202e"}]', r'entry 1, username: got "\u001b[2J\u202e"'),
        (b'[{"username": "<b>nasa</b>"}]', 'entry 1, username: got "<b>nasa</b>"'),
        (b'[{"username": "x\'; DROP TABLE users; --"}]', "entry 1, username: got \"x'; DROP TABLE users; --\""),
        (b'[{"username": 123}]', "entry 1, username: got 123, expected 1 to 15 letters, digits or under"),
        (b'[{"username": "nasa", "username": "esa"}]', 'field "username": got the field more than once'),
        (b'{"username": "nasa"}', "request: got "),
        (b"[" * 100_000, "line 1, column 1026: got "),
        (b"[" * 1_000 + b"]" * 1_000, "request: got lists or objects, hundreds of them in one another"),
        (b"[" + b"9" * 100_000 + b"]", "line 1, column 2: got "),
        (b"[" + b"{}," * 1_000_000 + b"{}]", "request: got 1,000,001 entries, expected at most 100,000"),
        (b"[" + b"0," * 100_000 + b"0]", "request: got 100,001 entries, expected at most 100,000"),
        (b"[" * 20_000_000, "request: got more than 16 MiB of JSON, expected at most 100,000 entries; make several"),
    ],
    ids=range(21),
)  # fmt: skip
def test_a_bad_request_on_stdin_is_refused_with_its_mistake(text: bytes, said: str) -> None:
    assert said in assert_refused(fetch("-", given=text))


@pytest.mark.parametrize("bad", [7, None, "nasa", ["nasa"], {"username": 7}, {"x" * 100: 1}, {"username": "x" * 99}])
def test_a_hundred_thousand_mistakes_fit_a_screen_or_two_and_are_counted(bad: object, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps([bad] * 100_000))

    lines = assert_refused(fetch(str(path))).splitlines()

    count = 200_000 if isinstance(bad, dict) and "username" not in bad else 100_000
    assert lines[0] == f"Error: The request has {count} mistakes; no call was made."
    assert (len(lines), lines[-1]) == (52, f"  ... and {count - 50} more")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["@nasa", "@no name", "@", "@\x1b[2J", "@\u202e"], "The request has 4 mistakes"),
        (["@nasa", "--mode", "some"], 'fetch_mode: got "some"'),
        ([f"@{'x' * 100_000}"], "entry 1, username: got "),
        (["@nasa", *["@!"] * 20_000], "... and 19950 more"),
        (["@nasa", "x" * 100_000], "is no name, and there is more than one"),
        (["x" * 100_000], "cannot be read"),
        (["[" + ENTRY * 1_000], "To give the request itself, pipe it"),
        (["no\x1b[2J\u202efile"], r"There is no file no\x1b[2J\u202efile"),
        (["nul\0file"], r"The file nul\x00file cannot be read"),
        (["half\udc80file"], r"There is no file half\udc80file"),
        ([os.devnull], "is empty"),
        (["/"], "cannot be read: Is a directory"),
    ],
    ids=range(12),
)  # fmt: skip
def test_bad_words_are_refused_with_what_is_wrong(words: list[str], said: str) -> None:
    assert said in assert_refused(fetch(*words))


def test_names_that_are_none_are_told_in_a_bounded_message(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["track", "nasa", *["no name"] * 20_000, "x" * 100_000])
    shown = capsys.readouterr()

    message = assert_refused((code, shown.out, shown.err))
    assert "no name and 19951 more. A username has" in message


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NEARLY = st.lists(
    st.fixed_dictionaries(
        {"username": st.sampled_from(["nasa", "@ESA"]) | ANYTHING},
        optional={"track_after": ANYTHING, "fetch_mode": ANYTHING, "mode": ANYTHING},
    )
    | ANYTHING,
    max_size=4,
).map(json.dumps)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"])


def damaged(text: bytes, at: int, by: bytes) -> bytes:
    at %= len(text) + 1
    return text[:at] + by + text[at + len(by) :]


WRONG = (
    st.binary()
    | st.builds(str.encode, NEARLY, ENCODINGS)
    | st.builds(damaged, NEARLY.map(str.encode), st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
)


@given(WRONG)
def test_whatever_comes_on_stdin_the_answer_is_one_readable_message(text: bytes) -> None:
    assert_refused(fetch("-", given=text))


@given(st.lists(st.text(st.characters(exclude_characters="-")), max_size=3))
def test_whatever_words_are_given_the_answer_is_one_readable_message(words: list[str]) -> None:
    assert_refused(fetch(*words))


@given(st.lists(st.text().map("@{}".format), min_size=1, max_size=3), st.none() | st.text())
def test_whatever_names_are_given_the_answer_is_one_readable_message(names: list[str], mode: str | None) -> None:
    assert_refused(fetch(*names, *(() if mode is None else (f"--mode={mode}",))))
