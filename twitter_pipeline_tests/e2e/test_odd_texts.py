"""Texts that people write on X to break what reads them: stored as they are, shown without being obeyed."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
from markdown_it import MarkdownIt

from twitter_pipeline.cli import main
from twitter_pipeline.cli.launching import Ending
from twitter_pipeline.cli.results import report_values, show_problems, show_report
from twitter_pipeline.cli.terminal import Terminal, as_json
from twitter_pipeline.orchestration.token_page import observe_tokens
from twitter_pipeline.sandbox.api import Response
from twitter_pipeline.settings import PROJECT_DIR
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent

# For a terminal, for PostgreSQL (NUL, half a surrogate pair), for a reader's eyes, for SQL, HTML, rich and Markdown.
ODD = (
    "\x1b[2J\x07\x9b31m\x00\ud83d\u202e\u2066\u200b'; DROP TABLE tweets; -- <script>alert(1)</script>"
    '[bold]x[/bold][/red] **a** | `b` [c](https://d.example) "q" \\ \u05e9\u05dc\u05d5\u05dd'
)
AS_JSON = json.dumps(ODD)[1:-1]
STORED = ODD.replace("\x00", "\ufffd").replace("\ud83d", "\ufffd")
MARKUP = "'; DROP TABLE tweets; -- <script>alert(1)</script>[bold]x[/bold][/red] **a** | `b` [c](https://d.example)"

# What stands in the sandbox's answers for the odd text, and for a username that X would never give.
PLACEHOLDER = "(sandbox)"
ODD_USERNAME = "new\x1b[2J\u202e_name"

COMMANDS = [
    ["status"],
    ["status", "writer"],
    ["tracked"],
    ["runs"],
    ["tokens"],
    ["db", "query", "SELECT name, description, location, raw FROM users"],
    ["db", "query", "SELECT text, raw FROM tweets"],
    ["db", "query", "SELECT error FROM api_calls WHERE error IS NOT NULL"],
    ["db", "query", 'SELECT 1 AS "\x1b[2J"'],
]


def make_odd(workshop: Workshop) -> None:
    """Put the odd text into all users and tweets that are answered, and into the refusals of an account and a token."""
    handle, refused = workshop.sandbox.api.handle, str(workshop.user_id("refused"))
    problem = json.dumps({"title": "Odd", "detail": ODD, "type": "about:blank"}).encode()
    headers = {"content-type": "application/problem+json"}

    def answer(method: str, path: str, query: str, given: Mapping[str, str], body: bytes = b"") -> Response:
        if given["authorization"].endswith("-1"):
            return Response(401, headers, problem)
        if path == f"/2/users/{refused}/tweets":
            return Response(400, headers, problem)
        answered = handle(method, path, query, given, body)
        odd = answered.body.replace(PLACEHOLDER.encode(), AS_JSON.encode())
        return replace(answered, body=odd.replace(b'"new_name"', json.dumps(ODD_USERNAME).encode()))

    workshop.sandbox.api.handle = answer


def unsafe(text: str) -> set[str]:
    """What a terminal or a reader's eye would obey; the isolates that keep right-to-left letters in a cell are ours."""
    return {char for char in text if not char.isprintable() and char not in "\n\u2068\u2069"}


@pytest.fixture
def fetched(make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch) -> tuple[Workshop, Ending]:
    """A workshop after a run over odd texts: a writer, an account with an impossible new name, one that is refused."""
    workshop = make_workshop([silent("writer", 3), silent("old_name", 2), silent("refused", 5)], tokens=2)
    workshop.fetch({"username": "old_name", "fetch_mode": "limit:1"})
    monkeypatch.setenv("TWITTER_PROFILE_MAX_AGE_DAYS", "0")
    workshop.sandbox.world.post("writer", text=PLACEHOLDER, at=workshop.opened_at.timestamp() - 600)
    workshop.sandbox.world.rename("old_name", "new_name")
    make_odd(workshop)
    result = workshop.fetch({"username": "writer", "track_after": True}, "old_name", "refused")
    return workshop, Ending(result.dagster_run_id, result.report, result.error)


