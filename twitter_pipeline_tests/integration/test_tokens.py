"""The token pool: waiting for budget, being woken, being stopped, and what an answer does to a token."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from twitter_pipeline import token_check, tokens
from twitter_pipeline.calls import settlement_of
from twitter_pipeline.errors import (
    ApiError,
    ConfigurationError,
    Interrupted,
    NoTokenAvailable,
    ServerFault,
    TokenForbidden,
    TokenRejected,
    UsageCapped,
)
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.store import tokens as store_tokens
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import load_tokens, register_tokens
from twitter_pipeline.store.windows import RELEASE_S, Lease, Settlement, lease_call
from twitter_pipeline.token_check import check_tokens
from twitter_pipeline.tokens import Grant, TokenPool, Waiting
from twitter_pipeline.words import CallOutcome, TokenStatus
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.rate_limit import RateLimits, RateLimitWindow
from twitter_pipeline_tests.conftest import MakeSandbox

SECRETS = {f"TWITTER_BEARER_{number}": BearerToken(f"secret-{number}") for number in (1, 2)}
ENDPOINT = Endpoint.USER_TWEETS


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def pool(database: Database, stop: threading.Event) -> TokenPool:
    return TokenPool(database, {"TWITTER_BEARER_1": SECRETS["TWITTER_BEARER_1"]}, lease_s=60, stop=stop)


def told(remaining: int, *, resets_in_s: float = 600) -> Settlement:
    """A good answer and what it says of the window."""
    now = datetime.now(UTC)
    window = RateLimitWindow(50, remaining, int((now + timedelta(seconds=resets_in_s)).timestamp()))
    return Settlement(CallOutcome.OK, 200, RateLimits(window, None, now.replace(microsecond=0)))


def use_up(pool: TokenPool, *, resets_in_s: float = 600) -> None:
    pool.settle(pool.lease(ENDPOINT).lease, told(0, resets_in_s=resets_in_s))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a suspended token be tested after a moment."""
    monkeypatch.setattr(store_tokens, "SUSPENDED_S", 0.2)


def reject(pool: TokenPool, error: ApiError) -> Lease:
    """Send a call that X refuses."""
    lease = pool.lease(ENDPOINT).lease
    pool.reject(lease, error)
    pool.settle(lease, settlement_of(error))
    return lease


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_grant_brings_the_secret_and_did_not_wait(pool: TokenPool) -> None:
    grant = pool.lease(ENDPOINT, user_id=7, fetch_run_id=8)

    assert (grant.token, grant.lease.env_key, grant.waited_s) == (
        BearerToken("secret-1"),
        "TWITTER_BEARER_1",
        0.0,
    )
    assert (grant.lease.user_id, grant.lease.fetch_run_id) == (7, 8)


def test_without_any_token_there_is_no_pool(database: Database) -> None:
    with pytest.raises(ConfigurationError, match="No bearer token is configured"):
        TokenPool(database, {}, lease_s=60)


def test_tokens_are_registered_by_name_once_from_many_threads(database: Database) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: TokenPool(database, SECRETS, lease_s=60), range(8)))

    assert database.execute("SELECT env_key FROM tokens ORDER BY 1") == [(key,) for key in sorted(SECRETS)]
    assert database.execute("SELECT count(*) FROM tokens_endpoint_rl") == [(2 * len(Endpoint),)]


def test_a_new_endpoint_gets_windows_for_tokens_that_are_known(database: Database) -> None:
    register_tokens(database, SECRETS, ["/old"])
    register_tokens(database, SECRETS, ["/old", "/new"])

    assert database.execute("SELECT count(*) FROM tokens_endpoint_rl WHERE endpoint = '/new'") == [(2,)]


def test_work_waits_for_the_reset_and_says_so_once(pool: TokenPool, caplog: pytest.LogCaptureFixture) -> None:
    use_up(pool, resets_in_s=2)
    with caplog.at_level(logging.INFO, "twitter_pipeline.tokens"), ThreadPoolExecutor(3) as threads:
        waiters = [threads.submit(pool.lease, ENDPOINT) for _ in range(3)]
        eventually(lambda: pool.waiting is not None)
        waiting = pool.waiting
        first = wait(waiters, timeout=20, return_when=FIRST_COMPLETED).done.pop()
        pool.settle(first.result().lease, told(2))
        grants = [waiter.result(timeout=20) for waiter in waiters]

    lines = [line for line in caplog.messages if line.startswith("Waiting for budget for /2/users/:id/tweets until ")]
    assert waiting is not None
    assert (waiting.what, pool.waiting) == (ENDPOINT, None)
    assert (len(lines), lines[0].endswith(" UTC: TWITTER_BEARER_1 used up")) == (1, True)
    assert all(0.5 < grant.waited_s < 20 for grant in grants)


