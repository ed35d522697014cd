"""`tokens` and `tokens check`: which tokens there are, whether they work, and what is left of their limits."""

from collections.abc import Collection, Sequence
from datetime import datetime

import click
from rich.table import Table
from rich.text import Text

from twitter_pipeline.cli.commands import Group, environment_settings
from twitter_pipeline.cli.places import tables, workplace
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.words import NOTHING, STYLES, duration, instant, number
from twitter_pipeline.store.activity import Window, load_all_windows
from twitter_pipeline.store.tokens import SANDBOX_PREFIX, TokenState, load_tokens, refuse_to_mix, register_tokens
from twitter_pipeline.token_check import TokenCheck, check_tokens
from twitter_pipeline.words import TokenStatus
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline.x_api.endpoints import Endpoint


@click.group(cls=Group, invoke_without_command=True, short_help="Show every token and what is left of its limits.")
@click.pass_context
def tokens(context: click.Context) -> None:
    """Show every token by the name of its variable: its status, and what is left of its limits at each endpoint.

    The secrets are in the environment or in .env, as TWITTER_BEARER_<anything>, and nowhere else.

    \b
    Examples:
      twitter-pipeline tokens
      twitter-pipeline tokens check
    """
    if context.invoked_subcommand is not None:
        return
    terminal = context.find_object(Terminal) or Terminal.open()
    settings = environment_settings()
    with tables(settings, terminal) as opened:
        if settings.bearer_tokens:
            refuse_to_mix(opened.database, settings.bearer_tokens)
            register_tokens(opened.database, settings.bearer_tokens, [endpoint.value for endpoint in Endpoint])
        states, windows = load_tokens(opened.database), load_all_windows(opened.database)
    if not states:
        terminal.write("No token is known. Put TWITTER_BEARER_1=... into .env; until then the sandbox is used.")
        return
    terminal.show(_states(states, here=settings.bearer_tokens))
    if windows:
        terminal.show(_windows(windows))


@tokens.command(short_help="Test the tokens of this environment.")
@click.pass_obj
def check(terminal: Terminal) -> int:
    """Test every token of this environment with one call that costs nothing, and set its status accordingly.

    A token that is mended works again from then on: run this after a change in .env or in X's developer portal. Exits
    with 1 when a token does not work or could not be tested.

    \b
    Example:
      twitter-pipeline tokens check
    """
    with workplace(environment_settings(), terminal) as work, XApiClient(work.place.api_url) as client:
        checks = check_tokens(client, work.database, work.place.bearer_tokens)
    lines = table("token", "was", "is", "")
    for each in checks:
        lines.add_row(cell(each.env_key), _word(each.before), _word(each.after), cell(each.said))
    terminal.show(lines)
    return 0 if all(_works(each) for each in checks) else 1


def _works(check: TokenCheck) -> bool:
    return check.tested and check.after is TokenStatus.ACTIVE


def _word(status: TokenStatus) -> Text:
    return Text(status, style=STYLES.get(status, ""))


def _states(states: Sequence[TokenState], *, here: Collection[str]) -> Table:
    lines = table("token", "status", "since (UTC)", "until (UTC)", "reason")
    for each in states:
        # The sandbox makes its tokens when it starts.
        elsewhere = each.env_key not in here and not each.env_key.startswith(SANDBOX_PREFIX)
        remarks = [each.reason or "", "not in this environment" if elsewhere else ""]
        lines.add_row(
            cell(each.env_key),
            _word(each.status),
            instant(each.since),
            instant(each.until),
            cell("; ".join(filter(None, remarks))),
        )
    return lines


def _windows(windows: Sequence[Window]) -> Table:
    numbers = ("remaining", "limit", "in flight")
    lines = table("token", "endpoint", "remaining", "limit", "resets", "in flight", "24 hours", right=numbers)
    for each in windows:
        is_open = each.reset_at is not None and each.reset_at > each.now
        lines.add_row(
            cell(each.env_key),
            each.endpoint,
            number(each.remaining) if is_open else NOTHING,
            number(each.limit),
            until_reset(each.reset_at, each.now),
            number(each.in_flight),
            day_window(each),
        )
    return lines


def until_reset(reset_at: datetime | None, now: datetime) -> str:
    """Say when a window resets; once it has, all of its calls are there again."""
    if reset_at is None:
        return "unknown"
    if reset_at <= now:
        return "has reset"
    return f"{reset_at:%H:%M:%S} UTC, in {duration((reset_at - now).total_seconds())}"


def day_window(window: Window) -> str:
    """Say what is left of a limit of 24 hours, which few endpoints have."""
    if window.day_limit is None or window.day_reset_at is None or window.day_reset_at <= window.now:
        return ""
    return f"{number(window.day_remaining)} of {window.day_limit:,} until {instant(window.day_reset_at)} UTC"
