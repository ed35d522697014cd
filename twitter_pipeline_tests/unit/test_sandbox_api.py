"""The sandbox's API: paging, windows, tokens, refusals, vocabularies, faults."""

import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twitter_pipeline.sandbox import windows as at
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.api import Response, SandboxApi
from twitter_pipeline.sandbox.faults import FAILURES, KINDS, FaultKind, Faults, RawAnswer
from twitter_pipeline.sandbox.snowflakes import created_ms_of
from twitter_pipeline.sandbox.windows import DEFAULT_LIMITS, TokenSpec
from twitter_pipeline.sandbox.world import World

NOW = 1_795_000_000.0
DAY = 86_400.0
BEARER = "sandbox-token-1"
LOTS = dict.fromkeys(DEFAULT_LIMITS, 1_000_000)
EVEN: dict[Any, float] = {"original": 1, "reply": 1, "retweet": 1, "quote": 1}
REFERENCED = {"tweet": "referenced_tweets.id", "post": "referenced_posts"}


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Sandbox:
    """An API, its world and clock, and how to call it."""

    api: SandboxApi
    world: World
    clock: Clock

    def get(self, path: str, bearer: str = BEARER, **parameters: Any) -> Response:
        query = urlencode({name.replace("__", "."): value for name, value in parameters.items()})
        return self.api.handle("GET", path, query, {"authorization": f"Bearer {bearer}"})

    def json(self, path: str, **parameters: Any) -> dict[str, Any]:
        response = self.get(path, **parameters)
        assert response.status == 200, response.body
        return json.loads(response.body)

    def id_of(self, username: str) -> str:
        user = self.world.user(username)
        assert user is not None
        return user["id"]

    def timeline(self, username: str, **parameters: Any) -> dict[str, Any]:
        return self.json(f"/2/users/{self.id_of(username)}/tweets", **parameters)

    def walk(self, username: str, **parameters: Any) -> list[int]:
        """Read a whole timeline as a client would: by the tokens alone."""
        ids: list[int] = []
        token: dict[str, Any] = {}
        for _ in range(2_000):
            page = self.timeline(username, **parameters, **token)
            ids += ids_of(page)
            if "next_token" not in page["meta"]:
                return ids
            token = {"pagination_token": page["meta"]["next_token"]}
        raise AssertionError("the walk does not end")


def sandbox(*accounts: AccountSpec, **options: Any) -> Sandbox:
    clock = Clock()
    world = World(5, clock=clock, accounts=accounts)
    options.setdefault("tokens", [TokenSpec(BEARER)])
    return Sandbox(SandboxApi(world, **options), world, clock)


def created_at(tweet_id: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=created_ms_of(tweet_id))


def ids_of(page: Mapping[str, Any]) -> list[int]:
    return [int(tweet["id"]) for tweet in page.get("data", [])]


def message_of(response: Response) -> str:
    assert response.status == 400
    return json.loads(response.body)["errors"][0]["message"]


# Timelines