def test_a_pool_with_a_share_takes_what_others_leave_bit_by_bit_and_says_so_once(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"TWITTER_BEARER_1": SECRETS["TWITTER_BEARER_1"]}
    shared, others = TokenPool(database, one, lease_s=60, share=0.8), TokenPool(database, one, lease_s=60)
    # Of 50 calls 4 are left, and 10 times the part of the window that is left are kept.
    shared.settle(shared.lease(ENDPOINT).lease, told(4, resets_in_s=5))
    ((reset_at,),) = database.execute("SELECT max(reset_at) FROM tokens_endpoint_rl")
    asked: list[Lease | None] = []

    def noted(*args: Any, **options: Any) -> Lease | None:
        asked.append(lease_call(*args, **options))
        return asked[-1]

    def call(_: int) -> Grant:
        grant = shared.lease(ENDPOINT)
        shared.settle(grant.lease, Settlement(CallOutcome.OK, 200))
        return grant

    monkeypatch.setattr(tokens, "lease_call", noted)
    with caplog.at_level(logging.INFO, "twitter_pipeline.tokens"), ThreadPoolExecutor(8) as threads:
        waiters = [threads.submit(call, number) for number in range(8)]
        eventually(lambda: shared.waiting is not None)
        waiting = shared.waiting
        at_once = others.lease(ENDPOINT)
        others.settle(at_once.lease, Settlement(CallOutcome.OK, 200))
        eventually(lambda: sum(waiter.done() for waiter in waiters) == 3)
        asked_often = len(asked)
        eventually(lambda: shared.waiting == Waiting(ENDPOINT, reset_at))
        shared.settle(shared.lease(ENDPOINT).lease, told(50))
        grants = sorted((waiter.result(timeout=20) for waiter in waiters), key=lambda grant: grant.lease.called_at)

    assert at_once.waited_s == 0
    assert waiting is not None
    assert waiting.until < reset_at
    called_at = [grant.lease.called_at for grant in grants]
    bit_by_bit = [second - first for first, second in pairwise(called_at[:3])]
    assert min(bit_by_bit) > timedelta(seconds=0.2)
    assert called_at[2] - (reset_at - timedelta(seconds=RELEASE_S)) < timedelta(seconds=1)
    # Eight threads do not all ask for each call that becomes free.
    assert asked_often < 60
    lines = [
        line for line in caplog.messages if line.startswith("Leaving calls of /2/users/:id/tweets to others until")
    ]
    assert lines == [f"{lines[0].partition(' until ')[0]} until {reset_at:%H:%M:%S} UTC, ever fewer: TWITTER_BEARER_1"]


def test_refused_calls_are_logged_once_for_each_pause_and_shown_while_work_waits(
    pool: TokenPool, caplog: pytest.LogCaptureFixture, stop: threading.Event
) -> None:
    pool.settle(pool.lease(ENDPOINT).lease, told(9))
    leases = [pool.lease(ENDPOINT).lease for _ in range(3)]
    with caplog.at_level(logging.INFO, "twitter_pipeline.tokens"), ThreadPoolExecutor(1) as threads:
        for lease in leases:
            pool.settle(lease, Settlement(CallOutcome.TOO_MANY_REQUESTS, 429))
        waiter = threads.submit(pool.lease, ENDPOINT)
        eventually(lambda: pool.waiting is not None)
        waiting = pool.waiting
        stop.set()
        waiter.exception(timeout=20)

    assert waiting is not None
    assert waiting.what == f"refused {ENDPOINT}"
    until = f"{waiting.until:%H:%M:%S} UTC"
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith(f"X refuses calls of {ENDPOINT} to TWITTER_BEARER_1 (429): nothing is sent")
    assert caplog.messages[1] == f"X refuses calls of {ENDPOINT}; nothing is sent until {until}: TWITTER_BEARER_1"


def test_a_settlement_wakes_whoever_waits_for_the_first_answer(pool: TokenPool) -> None:
    probe = pool.lease(ENDPOINT)
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(pool.lease, ENDPOINT)
        time.sleep(0.02)
        pool.settle(probe.lease, told(5))
        grant = waiter.result(timeout=20)

    assert grant.lease.env_key == "TWITTER_BEARER_1"


