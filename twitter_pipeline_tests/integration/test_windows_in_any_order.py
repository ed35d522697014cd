"""Any headers, statuses and orders of arrival, of several tokens and endpoints at once.

A refusal is followed by a pause, and no false header lasts.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import register_tokens
from twitter_pipeline.store.windows import Lease, Settlement, WindowState, lease_call, load_windows, settle_call
from twitter_pipeline.words import CallOutcome
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.rate_limit import RateLimits, RateLimitWindow

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
LEASE_S = 60.0
KEYS = ["TWITTER_BEARER_1", "TWITTER_BEARER_2"]
ENDPOINTS = [Endpoint.USER_TWEETS, Endpoint.USERS]
OUTCOMES = {
    200: CallOutcome.OK,
    400: CallOutcome.BAD_REQUEST,
    401: CallOutcome.TOKEN_REJECTED,
    404: CallOutcome.RESOURCE_NOT_FOUND,
    429: CallOutcome.TOO_MANY_REQUESTS,
    503: CallOutcome.SERVER_FAULT,
}


@dataclass(frozen=True)
class Said:
    """A response, its times in seconds from when it is decided; `which` of the calls under way it answers."""

    after_s: float
    which: int
    status: int
    remaining: int | None
    resets_in_s: int
    date_off_s: int
    late_s: float


responses = st.builds(
    Said,
    after_s=st.sampled_from([0.0, 0.3, 1.0, 5.0, 65.0, 1_000.0]),
    which=st.integers(0, 5),
    status=st.sampled_from([200, 200, 400, 401, 404, 429, 429, 429, 503]),
    remaining=st.sampled_from([None, 0, 0, 1, 7, 20, 40_000]),
    resets_in_s=st.sampled_from([-1_793_534_400, -30, 0, 1, 2, 3, 20, 600, 900, 3_600, 3_601, 86_400, 315_360_000]),
    date_off_s=st.sampled_from([0, 0, 0, 0, -1, 1, -86_400, 86_400]),
    late_s=st.sampled_from([0.0, 0.0, 0.2, 3.0, 20.0]),
)
plausible = st.builds(
    Said,
    st.just(0),
    st.just(0),
    st.just(200),
    st.sampled_from([1, 7, 40_000]),
    st.integers(2, 3_600),
    st.just(0),
    st.just(0),
)


@dataclass
class World:
    """The windows of tokens at endpoints, leased and settled at instants that only go forward."""

    database: Database
    now: float = 0.0
    under_way: list[Lease] = field(default_factory=list[Lease])

    def lease(self, endpoint: Endpoint, env_keys: list[str] = KEYS) -> Lease | None:
        lease = lease_call(self.database, endpoint, env_keys, lease_s=LEASE_S, now=at(self.now))
        if lease is not None:
            self.under_way.append(lease)
        return lease

    def lease_all(self, most: int) -> list[Lease]:
        """Lease what there is until so many calls are under way, at each endpoint in turn."""
        leases: list[Lease] = []
        endpoints = list(ENDPOINTS)
        while endpoints and len(self.under_way) < most:
            endpoint = endpoints.pop(0)
            if (lease := self.lease(endpoint)) is not None:
                leases.append(lease)
                endpoints.append(endpoint)
        return leases

    def x_clock(self, lease: Lease) -> float:
        """Return X's clock as the newest response that is known of a call's window has shown it."""
        ((answered_at,),) = self.database.execute(
            "SELECT answered_at FROM tokens_endpoint_rl WHERE token_id = %s AND endpoint = %s",
            (lease.token_id, lease.endpoint.value),
        )
        return answered_at.timestamp() if answered_at else 0.0

    def answered(self, said: Said) -> Lease:
        """Return the call that a response is the answer to."""
        return self.under_way[said.which % len(self.under_way)]

    def decided_at(self, said: Said) -> float:
        return max(self.now - said.late_s, (self.answered(said).called_at - NOON).total_seconds())

    def reset_of(self, said: Said) -> int:
        return int(at(self.decided_at(said)).timestamp()) + said.resets_in_s

    def answer(self, said: Said) -> None:
        """Settle one of the calls under way, with what X decided `late_s` ago."""
        date = at(self.decided_at(said) + said.date_off_s).replace(microsecond=0)
        epoch = self.reset_of(said)
        lease = self.answered(said)
        self.under_way.remove(lease)
        window = None if said.remaining is None else RateLimitWindow(50, said.remaining, max(epoch, 0))
        settlement = Settlement(OUTCOMES[said.status], said.status, RateLimits(window, None, date))
        settle_call(self.database, lease, settlement, now=at(self.now))

    def state(self, endpoint: Endpoint, env_key: str) -> WindowState:
        (state,) = load_windows(self.database, endpoint, [env_key], now=at(self.now))
        return state

    def wait_for_lease(self, endpoint: Endpoint, env_keys: list[str]) -> None:
        """Go on to when a call may be leased, and lease it."""
        while self.lease(endpoint, env_keys) is None:
            waits = [self.state(endpoint, env_key).exhausted_until(lease_s=LEASE_S) for env_key in env_keys]
            known = [each for each in waits if each is not None]
            assert all(each <= at(self.now + 3_600) for each in known)
            self.now = (min(known) - NOON).total_seconds() if len(known) == len(waits) else self.now + 1


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def begin(database: Database) -> World:
    database.execute("DELETE FROM tokens")
    register_tokens(database, KEYS, ENDPOINTS)
    return World(database)


SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(st.lists(responses, max_size=25))
def test_after_a_429_nothing_is_sent_for_a_second_whatever_x_says(database: Database, said: list[Said]) -> None:
    world = begin(database)
    refused_at: dict[tuple[int, Endpoint], float] = {}
    for each in said:
        world.now += each.after_s
        for lease in world.lease_all(most=6):
            assert world.now >= refused_at.get((lease.token_id, lease.endpoint), float("-inf")) + 1
        if not world.under_way:
            continue
        answered = world.answered(each)
        if each.status == 429 and not (each.remaining == 0 and world.reset_of(each) <= world.x_clock(answered)):
            refused_at[answered.token_id, answered.endpoint] = world.now
        world.answer(each)


@SLOW
@given(st.lists(responses, max_size=15), plausible, st.sampled_from([200, 429]), st.booleans())
def test_what_was_false_is_forgotten_with_the_first_honest_response(
    database: Database, said: list[Said], last: Said, status: int, goes_on: bool
) -> None:
    world = begin(database)
    for each in said:
        world.now += each.after_s
        world.lease_all(most=6)
        if world.under_way:
            world.answer(each)
    for endpoint, env_key in product(ENDPOINTS, KEYS):
        # Those under way are never answered.
        world.under_way = []
        world.now += LEASE_S + 1
        world.wait_for_lease(endpoint, [env_key])
        world.answer(last)
        world.now += 1
        world.wait_for_lease(endpoint, [env_key])
        world.now += 1
        # The reset may have been true, and only what is left false.
        resets_in_s = last.resets_in_s - 2 if goes_on and last.resets_in_s > 2 else 777
        remaining = 0 if status == 429 else 30
        world.answer(Said(0, 0, status, remaining, resets_in_s, 0, 0))
        state = world.state(endpoint, env_key)

        assert state.remaining == remaining
        assert state.reset_at is not None
        assert abs(state.reset_at - at(world.now + resets_in_s)) <= timedelta(seconds=3)


@SLOW
@given(st.lists(responses.map(lambda said: replace(said, status=429)), min_size=1, max_size=12))
def test_however_x_refuses_a_token_gets_few_calls(database: Database, said: list[Said]) -> None:
    """An hour of nothing but refusals: with a call whenever one is allowed, and no reset to believe."""
    world = begin(database)
    calls = 0
    while world.now < 3_600:
        world.wait_for_lease(ENDPOINTS[0], KEYS[:1])
        world.answer(said[calls % len(said)])
        calls += 1

    # 60, 120, 240, 480, 900, 900 ... seconds, and what a first refusal shows; the last comes after the hour.
    assert calls <= 10
