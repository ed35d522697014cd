"""Every command in the documents for people is one that exists, with options and values that it takes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from twitter_pipeline.cli import main
from twitter_pipeline.settings import PROJECT_DIR, load_settings
from twitter_pipeline_tests.guides import PAGES, Block, Command, blocks_of, commands_of, headings_of

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = [command for block in BLOCKS for command in commands_of(block.text)]

# No database answers there, so a command ends when it has understood its words and settings.
NOWHERE = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nothing", "TWITTER_BEARER_1": "a-token-of-the-test"}

NOT_RUN = {
    ("README.md", "More than one machine"): "needs a Redis server",
    ("docs/first-hour.md", "1. Get it"): "needs the address of the repository",
    ("docs/operating.md", "Upgrade"): "needs a newer version",
}


def of(program: str) -> list[Command]:
    """Return the commands of a program, each once."""
    return list(dict.fromkeys(each for each in COMMANDS if each.words and Path(each.words[0]).name == program))


def told(command: Command) -> str:
    return " ".join(command.words[1:])


@pytest.mark.parametrize("command", of("twitter-pipeline"), ids=told)
def test_every_command_is_understood_by_the_program(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(load_settings.__kwdefaults__ or {}, "env_file", tmp_path / ".env")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "request.json").write_text('[{"username": "nasa"}]')
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)

    main(command.words[1:])

    assert "The database postgresql://nobody@127.0.0.1:9/nothing cannot be reached" in capsys.readouterr().err
    assert command.words[0] == ".venv/bin/twitter-pipeline"


@pytest.mark.parametrize("command", of("make"), ids=told)
def test_every_target_of_make_exists_with_its_variables(command: Command) -> None:
    makefile = (PROJECT_DIR / "Makefile").read_text(encoding="utf-8")
    asked = subprocess.run(["make", "-n", *command.words[1:]], cwd=PROJECT_DIR, capture_output=True, text=True)

    assert (asked.returncode, asked.stderr) == (0, "")
    assert [name for name in re.findall(r"(\w+)=", told(command)) if f"$({name})" not in makefile] == []


@pytest.mark.parametrize(
    "variable", dict.fromkeys(pair for command in COMMANDS for pair in command.variables), ids="=".join
)
def test_every_setting_in_a_block_is_one_and_may_have_its_value(variable: tuple[str, str], tmp_path: Path) -> None:
    example = (PROJECT_DIR / ".env.example").read_text(encoding="utf-8")

    load_settings(dict([variable]), env_file=tmp_path / ".env")

    assert f"{variable[0]}=" in example


def test_all_other_commands_are_those_of_any_machine() -> None:
    programs = {Path(each.words[0]).name for each in COMMANDS if each.words}

    assert programs - {"twitter-pipeline", "make"} == {"cat", "cd", "chmod", "cp", "git"}
    assert [name for name in ("cat", "chmod", "cp") if shutil.which(name) is None] == []


def test_what_is_not_run_has_a_reason() -> None:
    assert {(block.page, block.section) for block in BLOCKS if not block.runs} == NOT_RUN.keys()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}: {block.section}")
def test_every_block_is_a_script_that_a_shell_can_read(block: Block) -> None:
    read = subprocess.run(["sh", "-n"], input=block.text, capture_output=True, text=True)

    assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    def leads_nowhere(target: str) -> bool:
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists():
            return True
        return bool(anchor) and anchor not in anchors_of(linked)

    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8"))

    assert [link for link in links if leads_nowhere(link)] == []


def test_every_picture_is_shown_on_a_page() -> None:
    shown = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }

    assert set((PROJECT_DIR / "docs" / "images").iterdir()) == shown


def anchors_of(page: Path) -> list[str]:
    """Return the names under which the headings of a page can be linked to."""
    headings = headings_of(page.read_text(encoding="utf-8"))
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_the_page_in_hebrew_runs_from_right_to_left_and_its_commands_from_left_to_right() -> None:
    text = (PROJECT_DIR / "docs" / "he" / "start.md").read_text(encoding="utf-8")
    left, right = text.split("```sh\n"), re.findall(r'<div dir="rtl">(.*?)</div>', text, re.DOTALL)

    assert [part for part in left[:-1] if part.rstrip().rsplit("\n", 1)[-1] != "</div>"] == []
    assert [part for part in right if "```" in part] == []
    outside = re.sub(r'<div dir="rtl">.*?</div>', "", text, flags=re.DOTALL)
    assert re.findall(r"[\u0590-\u05ff]+", outside) == []
