"""`demo`, `up` and `sandbox`: what runs on this machine alone."""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import click

from twitter_pipeline.cli.commands import Command, environment_settings, json_option
from twitter_pipeline.cli.launching import run_request
from twitter_pipeline.cli.places import MADE_UP, Workplace, prepare, workplace
from twitter_pipeline.cli.results import show_ending
from twitter_pipeline.cli.status import overview
from twitter_pipeline.cli.tables import FittedTable
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.words import number
from twitter_pipeline.local.places import WorkingPlace
from twitter_pipeline.local.up import ui_url
from twitter_pipeline.local.up import up as run_up
from twitter_pipeline.request import FULL, FetchMode, FetchRequest
from twitter_pipeline.sandbox.__main__ import main as serve_sandbox
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.activity import TokenCalls, load_calls_by_token
from twitter_pipeline.store.ledger import load_ledgers
from twitter_pipeline.store.users import find_users

DEMO = (
    FetchRequest("nasa", track_after=True, fetch_mode=FetchMode(100)),
    FetchRequest("esa", track_after=True, fetch_mode=FULL),
    FetchRequest("tide_tables", fetch_mode=FetchMode(120)),
    FetchRequest("gull_watch", fetch_mode=FetchMode(500)),
    FetchRequest("busy_port", fetch_mode=FULL),
    FetchRequest("quiet_cove", fetch_mode=FULL),
    FetchRequest("protected_reef", fetch_mode=FULL),
    FetchRequest("suspended_gull", fetch_mode=FULL),
    FetchRequest("missing_isle", fetch_mode=FULL),
)
"""Accounts of every sort that the sandbox makes from a name: large, small, silent, and such as cannot be had."""


@click.command(cls=Command, short_help="Fetch a sample request from the sandbox and show what was stored.")
@json_option
@click.pass_obj
def demo(terminal: Terminal, *, as_json: bool) -> int:
    """Fetch a sample request from the sandbox API through Dagster, and show what was stored.

    Tokens are left alone: all accounts and tweets are made up, and nothing is spent. Run it twice to see that only
    what is new is asked for.

    \b
    Example:
      twitter-pipeline demo
    """
    settings = demo_settings(environment_settings(), terminal)
    with workplace(settings, terminal) as work:
        ending = run_request(terminal, work, DEMO, show_progress=True, confirm=True)
        code = show_ending(terminal, ending, made_up=True, as_json=as_json)
        if ending.report is not None and not as_json:
            _show_stored(terminal, work, ending.report.id)
    return code


@click.command(cls=Command, short_help="Run the Dagster UI and its daemon until Ctrl-C.")
@click.option("--listen", is_flag=True, help="Also listen to X's filtered stream, as `twitter-pipeline listen` does.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one line of JSON when all is up, and nothing else on stdout."
)
@click.pass_obj
def up(terminal: Terminal, *, listen: bool, as_json: bool) -> None:
    """Run a working place until Ctrl-C: the database, the Dagster UI (port 3000, or DAGSTER_PORT) and its daemon.

    Without a token the sandbox API is part of it.

    \b
    Examples:
      twitter-pipeline up
      twitter-pipeline up --listen
      twitter-pipeline up --json
      DAGSTER_PORT=3001 twitter-pipeline up
    """
    settings = environment_settings()

    def ready(place: WorkingPlace) -> None:
        prepare(place)
        if place.sandbox is not None:
            terminal.say(MADE_UP)

    def announce(place: WorkingPlace) -> None:
        url = ui_url(settings.dagster_port)
        terminal.write_json_line(
            {
                "ready": True,
                "url": url,
                "dagster_home": place.dagster_home,
                "pid": os.getpid(),
                "sandbox": bool(place.sandbox),
            }
        )

    say = terminal.say if as_json else terminal.write
    run_up(settings, prepare=ready, say=say, announce=announce if as_json else None, listen=listen)


@click.command(cls=Command, short_help="Serve the sandbox API alone.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Default: any that is free.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same accounts.")
@click.option("--tokens", type=click.IntRange(1, 1000), default=3, show_default=True, help="How many bearer tokens.")
@click.option(
    "--window-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=900.0,
    show_default=True,
    help="Length of the rate-limit windows.",
)
@click.pass_obj
def sandbox(terminal: Terminal, *, port: int, seed: int, tokens: int, window_seconds: float) -> int:
    """Serve the sandbox API until Ctrl-C: a server that answers as the X API does, on made-up data.

    When it is ready it prints one line of JSON with its address and its tokens. To use it from other commands, set
    TWITTER_API_URL to the address and TWITTER_BEARER_1 to a token.

    \b
    Examples:
      twitter-pipeline sandbox --port 8025
      twitter-pipeline sandbox --window-seconds 60 --tokens 1
    """
    terminal.say("A sandbox with made-up data; Ctrl-C stops it.")
    options = {"--port": port, "--seed": seed, "--tokens": tokens, "--window-seconds": window_seconds}
    return serve_sandbox([word for name, value in options.items() for word in (name, str(value))])


def demo_settings(settings: Settings, terminal: Terminal) -> Settings:
    """Return the settings without tokens; a database that goes with tokens is for real tweets, and left alone too."""
    if not settings.bearer_tokens:
        return settings
    terminal.say("The demo uses the sandbox; the tokens that are configured are left alone.")
    return replace(settings, bearer_tokens={}, database_url=None)


def _show_stored(terminal: Terminal, work: Workplace, fetch_run_id: int) -> None:
    names = {request.username for request in DEMO}
    ledgers = load_ledgers(work.database, user_ids=[user.id for user in find_users(work.database, names).values()])
    terminal.write("\nIn the database:")
    terminal.show(overview(ledgers, {}, now=datetime.now(UTC)))
    terminal.write("Calls of this run, by token:")
    terminal.show(_calls(load_calls_by_token(work.database, fetch_run_id)))
    terminal.write(WHERE_NEXT)


WHERE_NEXT = """\
Where to look next (all of it made up):
  .venv/bin/twitter-pipeline status busy_port
  .venv/bin/twitter-pipeline db query "SELECT created_at, kind, text FROM tweets ORDER BY id DESC LIMIT 5"
  .venv/bin/twitter-pipeline db psql
  make up        the same in the Dagster UI, on port 3000
  make demo      once more: only what is new is asked for

With tokens of your own (TWITTER_BEARER_1=... in .env) the same commands fetch from X."""


def _calls(calls: Sequence[TokenCalls]) -> FittedTable:
    numbers = ("calls", "refused or failed", "results")
    lines = table("token", "endpoint", *numbers, right=numbers)
    for each in calls:
        lines.add_row(cell(each.env_key), each.endpoint, number(each.calls), number(each.refused), number(each.results))
    return lines
