"""Answers that are too large are no answers, and cost no memory; honest ones are within the limits."""

import gzip
import json
import socket
from typing import Any

import httpx
import pytest

from twitter_pipeline.errors import ApiError, ServerFault, UnreadableAnswer
from twitter_pipeline.history import items_of
from twitter_pipeline.walks.evidence import Oddity
from twitter_pipeline.words import DoubtKind
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline.x_api.json_values import MOST_TOKENS, check_tokens
from twitter_pipeline.x_api.parsing import (
    KEPT_UNREADABLE,
    LONGEST_PAGE_TOKEN,
    read_search_page,
    read_timeline_page,
    read_tweets_page,
)
from twitter_pipeline.x_api.stream import StreamClient
from twitter_pipeline.x_api.wire import LONGEST_OBJECT
from twitter_pipeline_tests.floods import flood
from twitter_pipeline_tests.unit.test_x_api_client import (
    EMPTY,
    EMPTY_PAGE,
    HEADERS,
    LIMITS,
    TOKEN,
    Whole,
    client_of,
    fetch,
    read_request,
    serving,
)

MOST_MIB = 300

ANSWERED = {
    "2 GiB of nothing in 2 MB of gzip": "its body is longer than 64 MiB unpacked, from 2,123,801 of gzip",
    "gzip in gzip": "its body is packed as 'gzip, gzip', and gzip was asked for",
    "an answer without an end": "its body is longer than 64 MiB",
    "gzip without an end": "its body is longer than 16 MiB of gzip",
    "empty objects": "it has more than 6,000,000 strings, brackets and commas",
    "an include that all tweets share": "its tweets with their includes have more than 134,217,728 characters",
    "one endless text with a control character in it": "to be repaired it has more than 3,000,000 backslashes",
    "many numbers for tweets": "it holds a list of 1,900,001 items, more than 100,000",
}


def test_no_answer_fills_the_memory() -> None:
    flooded = flood(ANSWERED)

    assert [told for _, told in flooded.values() if not told.startswith("UnreadableAnswer: GET /2/users/:id/tw")] == []
    assert [told for name, (_, told) in flooded.items() if ANSWERED[name] not in told] == []
    assert [(name, mib) for name, (mib, _) in flooded.items() if mib > MOST_MIB] == []


@pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip", "x" * 5000])
@pytest.mark.parametrize(("status", "error_class"), [(200, UnreadableAnswer), (503, ServerFault)])
def test_an_answer_packed_otherwise_than_requested_is_not_unpacked(
    encoding: str, status: int, error_class: type[ApiError]
) -> None:
    response = httpx.Response(
        status, headers=HEADERS | {"content-encoding": encoding}, stream=Whole(httpx.ByteStream(b"anything"))
    )
    with client_of(lambda _: response) as client, pytest.raises(error_class) as raised:
        fetch(client)

    assert (type(raised.value), raised.value.status, raised.value.rate_limits) == (error_class, status, LIMITS)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "identity", ""])
def test_an_answer_is_read_as_it_is_packed(encoding: str) -> None:
    body = gzip.compress(EMPTY) if "gzip" in encoding.lower() else EMPTY
    response = httpx.Response(
        200, headers=HEADERS | {"content-encoding": encoding}, stream=Whole(httpx.ByteStream(body))
    )
    with client_of(lambda _: response) as client:
        assert fetch(client).value == EMPTY_PAGE


def test_gzip_that_is_cut_off_cannot_be_read() -> None:
    response = httpx.Response(
        200, headers={"content-encoding": "gzip"}, stream=Whole(httpx.ByteStream(gzip.compress(EMPTY)[:-9]))
    )
    with client_of(lambda _: response) as client, pytest.raises(UnreadableAnswer, match="of gzip is cut off"):
        fetch(client)


def rich_tweet(tweet_id: int, letter: str) -> dict[str, Any]:
    """Build the largest tweet that X can send: a long note with annotations and entities."""
    annotation = {
        "domain": {"id": "131", "name": "Unified Twitter Taxonomy", "description": "A taxonomy of user interests. "},
        "entity": {"id": "1", "name": "Space", "description": "What is far away, and why it is looked at."},
    }
    url = {
        "start": 1,
        "end": 24,
        "url": "https://t.co/abcdefghij",
        "display_url": "nasa.gov/a",
        "unwound_url": "x" * 99,
    }
    images = [{"url": f"https://pbs.twimg.com/news_img/{number}", "width": 150, "height": 150} for number in range(2)]
    entities = {"urls": [{**url, "images": images}] * 20, "mentions": [{"start": 1, "end": 5, "id": "1"}] * 40}
    return {
        "id": str(tweet_id),
        "author_id": "12",
        "text": letter * 280,
        "note_tweet": {"text": letter * 25_000, "entities": entities},
        "entities": entities,
        "context_annotations": [annotation] * 60,
        "referenced_tweets": [{"type": "quoted", "id": str(tweet_id + 1000)}],
        "public_metrics": {"like_count": 1, "reply_count": 1, "retweet_count": 1, "quote_count": 1},
    }


