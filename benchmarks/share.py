"""What a backfill and monitoring get of the same tokens, and how long monitoring waits for its calls."""

import random
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import repeat
from math import floor

from benchmarks.limits import caller
from benchmarks.place import Place
from benchmarks.printing import Sheet
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.api import SandboxApi
from twitter_pipeline.sandbox.faults import Faults
from twitter_pipeline.sandbox.server import running_server
from twitter_pipeline.sandbox.windows import USER_TWEETS, TokenSpec
from twitter_pipeline.sandbox.world import World
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.windows import RELEASE_S, Settlement
from twitter_pipeline.tokens import Grant, TokenPool
from twitter_pipeline.words import CallOutcome
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline.x_api.endpoints import Endpoint

TOKENS = 2
CALLS = 200
WINDOW_S = 20.0
"""X's windows are 900 s long: the two seconds before a reset, in which nothing is kept, weigh 45 times as much here."""
WINDOWS = 3
LATENCY_S = 0.05
SHARE = 0.8
BACKFILLS = 2
USED = 0.98
LONGEST_DELAY_S = RELEASE_S + 2
"""Who comes just before a reset waits for it, for up to a second of X's clock, and for the first answer after it."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A backfill that wants all calls, and monitoring that wants so many a second of the 20 there are."""

    name: str
    wanted_a_second: float = 0.0
    share: float = SHARE


ALONE = Scenario("a backfill alone")
BESIDE = Scenario("monitoring wants a tenth", 2.0)
SCENARIOS = (
    ALONE,
    BESIDE,
    Scenario("monitoring wants half", 10.0),
    Scenario("it wants a tenth, backfill without a share", 2.0, share=1.0),
)


@dataclass(slots=True)
class Outcome:
    """Calls allowed and used in whole windows, in all and by monitoring; refusals; how long monitoring waited each."""

    allowed: int
    used: int
    monitored: int
    refused: int
    delays_s: Sequence[float]


@dataclass(slots=True)
class Monitoring:
    """Polls an account every `pause_s` on average in each thread; `grants` are its calls, with how long each waited."""

    database: Database
    client: XApiClient
    tokens: dict[str, BearerToken]
    user_id: int
    pause_s: float
    stop: threading.Event = field(default_factory=threading.Event)
    grants: list[Grant] = field(default_factory=list[Grant])

    def work(self) -> None:
        """Poll every now and then until told to stop."""
        pool = TokenPool(self.database, self.tokens, lease_s=self.client.longest_call_s)
        while not self.stop.wait(random.uniform(0, 2 * self.pause_s)):
            grant = pool.lease(Endpoint.USER_TWEETS)
            answer = self.client.fetch_user_tweets(self.user_id, bearer_token=grant.token, max_results=5)
            pool.settle(grant.lease, Settlement(CallOutcome.OK, 200, answer.rate_limits))
            self.grants.append(grant)


def run(place: Place) -> list[str]:
    """Play all scenarios at once, and return what was missed."""
    sheet = Sheet(f"9. Share: a backfill with {SHARE:g} of {TOKENS} tokens, {WINDOWS} windows of {WINDOW_S:.0f} s")
    with ExitStack() as cleanup, ThreadPoolExecutor(len(SCENARIOS)) as threads:
        urls = [cleanup.enter_context(place.database(f"share_{number}")) for number in range(len(SCENARIOS))]
        outcomes = dict(zip(SCENARIOS, threads.map(_play, repeat(place), urls, SCENARIOS), strict=True))
    head = ("", "allowed", "used", "backfill", "monitoring", "refused", "its delay, median", "longest")
    sheet.table(head, [_row(scenario, outcome) for scenario, outcome in outcomes.items()])
    used = min(each.used / each.allowed for each in outcomes.values())
    sheet.judge("calls used of those the limits allow, at the least", f"{used:.3f}", f"{USED}", ok=used >= USED)
    longest = max(outcomes[BESIDE].delays_s)
    sheet.judge(
        "longest delay of monitoring within its part",
        f"{longest:.1f} s",
        f"{LONGEST_DELAY_S} s",
        ok=longest <= LONGEST_DELAY_S,
    )
    refused = sum(each.refused for each in outcomes.values())
    sheet.judge("refusals", str(refused), "0", ok=refused == 0)
    return sheet.misses


def _row(scenario: Scenario, outcome: Outcome) -> tuple[object, ...]:
    delays = outcome.delays_s
    return (
        scenario.name,
        outcome.allowed,
        f"{100 * outcome.used / outcome.allowed:.1f} %",
        f"{100 * (outcome.used - outcome.monitored) / outcome.allowed:.0f} %",
        f"{100 * outcome.monitored / outcome.allowed:.0f} %",
        outcome.refused,
        f"{statistics.median(delays):.2f} s" if delays else "",
        f"{max(delays):.1f} s" if delays else "",
    )


def _play(place: Place, url: str, scenario: Scenario) -> Outcome:
    world = World(1, accounts=[AccountSpec("busy", tweets=50, last_tweet_at=time.time() - 86_400)])
    user_id = int((world.user("busy") or {"id": "0"})["id"])
    specs = [
        TokenSpec(f"sandbox-token-{number}", limits={USER_TWEETS: CALLS}, window_offset_s=number * WINDOW_S / TOKENS)
        for number in range(1, TOKENS + 1)
    ]
    api = SandboxApi(world, tokens=specs, window_seconds=WINDOW_S, faults=Faults(latency_s=LATENCY_S))
    tokens = {f"TWITTER_BEARER_{number}": spec.bearer for number, spec in enumerate(specs, start=1)}
    with ExitStack() as cleanup:
        api_url = cleanup.enter_context(running_server(api))
        environment = place.environment(DATABASE_URL=url, TWITTER_API_URL=api_url, **tokens)
        database = Database(url, pool_size=4)
        cleanup.callback(database.close)
        client = cleanup.enter_context(XApiClient(api_url, max_connections=8))
        for _ in range(BACKFILLS):
            cleanup.enter_context(caller(environment, str(user_id), share=scenario.share))
        began = time.time()
        secrets = {key: BearerToken(bearer) for key, bearer in tokens.items()}
        pollers = min(4, floor(scenario.wanted_a_second * 2))
        monitoring = Monitoring(database, client, secrets, user_id, pollers / max(1, scenario.wanted_a_second))
        threads = [threading.Thread(target=monitoring.work) for _ in range(pollers)]
        for thread in threads:
            thread.start()
        time.sleep((WINDOWS + 1) * WINDOW_S)
        ended = time.time()
        monitoring.stop.set()
        for thread in threads:
            thread.join()
    whole = {
        (token, number)
        for token, spec in enumerate(specs)
        for number in range(_window(spec, began) + 1, _window(spec, ended))
    }
    calls = [
        (call.token, _window(specs[call.token], call.at))
        for call in api.calls
        if call.endpoint == USER_TWEETS and call.status == 200 and call.token is not None
    ]
    indices = {key: index for index, key in enumerate(tokens)}
    leases = [(indices[grant.lease.env_key], grant.lease.called_at.timestamp()) for grant in monitoring.grants]
    return Outcome(
        allowed=len(whole) * CALLS,
        used=sum(call in whole for call in calls),
        monitored=sum((token, _window(specs[token], at)) in whole for token, at in leases),
        refused=api.refusals,
        delays_s=[grant.waited_s for grant in monitoring.grants],
    )


def _window(spec: TokenSpec, at: float) -> int:
    return floor((at - spec.window_offset_s) / WINDOW_S)
