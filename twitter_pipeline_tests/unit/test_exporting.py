"""Stored tweets as lines and as Parquet: every value comes back as it is stored, the JSON to the byte."""

import errno
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twitter_pipeline.errors import ConfigurationError, PipelineError
from twitter_pipeline.exporting import parquet
from twitter_pipeline.exporting.destination import check_target, new_file
from twitter_pipeline.exporting.lines import id_line_of, joined, line_of, split
from twitter_pipeline.exporting.parquet import VERSION_KEY, ParquetFile
from twitter_pipeline.models.tweets import Tweet as TweetRow
from twitter_pipeline.store.database import DatabaseFault
from twitter_pipeline.store.exports import StoredTweet
from twitter_pipeline.x_api.parsing import read_tweets_page

AT = datetime(2026, 11, 1, 12, 0, 0, 5, tzinfo=UTC)

# What PostgreSQL keeps in a text column: no NUL, no half of a surrogate pair.
TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)))
BIGINTS = st.integers(-(2**63), 2**63 - 1)
INSTANTS = st.timedeltas(timedelta(days=-700_000), timedelta(days=2_900_000)).map(lambda since: AT + since)


def written(value: object, style: dict[str, Any]) -> bytes:
    """Write JSON in some style; one that escapes everything also holds NUL and halves of surrogate pairs."""
    return json.dumps(value, **style).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("includes"), inner, max_size=3),
    max_leaves=8,
)
ODD_JSON = st.dictionaries(st.text() | st.just("includes"), JSON | st.text(), max_size=4)
STYLES = st.sampled_from(
    [
        {"separators": (",", ":")},
        {"separators": (",", ":"), "indent": 1},
        {"separators": (" ,\r\n", " : ")},
    ]
)

# As X gives it, with includes of its own; as it is once its content was removed; and all else that is JSON.
RAWS = st.one_of(
    st.builds(
        lambda tweet, includes: joined(written(tweet, {}), written(includes, {})), ODD_JSON.filter(bool), ODD_JSON
    ),
    st.just(b"{}"),
    st.builds(written, ODD_JSON | JSON, STYLES),
)

TWEETS = st.builds(
    StoredTweet,
    id=BIGINTS,
    author_id=BIGINTS,
    username=st.none() | TEXTS,
    created_at=INSTANTS,
    kind=st.sampled_from(["original", "reply"]),
    text=TEXTS,
    lang=st.none() | TEXTS,
    conversation_id=st.none() | BIGINTS,
    in_reply_to_tweet_id=st.none() | BIGINTS,
    in_reply_to_user_id=st.none() | BIGINTS,
    retweeted_tweet_id=st.none() | BIGINTS,
    quoted_tweet_id=st.none() | BIGINTS,
    edit_history_ids=st.none() | st.lists(BIGINTS, max_size=3),
    like_count=st.none() | BIGINTS,
    retweet_count=st.none() | BIGINTS,
    reply_count=st.none() | BIGINTS,
    quote_count=st.none() | BIGINTS,
    bookmark_count=st.none() | BIGINTS,
    impression_count=st.none() | BIGINTS,
    first_read_at=INSTANTS,
    first_read_run_id=st.none() | BIGINTS,
    last_read_at=INSTANTS,
    last_read_run_id=st.none() | BIGINTS,
    deleted_seen_at=st.none() | INSTANTS,
    sandbox=st.booleans(),
    raw=RAWS,
)

TWEET = StoredTweet(
    id=20,
    author_id=12,
    username="jack",
    created_at=AT,
    kind="original",
    text="just setting up",
    lang=None,
    conversation_id=20,
    in_reply_to_tweet_id=None,
    in_reply_to_user_id=None,
    retweeted_tweet_id=None,
    quoted_tweet_id=None,
    edit_history_ids=[20, 21],
    like_count=7,
    retweet_count=None,
    reply_count=None,
    quote_count=None,
    bookmark_count=None,
    impression_count=None,
    first_read_at=AT,
    first_read_run_id=3,
    last_read_at=AT,
    last_read_run_id=3,
    deleted_seen_at=None,
    sandbox=False,
    raw=b'{"id":"20","text":"\\u0000\\ud83d","includes":{"media":[{"media_key":"3_1"}]}}',
)


def with_raw(raw: bytes) -> StoredTweet:
    return TWEET._replace(raw=raw)


