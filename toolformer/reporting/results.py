"""In: the content of a metrics.json. Out: figures of results, controls, scaling and false calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolformer.reporting.tables import DECODINGS, MEMORIES, SPLITS, Summary, in_order, number, split_title
from toolformer.reporting.theme import MARKERS, Theme, canvas, label_axes, label_ends
from toolformer.reporting.verdict import best_decoding, hardest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"tsa": "right tool (TSA)", "em": "whole call exactly right (EM)"}
STRATA = ("small_talk", "near_miss", "tool_missing", "parameter_missing")


def measured(summary: Summary | None, metric: str) -> tuple[float, float, float] | None:
    """(value, low, high); the interval collapses to the value where none is given."""
    value = number(summary, metric)
    if value is None:
        return None
    low, high = (number(summary, metric, part) for part in ("low", "high"))
    return value, value if low is None else low, value if high is None else high


def share_axis(axes: Axes, upper: float = 1.0) -> None:
    """An x axis of shares; ticks for the whole range or for a small one."""
    axes.set_xlim(-0.012 * upper, upper * 1.012)
    if upper == 1.0:
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axes.grid(False, axis="y")


def beside(axes: Axes, side: float, y: float, points: float, text: str, colour: str, size: float, **style: Any) -> None:
    """Text at height ``y``, some points right of the axes' left (0) or right (1) edge."""
    look: dict[str, Any] = {"ha": "center", "va": "center", "color": colour, "fontsize": size} | style
    where = axes.get_yaxis_transform()
    axes.annotate(
        text, (side, y), (points, 0), xycoords=where, textcoords="offset points", annotation_clip=False, **look
    )


def results_figure(metrics: Mapping[str, Any], metric: str, theme: Theme) -> Figure | None:
    """Splits x decodings: a filled mark for plain names, a hollow one for masked, each with its interval."""
    splits = metrics.get("splits", {})
    rows: list[tuple[str, str | None]] = []  # (split, decoding), or (split, None) for its heading
    for split in in_order(splits, SPLITS):
        names = {name: None for by_decoding in splits[split].values() for name in by_decoding}
        rows += [(split, None), *((split, name) for name in in_order(names, DECODINGS))]
    found = False
    figure, axes = canvas(theme, 0.95 + 0.27 * len(rows))
    columns = {"plain": 22, "masked": 64}  # points right of the axes
    ticks = []
    for y, (split, decoding) in enumerate(rows):
        if decoding is None:
            beside(axes, 0, y, -5, split_title(split), theme.ink, 10, ha="right", fontweight="bold")
            continue
        ticks.append((y, decoding))
        colour, marker = theme.decoding(decoding), MARKERS.get(decoding, "o")
        for variant, column in columns.items():
            summary = splits[split].get(variant, {}).get(decoding, {}).get("real")
            point = measured(summary, metric)
            if point is None:
                continue
            found = True
            value, low, high = point
            axes.plot([low, high], [y, y], color=colour, linewidth=2, alpha=0.55, solid_capstyle="butt")
            axes.plot(value, y, marker, color=colour, markersize=6.5, markeredgewidth=1.6,
                      markerfacecolor=colour if variant == "plain" else theme.paper, clip_on=False)  # fmt: skip
            beside(axes, 1, y, column, f"{value:.2f}", colour, 9.5)
    if not found:
        return None
    for variant, column in columns.items():
        beside(axes, 1, 0, column, ("\u25cf " if variant == "plain" else "\u25cb ") + variant, theme.muted, 8.5)
    axes.set_yticks([y for y, _ in ticks], [name for _, name in ticks])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    share_axis(axes)
    label_axes(axes, theme, f"{TITLES[metric]}, 95% interval")
    return figure


def control_figure(metrics: Mapping[str, Any], variant: str, theme: Theme) -> Figure | None:
    """Bars per decoding on the hardest split: own, foreign and zero gists, and calls though the tool is gone."""
    split = hardest(metrics)
    by_decoding = metrics.get("splits", {}).get(split, {}).get(variant, {})
    if not any(set(memories) - {"real"} for memories in by_decoding.values()):
        return None
    words = {"real": "its gists", "foreign": "foreign gists", "zero": "zero gists", "missing": "tool removed"}
    bars: list[tuple[float, str, str, tuple[float, float, float] | None, float | None]] = []
    heads: list[tuple[float, str]] = []
    y = 0.0
    for decoding in in_order(by_decoding, DECODINGS):
        heads.append((y, decoding))
        y += 0.85
        for memory in in_order(by_decoding[decoding], MEMORIES):
            metric = "fpr" if memory == "missing" else "tsa"
            summary = by_decoding[decoding][memory]
            forced = None if memory == "missing" else number(summary, "choice")
            bars.append((y, memory, words.get(memory, memory), measured(summary, metric), forced))
            y += 0.8
        y += 0.35
    figure, axes = canvas(theme, 0.75 + 0.235 * y)
    for place, memory, _, point, forced in bars:
        if forced is not None:
            axes.plot(
                forced,
                place,
                "D",
                color=theme.ink,
                markersize=4.5,
                markerfacecolor=theme.paper,
                zorder=4,
                clip_on=False,
            )
        if point is None:
            axes.text(0.01, place, "not measured", color=theme.muted, fontsize=8.5, va="center")
            continue
        value, low, high = point
        colour, gone = theme.memory(memory), memory == "missing"
        axes.barh(place, value, height=0.62, color=theme.paper if gone else colour, edgecolor=colour,
                  hatch="////" if gone else None, linewidth=1)  # fmt: skip
        axes.plot([low, high], [place, place], color=theme.ink, linewidth=1.2, solid_capstyle="butt")
        text = f"{value:.2f}" + (" call anyway" if gone else "")
        end = max(high, value, -1 if forced is None else forced + 0.012)
        axes.text(end + 0.012, place, text, color=theme.ink, fontsize=9, va="center",
                  bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 0.6})  # fmt: skip
    for place, decoding in heads:
        beside(axes, 0, place, -5, decoding, theme.ink, 10, ha="right", fontweight="bold")
    decoding = best_decoding(by_decoding)
    chance = number(by_decoding[decoding].get("real"), "chance") if decoding else None
    axes.set_ylim(y - 0.5, -0.6)
    share_axis(axes)
    axes.set_xlim(0, 1.12)
    if chance is not None:
        axes.axvline(chance, color=theme.ink, linewidth=1.1, linestyle=(0, (4, 2)), zorder=0.9)
        axes.text(chance, 1.0, f"chance {chance:.3f}", transform=axes.get_xaxis_transform(), color=theme.ink,
                  fontsize=8.5, ha="center", va="bottom")  # fmt: skip
    axes.set_yticks([place for place, *_ in bars], [text for _, _, text, *_ in bars])
    label_axes(axes, theme, f"right tool (TSA), {variant} names, {split_title(split or '')}")
    return figure


