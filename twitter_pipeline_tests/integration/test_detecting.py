"""Which accounts have news, asked many at a time: side by side, and by the timelines where no token may ask."""

import json
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from twitter_pipeline.detection import current_detection
from twitter_pipeline.errors import NoTokenAvailable
from twitter_pipeline.request import NEW, FetchRequest
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.faults import Faults, RawAnswer
from twitter_pipeline.sandbox.windows import SEARCH_RECENT, USER_TWEETS, USERS
from twitter_pipeline.session import FetchSession
from twitter_pipeline.settings import Detection, Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import load_tokens
from twitter_pipeline.watch import plan_next_polls
from twitter_pipeline.words import AccountOutcome, FetchKind, TokenStatus
from twitter_pipeline_tests.conftest import MakeSandbox, Sandbox

QUOTED = {
    entry["name"]: RawAnswer(entry["status"], json.dumps(entry["body"]).encode(), entry["headers"])
    for entry in json.loads((Path(__file__).parents[1] / "payloads" / "x_api_problem_bodies.json").read_text())
}
NOT_FOR_US = QUOTED["unsupported_authentication_app_only"]
ENDPOINTS = {Detection.USERS: USERS, Detection.SEARCH: SEARCH_RECENT}
THREE_CALLS = {Detection.USERS: 210, Detection.SEARCH: 60}
"""Accounts: 100 go into a look-up, 25 of these names into a search."""
PATIENCE_S = 20.0


@dataclass
class Watch:
    """Tracked accounts that have been silent since before they were tracked, and runs that poll them."""

    sandbox: Sandbox
    database: Database
    settings: Settings
    names: list[str]

    def poll(self) -> Counter[str]:
        """Poll all of them as a run does; return the calls by endpoint."""
        before = self.calls()
        with self.session() as session:
            session.fetch_all()
            reports = session.account_reports()
        assert {each.outcome for each in reports} == {AccountOutcome.DONE}
        plan_next_polls(self.database, self.settings, reports)
        return self.calls() - before

    def session(self) -> FetchSession:
        requests = [FetchRequest(name, fetch_mode=NEW) for name in self.names]
        return FetchSession(self.settings, self.database, requests=requests, kind=FetchKind.INCREMENTAL)

    def calls(self) -> Counter[str]:
        """Count by endpoint the calls that the API has had, also those that it refused."""
        return Counter(call.endpoint for call in self.sandbox.api.calls)

    def refuse(self, endpoint: str, answer: RawAnswer) -> None:
        self.sandbox.api.faults = Faults(script=lambda called, _: answer if called == endpoint else None)


MakeWatch = Callable[..., Watch]


@pytest.fixture
def make_watch(make_sandbox: MakeSandbox, database: Database, database_url: str) -> MakeWatch:
    """Make watches: `make_watch(120, Detection.USERS)`."""

    def make(accounts: int, detection: Detection) -> Watch:
        names = [f"account_{number:03}" for number in range(accounts)]
        last_tweet_at = time.time() - 3 * 86_400
        sandbox = make_sandbox([AccountSpec(name, tweets=3, last_tweet_at=last_tweet_at) for name in names], tokens=2)
        settings = replace(
            Settings(),
            bearer_tokens=sandbox.bearer_tokens,
            api_url=sandbox.serve(),
            database_url=database_url,
            concurrency=4,
        )
        watch = Watch(sandbox, database, settings, names)
        with watch.session() as session:
            session.resolve()
        database.execute(
            "UPDATE user_state SET is_tracked = true, tracked_since = now(), last_polled_at = now(),"
            " timeline_read_at = now()"
        )
        watch.settings = replace(settings, watch_detection=detection)
        return watch

    return make


@pytest.mark.parametrize("detection", list(ENDPOINTS))
def test_what_takes_several_calls_is_asked_side_by_side(make_watch: MakeWatch, detection: Detection) -> None:
    watch = make_watch(THREE_CALLS[detection], detection)
    # A token that nothing is known of sends one call at a time.
    watch.database.execute(
        "UPDATE tokens_endpoint_rl SET \"limit\" = 300, remaining = 300, reset_at = now() + interval '15 minutes'"
    )
    watch.sandbox.api.faults = Faults(latency_s=2.0)

    assert watch.poll() == {ENDPOINTS[detection]: 3}
    # All had arrived before one was answered, but for the first, which shows whether X takes such a request.
    _, *others = [call.at for call in watch.sandbox.api.calls if call.endpoint == ENDPOINTS[detection]]
    assert max(others) - min(others) < 2.0


@pytest.mark.parametrize("detection", list(ENDPOINTS))
def test_a_look_that_fails_leaves_the_others_alone_and_its_accounts_to_their_timelines(
    make_watch: MakeWatch, detection: Detection
) -> None:
    watch = make_watch(THREE_CALLS[detection], detection)
    answers = [RawAnswer(400, b'{"title": "Invalid Request"}'), None, None]
    watch.sandbox.api.faults = Faults(script=answers, endpoints=frozenset({ENDPOINTS[detection]}))

    calls = watch.poll()

    assert calls[ENDPOINTS[detection]] == 3
    assert calls[USER_TWEETS] in (10, 25, 100)


