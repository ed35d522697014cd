"""Names whose profile is of an earlier UTC day: looked up again where X's answers contradict them, and only there."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from twitter_pipeline import calls
from twitter_pipeline.request import FetchMode
from twitter_pipeline.sandbox.faults import Fault, Faults, RawAnswer
from twitter_pipeline.sandbox.windows import USER_TWEETS, USERS, USERS_BY
from twitter_pipeline.words import AccountOutcome
from twitter_pipeline_tests.integration.conftest import MakePipeline, Pipeline, account, outcomes, quiet

FORBIDDEN = RawAnswer(403, b'{"title": "Forbidden", "type": "about:blank"}', {"content-type": "application/json"})
NOT_FOUND = RawAnswer(404, b'{"title": "Not Found", "type": "about:blank"}', {"content-type": "application/json"})

STATE_OF = """
SELECT u.availability::text, s.covered::text, s.is_tracked, (SELECT count(*) FROM tweets WHERE author_id = u.id)
FROM users u JOIN user_state s ON s.user_id = u.id
WHERE u.id = %s
"""


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.001)


def a_day_passes(pipeline: Pipeline) -> None:
    """Make all profiles a day older, and count the calls from now on."""
    pipeline.database.execute("UPDATE users SET profile_read_at = profile_read_at - interval '1 day'")
    pipeline.sandbox.api.reset_accounting()


def made_anew(pipeline: Pipeline) -> int:
    """Have @wanted deleted and the name taken by another account; return the id of the former one."""
    former = pipeline.user_id("wanted")
    pipeline.sandbox.world.set_availability("wanted", "missing")
    pipeline.sandbox.world.rename("heir", "wanted")
    a_day_passes(pipeline)
    return former


def answered(pipeline: Pipeline, answer: Fault | None) -> None:
    """Have all timelines answered so from now on."""
    pipeline.sandbox.api.faults = Faults(script=lambda endpoint, _: answer if endpoint == USER_TWEETS else None)


def calls_of(pipeline: Pipeline) -> dict[str, int]:
    return dict(Counter(call.endpoint for call in pipeline.sandbox.api.calls))


def note_of(pipeline: Pipeline, former: int) -> str:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return (
        f"the name has changed hands since {yesterday:%Y-%m-%d}: it belongs to the account with id "
        f"{pipeline.user_id('wanted')} now; what was stored before is of id {former}"
    )


def test_a_name_that_nothing_contradicts_is_not_looked_up_again(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("wanted", 60), quiet("empty", 0))
    pipeline.run("wanted", "empty", mode=FetchMode(10))
    a_day_passes(pipeline)
    report = pipeline.run("wanted", "empty")

    assert (calls_of(pipeline), report.billed_users) == ({USER_TWEETS: 3}, 0)
    pipeline.assert_all_is_there("wanted", "empty")


def test_an_account_that_was_made_anew_under_its_name_is_fetched_by_the_same_run(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("wanted", 60), quiet("heir", 20))
    pipeline.run("wanted")
    former = made_anew(pipeline)
    before = pipeline.database.execute(STATE_OF, (former,))
    report = pipeline.run("wanted")
    known = pipeline.database.execute("SELECT username FROM users WHERE id = %s", (former,))

    pipeline.assert_all_is_there("wanted")
    found = account(report)
    assert (found.outcome, found.user_id, found.tweets_new, found.tweets_stored, found.calls) == (
        AccountOutcome.DONE,
        pipeline.user_id("wanted"),
        20,
        20,
        2,
    )
    assert found.reason == note_of(pipeline, former)
    assert (calls_of(pipeline), report.billed_users) == ({USER_TWEETS: 2, USERS_BY: 1}, 1)
    assert (pipeline.database.execute(STATE_OF, (former,)), known) == (before, [(None,)])


def test_the_new_holder_of_a_name_is_tracked_and_the_watch_of_the_former_one_is_told(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(quiet("wanted", 60), quiet("heir", 20))
    pipeline.run("wanted", track=True)
    former = made_anew(pipeline)
    report = pipeline.run("wanted", track=True)

    stays = ", which stays tracked; the weekly check looks up its present name"
    assert account(report).reason == note_of(pipeline, former) + stays
    tracked = pipeline.database.execute("SELECT user_id FROM user_state WHERE is_tracked ORDER BY tracked_since")
    assert tracked == [(former,), (pipeline.user_id("wanted"),)]


@pytest.mark.parametrize("answer", [FORBIDDEN, NOT_FOUND], ids=["403", "404"])
def test_a_timeline_that_is_refused_has_the_name_looked_up_once_a_day(
    make_pipeline: MakePipeline, answer: RawAnswer
) -> None:
    pipeline = make_pipeline(quiet("wanted", 60))
    pipeline.run("wanted", mode=FetchMode(10))
    a_day_passes(pipeline)
    answered(pipeline, answer)
    reports = [pipeline.run("wanted"), pipeline.run("wanted")]

    found = [(account(each).outcome, each.billed_users) for each in reports]
    assert found == [(AccountOutcome.FAILED, 1), (AccountOutcome.FAILED, 0)]
    assert calls_of(pipeline)[USERS_BY] == pipeline.sandbox.api.users_billed() == 1


def test_an_empty_timeline_has_the_name_looked_up_once_a_day(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("wanted", 60))
    answered(pipeline, "empty_answer")
    pipeline.run("wanted")
    a_day_passes(pipeline)
    reports = [pipeline.run("wanted"), pipeline.run("wanted")]

    found = [(account(each).outcome, each.billed_users) for each in reports]
    assert found == [(AccountOutcome.PARTIAL, 1), (AccountOutcome.PARTIAL, 0)]
    assert calls_of(pipeline)[USERS_BY] == pipeline.sandbox.api.users_billed() == 1


def test_a_page_that_names_the_account_otherwise_has_the_name_looked_up(make_pipeline: MakePipeline) -> None:
    # In this vocabulary a tweet brings its author.
    pipeline = make_pipeline(quiet("wanted", 120), quiet("heir", 20), posts_only=True)
    pipeline.run("wanted", mode=FetchMode(5))
    former = pipeline.user_id("wanted")
    pipeline.sandbox.world.rename("wanted", "moved")
    pipeline.sandbox.world.rename("heir", "wanted")
    a_day_passes(pipeline)
    report = pipeline.run("wanted")

    pipeline.assert_all_is_there("wanted")
    found = account(report)
    assert (found.outcome, found.user_id, found.reason) == (
        AccountOutcome.DONE,
        pipeline.user_id("wanted"),
        note_of(pipeline, former),
    )
    # What was paid for is kept: the page that showed it.
    assert len(pipeline.stored("moved")) == 50 + 5
    # The author that came along, and the name's holder.
    assert report.billed_users == 2


def test_a_look_up_that_fails_fails_the_account_and_says_nothing_of_it(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("wanted", 60), quiet("other", 5))
    pipeline.run("wanted", "other")
    pipeline.sandbox.world.set_availability("wanted", "missing")
    a_day_passes(pipeline)
    pipeline.sandbox.api.faults = Faults(script=lambda endpoint, _: "500" if endpoint == USERS_BY else None)
    report = pipeline.run("wanted", "other")

    assert outcomes(report) == {"wanted": AccountOutcome.FAILED, "other": AccountOutcome.DONE}
    assert pipeline.database.execute("SELECT DISTINCT availability::text FROM users") == [("active",)]


def test_before_a_second_page_is_bought_the_name_is_looked_up(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("wanted", 200), quiet("same", 200), quiet("heir", 70))
    pipeline.run("wanted", "same", mode=FetchMode(5))
    former = pipeline.user_id("wanted")
    pipeline.sandbox.world.rename("wanted", "moved")
    pipeline.sandbox.world.rename("heir", "wanted")
    a_day_passes(pipeline)
    report = pipeline.run("wanted", "same")

    pipeline.assert_all_is_there("wanted", "same")
    assert {each.username: each.reason for each in report.account_reports} == {
        "same": None,
        "wanted": note_of(pipeline, former),
    }
    assert len(pipeline.stored("moved")) == 50 + 5
    assert (calls_of(pipeline)[USERS_BY], report.billed_users) == (1, 2)
    assert pipeline.sandbox.api.posts_billed() == report.billed_posts == 50 + 70 + 195


@pytest.mark.parametrize(("became", "look_ups"), [("protected", 1), ("suspended", 2), ("missing", 2)])
def test_an_account_that_has_gone_since_is_looked_up_by_name_and_by_id(
    make_pipeline: MakePipeline, became: str, look_ups: int
) -> None:
    pipeline = make_pipeline(quiet("wanted", 60))
    pipeline.run("wanted")
    pipeline.sandbox.world.set_availability("wanted", became)  # pyright: ignore[reportArgumentType]
    a_day_passes(pipeline)
    report = pipeline.run("wanted")

    found = calls_of(pipeline)
    assert account(report).outcome is AccountOutcome.UNAVAILABLE
    assert (found[USER_TWEETS], found[USERS_BY] + found.get(USERS, 0)) == (1, look_ups)


def test_a_name_whose_new_holder_is_suspended_says_nothing_of_the_former_one(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("wanted", 60), quiet("heir", 20))
    pipeline.run("wanted")
    former = made_anew(pipeline)
    pipeline.sandbox.world.set_availability("wanted", "suspended")
    report = pipeline.run("wanted")

    found = account(report)
    assert (found.outcome, found.reason) == (AccountOutcome.UNAVAILABLE, "X has suspended the account")
    assert (found.user_id, found.tweets_stored) == (None, None)
    assert pipeline.database.execute(STATE_OF, (former,))[0][0] == "not_found"
