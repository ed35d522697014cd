"""`db`: apply the schema, tell the address, ask questions."""

import csv
import json
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from decimal import Decimal
from itertools import islice
from types import UnionType
from typing import LiteralString, cast

import click
import orjson
import psycopg
from psycopg.abc import Buffer
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range
from psycopg.types.string import TextLoader

from twitter_pipeline.cli.backup import dump, psql, restore
from twitter_pipeline.cli.claims import claims
from twitter_pipeline.cli.commands import Failure, Group, environment_settings, json_option
from twitter_pipeline.cli.places import Tables, connected, tables
from twitter_pipeline.cli.safe_text import printable
from twitter_pipeline.cli.tables import FittedTable
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.store.claims import find_unchecked
from twitter_pipeline.store.schema import differences
from twitter_pipeline.store.schema import upgrade as upgrade_schema
from twitter_pipeline.store.urls import for_libpq, secrets_of, shown, without_secrets
from twitter_pipeline.texts import counted

LONGEST_QUERY = "10min"

# A read-only transaction keeps none of these from files and programs of the server's machine.
MAY_LEAVE_THE_DATABASE = """
SELECT EXISTS (
    SELECT FROM pg_roles
    WHERE pg_has_role(session_user, oid, 'MEMBER')
      AND (rolsuper OR rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'))
)
"""

