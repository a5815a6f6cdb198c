"""In: a light or dark theme. Out: figures and axes in the report's one look, and finished PNGs.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; every line also carries a marker or a label.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 5.4, 3.3  # inches; at this size the text stays readable on a phone
MARKERS = {"free": "o", "constrained": "s", "pointed": "D"}


@dataclass(frozen=True)
class Theme:
    """The colours of one theme by what they stand for."""

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    blue: str
    orange: str
    green: str
    red: str
    purple: str
    grey: str
    ramp: tuple[str, str] = field(default=("#9fd3f0", "#08306b"))

    def decoding(self, name: str) -> str:
        """The colour of a decoding."""
        return {"free": self.orange, "constrained": self.green, "pointed": self.blue}.get(name, self.grey)

    def memory(self, name: str) -> str:
        """The colour of a memory."""
        return {"real": self.blue, "foreign": self.red, "zero": self.grey, "missing": self.purple}.get(name, self.muted)

    def series(self) -> tuple[str, ...]:
        """Colours of lines that have no fixed meaning."""
        return (self.blue, self.red, self.green, self.purple, self.orange, self.grey)


LIGHT = Theme(
    "light",
    "#ffffff",
    "#1b2330",
    "#566274",
    "#e4e8ee",
    "#0072b2",
    "#d08a00",
    "#008f68",
    "#c94f00",
    "#a8518a",
    "#7d8794",
)
DARK = Theme(
    "dark", "#161b23", "#e8ecf2", "#a3adbb", "#2c3440",
    "#56b4e9", "#f0b63a", "#35c79d", "#ff8f5c", "#e19ac6", "#8d97a5", ("#2b5f86", "#c8ecff"),
)  # fmt: skip


def canvas(theme: Theme, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """An empty figure with one axes, styled."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), facecolor=theme.paper, layout="constrained")
    axes = figure.add_subplot(facecolor=theme.paper)
    axes.tick_params(colors=theme.muted, labelsize=9.5, length=0, pad=5)
    axes.grid(True, color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.muted)
        spine.set_linewidth(0.8)
    return figure, axes


def label_axes(axes: Axes, theme: Theme, x: str, y: str = "") -> None:
    """Axis titles in the report's text size; the y title stands over the axis, upright. Steps are whole numbers."""
    if x.startswith("step"):
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.set_xlabel(x, color=theme.muted, fontsize=9.5)
    if y:
        axes.set_title(y, color=theme.muted, fontsize=9.5, loc="left", pad=8)


def spread(places: list[float], gap: float) -> list[float]:
    """The places, moved apart as little as needed so that neighbours lie at least ``gap`` from each other.

    >>> [round(x, 2) for x in spread([1.0, 1.0, 5.0], 0.5)]
    [0.75, 1.25, 5.0]
    """
    order = sorted(range(len(places)), key=places.__getitem__)
    groups: list[tuple[float, int]] = []  # (middle, members) of runs of touching labels
    for index in order:
        middle, members = places[index], 1
        while groups and middle - groups[-1][0] < gap * (members + groups[-1][1]) / 2:
            last, count = groups.pop()
            middle = (middle * members + last * count) / (members + count)
            members += count
        groups.append((middle, members))
    flat = [middle + gap * (i - (members - 1) / 2) for middle, members in groups for i in range(members)]
    out = [0.0] * len(places)
    for index, place in zip(order, flat, strict=True):
        out[index] = place
    return out


def label_ends(axes: Axes, ends: list[tuple[float, float, str, str]], size: float = 9.5) -> None:
    """Write (x, y, text, colour) to the right of the axes, beside the ends of lines, without overlap."""
    if not ends:
        return
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((x, y))[1]) for x, y, _, _ in ends]
    tall = axes.get_window_extent().height / axes.figure.dpi * 72  # points, before the layout is made
    gap = size * 1.25 / tall
    places = spread(heights, gap)
    order = sorted(range(len(places)), key=places.__getitem__)
    for rank, index in enumerate(order):  # none below the axis, where the ticks are
        places[index] = max(places[index], 0.02 + rank * gap)
    for (_, _, text, colour), height in zip(ends, places, strict=True):
        axes.annotate(
            text, (1, height), xycoords="axes fraction", xytext=(7, 0), textcoords="offset points",
            color=colour, fontsize=size, va="center", annotation_clip=False,
        )  # fmt: skip


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes, sharp on a phone's screen; 128 colours are plenty and a third of the size."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(180)
    drawn = FigureCanvasAgg(figure)
    drawn.draw()
    picture = Image.fromarray(np.asarray(drawn.buffer_rgba())[..., :3]).quantize(128, dither=Image.Dither.NONE)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
