"""The watch: the sensor hands out what is due, a run polls it, and each account is polled again in its time."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import dagster as dg
import pytest

from twitter_pipeline.coverage import time_at
from twitter_pipeline.definitions import defs
from twitter_pipeline.orchestration.watch import tracked_users_sensor
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.faults import Faults, RawAnswer
from twitter_pipeline.sandbox.windows import SEARCH_RECENT, USER_TWEETS, USERS
from twitter_pipeline.store.runs import RunReport
from twitter_pipeline.words import AccountOutcome
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent


def tick(workshop: Workshop) -> dg.RunRequest | dg.SkipReason:
    """Let the sensor look once."""
    with dg.DagsterInstance.get() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"database": workshop.opened})
        answer = tracked_users_sensor(context)
    assert isinstance(answer, dg.RunRequest | dg.SkipReason)
    return answer


def poll(workshop: Workshop, request: dg.RunRequest) -> RunReport:
    """Run what the sensor asked for."""
    job = defs.resolve_job_def("poll_tracked_users")
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(instance=instance, run_config=request.run_config)
    assert result.success
    return workshop.report(result.run_id)


def reason(answer: dg.RunRequest | dg.SkipReason) -> str:
    assert isinstance(answer, dg.SkipReason), answer
    return str(answer.skip_message)


def requested(answer: dg.RunRequest | dg.SkipReason) -> dg.RunRequest:
    assert isinstance(answer, dg.RunRequest), answer
    return answer


def watch_from_now(workshop: Workshop, *names: str) -> None:
    workshop.fetch(*({"username": name, "track_after": True, "fetch_mode": "limit:5"} for name in names))


def due_now(workshop: Workshop) -> None:
    workshop.database.execute("UPDATE user_state SET next_poll_at = now() - interval '1 second'")


def test_the_sensor_has_nothing_to_do_without_tracked_accounts(make_workshop: MakeWorkshop) -> None:
    assert reason(tick(make_workshop([silent("alpha", 5)]))) == "no account is tracked"


def test_what_is_due_is_polled_once_and_then_in_its_time(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 40), silent("beta", 7), silent("gamma", 9)])
    watch_from_now(workshop, "alpha", "beta")
    workshop.fetch({"username": "gamma"})

    first = requested(tick(workshop))
    assert first.tags["twitter_pipeline/accounts"] == "2"
    assert reason(tick(workshop)) == "what is due is being polled"
    report = poll(workshop, first)

    assert (report.kind.value, report.status.value, report.calls) == ("incremental", "done", 2)
    assert workshop.outcomes(report) == {"alpha": "done", "beta": "done"}
    # Nothing was new, so nothing was paid for.
    assert (report.tweets_fetched, report.billed_posts, report.billed_users) == (0, 0, 0)
    assert reason(tick(workshop)).startswith("none of 2 tracked accounts is due before ")
    waits = workshop.database.execute(
        "SELECT next_poll_at - now(), handed_to FROM user_state WHERE is_tracked ORDER BY user_id"
    )
    assert all(timedelta(0) < wait < timedelta(hours=7) and handed is None for wait, handed in waits)


def test_new_tweets_are_fetched_and_nothing_else(make_workshop: MakeWorkshop) -> None:
    now = [time.time() - 7200]
    accounts = [AccountSpec("busy", tweets=300, tweets_per_day=2000), silent("quiet", 30)]
    workshop = make_workshop(accounts, clock=lambda: now[0])
    watch_from_now(workshop, "busy", "quiet")
    before = set(workshop.stored("busy"))
    now[0] += 3600
    due_now(workshop)

    report = poll(workshop, requested(tick(workshop)))
    now[0] += 60
    due_now(workshop)
    poll(workshop, requested(tick(workshop)))

    newest_before = max(before)
    new = {each for each in workshop.truth("busy") if each > newest_before}
    settled = {each for each in new if each < max(new)}
    assert len(new) > 20
    assert report.tweets_new > 20
    assert settled <= set(workshop.stored("busy"))
    assert min(workshop.stored("busy")) == min(before)
    assert workshop.untrue("busy") == []


def test_an_account_that_was_never_fetched_is_watched_from_the_moment_it_is_tracked(
    make_workshop: MakeWorkshop,
) -> None:
    workshop = make_workshop([silent("alpha", 200)])
    workshop.fetch({"username": "alpha", "fetch_mode": "limit:5"})
    workshop.database.execute("TRUNCATE tweets")
    workshop.database.execute(
        "UPDATE user_state SET covered = '{}', unreachable = '{}', is_tracked = true, tracked_since = now()"
    )

    report = poll(workshop, requested(tick(workshop)))

    assert (report.calls, report.tweets_fetched) == (1, 0)


def test_a_poll_that_was_broken_off_is_made_up_for_by_the_next(make_workshop: MakeWorkshop) -> None:
    now = [time.time() - 7200]
    workshop = make_workshop([AccountSpec("busy", tweets=300, tweets_per_day=4000)], clock=lambda: now[0])
    watch_from_now(workshop, "busy")
    workshop.database.execute("UPDATE user_state SET tracked_since = to_timestamp(%s)", [now[0]])
    newest_before = max(workshop.stored("busy"))
    now[0] += 3600
    due_now(workshop)
    poll(workshop, requested(tick(workshop)))
    # As a run leaves it that was killed after its first page: a hole below the newest tweets.
    user_id = workshop.user_id("busy")
    stored = workshop.stored("busy")
    hole = (newest_before + 1, stored[20])
    workshop.database.execute("DELETE FROM tweets WHERE id >= %s AND id < %s", hole)
    workshop.database.execute(
        "UPDATE user_state SET covered = covered - int8multirange(int8range(%s, %s)) WHERE user_id = %s",
        (*hole, user_id),
    )
    due_now(workshop)

    poll(workshop, requested(tick(workshop)))

    assert {each for each in stored if each > newest_before} <= set(workshop.stored("busy"))


def test_what_a_dead_run_was_given_is_due_again_after_a_while(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 5)])
    watch_from_now(workshop, "alpha")
    requested(tick(workshop))
    assert reason(tick(workshop)) == "what is due is being polled"

    workshop.database.execute("UPDATE user_state SET handed_at = handed_at - interval '11 minutes'")

    assert requested(tick(workshop)).tags["twitter_pipeline/accounts"] == "1"


def test_two_sensors_that_look_at_once_share_what_is_due(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 5), silent("beta", 5)])
    watch_from_now(workshop, "alpha", "beta")
    with held(workshop, "alpha"):
        first = requested(tick(workshop))
    second = requested(tick(workshop))

    assert (first.tags["twitter_pipeline/accounts"], second.tags["twitter_pipeline/accounts"]) == ("1", "1")
    assert workshop.outcomes(poll(workshop, first)) == {"beta": "done"}
    assert workshop.outcomes(poll(workshop, second)) == {"alpha": "done"}


def test_accounts_that_are_due_together_are_polled_as_the_budget_of_an_hour_allows(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"account_{number}" for number in range(8)]
    workshop = make_workshop([silent(name, 5) for name in names])
    watch_from_now(workshop, *names)
    due_now(workshop)
    monkeypatch.setenv("TWITTER_WATCH_POLLS_PER_HOUR", "5")
    monkeypatch.setenv("TWITTER_WATCH_SPACING_SECONDS", "0")

    first = requested(tick(workshop))
    while_it_is_polled = reason(tick(workshop))
    poll(workshop, first)
    due_now(workshop)
    after_it = reason(tick(workshop))
    workshop.database.execute("UPDATE fetch_runs SET started_at = started_at - interval '1 hour'")
    later = requested(tick(workshop))

    assert (first.tags["twitter_pipeline/accounts"], later.tags["twitter_pipeline/accounts"]) == ("5", "5")
    assert while_it_is_polled == after_it
    assert "the 5 polls an hour that TWITTER_WATCH_POLLS_PER_HOUR allows are used up" in after_it


@contextmanager
def held(workshop: Workshop, username: str) -> Iterator[None]:
    """Hold the row of an account, as another sensor does while it takes it."""
    with workshop.database.transaction() as connection:
        connection.execute("SELECT FROM user_state WHERE user_id = %s FOR UPDATE", [workshop.user_id(username)])
        yield


def test_the_sensor_steps_aside_while_a_run_is_queued(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 5)])
    watch_from_now(workshop, "alpha")
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(
            defs.resolve_job_def("poll_tracked_users"),
            run_config={"handed_to": "another"},
            status=dg.DagsterRunStatus.NOT_STARTED,
        )
        answer = tick(workshop)
        instance.delete_run(run.run_id)

    assert reason(answer) == "the run before is still queued or at work"


def test_the_sensor_steps_aside_while_all_tokens_are_used_up_or_unfit(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 5)])
    watch_from_now(workshop, "alpha")
    workshop.database.execute(
        "UPDATE tokens_endpoint_rl SET remaining = 0, in_flight = 0, reset_at = now() + interval '5 minutes'"
    )
    used_up = reason(tick(workshop))
    workshop.database.execute("UPDATE tokens SET status = 'invalid', status_reason = 'refused'")

    assert used_up.startswith("all tokens are used up until ")
    assert reason(tick(workshop)) == "no token is fit for use: see `twitter-pipeline tokens`"


def test_an_account_that_cannot_be_read_any_more_is_looked_at_rarely_and_noticed_when_it_is_back(
    make_workshop: MakeWorkshop,
) -> None:
    workshop = make_workshop([silent("alpha", 40)])
    watch_from_now(workshop, "alpha")
    workshop.sandbox.world.set_availability("alpha", "suspended")
    gone = poll(workshop, requested(tick(workshop)))
    (wait,) = workshop.database.execute("SELECT next_poll_at - now() FROM user_state")[0]
    workshop.sandbox.world.set_availability("alpha", "active")
    due_now(workshop)
    back = poll(workshop, requested(tick(workshop)))

    assert workshop.outcomes(gone) == {"alpha": AccountOutcome.UNAVAILABLE}
    assert wait > timedelta(hours=5)
    assert workshop.outcomes(back) == {"alpha": AccountOutcome.DONE}


def profiles_are_old(workshop: Workshop) -> None:
    workshop.database.execute("UPDATE users SET profile_read_at = profile_read_at - interval '8 days'")


def test_a_tracked_account_is_polled_by_its_id_when_another_one_holds_its_name(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("wanted", 5), silent("heir", 5)])
    watch_from_now(workshop, "wanted")
    tracked, world = workshop.user_id("wanted"), workshop.sandbox.world
    world.rename("wanted", "moved")
    world.rename("heir", "wanted")
    profiles_are_old(workshop)
    report = poll(workshop, requested(tick(workshop)))

    (polled,) = report.account_reports
    assert (polled.user_id, polled.reason, polled.outcome) == (tracked, "renamed: the account is @moved now", "done")
    assert (report.billed_users, report.billed_posts) == (1, 0)


def test_a_tracked_account_that_was_deleted_is_not_replaced_by_who_holds_its_name(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("wanted", 5), silent("heir", 5)])
    watch_from_now(workshop, "wanted")
    tracked, world = workshop.user_id("wanted"), workshop.sandbox.world
    world.set_availability("wanted", "missing")
    world.rename("heir", "wanted")
    workshop.database.execute("UPDATE users SET profile_read_at = profile_read_at - interval '1 day'")
    report = poll(workshop, requested(tick(workshop)))

    (polled,) = report.account_reports
    assert (polled.user_id, polled.outcome, polled.reason) == (
        tracked,
        "unavailable",
        "X does not know the account any more",
    )
    assert report.billed_users == 0


def test_a_tracked_account_that_could_not_be_looked_up_is_tried_again_soon_but_not_at_once(
    make_workshop: MakeWorkshop,
) -> None:
    workshop = make_workshop([silent("alpha", 5)])
    watch_from_now(workshop, "alpha")
    profiles_are_old(workshop)
    refusal = RawAnswer(400, b'{"title": "Invalid Request"}', {"content-type": "application/json"})
    workshop.sandbox.api.faults = Faults(script=lambda endpoint, _: refusal if endpoint == USERS else None)
    report = poll(workshop, requested(tick(workshop)))

    assert workshop.outcomes(report) == {"alpha": "failed"}
    assert reason(tick(workshop)).startswith("none of 1 tracked accounts is due before ")


def test_what_is_untracked_on_its_way_to_a_run_is_not_polled(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 5)])
    watch_from_now(workshop, "alpha")
    request = requested(tick(workshop))
    workshop.database.execute("UPDATE user_state SET is_tracked = false")
    report = poll(workshop, request)

    assert (report.status.value, report.accounts, report.calls) == ("done", 0, 0)


def test_accounts_can_be_polled_by_hand(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 80)])

    report = poll(workshop, dg.RunRequest(run_config={"accounts": ["@Alpha"]}))

    # Of an account that was never seen nothing tells what is new: the newest page.
    assert (report.tweets_new, report.calls) == (50, 2)


@pytest.mark.parametrize("config", [{"accounts": ["no such name"]}, {"accounts": []}])
def test_a_poll_by_hand_without_a_name_or_with_a_wrong_one_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(dg.DagsterConfigMappingFunctionError):
        dg.validate_run_config(defs.resolve_job_def("poll_tracked_users"), config)


def test_what_is_stored_tells_how_much_an_account_tweets(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("whole", 3000), silent("part", 3000)])
    workshop.fetch(
        {"username": "whole", "track_after": True},
        {"username": "part", "track_after": True, "fetch_mode": "limit:100"},
    )
    poll(workshop, requested(tick(workshop)))

    rates = dict(
        workshop.database.execute("SELECT username, tweets_per_hour FROM user_state JOIN users ON id = user_id")
    )
    truths = dict(
        workshop.database.execute(
            "SELECT username, count(*)::float8 / greatest(1, extract(epoch FROM now() - min(t.created_at)) / 3600)"
            " FROM tweets t JOIN users u ON u.id = author_id"
            " WHERE t.created_at > now() - interval '112 days' GROUP BY 1"
        )
    )
    assert rates == {name: pytest.approx(float(truth), rel=0.5) for name, truth in truths.items()}


def test_profiles_tell_which_accounts_have_news_a_hundred_at_a_time(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_WATCH_DETECTION", "users")
    now = [time.time() - 7200]
    accounts = [silent(f"quiet_{number:03}", 5) for number in range(120)]
    workshop = make_workshop([AccountSpec("busy", tweets=30, tweets_per_day=400), *accounts], clock=lambda: now[0])
    watch_from_now(workshop, "busy", *(account.username for account in accounts))
    workshop.sandbox.world.set_availability("quiet_007", "suspended")
    now[0] += 3600
    due_now(workshop)
    workshop.sandbox.api.reset_accounting()

    report = poll(workshop, requested(tick(workshop)))

    # Two look-ups; then the timeline of the one that has tweeted, and its end once more with a stored tweet; and that
    # of the one that X does not show any more, with the look-up that confirms it.
    calls = Counter(call.endpoint for call in workshop.sandbox.api.calls)
    assert calls == {USERS: 2 + 1, USER_TWEETS: 2 + 1}
    assert report.tweets_new > 5
    assert workshop.outcomes(report) == {
        "busy": "done",
        **{account.username: "done" for account in accounts},
        "quiet_007": "unavailable",
    }
    assert (
        workshop.database.execute(
            "SELECT count(*) FROM user_state WHERE last_polled_at > now() - interval '1 minute' AND handed_to IS NULL"
        )[0][0]
        >= 119
    )


def test_where_profiles_cannot_be_had_the_timelines_are_asked(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_WATCH_DETECTION", "users")
    workshop = make_workshop([silent("alpha", 5), silent("beta", 5)])
    watch_from_now(workshop, "alpha", "beta")
    refusal = RawAnswer(400, b'{"title": "Invalid Request"}', {"content-type": "application/json"})
    workshop.sandbox.api.faults = Faults(script=lambda endpoint, _: refusal if endpoint == USERS else None)

    assert workshop.outcomes(poll(workshop, requested(tick(workshop)))) == {"alpha": "done", "beta": "done"}


def quiet_since_yesterday(username: str) -> AccountSpec:
    """An account that writes nothing while a test turns its clock."""
    return AccountSpec(username, tweets=5, last_tweet_at=time.time() - 86_400)


def searched(workshop: Workshop) -> tuple[RunReport, Counter[str]]:
    """Poll all accounts now, and count the calls by endpoint."""
    due_now(workshop)
    before = Counter(call.endpoint for call in workshop.sandbox.api.calls)
    report = poll(workshop, requested(tick(workshop)))
    return report, Counter(call.endpoint for call in workshop.sandbox.api.calls) - before


def test_searches_tell_which_accounts_have_written_many_at_a_time(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_WATCH_DETECTION", "search")
    now = [time.time() - 21_600]
    quiet = [quiet_since_yesterday(f"quiet_{number:03}") for number in range(60)]
    workshop = make_workshop([AccountSpec("busy", tweets=30, tweets_per_day=150), *quiet], clock=lambda: now[0])
    watch_from_now(workshop, "busy", *(account.username for account in quiet))
    newest_before = max(workshop.stored("busy"))
    while sum(each > newest_before for each in workshop.truth("busy")) < 2:
        now[0] += 60
    # Search leaves out the last 30 seconds.
    now[0] += 60
    billed_before = workshop.sandbox.api.posts_billed()

    report, calls = searched(workshop)

    # 28 accounts with names of nine letters share a query. The end of what is new is shown again with a stored tweet.
    assert calls == {SEARCH_RECENT: 3, USER_TWEETS: 2}
    assert workshop.outcomes(report) == dict.fromkeys(["busy", *(account.username for account in quiet)], "done")
    # What the search has shown the timeline reads free of charge.
    assert report.tweets_new >= 2
    assert (report.billed_posts, report.billed_users) == (workshop.sandbox.api.posts_billed() - billed_before, 0)
    assert workshop.untrue("busy") == []
    assert {each for each in workshop.truth("busy") if each > newest_before} <= set(workshop.stored("busy"))


def test_where_a_search_has_more_to_show_the_timelines_of_all_its_accounts_are_asked(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_WATCH_DETECTION", "search")
    now = [time.time() - 21_600]
    busy = [AccountSpec(f"busy_{number}", tweets=30, tweets_per_day=200) for number in range(3)]
    quiet = [quiet_since_yesterday(f"quiet_{number}") for number in range(2)]
    workshop = make_workshop([*busy, *quiet], clock=lambda: now[0])
    names = [account.username for account in (*busy, *quiet)]
    watch_from_now(workshop, *names)
    before = {account.username: max(workshop.stored(account.username)) for account in busy}
    while len(new := [each for name, newest in before.items() for each in workshop.truth(name) if each > newest]) < 15:
        now[0] += 300

    report, calls = searched(workshop)
    stored = {each for name in before for each in workshop.stored(name)}
    now[0] += 60
    _, calls_after = searched(workshop)

    # Of those that have written the end is requested once more, with a stored tweet.
    assert calls == {SEARCH_RECENT: 1, USER_TWEETS: 5 + 3}
    assert workshop.outcomes(report) == dict.fromkeys(names, "done")
    assert set(new) <= stored
    # A minute later there is little to show.
    assert (calls_after[SEARCH_RECENT], calls_after[USER_TWEETS] < 8) == (1, True)
    assert workshop.all_untrue() == {}


def test_where_searches_cannot_be_had_or_do_not_reach_back_the_timelines_are_asked(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_WATCH_DETECTION", "search")
    workshop = make_workshop([silent("alpha", 5), silent("beta", 5)])
    watch_from_now(workshop, "alpha", "beta")
    refusal = RawAnswer(400, b'{"title": "Invalid Request"}', {"content-type": "application/json"})
    workshop.sandbox.api.faults = Faults(script=lambda endpoint, _: refusal if endpoint == SEARCH_RECENT else None)
    refused = searched(workshop)
    workshop.sandbox.api.faults = Faults()
    workshop.database.execute("UPDATE user_state SET timeline_read_at = now() - interval '7 days'")
    too_old = searched(workshop)
    within_reach = searched(workshop)

    assert [calls for _, calls in (refused, too_old, within_reach)] == [
        {SEARCH_RECENT: 1, USER_TWEETS: 2},
        {USER_TWEETS: 2},
        {SEARCH_RECENT: 1},
    ]
    for report, _ in (refused, too_old, within_reach):
        assert workshop.outcomes(report) == {"alpha": "done", "beta": "done"}


@pytest.mark.parametrize(("detection", "endpoint"), [("users", USERS), ("search", SEARCH_RECENT)])
def test_what_an_account_wrote_before_it_was_tracked_is_no_news(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch, detection: str, endpoint: str
) -> None:
    monkeypatch.setenv("TWITTER_WATCH_DETECTION", detection)
    workshop = make_workshop([silent("alpha", 5)])
    watch_from_now(workshop, "alpha")
    workshop.database.execute("TRUNCATE tweets")
    workshop.database.execute("UPDATE user_state SET covered = '{}', unreachable = '{}'")

    assert searched(workshop)[1] == {endpoint: 1}


def test_the_detection_follows_the_limits_that_x_has_told(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITTER_WATCH_DETECTION", "auto")
    workshop = make_workshop([silent("alpha", 5), silent("beta", 5)])
    watch_from_now(workshop, "alpha", "beta")
    enough = searched(workshop)[1]
    # Two accounts a minute are 120 polls an hour.
    workshop.database.execute('UPDATE tokens_endpoint_rl SET "limit" = 14 WHERE endpoint = %s', [USER_TWEETS])
    too_few = searched(workshop)[1]
    workshop.database.execute('UPDATE tokens_endpoint_rl SET "limit" = 7 WHERE endpoint = %s', [USERS])
    fewer_still = searched(workshop)[1]

    assert (enough, too_few, fewer_still) == ({USER_TWEETS: 2}, {USERS: 1}, {SEARCH_RECENT: 1})


def test_an_account_that_is_made_due_while_it_is_polled_stays_due(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 5), silent("beta", 5)])
    watch_from_now(workshop, "alpha", "beta")
    request = requested(tick(workshop))
    workshop.database.execute(
        "UPDATE user_state SET next_poll_at = clock_timestamp() WHERE user_id = %s", [workshop.user_id("alpha")]
    )

    poll(workshop, request)

    assert requested(tick(workshop)).tags["twitter_pipeline/accounts"] == "1"


@pytest.mark.parametrize("detection", ["timeline", "users", "search"])
def test_what_a_poll_has_left_out_is_fetched_also_when_the_account_is_silent_since(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch, detection: str
) -> None:
    monkeypatch.setenv("TWITTER_WATCH_DETECTION", detection)
    workshop = make_workshop([silent("alpha", 120)])
    workshop.fetch({"username": "alpha", "track_after": True})
    stored = workshop.stored("alpha")
    # Tracked since the hundredth tweet from the top; a hole above it.
    workshop.database.execute("UPDATE user_state SET tracked_since = %s", [time_at(stored[100])])
    hole = (stored[60] + 1, stored[20])
    workshop.database.execute("DELETE FROM tweets WHERE id >= %s AND id < %s", hole)
    workshop.database.execute("UPDATE user_state SET covered = covered - int8multirange(int8range(%s, %s))", hole)
    due_now(workshop)

    poll(workshop, requested(tick(workshop)))

    assert workshop.stored("alpha") == stored


def test_accounts_are_gathered_between_two_runs(make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITTER_WATCH_SPACING_SECONDS", "600")
    workshop = make_workshop([silent("alpha", 5)])
    watch_from_now(workshop, "alpha")
    poll(workshop, requested(tick(workshop)))
    due_now(workshop)
    early = reason(tick(workshop))
    workshop.database.execute("UPDATE fetch_runs SET started_at = started_at - interval '10 minutes'")

    assert early.startswith("accounts are gathered until ")
    assert requested(tick(workshop)).tags["twitter_pipeline/accounts"] == "1"
