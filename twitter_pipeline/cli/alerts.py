"""`alerts`: what somebody should know of, and what is over."""

from dataclasses import asdict

import click
from rich.text import Text

from twitter_pipeline.cli.commands import Command, environment_settings, json_option
from twitter_pipeline.cli.places import tables
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.words import instant
from twitter_pipeline.store.alerts import AlertLine, load_alerts


@click.command(cls=Command, short_help="Show what somebody should know of.")
@click.option(
    "--count", "-n", type=click.IntRange(0, 10_000), default=20, show_default=True, help="How many that are over."
)
@json_option
@click.pass_obj
def alerts(terminal: Terminal, *, count: int, as_json: bool) -> None:
    """Show the alerts that are open, then the latest that are over.

    `make up` looks twice a minute for tokens that died, budgets that are used up, a watch that is late, tracked
    accounts that have gone, and runs that failed.

    \b
    Examples:
      twitter-pipeline alerts
      twitter-pipeline alerts -n 0 --json
    """
    with tables(environment_settings(), terminal) as opened:
        found = load_alerts(opened.database, count=count)
    if as_json:
        terminal.write_json([{**asdict(each), "is_open": each.cleared_at is None} for each in found])
        return
    if not found:
        terminal.write("There was no alert yet.")
        return
    lines = table("alert", "since (UTC)", "over (UTC)", "what", prose=["what"])
    for each in found:
        lines.add_row(each.kind, instant(each.since), _over(each), cell(each.message))
    terminal.show(lines)


def _over(alert: AlertLine) -> Text:
    return Text("open", style="red") if alert.cleared_at is None else Text(instant(alert.cleared_at))
