import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from twitter_pipeline.coverage import id_at, time_at
from twitter_pipeline.errors import UnreadableAnswer
from twitter_pipeline.x_api.parsing import (
    Tweet,
    TweetKind,
    TweetsPage,
    User,
    UsersAnswer,
    read_search_page,
    read_timeline_page,
    read_tweets_page,
    read_users,
)
from twitter_pipeline.x_api.problems import Problem, availability_of
from twitter_pipeline_tests.unit.odd_json import ODD_VALUES

PageReader: TypeAlias = Callable[[bytes], TweetsPage]

PAYLOADS = Path(__file__).parents[1] / "payloads"
PAGE = (PAYLOADS / "x_api_tweets_page.json").read_bytes()

# What the newer vocabulary calls the members of the older one.
POST_WORDS = {
    "tweets": "posts",
    "referenced_tweets": "referenced_posts",
    "note_tweet": "note_post",
    "edit_history_tweet_ids": "edit_history_post_ids",
    "retweet_count": "repost_count",
    "tweet_count": "post_count",
    "most_recent_tweet_id": "most_recent_post_id",
}


def in_post_words(value: Any) -> Any:
    if isinstance(value, dict):
        return {POST_WORDS.get(key, key): in_post_words(item) for key, item in value.items()}
    return [in_post_words(item) for item in value] if isinstance(value, list) else value


def page_of(*tweets: object, **members: object) -> TweetsPage:
    return read_tweets_page(json.dumps({"data": tweets, **members}, separators=(",", ":")).encode())


def bare_tweet(tweet_id: int, **changes: Any) -> Tweet:
    """Return a tweet of which nothing but the id came."""
    members: dict[str, Any] = dict.fromkeys(Tweet.__slots__)
    members |= {"id": tweet_id, "text": "", "kind": TweetKind.ORIGINAL, "edit_history_ids": ()}
    return Tweet(**members | {"raw": f'{{"id":"{tweet_id}","includes":{{}}}}'} | changes)


def without_raw(read: Iterable[Tweet | User]) -> list[dict[str, Any]]:
    return [{name: getattr(each, name) for name in type(each).__slots__ if name != "raw"} for each in read]


def test_a_page_is_read_with_its_token_and_its_problems() -> None:
    page = read_tweets_page(PAGE)

    assert [tweet.id for tweet in page.tweets] == [1850000000000000500, 1850000000000000400, 1850000000000000350]
    assert [tweet.kind for tweet in page.tweets] == [TweetKind.RETWEET, TweetKind.REPLY, TweetKind.ORIGINAL]
    assert (page.next_token, page.result_count, page.users) == ("7140dibdnow9c7btw4", 3, ())
    assert [(problem.kind, problem.section) for problem in page.problems] == [("resource-not-found", "includes")]


def test_every_member_of_a_tweet_is_read() -> None:
    tweet = read_tweets_page(PAGE).tweets[1]

    assert tweet == Tweet(
        id=1850000000000000400,
        author_id=1000000001,
        created_at=datetime(2024, 10, 26, 10, 4, tzinfo=UTC),
        text="@other see this https://t.co/x",
        kind=TweetKind.REPLY,
        lang="en",
        conversation_id=1850000000000000200,
        in_reply_to_user_id=1000000002,
        in_reply_to_tweet_id=1850000000000000200,
        retweeted_tweet_id=None,
        quoted_tweet_id=1850000000000000300,
        like_count=3,
        retweet_count=1,
        reply_count=2,
        quote_count=4,
        bookmark_count=5,
        impression_count=6,
        edit_history_ids=(1850000000000000390, 1850000000000000400),
        raw=tweet.raw,
    )


def test_raw_is_the_tweet_as_it_came_and_what_it_refers_to() -> None:
    answer = json.loads(PAGE)
    raw = [json.loads(tweet.raw) for tweet in read_tweets_page(PAGE).tweets]
    included = answer["includes"]

    assert raw == [
        {**answer["data"][0], "includes": {"tweets": included["tweets"][:1], "media": included["media"][1:]}},
        {
            **answer["data"][1],
            "includes": {
                "tweets": included["tweets"][1:],
                "media": included["media"][:1],
                "polls": included["polls"],
                "places": included["places"],
            },
        },
        {**answer["data"][2], "includes": {}},
    ]


