"""`tokens` and `tokens check`: which tokens there are, whether they work, and what is left of their limits."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
from rich.text import Text

from twitter_pipeline.cli.commands import Group, environment_settings, json_option
from twitter_pipeline.cli.places import tables, workplace
from twitter_pipeline.cli.tables import FittedTable
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.words import NOTHING, STYLES, duration, instant, number
from twitter_pipeline.store.activity import UseOfDay, Window, load_all_windows, load_use_of_day
from twitter_pipeline.store.tokens import TokenState, load_tokens, refuse_to_mix, register_tokens
from twitter_pipeline.token_check import TokenCheck, check_tokens
from twitter_pipeline.token_page import Used, explain, is_refused, remarks, used_by_token
from twitter_pipeline.words import TokenStatus
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline.x_api.endpoints import Endpoint

_LESS_NEEDED = ("since (UTC)", "posts", "refused", "calls", "until (UTC)")


@click.group(cls=Group, invoke_without_command=True, short_help="Show every token and what is left of its limits.")
@json_option
@click.pass_context
def tokens(context: click.Context, *, as_json: bool) -> None:
    """Show every token by the name of its variable: its status, and what is left of its limits at each endpoint.

    `calls`, `refused` (answered 429) and `posts` (billed) are those of the last day. The last lines say what holds work
    up. The secrets are in the environment or in .env, as TWITTER_BEARER_<anything>, and nowhere else.

    \b
    Examples:
      twitter-pipeline tokens
      twitter-pipeline tokens --json
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
        use = load_use_of_day(opened.database)
    if as_json:
        terminal.write_json(_as_values(states, windows, use, here=settings.bearer_tokens))
        return
    if not states:
        terminal.write("No token is known. Put TWITTER_BEARER_1=... into .env; until then the sandbox is used.")
        return
    terminal.show(_states(states, use, here=settings.bearer_tokens))
    if windows:
        terminal.show(_windows(windows))
    terminal.write("\n".join(explain(states, windows)))


@tokens.command(short_help="Test the tokens of this environment.")
@json_option
@click.pass_obj
def check(terminal: Terminal, *, as_json: bool) -> int:
    """Test every token of this environment with one call that costs nothing, and set its status accordingly.

    A token that is mended works again from then on: run this after a change in .env or in X's developer portal. Exits
    with 1 when a token does not work or could not be tested.

    \b
    Example:
      twitter-pipeline tokens check
    """
    with workplace(environment_settings(), terminal) as work, XApiClient(work.place.api_url) as client:
        checks = check_tokens(client, work.database, work.place.bearer_tokens)
    if as_json:
        terminal.write_json([asdict(each) for each in checks])
    else:
        terminal.show(_checks(checks))
    return 0 if all(_works(each) for each in checks) else 1


def _checks(checks: Sequence[TokenCheck]) -> FittedTable:
    lines = table("token", "was", "is", "X says", prose=["X says"], drop=["was"])
    for each in checks:
        lines.add_row(cell(each.env_key), _word(each.before), _word(each.after), cell(each.said))
    return lines


def _as_values(
    states: Sequence[TokenState], windows: Sequence[Window], use: Sequence[UseOfDay], *, here: Collection[str]
) -> dict[str, Any]:
    used = used_by_token(use)
    return {
        "tokens": [
            {
                **asdict(each),
                "in_this_environment": each.env_key in here,
                "last_day": asdict(used.get(each.env_key, Used())),
                "windows": [_window_values(window) for window in windows if window.env_key == each.env_key],
            }
            for each in states
        ],
        "explanation": explain(states, windows),
    }


def _window_values(window: Window) -> dict[str, Any]:
    return {name: value for name, value in asdict(window).items() if name not in ("env_key", "now")}


def _works(check: TokenCheck) -> bool:
    return check.tested and check.after is TokenStatus.ACTIVE


def _word(status: TokenStatus) -> Text:
    return Text(status, style=STYLES.get(status, ""))


def _states(states: Sequence[TokenState], use: Sequence[UseOfDay], *, here: Collection[str]) -> FittedTable:
    numbers = ("calls", "refused", "posts")
    lines = table(
        "token",
        "status",
        "since (UTC)",
        "until (UTC)",
        *numbers,
        "reason",
        right=numbers,
        prose=["reason"],
        drop=_LESS_NEEDED,
    )
    used = used_by_token(use)
    for each in states:
        of_day = used.get(each.env_key, Used())
        lines.add_row(
            cell(each.env_key),
            _word(each.status),
            instant(each.since),
            instant(each.until),
            number(of_day.calls),
            number(of_day.refused),
            number(of_day.billed_posts),
            cell(remarks(each, here)),
        )
    return lines


def _windows(windows: Sequence[Window]) -> FittedTable:
    numbers = ("remaining", "limit", "in flight")
    lines = table(
        "token",
        "endpoint",
        "remaining",
        "limit",
        "resets (UTC)",
        "resets",
        "in flight",
        "24 hours",
        right=numbers,
        drop=("24 hours", "in flight", "limit", "resets (UTC)"),
    )
    for each in windows:
        is_open = each.reset_at is not None and each.reset_at > each.now
        lines.add_row(
            cell(each.env_key),
            each.endpoint,
            number(each.remaining) if is_open else NOTHING,
            number(each.limit),
            f"{each.reset_at:%H:%M:%S}" if is_open else NOTHING,
            _until_free(each),
            number(each.in_flight),
            day_window(each),
        )
    return lines


def _until_free(window: Window) -> str:
    """Say until when nothing is sent after a refusal, else when the window resets."""
    if is_refused(window) and window.paused_until is not None:
        return f"refused, waits {duration((window.paused_until - window.now).total_seconds())}"
    return until_reset(window.reset_at, window.now)


def until_reset(reset_at: datetime | None, now: datetime) -> str:
    """Say when a window resets; once it has, all of its calls are there again."""
    if reset_at is None:
        return "unknown"
    if reset_at <= now:
        return "has reset"
    return f"in {duration((reset_at - now).total_seconds())}"


def day_window(window: Window) -> str:
    """Say what is left of a limit of 24 hours, which few endpoints have."""
    if window.day_limit is None or window.day_reset_at is None or window.day_reset_at <= window.now:
        return ""
    return f"{number(window.day_remaining)} of {window.day_limit:,} until {instant(window.day_reset_at)} UTC"