NEEDS_A_READER = """\
The role of DATABASE_URL may run programs or open files on the server's machine, and so could a query. Make a \
role as the superuser, and let it read as the role that owns the tables:
  CREATE ROLE twitter_reader LOGIN PASSWORD '...';
  GRANT SELECT ON ALL TABLES IN SCHEMA public TO twitter_reader;
  ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO twitter_reader;
  ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO twitter_reader;
Then set DATABASE_READER_URL to the address of DATABASE_URL with this role."""


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
      twitter-pipeline db dump tweets.dump
    """


for command in (claims, psql, dump, restore):
    db.add_command(command)


@db.command(short_help="Apply the schema.")
@json_option
@click.pass_obj
def upgrade(terminal: Terminal, *, as_json: bool) -> None:
    """Bring the schema of the database up to this version of the program; does nothing when it is there.

    \b
    Example:
      twitter-pipeline db upgrade
    """
    with tables(environment_settings(), terminal, current=False) as opened:
        upgrade_schema(opened.database.engine, terminal.say)
        unchecked = len(find_unchecked(opened.database))
    if as_json:
        terminal.write_json({"database": shown(opened.url), "up_to_date": True, "unchecked_accounts": unchecked})
        return
    terminal.write(f"The schema of {shown(opened.url)} is up to date")
    if unchecked:
        terminal.say(
            f"An earlier version has called tweets of {counted(unchecked, 'account')} complete without proof."
            " To see what checking it costs: twitter-pipeline db claims"
        )


@db.command(short_help="Print the connection URL.")
@click.option("--show-password", is_flag=True, help="Print the URL with its password.")
@json_option
@click.pass_obj
def url(terminal: Terminal, *, show_password: bool, as_json: bool) -> None:
    """Print the URL of the database, for psql, SQLAlchemy and pandas.

    A password is left out: programs ask for it, or find it in PGPASSWORD or ~/.pgpass. The embedded server has none,
    and runs only while something uses it, such as `make up`.

    \b
    Example:
      psql "$(twitter-pipeline db url)"
    """
    with tables(environment_settings(), terminal, current=False) as opened:
        found = for_libpq(opened.url) if show_password else without_secrets(opened.url)
        if as_json:
            terminal.write_json({"url": found})
        else:
            sys.stdout.write(found + "\n")
        if secrets_of(opened.url) and not show_password:
            terminal.say("Without its password; --show-password prints it too.")
        if opened.server is not None:
            terminal.say("The embedded server answers there only while `make up` or another command of ours runs.")


@db.command(short_help="Run a query and print its rows.")
@click.argument("sql", metavar="SQL | -")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="How many rows at most.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the rows as CSV instead of a table.")
@json_option
@click.pass_obj
def query(terminal: Terminal, *, sql: str, limit: int, as_csv: bool, as_json: bool) -> None:
    """Run one SQL query, of the command line or of stdin (-), and print its rows. It can change nothing.

    It runs for ten minutes at most, as a role that may only SELECT: the embedded server's, or that of
    DATABASE_READER_URL.

    \b
    Examples:
      twitter-pipeline db query "SELECT kind, count(*) FROM tweets GROUP BY kind"
      twitter-pipeline db query - < query.sql
      twitter-pipeline db query --json "SELECT raw FROM tweets ORDER BY id DESC LIMIT 1"
      twitter-pipeline db query --csv --limit 100000 "SELECT id, created_at, text FROM tweets" > tweets.csv
    """
    text = sys.stdin.read() if sql == "-" else sql
    if not text.strip():
        raise ConfigurationError('There is no query. Give it as in: twitter-pipeline db query "SELECT 1"')
    if as_csv and as_json:
        raise ConfigurationError("Give either --csv or --json.")
    with tables(environment_settings(), terminal) as opened:
        names, rows = _rows_of(opened, text, limit + 1)
    if as_json:
        headings = _each_once(names)
        terminal.write_json([dict(zip(headings, map(_json_value, row), strict=True)) for row in rows[:limit]])
    elif as_csv:
        # A file gets what is stored; a terminal must not obey what somebody wrote into a tweet.
        as_text = printable if sys.stdout.isatty() else str
        shown_rows = (map(_shown_value, row) for row in rows[:limit])
        csv.writer(sys.stdout, lineterminator="\n").writerows(map(as_text, row) for row in (names, *shown_rows))
    else:
        terminal.show(_table_of(names, rows[:limit]))
    more = len(rows) > limit
    terminal.say(f"The first {counted(limit, 'row')}; see --limit for more" if more else counted(len(rows), "row"))


@db.command(short_help="Tell whether the database and the models agree.")
@json_option
@click.pass_obj
def check(terminal: Terminal, *, as_json: bool) -> int:
    """Tell whether the tables are as the code's models describe them, for developers; exits with 1 if not.

    \b
    Example:
      twitter-pipeline db check
    """
    with tables(environment_settings(), terminal) as opened:
        found = differences(opened.database.engine)
    if as_json:
        terminal.write_json({"agree": found is None, "differences": found})
        return 0 if found is None else 1
    if found is not None:
        raise Failure(f"The database and the models differ: {found}")
    terminal.write("The database and the models agree")
    return 0


def _rows_of(opened: Tables, text: str, limit: int) -> tuple[list[str], list[tuple[object, ...]]]:
    """Return the names of the columns and the first rows; JSON is text."""
    with connected(opened.reader_url) as reader, reader.transaction() as connection:
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute(f"SET LOCAL statement_timeout = '{LONGEST_QUERY}'")
        if connection.execute(MAY_LEAVE_THE_DATABASE).fetchone() == (True,):
            raise ConfigurationError(NEEDS_A_READER)
        with connection.cursor() as cursor:
            for name in ("json", "jsonb"):
                # As it is stored: decoded, it may hold half a surrogate pair, which cannot be written anywhere.
                cursor.adapters.register_loader(name, _JsonLoader)
            try:
                # A person wrote it, so it is no literal of the program; rows come one by one, for there may be many.
                # Left open, the stream would keep the connection's lock, and the transaction could not end.
                stream = cast("Generator[tuple[object, ...]]", cursor.stream(cast("LiteralString", text)))
                with closing(stream):
                    rows = list(islice(stream, limit))
            except psycopg.errors.QueryCanceled as error:
                raise ConfigurationError(
                    f"The query was ended, as it took longer than {LONGEST_QUERY}: limit it, or ask with db psql"
                ) from error
            except psycopg.OperationalError:
                raise
            except psycopg.Error as error:
                raise ConfigurationError(_refusal(error)) from error
            return [column.name for column in cursor.description or ()], rows


class JsonText(str):
    """The text of a JSON value as it is stored."""

    __slots__ = ()


class _JsonLoader(TextLoader):
    """Gives JSON as its text, told from other texts."""

    def load(self, data: Buffer) -> JsonText:
        return JsonText(super().load(data))


def _table_of(names: Sequence[str], rows: Sequence[tuple[object, ...]]) -> FittedTable:
    """Return rows as a table: numbers to the right, texts wrapped."""
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    headings = _each_once(names)
    numbers = [name for name, values in zip(headings, columns, strict=True) if _are(values, int | float | Decimal)]
    words = [name for name, values in zip(headings, columns, strict=True) if _are(values, str | list)]
    lines = table(*headings, right=numbers, prose=words)
    for row in rows:
        lines.add_row(*(cell(_shown_value(value)) for value in row))
    return lines


def _each_once(names: Sequence[str]) -> list[str]:
    """Return the names of columns, of which two may have the same, so that each stands for one."""
    return [name if names.index(name) == at else f"{name} ({at + 1})" for at, name in enumerate(names)]


def _are(values: Iterable[object], kind: UnionType) -> bool:
    found = [value for value in values if value is not None]
    return bool(found) and all(isinstance(value, kind) and not isinstance(value, bool) for value in found)


def _json_value(value: object) -> object:
    match value:
        case JsonText():
            return json.loads(value)
        case Multirange() | Range():
            return _shown_value(cast("object", value))
        case _:
            return value


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