def test_both_vocabularies_give_the_same_tweets() -> None:
    old = read_tweets_page(PAGE)
    new = read_tweets_page(json.dumps(in_post_words(json.loads(PAGE))).encode())

    assert without_raw(new.tweets) == without_raw(old.tweets)
    assert "posts" in json.loads(new.tweets[0].raw)["includes"]


OTHER_VALUES = {
    "tweets": [{"id": "1850000000000000100", "text": "other"}],
    "referenced_tweets": [{"type": "quoted", "id": "9"}],
    "note_tweet": {"text": "other"},
    "edit_history_tweet_ids": ["9"],
    "retweet_count": 9,
    "tweet_count": 9,
    "most_recent_tweet_id": "9",
}


def in_both_words(value: Any, *, newest_first: bool, other: Callable[[str], Any], is_other_newer: bool) -> Any:
    """Return a body in which each member that has two names has both, one of them with another value."""

    def both(key: str, item: Any) -> list[tuple[str, Any]]:
        if key not in POST_WORDS:
            return [(key, read(item))]
        values = (other(key), read(item)) if is_other_newer else (read(item), other(key))
        named = list(zip((POST_WORDS[key], key), values, strict=True))
        return named if newest_first else named[::-1]

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            return dict(pair for key, item in value.items() for pair in both(key, item))
        return [read(item) for item in value] if isinstance(value, list) else value

    return read(value)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize(
    ("other", "is_other_newer"),
    [(OTHER_VALUES.get, False), *((lambda _, odd=odd: odd, True) for odd in (None, "odd", [None], True, 1.5))],
)
def test_of_both_words_in_one_object_the_newer_one_counts_if_it_can_be_read(
    newest_first: bool, other: Callable[[str], Any], is_other_newer: bool
) -> None:
    def read(body: Any) -> list[dict[str, Any]]:
        written = in_both_words(body, newest_first=newest_first, other=other, is_other_newer=is_other_newer)
        encoded = json.dumps(written).encode()
        return without_raw([*read_tweets_page(encoded).tweets, *read_users(encoded).users])

    assert read(json.loads(PAGE)) == without_raw(read_tweets_page(PAGE).tweets)
    assert read({"data": [USER]})[-1:] == without_raw(read_users(json.dumps({"data": [USER]}).encode()).users)


def test_a_retweet_has_the_whole_text_of_what_it_repeats() -> None:
    retweet = read_tweets_page(PAGE).tweets[0]

    assert retweet.text == (
        "RT @someone: A long post that the API cuts in the retweet, as it does with every one of them."
    )


def test_a_retweet_whose_source_did_not_come_along_keeps_the_text_of_the_api() -> None:
    (tweet,) = page_of(
        {"id": "5", "text": "RT @someone: cut…", "referenced_tweets": [{"type": "retweeted", "id": "4"}]}
    ).tweets

    assert (tweet.text, tweet.kind, tweet.retweeted_tweet_id) == ("RT @someone: cut…", TweetKind.RETWEET, 4)


def test_a_long_post_has_the_text_of_its_note() -> None:
    assert read_tweets_page(PAGE).tweets[2].text == "A note that begins so, and goes on &amp; on."


@pytest.mark.parametrize(
    ("references", "in_reply_to_user_id", "kind"),
    [
        ([], None, TweetKind.ORIGINAL),
        (["quoted"], None, TweetKind.QUOTE),
        (["replied_to"], "9", TweetKind.REPLY),
        ([], "9", TweetKind.REPLY),
        (["quoted", "replied_to"], "9", TweetKind.REPLY),
        (["replied_to", "retweeted"], None, TweetKind.RETWEET),
        (["something_new"], None, TweetKind.ORIGINAL),
    ],
)
def test_the_kind_is_the_first_that_applies_of_retweet_reply_quote(
    references: list[str], in_reply_to_user_id: str | None, kind: TweetKind
) -> None:
    (tweet,) = page_of(
        {
            "id": "5",
            "in_reply_to_user_id": in_reply_to_user_id,
            "referenced_tweets": [{"type": reference, "id": "4"} for reference in references],
        }
    ).tweets

    assert tweet.kind is kind


