"""Any headers, statuses and orders of arrival: a refusal is followed by a pause, and no false header lasts."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import register_tokens
from twitter_pipeline.store.windows import Lease, Settlement, WindowState, lease_call, load_windows, settle_call
from twitter_pipeline.words import CallOutcome
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.rate_limit import RateLimits, RateLimitWindow

ENDPOINT = Endpoint.USER_TWEETS
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
LEASE_S = 60.0
KEY = "TWITTER_BEARER_1"
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
    remaining=st.sampled_from([None, 0, 0, 1, 7, 40_000]),
    resets_in_s=st.sampled_from([-1_793_534_400, -30, 0, 1, 2, 3, 20, 600, 900, 3_600, 3_601, 86_400, 315_360_000]),
    date_off_s=st.sampled_from([0, 0, 0, 0, -1, 1, -86_400, 86_400]),
    late_s=st.sampled_from([0.0, 0.0, 0.2, 3.0, 20.0]),
)


@dataclass
class World:
    """One token's window, leased and settled at instants that only go forward."""

    database: Database
    now: float = 0.0
    under_way: list[Lease] = field(default_factory=list[Lease])

    def lease(self) -> Lease | None:
        lease = lease_call(self.database, ENDPOINT, [KEY], lease_s=LEASE_S, now=at(self.now))
        if lease is not None:
            self.under_way.append(lease)
        return lease

    def x_clock(self) -> float:
        """Return X's clock as the newest response that is known has shown it."""
        ((answered_at,),) = self.database.execute("SELECT answered_at FROM tokens_endpoint_rl")
        return answered_at.timestamp() if answered_at else 0.0

    def decided_at(self, said: Said) -> float:
        lease = self.under_way[said.which % len(self.under_way)]
        return max(self.now - said.late_s, (lease.called_at - NOON).total_seconds())

    def reset_of(self, said: Said) -> int:
        return int(at(self.decided_at(said)).timestamp()) + said.resets_in_s

    def answer(self, said: Said) -> None:
        """Settle one of the calls under way, with what X decided `late_s` ago."""
        date = at(self.decided_at(said) + said.date_off_s).replace(microsecond=0)
        epoch = self.reset_of(said)
        lease = self.under_way.pop(said.which % len(self.under_way))
        window = None if said.remaining is None else RateLimitWindow(50, said.remaining, max(epoch, 0))
        settlement = Settlement(OUTCOMES[said.status], said.status, RateLimits(window, None, date))
        settle_call(self.database, lease, settlement, now=at(self.now))

    def state(self) -> WindowState:
        (state,) = load_windows(self.database, ENDPOINT, [KEY], now=at(self.now))
        return state


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def begin(database: Database) -> World:
    database.execute("DELETE FROM tokens")
    register_tokens(database, [KEY], [ENDPOINT.value])
    return World(database)


SLOW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(st.lists(responses, max_size=25))
def test_after_a_429_nothing_is_sent_for_a_second_whatever_x_says(database: Database, said: list[Said]) -> None:
    world = begin(database)
    refused_at = float("-inf")
    for each in said:
        world.now += each.after_s
        while len(world.under_way) < 6 and world.lease() is not None:
            assert world.now >= refused_at + 1
        if not world.under_way:
            continue
        known = world.x_clock()
        if each.status == 429 and not (each.remaining == 0 and world.reset_of(each) <= known):
            refused_at = world.now
        world.answer(each)


@SLOW
@given(st.lists(responses, max_size=15), st.sampled_from([200, 429]))
def test_what_was_false_is_forgotten_with_the_first_honest_response(
    database: Database, said: list[Said], status: int
) -> None:
    world = begin(database)
    for each in said:
        world.now += each.after_s
        while len(world.under_way) < 3 and world.lease() is not None:
            pass
        if world.under_way:
            world.answer(each)
    # Those under way are never answered.
    world.under_way = []
    world.now += LEASE_S + 1
    while world.lease() is None:
        until = world.state().exhausted_until(lease_s=LEASE_S)
        assert until is not None
        assert until <= at(world.now + 3_600)
        world.now = (until - NOON).total_seconds()
    before = world.state()
    world.now += 1
    remaining = 0 if status == 429 else 30
    world.answer(Said(0, 0, status, remaining, 777, 0, 0))
    after = world.state()

    shows_the_same = before.reset_at is not None and abs(before.reset_at - at(world.now + 777)) < timedelta(seconds=5)
    if not shows_the_same:
        assert (after.remaining, after.reset_at) == (remaining, at(world.now + 777))


@SLOW
@given(st.lists(responses.map(lambda said: replace(said, status=429)), min_size=1, max_size=12))
def test_however_x_refuses_a_token_gets_few_calls(database: Database, said: list[Said]) -> None:
    """An hour of nothing but refusals: with a call whenever one is allowed, and no reset to believe."""
    world = begin(database)
    calls = 0
    while world.now < 3_600:
        if world.lease() is None:
            until = world.state().exhausted_until(lease_s=LEASE_S)
            world.now = world.now + 1 if until is None else (until - NOON).total_seconds()
            continue
        world.answer(said[calls % len(said)])
        calls += 1

    # 60, 120, 240, 480, 900, 900 ... seconds, and what a first refusal shows.
    assert calls <= 9
