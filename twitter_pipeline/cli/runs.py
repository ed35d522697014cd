"""`runs`: the latest runs and what they achieved."""

import click
from rich.text import Text

from twitter_pipeline.cli.commands import Command, environment_settings
from twitter_pipeline.cli.places import tables
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.words import NOTHING, STYLES, dollars, duration, instant, number
from twitter_pipeline.store.activity import RunLine, load_latest_runs
from twitter_pipeline.words import RunStatus


@click.command(cls=Command, short_help="Show the latest runs and what they achieved.")
@click.option("--count", "-n", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many runs.")
@click.pass_obj
def runs(terminal: Terminal, *, count: int) -> None:
    """Show the latest runs, newest first. Costs are what X charges for what was read, by the prices of the settings.

    \b
    Examples:
      twitter-pipeline runs
      twitter-pipeline runs -n 5
    """
    with tables(environment_settings(), terminal) as opened:
        latest = load_latest_runs(opened.database, count=count)
    if not latest:
        terminal.write("There was no run yet. Begin with: twitter-pipeline fetch @nasa --mode limit:200")
        return
    numbers = ("run", "accounts", "tweets", "new", "calls", "cost")
    lines = table("run", "started (UTC)", "took", "kind", "status", *numbers[1:], "remark", right=numbers)
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
            dollars(run.cost_usd) if run.finished_at else NOTHING,
            cell(remark(run)),
        )
    terminal.show(lines)


def remark(run: RunLine) -> str:
    """Say why a run did not succeed, or what it waits for."""
    if run.status is RunStatus.RUNNING and run.waiting_for and run.waiting_until:
        return f"waiting for budget for {run.waiting_for} until {instant(run.waiting_until)} UTC"
    return run.error or ""