@pytest.mark.parametrize(("tweets", "letter"), [(500, "e"), (100, "\u0436")])
def test_the_largest_honest_page_is_read(tweets: int, letter: str) -> None:
    tweet, quoted = (json.dumps(rich_tweet(tweet_id, letter)) for tweet_id in (111, 222))
    data = ",".join(tweet.replace("111", str(1000 + number)) for number in range(tweets))
    includes = ",".join(quoted.replace("222", str(2000 + number)) for number in range(tweets))
    body = f'{{"data":[{data}],"includes":{{"tweets":[{includes}]}},"meta":{{"result_count":{tweets}}}}}'
    packed = Whole(httpx.ByteStream(gzip.compress(body.encode(), 1)))
    with client_of(lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=packed)) as client:
        page = client.search_all("from:nasa", bearer_token=TOKEN, max_results=500).value

    assert (len(page.tweets), len(page.tweets[-1].text), page.problems) == (tweets, 25_000, ())
    assert len(body) > 30 * 2**20


def test_a_text_may_hold_any_number_of_what_separates_values() -> None:
    check_tokens(b'{"text":"%b"}' % (b',[{\\"' * MOST_TOKENS))


def test_an_object_that_is_too_long_is_unreadable_by_itself_and_kept_cut() -> None:
    long = {"id": "21", "author_id": "12", "text": "x" * LONGEST_OBJECT}
    data = [{"id": "22", "author_id": "12", "text": "a"}, long, {"id": "20", "author_id": "12", "text": "b"}]
    includes = {"tweets": [long], "users": [{"id": "12", "username": "nasa", "description": "x" * LONGEST_OBJECT}]}
    body = json.dumps({"data": data, "includes": includes, "meta": {"result_count": 3}}).encode()
    page = read_timeline_page(body)

    assert [tweet.id for tweet in page.tweets] == [22, 20]
    assert page.items == (22, json.dumps(long)[:KEPT_UNREADABLE], 20)
    assert [problem.kind for problem in page.problems] == [
        "unreadable-include",
        "unreadable-include",
        "unreadable-tweet",
    ]
    assert page.users == ()


def test_of_a_tweet_by_another_the_record_keeps_the_beginning() -> None:
    body = json.dumps({"data": [{"id": "21", "author_id": "13", "text": "x" * 2 * KEPT_UNREADABLE}]}).encode()
    page = read_tweets_page(body)

    assert items_of(page, {12}) == [Oddity(DoubtKind.FOREIGN, page.tweets[0].raw[:KEPT_UNREADABLE])]


@pytest.mark.parametrize("read", [read_timeline_page, read_search_page])
def test_a_page_whose_token_is_too_long_is_not_the_last_one(read: Any) -> None:
    meta = {"result_count": 1, "next_token": "x" * (LONGEST_PAGE_TOKEN + 1)}
    body = json.dumps({"data": [{"id": "20", "author_id": "12", "text": "a"}], "meta": meta}).encode()
    with pytest.raises(UnreadableAnswer, match="its next_token has 2,001 characters, more than 2,000"):
        read(body)


def test_what_is_kept_of_a_header_is_short() -> None:
    response = httpx.Response(200, headers={"x-transaction-id": "a" * 50_000}, content=EMPTY)
    with client_of(lambda _: response) as client:
        assert fetch(client).transaction_id == "a" * 200


def test_headers_without_end_are_no_answer() -> None:
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while sent < 100 * 2**20:
            sent += connection.send(b"x-more: %b\r\n" % (b"y" * 1000) * 64)

    with serving(flood) as url, XApiClient(url) as client, pytest.raises(ApiError, match="got no answer") as raised:
        fetch(client)

    assert raised.value.status is None
    assert sent < 10 * 2**20


def test_a_stream_that_is_packed_is_not_listened_to() -> None:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(bytes(2**20)))

    with serving(answer) as url, pytest.raises(UnreadableAnswer, match="it is packed as 'gzip'"):
        StreamClient(url).connect(bearer_token=TOKEN)
