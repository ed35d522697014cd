"""Whole requests over the sandbox and a real database: what is stored, what it cost, what became of each account."""

import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from twitter_pipeline import calls
from twitter_pipeline.budgets import Cost
from twitter_pipeline.coverage import IdRange
from twitter_pipeline.errors import Availability, Interrupted, NoTokenAvailable
from twitter_pipeline.request import FULL, FetchMode
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.faults import FaultKind, Faults, RawAnswer
from twitter_pipeline.sandbox.windows import USER_TWEETS, TokenSpec, TokenState
from twitter_pipeline.store import tokens as store_tokens
from twitter_pipeline.store.costs import Unknown, load_unknown
from twitter_pipeline.store.tokens import load_tokens
from twitter_pipeline.words import AccountOutcome, RunStatus, TokenStatus
from twitter_pipeline_tests.integration.conftest import MakePipeline, Pipeline, account, outcomes, quiet


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(calls, "LONGEST_PAUSE_S", 0.002)
    monkeypatch.setattr(calls, "FIRST_BACK_OFF_S", 0.02)


@pytest.mark.parametrize(
    ("tweets", "pages"), [(0, 1), (1, 1), (49, 1), (50, 1), (51, 2), (3200, 64)], ids=lambda value: str(value)
)
def test_full_takes_the_fewest_calls_and_running_again_pays_for_nothing(
    make_pipeline: MakePipeline, tweets: int, pages: int
) -> None:
    pipeline = make_pipeline(quiet("someone", tweets))
    first = pipeline.run("someone")
    pages_of_first = pipeline.timeline_calls()
    second = pipeline.run("someone")

    pipeline.assert_all_is_there("someone")
    assert (pages_of_first, pipeline.timeline_calls()) == (pages, 1)
    assert (first.status, first.tweets_fetched, first.tweets_new, first.billed_posts) == (
        RunStatus.DONE,
        *[tweets] * 3,
    )
    assert (first.calls, first.billed_users) == (pages + 1, 1)
    assert (second.status, second.calls, second.tweets_fetched, second.billed_posts, second.billed_users) == (
        RunStatus.DONE,
        1,
        0,
        0,
        0,
    )


@pytest.mark.parametrize(("limit", "pages", "kept"), [(1, 1, 5), (7, 1, 7), (50, 1, 50), (51, 2, 51), (200, 4, 200)])
def test_a_limit_takes_the_newest_and_no_more_than_it_needs(
    make_pipeline: MakePipeline, limit: int, pages: int, kept: int
) -> None:
    pipeline = make_pipeline(quiet("someone", 300))
    report = pipeline.run("someone", mode=FetchMode(limit))

    assert pipeline.stored("someone") == pipeline.sandbox.world.served_ids("someone")[:kept]
    assert (report.status, pipeline.timeline_calls()) == (RunStatus.DONE, pages)


def test_a_wider_limit_fetches_only_what_is_missing(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("someone", 300))
    pipeline.run("someone", mode=FetchMode(100))
    report = pipeline.run("someone", mode=FetchMode(150))

    assert pipeline.stored("someone") == pipeline.sandbox.world.served_ids("someone")[:150]
    assert (report.tweets_fetched, report.tweets_new) == (50, 50)


def test_what_lies_beyond_the_reach_is_a_known_hole_and_said_so(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("someone", 3300))
    report = pipeline.run("someone", page_size=100)

    pipeline.assert_all_is_there("someone")
    lowest = pipeline.stored("someone")[-1]
    _, unreachable = pipeline.coverage("someone")
    assert (report.status, unreachable.ranges) == (RunStatus.DONE, (IdRange(1, lowest),))
    assert account(report).reason == (
        "X serves no more than the newest 3,200 tweets; it counts 3,300; the rest is a known hole"
    )


def test_accounts_that_cannot_be_had_are_reported_and_leave_the_others_alone(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("someone", 60))
    report = pipeline.run("protected_one", "suspended_one", "missing_one", "someone")

    pipeline.assert_all_is_there("someone")
    assert report.status is RunStatus.DONE
    assert {each.username: each.reason for each in report.account_reports} == {
        "missing_one": "X knows no account of this name",
        "protected_one": "the account is protected: only its followers can read it",
        "suspended_one": "X has suspended the account",
        "someone": None,
    }


