"""Charts as pictures: legible on both backgrounds, small, the same each time, and drawn only where one is wanted."""

import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from base64 import b64decode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from itertools import combinations
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from twitter_pipeline.charts import palette
from twitter_pipeline.charts.calls import draw_calls
from twitter_pipeline.charts.canvas import (
    HEADING,
    KEY_ROW,
    WIDTH,
    as_markdown,
    compact,
    in_order,
    shortened,
    span_in_words,
)
from twitter_pipeline.charts.costs import KINDS, dollars, draw_costs_by_account, draw_costs_by_day, draw_costs_by_run
from twitter_pipeline.charts.delays import draw_delays
from twitter_pipeline.charts.series import NAMED, RunCalls, TokenUse, TweetCounts
from twitter_pipeline.charts.tokens import TOKENS, draw_token_use
from twitter_pipeline.charts.tweets import draw_tweets, step_after

NOW = datetime(2026, 11, 22, 14, 7, tzinfo=UTC)
DAY = timedelta(days=1)
LARGEST = 50_000
PROMISE = timedelta(minutes=15)

COLOURS = (palette.INK, palette.REST, *palette.SERIES)
WHITE, NEARLY_BLACK = "#FFFFFF", "#0B0C0E"

NORMAL = np.eye(3)
PROTANOPIA = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
DEUTERANOPIA = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
TRITANOPIA = ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900))


