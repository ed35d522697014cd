"""Workers tell each other which tokens they have; only a worker that lives counts."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from twitter_pipeline.held_tokens import hold_tokens
from twitter_pipeline.runs import step_alone
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import FitTokens, find_fit_tokens, register_tokens, save_token_status
from twitter_pipeline.words import TokenStatus
from twitter_pipeline.x_api.endpoints import Endpoint

# Hashes of either sign.
MINE, THEIRS = ["TWITTER_BEARER_1"], [f"TWITTER_BEARER_{number}" for number in range(2, 8)]


@contextmanager
def another_worker(url: str, *env_keys: str) -> Iterator[None]:
    ends, other = threading.Event(), Database(url, pool_size=1)
    thread = threading.Thread(target=hold_tokens, args=(other, env_keys), kwargs={"until": ends})
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
        other.close()


def soon(database: Database, expected: FitTokens) -> None:
    deadline = time.monotonic() + 20
    while (found := find_fit_tokens(database, MINE)) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


@pytest.mark.parametrize("key", THEIRS)
def test_a_token_is_elsewhere_while_a_worker_lives_that_has_it(database: Database, database_url: str, key: str) -> None:
    register_tokens(database, [*MINE, *THEIRS], [endpoint.value for endpoint in Endpoint])

    assert find_fit_tokens(database, MINE) == FitTokens(here=True, elsewhere=False)
    with another_worker(database_url, key):
        soon(database, FitTokens(here=True, elsewhere=True))
    soon(database, FitTokens(here=True, elsewhere=False))


def test_a_token_that_is_out_of_use_counts_nowhere(database: Database, database_url: str) -> None:
    register_tokens(database, [*MINE, THEIRS[0]], [endpoint.value for endpoint in Endpoint])
    with another_worker(database_url, THEIRS[0]):
        soon(database, FitTokens(here=True, elsewhere=True))
        for (token_id,) in database.execute("SELECT id FROM tokens"):
            save_token_status(database, token_id, TokenStatus.REVOKED, reason="a test")

        assert find_fit_tokens(database, MINE) == FitTokens(here=False, elsewhere=False)


def test_a_step_is_worked_on_by_one_at_a_time(database: Database, database_url: str) -> None:
    order: list[str] = []

    def second() -> None:
        with step_alone(database, "run", "step"):
            order.append("second")

    with step_alone(database, "run", "step"):
        waiting = threading.Thread(target=second)
        waiting.start()
        with step_alone(database, "run", "another step"):
            order.append("another step")
        time.sleep(0.2)
        order.append("first")
    waiting.join()

    assert order == ["another step", "first", "second"]
