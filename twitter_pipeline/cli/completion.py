"""`completion`: the script that completes words for a shell."""

import os
import shlex
import shutil
import sys
from pathlib import Path

import click

from twitter_pipeline.cli.commands import Command
from twitter_pipeline.cli.shells import INSTALL, PROGRAM, SCRIPTS
from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.errors import ConfigurationError


@click.command(cls=Command, short_help="Print a script that completes words when Tab is pressed.")
@click.argument("shell", required=False, type=click.Choice(list(SCRIPTS)), metavar="[SHELL]")
@click.pass_obj
def completion(terminal: Terminal, *, shell: str | None) -> None:
    """Print the script that lets bash, zsh or fish complete commands, options, files and names of stored accounts.

    Without SHELL it is that of $SHELL. How to install it is said on stderr.

    \b
    Examples:
      eval "$(twitter-pipeline completion bash)"
      twitter-pipeline completion fish > ~/.config/fish/completions/twitter-pipeline.fish
    """
    wanted = shell or Path(os.environ.get("SHELL", "")).name
    if wanted not in SCRIPTS:
        raise ConfigurationError(f"For which shell? Give one of {', '.join(SCRIPTS)}: twitter-pipeline completion bash")
    sys.stdout.write(SCRIPTS[wanted])
    if sys.stdout.isatty():
        terminal.say("\n" + INSTALL[wanted].format(program=shlex.quote(_program())))


def _program() -> str:
    """Return how this program is called from anywhere: by its name where that is on the PATH, else by its path."""
    beside = Path(sys.executable).with_name(PROGRAM)
    on_path = shutil.which(PROGRAM)
    return PROGRAM if on_path is not None and Path(on_path).resolve() == beside.resolve() else str(beside)
