"""Claims of versions that believed every end: found where they may be wrong, and checked by the next run."""

from datetime import timedelta

import pytest

from twitter_pipeline.coverage import LOWEST_ID, IdRange
from twitter_pipeline.request import FetchMode
from twitter_pipeline.store.claims import DoubtfulClaim, find_doubtful_claims, find_unchecked, open_claims
from twitter_pipeline.store.database import Database
from twitter_pipeline_tests.integration.conftest import MakePipeline, Pipeline, quiet


def claimed_by_an_earlier_version(pipeline: Pipeline, database: Database, *, lacks: slice) -> list[int]:
    """Store an account as two runs of an earlier version left it: the second was cut short, and claimed the rest."""
    pipeline.run("someone")
    lost = pipeline.stored("someone")[lacks]
    database.execute("DELETE FROM tweets WHERE id = ANY (%s)", (lost,))
    database.execute("UPDATE tweets SET first_read_run_id = 77 WHERE id > %s", (lost[0],))
    database.execute("UPDATE user_state SET claims_checked = false")
    return lost


def test_what_lies_between_the_tweets_of_two_runs_is_doubtful(make_pipeline: MakePipeline, database: Database) -> None:
    pipeline = make_pipeline(quiet("someone", 130))
    lost = claimed_by_an_earlier_version(pipeline, database, lacks=slice(50, 70))
    user_id, stored = pipeline.user_id("someone"), pipeline.stored("someone")

    found = find_doubtful_claims(database, [user_id])

    assert found == [
        DoubtfulClaim(user_id, "someone", by_search=False, ids=IdRange(LOWEST_ID, stored[-1])),
        DoubtfulClaim(user_id, "someone", by_search=False, ids=IdRange(stored[50] + 1, stored[49])),
    ]
    assert all(each in found[1].ids for each in lost)


def test_claims_that_are_opened_are_checked_by_the_next_run(make_pipeline: MakePipeline, database: Database) -> None:
    pipeline = make_pipeline(quiet("someone", 130))
    claimed_by_an_earlier_version(pipeline, database, lacks=slice(50, 70))
    user_id = pipeline.user_id("someone")

    open_claims(database, [user_id], find_doubtful_claims(database, [user_id]))
    pipeline.run("someone", profile_max_age=timedelta(0))

    pipeline.assert_all_is_there("someone")
    assert find_unchecked(database) == []
    assert database.execute("SELECT count(*) FROM doubts") == [(0,)]


def test_an_account_of_which_as_many_are_stored_as_x_counts_is_proved(
    make_pipeline: MakePipeline, database: Database
) -> None:
    pipeline = make_pipeline(quiet("someone", 60))
    pipeline.run("someone", mode=FetchMode(20))
    pipeline.run("someone")
    database.execute("UPDATE user_state SET claims_checked = false")

    assert find_unchecked(database) == [pipeline.user_id("someone")]
    assert find_doubtful_claims(database, [pipeline.user_id("someone")]) == []


def test_the_gap_that_a_pinned_tweet_leaves_is_doubtful(make_pipeline: MakePipeline, database: Database) -> None:
    pipeline = make_pipeline(quiet("someone", 130))
    pipeline.run("someone")
    stored = pipeline.stored("someone")
    database.execute("DELETE FROM tweets WHERE id = ANY (%s)", (stored[60:-1],))
    database.execute(
        "UPDATE tweets SET first_read_at = (SELECT min(first_read_at) FROM tweets) WHERE id = %s", (stored[-1],)
    )
    database.execute("UPDATE user_state SET claims_checked = false")

    found = find_doubtful_claims(database, [pipeline.user_id("someone")])

    assert IdRange(stored[-1] + 1, stored[59]) in [each.ids for each in found]


@pytest.mark.parametrize("renamed", [False, True])
def test_of_a_renamed_account_all_that_a_search_has_claimed_is_doubtful(
    make_pipeline: MakePipeline, database: Database, renamed: bool
) -> None:
    pipeline = make_pipeline(quiet("someone", 130))
    pipeline.run("someone")
    user_id, stored = pipeline.user_id("someone"), pipeline.stored("someone")
    database.execute("DELETE FROM tweets WHERE id = %s", (stored[5],))  # so that X's count proves nothing
    database.execute("UPDATE user_state SET searched = covered, covered = '{}', claims_checked = false")
    if renamed:
        database.execute(
            "INSERT INTO user_names (user_id, username, seen_from, seen_until)"
            " VALUES (%s, 'before', '2020-01-01', now())",
            (user_id,),
        )

    found = find_doubtful_claims(database, [user_id])

    everything = DoubtfulClaim(user_id, "someone", by_search=True, ids=IdRange(LOWEST_ID, stored[0] + 1))
    bottom = DoubtfulClaim(user_id, "someone", by_search=True, ids=IdRange(LOWEST_ID, stored[-1]))
    assert found == [everything if renamed else bottom]