def linear(colour: str) -> np.ndarray:
    """Return a colour's light, red, green, blue, from 0 to 1 (IEC 61966-2-1)."""
    coded = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    dark, light = sorted(float(linear(colour) @ (0.2126, 0.7152, 0.0722)) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def oklab(light: np.ndarray) -> np.ndarray:
    cones = light @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(np.clip(cones, 0, None)) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


def tweets(accounts: int = 1, *, step: str = "day", bars: int = 30, others: int = 0) -> TweetCounts:
    """Counts that go up and down at random, of so many accounts with a name and so many others."""
    random = np.random.default_rng(1)
    at = pd.date_range(
        "2021-01-01", periods=bars, freq={"hour": "h", "day": "D", "week": "7D", "month": "MS"}[step], tz="UTC"
    )
    names = [f"_a_long_name_{place:02}" for place in range(accounts)] + ([None] if others else [])
    frames = [pd.DataFrame({"at": at, "username": name, "tweets": random.integers(1, 900, bars)}) for name in names]
    return TweetCounts(pd.concat(frames), step=step, others=others)  # type: ignore[arg-type]


def calls(tokens: int = 2, *, hours: float = 1, env_key: str = "TWITTER_BEARER_{}") -> RunCalls:
    """Calls of a run that uses up the windows of its tokens, whose windows begin at different times."""
    random = np.random.default_rng(1)
    begin, window, rows = NOW - timedelta(hours=hours), timedelta(minutes=15), []
    for token in range(tokens):
        offset = timedelta(seconds=25 * token)
        for moment in range(240):
            first_at = begin + moment * timedelta(hours=hours) / 240
            reset = begin + offset + ((first_at - begin - offset) // window + 1) * window
            used = min(900, int((1 - (reset - first_at) / window) * random.integers(900, 1800)))
            last_at = first_at + timedelta(seconds=1)
            used_up_at = first_at if used == 900 else None
            rows.append(
                (
                    env_key.format(token),
                    "/2/users/:id/tweets",
                    first_at,
                    last_at,
                    reset,
                    900,
                    used,
                    9,
                    5,
                    first_at,
                    last_at,
                    used_up_at,
                    token == 1,
                )
            )
    return RunCalls(pd.DataFrame(rows, columns=CALL_COLUMNS), begins_at=begin, ends_at=NOW, waiting_for=None)


CALL_COLUMNS = [
    "env_key", "endpoint", "first_at", "last_at", "resets_at", "limit", "used", "calls", "own", "own_first_at",
    "own_last_at", "used_up_at", "refused",
]  # fmt: skip


def days(count: int, kinds: Sequence[str] = tuple(KINDS)) -> pd.DataFrame:
    random = np.random.default_rng(1)
    at = pd.date_range("2026-08-01", periods=count, freq="D", tz="UTC")
    return pd.concat([pd.DataFrame({"at": at, "kind": kind, "usd": random.random(count) * 20}) for kind in kinds])


def accounts(count: int) -> pd.DataFrame:
    random = np.random.default_rng(1)
    names = [f"a_long_name_{place:03}" for place in range(count)]
    return pd.DataFrame({"username": [*names, None], "usd": [*(random.random(count) * 99), 12.5]})


def runs(count: int) -> pd.DataFrame:
    random = np.random.default_rng(1)
    kinds = random.choice(list(KINDS)[:4], count)
    return pd.DataFrame({"fetch_run_id": range(90_000, 90_000 + count), "kind": kinds, "usd": random.random(count) * 9})


def use(tokens: int) -> TokenUse:
    random = np.random.default_rng(1)
    rows = [
        (
            f"TWITTER_BEARER_{token}",
            NOW - DAY + timedelta(minutes=30 * step),
            int(random.integers(900)),
            random.random() * 1.1,
            step == 7,
        )
        for token in range(tokens)
        for step in range(48)
    ]
    rows.append(("TWITTER_BEARER_IDLE", None, None, None, None))  # type: ignore[arg-type]
    frame = pd.DataFrame(rows, columns=["env_key", "at", "calls", "share", "refused"])
    return TokenUse(frame, begins_at=NOW - DAY, ends_at=NOW, step_s=1800)


def delays(hours: int) -> pd.DataFrame:
    random = np.random.default_rng(1)
    at = pd.date_range("2026-11-21 15:00", periods=hours, freq="h", tz="UTC")
    return pd.DataFrame(
        {"at": at, "tweets": 7, "median_s": random.random(hours) * 300, "p95_s": 300 + random.random(hours) * 900}
    )


SMALL: dict[str, Callable[[], bytes | None]] = {
    "tweets": lambda: draw_tweets(tweets()),
    "calls": lambda: draw_calls(calls()),
    "costs by day": lambda: draw_costs_by_day(days(1, ["history"])),
    "costs by run": lambda: draw_costs_by_run(runs(1)),
    "costs by account": lambda: draw_costs_by_account(accounts(1)),
    "use of tokens": lambda: draw_token_use(use(1)),
    "delays": lambda: draw_delays(delays(1), promise=PROMISE),
}

LARGE: dict[str, Callable[[], bytes | None]] = {
    "tweets": lambda: draw_tweets(tweets(NAMED, step="month", bars=240, others=9_993)),
    "calls": lambda: draw_calls(calls(36, hours=10)),
    "calls of days": lambda: draw_calls(calls(12, hours=60)),
    "costs by day": lambda: draw_costs_by_day(days(90)),
    "costs by run": lambda: draw_costs_by_run(runs(40)),
    "costs by account": lambda: draw_costs_by_account(accounts(200)),
    "use of tokens": lambda: draw_token_use(use(TOKENS + 20)),
    "delays": lambda: draw_delays(delays(25), promise=PROMISE),
}


def drawn(draw: Callable[[], bytes | None]) -> bytes:
    png = draw()
    assert png is not None
    return png


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)).convert("RGBA"))


