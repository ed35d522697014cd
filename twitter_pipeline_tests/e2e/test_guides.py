"""What the documents tell people to type, typed: in a checkout of its own, against the sandbox."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from twitter_pipeline.local import stop
from twitter_pipeline.local.postgres import embedded_server
from twitter_pipeline.settings import PROJECT_DIR
from twitter_pipeline_tests.guides import Block, blocks_of

FOLDERS = ("sql", "twitter_pipeline")
FILES = (".env.example", "Makefile", "dagster.yaml", "pyproject.toml", "requirements.lock", "workspace.yaml")

# What goes on until Ctrl-C, with what it says when it is at work.
LASTING = {"make up\n": "Ctrl-C stops everything.", ".venv/bin/twitter-pipeline listen\n": "listening"}

PATIENCE_S = 120.0


@dataclass(frozen=True)
class Checkout:
    """A copy of the project, whose `.venv` has the packages of this one."""

    folder: Path
    environment: dict[str, str]

    def type(self, text: str) -> str:
        """Run lines of shell, each of which has to succeed; return what they print."""
        done = subprocess.run(
            ["sh", "-eu"],
            input=text,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}"
        return done.stdout

    @contextmanager
    def at_work(self, text: str) -> Generator[None]:
        """Run what goes on until Ctrl-C while the context lasts, from when it says that it is at work."""
        log = self.folder / "lasting.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["sh", "-c", text],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + PATIENCE_S
            while LASTING[text] not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield
        finally:
            # As a terminal does, to all processes in its foreground.
            os.killpg(process.pid, signal.SIGINT)
            process.wait(PATIENCE_S)
        assert "topped" in log.read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Generator[Checkout]:
    """A checkout in which `make setup` has been done, on a machine without settings."""
    folder = tmp_path / "twitter_pipeline"
    for name in FOLDERS:
        shutil.copytree(PROJECT_DIR / name, folder / name)
    for name in FILES:
        shutil.copy(PROJECT_DIR / name, folder)
    program = folder / ".venv" / "bin" / "twitter-pipeline"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m twitter_pipeline.cli "$@"\n')
    program.chmod(0o755)
    (folder / ".venv" / "lib").symlink_to(Path(sys.prefix) / "lib")
    (folder / ".venv" / ".installed").touch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ours = ("TWITTER_", "DAGSTER_", "DATABASE_URL", "MAKE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # The packages of this project's .venv have its code too; the copy's comes first.
    yield Checkout(folder, {**kept, "PYTHONPATH": str(folder), "DAGSTER_PORT": str(port), "COLUMNS": "120"})
    stop.stop_up(folder / ".local")


def runnable(page: str) -> list[Block]:
    """Return the blocks of a page that are run."""
    return [block for block in blocks_of(PROJECT_DIR / page) if block.runs]


# On a machine that does much else it takes minutes: some twenty commands, each a process of its own.
@pytest.mark.timeout(600)
def test_the_first_hour_leads_to_a_watched_account(checkout: Checkout) -> None:
    before, (up, *after) = split_at(runnable("docs/first-hour.md"), "make up\n")
    said: dict[str, str] = {block.section: checkout.type(block.text) for block in before}
    with checkout.at_work(up.text):
        for block in after:
            if block.text in LASTING:
                with checkout.at_work(block.text):
                    pass
            else:
                said[block.section] = said.get(block.section, "") + checkout.type(block.text)
        polled = wait_for_poll(checkout)

    assert polled == {"esa", "lighthouse", "nasa"}
    # The sandbox in place of the tokens that a person has by then.
    assert "TWITTER_BEARER_SANDBOX_1" in said["8. Your own tokens"]
    assert len((checkout.folder / "nasa.csv").read_text().splitlines()) > 100


def split_at(blocks: list[Block], text: str) -> tuple[list[Block], list[Block]]:
    """Split a page before the block with this text."""
    at = [block.text for block in blocks].index(text)
    return blocks[:at], blocks[at:]


def wait_for_poll(checkout: Checkout) -> set[str]:
    """Wait until the watch has polled tracked accounts, and return who is tracked and was."""
    query = (
        "SELECT a.username FROM fetch_run_accounts a JOIN fetch_runs r ON r.id = a.fetch_run_id"
        " WHERE r.kind = 'incremental' AND a.outcome = 'done'"
    )
    deadline = time.monotonic() + PATIENCE_S
    polled: set[str] = set()
    while len(polled) < 3 and time.monotonic() < deadline:
        answer = checkout.type(f'.venv/bin/twitter-pipeline db query --json "{query}" 2>/dev/null')
        polled = {row["username"] for row in json.loads(answer)}
    return polled


@pytest.mark.timeout(300)
def test_a_database_is_restored_from_its_backup_and_is_rid_of_what_has_to_be_deleted(checkout: Checkout) -> None:
    texts = {block.section: block.text for block in runnable("docs/operating.md") if block.section != "Budgets"}
    deletions = next(block.text for block in runnable("docs/terms-of-x.md") if block.section == "Deleting")
    count = ".venv/bin/twitter-pipeline db query --json 'SELECT count(*) FROM tweets' 2>/dev/null"
    with embedded_server(checkout.folder / ".local" / "postgres"):
        checkout.type(".venv/bin/twitter-pipeline fetch @nasa @lighthouse --mode limit:5")
        checkout.type(texts["Backup"])
        deleted = checkout.type(deletions)
        rest = checkout.type(count)
        checkout.type(texts["Restore"])
        restored = checkout.type(count)

    assert deleted.splitlines()[-1] == "DELETE 5"
    assert [json.loads(each) for each in (rest, restored)] == [[{"count": 5}], [{"count": 10}]]
    assert checkout.type(texts["Upgrade"]).splitlines()[-1] == "The database and the models agree"
