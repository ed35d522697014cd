"""What all commands share: their options, their settings, and how one says that it could not do everything."""

import os
from typing import Any

import click

from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.errors import PipelineError
from twitter_pipeline.settings import Settings, load_settings

HELP_NAMES = ["-h", "--help"]


class Failure(PipelineError):
    """A command could not do what it was asked for; the text says why."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def debug_option() -> click.Option:
    """Return the option that every command takes, before or after its name."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=_note_debug,
        help="Show the traceback of an error.",
    )


def _note_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    terminal = context.find_object(Terminal)
    if terminal is not None:
        terminal.debug = terminal.debug or value


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else on stdout."
)
"""The option of every command that prints something."""


class Command(click.Command):
    """A command of this program."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(debug_option())


class Group(click.Group):
    """A command with commands of its own."""

    command_class = Command

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(debug_option())


def environment_settings() -> Settings:
    """Return the settings of this process."""
    return load_settings(os.environ)
