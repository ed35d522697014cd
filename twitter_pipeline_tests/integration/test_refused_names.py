"""Fields, expansions and parameters that X does not know any more, over the sandbox and a real database."""

import json

import pytest

from twitter_pipeline.alerting import Told, find_troubles, tell
from twitter_pipeline.requested_fields import RequestedFields, brings_users
from twitter_pipeline.sandbox.windows import SEARCH_RECENT, USER_TWEETS, USERS_BY
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.alerts import load_open_alerts
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.refused_names import load_refusals
from twitter_pipeline.words import AccountOutcome
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.fields import TWEET_FIELDS, FieldName
from twitter_pipeline_tests.integration.conftest import MakePipeline, Pipeline, account, outcomes, quiet

DAY_LATER = "UPDATE refused_names SET again_at = now() - interval '1 second'"


def refused(pipeline: Pipeline, endpoint: str | None = None) -> int:
    """Count the calls that X refused since the last time, and forget them."""
    calls = [call for call in pipeline.sandbox.api.calls if call.status == 400 and endpoint in (None, call.endpoint)]
    pipeline.sandbox.api.reset_accounting()
    return len(calls)


def names(database: Database) -> set[str]:
    return {str(each.name) for each in load_refusals(database)}


@pytest.mark.parametrize("unknown", ["card_uri", "geo.place_id", "verified_type", "poll.fields", "alt_text"])
def test_a_name_is_left_out_for_all_accounts_after_one_refusal(make_pipeline: MakePipeline, unknown: str) -> None:
    accounts = [f"account_{number}" for number in range(6)]
    pipeline = make_pipeline(*(quiet(name, 60) for name in accounts), concurrency=16, unknown_names=[unknown])

    report = pipeline.run(*accounts)

    assert set(outcomes(report).values()) == {AccountOutcome.DONE}
    assert [len(pipeline.stored(name)) for name in accounts] == [60] * 6
    assert refused(pipeline) == 1
    assert any(unknown in name for name in names(pipeline.database))
    pipeline.run(*accounts)
    assert refused(pipeline) == 0


def test_several_names_cost_a_refusal_at_each_endpoint_and_no_more(make_pipeline: MakePipeline) -> None:
    unknown = ["card_uri", "lang", "note_tweet", "note_post", "attachments.poll_ids", "verified_type", "affiliation"]
    pipeline = make_pipeline(quiet("alpha", 60), quiet("beta", 60), concurrency=16, unknown_names=unknown)

    pipeline.run("alpha", "beta")

    assert len(pipeline.stored("alpha")) == len(pipeline.stored("beta")) == 60
    assert refused(pipeline, USER_TWEETS) == 2
    assert {"lang in tweet.fields", "note_post in tweet.fields"} <= names(pipeline.database)


def test_what_x_takes_again_is_requested_again_a_day_later_by_one_call(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("alpha", 30), quiet("beta", 30), quiet("gamma", 30), unknown_names=["lang"])
    pipeline.run("alpha")
    refused(pipeline)

    pipeline.database.execute(DAY_LATER)
    pipeline.run("beta")
    assert refused(pipeline) == 1

    pipeline.sandbox.api.unknown_names.clear()
    pipeline.run("gamma")
    assert names(pipeline.database) == {"lang in tweet.fields"}
    pipeline.database.execute(DAY_LATER)
    pipeline.sandbox.world.post("gamma", text="new", at=pipeline.sandbox.world.clock() - 600)
    pipeline.run("gamma")
    assert refused(pipeline) == 0
    assert names(pipeline.database) == set()


