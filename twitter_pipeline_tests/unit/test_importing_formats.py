"""The formats that files come in: told by their content, and read the same whichever it is."""

import gzip
import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from twitter_pipeline.coverage import time_at
from twitter_pipeline.importing.files import FileFormat, WrongFile, recognise
from twitter_pipeline.importing.found import Author, Finding, Found, Gauge, Unreadable
from twitter_pipeline.x_api.parsing import TweetKind

PAYLOADS = Path(__file__).parent.parent / "payloads" / "import"
PAGES, FLATTENED = PAYLOADS / "twarc2_pages.jsonl", PAYLOADS / "twarc2_flattened.jsonl"
ARCHIVE = PAYLOADS / "archive" / "data"

NOW = datetime(2026, 5, 1, tzinfo=UTC)
MODIFIED = datetime(2024, 2, 3, tzinfo=UTC)
ADA = Author(1000000001, "ada_example")


def read(path: Path, *, owner: Author | None = None) -> list[Finding]:
    return list(recognise(str(path), owner=owner).read(owner=owner, now=NOW, gauge=Gauge()))


def found(path: Path, *, owner: Author | None = None) -> list[Found]:
    """All tweets of a file in which everything can be read."""
    findings = read(path, owner=owner)
    assert [each for each in findings if isinstance(each, Unreadable)] == []
    return [each for each in findings if isinstance(each, Found)]


def unreadable(path: Path) -> list[str]:
    return [str(each) for each in read(path) if isinstance(each, Unreadable)]


def values(each: Found) -> dict[str, Any]:
    """What is stored of a tweet, with its JSON as values: neither blanks nor the order of names and includes matter."""
    raw = json.loads(each.tweet.raw)
    for section in raw.get("includes", {}).values():
        section.sort(key=lambda thing: thing.get("id") or thing["media_key"])
    seen = (each.author.id, each.author.username, each.first_read_at, each.last_read_at, each.is_dated)
    return {**asdict(each.tweet), "raw": raw, "seen": seen}


