"""`db psql`, `db dump` and `db restore`: PostgreSQL's own programs on the database."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import click
from sqlalchemy import text

from twitter_pipeline.cli.commands import environment_settings
from twitter_pipeline.cli.places import Tables, tables
from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.errors import ConfigurationError, PipelineError
from twitter_pipeline.exporting.destination import check_target, new_file
from twitter_pipeline.local.instance import DAGSTER_SCHEMA
from twitter_pipeline.local.socket_dir import SUPERUSER
from twitter_pipeline.store.urls import masked, secrets_of, shown, without_secrets

# What a file of pg_dump begins with, and what ends one that is SQL.
CUSTOM_FORMAT = b"PGDMP"
END_OF_SQL = b"-- PostgreSQL database dump complete"

BEGIN = b"""
BEGIN;
SET LOCAL lock_timeout = '10s';
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
"""
COMMIT = b"\nCOMMIT;\n"


@click.command(short_help="Open psql on the database.")
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
        words, environment = _client(opened, "psql", opened.url)
        # Ctrl-C is for psql, which goes on after it. A handler, unlike SIG_IGN, is not inherited.
        before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
        try:
            return subprocess.run([*words, *arguments], env=environment, check=False).returncode
        finally:
            signal.signal(signal.SIGINT, before)


@click.command(short_help="Write a backup.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Write over FILE if it exists.")
@click.pass_obj
def dump(terminal: Terminal, *, file: Path, force: bool) -> None:
    """Write all tables to FILE, compressed, as they are at this instant; runs may work meanwhile.

    Dagster's own tables stay out. FILE is complete or missing, and only you may read it.

    \b
    Example:
      twitter-pipeline db dump tweets.dump
    """
    with tables(environment_settings(), terminal, current=False) as opened:
        path = check_target(file, force=force)
        words, environment = _client(opened, "pg_dump", opened.url)
        options = ["--format=custom", "--no-owner", "--no-privileges", f"--exclude-schema={DAGSTER_SCHEMA}"]
        with new_file(path, compressed=False) as target:
            os.fchmod(target.fileno(), 0o600)
            with _running([*words, *options], f"{file} was not written", opened.url, env=environment, stdout=target):
                pass
    terminal.say(f"{file} is written")


@click.command(short_help="Put a backup in the place of the tables.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace the tables that are there, with all that is in them.")
@click.pass_obj
def restore(terminal: Terminal, *, file: Path, force: bool) -> None:
    """Put a backup of `db dump`, or one that pg_dump wrote as SQL, in the place of all that is in the schema public.

    After an error everything is as before. Stop `make up` and all other processes that use the database first.

    \b
    Example:
      twitter-pipeline db restore --force tweets.dump
    """
    with tables(environment_settings(), terminal, current=False) as opened:
        if not force and _has_tables(opened):
            raise ConfigurationError(f"{shown(opened.url)} has tables. To replace them all: --force")
        _put_in_place(opened, file)
    terminal.say(f"{file} is restored; next: twitter-pipeline db upgrade")


def _put_in_place(opened: Tables, file: Path) -> None:
    is_sql, url = _is_sql(file), opened.url
    name = str(opened.database.engine.url.database)
    if is_sql and opened.server is not None:
        # An earlier version's names its owner, whom only a superuser may give anything to.
        url = opened.server.url(name, user=SUPERUSER)
    words, environment = _client(opened, "psql", url)
    options = ["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--file=-"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with (
        _running([*words, *options], f"{file} was not restored", url, env=environment, **streams) as process,
        # It ends at the first error; without the last statement everything is as it was.
        suppress(BrokenPipeError),
        cast("IO[bytes]", process.stdin) as script,
    ):
        script.write(BEGIN)
        _write_sql(opened, file, script, is_sql=is_sql)
        script.write(COMMIT)
    if opened.server is not None:
        opened.server.hand_over(name)


def _write_sql(opened: Tables, file: Path, script: IO[bytes], *, is_sql: bool) -> None:
    """Write the SQL of a backup; raise PipelineError when it cannot all be read."""
    if is_sql:
        with file.open("rb") as backup:
            shutil.copyfileobj(backup, script)
        return
    # Without a database to connect to it writes what it would do there.
    words = [_program(opened, "pg_restore"), "--no-owner", "--no-privileges", "--file=-", str(file.resolve())]
    with _running(words, f"{file} was not restored", opened.url, stdout=subprocess.PIPE) as process:
        shutil.copyfileobj(cast("IO[bytes]", process.stdout), script)


@contextmanager
def _running(words: Sequence[str], failure: str, url: str, **options: Any) -> Generator["subprocess.Popen[Any]"]:
    """Run a program to its end; raise PipelineError with what it complained of when it fails."""
    with tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(words, stderr=complaints, **options) as process:
            yield process
        complaints.seek(0)
        if process.returncode != 0:
            raise PipelineError(f"{failure}: {masked(complaints.read().decode(errors='replace').strip(), url)}")


def _client(opened: Tables, program: str, url: str) -> tuple[list[str], Mapping[str, str]]:
    """Return the words that start one of PostgreSQL's programs on a database, and the environment that it needs.

    Other users of the machine can read a command's arguments, but not its environment.
    """
    secrets = secrets_of(url)
    password = secrets.pop("password", None)
    if secrets:
        raise ConfigurationError(
            f"{program} takes {' and '.join(secrets)} from a service file only. Write it there, and ?service=NAME into"
            " DATABASE_URL in its place."
        )
    words = [_program(opened, program), f"--dbname={without_secrets(url)}"]
    return words, os.environ if password is None else {**os.environ, "PGPASSWORD": password}


def _program(opened: Tables, name: str) -> str:
    path = shutil.which(name) if opened.server is None else str(opened.server.bin_dir / name)
    if path is None:
        raise ConfigurationError(
            f"{name} is not on the PATH. Install PostgreSQL's client programs, of the server's version or newer."
        )
    return path


def _has_tables(opened: Tables) -> bool:
    with opened.database.engine.connect() as connection:
        return bool(connection.scalar(text("SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public')")))


def _is_sql(file: Path) -> bool:
    """Whether a backup is SQL; raise ConfigurationError when it is none, or not whole."""
    try:
        with file.open("rb") as backup:
            if backup.read(len(CUSTOM_FORMAT)) == CUSTOM_FORMAT:
                return False
            backup.seek(max(0, file.stat().st_size - 1000))
            if END_OF_SQL in backup.read():
                return True
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
    raise ConfigurationError(f"{file} is no whole backup of pg_dump")
