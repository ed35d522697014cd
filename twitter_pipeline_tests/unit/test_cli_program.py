"""The program as a whole: its help, what it loads, and how errors become messages and exit codes."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from twitter_pipeline import __version__
from twitter_pipeline.cli import main
from twitter_pipeline.cli import status as status_module
from twitter_pipeline.cli.program import COMMANDS, program
from twitter_pipeline.errors import ConfigurationError, PipelineError


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Give every command with its words, groups among them."""
    context = click.Context(program)
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", each) for inner, each in command.commands.items())


def test_the_short_helps_shown_without_loading_are_those_of_the_commands() -> None:
    loaded = {name: command.short_help for name, command in all_commands() if " " not in name}

    assert loaded == {name: short_help for name, (_, short_help) in COMMANDS.items()}


@pytest.mark.parametrize("words", [name for name, _ in all_commands()])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_a_help_with_examples(words: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([*words.split(), option])
    shown = capsys.readouterr().out

    assert code == 0
    assert "Example" in shown
    assert f"twitter-pipeline {words}" in shown
    assert max(map(len, shown.splitlines())) <= 110


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--version"])

    assert (code, capsys.readouterr().out) == (0, f"twitter-pipeline, version {__version__}\n")


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        ("--help", {"dagster", "sqlalchemy", "psycopg", "alembic", "httpx"}),
        ("fetch --help", {"dagster"}),
        ("status --help", {"dagster"}),
        ("tokens --help", {"dagster"}),
        ("up --help", {"dagster"}),
    ],
)
def test_what_a_command_does_not_need_is_not_loaded(words: str, unwanted: set[str]) -> None:
    script = (
        "import sys; from twitter_pipeline.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words.split()], capture_output=True, text=True, check=True)

    assert unwanted & set(done.stderr.split()) == set()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigurationError("DAGSTER_PORT is 0"), 2, "Error: DAGSTER_PORT is 0\n"),
        (PipelineError("no token can go on"), 1, "Error: no token can go on\n"),
        (KeyboardInterrupt(), 130, "\nInterrupted.\n"),
        (
            RuntimeError("a \x1b[31mred\x1b[0m surprise\nwith more lines"),
            1,
            "Error: RuntimeError: a \\x1b[31mred\\x1b[0m surprise\n"
            "This is a fault of the program. Run again with --debug for details.\n",
        ),
    ],
)
def test_an_error_becomes_a_message_and_an_exit_code(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(status_module, "environment_settings", fail)

    given = main(["status"])

    assert (given, capsys.readouterr()) == (code, ("", message))


@pytest.mark.parametrize("arguments", [["--debug", "status"], ["status", "--debug"]])
def test_debug_shows_the_traceback(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("a surprise")

    monkeypatch.setattr(status_module, "environment_settings", fail)

    code = main(arguments)

    assert code == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["feth"], ["fetch", "--hepl"], ["db"], ["db", "qurey"], ["track"]])
def test_a_mistyped_command_is_refused_with_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(arguments)
    shown = capsys.readouterr()

    assert (code, shown.out) == (2, "")
    assert "Usage: twitter-pipeline" in shown.err
    assert "Traceback" not in shown.err
