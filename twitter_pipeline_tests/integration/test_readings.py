"""A second reading never makes a stored tweet worse, whichever way it comes in."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from twitter_pipeline.coverage import Coverage
from twitter_pipeline.importing.found import Author, Found
from twitter_pipeline.planning import PageVerdict
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.store import archive, imports
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import begin_account
from twitter_pipeline.store.stream import save_streamed
from twitter_pipeline.store.sweeps import remove_deleted_content
from twitter_pipeline.store.timelines import PageToSave, TimelineStore
from twitter_pipeline.x_api.parsing import Tweet, TweetKind, read_tweets_page

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
USER, OTHER = 12, 13
TWEET = 200

NOTE = "A long post is a note: its whole text comes in a member of its own. " * 5
METRICS = ("like_count", "retweet_count", "reply_count", "quote_count", "bookmark_count", "impression_count")
COLUMNS = (
    "author_id",
    "kind",
    "text",
    "lang",
    "conversation_id",
    "in_reply_to_tweet_id",
    "in_reply_to_user_id",
    "retweeted_tweet_id",
    "quoted_tweet_id",
    "edit_history_ids",
    *METRICS,
)


def response(*, likes: int = 1) -> dict[str, Any]:
    """A response with one tweet that has everything: a long reply that quotes, with media, a poll and a place."""
    tweet: dict[str, Any] = {
        "id": str(TWEET),
        "author_id": str(USER),
        "created_at": f"{NOON:%Y-%m-%dT%H:%M:%S}.000Z",
        "text": NOTE[:280],
        "note_tweet": {"text": NOTE},
        "lang": "en",
        "conversation_id": "90",
        "in_reply_to_user_id": "14",
        "referenced_tweets": [{"type": "replied_to", "id": "100"}, {"type": "quoted", "id": "110"}],
        "edit_history_tweet_ids": ["190", str(TWEET)],
        "public_metrics": dict.fromkeys(METRICS, 1) | {"like_count": likes},
        "attachments": {"media_keys": ["3_1", "3_2"], "poll_ids": ["5"]},
        "geo": {"place_id": "6f"},
    }
    includes: dict[str, Any] = {
        "tweets": [{"id": "100", "text": "answered"}, {"id": "110", "text": "quoted"}],
        "media": [{"media_key": "3_1", "type": "photo"}, {"media_key": "3_2", "type": "photo"}],
        "polls": [{"id": "5", "options": []}],
        "places": [{"id": "6f", "full_name": "Here"}],
    }
    return {"data": [tweet], "includes": includes}


def retweet(*, whole: bool) -> Tweet:
    """A retweet, whose own text X cuts; the whole one comes with the retweeted tweet."""
    tweet = {"id": str(TWEET), "author_id": str(USER), "text": f"RT @other: {NOTE[:100]}…"}
    tweet |= {"referenced_tweets": [{"type": "retweeted", "id": "100"}]}
    included = [{"id": "100", "author_id": str(OTHER), "text": NOTE[:280], "note_tweet": {"text": NOTE}}]
    return read({"data": [tweet], "includes": {"tweets": included if whole else []}})


LACKS: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "note": lambda tweet, _: tweet.pop("note_tweet", None),
    "text": lambda tweet, _: [tweet.pop(each, None) for each in ("text", "note_tweet")],
    "counts": lambda tweet, _: tweet.pop("public_metrics", None),
    "references": lambda tweet, _: tweet.pop("referenced_tweets", None),
    "one reference": lambda tweet, _: tweet.get("referenced_tweets", [None]).pop(0),
    "included tweet": lambda _, includes: includes["tweets"].pop(),
    "media": lambda _, includes: includes["media"].pop(0),
    "poll": lambda _, includes: includes["polls"].pop(),
    "place": lambda tweet, _: tweet.pop("geo"),
}
"""What a reading may lack that its raw JSON must not lose."""

LACKS_COLUMN: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "author": lambda tweet, _: tweet.pop("author_id"),
    "lang": lambda tweet, _: tweet.pop("lang"),
    "conversation": lambda tweet, _: tweet.pop("conversation_id"),
    "answered user": lambda tweet, _: tweet.pop("in_reply_to_user_id"),
    "edit history": lambda tweet, _: tweet.pop("edit_history_tweet_ids"),
    "one count": lambda tweet, _: tweet.get("public_metrics", {}).pop("bookmark_count", None),
}
"""What it may lack that only its column keeps."""


def read(body: dict[str, Any]) -> Tweet:
    (tweet,) = read_tweets_page(orjson.dumps(body)).tweets
    return tweet


def reading(*lacks: str, likes: int = 1) -> Tweet:
    """Read the tweet from a response that lacks these things."""
    body = response(likes=likes)
    for each in lacks:
        ({**LACKS, **LACKS_COLUMN})[each](body["data"][0], body["includes"])
    return read(body)


@dataclass
class Desk:
    """One tracked account in one run, and the ways in which its tweets come in."""

    database: Database
    run_id: int = field(init=False)

    def __post_init__(self) -> None:
        self.database.execute("INSERT INTO users (id, username) VALUES (%s, 'someone')", (USER,))
        self.database.execute(
            "INSERT INTO user_state (user_id, is_tracked, tracked_since) VALUES (%s, true, now())", (USER,)
        )
        rows = self.database.execute("INSERT INTO fetch_runs (kind, request) VALUES ('history', '[]') RETURNING id")
        self.run_id = int(rows[0][0])
        begin_account(self.database, self.run_id, FetchRequest("someone"), user_id=USER)

    def save_page(self, tweets: Sequence[Tweet], at: datetime) -> None:
        store = TimelineStore(self.database, user_id=USER, fetch_run_id=self.run_id, asked_as="someone")
        call_id = self.call(len(tweets))
        store.save_page(PageToSave(tweets, PageVerdict(), None, read_at=at, call_id=call_id, calls=1, waited_s=0))

    def save_found(self, tweets: Sequence[Tweet], at: datetime) -> None:
        # A search takes no tweet that names no author, as its caller does not.
        archive.save_found(
            self.database,
            [tweet if tweet.author_id else replace(tweet, author_id=USER) for tweet in tweets],
            proved={USER: Coverage()},
            read_at=at,
            call_id=self.call(len(tweets)),
            fetch_run_id=self.run_id,
        )

    def save_streamed(self, tweets: Sequence[Tweet], at: datetime) -> None:
        save_streamed(
            self.database,
            USER,
            tweets,
            read_at=at,
            call_id=self.call(len(tweets)),
            fetch_run_id=self.run_id,
            asked_as="someone",
        )

    def save_imported(self, tweets: Sequence[Tweet], at: datetime) -> None:
        found = [
            Found(
                tweet=replace(tweet, author_id=tweet.author_id or USER),
                author=Author(tweet.author_id or USER),
                first_read_at=at,
                last_read_at=at,
                is_dated=True,
            )
            for tweet in tweets
        ]
        imports.save_found(self.database, found, fetch_run_id=self.run_id)

    def save(self, way: str, tweet: Tweet, at: datetime = NOON) -> None:
        WAYS[way](self, [tweet], at)

    def call(self, posts: int) -> int:
        rows = self.database.execute(
            "INSERT INTO api_calls (endpoint, token_id, billed_posts, outcome) VALUES ('x', 1, %s, 'ok') RETURNING id",
            (posts,),
        )
        return int(rows[0][0])

    def stored(self) -> dict[str, Any]:
        """Return the columns of the only tweet that a reading can change."""
        # Made of the names of columns only.
        columns = ", ".join(COLUMNS).replace("kind", "kind::text")
        (row,) = self.database.execute(f"SELECT {columns} FROM tweets")  # pyright: ignore[reportArgumentType]
        return dict(zip(COLUMNS, row, strict=True))

    def raw(self) -> str:
        ((raw,),) = self.database.execute("SELECT raw::text FROM tweets")
        return raw

    def tally(self) -> tuple[int, int, int]:
        (row,) = self.database.execute("SELECT tweets_fetched, tweets_new, billed_posts FROM fetch_run_accounts")
        return row


WAYS: dict[str, Callable[[Desk, Sequence[Tweet], datetime], None]] = {
    "page": Desk.save_page,
    "found": Desk.save_found,
    "streamed": Desk.save_streamed,
    "imported": Desk.save_imported,
}
BILLED_WAYS = ("page", "found", "streamed")


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def later(hours: int) -> datetime:
    return NOON + timedelta(hours=hours)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lack", LACKS)
def test_a_reading_that_lacks_something_brings_its_counts_and_takes_nothing(desk: Desk, way: str, lack: str) -> None:
    desk.save("page", reading(likes=1))
    before, raw = desk.stored(), desk.raw()
    desk.save(way, reading(lack, likes=7), later(1))

    assert desk.stored() == before | {"like_count": 1 if lack == "counts" else 7}
    assert desk.raw() == raw
    assert desk.database.execute("SELECT last_read_at FROM tweets") == [(later(1),)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lack", LACKS_COLUMN)
def test_a_column_that_a_reading_lacks_stays(desk: Desk, way: str, lack: str) -> None:
    desk.save("page", reading(likes=1))
    before = desk.stored()
    desk.save(way, reading(lack, likes=7), later(1))

    assert desk.stored() == before | {"like_count": 7}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lack", [*LACKS, *LACKS_COLUMN])
def test_what_a_first_reading_lacked_comes_with_the_next(desk: Desk, way: str, lack: str) -> None:
    whole = reading(likes=7)
    desk.save("page", reading(lack, likes=1))
    desk.save(way, whole, later(1))

    assert (desk.stored()["text"], desk.stored()["kind"], desk.stored()["quoted_tweet_id"]) == (NOTE, "reply", 110)
    assert None not in [value for name, value in desk.stored().items() if name != "retweeted_tweet_id"]
    assert desk.raw() == whole.raw


@pytest.mark.parametrize("way", WAYS)
def test_the_whole_text_of_a_retweet_stays(desk: Desk, way: str) -> None:
    whole = retweet(whole=True)
    desk.save("page", whole)
    desk.save(way, retweet(whole=False), later(1))

    assert (desk.stored()["text"], desk.stored()["kind"], desk.raw()) == (f"RT @other: {NOTE}", "retweet", whole.raw)


def without_includes(**fields: Any) -> Tweet:
    """Read a tweet of which nothing is included: its references are deleted, or X left them out."""
    return read({"data": [{"id": str(TWEET), "author_id": str(USER), "text": "hello", **fields}]})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("first", "poorer"),
    [
        ({"referenced_tweets": [{"type": "quoted", "id": "110"}]}, {}),
        ({"note_tweet": {"text": "hello", "entities": {}}}, {}),
        ({"text": "hello world"}, {"text": "hello wor…"}),
        ({"text": "hello world"}, {"public_metrics": dict.fromkeys(METRICS, 1)}),
    ],
    ids=["a reference that is not included", "a note as long as the text", "a text that is cut", "a longer text"],
)
def test_each_part_of_raw_is_kept_by_itself(
    desk: Desk, way: str, first: dict[str, Any], poorer: dict[str, Any]
) -> None:
    before = without_includes(**first)
    desk.save("page", before)
    desk.save(way, without_includes(**poorer), later(1))

    assert (desk.stored()["text"], desk.stored()["kind"], desk.raw()) == (before.text, before.kind.value, before.raw)


@pytest.mark.parametrize("way", WAYS)
def test_the_words_post_and_tweet_mean_the_same(desk: Desk, way: str) -> None:
    body = response(likes=7)
    tweet, includes = body["data"][0], body["includes"]
    for theirs, ours in (("note_post", "note_tweet"), ("referenced_posts", "referenced_tweets")):
        tweet[theirs] = tweet.pop(ours)
    includes["posts"] = includes.pop("tweets")
    desk.save("page", reading(likes=1))
    desk.save(way, read(body), later(1))

    assert (desk.stored()["like_count"], desk.raw()) == (7, read(body).raw)


@pytest.mark.parametrize("way", BILLED_WAYS)
def test_content_that_was_removed_comes_back_when_x_shows_the_tweet_again(desk: Desk, way: str) -> None:
    desk.save("page", reading())
    before, raw = desk.stored(), desk.raw()
    desk.database.execute("UPDATE tweets SET deleted_seen_at = %s", (NOON,))
    assert remove_deleted_content(desk.database) == 1
    desk.save(way, reading(), later(1))

    assert (desk.stored(), desk.raw()) == (before, raw)
    assert desk.database.execute("SELECT deleted_seen_at FROM tweets") == [(None,)]


def test_a_tweet_of_which_the_content_was_removed_is_stored_as_the_next_reading_has_it(desk: Desk) -> None:
    desk.save("page", reading())
    desk.database.execute("UPDATE tweets SET deleted_seen_at = %s", (NOON,))
    remove_deleted_content(desk.database)
    poor = reading("note", "counts", "media")
    desk.save("page", poor, later(1))

    assert (desk.stored()["text"], desk.stored()["like_count"], desk.raw()) == (NOTE[:280], None, poor.raw)


GUESSED = replace(reading(), kind=TweetKind.RETWEET, retweeted_tweet_id=None)


def test_a_retweet_that_an_import_guesses_from_the_text_does_not_replace_the_kind_that_x_states(desk: Desk) -> None:
    desk.save("page", reading())
    desk.save("imported", GUESSED, later(1))

    assert desk.stored()["kind"] == "reply"


def test_a_retweet_that_was_guessed_is_what_x_states(desk: Desk) -> None:
    desk.save("imported", GUESSED)
    desk.save("page", reading(), later(1))

    assert desk.stored()["kind"] == "reply"


@pytest.mark.parametrize("way", ["page", "found"])
def test_a_tweet_is_stored_under_the_author_that_x_names_and_billed_like_any_other(desk: Desk, way: str) -> None:
    foreign = replace(reading(), author_id=OTHER, id=300)
    WAYS[way](desk, [reading(), foreign], NOON)

    assert desk.database.execute("SELECT id, author_id FROM tweets ORDER BY id") == [(TWEET, USER), (300, OTHER)]
    assert desk.database.execute("SELECT billed_posts FROM api_calls") == [(2,)]
    assert desk.tally() == ((2, 2, 2) if way == "page" else (1, 1, 1))


def test_a_tweet_that_names_no_author_is_stored_under_the_account_that_was_requested(desk: Desk) -> None:
    desk.save("page", reading("author"))

    assert desk.stored()["author_id"] == USER


@pytest.mark.parametrize("way", BILLED_WAYS)
def test_a_wrong_author_is_corrected_by_the_next_reading_that_names_one(desk: Desk, way: str) -> None:
    desk.save("page", replace(reading(), author_id=OTHER))
    desk.save(way, reading(), later(1))

    assert desk.stored()["author_id"] == USER


@pytest.mark.parametrize(
    ("way", "tweet"), [("page", reading("author")), ("imported", reading())], ids=["no author named", "an import"]
)
def test_an_author_that_x_has_named_stays(desk: Desk, way: str, tweet: Tweet) -> None:
    desk.save("page", replace(reading(), author_id=OTHER))
    desk.save(way, tweet, later(1))

    assert desk.stored()["author_id"] == OTHER


def test_a_page_may_hold_tweets_with_and_without_an_author(desk: Desk) -> None:
    def page(*authors: int | None) -> list[Tweet]:
        return [replace(reading(), id=number, author_id=author) for number, author in enumerate(authors, start=1)]

    desk.save_page(page(OTHER, OTHER, None, USER), NOON)
    desk.save_page(page(None, USER, OTHER, None), later(1))

    assert desk.database.execute("SELECT author_id FROM tweets ORDER BY id") == [(OTHER,), (USER,), (OTHER,), (USER,)]


@pytest.mark.parametrize("way", BILLED_WAYS)
def test_a_tweet_counts_as_fetched_once_a_utc_day(desk: Desk, way: str) -> None:
    desk.save(way, reading())
    desk.save(way, reading(), later(1))
    same_day = desk.tally()
    desk.save(way, reading(), later(24))

    assert (same_day, desk.tally()) == ((1, 1, 1), (2, 1, 2))


def test_when_a_tweet_was_last_read_never_goes_back(desk: Desk) -> None:
    desk.save("page", reading(), later(1))
    desk.save("streamed", reading(), NOON)

    assert desk.database.execute("SELECT first_read_at, last_read_at FROM tweets") == [(later(1), later(1))]


def test_a_stream_that_belongs_to_no_run_leaves_the_run_that_read_a_tweet_last(desk: Desk) -> None:
    desk.save("page", reading())
    save_streamed(desk.database, USER, [reading()], read_at=later(1), call_id=desk.call(1))

    assert desk.database.execute("SELECT last_read_at, last_read_run_id FROM tweets") == [(later(1), desk.run_id)]


# Shrinking what goes through a database takes minutes and shows little.
NO_SHRINKING = [phase for phase in Phase if phase is not Phase.shrink]
READINGS = st.lists(
    st.tuples(st.sampled_from([*WAYS]), st.sets(st.sampled_from([*LACKS, *LACKS_COLUMN]), max_size=5).map(sorted)),
    min_size=2,
    max_size=6,
)
RANKS = ["original", "quote", "reply"]


def parts_of(raw: str) -> set[tuple[str, str]]:
    """Return what a tweet's JSON holds of what it must not lose."""
    tweet = json.loads(raw)
    parts = {(name, "") for name in ("note_tweet", "public_metrics") if name in tweet}
    parts |= {("reference", each["id"]) for each in tweet.get("referenced_tweets", [])}
    for section, items in tweet["includes"].items():
        parts |= {(section, item.get("id") or item["media_key"]) for item in items}
    return parts


