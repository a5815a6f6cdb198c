"""In: the folder of a run, of a stage, or of an exported model. Out: the model, its tokenizer and limits, its bias.

``save`` writes a folder that stands alone: the weights and tokenizer as transformers writes them, and ``caller.json``
with what only a ``ToolCaller`` needs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
import yaml

from toolformer.data.prompts import Prompts, load_tokenizer
from toolformer.inference.gist_store import model_fingerprint
from toolformer.model import ToolFormerMicro, load_backbone

STAGE = re.compile(r"(\d+(?:\.\d+)?)-.+")
LIMITS = ("schema_limit", "length_limit")
ALONE = "caller.json"


def load(path: str | Path) -> tuple[ToolFormerMicro, Prompts]:
    """The model of a folder, and its tokenizer under the limits it was trained with.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it holds no trained model, or a tokenizer that does not fit the model.
    """
    backbone = find_backbone(path)
    model, tokenizer = load_backbone(str(backbone)), load_tokenizer(str(backbone))
    if len(tokenizer) > model.config.vocab_size:
        raise ValueError(
            f"{backbone}: the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}; "
            "take the tokenizer that was saved with the weights"
        )
    found = exported(backbone) or (run_settings(path) or {}).get("split", {})
    return model, Prompts(tokenizer, **{key: found[key] for key in LIMITS if key in found}, forms=model.config.forms)


def save(folder: str | Path, model: ToolFormerMicro, prompts: Prompts, no_call_bias: float) -> None:
    """All that ``load`` and ``calibrated_bias`` find again, without the run."""
    model.save_pretrained(folder)
    prompts.tokenizer.save_pretrained(folder)
    alone = {**{key: getattr(prompts, key) for key in LIMITS}, "no_call_bias": no_call_bias}
    (Path(folder) / ALONE).write_text(json.dumps(alone, indent=1) + "\n")


def exported(backbone: Path) -> dict[str, Any] | None:
    """The limits and the bias of a folder that ``save`` wrote; None of any other."""
    file = backbone / ALONE
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text())
        kinds = {**dict.fromkeys(LIMITS, int), "no_call_bias": float}
        return {key: kind(found[key]) for key, kind in kinds.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: not what save_pretrained of a ToolCaller writes ({error!r}); export again"
        ) from error


def find_backbone(path: str | Path) -> Path:
    """The ``save_pretrained`` folder that ``path`` stands for: itself, its backbone, or its last stage's."""
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder; train a model first (make demo), or name another one")
    stages = [(float(match[1]), child) for child in path.iterdir() if (match := STAGE.fullmatch(child.name))]
    for folder in (path, path / "backbone", *(child / "backbone" for _, child in sorted(stages, reverse=True))):
        if (folder / "config.json").is_file():
            return folder.absolute()
    raise ValueError(
        f"{path}: holds no trained model (no config.json, no backbone, no finished stage); finish training"
    )


def usable(device: str | torch.device) -> torch.device:
    """The device, after something was computed there.

    Raises:
        ValueError: this machine has none such, or torch cannot use it.
    """
    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        why = (str(error).splitlines() or [""])[0]
        raise ValueError(f"device is {str(device)!r}: {why}; use cpu, or cuda where there is a GPU") from error
    return torch.device(device)


def run_folder(path: str | Path) -> Path | None:
    """The run that a model's folder belongs to: the nearest folder with a settings.yaml, the stage's run at most."""
    backbone = find_backbone(path)
    return next((f for f in (backbone, *backbone.parents[:2]) if (f / "settings.yaml").is_file()), None)


def run_settings(path: str | Path) -> dict[str, Any] | None:
    """The settings of the run that a model's folder belongs to; None where it belongs to none."""
    folder = run_folder(path)
    if folder is None:
        return None
    try:
        found = yaml.safe_load((folder / "settings.yaml").read_text())
    except yaml.YAMLError as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"{folder / 'settings.yaml'}: not YAML: {why}; restore it from the run") from error
    if not isinstance(found, dict):
        raise ValueError(f"{folder / 'settings.yaml'}: holds {type(found).__name__}, not settings; restore it")
    return found


def calibrated_bias(path: str | Path, model: ToolFormerMicro) -> float:
    """The bias of "no call" that was exported, or that the run's evaluation found for these very weights, else 0."""
    alone = exported(find_backbone(path))
    if alone is not None:
        return alone["no_call_bias"]
    folder = run_folder(path)
    file = None if folder is None else folder / "metrics.json"
    if file is None or not file.is_file():
        return 0.0
    try:
        metrics = json.loads(file.read_text())
        same = metrics["provenance"]["model"] == model_fingerprint(model)
        return float(metrics["calibration"]["no_call_bias"]) if same and "calibration" in metrics else 0.0
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not what an evaluation writes ({error!r}); evaluate again") from error
