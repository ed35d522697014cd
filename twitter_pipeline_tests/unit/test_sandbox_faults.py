"""The sandbox's faults of timelines and searches: what each one changes in an answer, and what it leaves alone."""

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.api import Response
from twitter_pipeline.sandbox.faults import FAILURES, KINDS, FaultKind, Faults
from twitter_pipeline.sandbox.pages import Position, position_in, token_of
from twitter_pipeline.sandbox.snowflakes import MAX_ID
from twitter_pipeline_tests.unit.test_sandbox_api import DAY, LOTS, NOW, Sandbox, ids_of, sandbox

Listing = Literal["timeline", "recent", "all"]
Json = dict[str, Any]

LISTINGS: tuple[Listing, ...] = ("timeline", "recent", "all")
EVERYTHING: Json = {
    "tweet__fields": "attachments,author_id,created_at,entities,note_tweet,public_metrics,referenced_tweets",
    "expansions": "author_id,attachments.media_keys,referenced_tweets.id,referenced_tweets.id.author_id",
    "media__fields": "url",
}

BODIES: dict[FaultKind, Json] = {
    "empty_object": {},
    "bare_meta": {"meta": {}},
    "flat_problem": {
        "title": "Service Unavailable",
        "detail": "Service Unavailable",
        "type": "about:blank",
        "status": 503,
    },
    "only_errors": {
        "errors": [
            {
                "title": "Internal Server Error",
                "detail": "Something went wrong.",
                "type": "https://api.twitter.com/2/problems/internal-error",
            }
        ]
    },
}


@dataclass(frozen=True)
class Reader:
    """A client that reads the tweets of @author, on a timeline or in a search, ten a page."""

    box: Sandbox
    listing: Listing

    @property
    def truth(self) -> list[int]:
        return self.box.world.tweet_ids("author")

    def get(self, token: str | None = None, **parameters: Any) -> Response:
        self.box.clock.now += 1  # a full search takes one call a second
        parameters = {"max_results": 10, **parameters}
        if token:
            parameters["pagination_token"] = token
        if self.listing == "timeline":
            return self.box.get(f"/2/users/{self.box.id_of('author')}/tweets", **parameters)
        return self.box.get(f"/2/tweets/search/{self.listing}", query="from:author", **parameters)

    def page(self, token: str | None = None, **parameters: Any) -> Json:
        response = self.get(token, **parameters)
        assert response.status == 200, response.body
        return json.loads(response.body)

    def pages(self, **parameters: Any) -> Iterator[Json]:
        """Yield pages by their tokens until one has none."""
        token = None
        while True:
            page = self.page(token, **parameters)
            yield page
            if (token := page["meta"].get("next_token")) is None:
                return

    def first(self, count: int, **parameters: Any) -> list[Json]:
        pages = self.pages(**parameters)
        return [next(pages) for _ in range(count)]


def reader(listing: Listing, *script: FaultKind | None, tweets: int = 45, faults: Faults | None = None) -> Reader:
    author = AccountSpec(
        "author",
        tweets=tweets,
        first_tweet_at=NOW - 6 * DAY,
        last_tweet_at=NOW - 3 * DAY,  # from two days on, pages are kept for later calls
        kinds={"original": 2, "quote": 1, "retweet": 1},
    )
    return Reader(sandbox(author, faults=faults or Faults(script=script), limits=LOTS, record_ids=True), listing)


def tokens_of(pages: Sequence[Json]) -> list[str]:
    return [page["meta"]["next_token"] for page in pages]


def without(thing: Json, *names: str) -> Json:
    return {name: value for name, value in thing.items() if name not in names}


# Bodies that are no answer


@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize("kind", BODIES)
def test_a_nonsense_body_has_status_200_and_nothing_else(listing: Listing, kind: FaultKind) -> None:
    response = reader(listing, kind).get()

    assert (response.status, json.loads(response.body)) == (200, BODIES[kind])


