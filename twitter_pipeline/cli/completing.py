"""What a shell is told when somebody presses Tab: commands, options, files, and names of stored accounts.

Somebody waits for it at the prompt, so nothing is loaded that is not needed, no server is started, and whatever goes
wrong there is nothing to suggest.
"""

import logging
import os
import queue
import sys
import threading
from collections.abc import Sequence

from click.core import Group
from click.shell_completion import CompletionItem, get_completion_class

from twitter_pipeline.cli import COMPLETE_VARIABLE
from twitter_pipeline.cli.shells import PROGRAM
from twitter_pipeline.errors import PipelineError
from twitter_pipeline.settings import load_settings

PATIENCE_S = 0.25
"""For so long the database may keep somebody waiting."""

SUGGESTED = 100

TAKE_NAMES = ("fetch", "backfill", "status", "track", "untrack", "export")
TAKE_FILES = ("fetch", "import")

TAKE_A_VALUE = frozenset({"--mode", "--from", "--to", "--source", "--since", "--until", "--format", "--account"})
"""The options of these commands after which a word stands that is no name; -o stands before a file."""
BEFORE_A_FILE = frozenset({"-o", "--output"})

_FILE = CompletionItem("", type="file")


def complete(instruction: str) -> int:
    """Answer a shell, whose words are in the environment; return the exit code."""
    logging.disable()
    shell, _, what = instruction.partition("_")
    kind = get_completion_class(shell)
    if kind is None or what != "complete":
        return 1
    completer = kind(Group(), {}, PROGRAM, COMPLETE_VARIABLE)
    words, begun = completer.get_completion_args()
    found = suggestions(words, begun)
    if found is None:
        from twitter_pipeline.cli.program import program

        completer.cli = program
        found = completer.get_completions(words, begun)
    sys.stdout.write("".join(f"{completer.format_completion(item)}\n" for item in found))
    return 0


def suggestions(words: Sequence[str], begun: str) -> Sequence[CompletionItem[str]] | None:
    """Return what may stand after the words, as far as the command's own module need not be asked; else None."""
    if not words or begun.startswith("-") or words[-1] in TAKE_A_VALUE:
        return None
    command, last = words[0], words[-1]
    if last in BEFORE_A_FILE:
        return [_FILE]
    with_at = begun.startswith("@") or (command == "fetch" and any(word.startswith("@") for word in words[1:]))
    if command in TAKE_FILES and not with_at:
        return [_FILE]
    if command in TAKE_NAMES:
        at, beginning = "@" if with_at else "", begun.removeprefix("@")
        given = {word.removeprefix("@").lower() for word in words[1:]}
        names = stored_names(beginning, tracked=_wanted(command))
        return [CompletionItem(f"{at}{name}") for name in names if name.lower() not in given]
    return None


def _wanted(command: str) -> bool | None:
    """Return whether a command is for accounts that are tracked, or that are not, or None for all."""
    return {"untrack": True, "track": False}.get(command)


def stored_names(beginning: str, *, tracked: bool | None, patience_s: float = PATIENCE_S) -> list[str]:
    """Return the names of stored accounts that begin so; none when the database does not answer in time."""
    try:
        conninfo = _conninfo()
    except PipelineError:
        return []
    # Not above: only names need the database's driver.
    from twitter_pipeline.store.names import load_names

    answers: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(load_names(conninfo, beginning, tracked=tracked, count=SUGGESTED))
        except Exception:  # noqa: BLE001 whatever it is, there is nothing to suggest, and nobody to tell it to
            answers.put([])

    # A thread that hangs in a connection ends with the process.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=patience_s)
    except queue.Empty:
        return []


def _conninfo() -> str:
    """Return where the names are; the embedded server need not run."""
    settings = load_settings(os.environ)
    if settings.database_url is not None:
        return (settings.database_reader_url or settings.database_url).replace("+psycopg://", "://", 1)
    from twitter_pipeline.local.socket_dir import READER, SocketDir

    sockets = SocketDir(settings.local_dir / "postgres")
    return sockets.conninfo("twitter" if settings.bearer_tokens else "sandbox", user=READER)