def test_an_empty_timeline_is_an_empty_page() -> None:
    assert read_timeline_page(b'{"meta":{"result_count":0}}') == TweetsPage((), (), None, (), 0, ())


def test_a_look_up_that_is_answered_with_problems_alone_finds_no_tweets() -> None:
    page = read_tweets_page(b'{"errors":[{"title":"Not Found Error","resource_type":"user","parameter":"id"}]}')

    assert page == TweetsPage(
        (), (), None, (Problem(title="Not Found Error", resource_type="user", parameter="id"),), 0, ()
    )


PAGE_READERS = pytest.mark.parametrize("read", [read_timeline_page, read_search_page])


@PAGE_READERS
@pytest.mark.parametrize(
    "body",
    [
        b'{"errors":[{"title":"operational-disconnect","detail":"Something is wrong upstream."}]}',
        b'{"meta":{"result_count":0},"errors":[{"title":"Internal Error"}]}',
        b'{"title":"Service Unavailable","detail":"Try again","status":503}',
        b'{"title":"Service Unavailable","detail":"Try again","meta":{"result_count":0}}',
        b'{"status":503,"meta":{"result_count":0,"next_token":"a"}}',
        b'{"data":"none","meta":{"result_count":0}}',
    ],
)
def test_a_page_of_nothing_but_a_problem_is_a_fault_and_no_empty_page(read: PageReader, body: bytes) -> None:
    with pytest.raises(UnreadableAnswer, match="nothing but the problem"):
        read(body)


@PAGE_READERS
@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"data":[]}',
        b'{"meta":{}}',
        b'{"meta":null}',
        b'{"meta":"none"}',
        b'{"meta":{"result_count":null}}',
        b'{"meta":{"result_count":"some"}}',
        b'{"data":[{"id":"5"}]}',
        b'{"data":[{"text":"without an id"}]}',
        b'{"data":[{"id":"5"}],"errors":[{"title":"Internal Error"}]}',
    ],
)
def test_a_last_page_that_does_not_state_how_much_it_holds_is_a_fault(read: PageReader, body: bytes) -> None:
    with pytest.raises(UnreadableAnswer, match="does not state how many tweets"):
        read(body)


@PAGE_READERS
@pytest.mark.parametrize(
    ("body", "held"),
    [
        (b'{"meta":{"result_count":3,"next_token":"a"},"data":[{"id":"5"},{"text":"without an id"}]}', 2),
        (b'{"meta":{"result_count":3}}', 0),
    ],
)
def test_a_page_that_holds_fewer_tweets_than_it_states_is_a_fault(read: PageReader, body: bytes, held: int) -> None:
    with pytest.raises(UnreadableAnswer, match=f"it states 3 tweets and holds {held}"):
        read(body)


@PAGE_READERS
@pytest.mark.parametrize(
    "body",
    [
        b'{"meta":{"result_count":0}}',
        b'{"meta":{"result_count":0,"next_token":"a"},"errors":[{"title":"Internal Error"}]}',
        b'{"meta":{"next_token":"a"}}',
        b'{"data":[{"id":"5"}],"meta":{"next_token":"a"}}',
        b'{"data":[{"id":"5"}],"meta":{"result_count":1},"errors":[{"title":"Internal Error"}]}',
        b'{"data":[{"text":"without an id"}],"meta":{"result_count":1}}',
        b'{"data":[{"id":"5"}],"meta":{"result_count":1},"title":"Odd","detail":"But with a tweet","status":200}',
    ],
)
def test_a_page_that_goes_on_or_states_what_it_holds_is_a_page(read: PageReader, body: bytes) -> None:
    assert read(body) == read_tweets_page(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"errors":[{"title":"Not Found Error","resource_type":"user","type":"x/resource-not-found"}]}',
        b'{"meta":{"result_count":0},"errors":[{"title":"Not Found Error","resource_type":"user",'
        b'"type":"x/resource-not-found"}]}',
    ],
)
def test_a_timeline_may_have_a_problem_of_its_account_instead_of_tweets_but_a_search_may_not(body: bytes) -> None:
    assert read_timeline_page(body) == read_tweets_page(body)
    with pytest.raises(UnreadableAnswer, match="nothing but the problem"):
        read_search_page(body)