@given(tweets=st.integers(0, 260), size=st.integers(5, 100), reach=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_walking_pages_of_any_size_gives_exactly_what_can_be_served(tweets: int, size: int, reach: int) -> None:
    box = sandbox(AccountSpec("walked", tweets=tweets), page_reach=reach, limits=LOTS)

    ids = box.walk("walked", max_results=size)

    assert ids == box.world.tweet_ids("walked")[:reach]


def test_a_timeline_ends_with_its_3200th_tweet() -> None:
    box = sandbox(AccountSpec("big", tweets=3_300), limits=LOTS)

    ids = box.walk("big", max_results=100)

    assert ids == box.world.served_ids("big")
    assert len(ids) == 3_200
    assert box.timeline("big", until_id=ids[-1]) == {"meta": {"result_count": 0}}
    assert box.walk("big", max_results=100, since_id=box.world.tweet_ids("big")[-1]) == ids


def test_the_last_full_page_has_no_token_when_nothing_is_left() -> None:
    page = sandbox(AccountSpec("ten", tweets=10)).timeline("ten", max_results=10)

    assert page["meta"]["result_count"] == 10
    assert "next_token" not in page["meta"]


def test_new_tweets_do_not_move_a_page() -> None:
    box = sandbox(AccountSpec("lively", tweets=60, tweets_per_day=86_400))
    all_ids = box.world.tweet_ids("lively")
    first = box.timeline("lively", max_results=20)
    box.clock.now += 30
    second = box.timeline("lively", max_results=20, pagination_token=first["meta"]["next_token"])

    assert ids_of(second) == all_ids[20:40]


def test_a_previous_token_leads_back() -> None:
    box = sandbox(AccountSpec("walked", tweets=60))
    first = box.timeline("walked", max_results=20)
    second = box.timeline("walked", max_results=20, pagination_token=first["meta"]["next_token"])

    again = box.timeline("walked", max_results=20, pagination_token=second["meta"]["previous_token"])

    assert ids_of(again) == ids_of(first)
    assert "previous_token" not in first["meta"]


def test_bounds_are_exclusive() -> None:
    box = sandbox(AccountSpec("walked", tweets=30))
    ids = box.world.tweet_ids("walked")

    page = box.timeline("walked", since_id=ids[10], until_id=ids[3], max_results=50)

    assert ids_of(page) == ids[4:10]


def test_times_bound_as_ids_do_and_ids_go_first() -> None:
    box = sandbox(AccountSpec("walked", tweets=30))
    ids = box.world.tweet_ids("walked")
    tweet = box.world.tweet(ids[10])
    assert tweet is not None

    since = box.timeline("walked", start_time=tweet["created_at"].replace(".000", ""), max_results=50)
    both = box.timeline("walked", start_time=tweet["created_at"], since_id=ids[3], max_results=50)

    assert ids_of(since) == ids[:11]
    assert ids_of(both) == ids[:3]


def test_a_time_may_have_an_offset_and_fractions_of_a_second() -> None:
    box = sandbox(AccountSpec("walked", tweets=30))
    ids = box.world.tweet_ids("walked")
    zones = [timezone(timedelta(hours=hours)) for hours in (0, 2, -9.5)]
    pages = [
        box.timeline("walked", start_time=created_at(ids[number]).astimezone(zone).isoformat(), max_results=50)
        for number in range(30)
        for zone in zones
    ]

    assert [ids_of(page) for page in pages] == [ids[: number + 1] for number in range(30) for _ in zones]


def test_excluded_kinds_leave_short_pages_with_a_token() -> None:
    box = sandbox(AccountSpec("mixed", tweets=100, kinds={"original": 1, "retweet": 1}))

    page = box.timeline("mixed", max_results=50, exclude="retweets")

    assert 0 < page["meta"]["result_count"] < 50
    assert "next_token" in page["meta"]


@pytest.mark.parametrize(
    ("name", "title", "detail"),
    [
        ("protected_one", "Authorization Error", "Sorry, you are not authorized to see the user with id: [{id}]."),
        ("suspended_one", "Forbidden", "User has been suspended: [{id}]."),
    ],
)
def test_a_closed_timeline_is_a_200_with_nothing_but_errors(name: str, title: str, detail: str) -> None:
    box = sandbox()
    body = box.timeline(name)

    assert body.keys() == {"errors"}
    assert (body["errors"][0]["title"], body["errors"][0]["detail"]) == (title, detail.format(id=box.id_of(name)))


def test_a_missing_timeline_is_a_200_with_nothing_but_errors() -> None:
    body = sandbox().json("/2/users/12/tweets")

    assert body.keys() == {"errors"}
    assert body["errors"][0]["detail"] == "Could not find user with id: [12]."


def test_only_some_fields_come_unasked() -> None:
    page = sandbox(AccountSpec("one", tweets=1)).timeline("one")

    assert page["data"][0].keys() == {"id", "text", "edit_history_tweet_ids"}
    assert page.keys() == {"data", "meta"}


def test_expansions_bring_what_tweets_refer_to_and_say_what_is_lost() -> None:
    box = sandbox(AccountSpec("mixed", tweets=1_000, kinds={"reply": 1, "quote": 1}), limits=LOTS)
    lost = 0
    token: dict[str, Any] = {}
    while True:
        page = box.timeline("mixed", max_results=100, expansions="referenced_tweets.id,author_id", **token)
        included = {tweet["id"] for tweet in page["includes"]["tweets"]}
        missing = {error["resource_id"] for error in page.get("errors", [])}
        wanted = {reference["id"] for tweet in page["data"] for reference in tweet["referenced_tweets"]}
        lost += len(missing)

        assert included | missing == wanted
        assert {user["username"] for user in page["includes"]["users"]} == {"mixed"}
        if "next_token" not in page["meta"]:
            break
        token = {"pagination_token": page["meta"]["next_token"]}
    assert lost > 0


def test_an_included_tweet_can_be_looked_up() -> None:
    box = sandbox(AccountSpec("mixed", tweets=50, kinds={"retweet": 1}))
    included = box.timeline("mixed", max_results=50, expansions="referenced_tweets.id")["includes"]["tweets"]

    found = box.json("/2/tweets", ids=",".join(tweet["id"] for tweet in included))

    assert found["data"] == included


# Users and tweets


def test_some_names_are_wrong_and_the_others_come() -> None:
    body = sandbox().json("/2/users/by", usernames="NASA,missing_one,suspended_one,protected_one")

    assert [user["username"] for user in body["data"]] == ["nasa", "protected_one"]
    assert [(error["value"], error["title"], error["type"].rpartition("/")[2]) for error in body["errors"]] == [
        ("missing_one", "Not Found Error", "resource-not-found"),
        ("suspended_one", "Forbidden", "resource-not-found"),
    ]


def test_a_configured_spelling_is_returned() -> None:
    body = sandbox(AccountSpec("CamelCase", tweets=3)).json("/2/users/by", usernames="camelcase")

    assert body["data"][0]["username"] == "CamelCase"


def test_a_lookup_says_which_tweets_are_gone() -> None:
    box = sandbox(AccountSpec("author", tweets=3))
    ids = box.world.tweet_ids("author")
    box.world.delete(ids[1])

    body = box.json("/2/tweets", ids=",".join(map(str, ids)))

    assert ids_of(body) == [ids[0], ids[2]]
    assert [error["value"] for error in body["errors"]] == [str(ids[1])]


# Search


def test_search_merges_accounts_and_leaves_out_the_last_half_minute() -> None:
    box = sandbox(AccountSpec("a", tweets=0), AccountSpec("b", tweets=0))
    ids = [box.world.post("ab"[number % 2], text=f"{number}", at=NOW - 100 + 5 * number) for number in range(18)]

    page = box.json("/2/tweets/search/recent", query="from:a OR from:b", max_results=10)
    rest = box.json(
        "/2/tweets/search/recent", query="from:a OR from:b", max_results=10, next_token=page["meta"]["next_token"]
    )

    assert ids_of(page) + ids_of(rest) == ids[:14][::-1]


def test_search_may_leave_out_retweets() -> None:
    box = sandbox(AccountSpec("mixed", tweets=0), search_retweets=False)
    other = box.world.post("nasa", text="x", at=NOW - 90)
    box.world.post("mixed", text="RT @nasa: x", retweet_of=other, at=NOW - 80)
    kept = box.world.post("mixed", text="mine", at=NOW - 70)

    assert ids_of(box.json("/2/tweets/search/recent", query="from:mixed")) == [kept]


def test_a_since_id_that_is_too_old_for_recent_search_names_the_least_one() -> None:
    message = message_of(
        sandbox().get("/2/tweets/search/recent", query="from:nasa", since_id=2_075_200_933_194_039_668)
    )

    assert message == (
        "'since_id' must be a tweet id created after 2026-11-11T11:06Z. "
        "Please use a 'since_id' that is larger than 2120473275397046272"
    )


def test_full_search_takes_one_call_a_second() -> None:
    box = sandbox()
    statuses: list[int] = []
    for pause in (0.0, 0.5, 0.6):
        box.clock.now += pause
        statuses.append(box.get("/2/tweets/search/all", query="from:nasa").status)

    assert statuses == [200, 429, 200]


# Counts


def test_counts_add_up_to_what_search_finds_in_buckets_that_leave_no_gap() -> None:
    box = sandbox(AccountSpec("mixed", tweets=300, first_tweet_at=NOW - 90 * DAY, last_tweet_at=NOW - DAY, kinds=EVEN))
    since = NOW - 80.3 * DAY
    asked = {"query": "from:mixed", "granularity": "day", "start_time": datetime.fromtimestamp(since, UTC).isoformat()}
    page = box.json("/2/tweets/counts/all", **asked)
    pages = [page]
    while token := page["meta"].get("next_token"):
        page = box.json("/2/tweets/counts/all", next_token=token, **asked)
        pages.insert(0, page)
    buckets = [bucket for page in pages for bucket in page["data"]]

    assert [page["meta"]["total_tweet_count"] for page in pages] == [
        sum(bucket["tweet_count"] for bucket in page["data"]) for page in pages
    ]
    assert datetime.fromisoformat(buckets[0]["start"]).timestamp() == since
    assert all(before["end"] == after["start"] for before, after in pairwise(buckets))
    assert all(bucket["start"].endswith("T00:00:00.000Z") for bucket in buckets[1:])
    for bucket in buckets:
        start, end = (datetime.fromisoformat(bucket[name]) for name in ("start", "end"))
        written = [tweet_id for tweet_id in box.world.tweet_ids("mixed") if start <= created_at(tweet_id) < end]
        assert bucket["tweet_count"] == len(written)


def test_recent_counts_are_of_the_last_week_by_the_hour_and_leave_out_what_the_query_does() -> None:
    box = sandbox(AccountSpec("mixed", tweets=400, first_tweet_at=NOW - 20 * DAY, last_tweet_at=NOW - 60, kinds=EVEN))
    whole = box.json("/2/tweets/counts/recent", query="from:mixed")
    without = box.json("/2/tweets/counts/recent", query="from:mixed -is:retweet")
    week = [tweet_id for tweet_id in box.world.tweet_ids("mixed") if created_at(tweet_id).timestamp() >= NOW - 7 * DAY]
    retweets = [tweet_id for tweet_id in week if (box.world.tweet(tweet_id) or {})["text"].startswith("RT @")]

    assert (whole["meta"], len(whole["data"])) == ({"total_tweet_count": len(week)}, 7 * 24 + 1)
    assert 0 < without["meta"]["total_tweet_count"] == len(week) - len(retweets) < len(week)
    assert box.json("/2/tweets/counts/recent", query="from:missing_one")["meta"] == {"total_tweet_count": 0}


def test_counts_come_in_the_new_names_where_the_request_names_one() -> None:
    page = sandbox(AccountSpec("author", tweets=5)).json(
        "/2/tweets/counts/recent", query="from:author", search_count__fields="end,post_count,start"
    )

    assert page["meta"].keys() == {"total_post_count"}
    assert {name for bucket in page["data"] for name in bucket} == {"end", "post_count", "start"}


# Usage


def test_usage_is_what_was_read_this_month_and_on_each_of_the_last_days() -> None:
    box = sandbox(AccountSpec("author", tweets=50))
    for size in (10, 20):
        box.timeline("author", max_results=size)
        box.clock.now += DAY
    daily = box.json("/2/usage/tweets", days=3, usage__fields="daily_project_usage")["data"]["daily_project_usage"]
    month = box.json("/2/usage/tweets")["data"]
    box.clock.now += 30 * DAY

    assert daily["usage"] == [
        {"date": "2026-11-18T00:00:00.000Z", "usage": "10"},
        {"date": "2026-11-19T00:00:00.000Z", "usage": "20"},
        {"date": "2026-11-20T00:00:00.000Z", "usage": "0"},
    ]
    assert (month["project_usage"], month["project_cap"]) == ("30", "3000000")
    assert box.json("/2/usage/tweets")["data"]["project_usage"] == "0"


# Refusals


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_results": 4}, "The `max_results` query parameter value [4] is not between 5 and 100"),
        ({"max_results": 101}, "The `max_results` query parameter value [101] is not between 5 and 100"),
        ({"since_id": 0}, "The `since_id` query parameter value [0] is not valid"),
        ({"until_id": "x"}, "The `until_id` query parameter value [x] is not valid"),
        ({"pagination_token": "abc"}, "The `pagination_token` query parameter value [abc] is not valid"),
        ({"exclude": "all"}, "The `exclude` query parameter value [all] is not one of [replies,retweets]"),
        (
            {"start_time": "2010-11-05T00:00:00Z"},
            "Invalid 'start_time':'2010-11-05T00:00:00Z'. 'start_time' must be on or after 2010-11-06T00:00Z",
        ),
        (
            {"end_time": "yesterday"},
            "The `end_time` query parameter value [yesterday] is not a valid RFC3339 timestamp",
        ),
        (
            {"end_time": "2026-02-30T00:00:00+02:00"},
            "The `end_time` query parameter value [2026-02-30T00:00:00+02:00] is not a valid RFC3339 timestamp",
        ),
        (
            # A `+` that was not escaped is a space.
            {"end_time": "2026-11-01T00:00:00 00:00"},
            "The `end_time` query parameter value [2026-11-01T00:00:00 00:00] is not a valid RFC3339 timestamp",
        ),
    ],
)
def test_a_timeline_refuses_what_the_api_refuses(parameters: dict[str, Any], message: str) -> None:
    box = sandbox()

    assert message_of(box.get(f"/2/users/{box.id_of('nasa')}/tweets", **parameters)) == message


