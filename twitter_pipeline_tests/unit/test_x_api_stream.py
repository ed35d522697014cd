"""The stream as bytes: lines however they are cut, heartbeats, messages, ends, and what is none of these."""

import json
import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.errors import ApiError, ConnectionFault, StreamEnded, UnreadableAnswer, UsageCapped
from twitter_pipeline.x_api.stream import TweetStream
from twitter_pipeline.x_api.stream_messages import Lines, read_message, read_stream_rules
from twitter_pipeline_tests.unit.odd_json import ODD_VALUES

PAYLOADS = Path(__file__).parents[1] / "payloads"
QUOTED: dict[str, Any] = {
    each["name"]: each["body"] for each in json.loads((PAYLOADS / "x_api_problem_bodies.json").read_text())
}
LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"").strip()), max_size=8)


def message(tweet_id: int = 20, **more: Any) -> bytes:
    return json.dumps({"data": {"id": str(tweet_id), "text": "a text", "author_id": "12"}, **more}).encode()


class Pieces(httpx.SyncByteStream):
    """A body in pieces, which ends as a connection may."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self._pieces, self._error = pieces, error
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._error:
            raise self._error

    def close(self) -> None:
        self.closed = True


def heard(*pieces: bytes, error: Exception | None = None) -> tuple[list[list[int] | None], ApiError]:
    """Return the ids of each message, None for a heartbeat, and how the stream ended."""
    body = Pieces(*pieces, error=error)
    got: list[list[int] | None] = []
    with pytest.raises(ApiError) as caught, TweetStream(httpx.Response(200, stream=body)) as stream:
        got.extend(None if each is None else [tweet.id for tweet in each.tweets] for each in stream)
    assert body.closed
    return got, caught.value


@given(LINES, st.binary(max_size=10).map(lambda rest: rest.replace(b"\n", b"")), st.data())
def test_lines_come_whole_however_they_are_cut_and_a_cut_last_one_never(
    lines: list[bytes], rest: bytes, data: st.DataObject
) -> None:
    whole = b"".join(line + b"\r\n" for line in lines) + rest
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    reader = Lines()
    pieces = [whole[begin:end] for begin, end in pairwise([0, *cuts, len(whole)])]
    got = [line for piece in pieces for line in reader.feed(piece)]

    assert got == lines


def test_a_line_without_end_is_dropped_and_the_next_is_read() -> None:
    reader = Lines(longest=10)

    assert reader.feed(b"x" * 8) + reader.feed(b"x" * 8) + reader.feed(b"yy\nshort\n") == [b"short"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_feed_in_a_text_ends_no_line(end: bytes) -> None:
    reader = Lines()
    lines = [b'{"text":"a \\" b\nc\n"}', b"", b'{"text":"\\\\"}']

    assert reader.feed(b"".join(line + end for line in lines)) == lines


def test_a_message_that_was_cut_off_in_a_text_takes_no_other_with_it() -> None:
    got, _ = heard(message(1)[:30] + b"\r\n" + message(2) + b"\r\n")

    assert [ids for ids in got if ids] == [[2]]


def test_heartbeats_duplicates_and_tweets_come_in_order() -> None:
    first = message(1) + b"\r\n"
    got, error = heard(b"\r\n" + first[:30], first[30:] + first + b"\r\n", message(2) + b"\r\n")

    assert got == [None, [1], [1], None, [2]]
    assert isinstance(error, ConnectionFault)
    assert str(error) == "the stream ended without a word"


@pytest.mark.parametrize(
    "garbage", [b"<html>", b"{", b'"text"', b"\xff\xfe", b"[]", b"{}", b'{"data":{"text":"without an id"}}', b"null"]
)
def test_a_line_that_is_no_message_is_passed_over_and_told(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    got, _ = heard(garbage + b"\r\n" + message(3) + b"\r\n")

    assert [ids for ids in got if ids] == [[3]]
    assert garbage == b"{}" or "stream" in caplog.text


def test_of_many_problems_in_a_line_the_first_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    heard(json.dumps({"errors": [{"title": f"number {number}"} for number in range(9)]}).encode() + b"\r\n")

    assert [record.getMessage()[-8:] for record in caplog.records if "in the stream" in record.msg] == [
        f"number {number}" for number in range(5)
    ]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ReadTimeout("timed out"), "the stream was silent for too long"),
        (httpx.RemoteProtocolError("incomplete chunked read"), "the stream broke off: RemoteProtocolError incomplete"),
        (httpx.ReadError("reset"), "the stream broke off: ReadError reset"),
    ],
)
def test_a_connection_that_breaks_says_how(error: Exception, said: str) -> None:
    got, ended = heard(message(4) + b"\r\n" + message(5)[:20], error=error)

    assert got == [[4]]
    assert isinstance(ended, ConnectionFault)
    assert (str(ended).startswith(said), ended.status) == (True, 200)


@pytest.mark.parametrize("host", ["api.twitter.com", "api.x.com"])
def test_xs_own_word_that_it_ends_the_stream_is_understood(host: str) -> None:
    line = json.dumps(QUOTED["stream_operational_disconnect"]).replace("api.twitter.com", host).encode()
    with pytest.raises(StreamEnded, match="disconnected upstream for operational reasons") as caught:
        read_message(line)

    assert caught.value.disconnect_type == "UpstreamOperationalDisconnect"


def test_a_cap_that_is_told_in_the_stream_is_a_cap() -> None:
    with pytest.raises(UsageCapped):
        read_message(json.dumps({"errors": [QUOTED["usage_capped_monthly_product"]]}).encode())


def test_a_tweet_with_problems_beside_it_is_a_tweet() -> None:
    problem = {"title": "Not Found Error", "resource_type": "tweet", "section": "includes", "detail": "gone"}
    page = read_message(message(6, errors=[problem], matching_rules=[{"id": 166, "tag": "t"}]))

    assert [tweet.id for tweet in page.tweets] == [6]


@given(st.sampled_from(ODD_VALUES))
def test_an_odd_message_or_an_odd_part_of_one_takes_no_other_with_it(odd: bytes) -> None:
    part = message(1)[:-1] + b',"includes":{"tweets":[%b]},"matching_rules":[%b],"odd":%b}' % (odd, odd, odd)
    got, _ = heard(b'{"data":%b}\r\n' % odd.replace(b"\n", b"\r") + part + b"\r\n" + message(2) + b"\r\n")

    assert [ids for ids in got[1:] if ids] == [[1], [2]]


@given(st.sampled_from(ODD_VALUES))
def test_an_odd_rule_costs_no_other(odd: bytes) -> None:
    body = b'{"data":[{"id":"7","value":"from:a"},%b,{"id":"8","value":"from:b","tag":%b}]}' % (odd, odd)

    assert [rule.id for rule in read_stream_rules(body).rules] == ["7", "8"]


def test_rules_and_what_became_of_them_are_read_whatever_their_types() -> None:
    body: dict[str, Any] = {
        "data": [{"id": 7, "value": "from:a", "tag": "t"}, {"id": "8", "value": "from:b"}, {"id": "9"}, "x"],
        "errors": [{"title": "DuplicateRule", "type": "https://api.twitter.com/2/problems/duplicate-rules"}],
        "meta": {"sent": "now", "next_token": "0000000000001000"},
    }
    answer = read_stream_rules(json.dumps(body).encode())

    assert [(rule.id, rule.value, rule.tag) for rule in answer.rules] == [("7", "from:a", "t"), ("8", "from:b", "")]
    assert [problem.kind for problem in answer.problems] == ["duplicate-rules"]
    assert answer.next_token == body["meta"]["next_token"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null"])
def test_an_answer_about_rules_that_is_no_object_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        read_stream_rules(body)