def scaling_figure(metrics: Mapping[str, Any], theme: Theme) -> Figure | None:
    """TSA with the target among 5 to 200 tools, and false calls where it is absent."""
    points = (metrics.get("composability") or {}).get("scaling") or []
    lines = {
        "present": ("tsa", "right tool", theme.blue, "o"),
        "absent": ("fpr", "calls anyway", theme.purple, "s"),
    }
    figure, axes = canvas(theme)
    ends = []
    for key, (metric, title, colour, marker) in lines.items():
        known = [(p["tools"], measured(p.get(key), metric)) for p in points]
        found = sorted((tools, *point) for tools, point in known if point is not None)
        if not found:
            continue
        x = [f[0] for f in found]
        axes.fill_between(x, [f[2] for f in found], [f[3] for f in found], color=colour, alpha=0.2, linewidth=0)
        axes.plot(x, [f[1] for f in found], color=colour, marker=marker, markersize=5, linewidth=2)
        ends.append((x[-1], found[-1][1], f"{title} {found[-1][1]:.2f}", colour))
    if not ends:
        return None
    chances = {p["tools"]: number(p.get("present"), "chance") or 1 / p["tools"] for p in points}
    counts = sorted(chances)
    axes.plot(counts, [chances[n] for n in counts], color=theme.muted, linewidth=1.1, linestyle=(0, (4, 2)))
    ends.append((counts[-1], chances[counts[-1]], f"chance {chances[counts[-1]]:.2f}", theme.muted))
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set_ylim(-0.02, 1.04)
    label_axes(axes, theme, "tools on offer", "share of requests, 95% interval")
    label_ends(axes, ends)
    return figure


def strata_figure(metrics: Mapping[str, Any], theme: Theme) -> Figure | None:
    """False calls by kind of request that needs none, for each decoding; plain names, hardest split."""
    split = hardest(metrics)
    by_decoding = metrics.get("splits", {}).get(split, {}).get("plain", {})
    names = [name for name in in_order(by_decoding, DECODINGS) if by_decoding[name].get("real")]
    strata = [s for s in STRATA if any(number(by_decoding[n]["real"], f"fpr_{s}") is not None for n in names)]
    rows = [(s, s.replace("_", " "), f"fpr_{s}") for s in strata] + [("all", "all together", "fpr")]
    points = {(key, name): measured(by_decoding[name]["real"], metric) for key, _, metric in rows for name in names}
    highs = [point[2] for point in points.values() if point is not None]
    if not highs:
        return None
    upper = next((u for u in (0.1, 0.25, 0.5) if max(highs) <= u * 0.97), 1.0)
    figure, axes = canvas(theme, 0.9 + 0.21 * len(rows) * (len(names) + 0.7))
    y, ticks = 0.0, []
    for key, title, _ in rows:
        ticks.append((y + (len(names) - 1) / 2, title))
        for name in names:
            point = points[key, name]
            if point is not None:
                value, low, high = point
                colour = theme.decoding(name)
                axes.plot([low, high], [y, y], color=colour, linewidth=2, alpha=0.55, solid_capstyle="butt")
                axes.plot(value, y, MARKERS.get(name, "o"), color=colour, markersize=6, clip_on=False)
                beside(axes, 1, y, 8, f"{value:.3f} {name}", colour, 9, ha="left")
            y += 1
        y += 0.7
    axes.set_yticks([place for place, _ in ticks], [title for _, title in ticks])
    axes.set_ylim(y - 1, -0.7)
    share_axis(axes, upper)
    label_axes(axes, theme, f"calls where none is wanted (FPR), {split_title(split or '')}, 95% interval")
    return figure


def result_figures(metrics: Mapping[str, Any], theme: Theme) -> Mapping[str, Figure]:
    """All figures of the evaluation, by file name."""
    out = {
        "results-tsa": results_figure(metrics, "tsa", theme),
        "results-em": results_figure(metrics, "em", theme),
        "controls-masked": control_figure(metrics, "masked", theme),
        "controls-plain": control_figure(metrics, "plain", theme),
        "scaling": scaling_figure(metrics, theme),
        "false-calls": strata_figure(metrics, theme),
    }
    return {name: figure for name, figure in out.items() if figure is not None}