def test_the_items_of_a_page_are_its_objects_in_order_and_what_cannot_be_read_as_it_came() -> None:
    page = page_of({"id": "6"}, {"text": "without an id"}, {"id": "4"}, 7, {"id": "6"}, None)

    assert page.items == (6, '{"text":"without an id"}', 4, "7", 6, "null")
    assert [tweet.id for tweet in page.tweets] == [6, 4]


def test_a_look_up_of_problems_that_name_no_user_is_no_answer() -> None:
    with pytest.raises(UnreadableAnswer, match="Internal Error"):
        read_users(b'{"errors":[{"title":"Internal Error"}]}')

    assert read_users(b'{"errors":[{"title":"Odd","value":"nasa"}]}').problems[0].value == "nasa"


def test_a_tweet_with_nothing_but_an_id_is_read() -> None:
    assert page_of({"id": "5"}).tweets == (bare_tweet(5),)


def test_a_tweet_that_comes_twice_is_kept_once_as_it_came_first() -> None:
    page = page_of({"id": "5", "text": "first"}, {"id": "4"}, {"id": "5", "text": "second"})

    assert [(tweet.id, tweet.text) for tweet in page.tweets] == [(5, "first"), (4, "")]


@pytest.mark.parametrize(
    "malformed",
    [None, 7, "5", [], {}, {"id": None}, {"id": "x"}, {"id": True}, {"id": -1}, {"id": "9" * 20}, {"id": 1.5}],
)
def test_a_malformed_tweet_costs_neither_the_page_nor_its_own_trace(malformed: object) -> None:
    page = page_of({"id": "6"}, malformed, {"id": "4"})

    assert [tweet.id for tweet in page.tweets] == [6, 4]
    assert [(problem.kind, problem.section) for problem in page.problems] == [("unreadable-tweet", "data")]
    assert page.result_count == 3
    assert availability_of(page.problems[0]) is None


def test_data_of_an_unknown_shape_leaves_a_trace() -> None:
    page = read_tweets_page(b'{"data":"none"}')

    assert [problem.kind for problem in page.problems] == ["unreadable-data"]


def test_numbers_may_be_strings_and_strings_numbers_but_a_boolean_is_no_number() -> None:
    (tweet,) = page_of(
        {
            "id": 5,
            "author_id": 1234567890123456789,
            "text": 404,
            "conversation_id": True,
            "public_metrics": {"like_count": "3", "reply_count": True, "quote_count": 1.5, "retweet_count": -1},
        }
    ).tweets

    assert tweet == bare_tweet(5, author_id=1234567890123456789, text="404", like_count=3, raw=tweet.raw)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("2024-10-26T10:05:00.000Z", datetime(2024, 10, 26, 10, 5, tzinfo=UTC)),
        ("2024-10-26T10:05:00Z", datetime(2024, 10, 26, 10, 5, tzinfo=UTC)),
        ("2024-10-26T12:05:00+02:00", datetime(2024, 10, 26, 10, 5, tzinfo=UTC)),
        ("2024-10-26T10:05:00", datetime(2024, 10, 26, 10, 5, tzinfo=UTC)),
        ("0001-01-01T00:00:00+23:00", None),
        ("yesterday", None),
        (1730000000, None),
    ],
)
def test_instants_are_aware_or_missing(sent: object, read: datetime | None) -> None:
    assert page_of({"id": "5", "created_at": sent}).tweets[0].created_at == read


OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(
    st.datetimes(datetime(2007, 1, 1), datetime(2024, 1, 1), timezones=OFFSETS),  # noqa: DTZ001 made aware
    st.text("0123456789", max_size=9),
    st.sampled_from([str, str.lower]),
)
def test_an_instant_is_read_however_rfc_3339_lets_it_be_written(
    instant: datetime, fraction: str, cased: Callable[[str], str]
) -> None:
    whole = instant.replace(microsecond=int(fraction[:6].ljust(6, "0")))
    seconds, offset = instant.isoformat(timespec="seconds")[:19], instant.isoformat()[-6:].replace("+00:00", "Z")
    written = cased(seconds + (f".{fraction}" if fraction else "") + offset)

    assert page_of({"id": "5", "created_at": written}).tweets[0].created_at == whole