def test_where_only_the_post_vocabulary_is_taken_tweets_are_stored_whole(make_pipeline: MakePipeline) -> None:
    old = make_pipeline(quiet("alpha", 200))
    old.run("alpha")
    columns = "id, author_id, created_at, text, kind, lang, retweeted_tweet_id, quoted_tweet_id, in_reply_to_tweet_id"
    rows = f"SELECT {columns}, like_count, retweet_count FROM tweets ORDER BY id"
    expected = old.database.execute(rows)  # pyright: ignore[reportArgumentType]
    old.database.execute("DELETE FROM tweets")
    old.database.execute("UPDATE user_state SET covered = '{}'")
    old.sandbox.api.posts_only = True
    old.sandbox.api.reset_accounting()

    report = old.run("alpha")

    assert old.database.execute(rows) == expected  # pyright: ignore[reportArgumentType]
    assert account(report).outcome is AccountOutcome.DONE
    assert refused(old, USER_TWEETS) <= 3
    assert brings_users(old.database, Endpoint.USER_TWEETS)
    # The author of all pages, who is billed once.
    assert old.database.execute("SELECT sum(billed_users) FROM api_calls WHERE endpoint = %s", [USER_TWEETS]) == [(1,)]


def test_tweets_are_not_stored_without_their_time(make_pipeline: MakePipeline) -> None:
    accounts = [f"account_{number}" for number in range(5)]
    pipeline = make_pipeline(*(quiet(name, 20) for name in accounts), concurrency=1, unknown_names=["created_at"])

    report = pipeline.run(*accounts)

    assert set(outcomes(report).values()) == {AccountOutcome.FAILED}
    assert "tweets would come without their time" in (account(report, accounts[-1]).reason or "")
    assert refused(pipeline, USER_TWEETS) == 1
    pipeline.sandbox.api.unknown_names.clear()
    pipeline.database.execute(DAY_LATER)
    assert set(outcomes(pipeline.run(*accounts)).values()) == {AccountOutcome.DONE}


def test_another_complaint_of_x_fails_the_account_and_changes_no_request(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("alpha", 20))

    report = pipeline.run("alpha", page_size=4)

    assert account(report).outcome is AccountOutcome.FAILED
    assert "is not between 5 and 100" in (account(report).reason or "")
    assert refused(pipeline) == 1
    assert names(pipeline.database) == set()


def test_an_alert_says_once_what_x_does_not_know_and_once_that_it_does(make_pipeline: MakePipeline) -> None:
    database, settings = (pipeline := make_pipeline(quiet("alpha", 30), posts_only=True)).database, Settings()
    pipeline.run("alpha")
    begun = [told for _ in range(2) for told in look(database, settings).begun]
    pipeline.sandbox.api.posts_only = False
    database.execute("DELETE FROM refused_names")
    ended = [told for _ in range(2) for told in look(database, settings).ended]

    (vocabulary,) = [message for message in begun if message.startswith("X does not know tweet.fields since")]
    assert "post.fields is requested in its place" in vocabulary
    (lost,) = [message for message in begun if message.startswith("X does not know affiliation in user.fields since")]
    assert "what it brings is not stored" in lost
    assert len(set(begun)) == len(begun) == len(ended)
    assert any(message.startswith("X takes tweet.fields again; it did not from") for message in ended)


def look(database: Database, settings: Settings) -> Told:
    open_alerts = load_open_alerts(database)
    return tell(database, settings, find_troubles(database, settings, open_alerts), open_alerts)


def test_two_processes_do_not_try_the_same_name_at_once(database: Database) -> None:
    fields = RequestedFields(database)
    database.execute(
        "INSERT INTO refused_names (endpoint, parameter, name, message, again_at) VALUES (%s, %s, 'lang', '', now())",
        [SEARCH_RECENT, "tweet.fields"],
    )

    tried = [RequestedFields(database).at(Endpoint.SEARCH_RECENT).tried for _ in range(3)]

    assert tried == [{FieldName("tweet.fields", "lang")}, frozenset(), frozenset()]
    assert fields.at(Endpoint.USER_TWEETS).parameters["tweet.fields"] == TWEET_FIELDS
    assert "lang" not in json.dumps(fields.at(Endpoint.SEARCH_RECENT).parameters["tweet.fields"])
    assert USERS_BY not in {each.endpoint for each in load_refusals(database)}
