"""Completion: what the shells are told, and that bash puts it where it belongs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click import Command, Group, Option

from twitter_pipeline.cli import completing, main
from twitter_pipeline.cli.completing import BEFORE_A_FILE, TAKE_A_VALUE, TAKE_FILES, TAKE_NAMES, stored_names
from twitter_pipeline.cli.program import COMMANDS, program
from twitter_pipeline.cli.shells import SCRIPTS

NAMES = ["nasa", "Nasa_Earth", "nobody"]

Ask = Callable[..., list[str]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Ask as a shell does, over three stored names."""

    def stored(beginning: str, *, tracked: bool | None) -> list[str]:
        return [name for name in NAMES if name.lower().startswith(beginning.lower()) and tracked is not False]

    monkeypatch.setattr(completing, "stored_names", stored)
    # What is loaded is silenced for good in a process that lives for one answer; this one lives on.
    monkeypatch.setattr(completing.logging, "disable", lambda: None)

    def given(line: str) -> list[str]:
        monkeypatch.setenv("_TWITTER_PIPELINE_COMPLETE", "fish_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", line.rpartition(" ")[2])
        assert main([]) == 0
        return [each.partition("\t")[0] for each in capsys.readouterr().out.splitlines()]

    return given


def test_commands_are_completed_without_loading_them(ask: Ask) -> None:
    assert ask("twitter-pipeline tr") == ["plain,tracked", "plain,track"]
    assert {each.removeprefix("plain,") for each in ask("twitter-pipeline ")} >= set(COMMANDS)


def test_options_and_their_values_are_completed(ask: Ask) -> None:
    assert "plain,--json" in ask("twitter-pipeline status --j")
    assert ask("twitter-pipeline backfill --source s") == ["plain,search"]
    assert ask("twitter-pipeline db qu") == ["plain,query"]


def test_names_are_completed_as_they_are_begun_and_none_twice(ask: Ask) -> None:
    assert ask("twitter-pipeline status na") == ["plain,nasa", "plain,Nasa_Earth"]
    assert ask("twitter-pipeline fetch @na") == ["plain,@nasa", "plain,@Nasa_Earth"]
    assert ask("twitter-pipeline fetch @nasa --track ") == ["plain,@Nasa_Earth", "plain,@nobody"]
    assert ask("twitter-pipeline backfill nasa --from 2023-01 n") == ["plain,Nasa_Earth", "plain,nobody"]
    assert ask("twitter-pipeline track n") == []


def test_files_are_left_to_the_shell(ask: Ask) -> None:
    assert ask("twitter-pipeline fetch req") == ["file,"]
    assert ask("twitter-pipeline import a.jsonl ") == ["file,"]
    assert ask("twitter-pipeline export nasa -o ") == ["file,"]


def test_what_is_known_of_commands_without_loading_them_is_so() -> None:
    takers = {
        name: program.get_command(program.make_context("x", [], resilient_parsing=True), name) for name in COMMANDS
    }
    metavars = {name: str(each.params[0].metavar) for name, each in takers.items() if isinstance(each, Command)}
    with_names = {name for name in takers if "NAME" in f"{metavars[name]} {takers[name].params[0].name}".upper()}  # type: ignore[union-attr]
    valued = {
        word
        for name in (*TAKE_NAMES, *TAKE_FILES)
        for option in takers[name].params  # type: ignore[union-attr]
        if isinstance(option, Option) and not option.is_flag
        for word in option.opts
    }

    assert with_names - {"import"} == set(TAKE_NAMES)
    assert valued == TAKE_A_VALUE | BEFORE_A_FILE
    assert not any(isinstance(takers[name], Group) for name in TAKE_NAMES)


def test_a_database_that_is_away_or_silent_suggests_nothing_soon(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for url in ("postgresql://127.0.0.1:1/x", f"postgresql://127.0.0.1:{port}/x", "no url"):
            monkeypatch.setenv("DATABASE_URL", url)
            began = time.monotonic()

            assert stored_names("na", tracked=None, patience_s=0.05) == []
            assert time.monotonic() - began < 5
    assert capfd.readouterr() == ("", "")


def test_names_are_looked_for_without_loading_what_somebody_at_a_prompt_would_wait_for() -> None:
    script = "import sys; from twitter_pipeline.cli import main; main(); print(*sys.modules, file=sys.stderr)"
    asked = {
        "_TWITTER_PIPELINE_COMPLETE": "fish_complete",
        "COMP_WORDS": "twitter-pipeline status n",
        "COMP_CWORD": "n",
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **asked, "DATABASE_URL": ""},
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = set(done.stderr.split())
    assert "psycopg2" in loaded
    assert loaded & {"psycopg", "sqlalchemy", "rich", "asyncio", "twitter_pipeline.local.postgres"} == set()


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_of_each_shell_is_printed_alone(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["completion", shell])

    assert (code, capsys.readouterr()) == (0, (SCRIPTS[shell], ""))


def test_the_shell_is_that_of_the_environment_and_an_unknown_one_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert (main(["completion"]), capsys.readouterr().out) == (0, SCRIPTS["zsh"])

    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert main(["completion"]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err


def test_bash_completes_a_command_line(tmp_path: Path) -> None:
    # The program as it is called from a folder that is not on the PATH.
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "twitter-pipeline"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m twitter_pipeline.cli "$@"\n')
    command.chmod(0o755)
    (tmp_path / "script").write_text(SCRIPTS["bash"])
    ask = """
source "$1"; COMP_LINE="$2" COMP_POINT=${#2}
_twitter_pipeline_completion "$3"; printf '%s\\n' "${COMPREPLY[@]}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", ask, "bash", str(tmp_path / "script"), f"{command} tra", str(command)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )

    assert done.stdout.split() == ["tracked", "track"]
