"""The watch: which accounts are due, and, after a poll, when each is polled next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

from twitter_pipeline.budgets import Cost
from twitter_pipeline.coverage import time_at
from twitter_pipeline.detection import current_detection, endpoint_of, polls_an_hour
from twitter_pipeline.errors import Availability
from twitter_pipeline.polling.plan import Bounds, Plan, allocate, next_look, next_poll
from twitter_pipeline.polling.prior import Prior, learn_prior
from twitter_pipeline.polling.rates import FORGOTTEN, Memory
from twitter_pipeline.request import NEW, FetchMode, FetchRequest
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import AccountReport
from twitter_pipeline.store.spending import count_spending, find_used_up
from twitter_pipeline.store.sweeps import load_active_since
from twitter_pipeline.store.watch import (
    NextPoll,
    Polled,
    hand_out,
    load_halves,
    load_handed,
    load_newly_read,
    load_outlook,
    load_polled,
    load_rates,
    postpone,
    save_polls,
)
from twitter_pipeline.store.windows import load_windows
from twitter_pipeline.sweeping import begin_of
from twitter_pipeline.tokens import waits_until
from twitter_pipeline.words import AccountOutcome
from twitter_pipeline.x_api.client import LONGEST_CALL_S

ACCOUNTS_A_RUN = 10_000

# An account that failed or was broken off has told nothing.
_TOLD = (AccountOutcome.DONE, AccountOutcome.PARTIAL, AccountOutcome.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Due:
    """Accounts that were handed to a run; the run finds them by the key."""

    key: str
    accounts: int


def take_due(database: Database, settings: Settings) -> Due | str:
    """Hand the accounts that are due to a run that is about to be started, or say why there is nothing to do now."""
    outlook = load_outlook(database)
    if outlook.next_poll_at is None:
        return "no account is tracked"
    if outlook.next_poll_at > outlook.now:
        return f"none of {outlook.tracked:,} tracked accounts is due before {_clock(outlook.next_poll_at)}"
    if outlook.polled_at is not None and outlook.now < outlook.polled_at + settings.watch_spacing:
        return f"accounts are gathered until {_clock(outlook.polled_at + settings.watch_spacing)}"
    if (reason := _no_budget(database, settings) or no_money(database, settings)) is not None:
        return reason
    # The plan keeps to the budget on the average; accounts that were tracked together, or that a stop of hours has left
    # overdue together, would pass it at once.
    allowed = polls_an_hour(database, settings) - outlook.polled_lately
    if allowed <= 0:
        return (
            f"the {settings.watch_polls_per_hour:,} polls an hour that TWITTER_WATCH_POLLS_PER_HOUR allows are used "
            "up; accounts that are due wait"
        )
    key = f"watch-{uuid4().hex}"
    accounts = hand_out(database, key, at_most=min(allowed, ACCOUNTS_A_RUN))
    return Due(key, accounts) if accounts else "what is due is being polled"


def no_money(database: Database, settings: Settings) -> str | None:
    """Say which budget is used up, None when each has enough left for a page."""
    count_spending(database, settings.budgets)
    page = Cost(posts=settings.page_size)
    reached = find_used_up(database, settings.budgets, settings.prices, wanted=page)
    return None if reached is None else str(reached)


def requests_of_due(database: Database, key: str) -> tuple[FetchRequest, ...]:
    """Return what a run is to fetch that accounts were handed to."""
    handed = load_handed(database, key)
    return tuple(FetchRequest(name.lower(), fetch_mode=NEW, user_id=user_id) for user_id, name in handed)


def requests_of_day(database: Database, day: date) -> tuple[FetchRequest, ...]:
    """Return what a sweep of a UTC day is to read: the tracked accounts of which tweets of that day are stored."""
    mode, active = FetchMode(swept_day=day), load_active_since(database, begin_of(day))
    return tuple(FetchRequest(name.lower(), fetch_mode=mode, user_id=user_id) for user_id, name in active)


def plan_next_polls(database: Database, settings: Settings, reports: Sequence[AccountReport]) -> Plan:
    """Learn from a run's accounts how much they tweet, and decide when each is polled next.

    Accounts that failed are tried again after the shortest interval. Returns the plan that it was decided by.
    """
    prior = learn_prior(load_halves(database))
    plan = share_budget(database, settings, prior)
    read = [each.user_id for each in reports if each.user_id is not None and each.outcome in _TOLD]
    failed = [each.user_id for each in reports if each.user_id is not None and each.outcome not in _TOLD]
    save_polls(database, _next_polls(database, plan, prior, read))
    postpone(database, failed, seconds=settings.watch_shortest.total_seconds())
    return plan


def share_budget(database: Database, settings: Settings, prior: Prior) -> Plan:
    """Share the budget of polls out among all tracked accounts; of which nothing is known yet count as the prior."""
    rates, away = load_rates(database)
    unknown = Memory(datetime.now(UTC)).rate(prior).even
    bounds = Bounds(settings.watch_shortest, settings.watch_longest)
    known = [unknown if rate is None else rate for rate in rates]
    return allocate(known, polls_per_hour=polls_an_hour(database, settings), bounds=bounds, away=away)


def _next_polls(database: Database, plan: Plan, prior: Prior, user_ids: Sequence[int]) -> list[NextPoll]:
    polled = load_polled(database, user_ids)
    if not polled:
        return []
    read = load_newly_read(database, user_ids, remembered_from=polled[0].now - FORGOTTEN)
    return [_next_poll(plan, prior, each, read.get(each.user_id, {})) for each in polled]


def _next_poll(plan: Plan, prior: Prior, polled: Polled, read: Mapping[datetime, int]) -> NextPoll:
    """Decide when an account is polled next, and keep what was learned of it."""
    memory = _remembered(polled)
    if polled.availability is not Availability.ACTIVE:
        at = next_look(plan, user_id=polled.user_id, away_since=polled.availability_since, after=polled.now)
        # An account that was away from the first on is learned from its history when it is back.
        memory = None if memory is None else memory.skip(polled.now)
        return NextPoll(polled.user_id, at, memory, None if memory is None else memory.rate(prior).even)
    joins = memory is None
    if memory is None:
        # The hours of its history; a tweet from before them would count against hours that do not.
        memory = Memory(max(_complete_since(polled), polled.now - FORGOTTEN))
        read = {hour: count for hour, count in read.items() if hour >= memory.until}
    memory = memory.observe(read, polled.now)
    rate = memory.rate(prior)
    at = next_poll(plan, rate, user_id=polled.user_id, after=polled.now, joins=joins)
    return NextPoll(polled.user_id, at, memory, rate.even)


def _remembered(polled: Polled) -> Memory | None:
    if polled.rate_known_at is None or polled.rate_hours is None or polled.rate_tweets is None:
        return None
    return Memory(polled.rate_known_at, tuple(polled.rate_hours), tuple(polled.rate_tweets))


def _complete_since(polled: Polled) -> datetime:
    """Return since when no tweet is missing; where the whole timeline is stored, since the account was made."""
    if polled.complete_from_id is None:
        return polled.tracked_since
    begins = time_at(polled.complete_from_id)
    return begins if polled.created_at is None else max(begins, polled.created_at)


def _no_budget(database: Database, settings: Settings) -> str | None:
    """Say why no call could be sent now, None when one can."""
    endpoint = endpoint_of(current_detection(database, settings))
    windows = load_windows(database, endpoint, sorted(settings.bearer_tokens))
    if windows and not any(window.leasable for window in windows):
        return "no token is fit for use: see `twitter-pipeline tokens`"
    until = waits_until(windows, lease_s=LONGEST_CALL_S) if windows else None
    if until is not None and until > datetime.now(UTC) + timedelta(seconds=1):
        return f"all tokens are used up until {_clock(until)}"
    return None


def _clock(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%H:%M:%S} UTC"