def test_a_refusal_lists_the_fields_that_are_accepted() -> None:
    message = message_of(sandbox().get("/2/users/by", usernames="nasa", user__fields="shoe_size"))

    assert message.startswith("The `user.fields` query parameter value [shoe_size] is not one of [affiliation,")


def test_a_hundred_and_one_names_are_refused() -> None:
    names = ",".join(f"user_{number}" for number in range(101))

    assert "[101] is not between 1 and 100" in message_of(sandbox().get("/2/users/by", usernames=names))


def test_a_page_token_of_another_account_is_refused() -> None:
    box = sandbox(AccountSpec("one", tweets=50), AccountSpec("other", tweets=50))
    token = box.timeline("one", max_results=5)["meta"]["next_token"]

    assert box.get(f"/2/users/{box.id_of('other')}/tweets", pagination_token=token).status == 400


def test_search_refuses_ids_beside_times_and_long_queries() -> None:
    box = sandbox()
    path = "/2/tweets/search/recent"

    mixed = message_of(box.get(path, query="from:nasa", until_id=10**18, start_time="2026-11-18T00:00:00Z"))
    long = box.get(path, query=" OR ".join(f"from:user_{number:010}" for number in range(30)))

    assert mixed == "Invalid use of 'since_id' or 'until_id' in conjunction with 'start_time' or 'end_time'."
    assert long.status == 400


