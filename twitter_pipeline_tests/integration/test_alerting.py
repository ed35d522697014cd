"""Alerts in the database: each change is told once, whoever looks at once, however often the webhook fails."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest

from twitter_pipeline import alerting
from twitter_pipeline.alerting import Told, find_troubles, tell
from twitter_pipeline.alerts import Findings, Trouble
from twitter_pipeline.errors import Availability
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.alerts import load_alerts, load_known, load_open_alerts, take_news
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.retention import delete_old_alerts
from twitter_pipeline.store.tokens import load_tokens, register_tokens, save_token_status
from twitter_pipeline.store.users import save_availability
from twitter_pipeline.store.windows import Settlement, lease_call, settle_call
from twitter_pipeline.words import AlertKind, CallOutcome, TokenStatus
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline_tests.webhooks import Receiver, receiver

KEYS = ("TWITTER_BEARER_1", "TWITTER_BEARER_2")
TOKENS = Settings(bearer_tokens={key: BearerToken(key) for key in KEYS})


@pytest.fixture
def slack() -> Iterator[Receiver]:
    with receiver() as served:
        yield served


@pytest.fixture
def posting(slack: Receiver) -> Settings:
    """Settings with two tokens and the webhook."""
    return replace(TOKENS, alert_webhook=slack.url)


@pytest.fixture
def database(database: Database) -> Database:
    register_tokens(database, KEYS, ["/2/users"])
    database.execute("INSERT INTO users (id, username) VALUES (7, 'nasa'), (8, 'esa')")
    database.execute("INSERT INTO user_state (user_id, is_tracked, tracked_since) VALUES (7, true, now())")
    database.execute("INSERT INTO user_state (user_id) VALUES (8)")
    return database


def look(database: Database, settings: Settings) -> Told:
    """Look and tell once, as a tick of the sensor does."""
    open_alerts = load_open_alerts(database)
    return tell(database, settings, find_troubles(database, settings, open_alerts), open_alerts)


def set_token(database: Database, number: int, status: TokenStatus) -> None:
    (token,) = load_tokens(database, [KEYS[number - 1]])
    reason = None if status is TokenStatus.ACTIVE else "X says no"
    save_token_status(database, token.id, status, reason=reason)


def suspend(database: Database, user_id: int, availability: Availability = Availability.SUSPENDED) -> None:
    save_availability(database, user_id, availability, reason=None, at=datetime.now(UTC))


DEAD = ("token_out_of_use", "TWITTER_BEARER_1", False)
ALIVE = ("token_out_of_use", "TWITTER_BEARER_1", True)


def test_a_trouble_is_told_once_and_once_more_when_it_is_over(
    database: Database, slack: Receiver, posting: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="twitter_pipeline.alerting")
    quiet = look(database, posting)
    set_token(database, 1, TokenStatus.INVALID)
    ticks = [look(database, posting) for _ in range(3)]
    set_token(database, 1, TokenStatus.ACTIVE)
    ticks += [look(database, posting) for _ in range(3)]

    assert str(quiet) == ""
    assert slack.alerts == [DEAD, ALIVE]
    assert [str(told) for told in ticks] == [
        "1 new alert, 1 message posted",
        "",
        "",
        "1 over, 1 message posted",
        "",
        "",
    ]
    logged = [(record.levelname, record.getMessage().partition(" since")[0]) for record in caplog.records]
    assert logged[0] == ("WARNING", "Alert: Token TWITTER_BEARER_1 is invalid")
    assert [level for level, _ in logged] == ["WARNING", "INFO"]


def test_refused_calls_are_told_until_x_answers_again(database: Database, slack: Receiver, posting: Settings) -> None:
    now = datetime.now(UTC)

    def call(seconds: float, outcome: CallOutcome, status: int) -> None:
        at = now + timedelta(seconds=seconds)
        lease = lease_call(database, Endpoint.USERS, [KEYS[0]], lease_s=60, now=at)
        assert lease is not None
        settle_call(database, lease, Settlement(outcome, status), now=at)
        look(database, posting)

    call(0, CallOutcome.TOO_MANY_REQUESTS, 429)
    call(61, CallOutcome.TOO_MANY_REQUESTS, 429)
    call(200, CallOutcome.SERVER_FAULT, 503)
    call(202, CallOutcome.OK, 200)
    call(203, CallOutcome.TOO_MANY_REQUESTS, 429)

    subject = "/2/users with TWITTER_BEARER_1"
    assert slack.alerts == [(AlertKind.CALLS_REFUSED, subject, is_over) for is_over in (False, True, False)]


def test_a_token_that_dies_twice_is_told_twice(database: Database, slack: Receiver, posting: Settings) -> None:
    for status in (TokenStatus.INVALID, TokenStatus.ACTIVE, TokenStatus.INVALID, TokenStatus.REVOKED):
        set_token(database, 1, status)
        look(database, posting)

    assert slack.alerts == [DEAD, ALIVE, DEAD, DEAD]
    assert [each.cleared_at is None for each in load_alerts(database, count=10)] == [True, False, False]


def test_only_tracked_accounts_that_vanish_are_told_and_untracking_one_is_not_its_return(
    database: Database, slack: Receiver, posting: Settings
) -> None:
    suspend(database, 7)
    suspend(database, 8)
    look(database, posting)
    suspend(database, 7, Availability.ACTIVE)
    look(database, posting)
    suspend(database, 7, Availability.NOT_FOUND)
    look(database, posting)
    database.execute("UPDATE user_state SET is_tracked = false, tracked_since = NULL")
    look(database, posting)

    assert slack.alerts == [("account_gone", "7", False), ("account_gone", "7", True), ("account_gone", "7", False)]
    assert "@nasa is suspended" in slack.texts()[0]
    assert load_open_alerts(database) == []


def test_many_who_look_at_once_tell_each_change_once(database: Database, slack: Receiver, posting: Settings) -> None:
    lookers = 6
    barrier = Barrier(lookers)

    def tick(_: int) -> Told:
        barrier.wait()
        return look(database, posting)

    told: list[Told] = []
    with ThreadPoolExecutor(lookers) as pool:
        for status in (TokenStatus.INVALID, TokenStatus.ACTIVE) * 4:
            set_token(database, 1, status)
            suspend(database, 7, Availability.ACTIVE if status is TokenStatus.ACTIVE else Availability.PROTECTED)
            told += pool.map(tick, range(lookers))

    gone, back = ("account_gone", "7", False), ("account_gone", "7", True)
    assert sorted(slack.alerts) == sorted([DEAD, ALIVE, gone, back] * 4)
    assert sum(len(each.begun) for each in told) == sum(len(each.ended) for each in told) == 8
    assert sum(each.posted for each in told) == 16


def test_an_event_is_told_once_although_it_is_found_again(
    database: Database, slack: Receiver, posting: Settings
) -> None:
    run = Trouble(AlertKind.RUN_FAILED, "run-1", "run-1", datetime.now(UTC), "It failed", lasts=False)
    for _ in range(3):
        tell(database, posting, Findings((run,)), load_open_alerts(database))

    assert slack.alerts == [("run_failed", "run-1", False)]
    assert load_known(database, AlertKind.RUN_FAILED, ["run-1", "run-2"]) == {"run-1"}
    assert load_open_alerts(database) == []


@pytest.mark.parametrize("failure", ["refuses", "redirects", "hangs", "is gone"])
def test_what_a_failing_webhook_did_not_take_is_posted_at_the_next_look_that_finds_it_well(
    failure: str,
    database: Database,
    slack: Receiver,
    posting: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(alerting.webhook, "LONGEST_S", 0.3)
    broken = posting
    match failure:
        case "refuses":
            slack.status = 500
        case "redirects":
            slack.status, slack.location = 302, "http://127.0.0.1:9/"
        case "hangs":
            slack.drip_s = 0.05
        case _:
            broken = replace(posting, alert_webhook=type(slack.url)("http://127.0.0.1:9/xyzzyplugh"))
    set_token(database, 1, TokenStatus.INVALID)
    failed = look(database, broken)
    set_token(database, 1, TokenStatus.ACTIVE)
    failed_again = look(database, broken)
    refused = slack.alerts
    slack.status, slack.location, slack.drip_s = 200, None, None
    slack.posted.clear()
    well = [look(database, posting) for _ in range(2)]

    assert refused == ([] if failure == "is gone" else [DEAD, DEAD, ALIVE])
    assert failed.unposted is not None
    assert (len(failed.begun), len(failed_again.ended), failed_again.posted) == (1, 1, 0)
    assert "2 messages, which the next look posts again" in caplog.text
    assert "xyzzyplugh" not in caplog.text + repr(failed)
    assert slack.alerts == [DEAD, ALIVE]
    assert [each.posted for each in well] == [2, 0]


def test_what_a_process_took_and_did_not_post_before_it_died_is_posted_by_another(
    database: Database, slack: Receiver, posting: Settings
) -> None:
    set_token(database, 1, TokenStatus.INVALID)
    open_alerts = load_open_alerts(database)
    slack.on_post = lambda: taken.append(len(take_news(database, lease=timedelta(seconds=20))))
    taken: list[int] = []
    look(database, posting)
    set_token(database, 1, TokenStatus.REVOKED)
    tell(database, TOKENS, Findings(), open_alerts)
    set_token(database, 2, TokenStatus.INVALID)
    changed = find_troubles(database, TOKENS, load_open_alerts(database))
    alerting.save_changes(database, alerting.plan_changes(changed, load_open_alerts(database), now=datetime.now(UTC)))
    died_with = take_news(database, lease=timedelta(seconds=20))
    while_it_is_held = look(database, posting)
    database.execute("UPDATE alerts SET telling_until = telling_until - interval '20 seconds'")
    after = look(database, posting)

    # While one posts, another finds nothing to post.
    assert taken[0] == 0
    assert (len(died_with), while_it_is_held.posted, after.posted) == (3, 0, 3)


def test_without_a_webhook_the_log_is_all_and_one_that_is_set_later_gets_nothing_old(
    database: Database, slack: Receiver, posting: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    set_token(database, 1, TokenStatus.INVALID)
    told = look(database, TOKENS)
    later = look(database, posting)

    assert "Alert: Token TWITTER_BEARER_1 is invalid" in caplog.text
    assert (str(told), str(later), slack.posted) == ("1 new alert", "", [])


def test_the_list_has_what_is_open_first_and_old_ones_are_deleted_in_the_end(database: Database) -> None:
    set_token(database, 1, TokenStatus.INVALID)
    look(database, TOKENS)
    set_token(database, 1, TokenStatus.ACTIVE)
    suspend(database, 7)
    look(database, TOKENS)
    listed = load_alerts(database, count=10)
    alone = load_alerts(database, count=0)
    young = delete_old_alerts(database, keep=timedelta(days=1))
    database.execute(
        "UPDATE alerts SET seen_at = seen_at - interval '2 days', cleared_at = cleared_at - interval '2 days'"
    )
    old = delete_old_alerts(database, keep=timedelta(days=1))

    assert [(each.kind.value, each.cleared_at is None) for each in listed] == [
        ("account_gone", True),
        ("token_out_of_use", False),
    ]
    assert [each.kind for each in alone] == [AlertKind.ACCOUNT_GONE]
    assert (young, old, len(load_alerts(database, count=10))) == (0, 1, 1)
