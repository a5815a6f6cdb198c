"""In: a model, a source of rows, settings. Out: metrics.json and predictions.jsonl in a folder, written at the end.

Splits x names plain or masked x decodings x memories; each distinct tool is encoded once; one progress bar over all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain, product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from toolformer.data.masking import Rows
from toolformer.data.prompts import Prompts
from toolformer.evaluation import composability as composing
from toolformer.evaluation.breakdown import breakdown
from toolformer.evaluation.calibration import calibrate
from toolformer.evaluation.cases import (
    MEMORIES,
    VARIANTS,
    Gists,
    SplitSource,
    cases,
    distinct_tools,
    split_rows,
    varied,
)
from toolformer.evaluation.evidence import reads_gists
from toolformer.evaluation.provenance import provenance
from toolformer.evaluation.scoring import judged, prediction, readable, summarised
from toolformer.evaluation.timing import timing
from toolformer.inference.engine import DECODINGS, Decoding, Engine, answered
from toolformer.inference.naive import NaiveEngine
from toolformer.model.modeling import ToolFormerMicro
from toolformer.reporting.tables import table

ENGINES = {"cached": Engine, "naive": NaiveEngine}
COMPOSABILITY = {"tools": (5, 10, 20, 50, 100, 200), "rows": 100}


def evaluate(
    model: ToolFormerMicro,
    prompts: Prompts,
    source: SplitSource,
    folder: str | Path,
    *,
    splits: Sequence[str] = ("test_seen", "test_held_out", "test_unseen"),
    rows: int = 1000,
    tools_per_request: int = 8,
    masked_rows: int | None = None,
    control_rows: int = 300,
    calibration_rows: int = 400,
    most_false: float = 0.1,
    no_call_bias: float | None = None,
    variants: Sequence[str] = VARIANTS,
    decodings: Sequence[str] = DECODINGS,
    memories: Sequence[str] = MEMORIES,
    leave_out: Sequence[str] = (),
    composability: Mapping[str, Any] = COMPOSABILITY,
    timing_rows: int = 20,
    engine: str = "cached",
    batch_size: int = 64,
    max_new_tokens: int = 192,
    most_calls: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Scores the model, writes what was found and prints it as a table.

    Args:
        model: in the dtype and on the device it shall run in; it is put into eval mode meanwhile.
        prompts: its tokenizer and limits.
        source: where the frozen splits come from.
        folder: where ``metrics.json`` and ``predictions.jsonl`` go, each in one move.
        splits: names of frozen splits; composability and timing use test_unseen, or the last one.
        rows: of each split, as far as it has them.
        tools_per_request: tools on offer in each row.
        masked_rows: the first so many rows are answered under masked names too; None = all.
        control_rows: the first so many rows are also answered under the other memories.
        calibration_rows: validation rows that set the pointer's bias of "no call"; 0 = take ``no_call_bias``.
        most_false: share of the validation rows without a call that may get one under that bias.
        no_call_bias: what an earlier evaluation of these weights has found; None = 0.
        variants: plain, masked (each row alone, under fresh random names).
        decodings: free, constrained, pointed; pointed is left out where the model has no pointer.
        memories: real, foreign, zero, missing.
        leave_out: patterns of split/variant/decoding/memory that are not scored, e.g. ``test_seen/masked/*/*``.
        composability: ``tools``, the numbers of tools on offer, and ``rows``; 0 rows = leave it out.
        timing_rows: requests that are timed one by one; 0 = none.
        engine: cached, or naive: recomputes everything for each token; the same answers, to compare with.
        batch_size: requests decoded together.
        max_new_tokens: a longer answer is cut there, and counted as truncated.
        most_calls: calls in one answer.
        seed: of masked names, foreign gists, orders, edits and the bootstrap.
        progress: one bar over all answers.
    """
    passed = locals()
    settings = {
        k: _plain(v) for k, v in passed.items() if k not in ("model", "prompts", "source", "folder", "progress")
    }
    _check(settings)
    if model.pointer is None:
        settings["decodings"] = [name for name in settings["decodings"] if name != "pointed"]
        if not settings["decodings"]:
            raise ValueError("evaluation.decodings is ['pointed'], the model has no pointer; use free or constrained")
    _plan(settings)
    found = {name: split_rows(source, name, rows, tools_per_request, seed) for name in splits}
    training = model.training
    model.eval()
    try:
        limits = {"batch_size": batch_size, "max_new_tokens": max_new_tokens, "most_calls": most_calls}
        writer = ENGINES[engine](model, prompts, **limits, no_call_bias=no_call_bias or 0.0)
        metrics: dict[str, Any] = {"provenance": provenance(model, found, settings)}
        if "pointed" in settings["decodings"] and calibration_rows:
            validation = split_rows(source, "validation", calibration_rows, tools_per_request, seed)
            metrics["calibration"] = calibrate(writer, readable(writer, validation), most_false=most_false)
            writer.no_call_bias = metrics["calibration"]["no_call_bias"]
        with tqdm(total=_answers(found, settings), unit="answer", disable=not progress, smoothing=0.05) as bar:
            scores, details, lines = _score_all(writer, found, settings, bar, source.selects_only)
            last = readable(writer, found["test_unseen" if "test_unseen" in found else list(found)[-1]])
            metrics |= {"splits": scores, "breakdown": details, **_beyond(writer, last, settings, bar)}
    finally:
        model.train(training)
    _write(Path(folder), metrics, lines)
    print(console(metrics, folder), flush=True)
    return metrics


