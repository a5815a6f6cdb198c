"""In: the logs of a run's stages. Out: figures of losses, validation, gates and gist statistics over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolformer.reporting.loading import Series, StageLog
from toolformer.reporting.theme import Theme, canvas, label_axes, label_ends

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = {
    "loss": "total",
    "call": "next token",
    "rebuild": "auto-encoding",
}


def smooth(series: Series, share: float = 0.03) -> Series:
    """An exponential moving average over about ``share`` of the series, unbiased at its start.

    >>> smooth([(0, 2.0), (1, 2.0)])
    [(0, 2.0), (1, 2.0)]
    """
    keep = 1 - 1 / max(1.0, share * len(series))
    mean = weight = 0.0
    out: Series = []
    for step, value in series:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        out.append((step, mean / weight))
    return out


def loss_parts(stage: StageLog) -> dict[str, Series]:
    """The stage's logged losses by name, the total first; a part equal to the total is left out."""
    parts = {name.removeprefix("train/"): s for name, s in stage.columns.items() if name.startswith("train/") and s}
    parts = {name: s for name, s in parts.items() if len(s) > 1}
    total = parts.get("loss")
    out = {"loss": total} if total else {}
    return out | {name: s for name, s in parts.items() if s is not total and s != total}


def plot_line(axes: Axes, series: Series, colour: str, **style: Any) -> None:
    """One line of (step, value)."""
    axes.plot([x for x, _ in series], [y for _, y in series], color=colour, solid_capstyle="round", **style)


