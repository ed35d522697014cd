"""What is wrong and what was told before -> what to tell, and in which words."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from twitter_pipeline.alerts import (
    LINES_POSTED,
    Changes,
    CheckFinding,
    FailedRun,
    Findings,
    News,
    OpenAlert,
    TrackedAccount,
    Trouble,
    judge_accounts,
    judge_budgets,
    judge_refusals,
    judge_runs,
    judge_tokens,
    judge_watch,
    payload_of,
    plan_changes,
)
from twitter_pipeline.budgets import Budgets, Cost, Limit, Period, Spent
from twitter_pipeline.errors import Availability
from twitter_pipeline.prices import Prices
from twitter_pipeline.store.activity import Window
from twitter_pipeline.store.tokens import TokenState
from twitter_pipeline.words import AlertKind, TokenStatus

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(minutes=90)


def token(number: int, status: TokenStatus, *, since: datetime = NOON, until: datetime | None = None) -> TokenState:
    reason = None if status is TokenStatus.ACTIVE else "X answered 401.\nand more"
    return TokenState(number, f"TWITTER_BEARER_{number}", status, reason, since, until)


def account(availability: Availability, *, username: str | None = "nasa", since: datetime = NOON) -> TrackedAccount:
    return TrackedAccount(11348282, username, availability, "User has been suspended: [nasa].", since)


def run(run_id: str = "0123456789abcdef", job: str = "fetch_tweets", *, at: datetime = NOON) -> FailedRun:
    return FailedRun(run_id, job, at, "No token can call users:\nTWITTER_BEARER_1: invalid")


def open_alerts(findings: Findings) -> list[OpenAlert]:
    """The alerts that are open after these findings were told."""
    lasting = [each for each in findings.troubles if each.lasts]
    return [OpenAlert(number, each.kind, each.subject, each.called, each.since) for number, each in enumerate(lasting)]


def plan(before: Findings, now: Findings) -> Changes:
    return plan_changes(now, open_alerts(before), now=LATER)


def kinds(troubles: Sequence[Trouble]) -> list[tuple[AlertKind, str]]:
    return [each.key for each in troubles]


ONE, TWO = "TWITTER_BEARER_1", "TWITTER_BEARER_2"
BOTH = (ONE, TWO)
WORKING = judge_tokens([token(1, TokenStatus.ACTIVE), token(2, TokenStatus.ACTIVE)], BOTH)
ONE_INVALID = judge_tokens([token(1, TokenStatus.INVALID), token(2, TokenStatus.ACTIVE)], BOTH)


def test_a_dead_token_is_told_once_and_again_when_it_works() -> None:
    begins, goes_on, ends = plan(WORKING, ONE_INVALID), plan(ONE_INVALID, ONE_INVALID), plan(ONE_INVALID, WORKING)

    (trouble,) = begins.begun
    assert trouble.message == (
        "Token TWITTER_BEARER_1 is invalid since 2026-11-22 12:00 UTC: X answered 401. "
        "To do: put the right one into .env, then: twitter-pipeline tokens check"
    )
    assert goes_on == Changes()
    assert ends == Changes(
        ended={
            0: "Token TWITTER_BEARER_1 works again; it was out of use from 2026-11-22 12:00 UTC to 2026-11-22 13:30 UTC"
        }
    )


def test_a_token_that_changes_from_one_trouble_to_another_is_told_again_and_does_not_work_again() -> None:
    revoked = judge_tokens([token(1, TokenStatus.REVOKED, since=LATER), token(2, TokenStatus.ACTIVE)], BOTH)
    changes = plan(ONE_INVALID, revoked)

    assert ["revoked since 2026-11-22 13:30" in each.message for each in changes.begun] == [True]
    assert (changes.ended, changes.moot) == ({}, (0,))


def test_a_token_that_was_taken_out_of_the_environment_is_no_trouble_and_does_not_work_again() -> None:
    changes = plan(ONE_INVALID, judge_tokens([token(1, TokenStatus.INVALID), token(2, TokenStatus.ACTIVE)], [TWO]))

    assert changes == Changes(moot=(0,))


def test_the_last_token_that_goes_is_told_besides_with_when_the_first_is_tried_again() -> None:
    until = NOON + timedelta(days=3)
    gone = judge_tokens([token(1, TokenStatus.INVALID), token(2, TokenStatus.CAPPED, since=LATER, until=until)], BOTH)
    changes = plan(ONE_INVALID, gone)
    back = plan(gone, ONE_INVALID)

    assert kinds(changes.begun) == [(AlertKind.TOKEN_OUT_OF_USE, TWO), (AlertKind.NO_TOKEN_LEFT, "tokens")]
    assert changes.begun[1].message.startswith(
        "No token is left since 2026-11-22 13:30 UTC: all 2 of this environment are out of use, so nothing is fetched."
    )
    assert "tried again at 2026-11-25 12:00 UTC" in changes.begun[1].message
    assert sorted(message.partition(";")[0] for message in back.ended.values()) == [
        "A token works again",
        "Token TWITTER_BEARER_2 works again",
    ]


def test_a_token_that_was_never_used_counts_as_one_that_is_left() -> None:
    findings = judge_tokens([token(1, TokenStatus.INVALID)], BOTH)

    assert kinds(findings.troubles) == [(AlertKind.TOKEN_OUT_OF_USE, ONE)]


def refused(number: int, since: datetime | None) -> Window:
    until = since and since + timedelta(minutes=4, seconds=5)
    key = f"TWITTER_BEARER_{number}"
    return Window(key, "/2/users", 300, 0, None, None, None, None, 0, LATER, refused_since=since, paused_until=until)


def test_refused_calls_are_told_once_for_each_token_and_endpoint_until_x_answers_again() -> None:
    before, begun = judge_refusals([refused(1, None)], BOTH), judge_refusals([refused(1, NOON), refused(3, NOON)], BOTH)
    again = judge_refusals([refused(1, NOON + timedelta(minutes=10))], BOTH)
    (trouble,) = plan(before, begun).begun

    assert trouble.key == (AlertKind.CALLS_REFUSED, "/2/users with TWITTER_BEARER_1")
    assert trouble.message.startswith(
        "X refuses calls of /2/users to TWITTER_BEARER_1 (429) since 2026-11-22 12:00 UTC: "
        "nothing is sent with it there until 12:04:05 UTC, then one call finds out."
    )
    assert plan(begun, again) == Changes()
    assert plan(begun, before).ended == {
        0: "X answers calls of /2/users with TWITTER_BEARER_1 again; "
        "it refused them from 2026-11-22 12:00 UTC to 2026-11-22 13:30 UTC"
    }
    assert plan(begun, judge_refusals([refused(1, NOON)], [TWO])) == Changes(moot=(0,))


@pytest.mark.parametrize(
    ("availability", "words"),
    [
        (Availability.PROTECTED, "is protected since"),
        (Availability.SUSPENDED, "is suspended since"),
        (Availability.NOT_FOUND, "is not found any more since"),
    ],
)
def test_a_tracked_account_that_vanishes_is_told_by_name_and_what_to_do(availability: Availability, words: str) -> None:
    (trouble,) = judge_accounts([account(availability)]).troubles

    assert trouble.message.startswith(f"The tracked account @nasa {words} 2026-11-22 12:00 UTC (User has been")
    assert trouble.message.endswith("To stop: twitter-pipeline untrack nasa")


def test_an_account_that_is_back_is_told_and_one_that_nobody_tracks_any_more_is_not() -> None:
    gone = judge_accounts([account(Availability.SUSPENDED, username=None)])
    back, untracked = plan(gone, judge_accounts([account(Availability.ACTIVE)])), plan(gone, judge_accounts([]))

    assert [message.partition(";")[0] for message in back.ended.values()] == [
        "The tracked account id 11348282 can be read again"
    ]
    assert (untracked.ended, untracked.moot) == ({}, (0,))


def test_a_broken_promise_is_one_trouble_however_often_the_check_fails() -> None:
    first = judge_watch([CheckFinding("in_time", "tweets", False, "0 % within 300 s", NOON)])
    second = judge_watch([CheckFinding("in_time", "tweets", False, "1 % within 300 s", LATER)])
    kept = judge_watch([CheckFinding("in_time", "tweets", True, "99 % within 300 s", LATER)])

    assert (
        "The promise of monitoring is broken, seen at 2026-11-22 12:00 UTC: 0 % within 300 s. To do: see the check"
        in (first.troubles[0].message)
    )
    assert plan(first, second) == Changes()
    assert list(plan(first, kept).ended.values()) == [
        "The promise of monitoring is kept again, says the check in_time; "
        "it was broken from 2026-11-22 12:00 UTC to 2026-11-22 13:30 UTC"
    ]


def test_a_budget_that_has_no_room_for_a_page_is_told_until_it_begins_anew_or_is_raised() -> None:
    def judge(posts: int, *, limit: int = 1_000) -> Findings:
        spent = Spent(Period.DAY, Cost(posts), Cost(40), NOON, NOON + timedelta(hours=12))
        return judge_budgets([spent], Budgets(day=Limit(posts=limit)), Prices(), wanted=Cost(50))

    enough, used_up, raised = judge(950), judge(1_000), judge(1_000, limit=2_000)
    (trouble,) = used_up.troubles

    assert enough.troubles == ()
    assert trouble.message.startswith(
        "The budget of the day is used up (1,000 of 1,000 posts) until 00:00 UTC, seen at"
    )
    assert trouble.message.endswith("raise TWITTER_BUDGET_DAY_USD or _POSTS in .env")
    assert plan(used_up, judge(1_001)) == Changes()
    assert [message.partition(" from")[0] for message in plan(used_up, raised).ended.values()] == [
        "There is budget again: the budget of the day was used up"
    ]


def test_each_failed_run_of_a_person_is_an_event_and_a_job_that_fails_by_itself_is_one_trouble() -> None:
    people = judge_runs([run("aaaaaaaa-1"), run("bbbbbbbb-2")], {})
    polls = judge_runs([], {"poll_tracked_users": run("cccccccc-3", "poll_tracked_users")})
    again = judge_runs([], {"poll_tracked_users": run("dddddddd-4", "poll_tracked_users", at=LATER)})

    assert [(each.called, each.lasts) for each in people.troubles] == [
        ("run aaaaaaaa of fetch_tweets", False),
        ("run bbbbbbbb of fetch_tweets", False),
    ]
    assert people.troubles[0].message.startswith(
        "The run aaaaaaaa of fetch_tweets failed at 2026-11-22 12:00 UTC: No token can call users. What was fetched is"
    )
    assert plan(polls, again) == Changes()
    assert list(plan(polls, judge_runs([], {"poll_tracked_users": None})).ended.values()) == [
        "A run of the job poll_tracked_users has succeeded; "
        "runs failed from 2026-11-22 12:00 UTC to 2026-11-22 13:30 UTC"
    ]


def test_an_alert_that_is_open_is_untouched_by_another_of_the_same_subject_name_but_kind() -> None:
    both = ONE_INVALID + judge_accounts([account(Availability.SUSPENDED)])
    changes = plan(both, WORKING + judge_accounts([account(Availability.SUSPENDED)]))

    assert (len(changes.ended), changes.begun, changes.moot) == (1, (), ())


def news(number: int, message: str = "something") -> News:
    return News(number, AlertKind.ACCOUNT_GONE, str(number), "@nasa", NOON, message, is_over=False)


def test_what_is_posted_has_a_text_that_slack_shows_as_it_is_and_the_fields_for_programs() -> None:
    payload = payload_of([news(1, "<!channel> R&D")], made_up=False)

    assert payload == {
        "text": "&lt;!channel&gt; R&amp;D",
        "source": "twitter_pipeline",
        "made_up": False,
        "count": 1,
        "alerts": [
            {
                "kind": "account_gone",
                "subject": "1",
                "called": "@nasa",
                "since": "2026-11-22T12:00:00+00:00",
                "is_over": False,
                "message": "<!channel> R&D",
            }
        ],
    }


def test_very_many_messages_are_cut_to_what_a_receiver_takes_and_made_up_ones_say_so() -> None:
    payload = payload_of([news(number) for number in range(5_000)], made_up=True)
    lines = payload["text"].splitlines()

    assert lines[0] == "(Accounts and tweets are made up by the sandbox.)"
    assert lines[-1] == "... and 4,970 more: twitter-pipeline alerts"
    assert len(lines) == LINES_POSTED + 2
    assert (payload["count"], len(payload["alerts"])) == (5_000, 200)
