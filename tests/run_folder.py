"""In: a folder and a seed. Out: a complete run folder with invented numbers, to test the report on.

The numbers come from formulas below and mean nothing; they only have the shape of a real run.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STAGES = {
    "1-schema_autoencoding": ({"rebuild": (6.5, 1.2)}, 300),
    "2-gist_contrast": ({"contrast": (3.4, 0.2), "rebuild": (1.3, 0.9)}, 200),
    "3-tool_calling": ({"call": (4.0, 0.4), "contrast": (0.4, 0.1), "rebuild": (0.9, 0.8)}, 900),
}
EVIL = "<script>alert('tool')</script>"
STRATA = ("small_talk", "near_miss", "tool_missing", "parameter_missing")


def measured(value: float, n: int) -> dict[str, float]:
    """A share with an interval of about the right width."""
    half = 1.96 * math.sqrt(max(value * (1 - value), 0.002) / n)
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": n}


def summary(tsa: float, em: float, fpr: float, n: int = 800, chance: float = 0.125) -> dict[str, Any]:
    """A summary with the columns that a report reads."""
    out = {"tsa": tsa, "em": em, "pf1": min(1.0, em + 0.15), "vr": min(1.0, em + 0.2), "chance": chance}
    found: dict[str, Any] = {name: measured(value, n) for name, value in out.items()}
    found["fpr"] = measured(fpr, 200)
    for index, stratum in enumerate(STRATA):
        found[f"fpr_{stratum}"] = measured(min(1.0, fpr * (0.2 + 0.6 * index)), 50)
    return found


def metrics(reads: bool = True) -> dict[str, Any]:
    """A metrics.json; with ``reads`` false the controls do as well as the real gists."""
    splits: dict[str, Any] = {}
    for s, split in enumerate(("test_seen", "test_held_out", "test_unseen")):
        splits[split] = {}
        for v, variant in enumerate(("plain", "masked")):
            splits[split][variant] = {}
            for d, decoding in enumerate(("free", "constrained", "pointed")):
                tsa = max(0.05, (0.90 + 0.04 * d - 0.03 * s) * (1 if not v else (0.1, 0.35, 0.92)[d]))
                em = tsa * (0.8 - 0.08 * s) * (0.4 if v else 1)
                control = 0.35 - 0.1 * v - 0.05 * d if reads else tsa
                splits[split][variant][decoding] = {
                    "real": summary(tsa, em, 0.06 - 0.02 * d),
                    "foreign": summary(control if not v else (0.02, 0.11, 0.13)[d] if reads else tsa, 0.02, 0.1),
                    "zero": summary(control * 0.8 if not v else (0.0, 0.10, 0.12)[d] if reads else tsa, 0.01, 0.1),
                    "missing": {"tsa": {"value": None, "low": None, "high": None, "n": 0}, "fpr": measured(0.22, 800)},
                }
    for by_variant in splits.values():
        for name, by_decoding in by_variant.items():
            for memory, value in {"real": 0.93, "foreign": 0.14, "zero": 0.12}.items():
                by_decoding["pointed"][memory]["choice"] = measured(value if name == "masked" else 0.9 * value, 400)
    scaling = [
        {
            "tools": n,
            "present": summary(1 - 0.03 * math.log(n), 0.6, 0, 200, 1 / n),
            "absent": {"fpr": measured(0.04 + 0.0006 * n, 200)},
        }
        for n in (5, 10, 20, 50, 100, 200)
    ]
    return {
        "provenance": {"commit": "0123456789abcdef", "seed": 7, "fingerprint": "cafe0123",
                       "command": f"python -m toolformer.curriculum {EVIL}"},
        "splits": splits,
        "composability": {
            "order": {"rows": 200, "changed_decisions": 0, "max_logit_delta": 3.1e-6},
            "scaling": scaling,
            "hot_swap": {"other_gists_identical": True, "rows": 100, "follows_edit": measured(0.87, 100)},
        },
        "timing": {"encode_ms_per_tool": 1.9, "first_token_ms": {"p50": 11.0, "p95": 19.5}},
    }  # fmt: skip


def write_stage(folder: Path, parts: dict[str, tuple[float, float]], steps: int, rng: random.Random) -> None:
    """A metrics.csv as Lightning's CSVLogger writes it: training and validation rows apart, holes between."""
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for step in range(0, steps, 5):
        done = step / steps
        losses = {k: b + (a - b) * math.exp(-6 * done) * rng.uniform(0.85, 1.15) for k, (a, b) in parts.items()}
        row: dict[str, Any] = {"step": step, "train/loss": sum(losses.values()), "lr": 1e-3 * (1 - done)}
        row |= {f"train/{k}": v for k, v in losses.items()}
        row |= {f"gate/layer_{i:02}": math.tanh(0.15 * i * done + rng.uniform(0, 0.02)) for i in range(4)}
        row |= {"gist/norm": 11.0 + done, "gist/std": 1.0, "gist/cosine": 0.9 * math.exp(-3 * done), "grad_norm": 0.9}
        rows.append(row | {"examples_per_second": 210.0, "tokens_per_second": 9100.0})
        if step % 100 == 95:
            loss = sum(losses.values()) * 1.05
            rows.append(
                {"step": step, "validation/tsa": 0.95 * done, "validation/em": 0.6 * done**2, "validation/loss": loss}
            )
    names = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def prediction(index: int, split: str, variant: str, decoding: str, rng: random.Random) -> dict[str, Any]:
    """One answered request, right or wrong in one of the ways there are."""
    names = ["book_train_ticket", "get_ticket_price", EVIL, "cancel_ticket", "list_stations", "get_ticket_status"]
    gold = [{"name": names[0], "arguments": {"origin": "Paddington", "destination": "Exeter St Davids", "seats": 2,
             "date": "2026-03-14"}, "accepted": {"date": ["March 14"]}, "omittable": ["seats"]}]  # fmt: skip
    kind = rng.choice(["right", "value", "tool", "malformed", "none", "called", "two"])
    row: dict[str, Any] = {
        "id": f"row-{index}", "split": split, "variant": variant, "decoding": decoding, "memory": "real",
        "request": f"please book a train ticket from Paddington to Exeter St Davids for 2 people {EVIL} & co",
        "gold": [] if kind == "called" else gold, "tools": names, "text": "<tool_call>\n...",
    }  # fmt: skip
    call = json.loads(json.dumps({"name": names[0], "arguments": gold[0]["arguments"]}))
    if kind == "value":
        call["arguments"] |= {"destination": "Exeter Davis", "class": "first"}
        del call["arguments"]["date"]
    if kind == "malformed":
        row["malformed"] = f"not JSON at 31: {EVIL}"
    else:
        wrong = {"name": EVIL, "arguments": {"what": {"nested": [1, True, None]}}}
        row["predicted"] = {"tool": [wrong], "none": [], "two": [call, wrong]}.get(kind, [call])
    row["outcome"] = {"tsa": kind in ("right", "value"), "em": kind == "right", "fp": kind == "called"}
    return row


def write_run(folder: Path, *, seed: int = 0, rows: int = 20, reads: bool = True, parts: Sequence[str] = ()) -> Path:
    """A run folder with everything, or only with ``parts`` of training, metrics, predictions."""
    rng = random.Random(seed)
    parts = parts or ("training", "metrics", "predictions")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.yaml").write_text("seed: 7\nmodel:\n  num_gists: 8\n  hidden_size: 128\n")
    if "training" in parts:
        for name, (losses, steps) in STAGES.items():
            write_stage(folder / name, losses, steps, rng)
            (folder / name / "finished.json").write_text(json.dumps({"steps": steps, "starts": 1}))
    (folder / "evaluation").mkdir()
    if "metrics" in parts:
        for path in (folder / "metrics.json", folder / "evaluation/metrics.json"):
            path.write_text(json.dumps(metrics(reads)))
    if "predictions" in parts:
        combinations = [(s, v, d) for s in ("test_seen", "test_unseen") for v in ("plain", "masked")
                        for d in ("free", "constrained", "pointed")]  # fmt: skip
        lines = [json.dumps(prediction(i, *c, rng)) for c in combinations for i in range(rows)]
        (folder / "evaluation/predictions.jsonl").write_text("\n".join(lines) + "\n")
    return folder
