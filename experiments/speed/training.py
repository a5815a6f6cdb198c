"""In: nothing, or another checkout to compare with. Out: training.json: what a training step of stage 2 takes.

Run as ``python -m experiments.speed.training``. Two questions, each side measured in processes of its own, in turns:

- demo: the stage as ``make demo`` runs it, trainer and loader included, of this checkout and of the commit
  ``--against``, both on today's data.
- published: the shape of Qwen2.5-0.5B, 4 requests with 20 real tools each, forward and backward: our stage against the
  published manner (each request's schemas encoded anew and padded to 256 tokens, prompts padded to the longest, logits
  of all positions). ``--requests`` and ``--tools`` make it smaller where memory is short.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
WARM = 5  # steps that are not counted
LIMIT = 256  # tokens of a schema
SEED = 0


# ---- the demo


def demo(steps: int, threads: int) -> dict[str, Any]:
    """Seconds of each step of the demo's last stage, of it waiting for batches, and operations by kind of number."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate
    from lightning.pytorch.callbacks import Callback

    import toolformer
    from toolformer import train
    from toolformer.data.loading import ResumableLoader

    conf = Path(str(toolformer.__file__)).parents[1] / "conf"
    settings = [f"steps={WARM + steps + 1}", "validation_rows=4", "validate_every=1000000", "checkpoint_every=1000000"]
    with initialize_config_dir(str(conf), version_base=None):
        changes = [f"threads={threads}", "progress=false", *(f"stages.tool_calling.{line}" for line in settings)]
        cfg = compose("curriculum", ["experiment=demo", *changes])
    spent: dict[str, list[float]] = {"starts": [], "processor": [], "waits": []}

    class Clock(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            spent["starts"].append(time.perf_counter())
            spent["processor"].append(time.process_time())

    def timed(loader: ResumableLoader) -> Iterator[Any]:
        stream = plain(loader)
        while True:
            began = time.perf_counter()
            batch = next(stream, None)
            spent["waits"].append(time.perf_counter() - began)
            if batch is None:
                return
            yield batch

    plain, callbacks = ResumableLoader.__iter__, train.build_callbacks
    setattr(ResumableLoader, "__iter__", timed)  # noqa: B010  # as the trainer will find it
    setattr(train, "build_callbacks", lambda *of: [*callbacks(*of), Clock()])  # noqa: B010
    train.prepare_process(cfg)
    with tempfile.TemporaryDirectory() as scratch:
        train.run_stage(cfg, cfg.stages.tool_calling, Path(scratch) / "stage", instantiate(cfg.data), None)
    starts = spent["starts"][WARM:]
    every = cfg.stages.tool_calling.module.rebuild_every
    whole = (len(starts) - 1) // every * every  # as many steps with auto-encoding as in a whole run
    waits, processor = spent["waits"][WARM + 1 : WARM + 1 + whole], spent["processor"][WARM:]
    return {
        "examples": cfg.stages.tool_calling.batches.batch_size,
        "step_s": [b - a for a, b in zip(starts, starts[1 : whole + 1], strict=False)],
        "processor_s": (processor[whole] - processor[0]) / whole,  # of all threads: what else runs counts little
        "wait_s": waits,
    }


def demo_operations(threads: int) -> dict[str, float]:
    """Operations of a mean step of ours, of the model and of the optimiser, and the rate of each one's numbers."""
    import torch
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from experiments.speed.clock import rates
    from toolformer.stages.base import encode
    from toolformer.train import build_model

    torch.set_num_threads(threads)
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        cfg = compose("curriculum", ["experiment=demo"])
    source, stage = instantiate(cfg.data, _convert_="object"), cfg.stages.tool_calling
    model, prompts = build_model(cfg, source, None)
    model.set_attn_implementation("sdpa")
    batches = instantiate(stage.batches, _convert_="object")(source, prompts, seed=cfg.seed)
    module = instantiate(stage.module, _convert_="object")(model.train(), prompts)
    counted, rebuild = [], module.rebuild_weight
    for k in range(4 * stage.module.rebuild_every):
        module.rebuild_weight = 0.0 if k % stage.module.rebuild_every else rebuild
        module.rebuild_every = 1
        setattr(module, "every", lambda steps: True)  # noqa: B010  # there is no trainer to ask
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the others are not counted
            batch = batches[k]
            module.losses(batch, encode(model, batch, True))["loss"].backward()
        counted.append(counter.get_total_flops())
    from toolformer.stages.optimizers import build_optimizer, in_fast_numbers

    with FlopCounterMode(display=False) as counter:
        build_optimizer(model, stage.module.optimizer, lr=1e-3, weight_decay=0.0).step()
    kinds = {"": torch.float32, "optimiser_": in_fast_numbers(torch.ones(1)).dtype}
    measured = {dtype: rates(torch.device("cpu"), dtype, size=1536, seconds=0.5) for dtype in set(kinds.values())}
    return {
        "operations": statistics.fmean(counted),
        "optimiser_operations": counter.get_total_flops(),
        **{f"{name}rate": measured[dtype]["product"] for name, dtype in kinds.items()},
    }


# ---- the published shape


def published(manner: str, requests: int, tools: int, pool: int, threads: int, precision: str) -> dict[str, Any]:
    """Forward and backward of one batch in one ``manner``: its seconds, its loss, and how far memory rose."""
    import torch

    from experiments.speed.clock import most_held
    from experiments.speed.inputs import QWEN, our_config
    from toolformer.data.batches import collate_calls
    from toolformer.data.prompts import Prompts, load_tokenizer
    from toolformer.model import ToolFormerMicro
    from toolformer.stages.base import encode
    from toolformer.stages.tool_calling import ToolCalling

    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    data = Path(os.environ["TOOLFORMER_DATA"])
    prompts = Prompts(load_tokenizer(str(data / "tokenizer-qwen2.5")), schema_limit=LIMIT)
    rows = real_rows(data, requests, tools, pool)
    model = ToolFormerMicro(our_config(QWEN)).train()
    model.set_attn_implementation("sdpa")
    batch = collate_calls(rows, prompts)
    # next token alone: the published step adds the other parts on some batches only
    stage = ToolCalling(model, prompts, lr=1e-4, warmup_steps=0, contrast_weight=0.0, rebuild_weight=0.0)

    def ours() -> Any:
        return stage.losses(batch, encode(model, batch, stage.reads_requests))["loss"]

    manners: dict[str, Callable[[], Any]] = {"ours": ours, "published": lambda: published_loss(model, batch)}
    held = most_held()
    times = []
    for _ in range(2):  # the first is the warm-up, and the one in which memory grows
        model.zero_grad()
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = manners[manner]()
        loss.backward()
        times.append(time.perf_counter() - began)
    lengths = batch.tools.mask.sum(-1)
    return {
        "step_s": min(times),
        "loss": float(loss.detach()),
        "peak_bytes": most_held(),
        "rose_bytes": most_held() - held,
        "requests": requests,
        "distinct_tools": len(lengths),
        "schema_tokens": float(lengths.float().mean()),
        "tokens": int(batch.attention_mask.sum()),
    }


def published_loss(model: Any, batch: Any) -> Any:
    """The next-token loss as published code computes it; the weights, and so the value, are ours."""
    import torch
    import torch.nn.functional as F

    short = LIMIT - batch.tools.ids.shape[1]
    ids, mask = (F.pad(x, (0, short)) for x in (batch.tools.ids, batch.tools.mask))
    gists = torch.cat([model.encode_tools(ids[own], mask[own]) for own in batch.tool_index])
    places = torch.arange(len(gists)).reshape(batch.tool_index.shape)
    memory, memory_mask = model.memory(gists, places)
    attention = batch.attention_mask.long()
    out = model(batch.input_ids, attention, memory=memory, memory_mask=memory_mask, use_cache=False)
    return F.cross_entropy(out.logits[:, :-1].flatten(0, 1).float(), batch.labels[:, 1:].flatten())


def real_rows(data: Path, requests: int, tools: int, pool: int) -> list[Any]:
    """Requests of xLAM with their tools and others of a pool that they share, as in training."""
    from dataclasses import replace

    from toolformer.data.sources import xlam
    from toolformer.data.sources.source import Found

    rng, found = random.Random(SEED), [row for row in xlam.SOURCE.read(data / xlam.NAME) if isinstance(row, Found)]
    chosen = rng.sample(found, requests)
    shared = {offered.tool.id: offered.tool for row in chosen for offered in row.offered}
    others = [offered.tool for row in found for offered in row.offered]
    while len(shared) < max(pool, tools):
        tool = rng.choice(others)
        shared[tool.id] = tool
    rows = []
    for row in chosen:
        own = {offered.tool.name: offered.tool for offered in row.offered}
        for tool in rng.sample(list(shared.values()), len(shared)):
            if len(own) < tools:
                own.setdefault(tool.name, tool)
        rows.append((replace(row.example, tools=tuple(tool.id for tool in own.values())), list(own.values())))
    return rows


# ---- both


def measured(checkout: Path, call: str, **arguments: Any) -> dict[str, Any]:
    """What the function ``call`` of this file says in a process of its own, with the code of ``checkout``."""
    env = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore"}
    code = [sys.executable, str(HERE), "--child", json.dumps([call, arguments])]
    said = subprocess.run(code, cwd=checkout, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(said.splitlines()[-1])


def demo_rows(checkouts: dict[str, Path], rounds: int, steps: int, threads: int) -> dict[str, Any]:
    """Examples a second of each checkout, in turns; and where the time of ours goes."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    for number in range(rounds):
        for name, checkout in list(checkouts.items())[:: -1 if number % 2 else 1]:
            found[name].append(measured(checkout, "demo", steps=steps, threads=threads))
            print(f"demo, {name}: {statistics.fmean(found[name][-1]['step_s']):.3f} s a step", flush=True)
    rows: dict[str, Any] = {"rounds": rounds, "steps": steps, "threads": threads}
    for name, runs in found.items():
        each = [run["examples"] / statistics.fmean(run["step_s"]) for run in runs]
        waits = [sum(run["wait_s"]) / sum(run["step_s"]) for run in runs]
        rows[name] = {
            "examples_per_second": each,
            "processor_s": [run["processor_s"] for run in runs],
            "waiting": statistics.fmean(waits),
        }
    if len(found) > 1:
        pairs = zip(*(row["examples_per_second"] for row in (rows["ours"], rows["against"])), strict=True)
        rows["ratios"] = [ours / theirs for ours, theirs in pairs]
    counted = measured(ROOT, "demo_operations", threads=threads)
    floor = sum(counted[f"{name}operations"] / counted[f"{name}rate"] for name in ("", "optimiser_"))
    step = found["ours"][0]["examples"] / max(rows["ours"]["examples_per_second"])
    return {**rows, **counted, "floor_s": floor, "share_of_floor": floor / step}


def older(commit: str, folder: Path) -> Path:
    """The code of a commit of this repository, with today's built-in data."""
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "x"], cwd=folder, check=True, input=packed)
    data = Path("toolformer/data/toolworld")
    shutil.rmtree(folder / data)
    shutil.copytree(ROOT / data, folder / data)
    shutil.copy(ROOT / "conf/data/toolworld.yaml", folder / "conf/data/toolworld.yaml")
    return folder


