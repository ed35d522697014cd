"""What was paid: by day, by account, by run."""
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from twitter_pipeline.charts.bars import stack_bars
from twitter_pipeline.charts.canvas import (
    AXIS_BOTTOM,
    AXIS_LEFT,
    HEADING,
    MARGIN,
    WIDTH,
    KeyEntry,
    Sheet,
    amount_axis,
    dates,
    shortened,
    time_axis,
)
from twitter_pipeline.charts.palette import AMBER, BLUE, GREEN, LAVENDER, MAGENTA, REST, STEEL
from twitter_pipeline.charts.series import ACCOUNTS

if TYPE_CHECKING:
    from pandas import DataFrame

KINDS = {
    "history": BLUE,
    "incremental": GREEN,
    "backfill": AMBER,
    "reconcile": MAGENTA,
    "import": LAVENDER,
    "without a run": STEEL,
}
"""The colours of the kinds of runs; calls without one are those of `listen`, and look-ups of people."""

_HEIGHT = 320
_TOP = HEADING + 16
_KEY_LEFT = WIDTH - 200
_FEWEST_BARS = 14
_BAR = 22
_NAMES = 140


def draw_costs_by_day(costs: DataFrame) -> bytes | None:
    """Draw dollars a UTC day by kind of run, as a PNG; None when nothing was paid.

    Columns: `at` (the day's begin, UTC), `kind` (a fetch_kind, or "without a run"), `usd`.
    """
    paid = costs[costs["usd"] > 0]
    if paid.empty:
        return None
    table = paid.pivot_table(index="at", columns="kind", values="usd", aggfunc="sum", fill_value=0).sort_index()
    begins: list[datetime] = [moment.to_pydatetime() for moment in table.index]
    day = timedelta(days=1)
    layers = [(colour, [float(usd) for usd in table[kind]]) for kind, colour in KINDS.items() if kind in table.columns]
    kinds = [kind for kind in KINDS if kind in table.columns]
    total, days = sum(sum(heights) for _, heights in layers), (begins[-1] - begins[0]) // day + 1
    sheet = Sheet(_HEIGHT)
    sheet.head(
        "Cost per day, by kind of run",
        f"{dollars(total)} from {begins[0]:%Y-%m-%d} to {begins[-1]:%Y-%m-%d} (UTC), "
        f"{dollars(total / days)} a day on average",
    )
    axes = sheet.axes(left=AXIS_LEFT, top=_TOP, right=_KEY_LEFT - 24, bottom=_HEIGHT - AXIS_BOTTOM)
    spare = max(0, _FEWEST_BARS - days) * day / 2
    time_axis(axes, begins[0] - spare, begins[-1] + day + spare)
    edges = list(zip(dates(begins), dates([begin + day for begin in begins]), strict=True))
    amount_axis(axes, stack_bars(axes, edges, layers), _label, whole=False)
    sheet.key_column(_entries(kinds, layers), left=_KEY_LEFT, top=_TOP)
    return sheet.png()


def draw_costs_by_run(costs: DataFrame) -> bytes | None:
    """Draw what each run has cost, by number, as a PNG; None when nothing was paid.

    Columns: `fetch_run_id`, `kind`, `usd`. Runs that cost nothing have no bar.
    """
    paid = costs[costs["usd"] > 0].sort_values("fetch_run_id")
    if paid.empty:
        return None
    from matplotlib.ticker import FixedFormatter, FixedLocator

    runs = [
        (int(run_id), str(kind), float(usd)) for run_id, kind, usd in paid[["fetch_run_id", "kind", "usd"]].to_numpy()
    ]
    kinds = [kind for kind in KINDS if kind in {kind for _, kind, _ in runs}]
    layers = [(KINDS[kind], [usd if of == kind else 0.0 for _, of, usd in runs]) for kind in kinds]
    total = sum(usd for _, _, usd in runs)
    sheet = Sheet(_HEIGHT)
    sheet.head(
        "Cost per run",
        f"{dollars(total)} in {len(runs):,} run{'' if len(runs) == 1 else 's'}, "
        f"{dollars(total / len(runs))} on average",
    )
    axes = sheet.axes(left=AXIS_LEFT, top=_TOP, right=_KEY_LEFT - 24, bottom=_HEIGHT - AXIS_BOTTOM)
    spare = max(0, _FEWEST_BARS - len(runs)) / 2
    axes.set_xlim(-0.5 - spare, len(runs) - 0.5 + spare)
    edges = [(place - 0.5, place + 0.5) for place in range(len(runs))]
    amount_axis(axes, stack_bars(axes, edges, layers), _label, whole=False)
    every = -(-len(runs) // 12)
    places = range(len(runs) - 1, -1, -every)
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    axes.xaxis.set_major_formatter(FixedFormatter([f"#{runs[place][0]}" for place in places]))
    sheet.key_column(_entries(kinds, layers), left=_KEY_LEFT, top=_TOP)
    return sheet.png()


def draw_costs_by_account(costs: DataFrame) -> bytes | None:
    """Draw the accounts that have cost most, as a PNG; None when nothing was paid.

    Columns: `username` (None: accounts beyond the first ones, and what was paid for none, as look-ups) and `usd`.
    """
    paid = costs[costs["usd"] > 0]
    if paid.empty:
        return None
    totals = paid[paid["username"].notna()].groupby("username")["usd"].sum().to_dict()
    ranked = sorted(((f"@{name}", float(usd)) for name, usd in totals.items()), key=lambda bar: (-bar[1], bar[0]))
    bars = [(name, usd, BLUE) for name, usd in ranked[:ACCOUNTS]]
    total = float(paid["usd"].sum())
    rest = total - sum(usd for _, usd, _ in bars)
    if dollars(rest) != dollars(0):
        bars.append(("all the rest", rest, REST))
    top, bottom = HEADING + 6, HEADING + 6 + len(bars) * _BAR
    sheet = Sheet(bottom + MARGIN)
    sheet.head("Cost by account", f"{dollars(total)} in all; all the rest are other accounts, look-ups and searches")
    longest = max(usd for _, usd, _ in bars)
    # The numbers stand at the ends of the bars, so there is no axis.
    left, right = _NAMES, WIDTH - 90
    axes = sheet.axes(left=left, top=top, right=right, bottom=bottom)
    axes.set_axis_off()
    axes.set_xlim(0, longest)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.barh(range(len(bars)), [usd for _, usd, _ in bars], color=[colour for *_, colour in bars], height=0.7)
    for place, (name, usd, _) in enumerate(bars):
        y = top + (place + 0.5) * _BAR
        sheet.write(left - 8, y, shortened(name, 18), align="right")
        sheet.write(left + (right - left) * usd / longest + 8, y, dollars(usd))
    return sheet.png()


def dollars(usd: float) -> str:
    """Write an amount of money: prices have three decimals, so small amounts show them."""
    return f"${usd:,.2f}" if usd >= 1 or round(usd, 2) == round(usd, 3) else f"${usd:.3f}"


def _label(usd: float) -> str:
    return dollars(usd).removesuffix(".00")


def _entries(kinds: Sequence[str], layers: Sequence[tuple[str, Sequence[float]]]) -> list[KeyEntry]:
    return [
        KeyEntry(colour, kind, dollars(sum(heights))) for kind, (colour, heights) in zip(kinds, layers, strict=True)
    ]
