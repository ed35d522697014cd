"""How many worker processes a request is worth, and how many threads each gets."""

from datetime import UTC, date, datetime

import pytest

from twitter_pipeline.accounts import Account
from twitter_pipeline.request import FULL, NEW, FetchMode, FetchRequest
from twitter_pipeline.workers import fetcher
from twitter_pipeline.workers.fetcher import PAGES_WORTH_WORKERS, divide_threads
from twitter_pipeline.workers.messages import decode_account, encode_line

ENOUGH = PAGES_WORTH_WORKERS


@pytest.mark.parametrize(
    ("concurrency", "accounts", "pages", "cores", "threads"),
    [
        (16, 40, ENOUGH, 2, [8, 8]),
        (16, 40, ENOUGH, 3, [6, 5, 5]),
        (16, 40, ENOUGH, 64, [2] * 8),
        (3, 40, ENOUGH, 8, [1, 1, 1]),
        (16, 2, ENOUGH, 8, [8, 8]),
        (16, 40, ENOUGH - 1, 8, []),
        (16, 40, ENOUGH, 1, []),
        (16, 1, ENOUGH, 8, []),
        (1, 40, ENOUGH, 8, []),
    ],
    ids=[
        "a worker a core",
        "all threads are given out",
        "no more workers than a maximum",
        "no more workers than threads",
        "no more workers than accounts",
        "a small request",
        "one core",
        "one account",
        "one thread",
    ],
)
def test_workers_are_worth_it_for_large_requests_where_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, concurrency: int, accounts: int, pages: int, cores: int, threads: list[int]
) -> None:
    monkeypatch.setattr(fetcher, "usable_cores", lambda: cores)

    assert divide_threads(concurrency, accounts=accounts, pages=pages) == threads


@pytest.mark.parametrize("mode", [FULL, NEW, FetchMode(200), FetchMode(swept_day=date(2026, 11, 20))], ids=str)
def test_a_worker_gets_an_account_as_it_was_given(mode: FetchMode) -> None:
    account = Account(FetchRequest("nasa", True, mode), 2**62, 12, datetime(2026, 11, 20, 12, tzinfo=UTC), "renamed")

    assert decode_account(encode_line(account)) == account