@pytest.mark.parametrize("path", ["/2/tweets/search/recent", "/2/tweets/search/all"])
@pytest.mark.parametrize("name", ["start_time", "end_time"])
def test_search_refuses_a_time_of_less_than_ten_seconds_ago(path: str, name: str) -> None:
    box = sandbox()
    fresh, old = (datetime.fromtimestamp(NOW - age, UTC).isoformat() for age in (9, 10))

    assert message_of(box.get(path, query="from:nasa", **{name: fresh})) == (
        f"Invalid '{name}':'{fresh}'. '{name}' must be a minimum of 10 seconds prior to the request time."
    )
    box.clock.now += 1
    assert box.get(path, query="from:nasa", **{name: old}).status == 200


# Tokens and windows


def test_a_window_counts_down_refuses_and_opens_again() -> None:
    box = sandbox(limits={at.USERS: 2})
    answers = [box.get("/2/users", ids=1) for _ in range(3)]
    box.clock.now = float(answers[-1].headers["x-rate-limit-reset"])
    answers.append(box.get("/2/users", ids=1))

    assert [(answer.status, answer.headers["x-rate-limit-remaining"]) for answer in answers] == [
        (200, "1"),
        (200, "0"),
        (429, "0"),
        (200, "1"),
    ]
    assert json.loads(answers[2].body) == {
        "title": "Too Many Requests",
        "detail": "Too Many Requests",
        "type": "about:blank",
        "status": 429,
    }
    assert box.api.refusals == 1


