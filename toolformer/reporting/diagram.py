"""In: a file name. Out: the picture of the architecture, as SVG or PNG.

Run as ``python -m toolformer.reporting.diagram architecture.svg``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolformer.reporting.theme import LIGHT, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 100.0, 46.0  # units of the drawing; 10 units are an inch
TOOLS = (
    ("book_train_ticket", "origin, destination, date", "blue"),
    ("get_ticket_price", "origin, destination", "red"),
    ("cancel_ticket", "ticket_id", "green"),
)


def box(axes: Axes, x: float, y: float, width: float, height: float, edge: str, face: str, line: float = 1.4) -> None:
    """A rounded box with its lower left corner at (x, y)."""
    from matplotlib.patches import FancyBboxPatch

    style = f"round,pad=0,rounding_size={min(0.9, width / 4)}"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, edgecolor=edge, facecolor=face, linewidth=line)
    )


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    """A straight arrow."""
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
    axes.annotate("", end, start, arrowprops=style)


def write(axes: Axes, x: float, y: float, text: str, colour: str, size: float = 10, **style: Any) -> None:
    """Text, centred unless told otherwise."""
    look: dict[str, Any] = {"ha": "center", "va": "center"} | style
    axes.text(x, y, text, color=colour, fontsize=size, **look)


def draw_tools(axes: Axes, theme: Theme) -> None:
    """Schemas on the left, the shared encoder, and K gists per tool."""
    tint = {"blue": "#e3f1fa", "red": "#fbe9de", "green": "#e0f3ec"}
    box(axes, 29.5, 19.5, 12, 24, theme.muted, "#f3f5f8")
    write(axes, 35.5, 34.0, "encoder", theme.ink, 11.5, fontweight="bold")
    write(axes, 35.5, 30.3, "one schema\nat a time", theme.muted, 9)
    for index, (name, parameters, key) in enumerate(TOOLS):
        colour, y = getattr(theme, key), 37.5 - 9 * index
        box(axes, 1, y, 23.5, 6, colour, tint[key])
        write(axes, 2.2, y + 4.0, name, theme.ink, 9.5, ha="left", family="monospace", fontweight="bold")
        write(axes, 2.2, y + 1.7, parameters, theme.muted, 8.5, ha="left", family="monospace")
        arrow(axes, (24.9, y + 3), (29.2, y + 3), colour)
        arrow(axes, (41.9, y + 3), (46.0, y + 3), colour)
        for place in range(8):
            box(axes, 46.6 + 1.9 * place, y + 1.2, 1.35, 3.6, colour, colour, 0.5)
    write(axes, 12.7, 45.0, "tool schemas", theme.muted, 9.5)
    write(axes, 54.1, 45.0, "K = 8 gists each, cached", theme.muted, 9.5)


def draw_decoder(axes: Axes, theme: Theme) -> None:
    """One decoder layer with its gated cross-attention; the request enters below, the call leaves on the right."""
    box(axes, 68, 6.2, 29.5, 37.3, theme.muted, "#f3f5f8")
    write(axes, 82.7, 45.0, "decoder, each layer", theme.muted, 9.5)
    box(axes, 71, 9.0, 23.5, 5.2, theme.muted, theme.paper)
    write(axes, 82.7, 11.6, "self-attention", theme.ink, 10.5)
    box(axes, 71, 20.2, 23.5, 9.6, theme.purple, "#f6e9f1", 1.8)
    write(axes, 82.7, 26.9, "gated cross-attention", theme.ink, 10.5, fontweight="bold")
    write(axes, 82.7, 22.9, r"$h + \tanh(g)\,\mathrm{Attn}(h,\,\mathrm{gists})$", theme.ink, 10.5)
    box(axes, 71, 35.4, 23.5, 5.2, theme.muted, theme.paper)
    write(axes, 82.7, 38.0, "MLP", theme.ink, 10.5)
    arrow(axes, (82.7, 14.4), (82.7, 19.9), theme.muted)
    arrow(axes, (82.7, 30.0), (82.7, 35.1), theme.muted)
    for index, (_, _, key) in enumerate(TOOLS):
        arrow(axes, (62.0, 40.5 - 9 * index), (70.6, 27.2 - 2.2 * index), getattr(theme, key))
    write(axes, 83.9, 17.2, "g starts at 0", theme.muted, 8.5, ha="left")


def draw_request(axes: Axes, theme: Theme) -> None:
    """The request, and the call that answers it."""
    box(axes, 1, 9.2, 53, 4.8, theme.muted, theme.paper)
    write(axes, 2.2, 11.6, "\u201cbook a train ticket from Bath to York for Monday\u201d", theme.ink, 9.5, ha="left")
    arrow(axes, (54.4, 11.6), (70.6, 11.6), theme.muted)
    write(axes, 1, 15.4, "request", theme.muted, 9.5, ha="left")
    call = '{"name": "book_train_ticket", "arguments": {"origin": "Bath", "destination": "York", "date": "Monday"}}'
    box(axes, 1, 0.6, 96.5, 3.6, theme.blue, "#e3f1fa")
    write(axes, 49.2, 2.4, call, theme.ink, 9, family="monospace")
    arrow(axes, (82.7, 6.1), (82.7, 4.4), theme.blue)
    write(axes, 1, 5.4, "call", theme.muted, 9.5, ha="left")


def draw(path: Path, theme: Theme = LIGHT) -> None:
    """Writes the picture; the file's suffix, .svg or .png, says in which form."""
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"{path}: the suffix is {path.suffix!r}; name an .svg or a .png file")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "toolformer", "mathtext.fontset": "dejavusans"}):
        figure = Figure(figsize=(WIDTH / 10, HEIGHT / 10), facecolor=theme.paper)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0, WIDTH - 1.5), ylim=(0, HEIGHT))
        axes.axis("off")
        draw_tools(axes, theme)
        draw_decoder(axes, theme)
        draw_request(axes, theme)
        stamp = {"Date": None} if path.suffix == ".svg" else {"Software": None}  # the same bytes every time
        figure.savefig(path, dpi=160, facecolor=theme.paper, metadata=stamp)


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "architecture.svg"))