@pytest.mark.parametrize(
    ("became", "kept"),
    [
        ("protected", Availability.PROTECTED),
        ("suspended", Availability.SUSPENDED),
        ("missing", Availability.NOT_FOUND),
    ],
)
def test_an_account_that_goes_away_is_noticed_on_its_timeline_and_again_when_it_is_back(
    make_pipeline: MakePipeline, became: str, kept: Availability
) -> None:
    pipeline = make_pipeline(quiet("someone", 60))
    pipeline.run("someone")
    user_id = pipeline.user_id("someone")
    pipeline.sandbox.world.set_availability("someone", became)  # pyright: ignore[reportArgumentType]
    gone = pipeline.run("someone")
    stored_as = pipeline.database.execute("SELECT availability::text FROM users WHERE id = %s", (user_id,))
    pipeline.sandbox.world.set_availability("someone", "active")
    back = pipeline.run("someone")

    assert (outcomes(gone), stored_as) == ({"someone": AccountOutcome.UNAVAILABLE}, [(kept.value,)])
    assert outcomes(back) == {"someone": AccountOutcome.DONE}


def test_a_renamed_account_keeps_its_tweets_and_is_found_by_its_former_name(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("before", 60))
    pipeline.run("before")
    pipeline.sandbox.world.rename("before", "After")
    report = pipeline.run("before", profile_max_age=timedelta(0))

    pipeline.assert_all_is_there("After")
    assert account(report).reason == "renamed: the account is @After now"
    assert (account(report).outcome, account(report).tweets_fetched) == (AccountOutcome.DONE, 0)


def test_a_recycled_name_belongs_to_its_new_holder_and_that_is_said(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("wanted", 60), quiet("heir", 20))
    pipeline.run("wanted")
    former = pipeline.user_id("wanted")
    pipeline.sandbox.world.rename("wanted", "moved")
    pipeline.sandbox.world.rename("heir", "wanted")
    report = pipeline.run("wanted", profile_max_age=timedelta(0))

    pipeline.assert_all_is_there("wanted", "moved")
    assert account(report).user_id == pipeline.user_id("wanted") != former
    assert account(report).reason == (
        f"the name has changed hands since {datetime.now(UTC):%Y-%m-%d}: it belongs to the account with id "
        f"{pipeline.user_id('wanted')} now; what was stored before is of id {former}"
    )