def loss_figure(stage: StageLog, theme: Theme) -> Figure | None:
    """Loss parts of one stage: faint as logged, strong as a moving average, named at their ends."""
    parts = loss_parts(stage)
    if not parts:
        return None
    figure, axes = canvas(theme)
    ends = []
    colours = {"loss": theme.ink}
    others = iter(theme.series() * 3)
    top = 0.0
    for name, series in parts.items():
        colour = colours.get(name) or next(others)
        smoothed = smooth(series)
        plot_line(axes, series, colour, linewidth=0.7, alpha=0.28)
        plot_line(axes, smoothed, colour, linewidth=2.2 if name == "loss" else 1.7)
        # the first few steps are far above the rest and would flatten all that is of interest
        top = max(top, *(y for _, y in smoothed[len(smoothed) // 25 :]))
        title = PARTS.get(name, name.replace("_", " "))
        ends.append((*smoothed[-1], f"{title} {smoothed[-1][1]:.2f}", colour))
    if checked := stage.columns.get("validation/loss"):
        plot_line(axes, checked, theme.ink, linewidth=0, marker="o", markersize=4, markerfacecolor=theme.paper)
        ends.append((*checked[-1], f"validation {checked[-1][1]:.2f}", theme.muted))
    axes.set_ylim(min(0.0, *(y for s in parts.values() for _, y in s)), top * 1.08 or 1.0)
    axes.margins(x=0.01)
    label_axes(axes, theme, "step", "training loss")
    label_ends(axes, ends)
    return figure


def validation_figure(stage: StageLog, theme: Theme) -> Figure | None:
    """Validation TSA and EM of one stage's generated answers; in stage 1.5 how often the nearest gists are right."""
    names = {
        "tsa": ("right tool", theme.blue, "o"),
        "em": ("exact", theme.red, "s"),
        "nearest": ("nearest tool", theme.green, "D"),
    }
    found = {key: stage.columns[f"validation/{key}"] for key in names if stage.columns.get(f"validation/{key}")}
    if not found:
        return None
    figure, axes = canvas(theme)
    ends = []
    for key, series in found.items():
        title, colour, marker = names[key]
        plot_line(axes, series, colour, linewidth=2, marker=marker, markersize=4.5)
        ends.append((*series[-1], f"{title} {series[-1][1]:.2f}", colour))
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.margins(x=0.02)
    label_axes(axes, theme, "step", "share of validation requests")
    label_ends(axes, ends)
    return figure


def joined(stages: Sequence[StageLog], prefix: str) -> tuple[dict[str, Series], list[tuple[float, str]]]:
    """Columns that start with ``prefix``, the stages laid end to end; and where each stage starts."""
    lines: dict[str, Series] = {}
    starts: list[tuple[float, str]] = []
    offset = 0.0
    for stage in stages:
        starts.append((offset, stage.title))
        for name, series in stage.columns.items():
            if name.startswith(prefix):
                lines.setdefault(name.removeprefix(prefix), []).extend((x + offset, y) for x, y in series)
        offset += stage.steps
    return {name: lines[name] for name in sorted(lines)}, starts


def mark_stages(axes: Axes, theme: Theme, starts: Sequence[tuple[float, str]], end: float) -> None:
    """A thin line where each stage begins, with as much of its name as there is room for."""
    for index, (start, title) in enumerate(starts):
        stop = starts[index + 1][0] if index + 1 < len(starts) else end
        if index:
            axes.axvline(start, color=theme.muted, linewidth=0.8, linestyle=(0, (2, 2)))
        if len(starts) > 1:
            room = (stop - start) / (end or 1) / 0.0165  # characters
            text = next((t for t in (title, title.split()[-1]) if len(t) <= room), str(index + 1))
            axes.annotate(
                text, (start, 1), xycoords=("data", "axes fraction"), xytext=(4, -4), textcoords="offset points",
                color=theme.muted, fontsize=8.5, va="top",
            )  # fmt: skip


def gates_figure(stages: Sequence[StageLog], theme: Theme) -> Figure | None:
    """One line per decoder layer through all stages; shallow layers pale, deep ones dark."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    lines, starts = joined(stages, "gate/")
    if not lines:
        return None
    figure, axes = canvas(theme)
    ramp = LinearSegmentedColormap.from_list("layers", theme.ramp)
    ends = []
    for index, (name, series) in enumerate(lines.items()):
        colour = to_hex(ramp(index / max(1, len(lines) - 1)))
        plot_line(axes, series, colour, linewidth=1.8)
        ends.append((*series[-1], f"layer {int(name.rsplit('_', 1)[-1])}", colour))
    axes.axhline(0, color=theme.muted, linewidth=0.8)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.14 * (high - low))
    axes.margins(x=0.01)
    label_axes(axes, theme, "step, all stages", "gate: how far each layer lets the gists in")
    mark_stages(axes, theme, starts, sum(stage.steps for stage in stages))
    label_ends(axes, ends, size=8.5 if len(ends) <= 10 else 7.5)
    return figure


def gist_figure(stages: Sequence[StageLog], theme: Theme) -> Figure | None:
    """How alike the gists of different tools are: 1 means that all tools look the same."""
    lines, starts = joined(stages, "gist/cosine")
    if not lines:
        return None
    series = next(iter(lines.values()))
    figure, axes = canvas(theme, 2.8)
    plot_line(axes, series, theme.blue, linewidth=0.7, alpha=0.3)
    smoothed = smooth(series, 0.01)
    plot_line(axes, smoothed, theme.blue, linewidth=2)
    axes.set_ylim(min(0.0, *(y for _, y in series)) - 0.02, 1.2)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.margins(x=0.01)
    label_axes(axes, theme, "step, all stages", "mean cosine between the gists of different tools")
    mark_stages(axes, theme, starts, sum(stage.steps for stage in stages))
    label_ends(axes, [(*smoothed[-1], f"{smoothed[-1][1]:.2f}", theme.blue)])
    return figure


def training_figures(stages: Sequence[StageLog], theme: Theme) -> Mapping[str, Figure]:
    """All figures of the training, by file name."""
    out: dict[str, Figure | None] = {}
    for index, stage in enumerate(stages, start=1):
        out[f"loss-{index}-{stage.name}"] = loss_figure(stage, theme)
        out[f"validation-{index}-{stage.name}"] = validation_figure(stage, theme)
    out["gates"] = gates_figure(stages, theme)
    out["gists"] = gist_figure(stages, theme)
    return {name: figure for name, figure in out.items() if figure is not None}