@pytest.mark.parametrize(
    "told", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "20240203"]
)
def test_a_tweet_was_written_when_its_id_says_and_an_account_made_since_there_are_any(told: str) -> None:
    tweet_id = id_at(datetime(2024, 2, 1, 12, tzinfo=UTC))
    users = read_users(json.dumps({"data": [{"id": "5", "username": "nasa", "created_at": told}]}).encode()).users

    is_past = told == "20240203"
    # What cannot be converted to UTC is None, and stored as the time of the id too.
    assert page_of({"id": str(tweet_id), "created_at": told}).tweets[0].created_at in (time_at(tweet_id), None)
    assert (page_of({"id": "5", "created_at": told}).tweets[0].created_at is not None) is is_past
    assert (users[0].created_at is not None) is is_past


def test_nul_is_replaced_in_text_and_stays_an_escape_in_raw() -> None:
    (tweet,) = read_tweets_page(rb'{"data":[{"id":"5","text":"a\u0000b"}]}').tweets

    assert tweet == bare_tweet(5, text="a\ufffdb", raw=r'{"id":"5","text":"a\u0000b","includes":{}}')


def test_an_unpaired_surrogate_is_replaced_in_text_and_stays_an_escape_in_raw() -> None:
    (tweet,) = read_tweets_page(rb'{"data":[{"id":"5","text":"\ud83d \ud83d\ude00"}]}').tweets

    assert tweet == bare_tweet(
        5, text="\ufffd \U0001f600", raw=r'{"id":"5","text":"\ud83d \ud83d\ude00","includes":{}}'
    )


def test_an_escaped_backslash_before_what_looks_like_a_surrogate_is_no_surrogate() -> None:
    (tweet,) = read_tweets_page(rb'{"data":[{"id":"5","text":"\\ud83d \udE00"}]}').tweets

    assert tweet == bare_tweet(5, text="\\ud83d \ufffd", raw=r'{"id":"5","text":"\\ud83d \udE00","includes":{}}')


def test_an_unpaired_surrogate_is_taken_anywhere_in_an_answer() -> None:
    page = read_tweets_page(
        rb'{"\ud83d":"\udc00","data":[{"id":"5","\ud83d\ud83d":1,"referenced_tweets":[{"type":"retweeted","id":"4"}],'
        rb'"text":"RT @a: cut"}],"includes":{"tweets":[{"id":"4","text":"\ud83d\ude00\ude00"}]},'
        rb'"errors":[{"title":"\ud83d"}],"meta":{"next_token":"\udfff"}}'
    )

    assert (page.problems[0].title, page.next_token, page.tweets[0].text) == (
        "\ufffd",
        "\ufffd",
        "RT @a: \U0001f600\ufffd",
    )
    assert page.tweets[0].raw == (
        r'{"id":"5","\ud83d\ud83d":1,"referenced_tweets":[{"type":"retweeted","id":"4"}],"text":"RT @a: cut",'
        r'"includes":{"tweets":[{"id":"4","text":"\ud83d\ude00\ude00"}]}}'
    )


def test_raw_keeps_what_the_api_wrote_to_the_letter() -> None:
    written = '{ "id" : 5.0e0, "big":123456789012345678901234567890, "text" :"\\u00e9é\\/" }'
    (tweet,) = read_tweets_page(f'{{"data":[ {written} ]}}'.encode()).tweets

    assert tweet == bare_tweet(5, text="éé/", raw=written[:-1] + ',"includes":{}}')


def test_a_tweet_with_text_that_is_no_utf_8_is_kept_and_one_with_such_an_id_or_name_is_unreadable() -> None:
    page = read_tweets_page(
        b'{"data":[{"id":"6","text":"a\xffb"},{"id":"5\xff"},{"id":"4","te\xffxt":"a"},{"id":"3"}]}'
    )

    assert page.tweets == (
        bare_tweet(6, text="a\ufffdb", raw='{"id":"6","text":"a\ufffdb","includes":{}}'),
        bare_tweet(3),
    )
    assert page.items == (6, '{"id":"5\ufffd"}', '{"id":"4","te\ufffdxt":"a"}', 3)
    assert [problem.kind for problem in page.problems] == ["unreadable-tweet", "unreadable-tweet"]


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_and_control_characters_are_read(before: bytes) -> None:
    page = read_tweets_page(before + b'{"odd":"\x00",\x01"data"\n:[{"id":"5","text":"a\x00\tb\\n"}]}\n')

    assert page.tweets == (
        bare_tweet(5, text="a\ufffd\tb\n", raw=r'{"id":"5","text":"a\u0000\u0009b\n","includes":{}}'),
    )


