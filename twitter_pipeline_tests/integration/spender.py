"""`python -m twitter_pipeline_tests.integration.spender URL POSTS SEED`: send calls until a budget is used up.

Eight threads lease calls of at most ten posts under a budget of POSTS a day, and settle them for fewer.
"""

import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from twitter_pipeline.budgets import Budgets, Cost, Limit
from twitter_pipeline.errors import BudgetReached
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.windows import Settlement
from twitter_pipeline.tokens import TokenPool
from twitter_pipeline.words import CallOutcome
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.rate_limit import RateLimits, RateLimitWindow

TOKENS = {f"TWITTER_BEARER_{number}": BearerToken(f"secret-{number}") for number in range(2)}
MOST_A_CALL = 10
EPOCH = 4_000_000_000

LIMITS = RateLimits(window=RateLimitWindow(limit=100_000, remaining=100_000, reset_epoch=EPOCH))


def spend(pool: TokenPool, seed: int) -> int:
    """Send calls until none may be sent any more; return the posts that they were billed."""
    dice, billed = random.Random(seed), 0
    while True:
        try:
            grant = pool.lease(Endpoint.USER_TWEETS, most=Cost(posts=MOST_A_CALL))
        except BudgetReached:
            return billed
        posts = dice.choice([0, 1, 5, MOST_A_CALL])
        pool.settle(
            grant.lease, Settlement(CallOutcome.OK, status=200, rate_limits=LIMITS, billed_posts=posts, billed_users=0)
        )
        billed += posts


def main() -> None:
    """Spend, and print what was billed."""
    url, posts, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    database = Database(url)
    stop = threading.Event()
    pool = TokenPool(database, TOKENS, lease_s=20, stop=stop, budgets=Budgets(day=Limit(posts=posts)))
    with ThreadPoolExecutor(8) as threads:
        print(sum(threads.map(partial(spend, pool), range(100 * seed, 100 * seed + 8))))
    database.close()


if __name__ == "__main__":
    main()