def write(folder: Path, text: str | bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    os.utime(path, (MODIFIED.timestamp(), MODIFIED.timestamp()))
    return path


def pages() -> list[dict[str, Any]]:
    return [json.loads(line) for line in PAGES.read_text().splitlines()]


def test_pages_of_twarc2_are_read_as_the_api_gave_them_and_dated_by_it() -> None:
    retweet, reply, odd, plain = found(PAGES)

    assert (retweet.tweet.kind, retweet.tweet.text[-26:]) == (TweetKind.RETWEET, "goes on for quite a while.")
    assert (reply.tweet.kind, reply.tweet.quoted_tweet_id) == (TweetKind.REPLY, 1600000000000000001)
    assert reply.tweet.edit_history_ids == (1600000000000000399, 1600000000000000400)
    assert odd.tweet.text == "An odd text: \ufffd and \ufffd"
    assert (r"\ud83d" in odd.tweet.raw, r"\u0000" in odd.tweet.raw) == (True, True)
    assert (plain.first_read_at, plain.is_dated) == (datetime(2023, 3, 15, 15, 53, 21, tzinfo=UTC), True)
    assert plain.author.profile is not None
    assert (plain.author.username, plain.author.profile.tweet_count) == ("ada_example", 300)


def test_what_twarc2_has_flattened_is_read_like_the_pages_it_was_made_of() -> None:
    assert [values(each) for each in found(FLATTENED)] == [values(each) for each in found(PAGES)]


def flatten(page: dict[str, Any]) -> list[dict[str, Any]]:
    """Move what a page includes into its tweets, as twarc2 does (`twarc.expansions`)."""
    sections = {
        name: {thing.get("id") or thing["media_key"]: thing for thing in things}
        for name, things in page.get("includes", {}).items()
    }

    def included(section: str, key: str) -> dict[str, Any]:
        return sections.get(section, {}).get(key, {})

    def expanded(tweet: dict[str, Any]) -> dict[str, Any]:
        flat = {**tweet, "author": included("users", tweet["author_id"])}
        if "in_reply_to_user_id" in tweet:
            flat["in_reply_to_user"] = included("users", tweet["in_reply_to_user_id"])
        if "media_keys" in tweet.get("attachments", {}):
            media = [included("media", key) for key in tweet["attachments"]["media_keys"]]
            flat["attachments"] = {**tweet["attachments"], "media": media}
        if "place_id" in tweet.get("geo", {}):
            flat["geo"] = {**tweet["geo"], **included("places", tweet["geo"]["place_id"])}
        if "referenced_tweets" in tweet:
            flat["referenced_tweets"] = [
                {**each, **(expanded(other) if (other := included("tweets", each["id"])) else {})}
                for each in tweet["referenced_tweets"]
            ]
        return flat

    return [{**expanded(tweet), "__twarc": page["__twarc"]} for tweet in page["data"]]


ids = st.integers(1, 2**63 - 1).map(str)
texts = st.text(st.sampled_from('ab @#"\\\n\u0000\ufffdé\U0001f600'), max_size=20)
users = st.builds(
    lambda key: {
        "id": str(key),
        "username": f"user_{key}",
        "name": f"User {key}",
        "public_metrics": {"followers_count": 1, "following_count": 2, "tweet_count": key, "listed_count": 3},
    },
    st.integers(1, 5),
)
places = st.sampled_from(["p1", "p2"]).map(
    lambda key: {"id": key, "full_name": "Somewhere", "geo": {"type": "Feature"}}
)
media = st.sampled_from(["3_1", "3_2"]).map(lambda key: {"media_key": key, "type": "photo"})


@st.composite
def tweets(draw: st.DrawFn, *, references: Sequence[str] = ()) -> dict[str, Any]:
    tweet: dict[str, Any] = {
        "id": draw(ids),
        "author_id": str(draw(st.integers(1, 5))),
        "text": draw(texts),
        "created_at": "2022-12-06T09:50:00.000Z",
        "public_metrics": {"like_count": draw(st.integers(0, 9)), "retweet_count": 1},
        "novelty": draw(st.none() | st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=2)),
    }
    if draw(st.booleans()):
        tweet["in_reply_to_user_id"] = str(draw(st.integers(1, 5)))
    if draw(st.booleans()):
        tweet["attachments"] = {"media_keys": draw(st.lists(st.sampled_from(["3_1", "3_2", "3_3"]), unique=True))}
    if draw(st.booleans()):
        tweet["geo"] = {"place_id": draw(st.sampled_from(["p1", "p2", "p3"]))}
    if references and draw(st.booleans()):
        kinds = draw(
            st.lists(st.sampled_from(["retweeted", "replied_to", "quoted"]), min_size=1, max_size=2, unique=True)
        )
        tweet["referenced_tweets"] = [{"type": kind, "id": draw(st.sampled_from(references))} for kind in kinds]
    return tweet


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """A page whose includes may lack what its tweets point at, as X's often do."""
    others = draw(st.lists(tweets(), max_size=2, unique_by=lambda tweet: tweet["id"]))
    references = [*(each["id"] for each in others), "404"]
    return {
        "data": draw(st.lists(tweets(references=references), max_size=3, unique_by=lambda tweet: tweet["id"])),
        "includes": {
            "users": draw(st.lists(users, unique_by=lambda user: user["id"])),
            "places": draw(st.lists(places, unique_by=lambda place: place["id"])),
            "media": draw(st.lists(media, unique_by=lambda each: each["media_key"])),
            "tweets": others,
        },
        "meta": {},
        "__twarc": {"retrieved_at": "2023-03-15T15:53:19+00:00"},
    }