@pytest.mark.parametrize("kind", BODIES)
def test_a_nonsense_body_has_the_headers_of_the_rate_limit(kind: FaultKind) -> None:
    response = reader("timeline", kind).get()

    assert response.headers["x-rate-limit-remaining"] == "999999"


@pytest.mark.parametrize("kind", BODIES)
def test_a_nonsense_body_is_one_way_to_fail(kind: FaultKind) -> None:
    assert kind in FAILURES


@pytest.mark.parametrize("kind", BODIES)
def test_a_nonsense_body_replaces_no_look_up_of_users(kind: FaultKind) -> None:
    box = sandbox(AccountSpec("author", tweets=1), faults=Faults(script=[None, kind]))
    regular, struck = (box.json("/2/users/by", usernames="author") for _ in range(2))

    assert struck == regular


def test_failures_are_the_kinds_that_leave_no_whole_answer() -> None:
    assert set(FAILURES) == {
        *BODIES,
        *("500", "502", "503", "504", "html_5xx", "html_200", "reset", "cut", "timeout", "bare_429"),
        *("429", "401", "not_enrolled"),
    }


# Refusals and headers


def test_a_refusal_is_over_with_the_next_call() -> None:
    client = reader("timeline", "429", "401", "not_enrolled", None)
    refused = [client.get() for _ in range(4)]

    assert [each.status for each in refused] == [429, 401, 403, 200]
    assert [each.headers.get("x-rate-limit-limit") for each in refused[:3]] == ["1000000", None, "40000"]
    assert int(refused[0].headers["x-rate-limit-remaining"]) > 0


def test_odd_headers_stand_beside_a_whole_answer() -> None:
    client = reader("timeline", "past_reset", "far_reset", "utc_date")
    past, far, utc = (client.get() for _ in range(3))

    assert [each.status for each in (past, far, utc)] == [200, 200, 200]
    assert int(past.headers["x-rate-limit-reset"]) < client.box.clock.now < int(far.headers["x-rate-limit-reset"])
    assert utc.headers["date"].endswith(" UTC")


# No tweets


@pytest.mark.parametrize("listing", LISTINGS)
def test_endless_empty_pages_have_ever_new_tokens(listing: Listing) -> None:
    pages = reader(listing, *["endless_empty"] * 60).first(60)
    tokens = tokens_of(pages)

    assert pages == [{"meta": {"result_count": 0, "next_token": token}} for token in tokens]
    assert len(set(tokens)) == 60


@pytest.mark.parametrize("listing", LISTINGS)
def test_after_endless_empty_pages_the_walk_goes_on_where_it_was(listing: Listing) -> None:
    client = reader(listing, None, "endless_empty", "endless_empty", None)

    assert [ids_of(page) for page in client.first(4)] == [client.truth[:10], [], [], client.truth[10:20]]


@pytest.mark.parametrize("listing", LISTINGS)
def test_an_account_without_tweets_can_have_endless_empty_pages(listing: Listing) -> None:
    page = reader(listing, "endless_empty", tweets=0).page()

    assert page["meta"].keys() == {"result_count", "next_token"}


# Page tokens


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_page_can_lack_its_next_token_although_there_is_more(listing: Listing) -> None:
    client = reader(listing, None, "no_next_token")
    regular, struck = client.page(), client.page()

    assert struck == {**regular, "meta": without(regular["meta"], "next_token")}


@pytest.mark.parametrize("listing", LISTINGS)
def test_the_same_page_comes_again_and_again_with_ever_new_tokens(listing: Listing) -> None:
    client = reader(listing, None, *["same_page"] * 40)
    pages = client.first(41)

    assert [ids_of(page) for page in pages[1:]] == [client.truth[10:20]] * 40
    assert len(set(tokens_of(pages))) == 41


