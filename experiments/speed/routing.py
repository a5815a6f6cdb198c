"""In: the folder of a run on the built-in data. Out: routing.json here, and figures: what thousands of tools cost.

Run as ``python -m experiments.speed.routing``, or with ``run=outputs/demo rows=100 sizes=20,50,200,1000,10000``. Tools
and requests are of the unseen split; nothing is set by them. Each number of tools is measured in a process of its own.
For every request the tools that it needs replace as many others, and BM25 ranks the schemas' texts; then it is answered
by attending to the k tools that routing picks, the same among 200 tools only, and by attending to all tools.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.record import cores, write_json
from experiments.speed.clock import most_held
from experiments.speed.page import heights, sizes
from toolformer.data.masking import Rows
from toolformer.data.toolworld import ToolWorld
from toolformer.data.toolworld.world import seeded
from toolformer.evaluation.provenance import code
from toolformer.evaluation.scoring import rate
from toolformer.inference.caller import ToolCaller
from toolformer.inference.folders import find_backbone
from toolformer.inference.gist_store import model_fingerprint
from toolformer.records import Message, Tool
from toolformer.reporting.theme import LIGHT, MARKERS, canvas, label_axes, label_ends, png

HERE = Path(__file__).resolve().parent
SPLIT, SEED, KS, POOL = "test_unseen", 0, (1, 5, 20, 64), 500
DEFAULTS = {
    "run": "outputs/demo",
    "rows": "100",
    "sizes": "20,50,200,1000,10000",
    "exact": "10000",
    "folder": str(HERE),
}
FEW, FLAT = 200, 1.1  # a request may cost so many times what it costs among so few tools, and still counts as flat
Line = dict[str, Any]


# --- what is asked, of which tools ------------------------------------------------------------------------------------


def asked(world: ToolWorld, rows: int) -> Rows:
    """Requests that need a call, each with the tools that it needs."""
    tools, examples = world.split(SPLIT, 2 * rows)
    catalog = {tool.id: tool for tool in tools}
    out: Rows = []
    for example in examples:
        names = {call.name for call in example.calls}
        if names and len(out) < rows:
            out.append((example, [catalog[i] for i in example.tools if catalog[i].name in names]))
    return out


def others(world: ToolWorld, rows: Rows, n: int) -> list[Tool]:
    """``n`` more tools of the split, under names and descriptions that no needed tool has."""
    needed = [tool for _, tools in rows for tool in tools]
    names, texts = {tool.name for tool in needed}, {tool.description for tool in needed}
    recipes, out, turn = world.recipes(SPLIT), dict[str, Tool](), 0
    while len(out) < n:
        rng = seeded("routing", SEED, turn)
        for made in world.maker.pool(rng, recipes[turn % len(recipes)], POOL).tools:
            if made.tool.name not in names and made.tool.description not in texts:
                out.setdefault(made.tool.name, made.tool)
        turn += 1
    return list(out.values())[:n]


# --- BM25 -------------------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """Lower-case words; those of an identifier are words too."""
    return re.findall(r"[a-z0-9]+", text.lower())


class Ranker:
    """BM25 (bm25s, its defaults) over the schemas' texts."""

    def __init__(self, tools: Sequence[Tool]):
        try:
            import bm25s  # ty: ignore[import-not-found]
        except ImportError as error:
            raise ValueError("bm25s is missing; pip install -e '.[experiments]'") from error
        self.place = {tool.id: i for i, tool in enumerate(tools)}
        self.index = bm25s.BM25()
        self.index.index([words(tool.text) for tool in tools], show_progress=False)

    def scores(self, messages: Sequence[Message], among: Sequence[Tool]) -> np.ndarray:
        """Of what the user said, against some of the tools ``(N,)``."""
        said = words(" ".join(message.content for message in messages if message.role == "user"))
        known = [word for word in said if word in self.index.vocab_dict]
        found = self.index.get_scores(known) if known else np.zeros(len(self.place))
        return found[[self.place[tool.id] for tool in among]]


