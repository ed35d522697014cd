"""What is under way: on a terminal a line that moves, in a log a line now and then."""

import io

from rich.console import Console

from twitter_pipeline.cli.display import PLAIN_LINE_S, UNCHANGED_LINE_S, Display, Meter, fitting

PARTS = ("3 of 10 accounts", "12,345 tweets, 12,000 new", "expected end 12:15 UTC", "1,234 tweets/s")


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_parts_that_do_not_fit_are_left_out_and_none_is_cut() -> None:
    assert fitting(PARTS, 200) == " | ".join(PARTS)
    assert fitting(PARTS, 60) == "3 of 10 accounts | 12,345 tweets, 12,000 new"
    assert fitting(PARTS, 45) == "3 of 10 accounts | 12,345 tweets, 12,000 new"
    assert fitting(PARTS, 43) == "3 of 10 accounts | expected end 12:15 UTC"
    assert fitting(PARTS, 5) == "3 of 10 accounts"
    assert fitting(["灯台" * 4, "next"], 18) == "灯台" * 4


def test_a_log_gets_a_line_now_and_then_and_the_same_one_rarely() -> None:
    file, clock = io.StringIO(), Clock()
    with Display(Console(file=file, width=200), clock=clock) as display:
        display.announce("Reading")
        display.show(["1 tweet"])
        clock.now += PLAIN_LINE_S
        display.show(["2 tweets", "9 tweets/s"])
        clock.now += PLAIN_LINE_S
        display.show(["2 tweets", "9 tweets/s"])
        clock.now += UNCHANGED_LINE_S
        display.show(["2 tweets", "9 tweets/s"])

    assert file.getvalue().splitlines() == ["Reading", "2 tweets | 9 tweets/s", "2 tweets | 9 tweets/s"]


def test_a_terminal_gets_a_bar_that_leaves_no_trace() -> None:
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, force_interactive=True, color_system=None)
    with Display(console) as display:
        display.show(["1,000 tweets", "500 tweets/s"], done=10, total=20)
    shown = file.getvalue()

    assert "1,000 tweets | 500 tweets/s" in shown
    assert "━" in shown
    assert shown.endswith(("\r\x1b[2K", "\x1b[1A\x1b[2K"))


def test_the_rate_is_that_of_the_last_seconds_over_all_counts() -> None:
    clock = Clock()
    meter = Meter(clock=clock)
    assert meter.rate_in_words("tweets") == []
    for count in range(1, 31):
        clock.now += 1
        meter.note("a.jsonl", count * 10)
    clock.now += 1
    meter.note("b.jsonl", 1000)

    assert meter.rate_in_words("tweets") == ["109 tweets/s"]
