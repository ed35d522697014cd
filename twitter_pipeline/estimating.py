"""Estimate requests: look up the names that are not known, and tell what fetching the accounts would take and cost.

Nothing is written but what the look-ups tell; a run that was not made leaves no row.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Event

from twitter_pipeline.accounts import Account, Resolution, Resolver, age_that_serves
from twitter_pipeline.backfill import SEARCHABLE_AFTER
from twitter_pipeline.calls import XApi
from twitter_pipeline.coverage import id_at
from twitter_pipeline.detection import current_detection, endpoint_of
from twitter_pipeline.estimate import (
    AccountEstimate,
    Estimate,
    Limits,
    LookUps,
    Part,
    Work,
    budgets_now,
    estimate_searches,
    estimate_timeline,
    parts_of,
)
from twitter_pipeline.ledger import Ledger
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.requested_fields import brings_users
from twitter_pipeline.settings import Detection, Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.estimates import load_around, load_call_s
from twitter_pipeline.store.ledger import load_ledgers
from twitter_pipeline.store.watch import load_refused
from twitter_pipeline.store.windows import load_windows
from twitter_pipeline.stream_rules import pack
from twitter_pipeline.tokens import TokenPool
from twitter_pipeline.words import Source
from twitter_pipeline.x_api.client import IDS_PER_CALL, XApiClient
from twitter_pipeline.x_api.endpoints import Endpoint

REFUSED_WITHIN_S = 86_400.0
"""A token to which X has refused the archive search on its last try, so recently, is not reckoned with there."""


@contextmanager
def resolving(
    settings: Settings, database: Database, requests: Sequence[FetchRequest], *, allow: Callable[[int], None] | None
) -> Generator[Resolver]:
    """Give what looks up the names of a request that is not under way; `allow` is as for Resolver."""
    stop, now = Event(), datetime.now(UTC)
    with XApiClient(settings.api_url) as client:
        pool = TokenPool(
            database,
            settings.bearer_tokens,
            lease_s=client.longest_call_s,
            stop=stop,
            budgets=settings.budgets,
            prices=settings.prices,
            retests=True,
        )
        yield Resolver(
            XApi(client, pool, database, stop=stop),
            database,
            fetch_run_id=None,
            profile_max_age=age_that_serves(requests, profile_max_age=settings.profile_max_age, now=now),
            now=now,
            allow=allow,
        )


def estimate_request(
    settings: Settings,
    database: Database,
    requests: Sequence[FetchRequest],
    *,
    allow: Callable[[int], None] | None = None,
) -> Estimate:
    """Estimate a request that is not under way: look up the names that are not known or no longer fresh, and no more.

    `allow` is as for Resolver. Raises NoTokenAvailable when names are to be looked up and no token can.
    """
    with resolving(settings, database, requests, allow=allow) as resolver:
        resolution = resolver.resolve(requests)
        look_ups = resolver.calls_for(requests)
    estimate = estimate_accounts(settings, database, resolution)
    limits = _limits(settings, database, Endpoint.USERS_BY)
    seconds = _sum(estimate.seconds, limits.seconds(look_ups, estimate.at))
    return replace(
        estimate, shared=estimate.shared + look_ups, shared_most=estimate.shared_most + look_ups, seconds=seconds
    )


def estimate_accounts(settings: Settings, database: Database, resolution: Resolution) -> Estimate:
    """Estimate what fetching accounts takes whose names are resolved, without any call.

    It takes a fixed number of queries, however many accounts there are.
    """
    now = datetime.now(UTC)
    ledgers = _ledgers(database, resolution.accounts)
    parts = _parts(database, ledgers, now)
    open_to_search = _open_to_search(settings, database, resolution.accounts)
    searched = [each for each in resolution.accounts if _is_searched(each, open_to_search)]
    found = estimate_searches(
        [(each.request, ledgers[each.user_id], parts[each.user_id]) for each in searched],
        page_size=settings.archive_page_size,
        characters=settings.archive_query_characters,
        settled_below=id_at(now - max(settings.settle, SEARCHABLE_AFTER)),
    )
    by_timeline = [
        estimate_timeline(
            each.request,
            ledgers[each.user_id],
            parts[each.user_id],
            page_size=settings.page_size,
            now=now,
            settle=settings.settle,
        )
        for each in resolution.accounts
        if not _is_searched(each, open_to_search)
    ]
    look = _detection(settings, database, resolution.accounts, now)
    if look.calls:
        # Only the timelines of those with news are asked.
        by_timeline = [each if each.likely.tweets else replace(each, likely=Work()) for each in by_timeline]
    limits = _limits(settings, database, Endpoint.USER_TWEETS)
    timed = [replace(each, seconds=_seconds_of(each, limits, now)) for each in by_timeline]
    calls, longest = sum(each.likely.calls for each in timed), max((each.likely.calls for each in timed), default=0)
    searching_s = _limits(settings, database, Endpoint.SEARCH_ALL).seconds(found.calls, now) if searched else 0.0
    return Estimate(
        accounts=(*found.accounts, *timed),
        prices=settings.prices,
        at=now,
        absent=tuple((each.request.username, each.reason) for each in resolution.absences if each.availability),
        failed=tuple((each.request.username, each.reason) for each in resolution.absences if not each.availability),
        shared=found.calls + look.calls,
        shared_most=found.calls_most + look.calls,
        profiles=max(look.profiles, _authors(database, resolution.accounts, (*found.accounts, *timed), now)),
        looked_up=LookUps(resolution.looked_up, resolution.calls, resolution.billed_users),
        seconds=_sum(limits.seconds(calls, now, in_a_row=longest), searching_s, look.seconds),
    )


def _authors(
    database: Database, accounts: Sequence[Account], estimates: Sequence[AccountEstimate], now: datetime
) -> int:
    """Count the users that may be billed because their tweets bring them along, each once a UTC day."""
    if not brings_users(database, Endpoint.USER_TWEETS):
        return 0
    read = {each.request.username for each in estimates if each.likely.calls}
    return sum(each.request.username in read and not each.was_read_on_day_of(now) for each in accounts)


@dataclass(frozen=True, slots=True)
class _Look:
    """What it takes to learn which accounts have news before their timelines are asked."""

    calls: int = 0
    profiles: int = 0
    seconds: float | None = 0.0


def _detection(settings: Settings, database: Database, accounts: Sequence[Account], now: datetime) -> _Look:
    """Return what the detection takes that goes before a request for nothing but news."""
    if not all(each.request.fetch_mode.only_new for each in accounts):
        return _Look()
    detection = current_detection(database, settings)
    if detection is Detection.TIMELINE:
        return _Look()
    profiles = 0
    if detection is Detection.USERS:
        calls = -(-len(accounts) // IDS_PER_CALL)
        # X bills a user once a UTC day.
        profiles = sum(not each.was_read_on_day_of(now) for each in accounts)
    else:
        calls = len(pack((each.request.username for each in accounts), settings.search_query_characters))
    return _Look(calls, profiles, _limits(settings, database, endpoint_of(detection)).seconds(calls, now))


def _ledgers(database: Database, accounts: Sequence[Account]) -> dict[int, Ledger]:
    found = load_ledgers(database, user_ids={each.user_id for each in accounts})
    return {ledger.account.user_id: ledger for ledger in found}


def _parts(database: Database, ledgers: Mapping[int, Ledger], now: datetime) -> dict[int, list[Part]]:
    parts = {user_id: parts_of(ledger, now) for user_id, ledger in ledgers.items()}
    # Around an account of which nothing is stored there is nothing to count.
    stored = {user_id: ledger.account.tweets_stored for user_id, ledger in ledgers.items()}
    known = {user_id: each for user_id, each in parts.items() if stored[user_id]}
    return parts | load_around(database, known, in_all=stored, now=now)


def _open_to_search(settings: Settings, database: Database, accounts: Sequence[Account]) -> bool:
    """Whether a token may use the archive search, as far as X has told."""
    if all(each.request.fetch_mode.months is None for each in accounts):
        return False
    windows = load_windows(database, Endpoint.SEARCH_ALL, sorted(settings.bearer_tokens))
    refused = load_refused(database, Endpoint.SEARCH_ALL, within_s=REFUSED_WITHIN_S)
    return any(each.usable and each.env_key not in refused for each in windows)


def _is_searched(account: Account, open_to_search: bool) -> bool:
    mode = account.request.fetch_mode
    return mode.months is not None and (mode.source is Source.SEARCH or (mode.source is Source.AUTO and open_to_search))


def _limits(settings: Settings, database: Database, endpoint: Endpoint) -> Limits:
    windows = load_windows(database, endpoint, sorted(settings.bearer_tokens))
    return Limits(
        budgets_now(windows, documented=endpoint.documented_limit),
        load_call_s(database, endpoint),
        settings.concurrency,
        endpoint.spacing_s,
    )


def _seconds_of(account: AccountEstimate, limits: Limits, now: datetime) -> float | None:
    return limits.seconds(account.likely.calls, now, in_a_row=account.likely.calls)


def _sum(*seconds: float | None) -> float | None:
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None
