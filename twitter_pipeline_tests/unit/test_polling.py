"""When accounts are polled: what is learned of their rates, how a budget is shared out, where the polls fall."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import isfinite, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.polling.plan import JITTER, LONGEST_AWAY, Bounds, Plan, allocate, next_look, next_poll
from twitter_pipeline.polling.prior import LONGEST_ALIKE_H, PRIOR_HOURS, PRIOR_TWEETS, Halves, learn_prior
from twitter_pipeline.polling.rates import FORGOTTEN, HALF_LIFE, HOURS, Memory, Rate

NOW = datetime(2026, 3, 10, 14, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BOUNDS = Bounds(shortest=timedelta(minutes=2), longest=timedelta(hours=12))

RATES = st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=30)
BUDGETS = st.floats(0.01, 2000)
AGES_H = st.floats(0, 24 * 60)
HOURLY = st.lists(st.floats(1e-4, 100), min_size=HOURS, max_size=HOURS).map(lambda rates: Rate(tuple(rates)))
USER_IDS = st.integers(1, 1 << 62)


def flat(per_hour: float) -> Rate:
    return Rate((per_hour,) * HOURS)


def every(gap: timedelta, *, since: datetime, until: datetime = NOW) -> Counter[datetime]:
    return Counter(since + number * gap for number in range(int((until - since) / gap)))


def spent(plan: Plan, rates: list[float]) -> float:
    return sum(1 / plan.interval_h(rate) for rate in rates)


def cost(intervals: list[float], rates: list[float]) -> float:
    return sum(rate * interval / 2 for rate, interval in zip(rates, intervals, strict=True))


def polls_of(plan: Plan, rate: Rate, *, user_id: int, until: datetime, joins: bool = False) -> list[datetime]:
    polls = [next_poll(plan, rate, user_id=user_id, after=NOW, joins=joins)]
    while polls[-1] < until:
        polls.append(next_poll(plan, rate, user_id=user_id, after=polls[-1]))
    return polls[:-1]


def test_an_account_of_which_nothing_is_known_tweets_once_a_day_at_any_hour() -> None:
    rate = Memory(NOW).rate()

    assert rate.hourly == pytest.approx([PRIOR_TWEETS / PRIOR_HOURS] * HOURS)
    assert rate.per_day == pytest.approx(1.0)


@pytest.mark.parametrize("per_day", [0.5, 4, 24, 480])
def test_the_rate_of_an_account_is_found_within_a_month(per_day: float) -> None:
    since = NOW - timedelta(days=30)

    rate = Memory(since).observe(every(DAY / per_day, since=since), NOW).rate()

    assert rate.per_day == pytest.approx(per_day, rel=0.15)


def test_a_busy_account_is_told_from_a_quiet_one_after_an_hour() -> None:
    busy = Memory(NOW - HOUR).observe(every(timedelta(minutes=5), since=NOW - HOUR), NOW).rate()
    quiet = Memory(NOW - HOUR).observe({}, NOW).rate()

    assert busy.per_day > 6 * quiet.per_day


def halves(*accounts: tuple[float, float], days: float = 7) -> list[Halves]:
    """Accounts with tweets a day in the even and in the odd hours, watched for so many days."""
    hours = days * 12
    return [Halves(hours, even * days, hours, odd * days) for even, odd in accounts]


def test_without_other_accounts_the_prior_is_a_tweet_a_day_and_soon_believed() -> None:
    prior = learn_prior([])

    assert prior.tweets / prior.hours == pytest.approx(1 / 24)
    assert PRIOR_HOURS < prior.hours < 1.5 * PRIOR_HOURS


def test_where_all_accounts_tweet_alike_what_one_of_them_tweets_more_is_taken_for_chance() -> None:
    # The same rate, but for chance, which comes and goes from hour to hour.
    prior = learn_prior(halves(*[(3.0, 1.0), (1.0, 3.0), (1.4, 2.6), (2.6, 1.4)] * 25))
    lucky = Memory(NOW - DAY).observe(every(DAY / 8, since=NOW - DAY), NOW).rate(prior)

    assert prior.tweets / prior.hours == pytest.approx(4 / 24, rel=0.1)
    assert prior.hours > 500
    assert lucky.per_day == pytest.approx(4, rel=0.1)
    assert prior.hours <= PRIOR_HOURS + LONGEST_ALIKE_H


def test_where_accounts_differ_widely_each_is_taken_for_what_it_shows() -> None:
    prior = learn_prior(halves(*[(0.3, 0.3)] * 90, *[(30.0, 30.0)] * 10))

    assert PRIOR_HOURS < prior.hours < PRIOR_HOURS + 2


@pytest.mark.parametrize("rate", [0.01, 1.0, 100.0])
def test_two_months_tell_how_much_an_account_tweets_however_alike_the_others_are(rate: float) -> None:
    prior = learn_prior(halves(*[(rate / 2, rate / 2)] * 1000, days=30))
    since = NOW - timedelta(days=60)
    busier = Memory(since).observe(every(DAY / (9 * rate), since=since), NOW).rate(prior)

    assert busier.per_day > 3 * rate


@given(
    st.lists(st.builds(Halves, st.floats(0, 243), st.floats(0, 1e5), st.floats(0, 243), st.floats(0, 1e5)), max_size=30)
)
def test_whatever_was_seen_the_prior_is_a_rate_above_zero_that_is_believed_for_two_days_or_more(
    accounts: list[Halves],
) -> None:
    prior = learn_prior(accounts)

    assert prior.hours >= PRIOR_HOURS
    assert prior.tweets >= PRIOR_TWEETS
    assert isfinite(prior.hours)
    assert isfinite(prior.tweets)


def test_the_halves_of_what_is_remembered_are_the_even_and_the_odd_hours() -> None:
    memory = Memory(NOW, hours=tuple(map(float, range(24))), tweets=tuple(map(float, range(100, 124))))

    assert memory.halves() == Halves(
        even_hours=sum(range(0, 24, 2)),
        even_tweets=sum(range(100, 124, 2)),
        odd_hours=sum(range(1, 24, 2)),
        odd_tweets=sum(range(101, 124, 2)),
    )


def test_an_account_that_fell_silent_is_forgotten_but_for_the_prior() -> None:
    busy = Memory(NOW - FORGOTTEN).observe(every(HOUR, since=NOW - FORGOTTEN), NOW)

    rates = [busy.observe({}, NOW + days * DAY).rate().per_day for days in (0, 14, 28, 365)]

    assert rates[0] == pytest.approx(24, rel=0.1)
    assert rates[1] == pytest.approx(rates[0] / 2, rel=0.1)
    assert rates[2] == pytest.approx(rates[0] / 4, rel=0.1)
    assert 0 < rates[3] < 0.1


def test_recent_days_weigh_more() -> None:
    since = NOW - timedelta(days=40)
    recent = Memory(since).observe(every(HOUR, since=NOW - timedelta(days=10)), NOW)
    early = Memory(since).observe(every(HOUR, since=since, until=since + timedelta(days=10)), NOW)

    assert recent.rate().per_day > 3 * early.rate().per_day


def test_the_habit_over_the_day_is_found_in_utc_whatever_the_zone_of_the_instants() -> None:
    since = NOW - timedelta(days=30)
    tweets = Counter(
        {at.astimezone(): count for at, count in every(HOUR / 2, since=since).items() if 8 <= at.hour < 12}
    )

    hourly = Memory(since).observe(tweets, NOW).rate().hourly

    assert min(hourly[8:12]) > 20 * max((*hourly[:8], *hourly[12:]))


def test_few_tweets_give_a_nearly_flat_habit() -> None:
    since = NOW - timedelta(days=5)

    hourly = Memory(since).observe({NOW - HOUR: 1, NOW - DAY: 1}, NOW).rate().hourly

    assert max(hourly) < 3 * min(hourly)


def test_hours_that_were_not_watched_do_not_count_as_quiet_ones() -> None:
    since = NOW - 4 * HOUR

    hourly = Memory(since).observe(every(timedelta(minutes=6), since=since), NOW).rate().hourly
    hours = {(since + number * HOUR).hour for number in range(5)}
    unwatched = [rate for hour, rate in enumerate(hourly) if hour not in hours]

    assert sum(unwatched) / len(unwatched) > PRIOR_TWEETS / PRIOR_HOURS


@given(st.lists(AGES_H, max_size=20), st.lists(AGES_H, max_size=8))
def test_taking_in_history_at_once_or_poll_by_poll_comes_to_the_same(
    tweet_ages: list[float], poll_ages: list[float]
) -> None:
    since = NOW - timedelta(days=60)
    tweets = sorted(NOW - age * HOUR for age in tweet_ages)
    polls = [*sorted(NOW - age * HOUR for age in poll_ages), NOW]

    at_once = Memory(since).observe(Counter(tweets), NOW)
    by_polls = Memory(since)
    for begin, end in pairwise([since, *polls]):
        by_polls = by_polls.observe(Counter(at for at in tweets if begin < at <= end), end)
    by_polls = by_polls.observe(Counter(at for at in tweets if at == since), NOW)

    assert by_polls.until == at_once.until == NOW
    assert by_polls.hours == pytest.approx(at_once.hours, abs=1e-6)
    assert by_polls.tweets == pytest.approx(at_once.tweets, abs=1e-6)


@given(AGES_H)
def test_the_hours_watched_add_up_and_stay_bounded(length_h: float) -> None:
    watched = sum(Memory(NOW - length_h * HOUR).observe({}, NOW).hours)

    assert watched <= min(length_h, 485) + 1e-6
    assert watched >= length_h * 0.5 ** (length_h / (HALF_LIFE / HOUR)) - 1e-6


@given(AGES_H, st.integers(0, 5))
def test_a_poll_that_ends_before_what_is_known_counts_its_tweets_and_no_time(age_h: float, count: int) -> None:
    memory = Memory(NOW - DAY).observe({}, NOW)
    before = NOW - age_h * HOUR

    again = memory.observe({before: count}, before)

    assert (again.until, again.hours) == (memory.until, memory.hours)
    assert sum(again.tweets) == pytest.approx(count * 0.5 ** (age_h * HOUR / HALF_LIFE))


def test_time_that_is_skipped_leaves_the_rate_nearly_as_it_was() -> None:
    since = NOW - timedelta(days=60)
    memory = Memory(since).observe(every(HOUR, since=since), NOW)

    skipped, silent = memory.skip(NOW + HALF_LIFE), memory.observe({}, NOW + HALF_LIFE)

    assert skipped.rate().per_day == pytest.approx(memory.rate().per_day, rel=0.1)
    assert silent.rate().per_day < 0.6 * memory.rate().per_day
    assert memory.skip(NOW - DAY) == memory


@given(st.lists(st.tuples(AGES_H, st.integers(1, 10_000)), max_size=30), AGES_H)
def test_every_hour_of_every_rate_is_above_zero(tweets: list[tuple[float, int]], watched_h: float) -> None:
    counted = {NOW - age_h * HOUR: count for age_h, count in tweets}

    rate = Memory(NOW - watched_h * HOUR).observe(counted, NOW).rate()

    assert min(rate.hourly) > 0
    assert 0 < rate.even <= rate.per_day / HOURS * (1 + 1e-9)


def test_a_flat_rate_is_its_own_even_rate() -> None:
    assert flat(0.7).even == pytest.approx(0.7)


def test_intervals_go_by_the_root_of_the_rate() -> None:
    plan = allocate([1.0, 4.0, 16.0], polls_per_hour=7.0, bounds=BOUNDS)

    assert [plan.interval_h(rate) for rate in (1.0, 4.0, 16.0)] == pytest.approx([1.0, 0.5, 0.25])


@given(RATES, BUDGETS)
def test_the_budget_is_spent_to_the_last_poll_unless_all_are_at_the_shortest_interval(
    rates: list[float], budget: float
) -> None:
    plan = allocate(rates, polls_per_hour=budget, bounds=BOUNDS)

    assert spent(plan, rates) == pytest.approx(min(budget, len(rates) / (BOUNDS.shortest / HOUR)))


@given(RATES, BUDGETS)
def test_intervals_keep_to_the_bounds_unless_the_budget_is_too_small_for_them(
    rates: list[float], budget: float
) -> None:
    plan = allocate(rates, polls_per_hour=budget, bounds=BOUNDS)
    intervals = [plan.interval_h(rate) for rate in rates]

    assert plan.over_committed == (len(rates) / 12 > budget)
    if plan.over_committed:
        assert intervals == pytest.approx([len(rates) / budget] * len(rates))
    else:
        assert min(intervals) >= BOUNDS.shortest / HOUR
        assert max(intervals) <= BOUNDS.longest / HOUR


@given(RATES.filter(lambda rates: len(rates) > 1), st.floats(0.1, 900), st.data())
def test_no_poll_would_be_worth_more_at_another_account(rates: list[float], budget: float, data: st.DataObject) -> None:
    plan = allocate(rates, polls_per_hour=budget, bounds=BOUNDS)
    intervals = [plan.interval_h(rate) for rate in rates]
    giver, taker = data.draw(st.permutations(range(len(rates))))[:2]
    moved = data.draw(st.floats(0, 1)) * min(
        1 / intervals[giver] - 1 / plan.longest_h, 1 / plan.shortest_h - 1 / intervals[taker]
    )
    other = list(intervals)
    other[giver], other[taker] = 1 / (1 / other[giver] - moved), 1 / (1 / other[taker] + moved)

    assert cost(intervals, rates) <= cost(other, rates) * (1 + 1e-9)


@given(RATES, BUDGETS)
def test_the_planned_mean_delay_is_never_above_that_of_polling_all_alike(rates: list[float], budget: float) -> None:
    plan = allocate(rates, polls_per_hour=budget, bounds=BOUNDS)
    alike = max(len(rates) / budget, plan.shortest_h)

    assert cost([plan.interval_h(rate) for rate in rates], rates) <= cost([alike] * len(rates), rates) * (1 + 1e-9)


@given(RATES, BUDGETS)
def test_a_plan_depends_neither_on_the_order_of_the_accounts_nor_on_anything_else(
    rates: list[float], budget: float
) -> None:
    plan = allocate(rates, polls_per_hour=budget, bounds=BOUNDS)

    assert allocate(reversed(rates), polls_per_hour=budget, bounds=BOUNDS) == plan


def test_a_poll_per_longest_interval_is_set_aside_for_each_account_that_is_away() -> None:
    plan = allocate([1.0] * 10, polls_per_hour=12.0, bounds=BOUNDS, away=24)

    assert 10 / plan.interval_h(1.0) == pytest.approx(10.0)


def test_accounts_that_are_away_count_when_the_budget_is_too_small() -> None:
    plan = allocate([1.0] * 6, polls_per_hour=0.5, bounds=BOUNDS, away=6)

    assert (plan.over_committed, plan.longest_h) == (True, 24.0)


def test_a_watch_of_nobody_and_one_where_all_are_away_have_a_plan() -> None:
    assert not allocate([], polls_per_hour=1.0, bounds=BOUNDS).over_committed
    assert allocate([], polls_per_hour=1.0, bounds=BOUNDS, away=13).over_committed


@pytest.mark.parametrize(("rates", "budget"), [([1.0], 0.0), ([1.0], -1.0), ([0.0, 1.0], 1.0), ([-1.0], 1.0)])
def test_a_budget_or_a_rate_of_nothing_is_refused(rates: list[float], budget: float) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 the square root words one of them
        allocate(rates, polls_per_hour=budget, bounds=BOUNDS)


@pytest.mark.parametrize(("shortest", "longest"), [(0, 1), (-1, 1), (2, 1)])
def test_bounds_that_cannot_be_kept_are_refused(shortest: int, longest: int) -> None:
    with pytest.raises(ValueError, match="the bounds of the interval are wrong"):
        Bounds(shortest=shortest * HOUR, longest=longest * HOUR)


@given(HOURLY, USER_IDS, st.floats(0.01, 100), st.integers(0, 86_399))
def test_the_next_poll_keeps_to_the_bounds_and_is_always_the_same(
    rate: Rate, user_id: int, multiplier: float, second: int
) -> None:
    plan, after = Plan(multiplier, BOUNDS.shortest / HOUR, BOUNDS.longest / HOUR), NOW + second * timedelta(seconds=1)

    due = next_poll(plan, rate, user_id=user_id, after=after)

    assert BOUNDS.shortest <= due - after + timedelta(microseconds=1)
    assert due - after <= BOUNDS.longest + timedelta(microseconds=1)
    assert next_poll(plan, rate, user_id=user_id, after=after) == due
    assert next_poll(plan, rate, user_id=user_id, after=after, joins=True) - after <= BOUNDS.longest


@given(HOURLY, USER_IDS, st.floats(1.5, 20))
def test_an_account_takes_the_polls_that_were_shared_out_to_it_whatever_its_habit(
    rate: Rate, user_id: int, interval_h: float
) -> None:
    bounds = Bounds(shortest=HOUR, longest=24 * HOUR)
    plan = allocate([rate.even] * 3, polls_per_hour=3 / interval_h, bounds=bounds)

    polls = polls_of(plan, rate, user_id=user_id, until=NOW + 20 * DAY)

    assert len(polls) == pytest.approx(20 * 24 / interval_h, rel=0.02, abs=2)


def test_polls_are_dense_where_tweets_are_by_the_root_of_the_rate() -> None:
    rate = Rate((4.0,) * 8 + (1.0,) * 8 + (0.25,) * 8)
    plan = Plan(0.5, 0.01, 24.0)

    by_hour = Counter(at.hour for at in polls_of(plan, rate, user_id=7, until=NOW + 10 * DAY))
    thirds = [sum(by_hour[hour] for hour in range(begin, begin + 8)) for begin in (0, 8, 16)]

    assert thirds == pytest.approx([320, 160, 80], rel=0.03)


def test_when_the_budget_is_too_small_nobody_starves() -> None:
    rates = [1e-4, 1.0, 1e3]
    plan = allocate(rates, polls_per_hour=0.1, bounds=BOUNDS)

    counts = [len(polls_of(plan, flat(rate), user_id=9, until=NOW + 30 * DAY)) for rate in rates]

    assert counts == pytest.approx([24, 24, 24], abs=1)


def test_accounts_tracked_together_are_spread_evenly_and_stay_so() -> None:
    rate, plan = flat(1.0), Plan(1.0, 0.01, 24.0)
    polls = [polls_of(plan, rate, user_id=number, until=NOW + 30 * HOUR, joins=True) for number in range(2000)]

    for begin in (0, 10, 20):
        tenths = Counter(int((at - NOW) / HOUR * 10) for own in polls for at in own)
        shares = [tenths[10 * begin + tenth] for tenth in range(10)]
        assert shares == pytest.approx([200] * 10, abs=60)


def test_accounts_once_polled_together_drift_apart() -> None:
    rate, plan = flat(1.0), Plan(1.0, 0.01, 24.0)

    first = [next_poll(plan, rate, user_id=number, after=NOW) for number in range(1000)]
    minutes = Counter(int((due - NOW) / timedelta(minutes=1)) for due in first)

    assert set(minutes) == {57, 58, 59, 60, 61, 62}
    assert max(minutes.values()) < 250


def test_jitter_costs_less_than_a_thousandth_of_the_delay() -> None:
    rate, plan = flat(1.0), Plan(1.0, 0.01, 24.0)
    polls = polls_of(plan, rate, user_id=3, until=NOW + 2000 * HOUR)
    gaps = [(later - earlier) / HOUR for earlier, later in pairwise(polls)]

    assert sum(gap**2 for gap in gaps) / sum(gaps) < sum(gaps) / len(gaps) * 1.001


@given(st.floats(0, 24 * 400), USER_IDS)
def test_one_that_is_away_is_looked_for_after_as_long_as_it_has_been_gone_but_weekly(
    away_h: float, user_id: int
) -> None:
    plan = allocate([1.0], polls_per_hour=1.0, bounds=BOUNDS)
    away_since = NOW - away_h * HOUR

    gap = next_look(plan, user_id=user_id, away_since=away_since, after=NOW) - NOW
    wanted = min(max(NOW - away_since, BOUNDS.longest), LONGEST_AWAY)

    assert wanted <= gap <= wanted * (1 + JITTER)


def test_one_that_stays_away_for_a_year_costs_a_call_a_week() -> None:
    plan = allocate([1.0], polls_per_hour=1.0, bounds=BOUNDS)
    looks, at = 0, NOW
    while at < NOW + 365 * DAY:
        at = next_look(plan, user_id=1, away_since=NOW, after=at)
        looks += 1

    assert looks == pytest.approx(52 + 4, abs=2)


def test_a_longest_interval_beyond_a_week_also_holds_for_one_that_is_away() -> None:
    plan = allocate([1.0], polls_per_hour=0.001, bounds=BOUNDS)

    assert next_look(plan, user_id=1, away_since=NOW, after=NOW) - NOW >= 1000 * HOUR


def test_ten_times_the_budget_divides_every_interval_by_ten_within_the_bounds() -> None:
    rates = [0.01, 0.1, 1.0]
    small, large = (allocate(rates, polls_per_hour=budget, bounds=BOUNDS) for budget in (2.0, 20.0))

    assert [small.interval_h(rate) / large.interval_h(rate) for rate in rates] == pytest.approx([10.0] * 3)
    assert small.multiplier == pytest.approx(sum(map(sqrt, rates)) / 2)
