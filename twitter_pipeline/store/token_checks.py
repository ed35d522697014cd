"""The statement on `tokens_endpoint_rl` and `api_calls` that tests a token which nobody may lease."""

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
    RETURNING token_id, endpoint, leased_at
)
INSERT INTO api_calls (called_at, endpoint, token_id)
SELECT leased_at, endpoint, token_id FROM taken
RETURNING id, called_at
"""


def begin_check(database: Database, token: TokenState, endpoint: Endpoint) -> Lease:
    """Take the right to one call with a token that is out of use, whatever its window says."""
    call_id, called_at = database.execute(BEGIN_CHECK, {"token_id": token.id, "endpoint": endpoint.value})[0]
    return Lease(
        call_id=call_id,
        token_id=token.id,
        env_key=token.env_key,
        endpoint=endpoint,
        called_at=called_at,
        user_id=None,
        fetch_run_id=None,
        was_capped=token.status is TokenStatus.CAPPED,
    )
