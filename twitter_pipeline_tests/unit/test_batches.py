"""Accounts that travel from step to step, through JSON."""

from datetime import UTC, date, datetime

import orjson
import pytest

from twitter_pipeline.accounts import Account
from twitter_pipeline.months import Months
from twitter_pipeline.orchestration.batches import (
    Batch,
    accounts_of,
    batch_of,
    batch_of_requests,
    requests_not_looked_up,
)
from twitter_pipeline.request import FULL, NEW, FetchMode, FetchRequest
from twitter_pipeline.words import Source

SPRING = Months(date(2023, 3, 1), date(2023, 5, 1))
MODES = [
    FULL,
    NEW,
    FetchMode(limit=200),
    FetchMode(months=SPRING),
    FetchMode(months=SPRING, source=Source.SEARCH),
    FetchMode(months=SPRING, source=Source.TIMELINE),
]


def sent(batch: Batch) -> Batch:
    return orjson.loads(orjson.dumps(batch))


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("counted_at", [None, datetime(2026, 11, 1, 12, 30, tzinfo=UTC)])
def test_accounts_arrive_as_they_were_sent(mode: FetchMode, counted_at: datetime | None) -> None:
    request = FetchRequest("nasa", track_after=True, fetch_mode=mode, user_id=2**62 if mode.months else None)
    accounts = [
        Account(request=request, user_id=2**62, tweet_count=70_000, counted_at=counted_at, note="was nasa_old"),
        Account(request=request, user_id=7, tweet_count=None, counted_at=None, note=None),
    ]

    assert accounts_of(sent(batch_of(accounts))) == accounts
    assert requests_not_looked_up(sent(batch_of(accounts))) == []


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_requests_whose_names_were_not_looked_up_arrive_as_such(mode: FetchMode) -> None:
    requests = [FetchRequest("nasa", fetch_mode=mode), FetchRequest("esa", track_after=True, fetch_mode=mode)]

    assert requests_not_looked_up(sent(batch_of_requests(requests))) == requests
    assert accounts_of(sent(batch_of_requests(requests))) == []