def ranks(scores: Sequence[float] | np.ndarray, wanted: Sequence[bool]) -> list[int]:
    """How many tools stand before each wanted one, other wanted ones left out; equal scores count against it.

    >>> ranks([0.9, 0.5, 0.7, 0.5], [False, True, True, False])
    [2, 1]
    """
    pairs = list(zip(scores, wanted, strict=True))
    return [sum(bool(not w and other >= own) for other, w in pairs) for own, is_wanted in pairs if is_wanted]


# --- one number of tools ----------------------------------------------------------------------------------------------


def answered(caller: ToolCaller, messages: Sequence[Message], route_above: int) -> Line:
    """The names that were called; milliseconds to the first piece of text, and for each piece after it."""
    caller.route_above = route_above
    start = time.perf_counter()
    stream, at = caller.stream(messages), []
    for _ in stream:
        at.append(1e3 * (time.perf_counter() - start))
    spent = (at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else None
    return {"called": sorted(call.name for call in stream.reply.calls), "first_ms": at[0], "piece_ms": spent}


def exchanged(caller: ToolCaller, tools: Sequence[Tool]) -> tuple[Tool, ...]:
    """Puts tools in the place of those that were added last, and says which these were."""
    last = caller.tools[-len(tools) :]
    caller.remove_tools([tool.name for tool in last])
    caller.add_tools(tools)
    return last


def measure(settings: dict[str, str], size: int) -> Line:
    """Adds ``size`` tools and answers every request."""
    torch.manual_seed(SEED)
    caller, world = ToolCaller.from_pretrained(settings["run"]), ToolWorld()
    rows = asked(world, int(settings["rows"]))
    tools = others(world, rows, size)
    every = list({tool.id: tool for tool in [*tools, *(tool for _, needed in rows for tool in needed)]}.values())
    exact, ranker = size <= int(settings["exact"]), Ranker(every)
    caller.add_tools(list({tool.name: tool for _, needed in rows for tool in needed}.values()))  # into the store
    caller.remove_tools([tool.name for tool in caller.tools])
    held, start = most_held(), time.perf_counter()
    caller.add_tools(tools)
    spent, rose = time.perf_counter() - start, most_held() - held
    found: Line = {"tools": size, "add_s": spent, "add_mb": rose / 2**20, "rows": []}
    few = ToolCaller(caller.engine.model, caller.engine.prompts, no_call_bias=caller.engine.no_call_bias)
    few.add_tools(tools[:FEW])
    for example, needed in rows:
        start = time.perf_counter()
        swapped = exchanged(caller, needed)
        line: Line = {"id": example.id, "stratum": example.stratum, "swap_ms": 1e3 * (time.perf_counter() - start)}
        back = exchanged(few, needed)
        line["needed"] = sorted(call.name for call in example.calls)
        wanted = {tool.id for tool in needed}
        start = time.perf_counter()
        caller.nearest(example.messages)
        line["route_ms"] = 1e3 * (time.perf_counter() - start)
        near = caller.nearest(example.messages, size)
        line["ranks"] = ranks([score for _, score in near], [tool.id in wanted for tool, _ in near])
        start = time.perf_counter()
        scores = ranker.scores(example.messages, caller.tools)
        line["bm25_ms"] = 1e3 * (time.perf_counter() - start)
        line["bm25_ranks"] = ranks(scores, [tool.id in wanted for tool in caller.tools])
        turn = [("routed", caller), ("few", few)]  # next to each other, either first, so that the two can be compared
        for name, one in turn if len(found["rows"]) % 2 else turn[::-1]:
            answered(one, example.messages, 0)  # what comes for the first time may cost more
            line[name] = answered(one, example.messages, 0)
        line["exact"] = answered(caller, example.messages, size) if exact else None
        found["rows"].append(line)
        exchanged(caller, swapped)
        exchanged(few, back)
    return found | {"peak_mb": most_held() / 2**20, "k": caller.k, "model": model_fingerprint(caller.engine.model)}


# --- all of them ------------------------------------------------------------------------------------------------------


def quantiles(rows: Sequence[Line], read: Callable[[Line], float | None]) -> Line:
    """p50 and p95 of what was measured."""
    values = [value for value in map(read, rows) if value is not None]
    return {"p50": statistics.median(values), "p95": float(np.quantile(values, 0.95))} if values else {}


def summed(found: Line) -> Line:
    """Shares and quantiles of one number of tools; recall@k counts a request whose needed tools are all among k."""
    rows = found["rows"]
    several = [row for row in rows if len(row["ranks"]) > 1]
    out: Line = {key: value for key, value in found.items() if key != "rows"}
    for name, key in (("router", "ranks"), ("bm25", "bm25_ranks")):
        for part, chosen in (("recall", rows), ("recall_several", several)):
            # with n needed tools, rank r of the others leaves room for all n among the first r + n
            hits = {k: sum(max(row[key]) + len(row[key]) <= k for row in chosen) for k in KS}
            out.setdefault(part, {})[name] = {str(k): rate(hit, len(chosen)) for k, hit in hits.items()}
    for name in ("routed", "exact"):
        done = [row for row in rows if row[name] is not None]
        out[name] = {
            "tsa": rate(sum(row[name]["called"] == row["needed"] for row in done), len(done)),
            "first_ms": quantiles(done, lambda row, name=name: row[name]["first_ms"]),
            "piece_ms": quantiles(done, lambda row, name=name: row[name]["piece_ms"]),
        }
    both = ("first_ms", "piece_ms")
    pairs = {key: [row["routed"][key] / row["few"][key] for row in rows if row["few"][key] and row["routed"][key]]
             for key in both}  # fmt: skip
    out["times_few"] = {key: statistics.median(values) for key, values in pairs.items()}
    for key in ("route_ms", "bm25_ms", "swap_ms"):
        out[key] = quantiles(rows, lambda row, key=key: row[key])
    return out


def bars(points: Sequence[Line]) -> list[Line]:
    """Most tools against few."""
    high = points[-1]
    ratios = [high["times_few"][key] for key in ("first_ms", "piece_ms")]
    exact = high["exact"]["tsa"]["value"]
    recall = high["recall"]["router"][str(KS[-1])]["value"]
    told = (
        f"add {high['add_s']:.0f} s, {high['add_mb']:.0f} MB; first token {ratios[0]:.2f}x, "
        f"each further {ratios[1]:.2f}x of {FEW} tools; recall@{KS[-1]} {recall:.2f}; "
        f"TSA {high['routed']['tsa']['value']:.2f}, exact {'-' if exact is None else f'{exact:.2f}'}"
    )
    bar = f"{high['tools']:,} tools: add all, answer one request"
    return [{"bar": bar, "target": f"flat from {FEW} (<= {FLAT}x)", "figure": told, "met": max(ratios) <= FLAT}]


def tables(points: Sequence[Line]) -> list[Line]:
    """What is shown of the points."""

    def ms(point: Line, *keys: str) -> str:
        for key in keys:
            point = point[key]
        return f"{point['p50']:.1f} / {point['p95']:.1f}" if point else "-"

    def share(found: Line) -> str:
        return "-" if found["value"] is None else f"{found['value']:.2f}"

    cost = [
        {"tools": p["tools"], "add all, s": round(p["add_s"], 1), "MB": round(p["add_mb"]),
         "routing, ms": ms(p, "route_ms"), "first token, ms": ms(p, "routed", "first_ms"),
         "of all tools": ms(p, "exact", "first_ms"), f"times {FEW} tools": f"{p['times_few']['first_ms']:.2f}",
         "next token, ms": ms(p, "routed", "piece_ms"),
         "of all tools ": ms(p, "exact", "piece_ms"), "one tool for another, ms": ms(p, "swap_ms")}
        for p in points
    ]  # fmt: skip
    right = [
        {"tools": p["tools"],
         **{f"{name} @{k}": share(p["recall"][key][str(k)]) for name, key in (("router", "router"), ("BM25", "bm25"))
            for k in KS},
         **{f"several tools: {name} @64": share(p["recall_several"][key]["64"])
            for name, key in (("router", "router"), ("BM25", "bm25"))},
         "TSA routed": share(p["routed"]["tsa"]), "TSA exact": share(p["exact"]["tsa"])}
        for p in points
    ]  # fmt: skip
    return [
        {"title": "Thousands of tools: cost of a request (p50 / p95)", "rows": cost},
        {"title": "Thousands of tools: are the needed ones among the first k", "rows": right},
    ]


def draw(points: Sequence[Line], folder: Path) -> None:
    """Recall of router and BM25, and milliseconds to the first token, over the number of tools."""
    size = [p["tools"] for p in points]
    markers = list(MARKERS.values())
    recalls = {f"{name} @{k}": [p["recall"][key][str(k)]["value"] for p in points]
               for name, key in (("router", "router"), ("BM25", "bm25")) for k in (5, 64)}  # fmt: skip
    times = {
        name: [p[key]["first_ms"].get("p50") for p in points]
        for name, key in (("routed", "routed"), ("all tools", "exact"))
    }
    for title, series, name in (
        ("share of requests whose tools are all among the first k", recalls, "routing-recall"),
        ("ms to the first token, p50", times, "routing-cost"),
    ):
        figure, axes = canvas(LIGHT)
        axes.set(xscale="log", yscale="log" if name == "routing-cost" else "linear")
        sizes(axes, size)
        ends = []
        for i, (label, values) in enumerate(series.items()):
            places = [(x, y) for x, y in zip(size, values, strict=True) if y is not None]
            colour = LIGHT.series()[i // (2 if len(series) > 2 else 1)]
            line = "--" if len(series) > 2 and i % 2 == 0 else "-"
            marker = markers[i % len(markers)]
            axes.plot(*zip(*places, strict=True), color=colour, linestyle=line, marker=marker, markersize=4)
            ends.append((*places[-1], label, colour))
        label_axes(axes, LIGHT, "tools", title)
        if name == "routing-cost":
            heights(axes)
        else:
            axes.set_ylim(0, 1.03)
        label_ends(axes, ends)
        (folder / f"{name}.png").write_bytes(png(figure))


def main(arguments: list[str]) -> None:
    """Measures each number of tools in a process of its own, then writes the file and the figures."""
    given = dict(argument.split("=", 1) for argument in arguments)
    unknown = given.keys() - DEFAULTS.keys() - {"size"}
    if unknown:
        raise ValueError(f"there is no {', '.join(sorted(unknown))}; give {', '.join(DEFAULTS)}")
    settings = DEFAULTS | given
    if "size" in settings:
        print(json.dumps(measure(settings, int(settings["size"]))))
        return
    found: list[Line] = []
    for size in sorted({int(size) for size in settings["sizes"].split(",")}):
        command = [sys.executable, "-m", "experiments.speed.routing", *arguments, f"size={size}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        point = summed(found[-1])
        print(f"{size:,} tools: {json.dumps({key: point[key] for key in ('add_s', 'add_mb', 'routed', 'exact')})}")
    points = [summed(each) for each in found]
    result = {
        **code(),
        "command": " ".join(["python -m experiments.speed.routing", *(x for x in arguments if "=/" not in x)]),
        "model": found[0]["model"],
        "stage": find_backbone(settings["run"]).parent.name,
        "split": SPLIT,
        "seed": SEED,
        "k": found[0]["k"],
        "threads": torch.get_num_threads(),
        "cores": cores(),
        "torch": torch.__version__,
        "bars": bars(points),
        "tables": tables(points),
        "points": points,
        "rows": {str(each["tools"]): each["rows"] for each in found},
    }
    folder = Path(settings["folder"])
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    write_json(folder / "routing.json", result)
    draw(points, folder / "figures")
    print(result["bars"][0]["figure"])


if __name__ == "__main__":
    main(sys.argv[1:])
