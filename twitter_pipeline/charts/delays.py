"""How soon the watch stored what tracked accounts wrote."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pandas' stubs leave the types of a row's values open.

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil, floor
from typing import TYPE_CHECKING

from twitter_pipeline.charts.bars import stack_bars
from twitter_pipeline.charts.canvas import (
    AXIS_BOTTOM,
    AXIS_LEFT,
    AXIS_RIGHT,
    HEADING,
    KEY_ROW,
    KeyEntry,
    Sheet,
    dates,
    points,
    span_in_words,
    time_axis,
)
from twitter_pipeline.charts.palette import BLUE, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

_HEIGHT = 260
_FAINT = 0.4
_HOUR = timedelta(hours=1)
_TICKS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)


def draw_delays(delays: DataFrame, *, promise: timedelta) -> bytes | None:
    """Draw the median and the 95 % of the delay by the hour of storing, as a PNG; None when no tweet was stored.

    Columns: `at` (the hour's begin, UTC), `tweets`, `median_s`, `p95_s`. `promise` is drawn as a line.
    """
    if delays.empty:
        return None
    rows = [
        (at.to_pydatetime(), int(tweets), float(median_s), float(p95_s))
        for at, tweets, median_s, p95_s in delays.sort_values("at")[["at", "tweets", "median_s", "p95_s"]].itertuples(
            index=False
        )
    ]
    begins: list[datetime] = [at for at, *_ in rows]
    edges = list(zip(dates(begins), dates([begin + _HOUR for begin in begins]), strict=True))
    tweets = sum(tweets for _, tweets, *_ in rows)
    top = HEADING + KEY_ROW + 12
    sheet = Sheet(_HEIGHT)
    sheet.head(
        "Delay from a tweet to its row, per hour",
        f"{tweets:,} tweet{'' if tweets == 1 else 's'} of tracked accounts, stored {begins[0]:%Y-%m-%d %H:%M} "
        f"to {begins[-1] + _HOUR:%Y-%m-%d %H:%M} (UTC)",
    )
    sheet.key_row(
        [
            KeyEntry(BLUE, "half of the tweets sooner"),
            KeyEntry(BLUE, "95 % of the tweets sooner", alpha=_FAINT),
            KeyEntry(INK, f"promised: {span_in_words(promise)}", is_line=True),
        ],
        top=HEADING,
    )
    axes = sheet.axes(left=AXIS_LEFT, top=top, right=AXIS_RIGHT, bottom=_HEIGHT - AXIS_BOTTOM)
    time_axis(axes, min(begins[0], begins[-1] - 23 * _HOUR), begins[-1] + _HOUR)
    most = max(promise.total_seconds(), *(p95_s for *_, p95_s in rows))
    _delay_axis(axes, most)
    stack_bars(axes, edges, [(BLUE, [p95_s for *_, p95_s in rows])], alpha=_FAINT)
    stack_bars(axes, edges, [(BLUE, [median_s for *_, median_s, _ in rows])])
    axes.axhline(promise.total_seconds(), color=INK, linewidth=points(1.5), linestyle=(0, (4, 2)))
    return sheet.png()


def _delay_axis(axes: Axes, most_s: float) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator

    axes.set_ylim(0, most_s * 1.06 or 1)
    step_s = next((step for step in _TICKS_S if most_s / step <= 5), ceil(most_s / 5 / 86_400) * 86_400)
    ticks = [step_s * count for count in range(floor(most_s * 1.06 / step_s) + 1)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(
        FixedFormatter([span_in_words(timedelta(seconds=tick)) if tick else "0" for tick in ticks])
    )