def test_a_refused_request_counts_and_says_so() -> None:
    headers = sandbox().get("/2/users", ids="x").headers

    assert headers["x-rate-limit-remaining"] == "299"


@given(length=st.floats(0.05, 1_000), offset=st.floats(0, 1_000), wait=st.floats(0, 10_000))
@settings(deadline=None)
def test_waiting_for_the_reset_always_suffices(length: float, offset: float, wait: float) -> None:
    box = sandbox(
        tokens=[TokenSpec(BEARER, limits={at.USERS: 1}, window_offset_s=offset)], window_seconds=length, limits=LOTS
    )
    box.clock.now += wait
    box.get("/2/users", ids=1)
    refused = box.get("/2/users", ids=1)
    box.clock.now = float(refused.headers["x-rate-limit-reset"])

    assert refused.status == 429
    assert box.get("/2/users", ids=1).status == 200


def test_windows_of_tokens_and_endpoints_are_their_own() -> None:
    tokens = [TokenSpec("one"), TokenSpec("two", window_offset_s=300)]
    box = sandbox(tokens=tokens, limits={at.USERS: 1, at.TWEETS: 1})
    calls = [("one", "/2/users"), ("one", "/2/tweets"), ("two", "/2/users")]

    answers = [box.get(path, bearer=bearer, ids=1) for bearer, path in calls]

    assert [answer.status for answer in answers] == [200, 200, 200]
    resets = [int(answer.headers["x-rate-limit-reset"]) for answer in answers]
    assert resets[0] == resets[1] != resets[2]


