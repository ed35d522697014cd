"""How much of what the limits allow four processes use together, and whether X has to refuse any of their calls."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from math import floor

from benchmarks.place import Place, connected
from benchmarks.printing import Sheet
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.api import SandboxApi
from twitter_pipeline.sandbox.faults import Faults
from twitter_pipeline.sandbox.server import running_server
from twitter_pipeline.sandbox.windows import USER_TWEETS, TokenSpec
from twitter_pipeline.sandbox.world import World
from twitter_pipeline.settings import PROJECT_DIR

TOKENS = 3
PROCESSES = 4
WINDOW_S = 10.0
"""X's windows are 900 s long. What is lost at a reset, up to a second of X's clock and the first call's answer, weighs
ninety times as much here."""
WINDOWS = 6
LATENCY_S = 0.05
USED = 0.98
CLOCK_S = 0.001
SETTLING_S = 0.05
"""From an answer to what is known by all: the time that the statement takes on a busy machine."""
SIDE_BY_SIDE = 4

# Calls with a status: the token's number from 0, when it was leased, how long the answer took.
CALLS = """
SELECT right(t.env_key, 1)::int - 1, extract(epoch FROM c.called_at)::float8,
       coalesce(c.duration_ms, 0) / 1000.0::float8
FROM api_calls c JOIN tokens t ON t.id = c.token_id
WHERE c.status_code = %s
"""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What four processes meet; a share of the calls may be eaten by a program that nobody knows of."""

    name: str
    calls_a_window: int = 100
    calls_a_day: int | None = None
    skew_s: float = 0.0
    foreign_share: float = 0.0
    fault_rate: float = 0.0
    deaths: bool = False

    @property
    def token_specs(self) -> list[TokenSpec]:
        """Three tokens whose windows reset at different times."""
        days = {} if self.calls_a_day is None else {USER_TWEETS: self.calls_a_day}
        limits = {USER_TWEETS: self.calls_a_window}
        return [
            TokenSpec(
                f"sandbox-token-{number}",
                limits=limits,
                day_limits=days,
                window_offset_s=number * WINDOW_S / TOKENS,
            )
            for number in range(1, TOKENS + 1)
        ]


SCENARIOS = (
    Scenario("four processes"),
    Scenario("one joins late, one is killed and replaced", deaths=True),
    Scenario("one call in twenty fails", fault_rate=0.05),
    Scenario("another program uses a tenth unseen", foreign_share=0.1),
    Scenario("our clock ten minutes ahead of X's", skew_s=-600),
    Scenario("our clock ten minutes behind X's", skew_s=600),
    Scenario("legacy: 5 calls a window", calls_a_window=5),
    Scenario("legacy: 5 calls a window, 17 a day", calls_a_window=5, calls_a_day=17),
)


@dataclass(slots=True)
class Outcome:
    """What was allowed and used in whole windows, by whomever, and how many of our calls were refused."""

    allowed: int
    used: int
    refused: int
    avoidable: int


@dataclass(slots=True)
class Foreign:
    """A program beside ours that uses the same tokens; `calls` are those that X let through."""

    api: SandboxApi
    share: float
    calls: list["Span"] = field(default_factory=list["Span"])
    refused: list["Span"] = field(default_factory=list["Span"])

    def work(self, path: str, stop: threading.Event) -> None:
        """Call every now and then, so that a share of each token's window is used in the end."""
        pause_s = WINDOW_S / (SCENARIOS[0].calls_a_window * self.share * TOKENS)
        while not stop.wait(random.expovariate(1 / pause_s)):
            token = random.randrange(TOKENS)
            headers = {"authorization": f"Bearer {self.api.bearers[token]}"}
            began = time.time()
            status = self.api.handle("GET", path, "max_results=5", headers).status
            (self.calls if status == 200 else self.refused).append(Span(token, began, time.time()))


@dataclass(frozen=True, slots=True)
class Span:
    """When X had a call of a token, by the clock of this machine."""

    token: int
    began: float
    ended: float

    def holds(self, token: int, at: float) -> bool:
        """Whether something that happened to a token at an instant was this call."""
        return self.token == token and self.began <= at <= self.ended


def run(place: Place) -> list[str]:
    """Play all scenarios, some at a time, and return what was missed."""
    sheet = Sheet(f"4. Limits: {PROCESSES} processes, {TOKENS} tokens, {WINDOWS} windows of {WINDOW_S:.0f} s")
    with ExitStack() as cleanup, ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        urls = [cleanup.enter_context(place.database(f"limits_{number}")) for number in range(len(SCENARIOS))]
        outcomes = list(threads.map(_play, repeat(place), urls, SCENARIOS))
    rows = [
        (
            scenario.name,
            each.allowed,
            each.used,
            f"{100 * each.used / each.allowed:.1f} %",
            each.refused,
            each.avoidable,
        )
        for scenario, each in zip(SCENARIOS, outcomes, strict=True)
    ]
    sheet.table(("", "allowed", "used", "share", "refused", "avoidable"), rows)
    worst = min(each.used / each.allowed for each in outcomes)
    sheet.judge("calls used of those the limits allow, at the least", f"{worst:.3f}", f"{USED}", ok=worst >= USED)
    avoidable = sum(each.avoidable for each in outcomes)
    sheet.judge("refusals that the known state could have avoided", str(avoidable), "0", ok=avoidable == 0)
    return sheet.misses


