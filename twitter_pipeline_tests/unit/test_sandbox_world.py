"""The made-up world: the same by seed, going on with the clock, changed only by what a test does to it."""

import time
from bisect import bisect_left
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twitter_pipeline.sandbox.accounts import AccountSpec, Kind, key_of, user_id_of
from twitter_pipeline.sandbox.cadence import between, endless
from twitter_pipeline.sandbox.snowflakes import created_ms_of, tweet_id_at
from twitter_pipeline.sandbox.world import World, count_below

NOW = 1_795_000_000.0
DAY = 86_400.0
MENTIONED = {"mentions": "username", "hashtags": "tag", "urls": "url"}


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


def test_the_same_seed_gives_the_same_world() -> None:
    one, other = World(3, clock=Clock()), World(3, clock=Clock())

    assert one.user("nasa") == other.user("nasa")
    assert one.tweet_ids("nasa") == other.tweet_ids("nasa")
    assert one.tweet(one.tweet_ids("nasa")[5]) == other.tweet(other.tweet_ids("NASA")[5])


def test_another_seed_gives_another_world() -> None:
    assert World(3, clock=Clock()).tweet_ids("nasa") != World(4, clock=Clock()).tweet_ids("nasa")


def test_a_world_that_was_started_later_has_the_same_tweets() -> None:
    clock = Clock()
    before = World(3, clock=clock, started_at=NOW, accounts=[AccountSpec("busy", tweets=50, tweets_per_day=100)])
    clock.now += 10 * DAY
    after = World(3, clock=clock, started_at=NOW, accounts=[AccountSpec("busy", tweets=50, tweets_per_day=100)])

    for name in ("nasa", "busy"):
        assert before.tweet_ids(name) == after.tweet_ids(name)


def test_an_id_leads_to_its_account_in_a_world_that_never_heard_the_name() -> None:
    user_id = user_id_of(3, "elonmusk")

    account = World(3, clock=Clock()).account_with(user_id)

    assert account is not None
    assert account.key == "elonmusk"


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=11), st.integers(0, 2**32))
@settings(deadline=None)
def test_short_names_can_be_read_from_their_ids(name: str, seed: int) -> None:
    assert key_of(seed, user_id_of(seed, name)) == name


@pytest.mark.parametrize("tweets", [0, 1, 2, 49, 3_200, 6_000])
def test_a_configured_account_has_exactly_its_tweets_and_no_more_later(tweets: int) -> None:
    clock = Clock()
    world = World(1, clock=clock, accounts=[AccountSpec("exact", tweets=tweets)])
    clock.now += 365 * DAY

    ids = world.tweet_ids("exact")

    assert len(ids) == tweets
    assert len(set(ids)) == tweets
    assert ids == sorted(ids, reverse=True)


def test_an_account_goes_on_at_its_rate() -> None:
    clock = Clock()
    world = World(1, clock=clock, accounts=[AccountSpec("lively", tweets=10, tweets_per_day=24)])
    earlier = world.tweet_ids("lively")
    clock.now += 10 * DAY

    later = world.tweet_ids("lively")

    assert len(earlier) == 10
    assert len(later) == 250
    assert later[-10:] == earlier
    assert world.tweet_ids("lively", at=NOW) == earlier


def test_no_two_tweets_of_the_world_share_an_id() -> None:
    world = World(1, clock=Clock())
    names = [f"account_{number}" for number in range(60)]

    ids = [tweet_id for name in names for tweet_id in world.tweet_ids(name)]

    assert len(set(ids)) == len(ids) > 10_000


def test_natural_accounts_have_few_or_many_tweets() -> None:
    world = World(1, clock=Clock())

    counts = sorted(len(world.tweet_ids(f"account_{number}")) for number in range(200))

    assert counts[0] < 100
    assert 100 < counts[100] < 1_500
    assert 3_200 < counts[-1] < 10_000


@pytest.mark.parametrize(("name", "availability"), [("protected_x", "protected"), ("suspended_x", "suspended")])
def test_prefixes_make_special_accounts(name: str, availability: str) -> None:
    account = World(1, clock=Clock()).account_named(name)

    assert account is not None
    assert account.availability == availability


def test_missing_and_quiet_accounts() -> None:
    world = World(1, clock=Clock())

    assert world.user("missing_x") is None
    assert world.tweet_ids("quiet_x") == []
    assert len(world.served_ids("busy_x")) == 3_200


