"""`export`: stored tweets into a file."""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import click

from twitter_pipeline.cli.commands import Command, environment_settings, json_option
from twitter_pipeline.cli.display import Display, Meter
from twitter_pipeline.cli.places import tables
from twitter_pipeline.cli.terminal import Terminal, shortened
from twitter_pipeline.cli.usernames import find_named, read_names
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.exporting.destination import check_target, new_file, told_when_unwritable
from twitter_pipeline.exporting.export import ExportFormat, export_tweets
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.exports import Selection, snapshot
from twitter_pipeline.store.tokens import is_made_up
from twitter_pipeline.texts import counted
from twitter_pipeline.x_api.json_values import as_instant

STDOUT = "-"

ENDINGS = {
    ".parquet": ExportFormat.PARQUET,
    ".csv": ExportFormat.CSV,
    ".csv.gz": ExportFormat.CSV,
    ".jsonl": ExportFormat.JSONL,
    ".jsonl.gz": ExportFormat.JSONL,
}


@click.command(cls=Command, short_help="Write stored tweets to a file: Parquet, CSV or JSON lines.")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("-o", "--output", required=True, metavar="FILE | -", help="Where to; - is standard output.")
@click.option(
    "--format",
    "form",
    type=click.Choice([each.value for each in ExportFormat]),
    help="By default what the file's name ends in: .parquet, .csv, .jsonl, .csv.gz, .jsonl.gz.",
)
@click.option("--since", metavar="TIME", help="Only tweets written from then on: a date or an instant, in UTC.")
@click.option("--until", metavar="TIME", help="Only tweets written before then.")
@click.option("--without-deleted", is_flag=True, help="Leave out tweets that X was seen to have deleted.")
@click.option("--ids-only", is_flag=True, help="Write the ids alone, which X's terms let you pass on.")
@click.option("--force", is_flag=True, help="Write over a file that exists.")
@json_option
@click.pass_obj
def export(
    terminal: Terminal,
    *,
    names: Sequence[str],
    output: str,
    form: str | None,
    since: str | None,
    until: str | None,
    without_deleted: bool,
    ids_only: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write the stored tweets of accounts, or of all, in the order of their ids.

    It writes what is stored when it begins, whatever runs write meanwhile. The file has its name only when it is whole.
    `import` reads each of the formats back without loss.

    \b
    Examples:
      twitter-pipeline export -o everything.parquet
      twitter-pipeline export nasa esa --since 2023-01-01 --until 2024-01-01 -o 2023.jsonl.gz
      twitter-pipeline export nasa --format csv -o - | head
      twitter-pipeline export --ids-only --without-deleted -o ids.csv
    """
    wanted_format = _format_of(output, form)
    span = (_instant("--since", since), _instant("--until", until))
    if span[0] is not None and span[1] is not None and span[0] >= span[1]:
        raise ConfigurationError(f"No time lies between --since {since} and --until {until}.")
    usernames = read_names(names)
    if output == STDOUT:
        _require_stdout_free(as_json=as_json)
    target = None if output == STDOUT else check_target(Path(output), force=force)
    with tables(environment_settings(), terminal) as opened:
        database = opened.database
        user_ids = _ids_of(terminal, database, usernames) if usernames else None
        selection = Selection(user_ids, *span, without_deleted)
        with (
            _file(target, compressed=output.lower().endswith(".gz")) as file,
            snapshot(database, sandbox=is_made_up(database)) as stored,
            shown_progress(terminal, stored.expected(selection)) as progress,
        ):
            tweets = export_tweets(stored, selection, file, wanted_format, ids_only=ids_only, progress=progress)
    if target is None:
        terminal.say(f"{counted(tweets, 'tweet')} written")
    elif as_json:
        summary = {"file": str(target), "format": wanted_format, "tweets": tweets, "bytes": target.stat().st_size}
        terminal.write_json(summary)
    else:
        size = counted(target.stat().st_size, "byte")
        terminal.write(f"{counted(tweets, 'tweet')} written to {output} ({size})")


def _format_of(output: str, given: str | None) -> ExportFormat:
    """Return the format; raise ConfigurationError when it is not told, or cannot go there."""
    name = Path(output).name.lower()
    form = ExportFormat(given) if given else next((ENDINGS[end] for end in ENDINGS if name.endswith(end)), None)
    if form is None:
        raise ConfigurationError(
            f"In which format? Give --format {', '.join(ExportFormat)}, "
            f"or a file whose name ends in {', '.join(ENDINGS)}."
        )
    if form is ExportFormat.PARQUET and (output == STDOUT or name.endswith(".gz")):
        raise ConfigurationError("A Parquet file is compressed in itself and written to a file: -o tweets.parquet")
    return form


def _instant(option: str, text: str | None) -> datetime | None:
    """Read a date, which is its midnight, or an instant, in UTC unless it says otherwise."""
    if text is None:
        return None
    instant = as_instant(text.strip())
    if instant is None:
        raise ConfigurationError(
            f"{option} {shortened(text, 60)} is no date such as 2023-01-31 and no instant such as 2023-01-31T18:00Z."
        )
    return instant


def _require_stdout_free(*, as_json: bool) -> None:
    if as_json:
        raise ConfigurationError("With -o - the tweets themselves go to standard output: leave out --json.")
    if sys.stdout.isatty():
        # It would obey what somebody wrote into a tweet.
        raise ConfigurationError("Tweets are not written to a terminal as they are. Name a file, or pipe them on.")


def _ids_of(terminal: Terminal, database: Database, usernames: Sequence[str]) -> list[int]:
    """Return the accounts' ids; raise ConfigurationError with all names of which nothing is stored."""
    known = find_named(terminal, database, usernames)
    unknown = [f"@{name}" for name in usernames if name not in known]
    if unknown:
        raise ConfigurationError(
            f"Nothing is stored of {', '.join(unknown)}. `twitter-pipeline status` shows the accounts that are stored."
        )
    return [user.id for user in known.values()]


@contextmanager
def shown_progress(terminal: Terminal, expected: int) -> Generator[Callable[[int], None]]:
    """Give what shows on stderr how far an export is; `expected` is about how many tweets it will be."""
    meter = Meter()
    with Display(terminal.err) as display:

        def show(written: int) -> None:
            meter.note("tweets", written)
            display.show(
                [f"{counted(written, 'tweet')} written", *meter.rate_in_words("tweets")], done=written, total=expected
            )

        yield show


@contextmanager
def _file(target: Path | None, *, compressed: bool) -> Generator[BinaryIO]:
    if target is not None:
        with new_file(target, compressed=compressed) as file:
            yield file
        return
    with told_when_unwritable("standard output"):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
