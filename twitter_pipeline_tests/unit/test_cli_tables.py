"""Tables for the width there is, whatever stands in them."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from twitter_pipeline.cli.tables import Facts, FittedTable
from twitter_pipeline.cli.terminal import cell, table

WIDTHS = [60, 80, 120, 200]

HOSTILE = (
    "\x1b[2J\x1b[31mred",
    "two\nlines\r\tand a tab",
    "\u202eevil\u2066 \u200b",
    "שלום עולם",
    "صباح الخير يا عالم",
    "灯台からおはようございます",
    "👨‍👩‍👧 🇮🇱 ❤️ 🏳️‍🌈",
    "Z" + "\u0301" * 60 + "algo",
    "[bold]no markup[/bold] [/]",
    "x" * 300,
    "",
)


def drawn(renderable: RenderableType, width: int) -> list[str]:
    """Draw on a terminal of this width; return the lines without the blanks at their ends."""
    file = io.StringIO()
    Console(file=file, width=width, markup=False, emoji=False, highlight=False).print(renderable)
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


def accounts(reason: str) -> FittedTable:
    """A table like that of a run."""
    lines = table(
        "account", "outcome", "fetched", "stored in all", "reason",
        right=("fetched", "stored in all"), prose=["reason"], drop=["stored in all"],
    )  # fmt: skip
    lines.add_row("@busy_port", "done", "1,234,567", "7,654,321", cell(reason))
    lines.add_row("@nasa", "done", "12", "34", "")
    return lines


@pytest.mark.parametrize("width", [20, 40, *WIDTHS])
@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_makes_a_line_too_wide_or_breaks_a_number(width: int, text: str) -> None:
    lines = drawn(accounts(text), width)
    whole = "\n".join(lines)

    assert max(map(cell_len, lines)) <= width
    assert "1,234,567" in whole
    assert "@busy_port" in whole
    assert all(char.isprintable() or char in "\n\u200d\u2068\u2069" for char in whole)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.integers(min_value=30, max_value=200))
def test_the_columns_stand_below_each_other_whatever_the_text(text: str, width: int) -> None:
    lines = table("name", "tweets", right=["tweets"], prose=["name"])
    lines.add_row(cell(text or "-"), "12,345")
    lines.add_row("@nasa", "67")
    shown = drawn(lines, width)

    ends = [cell_len(line) for line in shown if re.search(r"(12,345|\b67)$", line)]
    assert len(set(ends)) == 1, shown


def test_columns_of_least_use_give_way_first_and_are_named() -> None:
    wide, narrow = drawn(accounts("all is well"), 80), drawn(accounts("all is well"), 60)

    assert "7,654,321" in "".join(wide)
    assert "7,654,321" not in "".join(narrow)
    assert narrow[-1] == "(no room for: stored in all)"


def test_sentences_without_room_stand_under_the_table() -> None:
    shown = drawn(accounts("X serves no more than the newest 3,200 tweets"), 46)

    assert shown[0].split() == ["account", "outcome", "fetched"]
    assert " ".join(shown[-2:]) == "@busy_port: X serves no more than the newest 3,200 tweets"


def test_a_table_that_cannot_fit_becomes_a_list() -> None:
    lines = table("token", "endpoint", "remaining", right=["remaining"])
    lines.add_row("TWITTER_BEARER_SANDBOX_1", "/2/users/:id/tweets", "9,969")

    assert drawn(lines, 50) == [
        "token      TWITTER_BEARER_SANDBOX_1",
        "endpoint   /2/users/:id/tweets",
        "remaining  9,969",
    ]


def test_a_column_of_sentences_that_nobody_wrote_gives_its_room_first() -> None:
    assert "reason" in drawn(accounts(""), 80)[0]
    narrow = "".join(drawn(accounts(""), 50))
    assert ("reason" in narrow, "7,654,321" in narrow) == (False, True)


def test_right_to_left_letters_are_kept_to_each_line_of_their_cell() -> None:
    text = "שלום עולם " * 6
    for shown in (drawn(accounts(text), 80), drawn(Facts([("name", cell(text))]), 40)):
        lines = [line for line in shown if "\u05e9" in line]

        assert len(lines) > 1
        assert all(line.count("\u2068") == line.count("\u2069") == 1 for line in lines)
