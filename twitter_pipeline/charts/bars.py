"""Bars on a time axis or side by side, stacked; each colour is one shape, however many bars it has."""
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twitter_pipeline.charts.canvas import SCALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GAP_FROM_PX = 5
"""Bars that are narrower stand without a gap between them."""


def stack_bars(
    axes: Axes,
    edges: Sequence[tuple[float, float]],
    layers: Sequence[tuple[str, Sequence[float]]],
    *,
    alpha: float = 1.0,
) -> float:
    """Draw stacked bars, the first layer (colour, heights) lowest; return the height of the highest bar.

    `edges` are the left and right of each bar on the axis, whose limits must be set.
    """
    from matplotlib.collections import PolyCollection

    gap = _gap(axes, edges)
    floors = [0.0] * len(edges)
    for colour, heights in layers:
        shapes = [
            ((left + gap, floor), (left + gap, floor + height), (right - gap, floor + height), (right - gap, floor))
            for (left, right), floor, height in zip(edges, floors, heights, strict=True)
            if height
        ]
        # Without smoothing: the seams between neighbours would show.
        axes.add_collection(
            PolyCollection(shapes, facecolors=colour, alpha=alpha, linewidths=0, antialiased=False), autolim=False
        )
        floors = [floor + height for floor, height in zip(floors, heights, strict=True)]
    return max(floors, default=0.0)


def _gap(axes: Axes, edges: Sequence[tuple[float, float]]) -> float:
    left, right = axes.get_xlim()
    pixel = (right - left) / (axes.get_window_extent().width / SCALE)
    narrowest = min(right - left for left, right in edges)
    return 0.0 if narrowest < _GAP_FROM_PX * pixel else min(narrowest * 0.12, 3 * pixel)