def jsonl(items: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


# Each way to write pages down, of which the same tweets must be read.
RENDERINGS: dict[str, Callable[[list[dict[str, Any]]], str | bytes]] = {
    "JSON lines": jsonl,
    "JSON lines, not escaped": lambda all_: "".join(json.dumps(each, ensure_ascii=False) + "\n\n" for each in all_),
    "JSON lines, gzip": lambda all_: gzip.compress(jsonl(all_).encode()),
    "a list": json.dumps,
    "a list over lines": lambda all_: json.dumps(all_, indent=2),
    "one after the other over lines": lambda all_: "\n".join(json.dumps(each, indent=2) for each in all_),
    "flattened lines": lambda all_: jsonl([tweet for page in all_ for tweet in flatten(page)]),
    "flattened list": lambda all_: json.dumps([tweet for page in all_ for tweet in flatten(page)], indent=1),
    "single tweets": lambda all_: jsonl([{**page, "data": tweet} for page in all_ for tweet in page["data"]]),
}


@pytest.mark.parametrize("rendering", [name for name in RENDERINGS if name != "JSON lines"])
@given(st.lists(answers(), min_size=1, max_size=2).filter(lambda pages: any(page["data"] for page in pages)))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_tweet_is_read_the_same_in_every_format(tmp_path: Path, rendering: str, pages: list[dict[str, Any]]) -> None:
    plain = write(tmp_path, jsonl(pages), "plain")
    other = write(tmp_path, RENDERINGS[rendering](pages), "other")

    assert [values(each) for each in found(other)] == [values(each) for each in found(plain)]


def test_the_format_is_told_by_the_content(tmp_path: Path) -> None:
    def told(text: str | bytes) -> FileFormat:
        return recognise(str(write(tmp_path, text)), owner=None).format

    responses = [*pages(), {"meta": {"result_count": 0}}, {"errors": [{"title": "Not Found Error"}]}]
    assert {told(jsonl([page])) for page in responses} == {FileFormat.RESPONSES}
    assert told(FLATTENED.read_bytes()) == FileFormat.TWEETS
    assert recognise(str(ARCHIVE / "tweets.js"), owner=None).format == FileFormat.ARCHIVE_SCRIPT


def test_data_without_a_date_are_dated_by_the_file_and_known_to_be_so(tmp_path: Path) -> None:
    page = pages()[1]
    del page["__twarc"]
    (first, _) = found(write(tmp_path, json.dumps(page)))

    assert (first.first_read_at, first.last_read_at, first.is_dated) == (MODIFIED, MODIFIED, False)


def test_nothing_was_read_in_the_future(tmp_path: Path) -> None:
    page = {**pages()[1], "__twarc": {"retrieved_at": "2033-01-01T00:00:00Z"}}

    assert {each.last_read_at for each in found(write(tmp_path, json.dumps(page)))} == {NOW}


@pytest.mark.parametrize("told", ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00+23:59", "2006-01-01T00:00:00Z"])
def test_nothing_was_read_before_there_was_anything(told: str, tmp_path: Path) -> None:
    page = {**pages()[1], "__twarc": {"retrieved_at": told}}

    assert {(each.last_read_at, each.is_dated) for each in found(write(tmp_path, json.dumps(page)))} == {
        (MODIFIED, False)
    }


@pytest.mark.parametrize("told", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2022-12-31T00:00:00Z"])
def test_impossible_times_of_an_export_are_those_of_the_id_and_the_file(told: str, tmp_path: Path) -> None:
    tweet_id = 1600000000000000200
    times = dict.fromkeys(("created_at", "first_read_at", "last_read_at", "deleted_seen_at"), told)
    columns = {"version": 1, "author": {"id": "5"}, "id": str(tweet_id), "kind": "original", "text": "a", **times}
    line = json.dumps({"data": {"id": str(tweet_id)}, "includes": {}, "twitter_pipeline": columns})
    (tweet,) = found(write(tmp_path, line))

    at = {"0001": MODIFIED, "9999": NOW, "2022": datetime(2022, 12, 31, tzinfo=UTC)}[told[:4]]
    assert tweet.tweet.created_at == time_at(tweet_id)
    assert (tweet.first_read_at, tweet.last_read_at, tweet.is_dated) == (at, at, told[0] != "0")
    assert tweet.deleted_seen_at == (at if told[0] == "2" else None)


def test_a_tweet_without_author_is_that_of_the_account_given(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": "20", "text": "just setting up my twttr", "author": {}}\n')
    (tweet,) = found(path, owner=ADA)

    assert (tweet.tweet.author_id, tweet.author) == (ADA.id, ADA)
    assert unreadable(path) == ["line 1: tweet 20 does not tell its author; say who wrote it with --account"]


def test_bad_lines_do_not_stop_the_rest(tmp_path: Path) -> None:
    good = jsonl([{"id": "7", "author_id": "1", "text": "seven"}])
    bad = [b'{"data": [{"id": "1", "te', b"[]", b'{"nothing": 1}', b'"\xff"', b'{"data": 5}']
    bad.append(b'{"id": "1", "author_id": "1", "text": "one", "odd": 1e400}')
    user = b'{"data": [{"id": "9", "username": "ada"}, {"text": "no id"}]}'
    path = write(tmp_path, good.encode() + b"\n".join([*bad, user]) + b"\n" + good.replace("7", "8").encode())
    expected = "expected a response of the API (data, includes), a tweet (id, text, author_id), or a line of an export"

    assert [each.tweet.id for each in read(path) if isinstance(each, Found)] == [7, 8]
    told = unreadable(path)
    assert [line.partition(":")[0] for line in told] == [f"line {number}" for number in (2, 3, 4, 5, 6, 7, 8, 8)]
    assert told[2] == f"line 4: {expected}"
    assert told[0].startswith(f"line 2: {expected}; ")
    assert "was left out: its id is missing" in told[6]
    assert told[7] == "line 8: what has the id 9 is no tweet: it has no text"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"Dear all,\n", "line 1: expected a response of the API"),
        (b'{"name": "nobody"}\n{"a": 1}\n', "line 1: expected a response of the API"),
        (b'[\n{"name": "nobody"}]', "line 2: expected a response of the API"),
        (b"[1]", "line 1: expected an object, found '1'"),
        (b"id,text\n1,a\n", "author_id, created_at, kind, first_read_at, last_read_at, raw are missing"),
        (b"id\n1\n", "are missing"),
        (b"PAR1 but no more", "it begins as Parquet does, but"),
        (b"PK but no more", "is not a zip file"),
        (b"\x1f\x8b but no more", "cannot be read"),
        (b"\x28\xb5\x2f\xfd", "it is compressed with zstd; unpack it first"),
        (b"window.YTD.like.part0 = [ ]", "expected window.YTD.tweets, the tweets of an account archive, found like"),
        (b"window.YTD.tweets.part0 = [ ]", "it does not tell whose tweets it holds"),
    ],
)
def test_a_wrong_file_is_refused_with_what_was_expected(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(WrongFile) as refused:
        recognise(str(write(tmp_path, content)), owner=None)

    assert why in str(refused.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WrongFile, match=r"missing cannot be read: No such file"):
        recognise(str(tmp_path / "missing"), owner=None)


def test_what_comes_before_damage_is_read(tmp_path: Path) -> None:
    many = jsonl([{"id": str(number), "author_id": "1", "text": os.urandom(40).hex()} for number in range(1, 2000)])
    path = write(tmp_path, gzip.compress(many.encode())[:-2000])
    read_ = read(path)

    assert len(read_) > 100
    assert str(read_[-1]).startswith("after what was read: the file is damaged: ")


def zipped(folder: Path, *, prefix: str = "data/", leave_out: Sequence[str] = ()) -> Path:
    path = folder / "archive.zip"
    with ZipFile(path, "w") as archive:
        for script in sorted(ARCHIVE.iterdir(), reverse=True):
            if script.name not in leave_out:
                archive.write(script, prefix + script.name)
        archive.writestr("assets/js/app.js", "let tweets = [];")
    os.utime(path, (MODIFIED.timestamp(), MODIFIED.timestamp()))
    return path


def test_an_account_archive_becomes_our_columns(tmp_path: Path) -> None:
    plain, reply, retweet, quote = found(zipped(tmp_path))

    assert {each.author for each in (plain, reply, retweet, quote)} == {ADA}
    assert {(each.last_read_at, each.is_dated) for each in (plain, quote)} == {
        (datetime(2023, 1, 15, 8, 45, 27, 14000, tzinfo=UTC), True)
    }
    columns = asdict(plain.tweet)
    raw = json.loads(columns.pop("raw"))
    assert columns == {
        "id": 1600000000000000200,
        "author_id": ADA.id,
        "created_at": datetime(2022, 12, 6, 9, 20, tzinfo=UTC),
        "text": "A plain one",
        "kind": TweetKind.ORIGINAL,
        "lang": "en",
        "conversation_id": 1600000000000000200,
        "in_reply_to_user_id": None,
        "in_reply_to_tweet_id": None,
        "retweeted_tweet_id": None,
        "quoted_tweet_id": None,
        "like_count": 3,
        "retweet_count": 1,
        "reply_count": None,
        "quote_count": None,
        "bookmark_count": None,
        "impression_count": None,
        "edit_history_ids": (1600000000000000200,),
    }
    assert raw["display_text_range"] == ["0", "11"]
    assert (reply.tweet.kind, reply.tweet.in_reply_to_tweet_id, reply.tweet.in_reply_to_user_id) == (
        TweetKind.REPLY,
        1600000000000000002,
        1000000002,
    )
    assert (reply.tweet.quoted_tweet_id, reply.tweet.conversation_id) == (1600000000000000001, None)
    assert reply.tweet.edit_history_ids == (1600000000000000399, 1600000000000000400)
    assert (retweet.tweet.kind, retweet.tweet.retweeted_tweet_id) == (TweetKind.RETWEET, None)
    assert (quote.tweet.kind, quote.tweet.quoted_tweet_id) == (TweetKind.QUOTE, 1600000000000000001)
    assert quote.tweet.text == "Half a pair \ufffd and \ufffd https://t.co/r"
    assert (r"\ud83d" in quote.tweet.raw, r"\u0000" in quote.tweet.raw) == (True, True)


def test_the_archive_of_before_2019_is_read_too(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    tweet = {"id_str": "1600000000000000200", "full_text": "A plain \ud83d one", "created_at": "nonsense"}
    write(folder, f"window.YTD.tweet.part0 = [ {json.dumps(tweet)} ]", "tweet.js")
    write(folder, (ARCHIVE / "account.js").read_bytes(), "account.js")
    with ZipFile(tmp_path / "old.zip", "w") as archive:
        for script in folder.iterdir():
            archive.write(script, script.name)
    (read_,) = found(tmp_path / "old.zip")

    assert (read_.tweet.text, read_.tweet.created_at, read_.author) == ("A plain \ufffd one", None, ADA)
    assert not read_.is_dated


def test_a_script_of_the_archive_is_that_of_the_account_beside_it_or_of_the_one_given(tmp_path: Path) -> None:
    alone = write(tmp_path, (ARCHIVE / "tweets.js").read_bytes())
    other = Author(5)

    assert {each.author for each in found(ARCHIVE / "tweets.js")} == {ADA}
    assert {each.author for each in found(alone, owner=other)} == {other}
    assert {each.is_dated for each in found(alone, owner=other)} == {False}


def test_an_archive_without_tweets_or_without_account_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongFile, match=r"with data/tweets\.js or data/tweet\.js in it"):
        recognise(str(zipped(tmp_path, leave_out=["tweets.js", "tweets-part1.js"])), owner=None)
    with pytest.raises(WrongFile, match="does not tell the account"):
        recognise(str(zipped(tmp_path, leave_out=["account.js"])), owner=None)

    assert len(found(zipped(tmp_path, prefix="twitter-2023/data/"))) == 4


def test_a_bad_entry_of_the_archive_is_told_by_script_and_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    with ZipFile(path, "w") as archive:
        archive.write(ARCHIVE / "account.js", "data/account.js")
        archive.writestr(
            "data/tweets.js", 'window.YTD.tweets.part0 = [\n{"tweet": {"id_str": "5"}},\n{"tweet": 7},\n{"tweet"'
        )

    assert unreadable(path) == [
        "data/tweets.js line 2: expected a tweet of the archive (id_str, full_text)",
        "data/tweets.js line 3: it is no JSON object",
        "data/tweets.js line 4: the file ends within the object that begins here",
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_a_gauge_tells_how_far_the_file_is_read_as_it_lies_there(packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "tweets"
    content = FLATTENED.read_bytes() * 500
    path.write_bytes(gzip.compress(content) if packed else content)
    gauge, told = Gauge(), list[int]()
    for _ in recognise(str(path), owner=None).read(owner=None, now=NOW, gauge=gauge):
        told.append(gauge.bytes_read)

    assert told == sorted(told)
    assert 0 < told[0] < told[-1] <= path.stat().st_size
    assert gauge.bytes_read == 0