def test_threads_cannot_outspend_a_window() -> None:
    box = sandbox(limits={at.USERS: 100})
    threads = [threading.Thread(target=lambda: [box.get("/2/users", ids=1) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert box.api.statuses() == {200: 100, 429: 100}


def test_a_daily_limit_is_told_and_kept() -> None:
    box = sandbox(tokens=[TokenSpec(BEARER, day_limits={at.USERS: 1})])
    box.get("/2/users", ids=1)
    refused = box.get("/2/users", ids=1)

    assert (refused.status, refused.headers["x-rate-limit-remaining"]) == (429, "299")
    assert refused.headers["x-app-limit-24hour-limit"] == "1"
    assert refused.headers["x-app-limit-24hour-remaining"] == "0"
    assert 0 < int(refused.headers["x-app-limit-24hour-reset"]) - NOW <= DAY


def test_an_unknown_token_gets_no_rate_limit_headers() -> None:
    refused = sandbox().get("/2/users", bearer="nobody's", ids=1)

    assert refused.status == 401
    assert not [name for name in refused.headers if name.startswith("x-rate-limit")]


def test_a_token_can_die_and_can_be_capped() -> None:
    tokens = [TokenSpec("mortal", dies_after=2), TokenSpec("poor", post_cap=5)]
    box = sandbox(AccountSpec("author", tweets=50), tokens=tokens)
    path = f"/2/users/{box.id_of('author')}/tweets"

    assert [box.get(path, bearer="mortal").status for _ in range(3)] == [200, 200, 401]
    assert [box.get(path, bearer="poor", max_results=5).status for _ in range(2)] == [200, 429]
    capped = box.get(path, bearer="poor")
    assert json.loads(capped.body)["type"].endswith("/usage-capped")
    assert (capped.headers["x-rate-limit-limit"], capped.headers["x-rate-limit-remaining"]) == ("40000", "39999")


def test_the_date_is_that_of_the_server() -> None:
    headers = sandbox(clock_skew_s=120.0).get("/2/users", ids=1).headers

    assert parsedate_to_datetime(headers["date"]).timestamp() == NOW + 120


# Vocabularies


def test_post_fields_are_answered_in_the_new_names() -> None:
    box = sandbox(AccountSpec("mixed", tweets=200, kinds={"retweet": 1, "quote": 1}))
    page = box.timeline(
        "mixed", max_results=100, post__fields="public_metrics,note_post", expansions="referenced_posts,author_id"
    )

    assert page["includes"].keys() == {"users", "posts"}
    assert "repost_count" in page["data"][0]["public_metrics"]
    assert page["data"][0].keys() >= {"edit_history_post_ids", "referenced_posts", "author_id"}
    assert any("note_post" in post for post in page["includes"]["posts"])
    assert "tweet" not in json.dumps([list(post) for post in page["data"]])


@pytest.mark.parametrize(("vocabulary", "host"), [("tweet", "api.twitter.com"), ("post", "api.x.com")])
def test_partial_errors_carry_the_host_of_the_vocabulary_that_was_asked_for(vocabulary: str, host: str) -> None:
    box = sandbox(AccountSpec("mixed", tweets=200, kinds={"reply": 1}))
    asked = {f"{vocabulary}__fields": "id"}
    bodies = [
        box.json("/2/users/by", usernames="nasa,missing_one,suspended_one", **asked),
        box.json("/2/users/12", **asked),
        *(box.timeline(name, **asked) for name in ("suspended_one", "protected_one")),
        box.timeline("mixed", max_results=100, expansions=REFERENCED[vocabulary], **asked),
        box.json("/2/tweets", ids="20", **asked),
    ]

    assert [{error["type"].partition("/2/")[0] for error in body["errors"]} for body in bodies] == [
        {f"https://{host}"}
    ] * 6


# Faults


def faulty(*script: FaultKind | None, tweets: int = 100, **options: Any) -> Sandbox:
    return sandbox(AccountSpec("author", tweets=tweets), faults=Faults(script=script, **options), limits=LOTS)


@pytest.mark.parametrize("fault", ["short_page", "empty_page", "duplicates"])
@pytest.mark.parametrize("rate", [0.2, 0.6])
def test_pages_that_are_cut_otherwise_lose_nothing(fault: FaultKind, rate: float) -> None:
    box = sandbox(AccountSpec("author", tweets=600), faults=Faults(3, {fault: rate}), limits=LOTS)

    ids = box.walk("author", max_results=20)

    assert list(dict.fromkeys(ids)) == box.world.served_ids("author")
    assert {record.faults for record in box.api.calls} == {frozenset(), frozenset({fault})}


def test_a_short_page_has_a_token_and_an_empty_answer_none() -> None:
    box = faulty("short_page", "empty_page", "empty_answer")
    short, empty, nothing = (box.timeline("author", max_results=50) for _ in range(3))

    assert 0 < short["meta"]["result_count"] < 50
    assert "next_token" in short["meta"]
    assert empty == {"meta": {"result_count": 0, "next_token": empty["meta"]["next_token"]}}
    assert nothing == {"meta": {"result_count": 0}}


def test_an_out_of_order_page_has_all_its_tweets() -> None:
    box = faulty("out_of_order")
    ids = ids_of(box.timeline("author", max_results=20))

    assert ids != sorted(ids, reverse=True)
    assert sorted(ids, reverse=True) == box.world.tweet_ids("author")[:20]


def test_duplicates_come_at_the_seam_of_two_pages() -> None:
    box = faulty(None, "duplicates")
    first = box.timeline("author", max_results=20)
    second = box.timeline("author", max_results=20, pagination_token=first["meta"]["next_token"])

    assert ids_of(second)[0] == ids_of(first)[-1]


def test_odd_pages_of_several_kinds_at_once_lose_nothing_and_never_stand_still() -> None:
    odd: list[FaultKind] = ["short_page", "empty_page", "duplicates", "out_of_order", "no_rate_headers"]
    box = sandbox(AccountSpec("author", tweets=600), faults=Faults(3, dict.fromkeys(odd, 0.4)), limits=LOTS)

    ids = box.walk("author", max_results=5)

    assert sorted(set(ids), reverse=True) == box.world.served_ids("author")
    assert max(len(record.faults) for record in box.api.calls) >= 4
    assert max(record.result_count for record in box.api.calls) == 5


def test_each_kind_strikes_as_often_as_it_is_said_to_and_a_call_fails_in_one_way() -> None:
    faults = Faults(seed=5, rates=dict.fromkeys(KINDS, 0.1))
    struck = [faults.next_mishap(at.USERS)[0].kinds for _ in range(4000)]
    counted = Counter(kind for kinds in struck for kind in kinds)

    assert all(len(kinds.intersection(FAILURES)) <= 1 for kinds in struck)
    assert all(0.08 < counted[kind] / 4000 < 0.12 for kind in set(KINDS) - set(FAILURES))
    # Where several failures come up only one can be seen: 1 - 0.9 ** 17 = 0.83 of all calls fail, each way as often.
    failed = sum(counted[kind] for kind in FAILURES)
    assert 0.80 < failed / 4000 < 0.86
    assert all(0.035 < counted[kind] / 4000 < 0.065 for kind in FAILURES)


def test_an_empty_page_has_another_token_than_the_one_it_was_asked_with() -> None:
    box = faulty(None, "empty_page", "empty_page")
    tokens = [box.timeline("author", max_results=20)["meta"]["next_token"]]
    for _ in range(2):
        tokens.append(box.timeline("author", max_results=20, pagination_token=tokens[-1])["meta"]["next_token"])
    page = box.timeline("author", max_results=20, pagination_token=tokens[-1])

    assert len(set(tokens)) == 3
    assert ids_of(page) == box.world.served_ids("author")[20:40]


def test_a_scripted_answer_goes_out_as_it_is_with_no_headers_of_limits_but_its_own() -> None:
    raw = RawAnswer(429, b'{"title": "as scripted"}', {"x-rate-limit-limit": "40000", "content-type": "text/plain"})
    box = sandbox(AccountSpec("author", tweets=5), faults=Faults(script=[raw]), limits=LOTS)
    answer, after = (box.get("/2/users", ids=1) for _ in range(2))

    assert (answer.status, answer.body) == (429, b'{"title": "as scripted"}')
    assert {name for name in answer.headers if "rate-limit" in name} == {"x-rate-limit-limit"}
    assert answer.headers["content-type"] == "text/plain"
    assert (after.status, box.api.statuses()) == (200, {429: 1, 200: 1})


@pytest.mark.parametrize("fault", ["500", "502", "503", "504"])
def test_server_faults_have_their_status(fault: FaultKind) -> None:
    assert faulty(fault).get("/2/users", ids=1).status == int(fault)


def test_html_bare_refusals_and_missing_headers() -> None:
    box = faulty("html_200", "html_5xx", "bare_429", "no_rate_headers")
    answers = [box.get("/2/users", ids=1) for _ in range(4)]

    assert [answer.status for answer in answers] == [200, 503, 429, 200]
    assert all("x-rate-limit-reset" not in answer.headers for answer in answers)
    assert answers[0].body.startswith(b"<!DOCTYPE html>")
    assert json.loads(answers[3].body)


@pytest.mark.parametrize(
    ("fault", "error"),
    [("reset", httpx.ReadError), ("cut", httpx.RemoteProtocolError), ("timeout", httpx.ReadTimeout)],
)
def test_the_connection_can_fail_in_process(fault: FaultKind, error: type[httpx.TransportError]) -> None:
    box = faulty(fault)
    client = httpx.Client(transport=box.api.transport(), base_url="http://sandbox")

    with pytest.raises(error):
        client.get("/2/users", params={"ids": "1"}, headers={"authorization": f"Bearer {BEARER}"})


def test_an_answer_slower_than_the_client_waits_is_a_timeout() -> None:
    box = faulty(latency_s=30.0)
    slept: list[float] = []
    client = httpx.Client(transport=box.api.transport(sleep=slept.append), base_url="http://sandbox", timeout=60)
    headers = {"authorization": f"Bearer {BEARER}"}
    client.get("/2/users?ids=1", headers=headers)

    with pytest.raises(httpx.ReadTimeout):
        client.get("/2/users?ids=1", headers=headers, timeout=5)

    assert slept == [30.0]


def test_late_tweets_appear_late_and_below_others() -> None:
    box = sandbox(AccountSpec("author", tweets=0), faults=Faults(late_rate=0.5, late_s=20))
    ids = [box.world.post("author", text=f"{number}", at=NOW + number) for number in range(10)]
    box.clock.now += 10
    early = ids_of(box.timeline("author"))
    box.clock.now += 20

    assert 0 < len(early) < 10
    assert ids_of(box.timeline("author")) == ids[::-1]


def test_tweets_are_visible_after_the_delay() -> None:
    box = sandbox(AccountSpec("author", tweets=0), visibility_delay_s=10)
    tweet_id = box.world.post("author", text="fresh")

    assert box.timeline("author") == {"meta": {"result_count": 0}}
    box.clock.now += 10
    assert ids_of(box.timeline("author")) == [tweet_id]


# Accounting


def test_a_post_is_billed_once_a_utc_day() -> None:
    box = sandbox(AccountSpec("author", tweets=20))
    for _ in range(3):
        box.timeline("author", max_results=10)
    same_day = box.api.posts_billed()
    box.clock.now += DAY
    box.timeline("author", max_results=10)

    assert (same_day, box.api.posts_billed()) == (10, 20)
    box.api.reset_accounting()
    assert (box.api.posts_billed(), len(box.api.calls)) == (0, 0)


def test_every_call_is_on_record() -> None:
    box = sandbox(AccountSpec("author", tweets=20), record_ids=True)
    box.timeline("author", max_results=10)
    record = box.api.calls[-1]

    assert (record.token, record.endpoint, record.status, record.result_count) == (0, at.USER_TWEETS, 200, 10)
    assert list(record.ids) == box.world.tweet_ids("author")[:10]


def test_no_token_is_shown_in_a_repr() -> None:
    assert BEARER not in repr(TokenSpec(BEARER))


def test_a_page_that_was_kept_is_still_the_truth_after_a_change() -> None:
    box = sandbox(AccountSpec("author", tweets=20))
    ids = box.world.tweet_ids("author")
    for _ in range(2):
        assert ids_of(box.timeline("author", max_results=10, until_id=ids[5])) == ids[6:16]
    box.world.delete(ids[7])

    assert ids_of(box.timeline("author", max_results=10, until_id=ids[5])) == [ids[6], *ids[8:17]]
