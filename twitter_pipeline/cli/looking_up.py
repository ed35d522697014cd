"""Looking up names for a command, and asking first when that would cost much."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from threading import Event

import click

from twitter_pipeline.accounts import Resolution, Resolver, age_that_serves
from twitter_pipeline.calls import XApi
from twitter_pipeline.cli.places import Workplace
from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.confirmation import require_confirmed_look_ups
from twitter_pipeline.errors import NotConfirmed
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.settings import Settings
from twitter_pipeline.tokens import TokenPool
from twitter_pipeline.x_api.client import XApiClient


def look_up(
    terminal: Terminal, settings: Settings, work: Workplace, requests: Sequence[FetchRequest], *, yes: bool
) -> Resolution:
    """Ask X who holds the names of a request, and store the profiles.

    Raises NotConfirmed when that would cost much, and there is neither a `yes` nor a person who says so.
    """
    place, stop, now = work.place, Event(), datetime.now(UTC)
    with XApiClient(place.api_url) as client:
        pool = TokenPool(
            work.database,
            place.bearer_tokens,
            lease_s=client.longest_call_s,
            stop=stop,
            budgets=settings.budgets,
            prices=settings.prices,
            retests=True,
        )
        resolver = Resolver(
            XApi(client, pool, work.database, stop=stop),
            work.database,
            fetch_run_id=None,
            profile_max_age=age_that_serves(requests, profile_max_age=settings.profile_max_age, now=now),
            now=now,
            allow=None if yes else lambda profiles: ask(terminal, settings, work, profiles),
        )
        return resolver.resolve(requests)


def ask(terminal: Terminal, settings: Settings, work: Workplace, profiles: int) -> None:
    """Ask the person at the terminal whether so many profiles may be looked up, if that would cost much."""
    if work.made_up:
        return
    try:
        require_confirmed_look_ups(profiles, settings)
    except NotConfirmed as error:
        if not is_somebody_there():
            raise
        terminal.say(str(error))
        if not click.confirm("Look them up?", default=False, err=True):
            raise


def is_somebody_there() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()