def area(png: bytes, colour: str) -> int:
    """Return how many pixels of the axes have a colour; keys stand above or to the right of them."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    shown = pixels(png)[2 * (HEADING + KEY_ROW) :, : 2 * (WIDTH - 240)].astype(int)
    return int((np.abs(shown - (red, green, blue, 255)).max(axis=2) <= 6).sum())


@pytest.mark.parametrize("background", [WHITE, NEARLY_BLACK])
@pytest.mark.parametrize("colour", COLOURS)
def test_colours_can_be_told_from_a_light_and_a_dark_background(colour: str, background: str) -> None:
    assert contrast(colour, background) >= 3


@pytest.mark.parametrize("sight", [NORMAL, PROTANOPIA, DEUTERANOPIA, TRITANOPIA])
def test_colours_of_a_chart_can_be_told_from_each_other_whichever_way_they_are_seen(
    sight: Sequence[Sequence[float]],
) -> None:
    seen = [oklab(np.clip(np.array(sight) @ linear(colour), 0, 1)) for colour in (*palette.SERIES, palette.REST)]
    distances = [float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)]

    # 0.02 is the least that can be seen side by side; well-known palettes come down to 0.03.
    assert min(distances) > 0.07


@cache
def large(name: str) -> bytes:
    """Draw one of the largest charts, once for all tests."""
    return drawn(LARGE[name])


@pytest.mark.parametrize("name", LARGE)
def test_the_largest_charts_are_small_sharp_and_transparent(name: str) -> None:
    png = large(name)
    image = pixels(png)

    assert len(png) <= LARGEST
    assert image.shape[1] == 2 * WIDTH
    assert (image[[0, 0, -1, -1], [0, -1, 0, -1], 3] == 0).all()


@pytest.mark.parametrize("name", LARGE)
def test_what_is_opaque_has_a_colour_of_the_palette(name: str) -> None:
    image = pixels(large(name)).reshape(-1, 4).astype(int)
    colours, counts = np.unique(image[image[:, 3] > 250][:, :3], axis=0, return_counts=True)
    known = np.array([[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in COLOURS])
    distances = np.abs(colours[:, None] - known[None]).max(axis=2).min(axis=1)

    # Where two colours meet there are mixtures.
    assert counts[distances <= 8].sum() > 0.97 * counts.sum()


@pytest.mark.parametrize("draw", SMALL.values(), ids=SMALL)
def test_the_same_input_gives_the_same_bytes_also_from_threads_side_by_side(draw: Callable[[], bytes | None]) -> None:
    alone = drawn(draw)
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda _: draw(), range(4)))

    assert together == [alone] * 4
    assert not any(chunk in alone for chunk in (b"tIME", b"tEXt", b"iTXt", b"zTXt", b"eXIf"))


def test_nothing_to_show_is_no_picture() -> None:
    nothing = timedelta(0)

    assert draw_tweets(TweetCounts(tweets().frame.iloc[:0], step="day", others=0)) is None
    assert draw_calls(RunCalls(calls().frame.iloc[:0], begins_at=NOW - DAY, ends_at=NOW, waiting_for=None)) is None
    assert draw_costs_by_day(days(3).assign(usd=0.0)) is None
    assert draw_costs_by_run(runs(3).iloc[:0]) is None
    assert draw_costs_by_account(accounts(3).iloc[:0]) is None
    assert draw_token_use(TokenUse(use(1).frame.iloc[:0], begins_at=NOW - DAY, ends_at=NOW, step_s=1800)) is None
    assert draw_delays(delays(1).iloc[:0], promise=nothing) is None


@pytest.mark.parametrize("name", ["_nasa", "$a$b_{c}$", "\\frac", "ארץ", "日本語", "🚀🚀", "a\nb", "x" * 200, "%s{}"])
def test_no_name_breaks_a_picture(name: str) -> None:
    counts = tweets(2)
    named = TweetCounts(counts.frame.replace("_a_long_name_00", name), step="day", others=0)

    assert draw_tweets(named)
    assert draw_costs_by_account(accounts(2).replace("a_long_name_000", name))
    assert draw_calls(calls(1, env_key=f"TWITTER_BEARER_{name.replace('{', '').replace('}', '')}"))


def test_an_account_fills_as_much_of_a_chart_as_it_has_tweets() -> None:
    at = pd.date_range("2026-01-01", periods=20, freq="D", tz="UTC")
    frame = pd.concat(
        [pd.DataFrame({"at": at, "username": name, "tweets": count}) for name, count in (("b", 10), ("a", 30))]
    )
    png = drawn(lambda: draw_tweets(TweetCounts(frame, step="day", others=0)))

    # The one with more tweets has the first colour, whatever its place.
    assert area(png, palette.BLUE) == pytest.approx(3 * area(png, palette.AMBER), rel=0.05)
    assert area(png, palette.MAGENTA) == 0


def test_others_have_no_colour_of_their_own_whatever_they_come_to() -> None:
    frame = pd.DataFrame({"at": [pd.Timestamp(NOW)] * 2, "username": ["a", None], "tweets": [1, 9]})
    png = drawn(lambda: draw_tweets(TweetCounts(frame, step="day", others=4)))

    assert area(png, palette.REST) == pytest.approx(9 * area(png, palette.BLUE), rel=0.1)


def test_the_days_of_a_kind_have_its_colour() -> None:
    png = drawn(lambda: draw_costs_by_day(days(30, ["history", "reconcile"])))

    assert area(png, KINDS["history"]) > 1000
    assert area(png, KINDS["reconcile"]) > 1000
    assert area(png, KINDS["backfill"]) == 0


def test_a_used_up_window_and_a_refusal_stand_out_from_mere_use() -> None:
    def png(share: float, refused: int) -> bytes:
        rows = [("TWITTER_BEARER_1", NOW - timedelta(hours=12), 9, share, refused)]
        frame = pd.DataFrame(rows, columns=["env_key", "at", "calls", "share", "refused"])
        return drawn(lambda: draw_token_use(TokenUse(frame, begins_at=NOW - DAY, ends_at=NOW, step_s=1800)))

    assert area(png(0.95, 0), palette.BLUE) > 100
    assert area(png(1.0, 0), palette.AMBER) > 100
    assert area(png(1.0, 1), palette.RUST) > 100
    assert area(png(0.95, 0), palette.AMBER) == area(png(1.0, 0), palette.BLUE) == area(png(1.0, 1), palette.AMBER) == 0


def test_markdown_shows_the_picture_at_half_its_pixels() -> None:
    png = drawn(SMALL["delays"])
    markdown = as_markdown(png, "Delays [of]\nthe watch")
    alt, _, address = markdown.partition("](")
    kind, _, svg = unquote(address.removesuffix(")")).partition(",")
    (image,) = ElementTree.fromstring(svg)

    assert alt == "![Delays \\[of\\] the watch"
    assert kind == "data:image/svg+xml"
    assert not set(" ()<>\"'") & set(address.removesuffix(")"))
    assert (int(image.attrib["width"]), int(image.attrib["height"])) == tuple(
        size // 2 for size in struct.unpack(">II", png[16:24])
    )
    assert b64decode(image.attrib["href"].removeprefix("data:image/png;base64,")) == png
    assert len(markdown) < len(png) * 1.4


def test_neither_matplotlib_nor_pandas_is_imported_before_a_chart_is_drawn() -> None:
    program = """