@pytest.mark.parametrize("author_id", ["someone", "0", 0, "\ufffd7", [], 1.5])
def test_a_tweet_whose_author_cannot_be_read_is_unreadable(author_id: object) -> None:
    page = page_of({"id": "5", "author_id": author_id}, {"id": "4", "author_id": "7"})

    assert [(tweet.id, tweet.author_id) for tweet in page.tweets] == [(4, 7)]
    assert [(problem.kind, problem.resource_id) for problem in page.problems] == [("unreadable-tweet", "5")]


def test_members_of_a_wrong_type_are_missing_and_take_no_other_with_them() -> None:
    (tweet,) = page_of(
        {
            "id": "5",
            "author_id": None,
            "conversation_id": 4,
            "public_metrics": {"like_count": [], "reply_count": 2**63, "quote_count": "7", "repost_count": 8},
            "edit_history_tweet_ids": ["4", None, "x", 0, 5],
            "referenced_tweets": [7, {"type": "quoted", "id": "x"}, {"type": 1, "id": 2}, {"type": "quoted", "id": 3}],
            "note_tweet": "none",
            "attachments": {"media_keys": [None, "3_1"], "poll_ids": "77"},
            "geo": [],
            "text": "whole",
        },
        includes={
            "media": [7, {"media_key": True}, {"media_key": "3_1"}],
            "polls": {"id": "77"},
            "tweets": [{"id": 3}],
        },
    ).tweets

    assert tweet == bare_tweet(
        5,
        text="whole",
        kind=TweetKind.QUOTE,
        conversation_id=4,
        quoted_tweet_id=3,
        quote_count=7,
        retweet_count=8,
        edit_history_ids=(4, 5),
        raw=tweet.raw,
    )
    assert json.loads(tweet.raw)["includes"] == {"media": [{"media_key": "3_1"}], "tweets": [{"id": 3}]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html></html>",
        b'{"data":[',
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"data":[{"id":"5"}]',
        b'{"data":[{"id":"5"}]}}',
        b'{"data":[{"id":"5","text":"a}]}',
        b'{"data":[{"id":"5"}]}{}',
        b'{"data":["' + b'\\"' * 100_000,
    ],
)
@pytest.mark.parametrize("read", [read_tweets_page, read_users])
def test_what_is_no_json_object_cannot_be_read(read: Any, body: bytes) -> None:
    with pytest.raises(UnreadableAnswer, match=f"the body of {len(body)} bytes is"):
        read(body)


USER = {
    "id": "1000000001",
    "username": "SomeOne",
    "name": "Some One",
    "created_at": "2009-06-02T20:12:29.000Z",
    "description": "About\x00me",
    "location": "Earth",
    "protected": True,
    "verified": False,
    "verified_type": "none",
    "profile_image_url": "https://pbs.twimg.com/profile_images/1/one_normal.jpg",
    "most_recent_tweet_id": "1850000000000000500",
    "public_metrics": {"followers_count": 1, "following_count": 2, "tweet_count": 3, "listed_count": 4},
}


@pytest.mark.parametrize("words", [lambda user: user, in_post_words])
def test_every_member_of_a_user_is_read_in_both_vocabularies(words: Any) -> None:
    answer = read_users(json.dumps({"data": [words(USER)]}).encode())

    assert answer == UsersAnswer(
        users=(
            User(
                id=1000000001,
                username="SomeOne",
                name="Some One",
                created_at=datetime(2009, 6, 2, 20, 12, 29, tzinfo=UTC),
                description="About\ufffdme",
                location="Earth",
                protected=True,
                verified=False,
                verified_type="none",
                followers_count=1,
                following_count=2,
                tweet_count=3,
                listed_count=4,
                profile_image_url="https://pbs.twimg.com/profile_images/1/one_normal.jpg",
                most_recent_tweet_id=1850000000000000500,
                raw=answer.users[0].raw,
            ),
        ),
        problems=(),
    )
    assert json.loads(answer.users[0].raw) == words(USER)


def test_a_look_up_of_one_user_is_an_answer_of_one() -> None:
    answer = read_users(json.dumps({"data": USER}).encode())

    assert [user.username for user in answer.users] == ["SomeOne"]