def console(metrics: Mapping[str, Any], folder: str | Path) -> str:
    """What a person wants to see at the end: the table, whether the gists are read, where the files are."""
    verdict = reads_gists(metrics)[1]
    place = Path(folder)
    shown = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
    return f"{table(metrics)}\n\n{verdict}\nmetrics and predictions: {shown}"


def _plain(value: Any) -> Any:
    """Settings as plain data, whatever kind of mapping or list they came in."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _check(settings: Mapping[str, Any]) -> None:
    """Refuses what cannot be evaluated, before anything is computed."""
    for key, allowed in (("variants", VARIANTS), ("decodings", DECODINGS), ("memories", MEMORIES)):
        wrong = [name for name in settings[key] if name not in allowed]
        if wrong or not settings[key]:
            raise ValueError(f"evaluation.{key} is {settings[key]}; use some of {', '.join(allowed)}")
    if settings["engine"] not in ENGINES:
        raise ValueError(f"evaluation.engine is {settings['engine']!r}; use {' or '.join(ENGINES)}")
    if not settings["splits"]:
        raise ValueError("evaluation.splits is []; name at least one split, e.g. test_unseen")
    if set(settings["composability"]) != {"tools", "rows"}:
        raise ValueError(f"evaluation.composability is {settings['composability']}; it has tools and rows")
    numbers = ("rows", "tools_per_request", "batch_size", "max_new_tokens", "most_calls")
    for key in (*numbers, "masked_rows", "control_rows", "calibration_rows", "timing_rows"):
        if settings[key] is not None and settings[key] < (least := int(key in numbers)):
            raise ValueError(f"evaluation.{key} is {settings[key]}; it must be at least {least}")


def _rows(rows: Rows, variant: str, memory: str, settings: Mapping[str, Any]) -> Rows:
    """Which rows are answered under one memory: a prefix, so that all memories share requests."""
    rows = rows[: settings["masked_rows"]] if variant == "masked" else rows
    return rows if memory == "real" else rows[: settings["control_rows"]]


def _score_all(
    engine: Engine, found: Mapping[str, Rows], settings: Mapping[str, Any], bar: tqdm, selects_only: frozenset[str]
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Every split in every variant; under plain names also by source and stratum; and all predictions."""
    scores: dict[str, Any] = {}
    details: dict[str, Any] = {}
    lines = []
    for (name, variant), wanted in _plan(settings).items():
        bar.set_description(f"{name} {variant}")
        scored = _score(engine, found[name], variant, wanted, settings, bar, selects_only)
        scores.setdefault(name, {})[variant], inner, predictions = scored
        if variant == "plain":
            details[name] = inner
        lines += [{"split": name, "variant": variant, **line} for line in predictions]
    return scores, details, lines