@pytest.mark.parametrize("listing", LISTINGS)
def test_after_the_same_page_the_walk_can_go_on(listing: Listing) -> None:
    client = reader(listing, "same_page", None, None)
    truth = client.truth

    assert [ids_of(page) for page in client.first(3)] == [truth[:10], truth[:10], truth[10:20]]


def test_the_last_page_can_be_the_same_page_too() -> None:
    client = reader("timeline", "same_page", "same_page", tweets=4)

    assert [ids_of(page) for page in client.first(2)] == [client.truth] * 2


def test_new_tweets_do_not_move_the_same_page() -> None:
    client = reader("timeline", "same_page", "same_page")
    first = client.page()
    client.box.world.post("author", text="news")
    client.box.clock.now += 60

    assert client.page(first["meta"]["next_token"])["data"] == first["data"]


@pytest.mark.parametrize("listing", LISTINGS)
def test_two_page_tokens_alternate_with_the_pages_they_lead_to(listing: Listing) -> None:
    client = reader(listing, *["alternating_tokens"] * 6)
    pages = client.first(6)
    tokens, truth = tokens_of(pages), client.truth

    assert tokens == tokens[:2] * 3
    assert tokens[0] != tokens[1]
    assert [ids_of(page) for page in pages] == [truth[:10], truth[10:20]] * 3


@pytest.mark.parametrize("listing", LISTINGS)
def test_tokens_can_begin_to_alternate_in_the_middle(listing: Listing) -> None:
    client = reader(listing, None, *["alternating_tokens"] * 5)
    pages = client.first(6)
    tokens, truth = tokens_of(pages), client.truth

    assert [ids_of(page) for page in pages] == [truth[:10], *[truth[10:20], truth[20:30]] * 2, truth[10:20]]
    assert tokens[1:] == [*tokens[1:3] * 2, tokens[1]]
    assert len(set(tokens)) == 3


def test_a_page_that_is_the_only_one_has_no_token_to_alternate() -> None:
    client = reader("timeline", None, "alternating_tokens", tweets=10)

    assert client.page() == client.page()


@pytest.mark.parametrize("listing", LISTINGS)
def test_two_tweets_change_places_across_the_end_of_a_page(listing: Listing) -> None:
    client = reader(listing, "swapped", None, None)
    truth = client.truth

    assert [ids_of(page) for page in client.first(3)] == [
        [*truth[:9], truth[10]],
        [truth[9], *truth[11:20]],
        truth[20:30],
    ]


@pytest.mark.parametrize("listing", LISTINGS)
def test_tweets_change_places_across_the_end_of_every_page(listing: Listing) -> None:
    client = reader(listing, *["swapped"] * 3, tweets=30)
    truth = client.truth

    assert [ids_of(page) for page in client.pages()] == [
        [*truth[:9], truth[10]],
        [truth[9], *truth[11:19], truth[20]],
        [truth[19], *truth[21:]],
    ]


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_swapped_page_is_otherwise_regular(listing: Listing) -> None:
    client = reader(listing, None, None, "swapped", None)
    [first, second], [struck, after] = client.first(2, **EVERYTHING), client.first(2, **EVERYTHING)

    assert struck["data"] == [*first["data"][:9], second["data"][0]]
    assert after["data"] == [first["data"][9], *second["data"][1:]]
    assert after["meta"]["next_token"] == second["meta"]["next_token"]


def test_pages_that_were_kept_do_not_hide_that_tweets_changed_places() -> None:
    client = reader("timeline", None, None, "swapped", None)
    client.first(2)
    truth = client.truth

    assert [ids_of(page) for page in client.first(2)] == [[*truth[:9], truth[10]], [truth[9], *truth[11:20]]]


def test_a_page_that_changes_places_and_repeats_a_tweet_shows_none_twice() -> None:
    client = reader("timeline", "swapped", "duplicates")
    truth = client.truth

    assert ids_of(client.first(2)[1]) == [truth[9], *truth[11:19]]