def test_users_found_and_not_found_come_side_by_side() -> None:
    missing = {"title": "Not Found Error", "resource_type": "user", "parameter": "usernames", "value": "nobody"}
    answer = read_users(json.dumps({"data": [USER, {"id": "7"}, USER], "errors": [missing]}).encode())

    assert [user.id for user in answer.users] == [1000000001]
    assert [(problem.kind, problem.value, problem.resource_id) for problem in answer.problems] == [
        ("", "nobody", ""),
        ("unreadable-user", "", "7"),
    ]


def test_a_single_user_without_a_readable_id_is_an_answer_that_names_it() -> None:
    answer = read_users(b'{"data":[{"id":"0","username":"nasa"}]}')

    assert answer.users == ()
    assert [(problem.kind, problem.value) for problem in answer.problems] == [("unreadable-user", "nasa")]


@pytest.mark.parametrize(
    "username", ["", "sixteen_letters_", "na\u0000sa", "\ud83d", "\x1b[2J", "x'; --", "<b>", 7.5, None]
)
def test_a_user_with_a_name_that_x_does_not_allow_is_left_out_and_told(username: object) -> None:
    answer = read_users(json.dumps({"data": [{"id": "7", "username": username}, USER]}).encode())

    assert [user.id for user in answer.users] == [1000000001]
    assert [(problem.kind, problem.resource_id) for problem in answer.problems] == [("unreadable-user", "7")]


def test_users_that_come_along_with_tweets_are_read() -> None:
    page = page_of({"id": "5", "author_id": "1000000001"}, includes={"users": [USER, {"id": "8", "username": "b"}]})

    assert [user.id for user in page.users] == [1000000001, 8]
    assert [user["id"] for user in json.loads(page.tweets[0].raw)["includes"]["users"]] == ["1000000001"]


NAMES = [*POST_WORDS, *POST_WORDS.values(), "data", "includes", "errors", "meta", "media", "users", "polls", "places"]
NAMES += [
    "id",
    "text",
    "type",
    "attachments",
    "media_keys",
    "media_key",
    "geo",
    "place_id",
    "public_metrics",
    "username",
]
NAMES += ["created_at", "next_token", "result_count", "like_count", "author_id", "in_reply_to_user_id"]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=10)
    | st.sampled_from(["5", "retweeted", "2024-10-26T10:05:00.000Z", "RT @a: b", "\x00", "\ud800"])
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=8),
    max_leaves=40,
)


def assert_storable(value: object) -> None:
    for name in type(value).__slots__:  # type: ignore[attr-defined]
        member = getattr(value, name)
        if isinstance(member, str):
            assert "\x00" not in member
            member.encode()
    json.loads(value.raw, parse_int=str, parse_constant=pytest.fail)  # type: ignore[attr-defined]


MEMBERS = {
    "id": b'"5"',
    "author_id": b'"7"',
    "username": b'"name"',
    "created_at": b'"2024-10-26T10:05:00.000Z"',
    "text": b'"It is \xc3\xa4 text."',
    "public_metrics": b'{"like_count":3,"retweet_count":"4"}',
    "referenced_tweets": b'[{"type":"quoted","id":"9"}]',
    "entities": b'{"urls":[{"start":7,"display_url":"t.co"}]}',
}


def item_of(members: Mapping[str, bytes]) -> bytes:
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), value) for name, value in members.items())


FIRST, MIDDLE, LAST = (item_of(MEMBERS | {"id": b'"%d"' % each}) for each in (6, 5, 4))
ODD_ITEMS = st.sampled_from(ODD_VALUES) | st.builds(
    lambda name, value: item_of({**MEMBERS, name: value}), st.sampled_from([*MEMBERS]), st.sampled_from(ODD_VALUES)
)


@given(ODD_ITEMS)
def test_an_odd_tweet_costs_no_other_and_is_known(odd: bytes) -> None:
    page = read_timeline_page(b'{"data":[%b,%b,%b],"meta":{"result_count":3}}' % (FIRST, odd, LAST))
    first, *middle, last = page.tweets
    regular = read_tweets_page(b'{"data":[%b,%b]}' % (FIRST, LAST)).tweets

    assert (first, last) == regular
    assert page.items == (6, middle[0].id if middle else page.items[1], 4)
    assert [problem.kind for problem in page.problems] == ["unreadable-tweet"] * (not middle)
    for tweet in middle:
        assert_storable(tweet)


