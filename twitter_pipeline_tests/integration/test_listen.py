"""Listening, over the sandbox's stream by HTTP and a real database."""

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from twitter_pipeline import calls, stream_work
from twitter_pipeline import listen as listening
from twitter_pipeline.budgets import Budgets, Limit
from twitter_pipeline.errors import BadRequest, NoTokenAvailable
from twitter_pipeline.listen import Listener
from twitter_pipeline.local.postgres import EmbeddedServer, embedded_server
from twitter_pipeline.sandbox import problems
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.faults import Fault, Faults, RawAnswer
from twitter_pipeline.sandbox.windows import CHANGE_RULES, STREAM, STREAM_RULES, TokenSpec
from twitter_pipeline.settings import Settings
from twitter_pipeline.store import database as store_database
from twitter_pipeline.store import spending
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.schema import upgrade
from twitter_pipeline.store.users import save_users, set_tracked
from twitter_pipeline.stream_rules import TAG_PREFIX, NewRule, usernames_of
from twitter_pipeline.x_api.stream import StreamClient
from twitter_pipeline_tests.conftest import Databases, MakeSandbox, Sandbox

PATIENCE_S = 20.0
TOKENS = ("sandbox-token-1", "sandbox-token-2")


def eventually(holds: Callable[[], Any], *, within_s: float = PATIENCE_S) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + within_s
    while not (result := holds()):
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)
    return result


@dataclass
class Ear:
    """A listener in a thread of its own, and what it said."""

    said: list[str] = field(default_factory=list)
    error: BaseException | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def has_said(self, text: str, times: int = 1) -> bool:
        return sum(text in line for line in self.said) >= times

    def wait_for(self, text: str, times: int = 1) -> None:
        try:
            eventually(lambda: self.has_said(text, times))
        except AssertionError as error:
            raise AssertionError(f"{text!r} was not said {times} times, but {self.said}; {self.error!r}") from error


@dataclass
class Station:
    """A sandbox with accounts that are tracked, and listeners to it."""

    sandbox: Sandbox
    database: Database
    settings: Settings

    @contextmanager
    def listener(self, *, silence_s: float = 5.0, **settings: Any) -> Iterator[Ear]:
        chosen = replace(self.settings, **settings)
        ear = Ear()
        streams = StreamClient(chosen.api_url, silence_s=silence_s)
        own = Database(self.database.url)
        listener = Listener(chosen, own, say=ear.said.append, stop=ear.stop, streams=streams)

        def run() -> None:
            try:
                listener.run()
            except Exception as error:  # noqa: BLE001 the test looks at it
                ear.error = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield ear
        finally:
            ear.stop.set()
            thread.join(PATIENCE_S)
            own.close()
        assert not thread.is_alive()

    def track(self, *usernames: str, tracked: bool = True) -> None:
        ids = [self.user_id(username) for username in usernames]
        with self.sandbox.client() as client:
            answer = client.fetch_users(ids, bearer_token=self.sandbox.bearer_tokens["TWITTER_BEARER_1"])
        save_users(self.database, answer.value.users, read_at=datetime.now(UTC))
        set_tracked(self.database, ids, tracked=tracked)
        self.database.execute("UPDATE user_state SET next_poll_at = now() + interval '1 hour'")

    def user_id(self, username: str) -> int:
        user = self.sandbox.world.user(username)
        assert user is not None
        return int(user["id"])

    def stored(self) -> list[int]:
        return [tweet_id for (tweet_id,) in self.database.execute("SELECT id FROM tweets ORDER BY id")]

    def due(self) -> list[str]:
        rows = self.database.execute(
            "SELECT username FROM user_state JOIN users ON id = user_id WHERE next_poll_at <= now() ORDER BY username"
        )
        return [username for (username,) in rows]

    def rules(self) -> list[list[str]]:
        """The accounts that each rule names."""
        return sorted(sorted(usernames_of(rule.value)) for rule in self.sandbox.api.stream_rules(TOKENS[0]))

    def calls(self, endpoint: str) -> list[int]:
        return [call.status for call in self.sandbox.api.calls if call.endpoint == endpoint]

    def back_off_s(self) -> float:
        """How long the first token was told to leave the stream alone when it was refused last."""
        statement = (
            "SELECT extract(epoch FROM paused_until - observed_at)::float8 FROM tokens_endpoint_rl "
            "JOIN tokens ON id = token_id WHERE endpoint = %s AND env_key = 'TWITTER_BEARER_1'"
        )
        return float(self.database.execute(statement, [STREAM])[0][0])

    def end_back_off(self) -> None:
        self.database.execute("UPDATE tokens_endpoint_rl SET paused_until = now() WHERE endpoint = %s", [STREAM])

    def post(self, username: str, text: str = "news") -> int:
        return self.sandbox.world.post(username, text=text)


