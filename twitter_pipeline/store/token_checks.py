"""The statement on `tokens_endpoint_rl` and `api_calls` that tests a token which nobody may lease."""

from collections.abc import Sequence

from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import TokenState
from twitter_pipeline.store.windows import Lease
from twitter_pipeline.words import TokenStatus
from twitter_pipeline.x_api.endpoints import Endpoint

# Counted as in flight and written to api_calls like every other call; it is settled in the same way.
BEGIN_CHECK = """
WITH taken AS (
    UPDATE tokens_endpoint_rl SET in_flight = in_flight + 1, leased_at = clock_timestamp()
    WHERE token_id = %(token_id)s AND endpoint = %(endpoint)s
    RETURNING token_id, endpoint, leased_at, undescribed
)
INSERT INTO api_calls (called_at, endpoint, token_id)
SELECT leased_at, endpoint, token_id FROM taken
RETURNING id, called_at, (SELECT undescribed FROM taken)
"""

# What no response can have said stems from a clock of this server that was wrong.
FORGET = """
UPDATE tokens_endpoint_rl
SET remaining = NULL, reset_at = NULL, reset_epoch = NULL, day_remaining = NULL, day_reset_at = NULL,
    day_reset_epoch = NULL, paused_until = NULL, known_at = NULL, answered_at = NULL, answered_call_at = NULL
WHERE token_id = ANY (%(token_ids)s) AND (
    reset_at > now() + interval '1 hour' OR day_reset_at > now() + interval '48 hours'
    OR paused_until > now() + interval '48 hours' OR known_at > now() + interval '1 minute'
)
"""


def forget_impossible_state(database: Database, token_ids: Sequence[int]) -> None:
    """Clear windows and pauses of tokens that lie farther ahead than X can have said."""
    database.execute(FORGET, {"token_ids": list(token_ids)})


def begin_check(database: Database, token: TokenState, endpoint: Endpoint) -> Lease:
    """Take the right to one call with a token that is out of use, whatever its window says."""
    params = {"token_id": token.id, "endpoint": endpoint.value}
    call_id, called_at, undescribed = database.execute(BEGIN_CHECK, params)[0]
    return Lease(
        call_id=call_id,
        token_id=token.id,
        env_key=token.env_key,
        endpoint=endpoint,
        called_at=called_at,
        user_id=None,
        fetch_run_id=None,
        is_test=token.status is not TokenStatus.ACTIVE,
        undescribed=undescribed,
    )
