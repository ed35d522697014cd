"""`import`: tweets from files that people have."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from twitter_pipeline.cli.commands import Command, environment_settings, json_option
from twitter_pipeline.cli.display import Display, Meter
from twitter_pipeline.cli.places import tables
from twitter_pipeline.cli.terminal import Terminal, cell, shortened, table
from twitter_pipeline.cli.words import number
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.importing.files import ImportFile, recognise
from twitter_pipeline.importing.found import Author
from twitter_pipeline.importing.importer import (
    FileReport,
    Importer,
    ImportReport,
    Progress,
    describe_unreadable,
    refuse_to_mix,
)
from twitter_pipeline.request import USERNAME
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import is_made_up
from twitter_pipeline.store.users import find_users
from twitter_pipeline.texts import counted
from twitter_pipeline.x_api.json_values import as_int

BESIDE_MADE_UP = (
    "Warning: this database holds the sandbox's made-up tweets, and what is imported lies beside them. To keep them "
    "apart, put a token into .env or name another database in DATABASE_URL."
)


@click.command("import", cls=Command, short_help="Bring in tweets from files that you have.")
@click.argument("names", nargs=-1, required=True, metavar="FILE... | -")
@click.option("--account", metavar="ID | @NAME", help="Who wrote the tweets that do not name their author.")
@click.option("--strict", is_flag=True, help="Import nothing when a line of a file cannot be read.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Show neither progress nor results, only what could not be read.")
@click.pass_obj
def import_(
    terminal: Terminal, names: Sequence[str], *, account: str | None, strict: bool, as_json: bool, quiet: bool
) -> int:
    """Bring in tweets from files that you have. Nothing is asked of X, and nothing counts as covered by it.

    \b
    A file is recognised by its content; it may be compressed with gzip:
      responses of the API   JSON, a JSON list, or JSON lines, also as twarc2 writes them
      flattened tweets       JSON lines or a JSON list, as `twarc2 flatten` writes them
      exports                of `twitter-pipeline export`: JSON lines, Parquet, CSV
      X's account archive    the zip, or data/tweets.js with account.js beside it
      - (standard input)     JSON lines of any of these

    What is stored is never made worse: the later reading of a tweet wins, and importing a file again changes nothing.
    A line that cannot be read is passed over and told.

    \b
    Examples:
      twitter-pipeline import search.jsonl timeline.jsonl.gz
      twitter-pipeline import twitter-2026-01-01-archive.zip
      twitter-pipeline import tweets.js --account @nasa

    Exit codes: 0 everything was read, 1 some lines could not be, 2 a file is none of these, or the configuration is
    wrong.
    """
    settings = environment_settings()
    with tables(settings, terminal, apply_schema=True) as opened:
        database = opened.database
        owner = read_account(database, account)
        files = [recognise(name, owner=owner) for name in dict.fromkeys(names)]
        warn_of_mixing(terminal, database, files)
        with shown_progress(terminal, files, quiet=quiet) as progress:
            importer = Importer(database, owner=owner, prices=settings.prices, now=datetime.now(UTC), progress=progress)
            if strict:
                importer.check(files)
            report = importer.run(files)
    if as_json:
        terminal.write_json(report_values(report))
    elif not quiet:
        show_report(terminal, report)
    for line in describe_unreadable(report.files):
        terminal.say(line)
    return 0 if report.is_complete else 1


def read_account(database: Database, given: str | None) -> Author | None:
    """Return the account that `--account` names: an id, or the name of one that is stored."""
    if given is None:
        return None
    if not given.startswith("@"):
        user_id = as_int(given)
        if not user_id:
            raise ConfigurationError(f"--account takes an account's id, or @NAME; got {shortened(given, 60)}")
        return Author(user_id)
    name = given.removeprefix("@").lower()
    known = find_users(database, [name]) if USERNAME.fullmatch(name) else {}
    if name not in known:
        raise ConfigurationError(
            f"No account {shortened(given, 60)} is stored, so its id is not known. Give the id: --account 11348282"
        )
    return Author(known[name].id)


def warn_of_mixing(terminal: Terminal, database: Database, files: Sequence[ImportFile]) -> None:
    """Refuse made-up tweets among real ones, and say so when real ones go where made-up ones are."""
    refuse_to_mix(database, files)
    if is_made_up(database) and not all(file.made_up for file in files):
        terminal.say(BESIDE_MADE_UP)


@contextmanager
def shown_progress(terminal: Terminal, files: Sequence[ImportFile], *, quiet: bool) -> Generator[Progress]:
    """Give what shows on stderr how far an import is."""
    if quiet:
        yield lambda _: None
        return
    meter, sizes = Meter(), {file.name: file.size for file in files}
    total = None if None in sizes.values() else sum(size or 0 for size in sizes.values())
    with Display(terminal.err) as display:
        display.announce("Reading")

        def show(report: FileReport) -> None:
            before = sum(sizes[name] or 0 for name in list(sizes)[: list(sizes).index(report.file.name)])
            meter.note(report.file.name, report.tweets)
            display.show(describe_progress(report, meter), done=before + report.gauge.bytes_read, total=total)

        yield show


def describe_progress(report: FileReport, meter: Meter) -> list[str]:
    """Say how far a file is, the most important part first."""
    parts = [f"{counted(report.tweets, 'tweet')}, {report.new:,} new", *meter.rate_in_words("tweets")]
    return [*parts, shortened(report.file.name)]


def show_report(terminal: Terminal, report: ImportReport) -> None:
    """Write a line for each file to stdout, and the run."""
    numbers = ("tweets", "new", "brought up to date", "not read")
    lines = table("file", "format", *numbers, right=numbers, prose=["file", "format"], drop=["format"])
    for file in report.files:
        lines.add_row(
            cell(file.file.name),
            file.file.format.value,
            number(file.tweets),
            number(file.new),
            number(file.updated),
            number(file.unreadable),
        )
    terminal.show(lines)
    terminal.write(
        f"Run {report.fetch_run_id} {'done' if report.is_complete else 'partial'} | "
        f"{counted(sum(file.tweets for file in report.files), 'tweet')}, "
        f"{sum(file.new for file in report.files):,} new | nothing is covered by an import: "
        "`fetch` asks X for what is missing"
    )


def report_values(report: ImportReport) -> dict[str, Any]:
    """Return what became of an import as JSON values."""
    return {
        "run_id": report.fetch_run_id,
        "complete": report.is_complete,
        "files": [
            {
                **each.as_request(),
                "file": each.file.name,
                "tweets": each.tweets,
                "new": each.new,
                "updated": each.updated,
                "kept": each.kept,
                "unreadable": each.unreadable,
                "unreadable_places": [str(place) for place in each.unreadable_places],
            }
            for each in report.files
        ],
    }
