"""In: a trained model's folder. Out: a run folder with metrics.json and predictions.jsonl, and a table to read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from toolformer.cli import entry
from toolformer.overrides import CONF


@entry("evaluate")
def main(cfg: DictConfig, folder: Path) -> None:
    """Scores a trained model on splits it never saw, under controls that show whether it reads its gists.

    The data and the limits are those the checkpoint's run was trained with, unless data=... or split=... names others.

    Examples:
      python -m toolformer.evaluate checkpoint=outputs/demo
      python -m toolformer.evaluate checkpoint=outputs/demo/3-tool_calling evaluation.rows=200 'evaluation.decodings=[pointed]'
      python -m toolformer.evaluate checkpoint=some/save_pretrained/folder data=toolworld split=standard
      python -m toolformer.evaluate checkpoint=outputs/demo rows=mine.jsonl   # your own requests: {"tools", "messages", "calls"}
    """  # noqa: E501
    import torch
    from hydra.utils import instantiate
    from transformers.utils import logging

    from toolformer.evaluation import evaluate
    from toolformer.inference.folders import calibrated_bias, find_backbone, load, usable

    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    logging.disable_progress_bar()
    cfg = with_run_settings(with_own_rows(cfg))
    source = instantiate(cfg.data, _convert_="object")
    print(f"model: {find_backbone(cfg.checkpoint)}", flush=True)
    model, prompts = load(cfg.checkpoint)
    prompts.schema_limit, prompts.length_limit = cfg.split.schema_limit, cfg.split.length_limit
    model.config._attn_implementation = cfg.attention
    device = cfg.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if cfg.evaluation.no_call_bias is None and not cfg.evaluation.calibration_rows:
        cfg.evaluation.no_call_bias = calibrated_bias(cfg.checkpoint, model)
    evaluate(model.to(usable(device)), prompts, source, folder / "evaluation", **cfg.evaluation)
    shutil.copy(folder / "evaluation" / "metrics.json", folder / "metrics.json")


def with_own_rows(cfg: DictConfig) -> DictConfig:
    """Where ``rows`` names a file it is the one split: nothing to calibrate on, no other tools to borrow gists of."""
    if cfg.rows is None:
        return cfg
    from toolformer.data.own_rows import SPLIT

    own = {"splits": [SPLIT], "calibration_rows": 0, "composability": {"tools": [], "rows": 0}, "leave_out": []}
    own["memories"] = [memory for memory in cfg.evaluation.memories if memory != "foreign"]
    data = {"_target_": "toolformer.data.own_rows.OwnRows", "path": cfg.rows}
    filled = cfg.copy()
    OmegaConf.set_struct(filled, False)
    filled.data = data
    for key, value in own.items():
        filled.evaluation[key] = value
    return filled


def with_run_settings(cfg: DictConfig) -> DictConfig:
    """The configuration with the groups ``data`` and ``split`` of the checkpoint's run where none were chosen."""
    from toolformer.inference.folders import LIMITS, exported, find_backbone, run_settings

    run = run_settings(cfg.checkpoint) or {}
    if alone := exported(find_backbone(cfg.checkpoint)):  # an export knows the limits and not the data
        standard: dict[str, Any] = yaml.safe_load((CONF / "split" / "standard.yaml").read_text())
        run = {"split": {**standard, **{key: alone[key] for key in LIMITS}}, **run}
    filled = cfg.copy()
    OmegaConf.set_struct(filled, False)
    for group, fallback in (("data", "toolworld"), ("split", "standard")):
        if filled[group] is None:
            if group not in run:
                raise ValueError(
                    f"{cfg.checkpoint}: no settings.yaml says which {group} it was trained with; "
                    f"add {group}=..., e.g. {group}={fallback}"
                )
            filled[group] = run[group]
    return filled


if __name__ == "__main__":
    main()
