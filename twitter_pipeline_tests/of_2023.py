"""Accounts that tweeted in 2023 alone, and a plan that has no archive, for the tests of backfills."""

from datetime import UTC, date, datetime
from typing import Any

import orjson

from twitter_pipeline.months import Months
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.faults import Fault, RawAnswer
from twitter_pipeline.sandbox.windows import SEARCH_ALL

DAY_S = 86_400
NEW_YEAR_S = datetime(2023, 1, 1, tzinfo=UTC).timestamp()
SPRING = Months(date(2023, 3, 1), date(2023, 5, 1))

NOT_ENROLLED = RawAnswer(
    403,
    orjson.dumps(
        {
            "title": "Client Forbidden",
            "detail": "This endpoint is not in the plan of the app.",
            "reason": "client-not-enrolled",
            "type": "https://api.x.com/2/problems/client-forbidden",
            "status": 403,
        }
    ),
    {},
)


def no_archive(endpoint: str, _: int) -> Fault | None:
    """A script of faults: the plan of no token has the archive search."""
    return NOT_ENROLLED if endpoint == SEARCH_ALL else None


def of_a_year(name: str, tweets: int = 73, **wishes: Any) -> AccountSpec:
    """An account that tweets evenly over 2023, every five days, and is silent since."""
    return AccountSpec(
        name,
        tweets=tweets,
        created_at=NEW_YEAR_S - 400 * DAY_S,
        first_tweet_at=NEW_YEAR_S,
        last_tweet_at=NEW_YEAR_S + 364 * DAY_S,
        **wishes,
    )
