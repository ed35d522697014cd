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

from twitter_pipeline import tokens
from twitter_pipeline.errors import (
    ConfigurationError,
    Interrupted,
    NoTokenAvailable,
    ServerFault,
    TokenForbidden,
    TokenRejected,
    UsageCapped,
)
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import load_tokens, register_tokens
from twitter_pipeline.store.windows import RELEASE_S, Lease, Settlement, lease_call
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


def test_when_the_last_usable_token_is_rejected_those_who_wait_are_told(pool: TokenPool) -> None:
    probe = pool.lease(ENDPOINT)
    with ThreadPoolExecutor(2) as threads:
        waiters = [threads.submit(pool.lease, ENDPOINT) for _ in range(2)]
        pool.settle(probe.lease, Settlement(CallOutcome.TOKEN_REJECTED, 401))
        pool.reject(probe.lease, TokenRejected("X says 401", status=401))
        errors = [waiter.exception(timeout=20) for waiter in waiters]

    # One of them may have been handed the token in between; what it sends is refused as well.
    told_so = [error for error in errors if error is not None]
    assert len(told_so) >= 1
    assert {type(error) for error in told_so} == {NoTokenAvailable}
    assert "TWITTER_BEARER_1: invalid since" in str(told_so[0])
    assert "X says 401" in str(told_so[0])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TokenRejected("x"), TokenStatus.INVALID),
        (TokenForbidden("x"), TokenStatus.REVOKED),
        (UsageCapped("x"), TokenStatus.CAPPED),
        (ServerFault("x"), TokenStatus.ACTIVE),
    ],
)
def test_an_answer_takes_the_token_out_of_use_where_it_concerns_it(
    pool: TokenPool, database: Database, error: TokenRejected, status: TokenStatus
) -> None:
    pool.reject(pool.lease(ENDPOINT).lease, error)

    (token,) = load_tokens(database)
    assert token.status is status
    assert (token.until is not None) == (status is TokenStatus.CAPPED)


def test_saying_the_same_of_a_token_again_keeps_since_when(pool: TokenPool, database: Database) -> None:
    lease = pool.lease(ENDPOINT).lease
    pool.reject(lease, TokenRejected("x"))
    (first,) = load_tokens(database)
    pool.reject(lease, TokenRejected("y"))
    (second,) = load_tokens(database)

    assert (second.since, second.reason) == (first.since, "y")


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
    assert (again.was_capped, token.status, token.reason, token.until) == (True, TokenStatus.ACTIVE, None, None)


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