import sys
import twitter_pipeline.definitions, twitter_pipeline.cli, twitter_pipeline.store.charts
import twitter_pipeline.charts.calls, twitter_pipeline.charts.costs, twitter_pipeline.charts.delays
import twitter_pipeline.charts.tokens, twitter_pipeline.charts.tweets
print(*sorted({"matplotlib", "pandas", "numpy", "PIL"} & set(sys.modules)))
"""
    imported = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert imported.stdout.strip() == ""


def test_a_chart_leaves_no_trace_in_the_state_that_pyplot_shares() -> None:
    drawn(SMALL["tweets"])

    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.2, "59 s"),
        (60, "1 min"),
        (3599.7, "1 h"),
        (3700, "1 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert span_in_words(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("amount", "words"),
    [(0, "0"), (12_500, "12,500"), (100_000, "100k"), (2_500_000, "2.5M"), (0.25, "0.25"), (3e9, "3G")],
)
def test_an_amount_is_told_in_few_characters(amount: float, words: str) -> None:
    assert compact(amount) == words


@pytest.mark.parametrize(("usd", "words"), [(0, "$0.00"), (0.005, "$0.005"), (0.25, "$0.25"), (1234.567, "$1,234.57")])
def test_small_amounts_of_money_are_told_to_the_tenth_of_a_cent(usd: float, words: str) -> None:
    assert dollars(usd) == words


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    assert shortened("TWITTER_BEARER_OF_THE_LAB", 12) == "TWITTE…E_LAB"
    assert shortened("TWITTER_BEARER_1", 16) == "TWITTER_BEARER_1"


def test_names_with_numbers_go_by_them() -> None:
    assert sorted(["T_10", "T_2", "T_A", "T"], key=in_order) == ["T", "T_2", "T_10", "T_A"]


@pytest.mark.parametrize(
    ("step", "begin", "end"),
    [
        ("hour", datetime(2026, 12, 31, 23, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        ("week", datetime(2026, 11, 2, tzinfo=UTC), datetime(2026, 11, 9, tzinfo=UTC)),
        ("month", datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        ("month", datetime(2028, 2, 1, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)),
    ],
)
def test_a_bar_ends_where_the_next_begins(step: str, begin: datetime, end: datetime) -> None:
    assert step_after(begin, step) == end  # type: ignore[arg-type]