def published_rows(of: argparse.Namespace) -> dict[str, Any]:
    """Both manners on the same rows, in turns; they must find the same loss. The median round of each is kept."""
    arguments = {"requests": of.requests, "tools": of.tools, "pool": of.pool, "threads": of.threads}
    arguments["precision"] = of.precision
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "published": []}
    for number in range(of.published_rounds):
        for manner in list(found)[:: -1 if number % 2 else 1]:
            found[manner].append(measured(ROOT, "published", manner=manner, **arguments))
            print(f"published shape, {manner}: {found[manner][-1]['step_s']:.1f} s a step", flush=True)
    each = [theirs["step_s"] / ours["step_s"] for ours, theirs in zip(*found.values(), strict=True)]
    rows = {name: sorted(runs, key=lambda run: run["step_s"])[len(runs) // 2] for name, runs in found.items()}
    ours, theirs = rows["ours"], rows["published"]
    if abs(ours["loss"] - theirs["loss"]) > (1e-3 if of.precision == "fp32" else 3e-2) * abs(theirs["loss"]):
        raise ValueError(f"ours has loss {ours['loss']}, the published manner {theirs['loss']}: one of them is wrong")
    peak = theirs["rose_bytes"] / ours["rose_bytes"]
    rows["ratios"] = {"examples": statistics.median(each), "each": each, "peak": peak}
    return {**arguments, **rows}


def main(arguments: Sequence[str] | None = None) -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["demo", "published"], help="one of the two questions")
    parser.add_argument("--against", metavar="COMMIT", help="an older commit, to compare the demo with")
    parser.add_argument("--rounds", type=int, default=3, help="of the demo, in turns")
    parser.add_argument("--steps", type=int, default=40, help="of the demo in a round")
    parser.add_argument("--published-rounds", type=int, default=2, help="of the published shape, in turns")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--requests", type=int, default=4)
    parser.add_argument("--tools", type=int, default=20, help="of a request")
    parser.add_argument("--pool", type=int, default=40, help="distinct tools of a batch, as in conf/stage/tool_calling")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--out", type=Path, default=HERE.with_suffix(".json"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    of = parser.parse_args(arguments)
    if of.child:
        call, given = json.loads(of.child)
        print(json.dumps({"demo": demo, "demo_operations": demo_operations, "published": published}[call](**given)))
        return
    from experiments.record import write_json
    from toolformer.evaluation.provenance import PACKAGES, code, version

    rows: dict[str, Any] = {**code(), "packages": {name: version(name) for name in PACKAGES}}
    if of.only != "published":
        with tempfile.TemporaryDirectory() as scratch:
            checkouts = {"ours": ROOT} | ({"against": older(of.against, Path(scratch))} if of.against else {})
            rows["demo"] = demo_rows(checkouts, of.rounds, of.steps, of.threads) | {"before": of.against}
    if of.only != "demo":
        rows["published"] = published_rows(of)
    write_json(of.out, rows)
    print(json.dumps({name: rows[name] for name in ("demo", "published") if name in rows}, indent=1))


if __name__ == "__main__":
    main()