def test_every_surface_says_that_it_is_made_up() -> None:
    world = World(1, clock=Clock())
    user = world.user("nasa")
    assert user is not None

    assert user["name"].endswith("(sandbox)")
    assert "Made-up account of the sandbox" in user["description"]


def test_tweets_carry_their_id_and_time() -> None:
    world = World(1, clock=Clock())

    for tweet_id in world.tweet_ids("nasa")[:50]:
        tweet = world.tweet(tweet_id)
        assert tweet is not None
        moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(created_ms_of(tweet_id) // 1000))
        assert (tweet["id"], tweet["created_at"]) == (str(tweet_id), moment)


def test_entities_stand_where_they_say_counted_in_code_points() -> None:
    kinds: dict[Kind, float] = {"original": 1.0, "reply": 1.0, "retweet": 1.0, "quote": 1.0}
    world = World(1, clock=Clock(), accounts=[AccountSpec("mixed", tweets=1_500, kinds=kinds)])
    seen: set[str] = set()
    for tweet_id in world.tweet_ids("mixed"):
        tweet = world.tweet(tweet_id)
        assert tweet is not None
        for text, entities in (
            (tweet["text"], tweet.get("entities", {})),
            (tweet.get("note_tweet", {}).get("text"), tweet.get("note_tweet", {}).get("entities", {})),
        ):
            for kind, found in entities.items():
                for entity in found:
                    seen.add(kind)
                    marked = text[entity["start"] : entity["end"]].lstrip("#@")
                    assert marked == entity[MENTIONED[kind]]
    assert seen == {"mentions", "hashtags", "urls"}


def test_the_world_has_all_that_a_reader_must_cope_with() -> None:
    world = World(1, clock=Clock(), accounts=[AccountSpec("mixed", tweets=2_000)])
    tweets = [tweet for tweet_id in world.tweet_ids("mixed") if (tweet := world.tweet(tweet_id))]
    texts = [tweet["text"] for tweet in tweets]

    assert any(len(tweet.get("note_tweet", {}).get("text", "")) > 280 for tweet in tweets)
    assert all(len(text) <= 280 for text in texts)
    assert any("&amp;" in text for text in texts)
    assert any("صباح" in text for text in texts)
    assert any(len(tweet["edit_history_tweet_ids"]) > 1 for tweet in tweets)
    assert any("poll_ids" in tweet.get("attachments", {}) for tweet in tweets)
    assert any("media_keys" in tweet.get("attachments", {}) for tweet in tweets)
    assert any("place_id" in tweet.get("geo", {}) for tweet in tweets)
    types = {reference["type"] for tweet in tweets for reference in tweet.get("referenced_tweets", [])}
    assert types == {"retweeted", "quoted", "replied_to"}


def test_a_posted_tweet_is_there_from_its_instant_on() -> None:
    clock = Clock()
    world = World(1, clock=clock, accounts=[AccountSpec("author", tweets=5)])
    tweet_id = world.post("author", text="fresh", at=NOW + 10)

    assert tweet_id not in world.tweet_ids("author")
    clock.now += 10
    assert world.tweet_ids("author")[0] == tweet_id
    tweet = world.tweet(tweet_id)
    assert tweet is not None
    assert tweet["text"] == "fresh"


def test_two_tweets_posted_at_one_instant_are_two() -> None:
    world = World(1, clock=Clock(), accounts=[AccountSpec("author", tweets=0)])

    ids = [world.post("author", text=f"number {number}", at=NOW - 5) for number in range(3)]

    assert world.tweet_ids("author") == ids[::-1]


def test_a_deleted_tweet_is_gone_from_then_on() -> None:
    clock = Clock()
    world = World(1, clock=clock, accounts=[AccountSpec("author", tweets=5)])
    before = world.tweet_ids("author")
    clock.now += 60
    world.delete(before[2])

    assert world.tweet_ids("author") == before[:2] + before[3:]
    assert world.tweet_ids("author", at=NOW) == before
    assert world.tweet(before[2]) is None


def test_a_renamed_account_keeps_its_id_and_leaves_its_name_to_nobody() -> None:
    world = World(1, clock=Clock())
    before = world.user("alice")
    assert before is not None
    world.rename("alice", "alice_new")
    after = world.user("ALICE_new")
    assert after is not None

    assert (after["id"], after["username"]) == (before["id"], "alice_new")
    assert world.user("alice") is None


def test_a_name_can_pass_to_another_account() -> None:
    world = World(1, clock=Clock())
    alice, bob = world.user("alice"), world.user("bob")
    world.rename("alice", "alice_new")
    world.rename("bob", "alice")
    holder = world.user("alice")
    assert alice
    assert bob
    assert holder

    assert holder["id"] == bob["id"] != alice["id"]


def test_a_rename_can_be_planned() -> None:
    clock = Clock()
    world = World(1, clock=clock, accounts=[AccountSpec("old", tweets=3, rename_to="new", renamed_at=NOW + 60)])
    assert world.user("old")
    clock.now += 60
    renamed = world.user("new")
    assert renamed

    assert renamed["username"] == "new"
    assert world.user("old") is None


def test_availability_can_change() -> None:
    world = World(1, clock=Clock())
    world.set_availability("nasa", "missing")
    assert world.user("nasa") is None
    world.set_availability("nasa", "active")
    assert world.user("nasa") is not None


@given(st.integers(0, 2**63), st.integers(1, 5_000), st.integers(40, 10**9), st.data())
@settings(max_examples=60, deadline=None)
def test_counting_instants_agrees_with_listing_them(seed: int, count: int, step: int, data: st.DataObject) -> None:
    cadence = between(seed, 1_000_000, 1_000_000 + step * count, count)
    number = data.draw(st.integers(0, count - 1))
    moment = cadence.at(number)

    assert cadence.count_until(moment) == number + 1
    assert cadence.count_until(moment - 1) == number
    assert cadence.count_until(10**15) == count


def test_a_rate_of_nothing_is_silence() -> None:
    assert endless(1, 0, 0.0).count_until(10**15) == 0


@given(st.integers(1_142_899_200_000, 2_500_000_000_000), st.integers(1_142_899_200_000, 2_500_000_000_000))
@settings(deadline=None)
def test_ids_grow_with_time(one: int, other: int) -> None:
    early, late = sorted((one, other))

    assert early // 1000 == late // 1000 or tweet_id_at(early, 77) < tweet_id_at(late, 77)
    assert created_ms_of(tweet_id_at(early, 77)) // 1000 == early // 1000


def test_tweets_from_before_november_2010_have_small_ids() -> None:
    at = 1_230_000_000.0
    spec = AccountSpec("pioneer", tweets=100, first_tweet_at=at, last_tweet_at=at + 500 * DAY)
    world = World(1, clock=Clock(), accounts=[spec])

    ids = world.tweet_ids("pioneer")

    assert max(ids) < 30_000_000_000
    assert ids == sorted(ids, reverse=True)
    assert all(world.tweet(tweet_id) for tweet_id in ids)


def test_ten_thousand_accounts_are_no_burden() -> None:
    started = time.process_time()
    world = World(1, clock=Clock(), accounts=[AccountSpec(f"user_{n}", tweets=3_200) for n in range(10_000)])
    newest = {world.served_ids("user_77")[0], world.served_ids("user_9999")[0]}

    assert len(newest) == 2
    assert time.process_time() - started < 5


@given(st.integers(0, 120), st.integers(-3, 3), st.booleans())
@settings(max_examples=100, deadline=None)
def test_counting_ids_below_one_agrees_with_searching_them(number: int, shift: int, old: bool) -> None:
    first_at = 1_230_000_000.0 if old else NOW - 500 * DAY
    spec = AccountSpec("counted", tweets=100, first_tweet_at=first_at, last_tweet_at=first_at + 400 * DAY)
    world = World(1, clock=Clock(), accounts=[spec])
    account = world.account_named("counted")
    assert account is not None
    ids = world.existing(account)
    bound = account.tweet_id(min(number, 99)) + shift * (1 + 10**9 * (number % 2))

    assert count_below(ids, bound) == bisect_left(list(ids), bound)


@pytest.mark.parametrize("username", ["", "with space", "sixteen_letters_", "käse"])
def test_what_x_would_not_allow_as_a_username_is_no_account(username: str) -> None:
    with pytest.raises(ValueError, match="no username"):
        World(1, clock=Clock()).user(username)
