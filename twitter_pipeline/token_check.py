"""Test tokens: a call that costs nothing, and what its answer says of the token."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from twitter_pipeline.calls import settlement_of, settlement_of_answer
from twitter_pipeline.errors import ApiError
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.store.activity import load_all_windows
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.token_checks import begin_check, forget_impossible_state
from twitter_pipeline.store.tokens import (
    SUSPENDED_S,
    TokenState,
    load_tokens,
    postpone_test,
    register_tokens,
    save_token_status,
)
from twitter_pipeline.store.windows import Lease, lease_call, settle_call
from twitter_pipeline.token_page import free_at, is_used_up
from twitter_pipeline.tokens import retire, save_retirement
from twitter_pipeline.words import TokenStatus
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline.x_api.endpoints import Endpoint

NO_TWEET = 1
"""A tweet id that never was (the oldest is 20): X bills only what it finds, and a cap on posts shows all the same."""

SIDE_BY_SIDE = 8


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """What a test found: the token's status before and after, and why.

    With `tested` False the answer said nothing of the token, or none came; its status is as it was.
    """

    env_key: str
    before: TokenStatus
    after: TokenStatus
    said: str
    tested: bool = True


def check_tokens(client: XApiClient, database: Database, bearer_tokens: Mapping[str, BearerToken]) -> list[TokenCheck]:
    """Test each token and set its status accordingly; return what was found, by name.

    That takes one call each, and a second one, some seconds later, where X refuses a token that has worked. Windows
    and pauses that X cannot have meant are cleared; those that remain are reported.
    """
    register_tokens(database, bearer_tokens, [endpoint.value for endpoint in Endpoint])
    tokens = load_tokens(database, list(bearer_tokens))
    forget_impossible_state(database, [token.id for token in tokens])
    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        secrets = [bearer_tokens[token.env_key] for token in tokens]
        checks = list(threads.map(partial(_check, client, database), tokens, secrets))
    locked = _locked_endpoints(database)
    return [replace(each, said="; ".join([each.said, *locked.get(each.env_key, [])])) for each in checks]


def _check(client: XApiClient, database: Database, token: TokenState, secret: BearerToken) -> TokenCheck:
    check = _test(client, database, token, secret)
    if check.after is not TokenStatus.SUSPENDED or not check.tested:
        return check
    time.sleep(SUSPENDED_S)
    (suspended,) = load_tokens(database, [token.env_key])
    return replace(_test(client, database, suspended, secret), before=token.status)


def _test(client: XApiClient, database: Database, token: TokenState, secret: BearerToken) -> TokenCheck:
    lease = lease_call(database, Endpoint.TWEETS, [token.env_key], lease_s=client.longest_call_s)
    if lease is None and token.status is TokenStatus.ACTIVE:
        # Sending one more call would be refused, and says nothing of the token.
        return _untested(token, f"not tested: its calls to {Endpoint.TWEETS} are used up for now")
    lease = lease or begin_check(database, token, Endpoint.TWEETS)
    try:
        answer = client.fetch_tweets([NO_TWEET], bearer_token=secret)
    except ApiError as error:
        settle_call(database, lease, settlement_of(error))
        return _judge_refusal(database, token, lease, error)
    settle_call(database, lease, settlement_of_answer(answer))
    save_token_status(database, token.id, TokenStatus.ACTIVE)
    return TokenCheck(token.env_key, token.status, TokenStatus.ACTIVE, "it works")


def _judge_refusal(database: Database, token: TokenState, lease: Lease, error: ApiError) -> TokenCheck:
    retirement = retire(error, now=datetime.now(UTC))
    if retirement is None:
        postpone_test(database, token.id)
        return _untested(token, str(error))
    saved = save_retirement(database, lease, error, *retirement)
    status = saved[0] if saved else token.status
    return TokenCheck(token.env_key, token.status, status, str(error))


def _locked_endpoints(database: Database) -> dict[str, list[str]]:
    """Return by token where nothing is sent for now, and until when."""
    locked: dict[str, list[str]] = {}
    for each in load_all_windows(database):
        until = free_at(each)
        if until is not None and is_used_up(each):
            at = f"{until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
            locked.setdefault(each.env_key, []).append(f"nothing is sent to {each.endpoint} until {at}")
    return locked


def _untested(token: TokenState, said: str) -> TokenCheck:
    return TokenCheck(token.env_key, token.status, token.status, said, tested=False)