@contextmanager
def caller(environment: dict[str, str], user_id: str, *, share: float = 1.0) -> Generator[subprocess.Popen[bytes]]:
    """Start a process that calls a timeline for as long as the context lasts, and wait until it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.caller", user_id, str(share)],
        cwd=PROJECT_DIR,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        if process.stdout is not None:
            process.stdout.readline()
        yield process
    finally:
        process.communicate()


def _play(place: Place, url: str, scenario: Scenario) -> Outcome:
    world = World(1, accounts=[AccountSpec("busy", tweets=50, last_tweet_at=time.time() - 86_400)])
    user = world.user("busy")
    user_id = "" if user is None else user["id"]
    api = SandboxApi(
        world,
        tokens=scenario.token_specs,
        window_seconds=WINDOW_S,
        clock_skew_s=scenario.skew_s,
        faults=Faults(latency_s=LATENCY_S, rates={"503": scenario.fault_rate}),
    )
    foreign, stop = Foreign(api, scenario.foreign_share), threading.Event()
    with ExitStack() as cleanup:
        environment = place.environment(
            DATABASE_URL=url,
            TWITTER_API_URL=cleanup.enter_context(running_server(api)),
            **{f"TWITTER_BEARER_{each}": f"sandbox-token-{each}" for each in range(1, TOKENS + 1)},
        )
        first = PROCESSES - scenario.deaths
        callers = [cleanup.enter_context(caller(environment, user_id)) for _ in range(first)]
        began = time.time()
        if foreign.share:
            thread = threading.Thread(target=foreign.work, args=(f"/2/users/{user_id}/tweets", stop))
            thread.start()
            cleanup.callback(thread.join)
            cleanup.callback(stop.set)
        _wait_windows(2)
        if scenario.deaths:
            cleanup.enter_context(caller(environment, user_id))
            _wait_windows(1)
            callers[0].kill()
            cleanup.enter_context(caller(environment, user_id))
        _wait_windows(WINDOWS + 1 - 2 - scenario.deaths)
        ended = time.time()
        refused, avoidable = _refusals(url, scenario, foreign)
    return Outcome(*_usage(api, scenario, began, ended), refused, avoidable)


def _wait_windows(count: int) -> None:
    time.sleep(count * WINDOW_S)


def _usage(api: SandboxApi, scenario: Scenario, began: float, ended: float) -> tuple[int, int]:
    """Count the calls allowed and used in windows that lie wholly between two instants; of a daily limit, all."""
    used: Counter[tuple[int, int]] = Counter()
    allowed_windows: set[tuple[int, int]] = set()
    for index, spec in enumerate(scenario.token_specs):
        numbers = [floor((at + scenario.skew_s - spec.window_offset_s) / WINDOW_S) for at in (began, ended)]
        allowed_windows |= {(index, number) for number in range(numbers[0] + 1, numbers[1])}
    for call in api.calls:
        if call.endpoint != USER_TWEETS or call.token is None:
            continue
        spec = scenario.token_specs[call.token]
        used[call.token, floor((call.at - spec.window_offset_s) / WINDOW_S)] += call.status != 429
    if scenario.calls_a_day is not None:
        return TOKENS * scenario.calls_a_day, used.total()
    allowed = len(allowed_windows) * scenario.calls_a_window
    return allowed, sum(used[window] for window in allowed_windows)


def _refusals(url: str, scenario: Scenario, foreign: Foreign) -> tuple[int, int]:
    """Count our refusals, and those that could have been avoided.

    Not known is what another program used since X decided on the latest call whose answer was settled when the refused
    one was leased. X decides on a call between its lease and its answer.
    """
    with connected(url) as connection:
        refused = connection.execute(CALLS, [429]).fetchall()
        answered = connection.execute(CALLS, [200]).fetchall()
    decided = [
        (call.token, call.at - scenario.skew_s)
        for call in foreign.api.calls
        if call.status == 429 and call.token is not None
    ]
    ours = [(token, at) for token, at in decided if not any(span.holds(token, at) for span in foreign.refused)]
    avoidable = 0
    for token, leased_at, _ in refused:
        known = (at for other, at, took_s in answered if other == token and at + took_s + SETTLING_S <= leased_at)
        known_from = max(known, default=0.0)
        refused_at = min(at for other, at in ours if other == token and at >= leased_at - CLOCK_S)
        avoidable += not any(
            span.token == token and span.began <= refused_at and span.ended >= known_from for span in foreign.calls
        )
    return len(refused), avoidable