@pytest.mark.parametrize("seed", range(40))
def test_tweets_that_change_places_on_the_shortest_pages_come_once_each(seed: int) -> None:
    client = reader("timeline", faults=Faults(seed, {"swapped": 0.9, "short_page": 0.9, "empty_page": 0.1}))
    ids = [tweet_id for page in client.pages(max_results=5) for tweet_id in ids_of(page)]

    assert sorted(ids, reverse=True) == client.truth


@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize("kind", ["no_next_token", "same_page", "alternating_tokens"])
def test_nothing_changes_places_where_the_token_does_not_lead_to_the_next_page(
    listing: Listing, kind: FaultKind
) -> None:
    client = reader(listing, faults=Faults(rates={kind: 1.0, "swapped": 1.0}))

    assert ids_of(client.page()) == client.truth[:10]


def test_the_last_page_swaps_nothing() -> None:
    client = reader("timeline", None, "swapped", tweets=10)

    assert client.page() == client.page()


@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize("deleted", [9, 10])
def test_no_other_tweet_is_lost_when_one_that_changes_places_is_deleted(listing: Listing, deleted: int) -> None:
    client = reader(listing, "swapped")
    truth = client.truth
    pages = client.pages()
    ids = ids_of(next(pages))
    client.box.world.delete(truth[deleted])
    ids += [tweet_id for page in pages for tweet_id in ids_of(page)]

    assert set(ids) >= {*truth} - {truth[deleted]}


# Tweets


@pytest.mark.parametrize("listing", LISTINGS)
def test_the_oldest_tweet_can_come_before_the_others(listing: Listing) -> None:
    client = reader(listing, None, "pinned_first")
    regular, struck = client.page(), client.page()
    *_, last_page = client.pages()
    oldest = last_page["data"][-1]

    assert struck == {
        "data": [oldest, *regular["data"]],
        "meta": {**regular["meta"], "result_count": 11, "oldest_id": oldest["id"]},
    }


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_pinned_tweet_comes_whatever_since_id_says(listing: Listing) -> None:
    client = reader(listing, "pinned_first", "pinned_first")
    truth = client.truth

    assert ids_of(client.page(since_id=truth[3])) == [truth[-1], *truth[:3]]
    assert ids_of(client.page(since_id=truth[0])) == [truth[-1]]


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_pinned_tweet_that_is_on_the_page_anyway_moves_to_the_front(listing: Listing) -> None:
    client = reader(listing, "pinned_first", tweets=8)
    truth = client.truth

    assert ids_of(client.page()) == [truth[-1], *truth[:-1]]


def test_a_deleted_tweet_is_not_pinned() -> None:
    client = reader("timeline", "pinned_first")
    client.box.world.delete(client.truth[-1])
    truth = client.truth

    assert ids_of(client.page()) == [truth[-1], *truth[:10]]


def test_a_tweet_that_is_not_yet_visible_is_not_pinned() -> None:
    faults = Faults(seed=1, rates={"pinned_first": 1.0}, late_rate=0.5, late_s=60)
    client = reader("timeline", tweets=0, faults=faults)
    ids = [client.box.world.post("author", text=f"{number}", at=NOW - 20 + number) for number in range(10)]
    visible = [tweet_id for tweet_id in ids if not faults.is_late(tweet_id)]

    assert visible[0] != ids[0]
    assert ids_of(client.page()) == [visible[0], *visible[:0:-1]]


