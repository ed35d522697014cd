"""What the ledger says after real runs: why they left a hole, how much is missing, and that its cure is one."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from twitter_pipeline import calls
from twitter_pipeline.coverage import id_at
from twitter_pipeline.errors import PipelineError
from twitter_pipeline.ledger import Ledger
from twitter_pipeline.request import FULL, FetchMode
from twitter_pipeline.sandbox.faults import FaultKind
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline.store.ledger import load_ledgers
from twitter_pipeline.words import HoleCause
from twitter_pipeline_tests.integration.conftest import MakePipeline, Pipeline, quiet


def ledger(pipeline: Pipeline, username: str = "someone") -> Ledger:
    (found,) = load_ledgers(pipeline.database, user_ids=[pipeline.user_id(username)])
    return found


def run(pipeline: Pipeline, mode: FetchMode = FULL, *, profile_max_age: timedelta = timedelta(days=7)) -> None:
    """Fetch, whatever comes of it."""
    try:
        pipeline.run("someone", mode=mode, profile_max_age=profile_max_age)
    except PipelineError:
        return


def upset(pipeline: Pipeline, script: Callable[[str, int], FaultKind | None] | None) -> None:
    """Let something go wrong with calls from now on, or nothing any more."""
    object.__setattr__(pipeline.sandbox.api.faults, "script", script)


def stopped_at(pipeline: Pipeline, call: int) -> Callable[[str, int], FaultKind | None]:
    def script(_: str, number: int) -> FaultKind | None:
        if number == call:
            pipeline.stop.set()
        return None

    return script


@pytest.mark.parametrize("mode", [FULL, FetchMode(250)])
def test_what_a_stopped_run_left_is_interrupted(make_pipeline: MakePipeline, mode: FetchMode) -> None:
    pipeline = make_pipeline(quiet("someone", 300))
    upset(pipeline, stopped_at(pipeline, 3))
    run(pipeline, mode)
    (hole,) = ledger(pipeline).holes
    stored = pipeline.stored("someone")

    assert 0 < len(stored) < 250
    assert (hole.cause, hole.size) == (HoleCause.INTERRUPTED, 300 - len(stored))
    assert hole.at.ids.hi == stored[-1]
    assert hole.fill == "twitter-pipeline fetch @someone"
    upset(pipeline, None)
    run(pipeline)
    assert ledger(pipeline).holes == ()


def test_what_a_run_without_a_token_left_is_capped(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("someone", 300), tokens=[TokenSpec("only", post_cap=120)])
    run(pipeline)

    assert [hole.cause for hole in ledger(pipeline).holes] == [HoleCause.CAPPED]


def test_what_a_failing_api_left_is_a_fault(make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "TRIES_ON_FAULT", 1)
    pipeline = make_pipeline(quiet("someone", 300))
    upset(pipeline, lambda _, number: "503" if number >= 3 else None)
    run(pipeline)

    assert [hole.cause for hole in ledger(pipeline).holes] == [HoleCause.FAULT]


def test_what_was_protected_is_told_as_such(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("someone", 100))
    run(pipeline, FetchMode(50))
    limited = [hole.cause for hole in ledger(pipeline).holes]
    pipeline.sandbox.world.set_availability("someone", "protected")
    run(pipeline)

    assert limited == [HoleCause.NOT_ASKED]
    assert [hole.cause for hole in ledger(pipeline).holes] == [HoleCause.PROTECTED]


def test_beyond_the_newest_3200_lies_what_x_counts_besides(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(quiet("someone", 3400))
    pipeline.run("someone", page_size=100)
    found = ledger(pipeline)
    (hole,) = found.holes
    truth = pipeline.sandbox.world.served_ids("someone")

    assert (hole.cause, hole.size) == (HoleCause.BEYOND_REACH, 200)
    assert str(hole.fill).startswith("twitter-pipeline backfill someone --from ")
    assert hole.at.since == found.account.created_at
    assert {each for each in truth if each in hole.at.months.ids} >= {each for each in truth if each in hole.at.ids}


def test_the_size_of_a_hole_between_two_fetches_is_estimated_by_the_tweets_around_it(
    make_pipeline: MakePipeline,
) -> None:
    now = [time.time() - 86_400 * 30]
    even = quiet("someone", 2000, tweets_per_day=60, first_tweet_at=now[0] - 86_400 * 33)
    pipeline = make_pipeline(even, clock=lambda: now[0])
    run(pipeline, FetchMode(100))
    now[0] += 86_400 * 20
    run(pipeline, FetchMode(100), profile_max_age=timedelta(0))
    between, below = ledger(pipeline).holes
    missing = [each for each in pipeline.sandbox.world.served_ids("someone") if each in between.at.ids]

    assert (between.cause, between.is_interior, below.is_interior) == (HoleCause.NOT_ASKED, True, False)
    assert len(missing) > 500
    assert between.size is not None
    assert len(missing) * 0.7 < between.size < len(missing) * 1.4
    assert between.at.ids.lo >= id_at(below.at.until)
