"""In: a machine and real schemas. Out: result.json here: ours, the published manner and schemas as text, side by side.

Run as ``python -m experiments.speed.run``: each path and dtype in a process of its own, one after the other, so that
each one's memory is its own. ``quick`` tries all of it in seconds on a tiny shape and built-in tools. Settings:
``device=cuda`` (the default where there is one), ``dtypes=bfloat16``, ``paths=ours,text``, ``tools=5,20``,
``seconds=2`` (for the repeats of one measurement), ``out=folder``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from experiments.record import cores, write_json
from experiments.speed import inputs, page
from experiments.speed.inputs import Inputs
from experiments.speed.paths import PATHS, Plan, Row
from toolformer.evaluation.provenance import code

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "transformers", "llguidance", "safetensors", "numpy")
DTYPES = ("float32", "bfloat16")
# On a CPU the other two paths take minutes a request beyond these: the text at 200 tools is read in bfloat16 alone.
SLOW = {
    "published float32": 20,
    "published bfloat16": 20,
    "text float32": 20,
    "text bfloat16, a tool changed": 50,
}
FULL = Plan(
    shape=inputs.QWEN,
    real=True,
    tools=(5, 20, 50, 200, 1000),
    encode=(1, 20, 200),
    tokens_at=(20, 200),
    new_tokens=64,
    slow=SLOW,
    batch=16,
    seconds=3.0,
    repeats=20,
    product=2048,
)
ON_GPU: dict[str, Any] = {"slow": {}, "batch": 64, "product": 8192}
QUICK = Plan(
    shape=inputs.SMALL,
    real=False,
    tools=(2, 5, 12),
    encode=(1, 5),
    tokens_at=(5,),
    new_tokens=17,
    slow={"published float32": 5, "text bfloat16, a tool changed": 2},
    batch=3,
    seconds=0.1,
    repeats=2,
    product=64,
)
KEYS = ("device", "dtypes", "paths", "tools", "seconds", "out")


def settings_of(arguments: Sequence[str]) -> tuple[bool, dict[str, str]]:
    """Whether it shall be quick, and what else was said.

    Raises:
        ValueError: names the word that says nothing known.
    """
    said: dict[str, str] = {}
    for word in arguments:
        key, _, value = word.partition("=")
        if word != "quick" and (key not in KEYS or not value):
            raise ValueError(f"speed: {word!r} is no setting; say quick or one of {', '.join(f'{k}=' for k in KEYS)}")
        said[key] = value
    for key, known in (("dtypes", DTYPES), ("paths", tuple(PATHS))):
        for value in said.get(key, ",".join(known)).split(","):
            if value not in known:
                raise ValueError(f"speed: {key} is {value!r}; use {', '.join(known)}")
    return said.pop("quick", None) is not None, said


def plan_of(quick: bool, said: dict[str, str], device: str) -> Plan:
    """What is measured."""
    plan = QUICK if quick else dataclasses.replace(FULL, **(ON_GPU if device.startswith("cuda") else {}))
    if "tools" in said:
        tools = tuple(int(count) for count in said["tools"].split(","))
        some = {"tokens_at": tuple(n for n in plan.tokens_at if n in tools) or tools[:1]}
        plan = dataclasses.replace(plan, tools=tools, encode=tuple(n for n in plan.encode if n <= max(tools)), **some)
    return dataclasses.replace(plan, seconds=float(said.get("seconds", plan.seconds)))


def apart(measure: Callable[..., list[Row]], *arguments: Any) -> list[Row]:
    """Calls it in a fresh process, which ends with it and gives all its memory back."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def agree(rows: Sequence[Row]) -> dict[str, Any]:
    """How many tokens the published manner writes as we do before the first other one, by dtype.

    Raises:
        ValueError: already the first token is another, in float32: then one of the two is wrong.
    """
    found: dict[str, Any] = {}
    for dtype in DTYPES:
        theirs = [r for r in rows if (r["path"], r["dtype"], r["what"]) == ("published", dtype, "token")]
        for row in theirs:
            same = (
                r
                for r in rows
                if (r["path"], r["dtype"], r["what"], r["tools"]) == ("ours", dtype, "token", row["tools"])
            )
            pairs = [pair for mine in same for pair in zip(mine["ids"], row["ids"], strict=True)]
            equal = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
            if pairs and dtype == "float32" and not equal:
                raise ValueError(f"speed: in float32 the paths write another first token: {pairs[0]}; one is wrong")
            found[dtype] = {"equal": equal, "of": len(pairs)}
    return found


def about(plan: Plan, read: Inputs, device: str, quick: bool, arguments: Sequence[str]) -> dict[str, Any]:
    """Where the numbers come from."""
    lengths = sorted(map(len, read.schemas(len(read.tools))))
    return {
        **code(),
        "command": " ".join(["python -m experiments.speed.run", *(x for x in arguments if not x.startswith("out="))]),
        "quick": quick,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else processor(),
        "kind": device.partition(":")[0],
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "seed": inputs.SEED,
        "sources": read.sources,
        "tools": hashlib.sha256("".join(tool.id for tool in read.tools).encode()).hexdigest()[:16],
        "schema_tokens": {"median": lengths[len(lengths) // 2], "mean": sum(lengths) / len(lengths)},
        "request_tokens": len(read.prompts.prompt(read.request)),
        "plan": dataclasses.asdict(plan),
    }  # fmt: skip


def processor() -> str:
    """What the system calls its processor."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main(arguments: Sequence[str]) -> None:
    """Measures path by path, and keeps what was measured after each."""
    quick, said = settings_of(arguments)
    device = said.get("device", "cuda" if torch.cuda.is_available() else "cpu")
    plan, folder = plan_of(quick, said, device), Path(said.get("out", "outputs/speed" if quick else HERE))
    folder.mkdir(parents=True, exist_ok=True)
    most = max(*plan.tools, *plan.encode)
    read = (inputs.real if plan.real else inputs.built_in)(most + 1)  # one to change to
    result: dict[str, Any] = {"provenance": about(plan, read, device, quick, arguments), "rows": []}
    run, start = (lambda measure, *words: measure(*words)) if quick else apart, time.perf_counter()
    for dtype in said.get("dtypes", ",".join(DTYPES)).split(","):
        for path in said.get("paths", ",".join(PATHS)).split(","):
            result["rows"] += run(PATHS[path], dtype, device, plan, read)
            result["provenance"]["seconds"] = round(time.perf_counter() - start, 1)
            result["agreement"] = agree(result["rows"])
            write_json(folder / "result.json", result)
    page.draw(result, folder / "figures")
    for line in page.bars(result):
        print(" | ".join(line))
    print(f"{folder / 'result.json'} after {result['provenance']['seconds'] / 60:.1f} minutes; "
          "next: python -m experiments.tables")  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        main(sys.argv[1:])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
