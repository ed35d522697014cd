"""Test tokens: one call each that costs nothing, and what its answer says of the token."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from twitter_pipeline.calls import settlement_of, settlement_of_answer
from twitter_pipeline.errors import ApiError
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.token_checks import begin_check
from twitter_pipeline.store.tokens import TokenState, load_tokens, register_tokens, save_token_status
from twitter_pipeline.store.windows import lease_call, settle_call
from twitter_pipeline.tokens import retire
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
    """Test each token with one call and set its status accordingly; return what was found, by name."""
    register_tokens(database, bearer_tokens, [endpoint.value for endpoint in Endpoint])
    tokens = load_tokens(database, list(bearer_tokens))
    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        secrets = [bearer_tokens[token.env_key] for token in tokens]
        return list(threads.map(partial(_check, client, database), tokens, secrets))


def _check(client: XApiClient, database: Database, token: TokenState, secret: BearerToken) -> TokenCheck:
    lease = lease_call(database, Endpoint.TWEETS, [token.env_key], lease_s=client.longest_call_s)
    if lease is None and token.status is TokenStatus.ACTIVE:
        # Sending one more call would be refused, and says nothing of the token.
        return _untested(token, f"not tested: its calls to {Endpoint.TWEETS} are used up for now")
    lease = lease or begin_check(database, token, Endpoint.TWEETS)
    try:
        answer = client.fetch_tweets([NO_TWEET], bearer_token=secret)
    except ApiError as error:
        settle_call(database, lease, settlement_of(error))
        return _judge_refusal(database, token, error)
    settle_call(database, lease, settlement_of_answer(answer))
    return _save(database, token, TokenStatus.ACTIVE, "it works")


def _judge_refusal(database: Database, token: TokenState, error: ApiError) -> TokenCheck:
    retirement = retire(error, now=datetime.now(UTC))
    if retirement is None:
        return _untested(token, str(error))
    status, until = retirement
    return _save(database, token, status, str(error), until=until)


def _save(
    database: Database, token: TokenState, status: TokenStatus, said: str, *, until: datetime | None = None
) -> TokenCheck:
    reason = None if status is TokenStatus.ACTIVE else said
    save_token_status(database, token.id, status, reason=reason, until=until)
    return TokenCheck(token.env_key, token.status, status, said)


def _untested(token: TokenState, said: str) -> TokenCheck:
    return TokenCheck(token.env_key, token.status, token.status, said, tested=False)
