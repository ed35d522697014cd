"""`backfill`: months of accounts, filled by the asset `tweets_by_month` in this process."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import click

from twitter_pipeline.cli.commands import Command, environment_settings, json_option
from twitter_pipeline.cli.estimates import DRY_RUN_HELP, dry_run
from twitter_pipeline.cli.launching import YES_HELP, run_months
from twitter_pipeline.cli.places import workplace
from twitter_pipeline.cli.results import show_ending
from twitter_pipeline.cli.terminal import Terminal, shortened
from twitter_pipeline.cli.usernames import read_names
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.months import FIRST_MONTH, Months, month_of, read_month
from twitter_pipeline.request import FetchMode, FetchRequest
from twitter_pipeline.store.months import load_tracked_names
from twitter_pipeline.words import Source


@click.command(cls=Command, short_help="Fill months of accounts, from X's archive where a token may use it.")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--from", "first", metavar="YYYY-MM", help="The first month; the first of all unless given.")
@click.option("--to", "last", metavar="YYYY-MM", help="The last month; this month unless given.")
@click.option(
    "--source",
    type=click.Choice([each.value for each in Source]),
    default=Source.AUTO.value,
    show_default=True,
    help="`search`: X's archive, where retweets may be missing. `timeline`: the newest 3,200 tweets. "
    "`auto`: the archive where a token may use it, else the timeline.",
)
@click.option("--dry-run", "is_dry_run", is_flag=True, help=DRY_RUN_HELP)
@click.option("--yes", "-y", is_flag=True, help=YES_HELP)
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Show neither progress nor results, only what could not be had.")
@click.pass_obj
def backfill(
    terminal: Terminal,
    names: Sequence[str],
    *,
    first: str | None,
    last: str | None,
    source: str,
    is_dry_run: bool,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Fill what is missing of the tweets that accounts wrote in some months; without names, of all tracked accounts.

    What is stored already costs nothing; a backfill that was broken off goes on where it was. What cannot be had, such
    as what lies beyond a timeline's reach without a token for the archive, is told, and is no success.

    \b
    Examples:
      twitter-pipeline backfill nasa esa --from 2023-01 --to 2023-12
      twitter-pipeline backfill --from 2023-01 --dry-run
      twitter-pipeline backfill nasa --source search

    Exit codes: 0 the months are whole, 1 something could not be fetched, 2 an argument or the configuration is wrong.
    """
    asked = read_names(names)
    months = read_months(first, last, today=datetime.now(UTC))
    with workplace(environment_settings(), terminal) as work:
        if not asked and not load_tracked_names(work.database):
            raise ConfigurationError("No account is tracked. Name accounts: twitter-pipeline backfill nasa esa")
        if is_dry_run:
            mode = FetchMode(months=months, source=Source(source))
            names = asked or [name.lower() for name in load_tracked_names(work.database)]
            requests = [FetchRequest(name, fetch_mode=mode) for name in names]
            return dry_run(terminal, work, requests, yes=yes, as_json=as_json)
        ending = run_months(terminal, work, asked, months, Source(source), show_progress=not quiet, confirm=yes)
    return show_ending(terminal, ending, made_up=work.made_up, as_json=as_json, quiet=quiet)


def read_months(first: str | None, last: str | None, *, today: datetime) -> Months:
    """Return the months from `first` to `last`, by default all; raise ConfigurationError with all that is wrong."""
    mistakes: list[str] = []
    begin = _read("--from", first, FIRST_MONTH, mistakes)
    end = _read("--to", last, month_of(today), mistakes)
    if not mistakes and end > month_of(today):
        mistakes.append(f"--to: {end:%Y-%m} has not begun yet")
    if not mistakes and begin > end:
        mistakes.append(f"--from: {begin:%Y-%m} lies after {end:%Y-%m}")
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))
    return Months(begin, end)


def _read(option: str, text: str | None, otherwise: date, mistakes: list[str]) -> date:
    if text is None:
        return otherwise
    try:
        return read_month(text)
    except ValueError:
        given = shortened(text, 20)
        mistakes.append(f"{option}: {given} is no month from {FIRST_MONTH:%Y-%m} on, such as 2023-05")
        return otherwise