@given(READINGS)
@settings(max_examples=60, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_readings_come_in_whatever_order_each_column_and_raw_are_as_rich_as_the_richest(
    desk: Desk, readings: list[tuple[str, list[str]]]
) -> None:
    desk.database.execute("TRUNCATE tweets")
    read_so_far, kept = list[Tweet](), set[tuple[str, str]]()
    for number, (way, lacks) in enumerate(readings):
        tweet = reading(*lacks, likes=number)
        read_so_far.append(tweet)
        desk.save(way, tweet, later(number))
        stored, parts = desk.stored(), parts_of(desk.raw())

        assert kept <= parts
        kept = parts
        assert not any(parts < parts_of(each.raw) and len(each.text) == len(stored["text"]) for each in read_so_far)
        assert stored["author_id"] == USER
        assert len(stored["text"]) == max(len(each.text) for each in read_so_far)
        assert RANKS.index(stored["kind"]) == max(RANKS.index(each.kind.value) for each in read_so_far)
        for name in COLUMNS[3:]:
            values: list[Any] = [getattr(each, name) for each in read_so_far]
            last = next((value for value in reversed(values) if value not in (None, ())), None)
            assert stored[name] == ([*last] if name == "edit_history_ids" and last else last)


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.sampled_from(["", "a", "\0", "\ud83d", "\\u0000", "\\\\u", "\U0001f600"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "media_key", "text", "tweets", "media", "\0"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ODD_RAWS = (
    st.dictionaries(
        st.sampled_from(["id", "text", "note_tweet", "public_metrics", "referenced_posts", "includes", "\ud83d"]),
        ANYTHING,
        max_size=5,
    )
    | ANYTHING
).map(json.dumps) | st.sampled_from(['{"includes":1e400000}', '{"text":"a","text":"\\u0000"}', "[]", "0"])


@given(st.lists(ODD_RAWS, min_size=2, max_size=5))
@settings(max_examples=60, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_raw_json_makes_a_reading_fail(desk: Desk, raws: list[str]) -> None:
    desk.database.execute("TRUNCATE tweets")
    for number, raw in enumerate(raws):
        for way in WAYS:
            desk.save(way, replace(reading(), raw=raw), later(number))

        assert desk.raw() in raws[: number + 1]


def test_raw_with_escapes_that_postgresql_refuses_is_compared_like_any_other(desk: Desk) -> None:
    odd = replace(reading(), raw=reading().raw.replace("whole text", r"whole \u0000 \ud83d \\u0000 text"))
    desk.save("page", reading("media"))
    desk.save("page", odd, later(1))
    desk.save("page", reading("poll"), later(2))

    assert desk.raw() == odd.raw