MakeStation = Callable[..., Station]


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    """A server of this test alone that keeps what was committed."""
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder) / "postgres") as server:
        yield server


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database with all tables: on a server of its own where the test asks for one."""
    if "own_server" not in request.fixturenames:
        yield request.getfixturevalue("shared_database")
        return
    database = Database(request.getfixturevalue("own_server").url("tables"))
    upgrade(database.engine)
    yield database
    database.close()


@pytest.fixture
def shared_database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def make_station(make_sandbox: MakeSandbox, database: Database, monkeypatch: pytest.MonkeyPatch) -> MakeStation:
    monkeypatch.setattr(stream_work, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(listening, "TOKEN_PAUSE_S", 0.1)

    def make(*usernames: str, track: Sequence[str] | None = None, tokens: Any = 1, **options: Any) -> Station:
        accounts = [AccountSpec(name, tweets=3, last_tweet_at=time.time() - 3600) for name in usernames]
        sandbox = make_sandbox(accounts, tokens=tokens, **{"heartbeat_s": 0.2, **options})
        settings = Settings(bearer_tokens=sandbox.bearer_tokens, api_url=sandbox.serve())
        station = Station(sandbox, database, settings)
        watched = usernames if track is None else track
        if watched:
            station.track(*watched)
        return station

    return make


def test_what_is_tweeted_is_stored_with_its_text_and_makes_its_account_due_and_claims_nothing(
    make_station: MakeStation,
) -> None:
    station = make_station("alpha", "beta")
    with station.listener() as ear:
        ear.wait_for("connected with TWITTER_BEARER_1, listening to 2 accounts")
        written = time.monotonic()
        tweet_id = station.post("alpha", "a text of today")
        eventually(station.stored)
        took_s = time.monotonic() - written
        ear.wait_for("1 new tweet of 1 account stored")

    rows = station.database.execute("SELECT id, author_id, text, first_read_run_id, raw->>'id' FROM tweets")
    assert rows == [(tweet_id, station.user_id("alpha"), "a text of today", None, str(tweet_id))]
    assert took_s < 2
    assert station.due() == ["alpha"]
    assert station.database.execute("SELECT DISTINCT covered::text FROM user_state") == [("{}",)]
    assert ear.error is None
    assert station.sandbox.api.open_streams() == 0


def test_at_its_budget_it_disconnects_keeps_what_came_and_listens_again_in_the_next_period(
    make_station: MakeStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = make_station("alpha", tokens=1)
    ends_at = datetime.now(UTC)
    # The day ends as soon as it is waited for.
    monkeypatch.setattr(spending, "end_of", lambda *_, **__: ends_at)
    with station.listener(budgets=Budgets(day=Limit(posts=3))) as ear:
        ear.wait_for("connected")
        for number in range(3):
            station.post("alpha", f"tweet {number}")
        ear.wait_for("disconnected: the budget of the day is used up (3 of 3 posts)")
        assert len(station.stored()) == 3
        eventually(lambda: station.sandbox.api.open_streams() == 0)

        ear.wait_for("disconnected", times=2)
        assert not ear.has_said("connected with", times=2)
        # Yesterday's bill is none of today's.
        station.database.execute("UPDATE api_calls SET called_at = called_at - interval '1 day'")
        station.database.execute("UPDATE spending SET posts = 0")
        ear.wait_for("connected with", times=2)
        station.post("alpha", "of the next day")
        eventually(lambda: len(station.stored()) == 4)

    assert ear.error is None


def test_every_call_is_written_down_and_each_post_is_billed_once(make_station: MakeStation) -> None:
    station = make_station(
        "alpha", faults=Faults(script=lambda endpoint, _: "duplicates" if endpoint == STREAM else None)
    )
    with station.listener():
        eventually(station.sandbox.api.open_streams)
        for number in range(5):
            station.post("alpha", f"tweet {number}")
        eventually(lambda: len(station.stored()) == 5)

    rows = station.database.execute(
        "SELECT endpoint, status_code, outcome::text, billed_posts FROM api_calls WHERE endpoint LIKE '%%stream%%' "
        "ORDER BY called_at"
    )
    assert [row[:3] for row in rows] == [(STREAM_RULES, 200, "ok"), (CHANGE_RULES, 201, "ok"), (STREAM, 200, "ok")]
    assert rows[-1][3] == station.sandbox.api.posts_billed() == 5
    windows = station.database.execute(
        'SELECT endpoint, "limit", in_flight FROM tokens_endpoint_rl WHERE "limit" IS NOT NULL ORDER BY 1'
    )
    assert set(windows) >= {(STREAM, 50, 0), (STREAM_RULES, 450, 0), (CHANGE_RULES, 100, 0)}


def test_the_rules_follow_the_watch_list_and_those_of_others_are_left_alone(make_station: MakeStation) -> None:
    station = make_station("alpha", "beta", "gamma", "delta", track=["alpha", "beta"])
    client, token = station.sandbox.client(), station.sandbox.bearer_tokens["TWITTER_BEARER_1"]
    client.add_stream_rules([NewRule("from:delta", "of another")], bearer_token=token)
    with station.listener() as ear:
        ear.wait_for("connected with TWITTER_BEARER_1")
        assert station.rules() == [["alpha", "beta"], ["delta"]]
        station.track("gamma")
        eventually(lambda: station.rules() == [["alpha", "beta", "gamma"], ["delta"]])
        station.track("alpha", "beta", tracked=False)
        eventually(lambda: station.rules() == [["delta"], ["gamma"]])
        station.post("delta", "of another")
        wanted = station.post("gamma")
        ear.wait_for("1 tweet passed over")

        assert eventually(station.stored) == [wanted]
    tags = [rule.tag or "" for rule in station.sandbox.api.stream_rules(TOKENS[0])]
    assert [tag.startswith(TAG_PREFIX) for tag in tags] == [False, True]


def test_without_tracked_accounts_it_waits_and_begins_with_the_first(make_station: MakeStation) -> None:
    station = make_station("alpha", track=[])
    with station.listener() as ear:
        ear.wait_for("no account is tracked")
        assert station.calls(STREAM) == []
        station.track("alpha")
        ear.wait_for("connected with TWITTER_BEARER_1")
        station.track("alpha", tracked=False)
        ear.wait_for("no account is tracked", times=2)
        eventually(lambda: station.rules() == [])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("operational", "reconnecting at once: X has ended the stream: operational-disconnect"),
        ("cut", "reconnecting at once: the stream broke off"),
        ("close", "reconnecting at once: the stream ended without a word"),
        ("silence", "reconnecting at once: the stream was silent for too long"),
    ],
)
def test_a_connection_that_ends_is_made_again_and_what_comes_after_is_stored(
    make_station: MakeStation, how: Any, said: str
) -> None:
    station = make_station("alpha")
    with station.listener(silence_s=1.0) as ear:
        ear.wait_for("connected with TWITTER_BEARER_1")
        station.sandbox.api.end_streams(how)
        ear.wait_for(said)
        ear.wait_for("connected with TWITTER_BEARER_1", times=2)
        tweet_id = station.post("alpha")

        assert eventually(station.stored) == [tweet_id]


def test_refusals_are_backed_off_from(make_station: MakeStation, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals: list[Fault] = ["503", "502", "html_5xx", "reset"]

    def script(endpoint: str, _: int) -> Fault | None:
        return refusals.pop(0) if endpoint == STREAM and refusals else None

    station = make_station("alpha", faults=Faults(script=script))
    real, pauses = listening.pause_before_reconnecting, []

    def quickly(error: Any, failures: int) -> float:
        pauses.append(real(error, failures))
        return 0.01

    monkeypatch.setattr(listening, "pause_before_reconnecting", quickly)
    with station.listener() as ear:
        ear.wait_for("connected with TWITTER_BEARER_1")

    assert pauses == [5.0, 10.0, 20.0, 1.0]
    rows = station.database.execute(
        "SELECT outcome::text, billed_posts FROM api_calls WHERE endpoint = %s ORDER BY id", [STREAM]
    )
    outcomes = ["server_fault", "server_fault", "server_fault", "connection_fault", "ok"]
    assert rows == [(outcome, 0) for outcome in outcomes]


def test_rules_that_cannot_be_fetched_are_asked_for_again(
    make_station: MakeStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.0001)
    monkeypatch.setattr(calls, "TRIES_ON_FAULT", 3)
    monkeypatch.setattr(listening, "pause_before_reconnecting", lambda *_: 0.01)
    refusals: list[Fault] = ["503"] * 7
    failing = Faults(script=lambda endpoint, _: refusals.pop() if endpoint == STREAM_RULES and refusals else None)
    station = make_station("alpha", faults=failing)
    with station.listener() as ear:
        ear.wait_for("connected with TWITTER_BEARER_1")

    assert sum("reconnecting in 0.01 s: GET /2/tweets/search/stream/rules" in line for line in ear.said) == 2


def test_a_second_listener_waits_for_the_first_and_takes_over(make_station: MakeStation) -> None:
    station = make_station("alpha", tokens=2)
    with station.listener() as second_ear_owner:
        second_ear_owner.wait_for("connected with TWITTER_BEARER_1")
        with station.listener() as second:
            second.wait_for("another process listens with TWITTER_BEARER_1; waiting to take over when it ends")
            assert station.sandbox.api.open_streams() == 1
            second_ear_owner.stop.set()
            second.wait_for("connected with TWITTER_BEARER_1")

    assert station.calls(STREAM) == [200, 200]


def test_a_token_whose_stream_another_program_holds_is_left_alone_and_another_listens(
    make_station: MakeStation,
) -> None:
    station = make_station("alpha", tokens=2)
    with station.listener() as first:
        first.wait_for("connected with TWITTER_BEARER_1")
        # Another database, as of a colleague with the same tokens.
        station.database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(listening.ListenLock, "take_again", lambda *_: True)
            patch.setattr(listening.ListenLock, "is_held", lambda *_: True)
            with station.listener() as second:
                second.wait_for("TWITTER_BEARER_1 cannot listen now: GET /2/tweets/search/stream was answered with")
                second.wait_for("connected with TWITTER_BEARER_2")

    refused = [call.token for call in station.sandbox.api.calls if (call.endpoint, call.status) == (STREAM, 429)]
    assert refused == [0]
    assert station.back_off_s() == pytest.approx(5)


CALLS_LEFT = {"x-rate-limit-limit": "50", "x-rate-limit-remaining": "48"}
USED_UP = {"x-rate-limit-limit": "50", "x-rate-limit-remaining": "0"}
GENERAL_LIMITER = {"x-rate-limit-limit": "40000", "x-rate-limit-remaining": "39999"}


def test_a_taken_slot_is_tried_again_after_5_s_doubled_each_time_whatever_its_headers_and_whoever_tries(
    make_station: MakeStation,
) -> None:
    now = int(time.time())
    shown = [CALLS_LEFT, USED_UP, GENERAL_LIMITER, {}]
    refusals = [slot_taken({**limits, "x-rate-limit-reset": str(now + 840)}) for limits in shown]
    refused = iter(refusals)
    station = make_station(
        "alpha", faults=Faults(script=lambda endpoint, _: next(refused, None) if endpoint == STREAM else None)
    )
    back_offs = []
    for _ in refusals:
        # Each time another process.
        with station.listener() as ear:
            ear.wait_for("another connection of the token's app is open")
            ear.wait_for("no token may connect before")
        back_offs.append(station.back_off_s())
        station.end_back_off()
    with station.listener() as ear:
        ear.wait_for("connected with TWITTER_BEARER_1")

    assert back_offs == pytest.approx([5, 10, 20, 40])
    assert station.calls(STREAM) == [429, 429, 429, 429, 200]
    assert station.database.execute("SELECT DISTINCT status::text FROM tokens") == [("active",)]


def test_tokens_whose_slots_are_all_taken_are_tried_once_each_and_then_left_alone(make_station: MakeStation) -> None:
    taken = Faults(script=lambda endpoint, _: slot_taken(CALLS_LEFT) if endpoint == STREAM else None)
    station = make_station("alpha", tokens=2, faults=taken)
    with station.listener() as ear:
        ear.wait_for("no token may connect before")
        time.sleep(0.5)

    assert [call.token for call in station.sandbox.api.calls if call.endpoint == STREAM] == [0, 1]


def test_whoever_connects_before_x_has_noticed_that_a_connection_ended_gets_the_slot_soon(
    make_station: MakeStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "FIRST_CONNECTION_BACK_OFF_S", 0.01)
    station = make_station("alpha", slot_release_s=0.5)
    with station.listener() as first:
        first.wait_for("connected with TWITTER_BEARER_1")
    with station.listener() as second:
        second.wait_for("connected with TWITTER_BEARER_1")

    assert station.calls(STREAM) == [200, 429, 200]


def slot_taken(headers: Mapping[str, str]) -> RawAnswer:
    return RawAnswer(429, json.dumps(problems.TOO_MANY_CONNECTIONS).encode(), headers)


def test_a_plan_without_the_stream_does_not_take_the_token_from_the_polls(make_station: MakeStation) -> None:
    not_enrolled = RawAnswer(
        403,
        b'{"title":"Client Forbidden","reason":"client-not-enrolled","type":"https://api.x.com/2/problems/client-forbidden"}',
    )
    station = make_station(
        "alpha", faults=Faults(script=lambda endpoint, _: not_enrolled if "stream" in endpoint else None)
    )
    with station.listener() as ear:
        eventually(lambda: ear.error)

    assert isinstance(ear.error, NoTokenAvailable)
    assert "TWITTER_BEARER_1: active, but refused there since" in str(ear.error)
    assert station.database.execute("SELECT status::text FROM tokens") == [("active",)]


def test_a_dead_token_gives_way_to_the_next(make_station: MakeStation) -> None:
    station = make_station("alpha", tokens=[TokenSpec(TOKENS[0], dies_after=1), TokenSpec(TOKENS[1])])
    with station.listener() as ear:
        ear.wait_for("connected with TWITTER_BEARER_2")
        station.post("alpha")
        eventually(station.stored)

    assert station.database.execute("SELECT env_key FROM tokens WHERE status = 'invalid'") == [("TWITTER_BEARER_1",)]


def test_a_refusal_of_the_request_itself_ends_it(make_station: MakeStation) -> None:
    wrong = RawAnswer(400, b'{"title":"Invalid Request","detail":"One or more parameters was invalid."}')
    station = make_station("alpha", faults=Faults(script=lambda endpoint, _: wrong if endpoint == STREAM else None))
    with station.listener() as ear:
        eventually(lambda: ear.error)

    assert isinstance(ear.error, BadRequest)
    assert station.calls(STREAM) == [400]


def test_rules_that_others_delete_are_put_back_when_x_says_there_are_none(make_station: MakeStation) -> None:
    station = make_station("alpha")
    with station.listener() as ear:
        ear.wait_for("connected with TWITTER_BEARER_1")
        client, token = station.sandbox.client(), station.sandbox.bearer_tokens["TWITTER_BEARER_1"]
        client.delete_stream_rules(
            [rule.id for rule in station.sandbox.api.stream_rules(TOKENS[0])], bearer_token=token
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(listening, "pause_before_reconnecting", lambda *_: 0.01)
            station.sandbox.api.end_streams("close")
            ear.wait_for("connected with TWITTER_BEARER_1", times=2)

    assert station.rules() == [["alpha"]]


def test_a_lost_session_is_made_up_for_without_dropping_the_stream(
    make_station: MakeStation, databases: Databases
) -> None:
    station = make_station("alpha")
    with station.listener() as ear:
        ear.wait_for("connected with TWITTER_BEARER_1")
        databases.connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            [str(station.database.engine.url.database)],
        )
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s"
        time.sleep(0.5)
        eventually(lambda: station.database.execute(held, [7_305_811]) == [(1,)])
        tweet_id = station.post("alpha")

        assert eventually(station.stored) == [tweet_id]
    assert station.calls(STREAM) == [200]


@pytest.mark.parametrize(("survived_s", "connections"), [(20.0, 1), (0.3, 2)])
def test_an_outage_of_the_database_is_survived_and_a_long_one_waited_for_without_a_connection(
    make_station: MakeStation,
    monkeypatch: pytest.MonkeyPatch,
    own_server: EmbeddedServer,
    survived_s: float,
    connections: int,
) -> None:
    monkeypatch.setattr(store_database, "OUTAGE_SURVIVED_S", survived_s)
    monkeypatch.setattr(listening, "DATABASE_PAUSE_S", 0.2)
    station = make_station("alpha")
    with station.listener() as ear:
        ear.wait_for("connected with TWITTER_BEARER_1")
        os.kill(int((own_server.folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        during = station.post("alpha", "while the database is away")
        if connections > 1:
            ear.wait_for("disconnected, trying again in 0.2 s: the database stopped answering")
        own_server.ensure_running()
        ear.wait_for("connected with TWITTER_BEARER_1", times=connections)
        after = station.post("alpha", "afterwards")
        wanted = [after] if connections > 1 else [during, after]

        assert eventually(lambda: station.stored() == wanted)
    assert station.calls(STREAM) == [200] * connections


def test_a_day_of_a_stream_has_a_bill_of_its_own(make_station: MakeStation, monkeypatch: pytest.MonkeyPatch) -> None:
    station = make_station("alpha")
    with station.listener() as ear:
        ear.wait_for("connected with TWITTER_BEARER_1")
        first = station.post("alpha")
        eventually(lambda: station.stored() == [first])
        # The day that the storer believes it is in is over.
        monkeypatch.setattr(stream_work, "day_of", lambda now: now.date().replace(year=2099))
        station.post("alpha")
        eventually(lambda: len(station.stored()) == 2)

    rows = station.database.execute(
        "SELECT result_count, billed_posts, outcome::text FROM api_calls WHERE endpoint = %s ORDER BY id", [STREAM]
    )
    assert rows == [(1, 1, "ok"), (1, 1, "ok")]


def test_pauses_are_those_that_x_asks_for() -> None:
    pause = listening.pause_before_reconnecting
    broke = [pause(listening.ConnectionFault("broke", status=200), number) for number in range(1, 70)]
    refused = [pause(listening.ConnectionFault("refused"), number) for number in range(1, 4)]
    server = [pause(listening.ApiError("503", status=503), number) for number in range(1, 12)]
    told = [pause(listening.StreamEnded("told"), number) for number in range(1, 4)]
    forced = listening.StreamEnded("told")
    forced.disconnect_type = "ForceDisconnect"

    assert broke[:4] == [0.0, 0.25, 0.5, 0.75]
    assert {later - earlier for earlier, later in pairwise(broke)} == {0.25, 0.0}
    assert broke[-1] == 16.0
    assert refused == [0.25, 0.5, 0.75]
    assert server == [5, 10, 20, 40, 80, 160, 320, 320, 320, 320, 320]
    assert told == [0.0, 5.0, 10.0]
    assert pause(forced, 1) == 5.0
