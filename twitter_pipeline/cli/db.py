"""`db`: apply the schema, tell the address, ask questions."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing
from functools import partial
from itertools import islice
from typing import LiteralString, cast

import click
import orjson
import psycopg
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range
from psycopg.types.string import TextLoader
from sqlalchemy import make_url

from twitter_pipeline.cli.commands import Failure, Group, environment_settings
from twitter_pipeline.cli.places import Tables, shown, tables
from twitter_pipeline.cli.terminal import Terminal, cell, printable, table
from twitter_pipeline.cli.words import counted
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.store.schema import differences
from twitter_pipeline.store.schema import upgrade as upgrade_schema


@click.group(cls=Group, short_help="Look after the database and ask it questions.")
def db() -> None:
    """Look after the database and ask it questions.

    It is the one of DATABASE_URL, else one on the embedded server: `twitter` for the tweets of X, `sandbox` for made-up
    ones while no token is configured.

    \b
    Examples:
      twitter-pipeline db upgrade
      twitter-pipeline db query "SELECT username, tweet_count FROM users ORDER BY 2 DESC LIMIT 10"
      twitter-pipeline db psql
    """


@db.command(short_help="Apply the schema.")
@click.pass_obj
def upgrade(terminal: Terminal) -> None:
    """Bring the schema of the database up to this version of the program; does nothing when it is there.

    \b
    Example:
      twitter-pipeline db upgrade
    """
    with tables(environment_settings(), terminal, current=False) as opened:
        upgrade_schema(opened.database.engine)
        terminal.write(f"The schema of {shown(opened.url)} is up to date")


@db.command(short_help="Print the connection URL, with its password.")
@click.pass_obj
def url(terminal: Terminal) -> None:
    """Print the URL of the database, with its password if it has one, for psql, SQLAlchemy and pandas.

    The embedded server runs only while something uses it, such as `make up`.

    \b
    Example:
      psql "$(twitter-pipeline db url)"
    """
    with tables(environment_settings(), terminal, current=False) as opened:
        sys.stdout.write(_plain(opened.url) + "\n")
        if opened.server is not None:
            terminal.say("The embedded server answers there only while `make up` or another command of ours runs.")


@db.command(short_help="Run a query and print its rows.")
@click.argument("sql", metavar="SQL | -")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="How many rows at most.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the rows as CSV instead of a table.")
@click.pass_obj
def query(terminal: Terminal, *, sql: str, limit: int, as_csv: bool) -> None:
    """Run one SQL query, of the command line or of stdin (-), and print its rows. It can change nothing.

    \b
    Examples:
      twitter-pipeline db query "SELECT kind, count(*) FROM tweets GROUP BY kind"
      twitter-pipeline db query - < query.sql
      twitter-pipeline db query --csv --limit 100000 "SELECT id, created_at, text FROM tweets" > tweets.csv
    """
    text = sys.stdin.read() if sql == "-" else sql
    if not text.strip():
        raise ConfigurationError('There is no query. Give it as in: twitter-pipeline db query "SELECT 1"')
    with tables(environment_settings(), terminal) as opened:
        names, rows = _rows_of(opened, text, limit + 1)
    if as_csv:
        # A file gets what is stored; a terminal must not obey what somebody wrote into a tweet.
        as_row = partial(map, printable) if sys.stdout.isatty() else list
        csv.writer(sys.stdout, lineterminator="\n").writerows(map(as_row, [names, *rows[:limit]]))
    else:
        lines = table(*names)
        for row in rows[:limit]:
            lines.add_row(*map(cell, row))
        terminal.show(lines)
    more = len(rows) > limit
    terminal.say(f"The first {counted(limit, 'row')}; see --limit for more" if more else counted(len(rows), "row"))


@db.command(short_help="Tell whether the database and the models agree.")
@click.pass_obj
def check(terminal: Terminal) -> None:
    """Tell whether the tables are as the code's models describe them, for developers; exits with 1 if not.

    \b
    Example:
      twitter-pipeline db check
    """
    with tables(environment_settings(), terminal) as opened:
        found = differences(opened.database.engine)
    if found is not None:
        raise Failure(f"The database and the models differ: {found}")
    terminal.write("The database and the models agree")


@db.command(short_help="Open psql on the database.")
@click.argument("arguments", nargs=-1, metavar="[-- PSQL_ARGUMENT...]")
@click.pass_obj
def psql(terminal: Terminal, *, arguments: tuple[str, ...]) -> int:
    """Open psql on the database; the embedded server brings its own and runs as long as psql does.

    \b
    Examples:
      twitter-pipeline db psql
      twitter-pipeline db psql -- -c '\\dt'
    """
    with tables(environment_settings(), terminal, current=False) as opened:
        return _run_psql(opened, arguments)


def _run_psql(opened: Tables, arguments: tuple[str, ...]) -> int:
    address = make_url(opened.url)
    program = "psql" if opened.server is None else str(opened.server.bin_dir / "psql")
    # Other users of the machine can read a command's arguments, but not its environment.
    secret = {"PGPASSWORD": address.password} if isinstance(address.password, str) else {}
    words = [program, _plain(opened.url, with_password=False), *arguments]
    # Ctrl-C is for psql, which goes on after it. A handler, unlike SIG_IGN, is not inherited.
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        return subprocess.run(words, env={**os.environ, **secret}, check=False).returncode
    except FileNotFoundError as error:
        raise ConfigurationError("psql is not on the PATH. Install PostgreSQL's client programs.") from error
    finally:
        signal.signal(signal.SIGINT, before)


def _plain(url: str, *, with_password: bool = True) -> str:
    """Return the URL as every program understands it."""
    plain = make_url(url).set(drivername="postgresql")
    if not with_password:
        plain = plain._replace(password=None)
    return plain.render_as_string(hide_password=False)


def _rows_of(opened: Tables, text: str, limit: int) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and the first rows as text."""
    with opened.database.transaction() as connection:
        connection.execute("SET TRANSACTION READ ONLY")
        with connection.cursor() as cursor:
            for name in ("json", "jsonb"):
                # As it is stored: decoded, it may hold half a surrogate pair, which cannot be written anywhere.
                cursor.adapters.register_loader(name, TextLoader)
            try:
                # A person wrote it, so it is no literal of the program; rows come one by one, for there may be many.
                # Left open, the stream would keep the connection's lock, and the transaction could not end.
                stream = cast("Generator[tuple[object, ...]]", cursor.stream(cast("LiteralString", text)))
                with closing(stream):
                    rows = [[_shown_value(value) for value in row] for row in islice(stream, limit)]
            except psycopg.OperationalError:
                raise
            except psycopg.Error as error:
                raise ConfigurationError(_refusal(error)) from error
            return [column.name for column in cursor.description or ()], rows


def _refusal(error: psycopg.Error) -> str:
    position = error.diag.statement_position
    where = f" (at character {position})" if position else ""
    hint = f"\nHint: {error.diag.message_hint}" if error.diag.message_hint else ""
    return f"The query was refused: {error.diag.message_primary or error}{where}{hint}"


def _shown_value(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case list():
            return orjson.dumps(value, default=str).decode()
        case Multirange():
            return "{" + ",".join(map(_shown_range, cast("Multirange[int]", value))) + "}"
        case Range():
            return _shown_range(cast("Range[int]", value))
        case _:
            return str(value)


def _shown_range(value: Range[int]) -> str:
    lower, upper = ("" if bound is None else str(bound) for bound in (value.lower, value.upper))
    return f"[{lower},{upper})"
