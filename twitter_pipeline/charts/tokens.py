"""How much of their windows the tokens used."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pandas' stubs leave the types of groups and rows open.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from twitter_pipeline.charts.canvas import (
    HEADING,
    KEY_ROW,
    MARGIN,
    SMALL_SIZE,
    WIDTH,
    KeyEntry,
    Sheet,
    dates,
    in_order,
    shortened,
    time_axis,
)
from twitter_pipeline.charts.palette import AMBER, BLUE, INK, RUST
from twitter_pipeline.charts.series import TokenUse
from twitter_pipeline.settings import BEARER_PREFIX

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

TOKENS = 40
"""So many tokens have a line of their own, those with the most calls."""

USED_UP = 0.995
"""From this share on a window counts as used up: nobody would wait for what is left."""

_SHADES = ((0.0, 0.25, "below 25 %"), (0.25, 0.5, "from 25 %"), (0.5, 0.75, "from 50 %"), (0.75, 1.0, "from 75 %"))
"""From which share on a step is shown how strongly. Steps, as nobody can read a continuous scale."""

_LEFT = 170
_LANE = 22
_NUMBERS = 100


@dataclass(frozen=True, slots=True)
class _Token:
    env_key: str
    calls: int
    steps: tuple[tuple[datetime, float, int], ...]
    """Times, the share that was used, and refusals."""


def draw_token_use(use: TokenUse) -> bytes | None:
    """Draw a line of time for each token, darker where more of its limit was used, as a PNG; None without tokens.

    Of its endpoints the one counts that was used up most, as that is what work waits for.
    """
    tokens = _tokens(use.frame)
    if not tokens:
        return None
    shown = sorted(sorted(tokens, key=lambda token: -token.calls)[:TOKENS], key=lambda token: tokens.index(token))
    top = HEADING + KEY_ROW + 28
    bottom = top + len(shown) * _LANE
    sheet = Sheet(bottom + 34)
    sheet.head("Use of the tokens' limits", _subtitle(use, tokens, len(shown)))
    sheet.key_row(_key(shown), top=HEADING)
    axes = sheet.axes(left=_LEFT, top=top, right=WIDTH - _NUMBERS, bottom=bottom)
    axes.set_ylim(len(shown), 0)
    axes.yaxis.set_visible(False)
    axes.grid(visible=False)
    time_axis(axes, use.begins_at, use.ends_at)
    _draw(axes, shown, timedelta(seconds=use.step_s), use.begins_at)
    for place, token in enumerate(shown):
        y = top + (place + 0.5) * _LANE
        sheet.write(MARGIN, y, shortened(token.env_key.removeprefix(BEARER_PREFIX), 20), size=SMALL_SIZE)
        sheet.write(WIDTH - MARGIN, y, f"{token.calls:,}", size=SMALL_SIZE, align="right")
    # Said once: it is the beginning of every name.
    sheet.write(MARGIN, top - 12, BEARER_PREFIX, size=SMALL_SIZE)
    sheet.write(WIDTH - MARGIN, top - 12, "calls", size=SMALL_SIZE, align="right")
    return sheet.png()


def _tokens(frame: DataFrame) -> list[_Token]:
    found: list[_Token] = []
    for env_key, rows in sorted(frame.groupby("env_key"), key=lambda group: in_order(str(group[0]))):
        sent = rows[rows["at"].notna()]
        steps = sent[["at", "share", "refused"]].fillna({"share": 0.0}).itertuples(index=False)
        found.append(
            _Token(
                str(env_key),
                int(sent["calls"].sum()),
                tuple((at.to_pydatetime(), float(share), int(refused)) for at, share, refused in steps),
            )
        )
    return found


def _draw(axes: Axes, tokens: Sequence[_Token], step: timedelta, begins_at: datetime) -> None:
    from matplotlib.collections import PolyCollection

    # A faint lane, so that a token that did nothing can be seen.
    axes.hlines(
        [place + 0.5 for place in range(len(tokens))],
        *axes.get_xlim(),
        colors=INK,
        alpha=0.35,
        zorder=0,
        linewidths=0.75,
    )
    boxes: dict[tuple[str, float], list[Sequence[tuple[float, float]]]] = {}
    for place, token in enumerate(tokens):
        lefts = dates([max(at, begins_at) for at, *_ in token.steps])
        rights = dates([at + step for at, *_ in token.steps])
        for (_, share, refused), left, right in zip(token.steps, lefts, rights, strict=True):
            low, high = place + 0.18, place + 0.82
            shape = ((left, low), (left, high), (right, high), (right, low))
            boxes.setdefault(_look(share, refused), []).append(shape)
    for (colour, alpha), shapes in boxes.items():
        axes.add_collection(
            PolyCollection(shapes, facecolors=colour, alpha=alpha, linewidths=0, antialiased=False), autolim=False
        )


def _look(share: float, refused: int) -> tuple[str, float]:
    if refused:
        return RUST, 1.0
    if share >= USED_UP:
        return AMBER, 1.0
    return BLUE, next(alpha for least, alpha, _ in reversed(_SHADES) if share >= least)


def _key(tokens: Sequence[_Token]) -> list[KeyEntry]:
    entries = [KeyEntry(BLUE, words, alpha=alpha) for _, alpha, words in _SHADES]
    entries.append(KeyEntry(AMBER, "used up"))
    if any(refused for token in tokens for *_, refused in token.steps):
        entries.append(KeyEntry(RUST, "refused (429)"))
    return entries


def _subtitle(use: TokenUse, tokens: Sequence[_Token], shown: int) -> str:
    calls = sum(token.calls for token in tokens)
    told = f"{calls:,} calls with {len(tokens):,} token{'' if len(tokens) == 1 else 's'}"
    if shown < len(tokens):
        told += f" (the {shown:,} with most calls are drawn)"
    return f"{told}, from {use.begins_at:%Y-%m-%d %H:%M} to {use.ends_at:%Y-%m-%d %H:%M} UTC"
