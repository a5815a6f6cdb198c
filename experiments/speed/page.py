"""In: result.json, and training.json, store.json and routing.json where they lie beside. Out: tables and figures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Row = Mapping[str, Any]
Result = Mapping[str, Any]
SHORT = {"float32": "fp32", "bfloat16": "bf16"}
FLAT = 1.1  # the last tokens of an answer may take so many times what the first take, and still count as flat
QUARTER = 16  # tokens at either end of an answer
FIRST = (  # (path, what, heading)
    ("ours", "first", "ours"),
    ("ours", "first, a tool changed", "ours, a tool changed"),
    ("published", "first", "published manner"),
    ("text", "first", "text, no cache"),
    ("text", "first, prefix cached", "text, prefix cached"),
    ("text", "first, a tool changed", "text, cached, a tool changed"),
)


class Found:
    """A result, asked for single figures; None where something was not measured."""

    def __init__(self, result: Result):
        self.result, self.rows = result, result["rows"]
        self.dtypes = [d for d in SHORT if any(row["dtype"] == d for row in self.rows)]

    def row(self, path: str, dtype: str, what: str, tools: int) -> Row | None:
        """The row of one measurement."""
        wanted = (path, dtype, what, tools)
        return next((r for r in self.rows if (r["path"], r["dtype"], r["what"], r["tools"]) == wanted), None)

    def ms(self, path: str, dtype: str, what: str, tools: int) -> float | None:
        """Its median."""
        row = self.row(path, dtype, what, tools)
        return statistics.median(row["samples"]) if row is not None and "samples" in row else None

    def rate(self, dtype: str, *names: str) -> float | None:
        """The fastest of what the machine was seen to do."""
        rates = [r["rate"] for r in self.rows if r["what"] == "rate" and r["dtype"] == dtype and r["name"] in names]
        return max(rates, default=None)

    def share(self, dtype: str, what: str, tools: int, counted: str) -> float | None:
        """Counted operations or bytes of ours a second, of what the machine can do."""
        row, ms = self.row("ours", dtype, what, tools), self.ms("ours", dtype, what, tools)
        rate = self.rate(dtype, *({"flops": ("product",), "bytes": ("copy", "sum")}[counted]))
        return None if row is None or ms is None or rate is None else row[counted] / (ms / 1e3) / rate

    def sizes(self, what: str, path: str = "") -> list[int]:
        """Numbers of tools of the rows of a kind."""
        return sorted({r["tools"] for r in self.rows if r["what"] == what and path in ("", r["path"])})

    def ratio(self, slow: tuple[str, str], fast: tuple[str, str], dtype: str, tools: int) -> float | None:
        """How many times longer the slow (path, what) takes."""
        a, b = (self.ms(path, dtype, what, tools) for path, what in (slow, fast))
        return None if a is None or b is None else a / b


def quarters(row: Row) -> tuple[float, float]:
    """Milliseconds a token at the start and at the end of an answer."""
    ends = [
        [x for times in row["answers"] for x in part(times)] for part in (lambda t: t[:QUARTER], lambda t: t[-QUARTER:])
    ]
    return statistics.median(ends[0]), statistics.median(ends[1])


# --- bars -------------------------------------------------------------------------------------------------------------


def bars(result: Result, folder: Path | None = None) -> list[list[str]]:
    """Bar, target, figure, and whether it is met; all figures of a bar must meet it."""
    out = [judged(*bar) for bar in _bars(Found(result))]
    for name, (_, known) in BESIDE.items():
        path = None if folder is None else folder / f"{name}.json"
        there = path is not None and path.exists()
        measured = beside(path).bars if path is not None and there else []
        out += [[*bar, figure, "met" if met else "missed"] for *bar, figure, met in measured]
        missing = f"not in `{name}.json`" if there else f"no `{name}.json` yet"
        out += [[*bar, missing, "not measured"] for bar in known if all(bar[0] != row[0] for row in measured)]
    return out


Figures = list[tuple[str, float | None]]


def judged(bar: str, target: str, figures: Figures, meets: Callable[[float], bool], form: str) -> list[str]:
    """One line of the table.

    >>> judged("speed", ">= 2x", [("fp32", 3.0), ("bf16", 1.0)], lambda x: x >= 2, "{:.1f}x")
    ['speed', '>= 2x', 'fp32 3.0x, bf16 1.0x', 'missed']
    """
    known = [(label, value) for label, value in figures if value is not None]
    if not known:
        return [bar, target, "-", "not measured"]
    shown = ", ".join(f"{label} {form.format(value)}" for label, value in known)
    return [bar, target, shown, "met" if all(meets(value) for _, value in known) else "missed"]


def _bars(found: Found) -> Iterator[tuple[str, str, Figures, Callable[[float], bool], str]]:
    def times(
        bar: str, limit: float, path: str, what: str, tools: Sequence[int], dtypes: Sequence[str],
        form: str = "{:.0f}x", ours: str = "",
    ) -> tuple[str, str, Figures, Callable[[float], bool], str]:  # fmt: skip
        """How many times as long ``what`` takes another path as it, or ``ours``, takes ours."""
        pair = (path, what), ("ours", ours or what)
        figures = [
            (f"{SHORT[d]}{f' at {n}' if len(tools) > 1 else ''}", found.ratio(*pair, d, n))
            for d in dtypes
            for n in tools
        ]
        return bar, f">= {limit}x", figures, lambda value: value >= limit, form

    full = 20 if 20 in found.sizes("first") else found.sizes("first")[0]  # quick has other sizes
    encode = full if full in found.sizes("encode") else (found.sizes("encode") or [0])[-1]
    token = (found.sizes("token", "ours") or [0])[0]
    both = sorted({full, 200} & {r["tools"] for r in found.rows if r["path"] == "text" and "samples" in r})
    every, one = found.dtypes, "{:.1f}x"
    manner = f"encode {encode} tools vs the published manner"
    yield times(f"{manner}, fp32", 4, "published", "encode", [encode], ["float32"], one)
    yield times(f"{manner}, bf16", 10, "published", "encode", [encode], ["bfloat16"], one)
    shares = [(SHORT[d], found.share(d, "encode", encode, "flops")) for d in every]
    yield f"encode {encode} tools, share of the matrix-product rate", ">= 60%", shares, lambda x: x >= 0.6, "{:.0%}"
    bar = f"per token at {token} tools vs the published manner, fp32"
    yield times(bar, 8, "published", "token", [token], ["float32"], one)
    shares = [(SHORT[d], found.share(d, "token", token, "bytes")) for d in every]
    yield f"per token at {token} tools, share of the memory bandwidth", ">= 50%", shares, lambda x: x >= 0.5, "{:.0%}"
    rows = [(SHORT[d], found.row("ours", d, "token", token)) for d in every]
    slopes = [(label, None if row is None else quarters(row)[1] / quarters(row)[0]) for label, row in rows]
    yield "per token, last 16 of an answer over first 16", f"flat (<= {FLAT})", slopes, lambda x: x <= FLAT, "{:.2f}"
    for tools, limit in ((full, 20), (200, 100)):
        bar = f"first token at {tools} tools vs schemas as text, no cache"
        yield times(bar, limit, "text", "first", [tools], every)
    bar = "first token vs text with its prefix cached"
    yield times(bar, 1.5, "text", "first, prefix cached", both, every, one, ours="first")
    bar = "first token after a tool changed vs text with a prefix cache"
    yield times(bar, 10, "text", "first, a tool changed", both, every)
    costs = [
        (f"{SHORT[r['dtype']]} at {r['tools']}", statistics.median(r["overhead"]))
        for r in found.rows
        if r["what"] == "constrained overhead"
    ]
    yield "constrained decoding, overhead per token", "<= 5%", costs, lambda x: x <= 0.05, "{:+.1%}"


# --- tables -----------------------------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    >>> print(table(["a", "b"], [["1", "2"]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(x) + " |" if x[0] != "---" else "|" + "|".join(x) + "|" for x in lines)


def took(row: Row | None) -> str:
    """Median, 95th percentile and number of repeats; or why there is no number."""
    if row is None or "samples" not in row:
        return "-" if row is None else row["note"]
    spent = row["samples"]
    if len(spent) == 1:
        return f"{spoken(spent[0])} (once)"
    return f"{spoken(float(np.quantile(spent, 0.5)))} ({spoken(float(np.quantile(spent, 0.95)))}; {len(spent)})"


def spoken(ms: float) -> str:
    """A time with three digits.

    >>> spoken(0.0421), spoken(57.04), spoken(13400)
    ('0.0421 ms', '57.0 ms', '13.4 s')
    """
    value, unit = (ms, "ms") if ms < 1000 else (ms / 1000, "s")
    digits = max(0, 2 - int(np.floor(np.log10(value)))) if value > 0 else 0
    return f"{value:.{digits}f} {unit}"


def percent(share: float | None) -> str:
    """A share, where there is one."""
    return "-" if share is None else f"{share:.0%}"


def encoding(found: Found) -> str:
    """Encode: time together and per tool, counted work, and the floor."""
    rows = []
    for dtype in found.dtypes:
        for tools in found.sizes("encode"):
            for path in ("ours", "published"):
                row, ms, rate = (
                    found.row(path, dtype, "encode", tools),
                    found.ms(path, dtype, "encode", tools),
                    found.rate(dtype, "product"),
                )
                if row is None or ms is None:
                    continue
                own = path == "ours" and rate is not None
                floor = spoken(1e3 * row["flops"] / rate / tools) if own else "-"
                rows.append([SHORT[dtype], str(tools), path, took(row), spoken(ms / tools), floor,
                             percent(found.share(dtype, "encode", tools, "flops")) if own else "-"])  # fmt: skip
    return table(["", "tools", "", "together", "per tool", "floor per tool", "of the product rate"], rows)


def first(found: Found) -> str:
    """Time to first token by number of tools."""
    rows = [
        [SHORT[dtype], f"{tools:,}", *(took(found.row(path, dtype, what, tools)) for path, what, _ in FIRST)]
        for dtype in found.dtypes
        for tools in found.sizes("first")
    ]
    return table(["", "tools", *(heading for _, _, heading in FIRST)], rows)


def tokens(found: Found) -> str:
    """Time per token, its slope, and the floor."""
    rows = []
    for row in found.rows:
        if row["what"] == "token":
            start, end = quarters(row)
            rate = found.rate(row["dtype"], "copy", "sum")
            floor = spoken(1e3 * row["bytes"] / rate) if "bytes" in row and rate else "-"
            share = row["bytes"] / (statistics.median(row["samples"]) / 1e3) / rate if "bytes" in row and rate else None
            rows.append([SHORT[row["dtype"]], row["path"], str(row["tools"]), took(row), spoken(start), spoken(end),
                         f"{end / start:.2f}", floor, percent(share)])  # fmt: skip
    head = ["", "", "tools", "per token", "first 16", "last 16", "last / first", "floor", "of the bandwidth"]
    return table(head, rows)


def constrained(found: Found) -> str:
    """Constrained against free answers, in pairs."""
    rows = [
        [SHORT[r["dtype"]], str(r["tools"]), spoken(statistics.median(r["free_ms"])),
         spoken(statistics.median(r["constrained_ms"])), f"{statistics.median(r['overhead']):+.1%}",
         f"{min(r['overhead']):+.1%} to {max(r['overhead']):+.1%}", str(len(r["overhead"]))]
        for r in found.rows
        if r["what"] == "constrained overhead"
    ]  # fmt: skip
    return table(["", "tools", "free", "constrained", "overhead, median", "from, to", "pairs"], rows)


def memory(found: Found) -> str:
    """The most memory held while the first token was made."""
    rows = []
    for dtype in found.dtypes:
        for tools in found.sizes("first"):
            cells = []
            for path in ("ours", "published", "text"):
                row = found.row(path, dtype, "first", tools)
                cells.append(f"{row['peak_bytes'] / 1e9:.2f} GB" if row is not None and "peak_bytes" in row else "-")
            rows.append([SHORT[dtype], f"{tools:,}", *cells])
    return table(["", "tools", "ours", "published manner", "text"], rows)


def machine(found: Found) -> str:
    """What the machine can do, and batches and the store."""
    rows = []
    for dtype in found.dtypes:
        product, copy, total = (found.rate(dtype, name) for name in ("product", "copy", "sum"))
        if product and copy and total:
            rows.append(
                [
                    SHORT[dtype],
                    f"{product / 1e9:,.0f} billion operations/s",
                    f"{copy / 1e9:.1f} GB/s",
                    f"{total / 1e9:.1f} GB/s",
                ]
            )
    return table(["", "matrix product", "copy (read and written)", "sum (read)"], rows)


def batches(found: Found) -> str:
    """Requests answered together, and gists read from a store."""
    rows = []
    for row in found.rows:
        if row["what"].startswith("answers, batch"):
            start = found.ms(row["path"], row["dtype"], row["what"].replace("answers", "first"), row["tools"])
            assert start is not None
            steps = (statistics.median(row["samples"]) - start) / (row["new_tokens"] - 1)
            rows.append([SHORT[row["dtype"]], f"{row['requests']} requests at {row['tools']} tools",
                         f"{spoken(steps)} a step, {1e3 * row['requests'] / steps:,.0f} tokens/s"])  # fmt: skip
        elif row["what"] == "from the store":
            rows.append([SHORT[row["dtype"]], f"{row['tools']} tools' gists from the store", took(row)])
    return table(["", "", ""], rows)


def origin(result: Result) -> str:
    """One line: where the numbers come from."""
    p = result["provenance"]
    said = f"`{p['command']}`, commit {(p['commit'] or 'unknown')[:10]}{' and changes' if p['dirty'] else ''}"
    packages = ", ".join(f"{name} {number}" for name, number in p["packages"].items())
    where = f"{p['device']}, {p['threads']} thread{'' if p['threads'] == 1 else 's'} on {p['cores']} cores"
    lengths = f"{p['schema_tokens']['mean']:.0f} tokens a schema, {p['request_tokens']} a request"
    read = f"{' and '.join(p['sources'])}, {lengths}"
    same = ", ".join(f"{SHORT[d]} {x['equal']} of {x['of']}" for d, x in result["agreement"].items())
    equal = f" The published manner writes the same tokens as ours: {same}." if same else ""
    return (f"<sub>Times: median (95th percentile; repeats). {said}; {where}; {packages}; {read}; "
            f"{p['seconds'] / 60:.0f} minutes.{equal}</sub>")  # fmt: skip


TABLES: dict[str, Callable[[Found], str]] = {
    "encode": encoding,
    "first": first,
    "token": tokens,
    "constrained": constrained,
    "memory": memory,
    "machine": machine,
    "batches": batches,
}


# --- what other commands of this experiment measure -------------------------------------------------------------------

STAGE2 = ("stage-2 training, examples/s at 20 tools, vs the published manner", ">= 4x, peak memory lower")
DEMO = ("demo training throughput vs before", ">= 1.5x")
KILLS = ("store: 20 random kills during concurrent writes", "nothing wrong served, nothing committed lost")
MANY = ("10,000 tools: add all, answer one request", "flat from 200 (<= 1.1x)")


@dataclass(frozen=True)
class Beside:
    """What a file beside says: bars ``(bar, target, figure, met)``, and tables by title, rows of the same keys each."""

    bars: list[tuple[str, str, str, bool]]
    tables: dict[str, list[Row]]


def training(found: Result) -> Beside:
    """Of ``experiments.speed.training``; one of its two questions may be left out."""
    judged_, tables = [], {}
    if "published" in found:
        steps, ratios = found["published"], found["published"]["ratios"]
        each = ratios.get("each", [ratios["examples"]])
        ranged = f" ({min(each):.1f} to {max(each):.1f})" if len(each) > 1 else ""
        figure = f"{steps['precision']} {ratios['examples']:.1f}x{ranged}, memory {1 / ratios['peak']:.2f}x"
        judged_.append((*STAGE2, figure, ratios["examples"] >= 4 and ratios["peak"] > 1))
        tables[f"Stage 2, {steps['requests']} requests of {steps['tools']} tools, {steps['precision']}"] = [
            {"": said, "examples/s": steps["requests"] / steps[name]["step_s"],
             "s a step": steps[name]["step_s"], "peak, GB": steps[name]["peak_bytes"] / 1e9,
             "of which the step, GB": steps[name]["rose_bytes"] / 1e9, "loss": steps[name]["loss"]}
            for name, said in (("ours", "ours"), ("published", "published manner"))
        ]  # fmt: skip
    if "demo" in found:
        demo = found["demo"]
        if "ratios" in demo:
            low, middle, high = min(demo["ratios"]), statistics.median(demo["ratios"]), max(demo["ratios"])
            judged_.append((*DEMO, f"{middle:.2f}x ({low:.2f} to {high:.2f})", middle >= 1.5))
        tables[f"Demo, {demo['rounds']} rounds of {demo['steps']} steps in turns, {demo['threads']} threads"] = [
            {"": said, "examples/s, median": statistics.median(demo[name]["examples_per_second"]),
             "processor s a step": statistics.median(demo[name]["processor_s"]),
             "waits for batches": percent(demo[name]["waiting"]),
             "of the floor": percent(demo["share_of_floor"]) if name == "ours" else "-"}
            for name, said in (("ours", "ours"), ("against", "before")) if name in demo
        ]  # fmt: skip
    return Beside(judged_, tables)


def store(found: Result) -> Beside:
    """Of ``experiments.speed.store``."""
    kills = found["summary"]
    bad = {key: kills[key] for key in ("lost", "wrong", "back", "torn", "refused", "failed_processes")}
    wrong = ", ".join(f"{count} {key.replace('_', ' ')}" for key, count in bad.items() if count) or "nothing wrong"
    figure = f"{kills['kills']} kills, {kills['left_half_written']} in the middle of a write: {wrong}"
    spent: list[Row] = [{"what": key.replace("_", " "), "value": value} for key, value in found["rates"].items()]
    kept: list[Row] = [{"precision": name, **{k.replace("_", " "): v for k, v in row.items()}}
            for name, row in found["precision"].items()]  # fmt: skip
    return Beside(
        [(*KILLS, figure, kills["kills"] >= 20 and not any(bad.values()))],
        {f"Store of {found['tools']:,} tools": spent, "What a stored gist loses": kept},
    )


def routing(found: Result) -> Beside:
    """Of ``experiments.speed.routing``, which makes its tables itself."""
    said = [(b["bar"], b["target"], b["figure"], b["met"]) for b in found["bars"]]
    return Beside(said, {part["title"]: part["rows"] for part in found["tables"]})


BESIDE: dict[str, tuple[Callable[[Result], Beside], Sequence[tuple[str, str]]]] = {
    "training": (training, (STAGE2, DEMO)),
    "routing": (routing, (MANY,)),
    "store": (store, (KILLS,)),
}


def beside(path: Path) -> Beside:
    """What the file says."""
    return BESIDE[path.stem][0](json.loads(path.read_text()))


def markdown(path: Path, words: Sequence[str]) -> str:
    """Of result.json what one word names: ``bars``, ``origin`` or a table; of another command's file its tables.

    Raises:
        ValueError: the word names none.
    """
    if path.stem in BESIDE and not words:
        found = json.loads(path.read_text())
        before = f"; before: commit {commit}" if (commit := found.get("demo", {}).get("before")) else ""
        tables = [f"**{title}**\n\n{flat(rows)}" for title, rows in beside(path).tables.items()]
        return "\n\n".join([*tables, f"<sub>Commit {found['commit'][:10]}{before}.</sub>"])
    result, word = json.loads(path.read_text()), " ".join(words)
    if word == "bars":
        return table(["bar", "target", "figure", ""], bars(result, path.parent))
    if word == "origin":
        return origin(result)
    if word not in TABLES:
        raise ValueError(f"a speed block says {word!r}; name one of {', '.join(['bars', 'origin', *TABLES])}")
    return TABLES[word](Found(result))


def flat(rows: Sequence[Row]) -> str:
    """A table of rows of the same keys.

    >>> print(flat([{"what": "reads", "value": 12345.678}]))
    | what | value |
    |---|---|
    | reads | 12,346 |
    """

    def cell(x: Any) -> str:
        if isinstance(x, (int, float)) and abs(x) >= 1000:
            return f"{x:,.0f}"
        return f"{x:.3g}" if isinstance(x, float) else str(x)

    cells = [[cell(x) for x in row.values()] for row in rows]
    return table(list(rows[0]), cells)


# --- figures ----------------------------------------------------------------------------------------------------------


def draw(result: Result, folder: Path) -> None:
    """PNGs: first token against the number of tools, time per token along an answer, encoding."""
    from toolformer.reporting.theme import LIGHT, canvas, label_axes, label_ends, png

    found = Found(result)
    folder.mkdir(exist_ok=True)
    colours, marks = dict(zip((heading for _, _, heading in FIRST), LIGHT.series(), strict=True)), "oDs^vP"

    def line(axes: Any, ends: list, points: Sequence[tuple[float, float]], label: str, colour: str, mark: str) -> None:
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=mark, markersize=4.5, linewidth=1.6)
            ends.append((*points[-1], label, colour))

    for dtype in found.dtypes:
        figure, axes = canvas(LIGHT)
        axes.set(xscale="log", yscale="log")
        ends: list[tuple[float, float, str, str]] = []
        for (path, what, heading), mark in zip(FIRST, marks, strict=True):
            points = [(n, ms / 1e3) for n in found.sizes("first") if (ms := found.ms(path, dtype, what, n)) is not None]
            line(axes, ends, points, heading, colours[heading], mark)
        sizes(axes, found.sizes("first"))
        label_axes(axes, LIGHT, "tools on offer", f"time to first token, s, {SHORT[dtype]}")
        heights(axes)
        label_ends(axes, ends)
        (folder / f"first-{dtype}.png").write_bytes(png(figure))

        figure, axes = canvas(LIGHT)
        axes.set(yscale="log")
        ends = []
        names = {"ours": "ours", "published": "published manner", "text": "text, prefix cached"}
        at = (found.sizes("token", "ours") or [0])[0]
        for path, name in names.items():
            row = found.row(path, dtype, "token", at)
            if row is not None:
                curve = np.median(np.array(row["answers"]), axis=0)
                axes.plot(range(2, 2 + len(curve)), curve, color=colours[name], linewidth=1.6)
                ends.append((1.0 + len(curve), float(np.median(curve[-QUARTER:])), name, colours[name]))
        label_axes(axes, LIGHT, "token of the answer", f"ms per token at {at} tools, {SHORT[dtype]}")
        heights(axes)
        label_ends(axes, ends)
        (folder / f"token-{dtype}.png").write_bytes(png(figure))

        figure, axes = canvas(LIGHT)
        axes.set(xscale="log")
        ends = []
        for (path, name), mark in zip((("ours", "ours"), ("published", "published manner")), marks, strict=False):
            points = [
                (n, ms / n) for n in found.sizes("encode") if (ms := found.ms(path, dtype, "encode", n)) is not None
            ]
            line(axes, ends, points, name, colours[name], mark)
        rate, rows = (
            found.rate(dtype, "product"),
            [found.row("ours", dtype, "encode", n) for n in found.sizes("encode")],
        )
        if rate is not None:
            line(
                axes,
                ends,
                [(r["tools"], 1e3 * r["flops"] / rate / r["tools"]) for r in rows if r],
                "floor",
                LIGHT.muted,
                ".",
            )
        sizes(axes, found.sizes("encode"))
        label_axes(axes, LIGHT, "tools encoded together", f"ms per tool, {SHORT[dtype]}")
        axes.set_ylim(bottom=0)
        label_ends(axes, ends)
        (folder / f"encode-{dtype}.png").write_bytes(png(figure))


def sizes(axes: Any, numbers: Sequence[int]) -> None:
    """Ticks at the numbers of tools that were measured."""
    axes.set_xticks(numbers, [f"{n:,}" for n in numbers])
    axes.minorticks_off()


def heights(axes: Any) -> None:
    """Ticks at 1, 2 and 5 of each power of ten that is drawn, at its powers alone where that is many."""
    low, high = axes.get_ylim()
    digits = (1, 2, 5) if high / low < 1000 else (1,)
    ticks = [t for power in range(-6, 8) for digit in digits if low <= (t := digit * 10.0**power) <= high]
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_ylim(low, high)