def test_stopping_ends_every_wait_soon(pool: TokenPool, stop: threading.Event) -> None:
    use_up(pool)
    with ThreadPoolExecutor(4) as threads:
        waiters = [threads.submit(pool.lease, ENDPOINT) for _ in range(4)]
        eventually(lambda: pool.waiting is not None)
        stop.set()
        began = time.monotonic()
        errors = [waiter.exception(timeout=20) for waiter in waiters]

    assert [type(error) for error in errors] == [Interrupted] * 4
    assert time.monotonic() - began < 2
    assert pool.waiting is None


@pytest.mark.usefixtures("hasty")
def test_when_the_last_usable_token_is_rejected_twice_those_who_wait_are_told(
    pool: TokenPool, database: Database
) -> None:
    def call() -> None:
        while True:
            reject(pool, TokenRejected("X says 401", status=401))

    with ThreadPoolExecutor(3) as threads:
        errors = [waiter.exception(timeout=20) for waiter in [threads.submit(call) for _ in range(3)]]

    assert {type(error) for error in errors} == {NoTokenAvailable}
    assert "TWITTER_BEARER_1: invalid since" in str(errors[0])
    assert "X says 401" in str(errors[0])
    assert database.execute("SELECT count(*) FROM api_calls") == [(2,)]


@pytest.mark.parametrize(
    ("error", "first", "second"),
    [
        (TokenRejected("x", status=401), TokenStatus.SUSPENDED, TokenStatus.INVALID),
        (TokenForbidden("x", status=403), TokenStatus.SUSPENDED, TokenStatus.REVOKED),
        (UsageCapped("x", status=402), TokenStatus.CAPPED, None),
        (ServerFault("x", status=503), TokenStatus.ACTIVE, TokenStatus.ACTIVE),
    ],
)
@pytest.mark.usefixtures("hasty")
def test_a_refusal_suspends_the_token_and_that_of_the_test_retires_it(
    pool: TokenPool, database: Database, error: ApiError, first: TokenStatus, second: TokenStatus | None
) -> None:
    reject(pool, error)
    (after_first,) = load_tokens(database)
    if second is not None:
        reject(pool, error)
    (after_second,) = load_tokens(database)

    assert (after_first.status, after_second.status) == (first, second or first)
    assert (after_second.until is not None) == (first is not TokenStatus.ACTIVE)


