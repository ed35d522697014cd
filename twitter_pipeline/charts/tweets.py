"""The tweets that a run fetched, by the time they were written and by account."""
# pyright: reportUnknownMemberType=false
# pandas' stubs leave some types of columns open.

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from twitter_pipeline.charts.bars import stack_bars
from twitter_pipeline.charts.canvas import (
    AXIS_BOTTOM,
    AXIS_LEFT,
    HEADING,
    WIDTH,
    KeyEntry,
    Sheet,
    amount_axis,
    compact,
    dates,
    time_axis,
)
from twitter_pipeline.charts.palette import REST, SERIES
from twitter_pipeline.charts.series import Step, TweetCounts

if TYPE_CHECKING:
    from pandas import DataFrame

_HEIGHT = 320
_TOP = HEADING + 16
_KEY_LEFT = WIDTH - 222
_FEWEST_BARS = 14
_OTHERS = ""


def draw_tweets(counts: TweetCounts) -> bytes | None:
    """Draw how many tweets of each account were written when, as a PNG; None when there are none."""
    if counts.frame.empty:
        return None
    table = _table(counts)
    begins: list[datetime] = [moment.to_pydatetime() for moment in table.index]
    ends = [step_after(begin, counts.step) for begin in begins]
    layers = [
        (REST if username == _OTHERS else SERIES[place], [float(count) for count in table[username]])
        for place, username in enumerate(table.columns)
    ]
    sheet = Sheet(_HEIGHT)
    sheet.head(f"Tweets per {counts.step}, by account", _subtitle(counts, begins, layers))
    axes = sheet.axes(left=AXIS_LEFT, top=_TOP, right=_KEY_LEFT - 24, bottom=_HEIGHT - AXIS_BOTTOM)
    time_axis(axes, *_shown(begins[0], ends[-1], counts.step))
    most = stack_bars(axes, list(zip(dates(begins), dates(ends), strict=True)), layers)
    amount_axis(axes, most, compact)
    sheet.key_column(
        [
            KeyEntry(colour, _name(username, counts.others), f"{sum(heights):,.0f}")
            for username, (colour, heights) in zip(table.columns, layers, strict=True)
        ],
        left=_KEY_LEFT,
        top=_TOP,
    )
    return sheet.png()


def step_after(begin: datetime, step: Step) -> datetime:
    """Return when the hour, day, week or month that begins then ends."""
    if step == "month":
        return (begin + timedelta(days=31)).replace(day=1)
    return begin + {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}[step]


def _table(counts: TweetCounts) -> DataFrame:
    """Return a row for each time and a column for each account, the one with most tweets first, others last."""
    named = counts.frame.assign(username=counts.frame["username"].fillna(_OTHERS))
    table = named.pivot_table(index="at", columns="username", values="tweets", aggfunc="sum", fill_value=0).sort_index()
    totals = table.sum().to_dict()
    return table[sorted(table.columns, key=lambda username: (username == _OTHERS, -totals[username], username))]


def _shown(begin: datetime, end: datetime, step: Step) -> tuple[datetime, datetime]:
    """Return the times that the axis shows: a few bars do not fill it."""
    least = (step_after(begin, step) - begin) * _FEWEST_BARS
    spare = max(timedelta(0), least - (end - begin)) / 2
    return begin - spare, end + spare


def _subtitle(counts: TweetCounts, begins: list[datetime], layers: list[tuple[str, list[float]]]) -> str:
    total = sum(sum(heights) for _, heights in layers)
    accounts = len(layers) - (counts.others > 0) + counts.others
    pattern = {"hour": "%Y-%m-%d %H:%M", "day": "%Y-%m-%d", "week": "%Y-%m-%d", "month": "%Y-%m"}[counts.step]
    first, last = (f"{moment:{pattern}}" for moment in (begins[0], begins[-1]))
    span = first if first == last else f"{first} to {last}"
    tweets, of = ("tweet" if total == 1 else "tweets"), ("account" if accounts == 1 else "accounts")
    return f"{total:,.0f} {tweets} of {accounts:,} {of} fetched by this run, written {span} (UTC)"


def _name(username: str, others: int) -> str:
    if username == _OTHERS:
        return f"{others:,} other{'' if others == 1 else 's'}"
    return f"@{username}"