def test_odd_texts_are_stored_and_exported_as_they_are(
    fetched: tuple[Workshop, Ending], capsys: pytest.CaptureFixture[str]
) -> None:
    workshop, _ = fetched
    ((text, raw),) = workshop.database.execute("SELECT text, raw::text FROM tweets WHERE text LIKE '%%DROP TABLE%%'")
    ((name, of_user),) = workshop.database.execute("SELECT name, raw::text FROM users WHERE username = 'writer'")
    code = main(["db", "query", "--csv", "SELECT text FROM tweets WHERE text LIKE '%DROP TABLE%'"])
    exported = list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))

    assert (text, name) == (STORED, f"Writer {STORED}")
    assert (AS_JSON in raw, AS_JSON in of_user) == (True, True)
    assert (code, exported) == (0, [["text"], [STORED]])
    assert len(workshop.stored("writer")) == 4


def test_no_command_lets_a_terminal_obey_an_odd_text(
    fetched: tuple[Workshop, Ending], capsys: pytest.CaptureFixture[str]
) -> None:
    _, ending = fetched
    terminal = Terminal.open()
    show_report(terminal, ending, made_up=False)
    show_problems(terminal, ending)
    shown = {"fetch": "".join(capsys.readouterr())}
    for words in COMMANDS:
        assert main(words) == 0, words
        shown[" ".join(words)] = "".join(capsys.readouterr())
    told = as_json(report_values(ending, made_up=False))

    assert {name: found for name, text in shown.items() if (found := unsafe(text))} == {}
    # Each shows the texts, and takes nothing in them for its own markup.
    assert {name for name, text in shown.items() if "DROP TABLE" in text} == {
        "fetch", "status writer", "tokens", *(" ".join(words) for words in COMMANDS[5:8])
    }  # fmt: skip
    assert MARKUP in shown["fetch"]
    assert MARKUP in shown["status writer"]
    assert MARKUP in shown["tokens"]
    assert "@old_name failed: the name could not be looked up (X says: Unreadable user: " in shown["fetch"]
    assert unsafe(told) == set()
    assert MARKUP in str(json.loads(told)["accounts"])


def test_a_terminal_gets_csv_that_it_can_show(fetched: tuple[Workshop, Ending]) -> None:
    words = ["db", "query", "--csv", "SELECT text FROM tweets WHERE text LIKE '%DROP TABLE%'"]
    outside, inside = pty.openpty()
    program = "import sys; from twitter_pipeline.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], cwd=PROJECT_DIR, stdout=inside, stderr=subprocess.DEVNULL
    )
    os.close(inside)
    shown = b""
    while (read := _read(outside)) != b"":
        shown += read
    os.close(outside)

    assert process.wait(timeout=60) == 0
    assert MARKUP in shown.decode()
    assert unsafe(shown.decode().replace("\r\n", "\n")) == set()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # so Linux tells that nobody writes any more
        return b""


def test_dagster_gets_odd_texts_as_plain_lines_and_values(fetched: tuple[Workshop, Ending]) -> None:
    _, ending = fetched
    with dg.DagsterInstance.get() as instance:
        events = instance.all_logs(str(ending.dagster_run_id))
        run = instance.get_run_by_id(str(ending.dagster_run_id))
    assert run is not None
    messages = [event.message for event in events]
    entries: list[dg.MetadataValue[Any]] = []
    for event in events:
        data = event.dagster_event.event_specific_data if event.dagster_event else None
        failure = getattr(data, "user_failure_data", None)
        entries += (getattr(data, "metadata", None) or {}).values()
        entries += failure.metadata.values() if failure else ()
    tables = [entry for entry in entries if isinstance(entry, dg.TableMetadataValue)]
    cells = [str(value) for entry in tables for record in entry.records for value in record.data.values()]
    tags = [part for tag in run.tags.items() for part in tag]

    assert any(MARKUP in message for message in messages)
    assert any(MARKUP in text for text in cells)
    assert unsafe("".join([*messages, *cells, *tags])) == set()
    assert not any("DROP TABLE" in tag for tag in tags)
    # Markdown and links are the only values that the UI takes for more than text.
    assert not any(isinstance(entry, dg.MarkdownMetadataValue | dg.UrlMetadataValue) for entry in entries)


def test_the_page_of_the_tokens_makes_nothing_of_an_odd_text(fetched: tuple[Workshop, Ending]) -> None:
    workshop, _ = fetched
    shown = observe_tokens(workshop.opened, with_chart=False)
    lines = str(shown.metadata["what holds work up"].value).splitlines()
    read = [each.children or [] for each in MarkdownIt().parse("\n".join(lines)) if each.type == "inline"]

    assert [[part.type for part in parts] for parts in read] == [["code_inline"]] * len(lines)
    assert any(MARKUP in parts[0].content for parts in read)
    assert shown.description is not None
    assert f"- {shown.description}" == lines[0]
