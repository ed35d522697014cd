"""What goes to a terminal: nothing that could disturb it, numbers and times as a person reads them."""

import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from rich.console import Console

from twitter_pipeline.cli.safe_text import printable
from twitter_pipeline.cli.terminal import Terminal, as_json, cell, table
from twitter_pipeline.cli.words import ago, dollars, duration, percent
from twitter_pipeline.words import AccountOutcome

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Screen(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def rendered(*cells: str) -> list[str]:
    """Render one row after a header, as to a file."""
    lines = table("one", "two")
    lines.add_row(*map(cell, cells))
    file = io.StringIO()
    Console(file=file, width=1000, markup=False).print(lines)
    return [line for line in file.getvalue().splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("over\u202eride \u2066", "over\\u202eride \\u2066"),
        ("non\xa0breaking", "non breaking"),
        ("灯台 صباح 👨‍👩‍👧", "灯台 صباح 👨‍👩‍👧"),
        ("[bold]not markup[/bold]", "[bold]not markup[/bold]"),
    ],
)
def test_what_does_not_print_is_shown_by_its_code(given: str, shown: str) -> None:
    assert printable(given) == shown


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb\nc", "[red]x[/red]", "灯台からおはよう", "[/]"])
def test_no_text_breaks_a_table(text: str) -> None:
    header, rule, row = rendered(text, "end")

    assert row.split() == [*printable(text).split(), "end"]
    assert len(header) == len(rule)


def test_marks_upon_marks_are_cut_to_what_writing_needs() -> None:
    assert printable("Z" + "\u0301" * 50 + "algo") == "Z" + "\u0301" * 4 + "algo"
    assert printable("שָׁלוֹם") == "שָׁלוֹם"


def test_json_says_the_same_and_a_terminal_obeys_nothing_of_it() -> None:
    odd = "\x1b[2J\u202e\u2066\ud83d\x00\x9b灯台"
    text = as_json({"at": NOW, "usd": Decimal("0.125"), "text": odd, "outcome": AccountOutcome.DONE})

    assert all(line.isprintable() for line in text.split("\n"))
    assert json.loads(text) == {"at": "2026-05-01T12:00:00+00:00", "usd": 0.125, "text": odd, "outcome": "done"}


@pytest.mark.parametrize(
    ("is_terminal", "variables", "is_coloured", "moves"),
    [
        (True, {}, True, True),
        (True, {"NO_COLOR": "1"}, False, True),
        (True, {"TERM": "dumb"}, False, False),
        (False, {}, False, False),
        (False, {"FORCE_COLOR": "1"}, True, False),
    ],
)
def test_colours_and_movement_are_for_who_can_see_them(
    is_terminal: bool, variables: dict[str, str], is_coloured: bool, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **variables}.items():
        monkeypatch.setenv(name, value)
    out = Screen(is_terminal=is_terminal)
    monkeypatch.setattr("sys.stdout", out)
    terminal = Terminal.open()
    terminal.show(cell("done", "green"))

    assert ("\x1b[32m" in out.getvalue()) == is_coloured
    assert terminal.out.is_interactive == moves


def test_a_message_is_wrapped_at_words_and_what_is_to_be_copied_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Screen(is_terminal=True)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stdout", out)
    Terminal.open().write("1,234 tweets and 29 calls\nTo fill:\n  twitter-pipeline fetch @nasa")

    assert out.getvalue().split("\n")[:4] == [
        "1,234 tweets and 29 ",
        "calls",
        "To fill:",
        "  twitter-pipeline fetch @nasa",
    ]


@pytest.mark.parametrize(
    ("share", "shown"),
    [(None, "-"), (0.0, "0 %"), (0.0004, "< 0.1 %"), (0.5, "50 %"), (3199 / 3200, "99.9 %"), (1.0, "100 %")],
)
def test_only_all_is_100_percent(share: float | None, shown: str) -> None:
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (7260, "2 h 01 min"), (90_000, "1 d 1 h")]
)
def test_durations_have_two_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("passed", "shown"),
    [(-5, "just now"), (0, "just now"), (60, "1 min ago"), (7200, "2 h ago"), (200_000, "2 d ago")],
)
def test_a_past_instant_is_told_in_its_largest_unit(passed: int, shown: str) -> None:
    assert ago(NOW - timedelta(seconds=passed), NOW) == shown


def test_money_below_a_dollar_has_tenths_of_cents() -> None:
    assert [dollars(Decimal(text)) for text in ("0.005", "1234.5")] == ["$0.005", "$1,234.50"]
