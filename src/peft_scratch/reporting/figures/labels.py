"""Labels that cover neither a point nor each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from peft_scratch.reporting.figures.style import GREY, note

#: x, y of one end and of the other, in data coordinates.
Line = tuple[float, float, float, float]

_WAYS = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))
_ALIGN_X = {1: "left", 0: "center", -1: "right"}
_ALIGN_Y = {1: "bottom", 0: "center", -1: "top"}
_DISTANCES = (9, 13, 18, 26, 38, 52)  # points
_MARKER = 6.5  # half the side of the square that a marker fills, in points
#: From this distance on a thin line joins the label and its point.
_LEADER = 16


def place_labels(
    ax: Axes,
    points: Sequence[tuple[float, float, str, str]],
    markers: Sequence[tuple[float, float]],
    bars: Iterable[Line] = (),
    lines: Iterable[Line] = (),
) -> list[Annotation]:
    """Write a label beside each point, so that none covers a point or another label.

    Each label takes the free place around its point that covers the fewest error bars and lines and is the
    nearest. A distant label gets a thin line to its point. This line is never vertical, or it would look like
    a part of the error bar.

    Args:
        points: (x, y, text, colour).
        markers: (x, y) of every marker, also of those without a label.
        bars: error bars, which a label should not cover.
        lines: other lines, which a label should not cover either.

    Returns:
        The texts, in the order of `points`.
    """
    figure = ax.figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the layout, and with it every position, is known from here on
    figure.set_layout_engine("none")
    renderer, scale = canvas.get_renderer(), figure.dpi / 72
    half = _MARKER * scale
    squares = {
        place: Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half)
        for place, (x, y) in zip(markers, ax.transData.transform(markers), strict=True)
    }
    boxes = [_box(ax, line, scale) for line in bars], [_box(ax, line, scale) for line in lines]
    texts, taken = [], list(squares.values())
    for x, y, words, colour in points:
        text = ax.annotate(
            words, (x, y), (0, 0), textcoords="offset points", fontsize=7.5, color=colour, zorder=5
        )
        texts.append(text)
        best = _best_place(
            ax, text, renderer, taken, boxes, [box for place, box in squares.items() if place != (x, y)]
        )
        if best is None:
            continue
        distance, (right, up) = best
        _put(text, distance, right, up)
        taken.append(text.get_window_extent(renderer).padded(1.5))
        if distance > _LEADER:
            ax.annotate(
                "",
                *((x, y), text.get_position()),
                xycoords="data",
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.4, "shrinkA": 1, "shrinkB": 6},
            )
    return texts


def _box(ax: Axes, line: Line, scale: float) -> Bbox:
    return Bbox(ax.transData.transform([line[:2], line[2:]])).padded(1.5 * scale)


def _put(text: Annotation, distance: float, right: int, up: int) -> None:
    text.set_position((right * distance, up * distance))
    text.set(ha=_ALIGN_X[right], va=_ALIGN_Y[up])


def _best_place(
    ax: Axes,
    text: Annotation,
    renderer: Any,
    taken: list[Bbox],
    boxes: tuple[list[Bbox], list[Bbox]],
    others: list[Bbox],
) -> tuple[int, tuple[int, int]] | None:
    """Distance and way of the cheapest free place; `None` if there is none."""
    cheapest, best = math.inf, None
    start = ax.transData.transform(text.xy)
    for distance in _DISTANCES:
        for way in _WAYS:
            if distance > _LEADER and way[0] == 0:
                continue
            _put(text, distance, *way)
            box = text.get_window_extent(renderer).padded(1.5)
            inside = ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1
            inside &= ax.bbox.y0 <= box.y0 and box.y1 <= ax.bbox.y1
            if not inside or box.count_overlaps(taken):
                continue
            leader = Bbox([start, (box.x0 if way[0] > 0 else box.x1, (box.y0 + box.y1) / 2)])
            crossed = leader.count_overlaps(others) if distance > _LEADER else 0
            bars, lines = (box.count_overlaps(group) for group in boxes)
            cost = 4 * crossed + 2.5 * bars + 1.5 * lines + distance / 5
            if cost < cheapest:
                cheapest, best = cost, (distance, way)
    return best


def label_lines(ax: Axes, lines: Sequence[tuple[float, str]], at_the_foot: Sequence[str] = ()) -> None:
    """Write the name of each horizontal line outside at its right end; labels that are close move apart.

    Args:
        lines: height and label.
        at_the_foot: labels of what lies below the axis.
    """
    foot, _ = ax.get_ylim()
    texts = [
        note(ax, text, (1, y), 4, xycoords=ax.get_yaxis_transform(), color=GREY)
        for y, text in [*((foot, text) for text in at_the_foot), *sorted(lines)]
    ]
    ax.figure.canvas.draw()  # the layout, and with it every position, is known from here on
    free = -math.inf
    for text in texts:
        wanted = ax.transData.transform((1, text.xy[1]))[1] * 72 / ax.figure.dpi
        shift = max(free - wanted, 0)
        text.set_position((4, shift))
        free = wanted + shift + 9
