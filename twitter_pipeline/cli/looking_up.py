"""Looking up names for a command, and asking first when that would cost much."""

import sys
from collections.abc import Sequence
from functools import partial

import click

from twitter_pipeline.accounts import Resolution
from twitter_pipeline.cli.places import Workplace
from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.confirmation import require_confirmed_look_ups
from twitter_pipeline.errors import NotConfirmed
from twitter_pipeline.estimating import resolving
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.settings import Settings


def look_up(
    terminal: Terminal, settings: Settings, work: Workplace, requests: Sequence[FetchRequest], *, yes: bool
) -> Resolution:
    """Ask X who holds the names of a request, and store the profiles.

    Raises NotConfirmed when that would cost much, and there is neither a `yes` nor a person who says so.
    """
    here = work.applied_to(settings)
    allow = None if yes else partial(ask, terminal, here)
    with resolving(here, work.database, requests, allow=allow) as resolver:
        return resolver.resolve(requests)


def ask(terminal: Terminal, settings: Settings, profiles: int) -> None:
    """Ask the person at the terminal whether so many profiles may be looked up, if that would cost much."""
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