@pytest.mark.usefixtures("hasty")
def test_a_token_that_was_refused_for_a_moment_goes_on(
    pool: TokenPool, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    refused = reject(pool, TokenRejected("X says 401", status=401))
    with caplog.at_level(logging.INFO, "twitter_pipeline.tokens"):
        grant = pool.lease(ENDPOINT)
        pool.settle(grant.lease, told(9))
        pool.accept(grant.lease)

    (token,) = load_tokens(database)
    assert grant.lease.called_at - refused.called_at >= timedelta(seconds=0.2)
    assert (grant.lease.is_test, token.status, token.reason, token.until) == (True, TokenStatus.ACTIVE, None, None)
    assert "Token TWITTER_BEARER_1 works again" in caplog.messages


@pytest.mark.usefixtures("hasty")
def test_one_call_of_all_processes_tests_a_suspended_token_and_the_others_wait(database: Database) -> None:
    one = {"TWITTER_BEARER_1": SECRETS["TWITTER_BEARER_1"]}
    pools = [TokenPool(database, one, lease_s=60) for _ in range(4)]
    reject(pools[0], TokenRejected("X says 401", status=401))
    endpoints = [ENDPOINT, Endpoint.USERS, Endpoint.USERS_BY, Endpoint.TWEETS]
    with ThreadPoolExecutor(4) as threads:
        waiters = {threads.submit(pool.lease, endpoint): pool for pool, endpoint in zip(pools, endpoints, strict=True)}
        done, waiting = wait(waiters, timeout=20, return_when=FIRST_COMPLETED)
        time.sleep(0.5)
        assert all(not each.done() for each in waiting)
        (test,) = done
        waiters[test].settle(test.result().lease, told(9))
        waiters[test].accept(test.result().lease)
        grants = [each.result(timeout=20) for each in waiting]

    assert test.result().lease.is_test
    assert [grant.lease.is_test for grant in grants] == [False] * 3


@pytest.mark.usefixtures("hasty")
def test_refusals_of_calls_that_were_under_way_retire_nothing(pool: TokenPool, database: Database) -> None:
    pool.settle(pool.lease(ENDPOINT).lease, told(9))
    leases = [pool.lease(ENDPOINT).lease for _ in range(3)]
    for lease in leases:
        pool.settle(lease, Settlement(CallOutcome.TOKEN_REJECTED, 401))
        pool.reject(lease, TokenRejected("X says 401", status=401))

    (token,) = load_tokens(database)
    assert token.status is TokenStatus.SUSPENDED


@pytest.mark.usefixtures("hasty")
def test_a_test_without_an_answer_decides_nothing(pool: TokenPool, database: Database) -> None:
    reject(pool, TokenRejected("X says 401", status=401))
    reject(pool, ServerFault("X says 503", status=503))
    (token,) = load_tokens(database)
    again = pool.lease(ENDPOINT).lease

    assert (token.status, again.is_test) == (TokenStatus.SUSPENDED, True)


@pytest.mark.usefixtures("hasty")
def test_a_retired_token_is_tested_at_growing_intervals_and_keeps_since_when(
    pool: TokenPool, database: Database
) -> None:
    reject(pool, TokenRejected("x", status=401))
    (first,) = load_tokens(database)
    intervals: list[float] = []
    for _ in range(13):
        reject(pool, TokenRejected("y", status=401))
        ((left_s,),) = database.execute(
            "SELECT extract(epoch FROM status_until - clock_timestamp())::float8 FROM tokens"
        )
        intervals.append(left_s)
        database.execute("UPDATE tokens SET status_until = clock_timestamp()")
    (last,) = load_tokens(database)

    assert intervals == pytest.approx([min(60 * 2**n, 86_400) for n in range(13)], abs=2)
    assert (last.since, last.reason) == (first.since, "y")


@pytest.mark.usefixtures("hasty")
def test_a_command_of_a_user_tests_each_retired_token_with_one_call_before_all_others(database: Database) -> None:
    first = TokenPool(database, {"TWITTER_BEARER_1": SECRETS["TWITTER_BEARER_1"]}, lease_s=60)
    for _ in range(2):
        reject(first, TokenRejected("x", status=401))
    plain = TokenPool(database, SECRETS, lease_s=60)
    untested = plain.lease(ENDPOINT).lease
    plain.settle(untested, told(9))
    command = TokenPool(database, SECRETS, lease_s=60, retests=True)
    tests = [reject(command, TokenRejected("x", status=401)), command.lease(ENDPOINT).lease]

    assert (untested.env_key, untested.is_test) == ("TWITTER_BEARER_2", False)
    assert [(lease.env_key, lease.is_test) for lease in tests] == [
        ("TWITTER_BEARER_1", True),
        ("TWITTER_BEARER_2", False),
    ]


@pytest.mark.usefixtures("hasty")
def test_a_403_where_the_token_has_worked_elsewhere_closes_the_endpoint_when_it_is_repeated(
    pool: TokenPool, database: Database
) -> None:
    worked = pool.lease(Endpoint.USERS_BY).lease
    pool.settle(worked, told(9))
    pool.accept(worked)
    reject(pool, TokenForbidden("not enrolled", status=403))
    (after_first,) = load_tokens(database)
    reject(pool, TokenForbidden("not enrolled", status=403))
    (after_second,) = load_tokens(database)

    assert (after_first.status, after_second.status) == (TokenStatus.SUSPENDED, TokenStatus.ACTIVE)
    with pytest.raises(NoTokenAvailable, match="active, but refused there since"):
        pool.lease(ENDPOINT)
    assert pool.lease(Endpoint.USERS_BY).lease.env_key == "TWITTER_BEARER_1"


def test_a_capped_token_whose_date_has_passed_is_active_again_when_it_works(
    pool: TokenPool, database: Database
) -> None:
    first = pool.lease(ENDPOINT).lease
    pool.settle(first, Settlement(CallOutcome.USAGE_CAPPED, 402))
    pool.reject(first, UsageCapped("spent"))
    database.execute("UPDATE tokens SET status_until = now() - interval '1 second'")
    again = pool.lease(ENDPOINT).lease
    pool.accept(again)

    (token,) = load_tokens(database)
    assert (again.is_test, token.status, token.reason, token.until) == (True, TokenStatus.ACTIVE, None, None)


def test_a_command_of_a_user_tests_a_capped_token_and_x_s_date_stays(database: Database) -> None:
    one = {"TWITTER_BEARER_1": SECRETS["TWITTER_BEARER_1"]}
    dated = UsageCapped("spent", status=403)
    dated.until = datetime.now(UTC) + timedelta(days=9)
    reject(TokenPool(database, one, lease_s=60), dated)
    (first,) = load_tokens(database)
    test = reject(TokenPool(database, one, lease_s=60, retests=True), UsageCapped("no credits", status=402))
    (refused,) = load_tokens(database)
    # A second command, whose answer is a fault, leaves the date too.
    command = TokenPool(database, one, lease_s=60, retests=True)
    reject(command, ServerFault("x", status=503))
    database.execute("UPDATE tokens SET status_until = now()")
    (tested,) = load_tokens(database)
    reject(command, UsageCapped("no credits", status=402))
    (after_fault,) = load_tokens(database)

    assert test.is_test
    assert [each.status for each in (first, refused, after_fault)] == [TokenStatus.CAPPED] * 3
    assert {each.until for each in (first, refused, after_fault)} == {dated.until}
    assert {each.since for each in (first, refused, tested, after_fault)} == {first.since}
    # It counts as out of use while the test is under way, so its alert goes on.
    assert (tested.status, tested.out_of_use) == (TokenStatus.SUSPENDED, True)
    with pytest.raises(NoTokenAvailable, match=r"capped since .*, tested again after .* UTC"):
        command.lease(ENDPOINT)


@pytest.mark.parametrize("days", [-1, 33, 4_000])
def test_a_cap_until_a_date_that_cannot_be_one_is_tried_again_daily(
    pool: TokenPool, database: Database, days: int
) -> None:
    error = UsageCapped("spent", status=403)
    error.until = datetime.now(UTC) + timedelta(days=days)
    reject(pool, error)

    (token,) = load_tokens(database)
    assert token.until is not None
    assert timedelta(hours=23) < token.until - datetime.now(UTC) <= timedelta(days=1)


def test_over_real_windows_all_is_used_and_nothing_refused(make_sandbox: MakeSandbox, database: Database) -> None:
    sandbox = make_sandbox([AccountSpec("someone", tweets=5)], tokens=4, window_seconds=2.0, limits={ENDPOINT.value: 6})
    client, user_id = sandbox.client(), int((sandbox.world.user("someone") or {})["id"])
    pool = TokenPool(database, sandbox.bearer_tokens, lease_s=60)

    def call(_: int) -> None:
        grant = pool.lease(ENDPOINT)
        answer = client.fetch_user_tweets(user_id, bearer_token=grant.token, max_results=5)
        pool.settle(grant.lease, Settlement(CallOutcome.OK, 200, answer.rate_limits))

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(call, range(60)))

    assert (sandbox.api.refusals, sandbox.api.statuses()) == (0, {200: 60})


