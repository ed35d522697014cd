"""Runs that work on the same accounts at once: the second sees what the first holds, and nothing is asked for twice."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from twitter_pipeline import history
from twitter_pipeline.coverage import BEYOND_ALL_IDS, LOWEST_ID, IdRange
from twitter_pipeline.errors import Interrupted
from twitter_pipeline.planning import PageVerdict
from twitter_pipeline.prices import Prices
from twitter_pipeline.request import FULL, NEW, FetchMode, FetchRequest
from twitter_pipeline.runs import OpenRun
from twitter_pipeline.sandbox.faults import Faults
from twitter_pipeline.sandbox.windows import USER_TWEETS
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import begin_account, end_account
from twitter_pipeline.store.timelines import PageToSave, TimelineStore
from twitter_pipeline.words import AccountOutcome, FetchKind, RunStatus
from twitter_pipeline_tests.integration.conftest import MakePipeline, Pipeline, quiet

USER = 12
ALL = IdRange(LOWEST_ID, BEYOND_ALL_IDS)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "OTHER_RUN_PAUSE_S", 0.02)


class Desk:
    """One account and runs that are alive, each with its view of the account."""

    def __init__(self, database: Database, cleanup: ExitStack) -> None:
        self.database = database
        self._cleanup = cleanup
        database.execute("INSERT INTO users (id, username) VALUES (%s, 'someone')", (USER,))
        database.execute("INSERT INTO user_state (user_id) VALUES (%s)", (USER,))

    def run(self, lifetime: ExitStack | None = None) -> TimelineStore:
        """Open a run that lives until the test ends, or as long as it is given."""
        request = FetchRequest("someone")
        opened = OpenRun(self.database, dagster_run_id=None, kind=FetchKind.HISTORY, requests=[request])
        run = (lifetime or self._cleanup).enter_context(opened)
        begin_account(self.database, run.id, request, user_id=USER)
        return TimelineStore(self.database, user_id=USER, fetch_run_id=run.id, asked_as="someone")

    def save(self, store: TimelineStore, *, rest: IdRange | None) -> None:
        now = self.database.execute("SELECT now()")[0][0]
        page = PageToSave(tweets=(), verdict=PageVerdict(), rest=rest, read_at=now, call_id=0, calls=1, waited_s=0.0)
        store.save_page(page)


@pytest.fixture
def desk(database: Database) -> Iterator[Desk]:
    with ExitStack() as cleanup:
        yield Desk(database, cleanup)


def test_ids_that_a_run_holds_are_refused_to_others_and_free_bit_by_bit(desk: Desk) -> None:
    first, second = desk.run(), desk.run()

    assert first.claim(ALL)
    assert not second.claim(IdRange(100, 200))
    desk.save(first, rest=IdRange(LOWEST_ID, 150))
    assert not second.claim(IdRange(100, 200))
    assert second.claim(IdRange(150, BEYOND_ALL_IDS))
    assert not first.claim(ALL)
    desk.save(first, rest=None)
    desk.save(second, rest=None)
    assert first.claim(ALL)


def test_a_run_may_claim_anew_what_it_holds(desk: Desk) -> None:
    run = desk.run()

    assert [run.claim(ALL), run.claim(IdRange(1, 9)), run.claim(ALL)] == [True] * 3


def test_what_a_run_held_is_free_when_its_account_ends(desk: Desk) -> None:
    first, second = desk.run(), desk.run()
    first.claim(ALL)
    run_id = desk.database.execute("SELECT fetch_run_id FROM walks")[0][0]
    end_account(desk.database, run_id, "someone", AccountOutcome.DONE)

    assert second.claim(ALL)


def test_what_a_dead_run_held_is_free_at_once(desk: Desk) -> None:
    with ExitStack() as lifetime:
        dead = desk.run(lifetime)
        assert dead.claim(ALL)

    assert desk.database.execute("SELECT status::text FROM fetch_runs") == [("running",)]
    assert desk.run().claim(ALL)


def test_of_many_that_claim_at_the_same_moment_one_gets_it(desk: Desk) -> None:
    stores = [desk.run() for _ in range(4)]
    together = threading.Barrier(len(stores))

    def claim(store: TimelineStore) -> bool:
        together.wait(10)
        return store.claim(ALL)

    for _ in range(20):
        desk.database.execute("DELETE FROM walks")
        with ThreadPoolExecutor(len(stores)) as threads:
            assert sum(threads.map(claim, stores)) == 1


def test_closing_a_run_frees_what_it_held(desk: Desk) -> None:
    request = [FetchRequest("someone")]
    with OpenRun(desk.database, dagster_run_id=None, kind=FetchKind.HISTORY, requests=request) as run:
        TimelineStore(desk.database, user_id=USER, fetch_run_id=run.id, asked_as="someone").claim(ALL)
        run.close(prices=Prices())

        assert desk.database.execute("SELECT count(*) FROM walks") == [(0,)]


def others_of(pipeline: Pipeline, count: int) -> list[Pipeline]:
    """More users of the same sandbox and database, each with runs of its own."""
    return [Pipeline(pipeline.sandbox, pipeline.database, runs=100 * number) for number in range(1, count + 1)]


def at_once(*works: Callable[[], object]) -> None:
    """Do things at the same time, and raise what one of them raises."""
    with ThreadPoolExecutor(len(works)) as threads:
        for done in [threads.submit(work) for work in works]:
            done.result(timeout=60)


def served_twice(pipeline: Pipeline) -> int:
    served = Counter(tweet_id for call in pipeline.sandbox.api.calls for tweet_id in call.ids)
    return sum(count - 1 for count in served.values())


def timeline_calls(pipeline: Pipeline) -> int:
    return sum(call.endpoint == USER_TWEETS for call in pipeline.sandbox.api.calls)


def statuses(pipelines: Sequence[Pipeline]) -> set[RunStatus]:
    return {each.report().status for each in pipelines}


def make(make_pipeline: MakePipeline, **tweets: int) -> Pipeline:
    accounts = [quiet(username, count) for username, count in tweets.items()]
    return make_pipeline(*accounts, tokens=3, record_ids=True, faults=Faults(latency_s=0.003))


def test_runs_over_one_account_at_once_buy_each_tweet_once(make_pipeline: MakePipeline) -> None:
    pipeline = make(make_pipeline, someone=600)
    pipeline.run("someone", mode=FetchMode(5))
    others = others_of(pipeline, 3)

    at_once(*(lambda other=other: other.run("someone") for other in others))

    pipeline.assert_all_is_there("someone")
    assert statuses(others) == {RunStatus.DONE}
    assert served_twice(pipeline) == 0
    # 12 pages below the first, and one look at the head for each run.
    assert timeline_calls(pipeline) <= 1 + 12 + 3
    assert pipeline.coverage("someone")[0].ranges == (IdRange(1, pipeline.sandbox.world.served_ids("someone")[0] + 1),)
    assert pipeline.database.execute("SELECT count(*) FROM walks") == [(0,)]


def test_runs_over_overlapping_lists_buy_each_tweet_once(make_pipeline: MakePipeline) -> None:
    pipeline = make(make_pipeline, a=300, b=300, c=300, d=300)
    one, other = others_of(pipeline, 2)

    at_once(lambda: one.run("a", "b", "c"), lambda: other.run("c", "b", "d"))

    pipeline.assert_all_is_there("a", "b", "c", "d")
    assert statuses([one, other]) == {RunStatus.DONE}
    assert served_twice(pipeline) == 0
    assert timeline_calls(pipeline) <= 4 * 6 + 2


@pytest.mark.parametrize("mode", [FetchMode(100), NEW], ids=str)
def test_a_short_request_or_a_poll_does_not_wait_for_the_whole_history_that_is_being_fetched(
    make_pipeline: MakePipeline, mode: FetchMode
) -> None:
    pipeline = make(make_pipeline, someone=3000)
    history_run, short = others_of(pipeline, 2)
    ended: dict[str, float] = {}

    def note_end(name: str, work: Callable[[], object]) -> None:
        work()
        ended[name] = time.monotonic()

    def fetch_soon_after() -> None:
        while not pipeline.stored("someone"):
            time.sleep(0.005)
        note_end("short", lambda: short.run("someone", mode=mode))

    at_once(lambda: note_end("history", lambda: history_run.run("someone", mode=FULL)), fetch_soon_after)

    assert ended["short"] < ended["history"]
    assert statuses([history_run, short]) == {RunStatus.DONE}
    assert served_twice(pipeline) == 0
    pipeline.assert_all_is_there("someone")


def test_a_run_goes_on_where_another_gave_up(make_pipeline: MakePipeline) -> None:
    pipeline = make(make_pipeline, someone=2000)
    first, second = others_of(pipeline, 2)

    def stop_first() -> None:
        while len(pipeline.stored("someone")) < 300:
            time.sleep(0.005)
        first.stop.set()

    def run_first() -> None:
        with pytest.raises(Interrupted):
            first.run("someone")

    at_once(run_first, stop_first, lambda: second.run("someone"))

    pipeline.assert_all_is_there("someone")
    assert second.report().status is RunStatus.DONE
    assert served_twice(pipeline) == 0


def test_a_run_that_waits_for_another_says_so_and_stops_when_it_is_asked_to(
    make_pipeline: MakePipeline, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="twitter_pipeline")
    pipeline = make(make_pipeline, someone=200)
    (waiting,) = others_of(pipeline, 1)
    pipeline.run("someone", mode=FetchMode(5))
    user_id = pipeline.user_id("someone")
    with OpenRun(pipeline.database, dagster_run_id="holder", kind=FetchKind.HISTORY, requests=[]) as holder:
        TimelineStore(pipeline.database, user_id=user_id, fetch_run_id=holder.id, asked_as="someone").claim(ALL)
        threading.Timer(0.3, lambda: waiting.stop.set()).start()
        with pytest.raises(Interrupted):
            waiting.run("someone")

    assert waiting.report().account_reports[0].outcome is AccountOutcome.INTERRUPTED
    assert caplog.messages.count("@someone waits for another run that is fetching the same tweets") == 1