@given(ODD_ITEMS)
def test_an_odd_user_costs_no_other_and_is_known(odd: bytes) -> None:
    answer = read_users(b'{"data":[%b,%b,%b]}' % (FIRST, odd, LAST))
    first, *middle, last = answer.users

    assert (first, last) == read_users(b'{"data":[%b,%b]}' % (FIRST, LAST)).users
    assert [problem.kind for problem in answer.problems] == ["unreadable-user"] * (not middle)
    for user in middle:
        assert_storable(user)


AROUND = st.sampled_from(
    [
        b'"includes":{"tweets":[%b]}',
        b'"includes":{"media":[%b]}',
        b'"includes":{"users":[%b]}',
        b'"includes":{"odd":%b}',
        b'"includes":%b',
        b'"errors":[{"title":"Odd"},%b]',
        b'"errors":[{"title":"Odd","errors":[%b]}]',
        b'"errors":%b',
        b'"meta":{"result_count":2,"newest_id":%b}',
        b'"odd":%b',
    ]
)


@given(AROUND, ODD_ITEMS)
def test_what_is_odd_around_tweets_and_users_costs_none(around: bytes, odd: bytes) -> None:
    body = b'{"data":[%b,%b],"meta":{"result_count":2},%b}' % (FIRST, LAST, around % odd)

    assert [tweet.id for tweet in read_timeline_page(body).tweets] == [6, 4]
    assert [user.id for user in read_users(body).users] == [6, 4]


@pytest.mark.parametrize("section", ["tweets", "media", "users"])
def test_what_came_along_and_cannot_be_read_is_a_problem_but_no_fault_of_the_page(section: str) -> None:
    page = read_timeline_page(b'{"meta":{"result_count":0},"includes":{"%b":[{}]}}' % section.encode())

    assert [(problem.kind, problem.section) for problem in page.problems] == [("unreadable-include", "includes")]


IN_STRINGS = [each for string in re.finditer(rb'"([^"]*)"', MIDDLE) for each in range(*string.span(1))]
IN_TEXT = range(MIDDLE.index(b"It is"), MIDDLE.index(b'text."'))


@given(st.sampled_from(IN_STRINGS), st.integers(0, 255).filter(lambda byte: byte not in b'"\\'))
def test_a_byte_in_a_string_costs_no_other_tweet_and_one_in_the_text_none(place: int, byte: int) -> None:
    spoilt = MIDDLE[:place] + bytes((byte,)) + MIDDLE[place + 1 :]
    page = read_timeline_page(b'{"data":[%b,%b,%b],"meta":{"result_count":3}}' % (FIRST, spoilt, LAST))
    regular = read_tweets_page(b'{"data":[%b,%b,%b]}' % (FIRST, MIDDLE, LAST)).tweets

    assert (page.tweets[0], page.tweets[-1]) == (regular[0], regular[2])
    assert len(page.items) == 3
    assert len(page.tweets) + len(page.problems) == 3
    if place in IN_TEXT:
        assert replace(page.tweets[1], text="", raw="") == replace(regular[1], text="", raw="")


@settings(deadline=None)  # the time of one example depends on the machine
@given(st.dictionaries(st.sampled_from(NAMES), json_values, max_size=6) | json_values | st.binary())
def test_no_body_raises_anything_but_unreadable_and_all_that_is_read_can_be_stored(value: object) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    for read in (read_tweets_page, read_users):
        try:
            answer = read(body)
        except UnreadableAnswer:
            continue
        for item in (*getattr(answer, "tweets", ()), *answer.users):
            assert_storable(item)


@pytest.mark.parametrize("deep", [200, 260, 1_000, 3_000, 100_000])
def test_a_tweet_nested_too_deeply_is_left_out_or_kept_but_never_raises(deep: int) -> None:
    page = read_tweets_page(b'{"data":[{"id":"5","odd":' + b"[" * deep + b"]" * deep + b'},{"id":"4"}]}')

    assert page.tweets[-1] == bare_tweet(4)
    assert len(page.tweets) + len(page.problems) == 2
