"""`runs`: the latest runs and what they achieved."""

from dataclasses import asdict
from typing import Any

import click
from rich.text import Text

from twitter_pipeline.cli.commands import Command, environment_settings, json_option
from twitter_pipeline.cli.places import tables
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.words import NOTHING, STYLES, dollars, duration, instant, number
from twitter_pipeline.progress import describe_wait
from twitter_pipeline.store.activity import RunLine, load_latest_runs
from twitter_pipeline.words import RunStatus

_LESS_NEEDED = ("estimated", "calls", "accounts", "new", "took", "cost")


@click.command(cls=Command, short_help="Show the latest runs and what they achieved.")
@click.option("--count", "-n", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many runs.")
@json_option
@click.pass_obj
def runs(terminal: Terminal, *, count: int, as_json: bool) -> None:
    """Show the latest runs, newest first. Costs are what X charges for what was read, by the prices of the settings.

    `estimated` is what the run was expected to cost when its names were resolved.

    \b
    Examples:
      twitter-pipeline runs
      twitter-pipeline runs -n 5
      twitter-pipeline runs --json
    """
    with tables(environment_settings(), terminal) as opened:
        latest = load_latest_runs(opened.database, count=count)
    if as_json:
        terminal.write_json([_as_values(run) for run in latest])
        return
    if not latest:
        terminal.write("There was no run yet. Begin with: twitter-pipeline fetch @nasa --mode limit:200")
        return
    numbers = ("run", "accounts", "tweets", "new", "calls", "estimated", "cost")
    lines = table(
        "run",
        "started (UTC)",
        "took",
        "kind",
        "status",
        *numbers[1:],
        "remark",
        right=numbers,
        prose=["remark"],
        drop=_LESS_NEEDED,
    )
    for run in latest:
        lines.add_row(
            str(run.id),
            instant(run.started_at),
            NOTHING if run.finished_at is None else duration((run.finished_at - run.started_at).total_seconds()),
            run.kind,
            Text(run.status, style=STYLES.get(run.status, "")),
            number(run.accounts) if run.finished_at else f"{run.accounts_ended:,} of {run.accounts:,}",
            number(run.tweets_fetched),
            number(run.tweets_new),
            number(run.calls),
            NOTHING if run.estimated_usd is None else dollars(run.estimated_usd),
            dollars(run.cost_usd) if run.finished_at else NOTHING,
            cell(remark(run)),
        )
    terminal.show(lines)


def _as_values(run: RunLine) -> dict[str, Any]:
    amounts = {
        name: None if (usd := getattr(run, name)) is None else float(usd) for name in ("cost_usd", "estimated_usd")
    }
    return {**asdict(run), **amounts}


def remark(run: RunLine) -> str:
    """Say why a run did not succeed, or what it waits for."""
    if run.status is RunStatus.RUNNING and run.waiting_for and run.waiting_until:
        return describe_wait(run.waiting_for, f"{instant(run.waiting_until)} UTC")
    return run.error or ""