def _plan(settings: Mapping[str, Any]) -> dict[tuple[str, str], dict[Decoding, list[str]]]:
    """By split and variant: the decodings that are scored, each with its memories."""
    plan: dict[tuple[str, str], dict[Decoding, list[str]]] = {}
    unused = set(settings["leave_out"])
    keys = ("splits", "variants", "decodings", "memories")
    for split, variant, decoding, memory in product(*(settings[key] for key in keys)):
        matching = {p for p in settings["leave_out"] if fnmatchcase(f"{split}/{variant}/{decoding}/{memory}", p)}
        unused -= matching
        if not matching:
            plan.setdefault((split, variant), {}).setdefault(decoding, []).append(memory)
    if unused:
        raise ValueError(
            f"evaluation.leave_out has {min(unused)!r}, which matches nothing; "
            "patterns are split/variant/decoding/memory, e.g. test_seen/masked/*/*"
        )
    return plan


def _score(
    engine: Engine,
    split: Rows,
    variant: str,
    wanted: Mapping[Decoding, Sequence[str]],
    settings: Mapping[str, Any],
    bar: tqdm,
    selects_only: frozenset[str],
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """One split in one variant: a summary per decoding and memory, each decoding broken down, and the predictions."""
    rows = varied(_rows(split, variant, "real", settings), variant, settings["seed"])
    gists = Gists(engine, distinct_tools(rows))
    metrics: dict[str, Any] = {}
    details: dict[str, Any] = {}
    lines = []
    for decoding, memories in wanted.items():
        metrics[decoding] = {}
        asking = {
            memory: cases(_rows(rows, variant, memory, settings), memory, gists.tools, settings["seed"])
            for memory in memories
        }
        requests = [gists.request(case) for asked in asking.values() for case in asked]
        # all memories in one call: the few answers that take long are waited for once
        written = iter(answered(engine, requests, decoding, bar.update))
        for memory, asked in asking.items():
            answers = [next(written) for _ in asked]
            judgements = [judged(case, answer, selects_only) for case, answer in zip(asked, answers, strict=True)]
            metrics[decoding][memory] = summarised(asked, answers, judgements, settings["seed"])
            if memory == "real":
                details[decoding] = breakdown([(c.example, row) for c, row in zip(asked, judgements, strict=True)])
            for case, answer, row in zip(asked, answers, judgements, strict=True):
                lines.append({"decoding": decoding, "memory": memory, **prediction(case, answer, row)})
    return metrics, details, lines


def _beyond(engine: Engine, split: Rows, settings: Mapping[str, Any], bar: tqdm) -> dict[str, Any]:
    """Composability and timing."""
    out: dict[str, Any] = {}
    wanted = settings["composability"]
    rows = split[: max(wanted["rows"], settings["timing_rows"])]
    if not rows:
        return out
    bar.set_description("composability")
    gists = Gists(engine, distinct_tools(split if wanted["rows"] else rows))
    if wanted["rows"]:
        out["composability"] = composing.composability(
            engine,
            split[: wanted["rows"]],
            gists,
            tools=wanted["tools"],
            seed=settings["seed"],
            progress=bar.update,
        )
    if settings["timing_rows"]:
        bar.set_description("timing")
        timed = split[: settings["timing_rows"]]
        requests = [gists.request(case) for case in cases(timed, "real", [], 0)]
        decoding = settings["decodings"][-1]
        out["timing"] = timing(engine, requests, distinct_tools(timed)[:64], decoding)
        bar.update(len(timed))
    return out


def _answers(found: Mapping[str, Rows], settings: Mapping[str, Any]) -> int:
    """How many answers will be written, at most."""
    total = 0
    for (name, variant), wanted in _plan(settings).items():
        for memory in chain(*wanted.values()):
            chosen = _rows(_rows(found[name], variant, "real", settings), variant, memory, settings)
            total += sum(bool(e.calls) for e, _ in chosen) if memory == "missing" else len(chosen)
    last = found["test_unseen" if "test_unseen" in found else list(found)[-1]]
    wanted = settings["composability"]
    return total + composing.answers_needed(last[: wanted["rows"]], wanted["tools"]) + settings["timing_rows"]


def _write(folder: Path, metrics: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> None:
    """Both files, each whole or not at all; metrics.json last, so where it is the rows are too."""
    folder.mkdir(parents=True, exist_ok=True)
    first = ("id", "split", "variant", "decoding", "memory")
    rows = ({**{key: line[key] for key in first}, **line} for line in lines)
    _replace(folder / "predictions.jsonl", (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    _replace(folder / "metrics.json", [json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False) + "\n"])


def _replace(path: Path, parts: Iterable[str]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