@pytest.mark.parametrize("listing", LISTINGS)
def test_an_account_without_tweets_has_none_pinned(listing: Listing) -> None:
    assert reader(listing, "pinned_first", tweets=0).page() == {"meta": {"result_count": 0}}


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_foreign_tweet_comes_between_the_others(listing: Listing) -> None:
    client = reader(listing, None, "foreign_tweet")
    regular, struck = (client.page(**EVERYTHING) for _ in range(2))
    author_id = client.box.id_of("author")
    places = [place for place, tweet in enumerate(struck["data"]) if tweet["author_id"] != author_id]

    assert len(places) == 1
    assert 0 < places[0] < 10
    assert [tweet for tweet in struck["data"] if tweet["author_id"] == author_id] == regular["data"]


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_foreign_tweet_keeps_the_page_in_order(listing: Listing) -> None:
    page = reader(listing, "foreign_tweet").page(**EVERYTHING)

    assert all(newer > older for newer, older in pairwise(ids_of(page)))
    assert all(newer["created_at"] >= older["created_at"] for newer, older in pairwise(page["data"]))


def test_a_foreign_tweet_comes_with_its_author() -> None:
    page = reader("timeline", "foreign_tweet").page(**EVERYTHING)

    assert {tweet["author_id"] for tweet in page["data"]} <= {user["id"] for user in page["includes"]["users"]}


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_foreign_tweet_comes_below_the_only_tweet_of_a_page(listing: Listing) -> None:
    client = reader(listing, "foreign_tweet", tweets=1)
    ids = ids_of(client.page())

    assert ids == [client.truth[0], client.truth[0] - 1]


def test_a_foreign_tweet_is_not_part_of_the_world() -> None:
    client = reader("timeline", "foreign_tweet")
    [foreign] = {*ids_of(client.page())} - {*client.truth}

    assert client.box.world.tweet(foreign) is None


def test_a_page_without_tweets_has_no_foreign_one() -> None:
    client = reader("timeline", "foreign_tweet")

    assert client.page(since_id=client.truth[0]) == {"meta": {"result_count": 0}}


def test_no_account_of_a_search_is_the_author_of_its_foreign_tweet() -> None:
    names = [f"friend_{number:02}" for number in range(20)]
    box = sandbox(faults=Faults(script=["foreign_tweet"]))
    query = " OR ".join(f"from:{name}" for name in names)
    page = box.json("/2/tweets/search/all", query=query, tweet__fields="author_id", max_results=100)
    authors = {tweet["author_id"] for tweet in page["data"]}

    assert len(authors - {box.id_of(name) for name in names}) == 1


@pytest.mark.parametrize("listing", LISTINGS)
def test_one_tweet_of_a_page_can_lack_its_id(listing: Listing) -> None:
    client = reader(listing, None, "unreadable_tweet")
    regular, struck = client.page(**EVERYTHING), client.page(**EVERYTHING)
    [place] = [place for place, tweet in enumerate(struck["data"]) if tweet["id"] is None]
    expected = deepcopy(regular)
    expected["data"][place]["id"] = None

    assert struck == expected


def test_the_same_tweet_lacks_its_id_whenever_the_page_is_struck() -> None:
    client = reader("timeline", "unreadable_tweet", None, None, "unreadable_tweet")
    pages = [client.page() for _ in range(4)]

    assert pages[0] == pages[3] != pages[1] == pages[2]


@pytest.mark.parametrize("listing", LISTINGS)
def test_thin_tweets_lack_what_makes_them_whole(listing: Listing) -> None:
    client = reader(listing, None, "thin_tweets", tweets=100)
    regular, struck = (client.page(max_results=100, **EVERYTHING) for _ in range(2))
    whole = [without(tweet, "note_tweet", "public_metrics", "attachments") for tweet in regular["data"]]

    assert [without(tweet, "attachments") for tweet in struck["data"]] == whole
    assert without(struck, "data") == {**without(regular, "data"), "includes": {"users": regular["includes"]["users"]}}
    assert all("media_keys" not in tweet.get("attachments", {}) for tweet in struck["data"])


def test_the_page_that_is_thinned_had_notes_metrics_media_and_included_tweets() -> None:
    page = reader("timeline", tweets=100).page(max_results=100, **EVERYTHING)

    assert page["includes"].keys() == {"users", "tweets", "media"}
    assert all("public_metrics" in tweet for tweet in page["data"])
    assert any("note_tweet" in tweet for tweet in page["data"])
    assert any("media_keys" in tweet.get("attachments", {}) for tweet in page["data"])


