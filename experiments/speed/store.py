"""In: a seed. Out: store.json: what kills do to a gist store, and how fast and exact it is at 10,000 tools.

Run as ``python -m experiments.speed.store``; ``kills=4 tools=1000`` is quicker, ``model=outputs/demo`` measures the
precisions on the gists of a trained model instead of normal numbers. Beside the store stand, in the same rounds, the
floor (the same bytes written to a file and synchronised, read again, and hashed) and a file for each tool, as safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from experiments.record import write_json
from experiments.speed.store_kills import MINE, SHAPE, kills, tool
from toolformer.evaluation.provenance import code
from toolformer.inference.gist_precision import PRECISIONS, pack, unpack
from toolformer.inference.gist_store import FILE, GistStore, model_fingerprint
from toolformer.records import Tool

HERE = Path(__file__).resolve().parent
ROUNDS = 3
SINGLE = 100  # tools that are added, or asked for, one by one
BAD = ("lost", "wrong", "back", "torn", "refused", "failed_processes")


def main(kills_: int = 40, tools: int = 10_000, seed: int = 0, model: str | None = None) -> None:
    """Runs everything and writes what came of it."""
    with tempfile.TemporaryDirectory() as scratch:
        rows = kills(kills_, seed, Path(scratch))
    rng = torch.Generator().manual_seed(seed)
    many = [tool(9, i) for i in range(tools)]
    gists = list(torch.randn(tools, *SHAPE, generator=rng).bfloat16())
    rounds = [measured(many, gists, random.Random(seed + i)) for i in range(ROUNDS)]
    found = {
        **code(),
        "seed": seed,
        "summary": summary(rows),
        "tools": tools,
        "seconds": {key: statistics.median(round_[key] for round_ in rounds) for key in rounds[0]},
        "rates": {},
        "fingerprint": fingerprint(),
        "gists": model or "normal numbers in fp32",
        "precision": errors(list(torch.randn(1000, *SHAPE, generator=rng)) if model is None else trained(model)),
        "rounds": rounds,
        "kills": rows,
    }
    found["rates"] = rates(found["seconds"], tools)
    write_json(HERE / "store.json", found)
    print(json.dumps({key: value for key, value in found.items() if key not in ("kills", "rounds")}, indent=1))


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Kills, whom they hit and when, and what went wrong: all of ``BAD`` should be 0."""
    counted = ("in_a_change", "done", "undone", "served", *BAD)
    return {
        "kills": len(rows),
        "killed_writers": sum(row["killed"]["writers"] for row in rows),
        "killed_readers": sum(row["killed"]["readers"] for row in rows),
        "left_half_written": sum(row["left_half_written"] is True for row in rows),
        **{key: sum(row[key] for row in rows) for key in counted},
    }


# --- speed ------------------------------------------------------------------------------------------------------------


