"""The documents for people, and the shell commands in them.

A block of commands begins with ```sh and is run by tests as it stands; with ```sh no-run it is read only.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from twitter_pipeline.settings import PROJECT_DIR

PAGES = sorted([PROJECT_DIR / "README.md", *(PROJECT_DIR / "docs").rglob("*.md")])

_FENCE = re.compile(r"^( *)```sh( no-run)?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
_HERE_DOCUMENT = re.compile(r"(<<'(\w+)')\n.*?^\2$", re.DOTALL | re.MULTILINE)
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
_ASSIGNMENT = re.compile(r"([A-Z_]+)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Commands that stand together in a page, under the heading `section`."""

    page: str
    section: str
    text: str
    runs: bool


@dataclass(frozen=True)
class Command:
    """One program with its words, and the variables that are set for it; without words they are set in a file."""

    words: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of shell commands of a page, from its top."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(PROJECT_DIR).as_posix()
    found: list[Block] = []
    for fence in _FENCE.finditer(text):
        headings = headings_of(text[: fence.start()])
        found.append(Block(name, headings[-1] if headings else "", fence[3], runs=fence[2] is None))
    return found


def headings_of(text: str) -> list[str]:
    """Return the headings of a page; comments in its code are none."""
    return re.findall(r"^#+ (.+)$", _CODE.sub("", text), re.MULTILINE)


def commands_of(text: str) -> Iterator[Command]:
    """Give the programs that a piece of shell runs, those in $(...) among them, without comments and redirections."""
    for inner in _SUBSTITUTION.findall(text):
        yield from commands_of(inner)
    for line in _HERE_DOCUMENT.sub(r"\1", text).replace("\\\n", " ").splitlines():
        yield from _commands_in(line)


def _commands_in(line: str) -> Iterator[Command]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    redirects = False
    for word in [*lexer, ";"]:
        if word in {";", "&&", "||", "|"}:
            if words:
                yield _command(words)
            words = []
        elif word in {">", ">>", "<", "<<"}:
            redirects = True
            continue
        elif not redirects:
            words.append(word)
        redirects = False


def _command(words: list[str]) -> Command:
    variables: list[tuple[str, str]] = []
    for at, word in enumerate(words):
        match = _ASSIGNMENT.fullmatch(word)
        if match is None:
            return Command(tuple(words[at:]), tuple(variables))
        variables.append((match[1], match[2]))
    return Command((), tuple(variables))