@pytest.mark.parametrize("detection", list(ENDPOINTS))
def test_an_interrupted_look_leaves_no_thread_behind_although_all_wait_for_budget(
    make_watch: MakeWatch, detection: Detection
) -> None:
    watch = make_watch(THREE_CALLS[detection], detection)
    watch.database.execute(
        "UPDATE tokens_endpoint_rl SET remaining = 0, in_flight = 0, reset_at = now() + interval '1 minute'"
    )

    def looks() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("detect")]

    def interrupt() -> None:
        while not looks():
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    began = time.monotonic()
    with watch.session() as session, pytest.raises(KeyboardInterrupt):
        session.fetch_all()

    assert time.monotonic() - began < PATIENCE_S
    # One that was just being started when the signal came ends by itself.
    while looks() and time.monotonic() - began < PATIENCE_S:
        time.sleep(0.01)
    assert looks() == []
    assert watch.database.execute("SELECT status::text FROM fetch_runs ORDER BY id DESC LIMIT 1") == [("cancelled",)]


@pytest.mark.parametrize("refusal", ["unsupported_authentication_app_only", "client_not_enrolled"])
@pytest.mark.parametrize("detection", list(ENDPOINTS))
def test_where_no_token_may_detect_news_the_timelines_are_asked_and_that_is_said_once(
    make_watch: MakeWatch, caplog: pytest.LogCaptureFixture, detection: Detection, refusal: str
) -> None:
    watch, endpoint = make_watch(3, detection), ENDPOINTS[detection]
    watch.refuse(endpoint, QUOTED[refusal])
    with caplog.at_level(logging.WARNING):
        first, second = watch.poll(), watch.poll()
    said = [record.getMessage() for record in caplog.records if "timelines" in record.getMessage()]
    # An hour later it is asked again, and X may have changed its mind.
    watch.database.execute("UPDATE api_calls SET called_at = called_at - interval '61 minutes'")
    watch.sandbox.api.faults = Faults()

    assert first == {endpoint: 2, USER_TWEETS: 3}
    assert second == {USER_TWEETS: 3}
    assert said == [f"No token can call {endpoint} to detect news; the timelines are asked instead"]
    assert [token.status for token in load_tokens(watch.database)] == [TokenStatus.ACTIVE] * 2
    assert watch.poll() == {endpoint: 1}


def test_while_profiles_are_refused_a_poll_is_counted_as_one_account(make_watch: MakeWatch) -> None:
    watch = make_watch(3, Detection.USERS)
    watch.settings = replace(
        watch.settings, watch_polls_per_hour=1, watch_shortest=timedelta(minutes=1), watch_longest=timedelta(hours=6)
    )
    watch.poll()
    by_profiles = next_polls_h(watch)
    watch.refuse(USERS, NOT_FOR_US)
    watch.poll()

    # A hundred accounts a call: every minute or two. One a call: a poll an hour for all three, at moments that chance
    # spreads.
    assert by_profiles < 0.1
    assert 1 < next_polls_h(watch) < 6


def next_polls_h(watch: Watch) -> float:
    """Return in how many hours the accounts are polled next, on average."""
    rows = watch.database.execute("SELECT avg(extract(epoch FROM next_poll_at - now()))::float8 / 3600 FROM user_state")
    return float(rows[0][0])


def test_one_token_that_may_ask_is_enough(make_watch: MakeWatch) -> None:
    watch = make_watch(3, Detection.USERS)
    watch.sandbox.api.faults = Faults(script=[NOT_FOR_US], endpoints=frozenset({USERS}))

    assert watch.poll() == {USERS: 2}
    assert watch.poll() == {USERS: 1}


def test_auto_passes_over_what_is_refused(make_watch: MakeWatch) -> None:
    watch = make_watch(3, Detection.USERS)
    watch.refuse(USERS, NOT_FOR_US)
    watch.poll()
    watch.settings = replace(watch.settings, watch_detection=Detection.AUTO)
    plenty = current_detection(watch.database, watch.settings)
    watch.database.execute('UPDATE tokens_endpoint_rl SET "limit" = 1 WHERE endpoint = %s', (USER_TWEETS,))
    too_few = current_detection(watch.database, watch.settings)
    watch.refuse(SEARCH_RECENT, NOT_FOR_US)
    watch.poll()

    assert (plenty, too_few) == (Detection.TIMELINE, Detection.SEARCH)
    assert current_detection(watch.database, watch.settings) is Detection.TIMELINE


@pytest.mark.parametrize("detection", list(ENDPOINTS))
def test_without_a_token_for_the_timelines_either_the_run_fails(make_watch: MakeWatch, detection: Detection) -> None:
    watch = make_watch(3, detection)
    watch.sandbox.api.faults = Faults(script=lambda _, __: NOT_FOR_US)

    with watch.session() as session, pytest.raises(NoTokenAvailable, match="No token can call /2/users/:id/tweets"):
        session.fetch_all()


def test_where_profiles_do_not_report_the_newest_tweet_their_count_decides(
    make_watch: MakeWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = make_watch(3, Detection.USERS)
    requests = [FetchRequest(name) for name in watch.names]
    with FetchSession(
        replace(watch.settings, watch_detection=Detection.TIMELINE), watch.database, requests=requests
    ) as session:
        session.fetch_all()
    handle = watch.sandbox.api.handle

    def without_the_newest_tweet(method: str, path: str, *rest: Any) -> Any:
        response = handle(method, path, *rest)
        if path == USERS:
            body = orjson.loads(response.body)
            for user in body["data"]:
                user.pop("most_recent_tweet_id", None)
            object.__setattr__(response, "body", orjson.dumps(body))
        return response

    monkeypatch.setattr(watch.sandbox.api, "handle", without_the_newest_tweet)
    quiet = watch.poll()
    watch.sandbox.world.post("account_001", text="news", at=time.time() - 60)
    one_with_news = watch.poll()

    assert (quiet, one_with_news) == ({USERS: 1}, {USERS: 1, USER_TWEETS: 2})
    assert watch.database.execute("SELECT count(*) FROM tweets WHERE text = 'news'") == [(1,)]