def test_the_text_of_thin_tweets_is_short() -> None:
    page = reader("timeline", "thin_tweets", tweets=100).page(max_results=100, **EVERYTHING)

    assert max(len(tweet["text"]) for tweet in page["data"]) <= 280


def test_thin_tweets_keep_their_polls() -> None:
    client = reader("timeline", None, "thin_tweets", tweets=100)
    fields: Json = {"tweet__fields": "attachments", "expansions": "attachments.poll_ids", "max_results": 100}
    regular, struck = client.page(**fields), client.page(**fields)
    polls = [tweet["attachments"] for tweet in regular["data"] if "poll_ids" in tweet.get("attachments", {})]

    assert [tweet["attachments"] for tweet in struck["data"] if "attachments" in tweet] == polls
    assert polls


def test_thin_posts_lack_the_same_in_the_new_names() -> None:
    client = reader("timeline", "thin_tweets", tweets=100)
    page = client.page(max_results=100, post__fields="note_post,public_metrics", expansions="referenced_posts,username")

    assert page["includes"].keys() == {"users"}
    assert all(not {"note_post", "public_metrics"} & post.keys() for post in page["data"])


# All kinds


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_changes_its_answer_and_no_later_one(kind: FaultKind) -> None:
    client = reader("timeline", None, kind)
    before, _, after = client.page(), client.get(), client.page()

    assert after == before


@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in FAILURES])
def test_what_is_billed_is_what_the_page_shows(listing: Listing, kind: FaultKind) -> None:
    client = reader(listing, None, kind)
    _, struck = client.first(2)
    record = client.box.api.calls[-1]
    shown = [tweet["id"] for tweet in struck.get("data", [])]

    assert [tweet_id if str(tweet_id) in shown else None for tweet_id in record.ids] == [
        int(tweet_id) if tweet_id else None for tweet_id in shown
    ]
    assert struck["meta"]["result_count"] == record.result_count == len(shown)


@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize("kind", BODIES)
def test_nothing_is_billed_for_a_nonsense_body(listing: Listing, kind: FaultKind) -> None:
    client = reader(listing, kind)
    client.get()

    assert (client.box.api.posts_billed(), client.box.api.users_billed()) == (0, 0)


def test_a_tweet_without_its_id_is_billed() -> None:
    client = reader("timeline", "unreadable_tweet")
    client.page()

    assert client.box.api.posts_billed() == 10


PASSING: list[FaultKind] = [
    kind for kind in KINDS if kind not in {*FAILURES, "empty_answer", "no_next_token", "unreadable_tweet"}
]


@given(
    seed=st.integers(0, 10_000),
    listing=st.sampled_from(LISTINGS),
    kinds=st.sets(st.sampled_from(PASSING), min_size=1),
    rate=st.sampled_from([0.1, 0.25]),
)
@settings(max_examples=150, deadline=None)
def test_faults_that_pass_lose_no_tweet_whichever_combine(
    seed: int, listing: Listing, kinds: set[FaultKind], rate: float
) -> None:
    client = reader(listing, faults=Faults(seed, dict.fromkeys(kinds, rate)))
    ids = {tweet_id for page in client.pages() for tweet_id in ids_of(page)}

    assert ids >= {*client.truth}
    assert "foreign_tweet" in kinds or ids == {*client.truth}


@given(
    position=st.builds(
        Position,
        direction=st.sampled_from(["older", "newer"]),
        tweet_id=st.integers(0, MAX_ID),
        turn=st.integers(0, 2**32 - 1),
        swapped_with=st.integers(0, MAX_ID),
        back_to=st.integers(0, MAX_ID),
    )
)
def test_a_page_token_holds_its_whole_position(position: Position) -> None:
    assert position_in(token_of(position, "here"), "here") == position
