"""What the documents tell people to type, typed: in a checkout of its own, against the sandbox."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from twitter_pipeline.local import stop
from twitter_pipeline.local.places import sandbox
from twitter_pipeline.local.postgres import embedded_server
from twitter_pipeline.settings import PROJECT_DIR, with_tokens
from twitter_pipeline_tests.e2e import typist
from twitter_pipeline_tests.guides import Block, blocks_of, commands_of

FOLDERS = ("sql", "twitter_pipeline")
FILES = (".env.example", "Makefile", "dagster.yaml", "pyproject.toml", "requirements.lock", "workspace.yaml")

# What goes on until Ctrl-C, with what it says when it is at work.
LASTING = {"make up\n": "Ctrl-C stops everything.", ".venv/bin/twitter-pipeline listen\n": "listening"}

ARCHIVE = PROJECT_DIR / "twitter_pipeline_tests" / "payloads" / "import" / "archive"

PATIENCE_S = 120.0

# What lasts is a program of its own, as for a person; all else is run by a process that has imported what it needs.
PROGRAM = """\
#!/bin/sh
case $1 in
    up | listen) exec {python} -m twitter_pipeline.cli "$@" ;;
    *) exec {python} -I -S {typist} call {socket} "$@" ;;
esac
"""

NOT_TYPED = {("README.md", "twitter_pipeline"): "the first hour has it"}

# What a reader has before `import`.
EXPORTS = "\n".join(
    f".venv/bin/twitter-pipeline export nasa -o {name}"
    for name in ("search.jsonl", "timeline.jsonl.gz", "nasa.parquet")
)


@dataclass(frozen=True)
class Checkout:
    """A copy of the project, whose `.venv` has the packages of this one."""

    folder: Path
    environment: dict[str, str]

    def type(self, text: str) -> str:
        """Run lines of shell, each of which has to succeed; return what they print."""
        done = subprocess.run(
            ["sh", "-euc", text],
            stdin=subprocess.DEVNULL,
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
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "lib").symlink_to(Path(sys.prefix) / "lib")
    (folder / ".venv" / ".installed").touch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ours = ("TWITTER_", "DAGSTER_", "DATABASE_URL", "MAKE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment = {
        **kept,
        # The packages of this project's .venv have its code too; the copy's comes first.
        "PYTHONPATH": str(folder),
        "DAGSTER_PORT": str(port),
        "COLUMNS": "120",
        # The fonts of this machine are known.
        "MPLCONFIGDIR": str(PROJECT_DIR / ".local" / "matplotlib"),
    }
    with typing(folder, environment):
        yield Checkout(folder, environment)
        stop.stop_up(folder / ".local")


@contextmanager
def typing(folder: Path, environment: dict[str, str]) -> Generator[None]:
    """Put the program into a checkout, and run its commands while the context lasts."""
    # A socket's path has to be short.
    with tempfile.TemporaryDirectory() as place:
        path = f"{place}/s"
        words = [sys.executable, typist.__file__, "serve", path]
        with subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            program = folder / ".venv" / "bin" / "twitter-pipeline"
            program.write_text(PROGRAM.format(python=sys.executable, typist=typist.__file__, socket=path))
            program.chmod(0o755)
            try:
                yield
            finally:
                process.kill()


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


# Some forty commands.
@pytest.mark.timeout(600)
def test_what_the_other_pages_tell_to_type_works_and_a_backup_brings_back_what_was_deleted(checkout: Checkout) -> None:
    pages = ("docs/he/start.md", "README.md", "docs/operating.md", "docs/terms-of-x.md")
    blocks = [block for page in pages for block in runnable(page) if is_typed(block)]
    backup, restore, deleting = (
        next(block for block in blocks if block.section == section) for section in ("Backup", "Restore", "Deleting")
    )
    count = ".venv/bin/twitter-pipeline db query --json 'SELECT count(*) FROM tweets' 2>/dev/null"

    def counted() -> int:
        return json.loads(checkout.type(count))[0]["count"]

    with embedded_server(checkout.folder / ".local" / "postgres"), sandbox(checkout.folder / ".local" / "logs") as api:
        # One sandbox for all of them; each would start its own.
        checkout.environment.update(with_tokens(checkout.environment, api.bearer_tokens), TWITTER_API_URL=api.url)
        # In place of the demo, which the first page begins with.
        checkout.type(".venv/bin/twitter-pipeline fetch @nasa --mode limit:100")
        checkout.type(EXPORTS)
        shutil.make_archive(str(checkout.folder / "twitter-2026-01-01-archive"), "zip", ARCHIVE)
        typed: set[object] = set()
        for block in blocks:
            commands = set(commands_of(block.text))
            if block not in (backup, restore, deleting) and not commands <= typed:
                checkout.type(block.text)
                typed |= commands
        checkout.type(backup.text)
        before = counted()
        deleted = int(checkout.type(deleting.text).split()[-1])
        rest = counted()
        checkout.type(restore.text)
        restored = counted()

    assert deleted >= 200
    assert (rest, restored) == (before - deleted, before)


def is_typed(block: Block) -> bool:
    """Whether a block is commands, that nothing else runs; `make` is typed in the first hour."""
    if (block.page, block.section) in NOT_TYPED or block.text.startswith("# in .env\n"):
        return False
    return not any(command.words[0] == "make" for command in commands_of(block.text))


def test_what_is_not_typed_is_there() -> None:
    assert {(block.page, block.section) for block in runnable("README.md")} >= NOT_TYPED.keys()