def measured(tools: Sequence[Tool], gists: Sequence[Tensor], rng: random.Random) -> dict[str, float]:
    """Seconds by what was done, of one round. What is read has just been written: it comes from the page cache."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, seconds = Path(scratch), {}
        store = GistStore(folder / "store", MINE)
        seconds["add_many"] = timed(lambda: store.add_many(tools, gists))
        content = (folder / "store" / FILE).read_bytes()  # the bytes of the floor
        seconds["floor_write"] = timed(lambda: written(folder / "floor", content))
        seconds["floor_read"] = timed(lambda: (folder / "floor").read_bytes())
        seconds["floor_hash"] = timed(lambda: hashlib.sha256(content).digest())
        seconds["files_add"] = timed(lambda: files(folder / "files", tools, gists))
        store.close()
        store = GistStore(folder / "store", MINE)
        seconds["open"] = timed(lambda: GistStore(folder / "store", MINE))
        seconds["get_many"] = timed(lambda: store.get_many(tools))
        seconds["files_get"] = timed(lambda: [load_file(folder / "files" / each.id)["gists"] for each in tools])
        some = rng.sample(range(len(tools)), SINGLE)
        seconds["get_one"] = timed(lambda: [store.get(tools[i]) for i in some]) / SINGLE
        new = [tool(8, i) for i in range(SINGLE)]
        seconds["add_one"] = timed(lambda: [store.add(each, gists[0]) for each in new]) / SINGLE
        one = save({"gists": gists[0]})
        seconds["floor_sync"] = timed(lambda: [written(folder / "floor", one) for _ in new]) / SINGLE
        seconds["replace_one"] = (
            timed(lambda: [store.replace(t, tool(7, i), gists[1]) for i, t in enumerate(new)]) / SINGLE
        )
        seconds["reorder"] = timed(lambda: store.reorder(new[:0]))
        limited = GistStore(folder / "store", MINE, limit=store.size)
        seconds["add_one_and_evict_one"] = timed(lambda: [limited.add(t, gists[0]) for t in new]) / SINGLE
        store.close()
        limited.close()
    return seconds


def timed(call: Callable[[], object]) -> float:
    """Seconds by the clock."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def written(path: Path, content: bytes) -> None:
    """A file that is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def files(folder: Path, tools: Sequence[Tool], gists: Sequence[Tensor]) -> None:
    """The other way: a file for each tool, written aside, synchronised and moved to its name; the folder at the end."""
    folder.mkdir()
    for each, own in zip(tools, gists, strict=True):
        written(folder / "part", save({"gists": own.clone()}, {"tool": each.text}))
        (folder / "part").replace(folder / each.id)
    number = os.open(folder, os.O_RDONLY)
    os.fsync(number)
    os.close(number)


def rates(seconds: dict[str, float], tools: int) -> dict[str, float]:
    """Tools a second, and times of the floor."""
    return {
        "adds_per_second": round(tools / seconds["add_many"]),
        "adds_per_second_one_by_one": round(1 / seconds["add_one"], 1),
        "gets_per_second": round(tools / seconds["get_many"]),
        "gets_per_second_one_by_one": round(1 / seconds["get_one"]),
        "add_many_to_floor": round(seconds["add_many"] / seconds["floor_write"], 2),
        "get_many_to_floor": round(seconds["get_many"] / (seconds["floor_read"] + seconds["floor_hash"]), 2),
        "add_one_to_one_sync": round(seconds["add_one"] / seconds["floor_sync"], 2),
        "add_files_to_add_many": round(seconds["files_add"] / seconds["add_many"], 2),
        "get_files_to_get_many": round(seconds["files_get"] / seconds["get_many"], 2),
    }


def fingerprint() -> dict[str, float]:
    """Of 100 million weights in fp32: seconds, to the floor of hashing as many bytes that lie in one piece."""
    model = torch.nn.ParameterDict({f"w{i}": torch.nn.Parameter(torch.randn(10_000_000)) for i in range(10)})
    content = torch.randn(100_000_000).view(torch.uint8).numpy()
    pairs = [(timed(lambda: model_fingerprint(model)), timed(lambda: hashlib.sha256(content))) for _ in range(ROUNDS)]
    ours, floor = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"seconds": round(ours, 3), "gigabytes_per_second": round(0.4 / ours, 2), "to_floor": round(ours / floor, 2)}


# --- precision --------------------------------------------------------------------------------------------------------


def trained(path: str) -> list[Tensor]:
    """Gists of a trained model, of tools of the built-in data."""
    from toolformer.data.toolworld import ToolWorld
    from toolformer.inference.caller import ToolCaller

    rows = ToolWorld().batch(0, batch_size=60, pool_size=200, tools_per_request=20)
    tools = {each.id: each for _, of_row in rows for each in of_row}
    return list(ToolCaller.from_pretrained(path).engine.encode(list(tools.values())))


def errors(gists: Sequence[Tensor]) -> dict[str, dict[str, float]]:
    """Of each precision: bytes a tool, and the loss: rms over rms, and the worst number over its vector's largest."""
    found, given = {}, torch.stack([own.double() for own in gists])
    for precision in PRECISIONS:
        packed = [pack({"gists": own}, precision) for own in gists]
        got = torch.stack([unpack(*each)["gists"].double() for each in packed])
        off, largest = (got - given).abs(), given.abs().amax(-1, keepdim=True).clamp(min=1e-300)
        found[precision] = {
            "bytes": round(statistics.mean(len(content) for content, _ in packed)),
            "rms_error": float(f"{(off.square().mean() / given.square().mean()).sqrt():.2e}"),
            "worst_error": float(f"{(off / largest).max():.2e}"),
        }
    return found


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    numbers = {("kills_" if key == "kills" else key): int(value) for key, value in words.items() if key != "model"}
    main(**numbers, model=words.get("model"))