def test_no_secret_is_in_the_database(pool: TokenPool, database: Database) -> None:
    pool.reject(pool.lease(ENDPOINT).lease, TokenRejected("X says 401"))

    dumped = database.execute(
        "SELECT (SELECT json_agg(t)::text FROM tokens t), (SELECT json_agg(w)::text FROM tokens_endpoint_rl w), "
        "(SELECT json_agg(c)::text FROM api_calls c)"
    )
    assert "secret" not in str(dumped)


# `tokens check`


def test_a_check_of_a_refused_token_takes_two_calls_and_retires_it(
    make_sandbox: MakeSandbox, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_tokens, "SUSPENDED_S", 0.1)
    monkeypatch.setattr(token_check, "SUSPENDED_S", 0.1)
    sandbox = make_sandbox(tokens=[TokenSpec("first", state="invalid")])

    checks = check_tokens(sandbox.client(), database, sandbox.bearer_tokens)
    again = check_tokens(sandbox.client(), database, sandbox.bearer_tokens)

    assert [(each.before, each.after) for each in (*checks, *again)] == [
        (TokenStatus.ACTIVE, TokenStatus.INVALID),
        (TokenStatus.INVALID, TokenStatus.INVALID),
    ]
    assert len(sandbox.api.calls) == 3


def test_a_check_clears_what_x_cannot_have_said_and_reports_what_stays_locked(
    make_sandbox: MakeSandbox, database: Database
) -> None:
    sandbox = make_sandbox(tokens=1)
    register_tokens(database, sandbox.bearer_tokens, [endpoint.value for endpoint in Endpoint])
    lock = "UPDATE tokens_endpoint_rl SET remaining = 0, reset_at = %s, reset_epoch = 4000000000 WHERE endpoint = %s"
    for endpoint in (Endpoint.TWEETS, ENDPOINT):
        database.execute(lock, ("2099-01-01", endpoint.value))
    database.execute(lock, (datetime.now(UTC) + timedelta(minutes=9), Endpoint.USERS.value))

    (check,) = check_tokens(sandbox.client(), database, sandbox.bearer_tokens)

    assert (check.tested, check.after) == (True, TokenStatus.ACTIVE)
    assert check.said.startswith(f"it works; nothing is sent to {Endpoint.USERS} until ")
    assert check.said.count("nothing is sent") == 1
    pool = TokenPool(database, sandbox.bearer_tokens, lease_s=60)
    assert pool.lease(ENDPOINT).waited_s == 0