def read_line(line: bytes) -> StoredTweet:
    """Read a line back, by Python's own JSON and the bytes that stand in it."""
    told = json.loads(line)["twitter_pipeline"]
    if "raw" in told:
        raw = told["raw"].encode()
    else:
        start, end = len(b'{"data":'), line.rindex(b',"twitter_pipeline":')
        _, length = json.JSONDecoder().raw_decode(line.decode()[start:])
        data = line.decode()[start : start + length].encode()
        raw = joined(data, line[start + len(data) + len(b',"includes":') : end])
    values = {name: told.get(name) for name in StoredTweet._fields}
    values |= {"author_id": told["author"]["id"], "username": told["author"]["username"], "raw": raw}
    for name, value in values.items():
        if name.endswith("_at") and value is not None:
            values[name] = datetime.fromisoformat(value)
        elif name.endswith("_ids") and value is not None:
            values[name] = [int(each) for each in value]
        elif (name == "id" or name.endswith("_id")) and value is not None:
            values[name] = int(value)
    return StoredTweet(**values)


@given(TWEETS)
@example(TWEET)
def test_a_tweet_comes_back_from_its_line_as_it_is_stored(tweet: StoredTweet) -> None:
    line = line_of(tweet)

    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert line.endswith(b"\n")
    assert read_line(line) == tweet


@given(RAWS)
def test_a_tweet_and_its_includes_stand_apart_or_not_at_all(raw: bytes) -> None:
    parts = split(raw)

    if parts is not None:
        assert joined(*parts) == raw
        assert {**json.loads(parts[0]), "includes": json.loads(parts[1])} == json.loads(raw)
    line = json.loads(line_of(with_raw(raw)))
    assert line["data"] == json.loads(raw if parts is None else parts[0])


def test_a_line_is_the_tweet_as_x_gave_it_its_includes_and_what_else_is_stored() -> None:
    line = line_of(TWEET)

    assert line.startswith(
        b'{"data":{"id":"20","text":"\\u0000\\ud83d"},"includes":{"media":[{"media_key":"3_1"}]},"twitter_pipeline":'
    )
    assert json.loads(line)["twitter_pipeline"] == {
        "version": 1,
        "author": {"id": "12", "username": "jack"},
        "id": "20",
        "created_at": "2026-11-01T12:00:00.000005Z",
        "kind": "original",
        "text": "just setting up",
        "lang": None,
        "conversation_id": "20",
        "in_reply_to_tweet_id": None,
        "in_reply_to_user_id": None,
        "retweeted_tweet_id": None,
        "quoted_tweet_id": None,
        "edit_history_ids": ["20", "21"],
        "like_count": 7,
        "retweet_count": None,
        "reply_count": None,
        "quote_count": None,
        "bookmark_count": None,
        "impression_count": None,
        "first_read_at": "2026-11-01T12:00:00.000005Z",
        "first_read_run_id": 3,
        "last_read_at": "2026-11-01T12:00:00.000005Z",
        "last_read_run_id": 3,
        "deleted_seen_at": None,
        "sandbox": False,
    }


def test_what_the_parser_makes_of_an_answer_is_split_where_it_was_put_together() -> None:
    tweet = {"id": "20", "author_id": "12", "attachments": {"media_keys": ["3_1"]}}
    body = json.dumps({"data": [tweet], "includes": {"media": [{"media_key": "3_1", "alt_text": '"includes":{}}'}]}})
    (read,) = read_tweets_page(body.encode()).tweets

    assert split(read.raw.encode()) == (
        json.dumps(tweet).encode(),
        b'{"media":[{"media_key": "3_1", "alt_text": "\\"includes\\":{}}"}]}',
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"id":"20"}',
        b'{"includes":{}}',
        b'{"id":"20", "includes":{}}',
        b'{"id":"20","includes":{}} ',
        b'{"id":"20","includes":{},"text":""}',
        b'{"id":"20","referenced":{"includes":{}},"x":{"id":"1","includes":{}}}',
        b'{"id":\n"20","includes":{}}',
        b"[]",
        b"null",
    ],
)
def test_a_raw_that_cannot_be_split_to_the_byte_is_kept_as_text(raw: bytes) -> None:
    line = line_of(with_raw(raw))

    assert split(raw) is None
    assert json.loads(line)["twitter_pipeline"]["raw"].encode() == raw
    assert line.startswith(b'{"data":' + raw.replace(b"\n", b" ") + b',"includes":{},')


def test_an_id_is_written_as_x_writes_it() -> None:
    assert id_line_of((20,)) == b'{"id":"20"}\n'


def test_the_exported_columns_are_those_of_the_table_and_two_more() -> None:
    assert set(StoredTweet._fields) == {column.name for column in TweetRow.__table__.columns} | {"username", "sandbox"}


