"""What goes to a terminal: nothing that could disturb it, numbers and times as a person reads them."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from twitter_pipeline.cli.terminal import cell, printable, table
from twitter_pipeline.cli.words import ago, dollars, duration, percent

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


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


def test_a_right_to_left_name_is_kept_to_its_cell() -> None:
    assert cell("שלום").plain == "\u2068שלום\u2069"  # noqa: RUF001 letters of that script


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
    from decimal import Decimal

    assert [dollars(Decimal(text)) for text in ("0.005", "1234.5")] == ["$0.005", "$1,234.50"]