def test_a_holder_of_a_recycled_name_that_is_suspended_leaves_the_former_one_as_it_is(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(quiet("wanted", 60), quiet("heir", 20))
    pipeline.run("wanted")
    pipeline.sandbox.world.rename("wanted", "moved")
    pipeline.sandbox.world.rename("heir", "wanted")
    pipeline.sandbox.world.set_availability("wanted", "suspended")
    report = pipeline.run("wanted", profile_max_age=timedelta(0))

    assert (account(report).outcome, account(report).reason, account(report).user_id) == (
        AccountOutcome.UNAVAILABLE,
        "X has suspended the account",
        None,
    )
    stored_as = pipeline.database.execute("SELECT username, availability::text FROM users")
    assert stored_as == [("moved", "active")]


def test_an_account_that_fails_fails_alone(make_pipeline: MakePipeline) -> None:
    faults = Faults(script=["503"] * calls.TRIES_ON_FAULT, endpoints=frozenset({USER_TWEETS}))
    pipeline = make_pipeline(quiet("first", 60), quiet("second", 60), faults=faults, concurrency=1)
    report = pipeline.run("first", "second")

    pipeline.assert_all_is_there("second")
    failed = account(report, "first")
    assert (report.status, outcomes(report)["second"]) == (RunStatus.PARTIAL, AccountOutcome.DONE)
    assert (failed.outcome, failed.calls) == (AccountOutcome.FAILED, calls.TRIES_ON_FAULT)
    assert "503" in (failed.reason or "")


def test_a_name_that_could_not_be_looked_up_fails_and_is_not_called_unknown(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("someone", 5), faults=Faults(script=["500"] * calls.TRIES_ON_FAULT))
    report = pipeline.run("someone")

    assert (account(report).outcome, report.status) == (AccountOutcome.FAILED, RunStatus.PARTIAL)


def test_an_account_whose_profile_cannot_be_read_fails_after_one_call_and_says_why(make_pipeline: MakePipeline) -> None:
    user = RawAnswer(200, b'{"data":[{"id":"0","username":"someone"}]}')
    pipeline = make_pipeline(quiet("someone", 5), faults=Faults(script=[user]))
    report = pipeline.run("someone")

    assert (account(report).outcome, report.calls) == (AccountOutcome.FAILED, 1)
    assert "Unreadable user" in (account(report).reason or "")


@pytest.fixture
def tested_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the call after a refusal decide."""
    monkeypatch.setattr(store_tokens, "SUSPENDED_S", 0.0)


@pytest.mark.usefixtures("tested_at_once")
def test_when_a_token_dies_another_one_goes_on(make_pipeline: MakePipeline) -> None:
    tokens = [TokenSpec("first", dies_after=4), TokenSpec("second", window_offset_s=1.0)]
    pipeline = make_pipeline(quiet("someone", 500), tokens=tokens)
    report = pipeline.run("someone")

    pipeline.assert_all_is_there("someone")
    states = {token.env_key: token.status for token in load_tokens(pipeline.database)}
    assert report.status is RunStatus.DONE
    assert states == {"TWITTER_BEARER_1": TokenStatus.INVALID, "TWITTER_BEARER_2": TokenStatus.ACTIVE}


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("invalid", TokenStatus.INVALID),
        ("not_enrolled", TokenStatus.REVOKED),
        ("suspended_app", TokenStatus.REVOKED),
        ("capped", TokenStatus.CAPPED),
        ("credits", TokenStatus.CAPPED),
        ("spend_cap", TokenStatus.CAPPED),
    ],
)
@pytest.mark.usefixtures("tested_at_once")
def test_without_a_usable_token_the_error_says_at_once_how_each_stands(
    make_pipeline: MakePipeline, state: TokenState, status: TokenStatus
) -> None:
    pipeline = make_pipeline(tokens=[TokenSpec("first", state=state), TokenSpec("second", state=state)])
    began = time.monotonic()
    with pytest.raises(NoTokenAvailable) as raised:
        pipeline.run("someone")

    states = load_tokens(pipeline.database)
    assert time.monotonic() - began < 5
    assert [token.status for token in states] == [status] * 2
    assert all(str(token) in str(raised.value) for token in states)
    assert all(token.until is not None for token in states)


@pytest.mark.usefixtures("tested_at_once")
def test_when_the_last_token_dies_what_was_fetched_is_stored(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(
        quiet("first", 500), quiet("second", 500), tokens=[TokenSpec("only", dies_after=5)], concurrency=1
    )
    with pytest.raises(NoTokenAvailable):
        pipeline.run("first", "second")

    report = pipeline.report()
    assert len(pipeline.stored("first")) == 200
    assert outcomes(report) == dict.fromkeys(("first", "second"), AccountOutcome.FAILED)
    assert (report.calls, report.tweets_new, report.billed_posts) == (7, 200, 200)


def test_a_capped_token_leaves_the_work_to_the_others(make_pipeline: MakePipeline) -> None:
    tokens = [TokenSpec("first", post_cap=120), TokenSpec("second", window_offset_s=1.0)]
    pipeline = make_pipeline(quiet("someone", 500), tokens=tokens)
    pipeline.run("someone")

    pipeline.assert_all_is_there("someone")
    assert [token.status for token in load_tokens(pipeline.database)] == [TokenStatus.CAPPED, TokenStatus.ACTIVE]


def test_a_run_that_is_stopped_keeps_what_it_has_and_the_next_fetches_the_rest(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("first", 300), quiet("second", 300), concurrency=1)
    object.__setattr__(pipeline.sandbox.api.faults, "script", lambda _, number: number == 4 and pipeline.stop.set())
    with pytest.raises(Interrupted):
        pipeline.run("first", "second")
    stopped = pipeline.report()
    object.__setattr__(pipeline.sandbox.api.faults, "script", None)
    second = pipeline.run("first", "second")

    pipeline.assert_all_is_there("first", "second")
    assert (stopped.status, set(outcomes(stopped).values())) == (RunStatus.PARTIAL, {AccountOutcome.INTERRUPTED})
    assert (stopped.tweets_new, second.tweets_fetched, second.tweets_new) == (200, 400, 400)


def test_track_after_puts_the_accounts_that_can_be_had_on_the_watch_list(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("someone", 5), quiet("other", 5))
    pipeline.run("someone", "protected_one", track=True)
    pipeline.run("other")

    tracked = pipeline.database.execute("SELECT user_id FROM user_state WHERE is_tracked")
    assert tracked == [(pipeline.user_id("someone"),)]


def test_every_call_has_one_row_with_its_outcome(make_pipeline: MakePipeline) -> None:
    script = [None, "500", "html_200", "reset", "timeout", "bare_429", "cut", "no_rate_headers"]
    pipeline = make_pipeline(quiet("someone", 120), faults=Faults(script=script))
    report = pipeline.run("someone")

    rows = pipeline.database.execute("SELECT outcome::text, count(*) FROM api_calls GROUP BY 1")
    assert dict(rows) == {
        "ok": 4,
        "server_fault": 1,
        "unreadable_answer": 1,
        "connection_fault": 3,
        "too_many_requests": 1,
    }
    assert report.calls == len(pipeline.sandbox.api.calls) == 10
    assert account(report).calls == 9
    assert load_unknown(pipeline.database, since=report.started_at) == Unknown(0, Cost())


REFUSED_TOKEN = RawAnswer(
    400,
    b'{"errors":[{"parameters":{"pagination_token":["a"]},"message":"The `pagination_token` value [a] is not valid"}],'
    b'"title":"Invalid Request","type":"https://api.twitter.com/2/problems/invalid-request"}',
)


@pytest.mark.parametrize("mode", [FULL, FetchMode(180)])
def test_where_x_does_not_take_a_page_token_the_walk_continues_below_the_last_tweet(
    make_pipeline: MakePipeline, mode: FetchMode
) -> None:
    script = [None, REFUSED_TOKEN, None, REFUSED_TOKEN]
    pipeline = make_pipeline(quiet("someone", 180), faults=Faults(script=script, endpoints=frozenset({USER_TWEETS})))
    report = pipeline.run("someone", mode=mode)

    assert report.status is RunStatus.DONE
    assert pipeline.stored("someone") == pipeline.sandbox.world.served_ids("someone")
    assert_calls_agree(pipeline)
    assert (report.billed_posts, account(report).calls, pipeline.timeline_calls()) == (180, 6, 6)


def test_a_400_for_a_page_token_without_one_fails_the_account_with_the_words_of_x(make_pipeline: MakePipeline) -> None:
    script = [None, REFUSED_TOKEN, REFUSED_TOKEN]
    pipeline = make_pipeline(quiet("someone", 180), faults=Faults(script=script, endpoints=frozenset({USER_TWEETS})))
    report = pipeline.run("someone")

    assert (account(report).outcome, account(report).calls) == (AccountOutcome.FAILED, 3)
    assert "The `pagination_token` value [a] is not valid" in (account(report).reason or "")
    assert len(pipeline.stored("someone")) == 50


NASTY = {
    "500": 0.03,
    "502": 0.02,
    "html_5xx": 0.02,
    "html_200": 0.02,
    "reset": 0.03,
    "cut": 0.03,
    "timeout": 0.02,
    "bare_429": 0.02,
    "short_page": 0.15,
    "empty_page": 0.08,
    "duplicates": 0.08,
    "out_of_order": 0.08,
    "no_rate_headers": 0.05,
}


@pytest.mark.parametrize("seed", range(6))
def test_whatever_goes_wrong_in_the_end_everything_is_there(make_pipeline: MakePipeline, seed: int) -> None:
    sizes = {"none": 0, "one": 1, "few": 49, "page": 50, "some": 130, "many": 420}
    faults = Faults(seed=seed, rates=NASTY)
    pipeline = make_pipeline(
        *(quiet(name, tweets) for name, tweets in sizes.items()), tokens=3, faults=faults, seed=seed
    )
    report = pipeline.run(*sizes)
    for _ in range(3):
        report = pipeline.run(*[each.username for each in report.unfinished] or sizes)

    pipeline.assert_all_is_there(*sizes)
    assert report.status is RunStatus.DONE
    assert_calls_agree(pipeline)


@pytest.mark.parametrize("seed", range(5))
def test_empty_answers_in_place_of_full_ones_hide_nothing(make_pipeline: MakePipeline, seed: int) -> None:
    sizes = {"one": 1, "few": 49, "some": 130, "many": 420}
    choice, before = random.Random(seed), [False]

    def script(_: str, number: int) -> FaultKind | None:
        before[0] = not before[0] and choice.random() < 0.4  # never twice: then it is believed
        return "empty_answer" if before[0] else None

    faults = Faults(script=script, endpoints=frozenset({USER_TWEETS}))
    pipeline = make_pipeline(*(quiet(name, count) for name, count in sizes.items()), faults=faults, concurrency=1)
    for _ in range(2):
        report = pipeline.run(*sizes)

        pipeline.assert_all_is_there(*sizes)
        assert set(outcomes(report).values()) == {AccountOutcome.DONE}
    assert_calls_agree(pipeline)


def test_an_account_that_seems_empty_though_x_counts_tweets_is_not_called_complete(make_pipeline: MakePipeline) -> None:
    faults = Faults(script=["empty_answer"] * 2, endpoints=frozenset({USER_TWEETS}))
    pipeline = make_pipeline(quiet("someone", 30), faults=faults)
    first = pipeline.run("someone")
    second = pipeline.run("someone")

    pipeline.assert_all_is_there("someone")
    assert (first.status, account(first).outcome) == (RunStatus.PARTIAL, AccountOutcome.PARTIAL)
    assert account(first).reason == "X answered twice with no tweets although it counts 30; run again later"
    assert second.status is RunStatus.DONE


def test_a_timeline_that_ends_early_is_partial_and_whole_after_the_next_run(make_pipeline: MakePipeline) -> None:
    faults = Faults(script=[None, "empty_answer", "empty_answer", "empty_answer"], endpoints=frozenset({USER_TWEETS}))
    pipeline = make_pipeline(quiet("someone", 130), faults=faults)
    first = pipeline.run("someone")
    pipeline.sandbox.api.faults = Faults()

    second = pipeline.run("someone")

    assert (first.status, account(first).reason) == (
        RunStatus.PARTIAL,
        "X's timeline ends after 50 tweets although it counts 130; the next run looks again",
    )
    assert (second.status, second.tweets_new) == (RunStatus.DONE, 80)
    pipeline.assert_all_is_there("someone")


def assert_calls_agree(pipeline: Pipeline) -> None:
    """Compare the rows with what the other side counted: one row a call, with its status where one came."""
    rows = pipeline.database.execute("SELECT endpoint, status_code, outcome::text FROM api_calls")
    answered = Counter(
        (endpoint, status) for endpoint, status, outcome in rows if outcome not in ("connection_fault", None)
    )
    served = Counter(
        (call.endpoint, call.status)
        for call in pipeline.sandbox.api.calls
        if call.faults.isdisjoint(("reset", "cut", "timeout"))
    )
    assert (len(rows), answered) == (len(pipeline.sandbox.api.calls), served)
    assert all(outcome is not None for _, _, outcome in rows)


def test_tweets_that_become_visible_late_are_found_by_the_next_run(make_pipeline: MakePipeline) -> None:
    now = [time.time()]
    busy = AccountSpec("busy", tweets=120, tweets_per_day=86_400 / 4, last_tweet_at=now[0])
    faults = Faults(late_rate=0.5, late_s=25)
    pipeline = make_pipeline(busy, faults=faults, clock=lambda: now[0])
    hidden = 0
    for _ in range(6):
        now[0] += 45
        pipeline.run("busy")
        hidden += len(set(pipeline.sandbox.world.served_ids("busy")) - set(pipeline.stored("busy")))
    object.__setattr__(faults, "late_rate", 0.0)
    pipeline.sandbox.world.set_availability("busy", "active")
    now[0] += 1
    pipeline.run("busy")

    assert hidden > 0
    assert pipeline.stored("busy") == pipeline.sandbox.world.served_ids("busy")


def test_odd_headers_between_true_ones_cost_no_tweet_and_no_refusal(make_pipeline: MakePipeline) -> None:
    odd = dict.fromkeys(("past_reset", "far_reset", "utc_date", "no_rate_headers"), 0.25)
    names = ["alpha", "beta", "gamma"]
    pipeline = make_pipeline(*(quiet(name, 400) for name in names), faults=Faults(rates=odd), tokens=2)

    report = pipeline.run(*names, page_size=20)

    pipeline.assert_all_is_there(*names)
    assert (report.status, pipeline.sandbox.api.refusals) == (RunStatus.DONE, 0)
    assert report.calls == len(pipeline.sandbox.api.calls) == 3 * 20 + 1


def test_refusals_that_are_over_with_the_next_call_retire_no_token(
    make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_tokens, "SUSPENDED_S", 0.2)
    monkeypatch.setattr(calls, "FIRST_BACK_OFF_S", 0.2)
    struck = ["429", "401", "not_enrolled"]
    script = [None, *(fault for kind in struck for fault in (None, kind, None))]
    pipeline = make_pipeline(quiet("alpha", 400), faults=Faults(script=script))

    report = pipeline.run("alpha", page_size=20)

    pipeline.assert_all_is_there("alpha")
    assert (report.status, report.calls) == (RunStatus.DONE, 1 + 20 + len(struck))
    assert [each.status for each in load_tokens(pipeline.database)] == [TokenStatus.ACTIVE]