def read_parquet(content: bytes) -> list[StoredTweet]:
    rows = pq.read_table(io.BytesIO(content)).to_pylist()
    return [StoredTweet(**{**row, "raw": row["raw"].encode()}) for row in rows]


def parquet_of(*batches: list[tuple[object, ...]], ids_only: bool = False) -> bytes:
    file = io.BytesIO()
    with ParquetFile(file, ids_only=ids_only) as rows:
        for batch in batches:
            rows.write(batch)
    return file.getvalue()


@settings(max_examples=30)
@given(st.lists(st.lists(TWEETS, min_size=1, max_size=3), max_size=3))
def test_tweets_come_back_from_parquet_as_they_are_stored(batches: list[list[tuple[object, ...]]]) -> None:
    assert read_parquet(parquet_of(*batches)) == [tweet for batch in batches for tweet in batch]


def test_a_parquet_file_has_typed_columns_and_tells_its_version() -> None:
    schema = pq.read_schema(io.BytesIO(parquet_of([TWEET])))

    assert {name: str(schema.field(name).type) for name in ("id", "created_at", "edit_history_ids", "text", "raw")} == {
        "id": "int64",
        "created_at": "timestamp[us, tz=UTC]",
        "edit_history_ids": "list<element: int64>",
        "text": "string",
        "raw": "string",
    }
    assert [schema.field(name).nullable for name in ("id", "lang")] == [False, True]
    assert schema.metadata[VERSION_KEY] == b"1"
    assert pq.read_table(io.BytesIO(parquet_of([(20,), (21,)], ids_only=True))).to_pylist() == [{"id": 20}, {"id": 21}]


@pytest.mark.parametrize(("limit", "most"), [("GROUP_ROWS", 4), ("GROUP_BYTES", 2000)])
def test_a_row_group_ends_with_so_many_rows_or_bytes(limit: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, limit, most)
    filled = TWEET._replace(text="x" * 400)
    content = parquet_of(*([filled, filled] for _ in range(5)))
    metadata = pq.ParquetFile(io.BytesIO(content)).metadata

    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [4, 4, 2]


def write_id(file: BinaryIO, *, fault: BaseException | None = None) -> None:
    with ParquetFile(file, ids_only=True) as rows:
        rows.write([(20,)])
        if fault is not None:
            raise fault


def test_a_parquet_file_that_is_broken_off_is_not_touched_again(tmp_path: Path) -> None:
    path = tmp_path / "tweets.parquet"
    with path.open("wb") as file, pytest.raises(KeyError):
        write_id(file, fault=KeyError())

    assert path.read_bytes() == b"PAR1"


class SmallDisk(io.BytesIO):
    """A file on a disk with room for ten bytes."""

    def write(self, content: Any, /) -> int:
        if self.tell() + len(content) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


def test_a_parquet_file_that_cannot_be_ended_is_not_ended_again() -> None:
    disk = SmallDisk()
    with pytest.raises(OSError, match="No space left"):
        write_id(disk)

    assert disk.getvalue() == b"PAR1"


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "tweets.csv"
    with new_file(path, compressed=False) as file:
        file.write(b"id\n")
        during = path.exists()

    assert (during, path.read_bytes(), list(tmp_path.iterdir())) == (False, b"id\n", [path])


def break_off_file(path: Path, error: type[BaseException], *, compressed: bool) -> None:
    with new_file(path, compressed=compressed) as file:
        file.write(b"id\n")
        raise error


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt, KeyboardInterrupt), (DatabaseFault, DatabaseFault), (OSError, PipelineError)],
)
def test_an_export_that_breaks_leaves_nothing_and_the_file_before_as_it_was(
    compressed: bool, error: type[BaseException], raised: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "tweets"
    path.write_bytes(b"before")
    with pytest.raises(raised):
        break_off_file(path, error, compressed=compressed)

    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"before", [path])


def test_a_target_that_exists_is_refused_unless_forced(tmp_path: Path) -> None:
    path, link = tmp_path / "tweets.csv", tmp_path / "link.csv"
    path.touch()
    link.symlink_to(path)

    assert [check_target(each, force=True) for each in (path, link)] == [path, path]
    for target in (path, link):
        with pytest.raises(ConfigurationError, match="exists already"):
            check_target(target, force=False)


@pytest.mark.parametrize(
    ("target", "why"),
    [("/dev/null", "no ordinary file"), ("/", "no ordinary file"), ("/nonexistent/tweets.csv", "does not exist")],
)
def test_a_target_that_is_no_file_or_has_no_folder_is_refused(target: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        check_target(Path(target), force=True)
