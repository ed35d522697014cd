"""`fetch`: a request from a file, from stdin or from the command line, run by Dagster in this process."""

import errno
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from twitter_pipeline.cli.commands import Command, environment_settings, json_option
from twitter_pipeline.cli.estimates import DRY_RUN_HELP, dry_run
from twitter_pipeline.cli.launching import YES_HELP, run_request
from twitter_pipeline.cli.places import workplace
from twitter_pipeline.cli.results import show_ending
from twitter_pipeline.cli.terminal import Terminal, shortened
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.request import MOST_BYTES, USERNAME, FetchRequest, parse_request, read_request

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@click.command(cls=Command, short_help="Download the tweets of accounts.")
@click.argument("sources", nargs=-1, metavar="FILE | - | @NAME...")
@click.option("--mode", metavar="MODE", help="For @NAMEs: `full` (the default), `limit:N`, or `new`.")
@click.option("--track", is_flag=True, help="For @NAMEs: watch the accounts from now on.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help=DRY_RUN_HELP)
@click.option("--yes", "-y", is_flag=True, help=YES_HELP)
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Show neither progress nor results, only what could not be had.")
@click.pass_obj
def fetch(
    terminal: Terminal,
    sources: Sequence[str],
    *,
    mode: str | None,
    track: bool,
    is_dry_run: bool,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Download what is missing of the tweets of accounts.

    The request is a JSON file, stdin (-), or names with their @. Accounts that were fetched before cost only what is
    new; a run that was broken off goes on where it was. Accounts that are protected, suspended or unknown are reported.

    \b
    Examples:
      twitter-pipeline fetch @nasa @esa
      twitter-pipeline fetch @nasa --mode limit:200 --track
      twitter-pipeline fetch request.json --dry-run
      twitter-pipeline fetch request.json --json > result.json
      echo '[{"username": "nasa", "fetch_mode": "full"}]' | twitter-pipeline fetch -

    \b
    A request:
      [{"username": "nasa", "track_after": true,  "fetch_mode": "full"},
       {"username": "esa",  "track_after": false, "fetch_mode": "limit:200"}]

    Exit codes: 0 everything asked for is there, 1 something could not be fetched, 2 the request or the configuration
    is wrong.
    """
    requests = read_sources(terminal, sources, mode=mode, track=track)
    with workplace(environment_settings(), terminal) as work:
        if is_dry_run:
            return dry_run(terminal, work, requests, yes=yes, as_json=as_json)
        ending = run_request(terminal, work, requests, show_progress=not quiet, confirm=yes)
    return show_ending(terminal, ending, made_up=work.made_up, as_json=as_json, quiet=quiet)


def read_sources(
    terminal: Terminal, sources: Sequence[str], *, mode: str | None, track: bool
) -> tuple[FetchRequest, ...]:
    """Return the request that the arguments name; raise ConfigurationError when there is none or it is wrong."""
    if not sources:
        raise ConfigurationError(
            "What shall be fetched? Give a file with a JSON request, - for stdin, or names: "
            "twitter-pipeline fetch @nasa @esa"
        )
    if all(source.startswith("@") for source in sources):
        return _request_of_names(sources, mode=mode, track=track)
    if len(sources) > 1:
        raise ConfigurationError(_many_sources(sources))
    if mode is not None or track:
        raise ConfigurationError(
            "--mode and --track go with names, as in `fetch @nasa --mode limit:200`. "
            "In a JSON request each account has its own fetch_mode and track_after."
        )
    text = _read_stdin(terminal) if sources[0] == "-" else _read_file(sources[0])
    return parse_request(text.removeprefix(_BYTE_ORDER_MARK))


def _request_of_names(names: Sequence[str], *, mode: str | None, track: bool) -> tuple[FetchRequest, ...]:
    fields: dict[str, object] = {"track_after": track}
    if mode is not None:
        fields["fetch_mode"] = mode
    return read_request([{"username": name, **fields} for name in names])


def _many_sources(sources: Sequence[str]) -> str:
    plain = [source for source in sources if not source.startswith("@")]
    if all(USERNAME.fullmatch(source) for source in plain):
        names = " ".join("@" + source.removeprefix("@") for source in sources)
        return f"Names are written with their @: twitter-pipeline fetch {shortened(names)}"
    return f"Give either one file or names with their @; {shortened(plain[0])} is no name, and there is more than one."


def _read_stdin(terminal: Terminal) -> bytes:
    if sys.stdin.isatty():
        terminal.say("Type or paste the JSON request; end it with Ctrl-D on a line of its own.")
    text = sys.stdin.buffer.read(MOST_BYTES + 1)
    if not text.strip():
        raise ConfigurationError(
            "There is nothing on stdin. Pipe a JSON request into `fetch -`, such as: "
            """echo '[{"username": "nasa"}]' | twitter-pipeline fetch -"""
        )
    return text


def _read_file(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigurationError(_unread(name, error)) from error
    if not text.strip():
        raise ConfigurationError(
            f"The file {shortened(name)} is empty; it should hold a JSON request (see fetch --help)."
        )
    return text


def _unread(name: str, error: OSError | ValueError) -> str:
    """Say why a file could not be read, and what was perhaps meant."""
    shown, is_missing = shortened(name), isinstance(error, FileNotFoundError)
    is_too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
    if (is_missing or is_too_long) and name.lstrip().startswith(("[", "{")):
        hint = "To give the request itself, pipe it into `twitter-pipeline fetch -`."
        return f"There is no file {shortened(name, 33)}. {hint}"
    if is_missing and USERNAME.fullmatch(name):
        hint = f"To fetch the account of that name, write it with its @: twitter-pipeline fetch @{name}"
        return f"There is no file {shown}. {hint}"
    if is_missing:
        return f"There is no file {shown}. Give the path of a JSON request, or names with their @."
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"The file {shown} cannot be read: {why}."
