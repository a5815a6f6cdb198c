"""In: a configuration of one stage. Out: a stage folder with checkpoints, curves and the trained ``backbone/``."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from toolformer.cli import entry

if TYPE_CHECKING:
    from toolformer.data.loading import RowSource
    from toolformer.data.prompts import Prompts
    from toolformer.model import ToolFormerMicro


@entry("train")
def main(cfg: DictConfig, folder: Path) -> None:
    """Trains one stage of the curriculum.

    Examples:
      python -m toolformer.train stage=schema_autoencoding
      python -m toolformer.train stage=tool_calling warm_start=outputs/demo/2-gist_contrast/backbone
      python -m toolformer.train stage=gist_contrast stage.module.lr=1e-3,2e-3 --multirun
    """
    from hydra.utils import instantiate

    prepare_process(cfg)
    source = instantiate(cfg.data, _convert_="object")
    backbone = run_stage(cfg, cfg.stage, folder, source, cfg.warm_start)
    print(f"trained weights: {backbone}")


def prepare_process(cfg: DictConfig) -> None:
    """Threads and seeds of this process, before anything is built."""
    import warnings

    import lightning as L
    import torch
    from transformers.utils.logging import disable_progress_bar

    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    disable_progress_bar()
    warnings.filterwarnings("ignore", message="You have overridden `transfer_batch_to_device`")  # on purpose: Stage's
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    L.seed_everything(cfg.seed, workers=True, verbose=False)


def run_stage(
    cfg: DictConfig, stage: DictConfig, folder: Path, source: RowSource, warm_start: str | Path | None
) -> Path:
    """Trains ``stage`` in ``folder`` and returns the folder of its weights; a finished stage is left as it is.

    A stage that was interrupted goes on from its last checkpoint; otherwise it starts from ``warm_start``, or afresh.
    """
    import lightning as L
    from hydra.utils import instantiate

    from toolformer.data.loading import StageData

    backbone = folder / "backbone"
    if (folder / "finished.json").exists():
        print(f"{folder.name}: finished before, taken as it is")
        return backbone
    folder.mkdir(parents=True, exist_ok=True)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    model, prompts = build_model(cfg, source, warm_start)
    model.train()
    batches = instantiate(stage.batches, _convert_="object")(source, prompts, seed=cfg.seed)
    module = instantiate(stage.module, _convert_="object")(model, prompts)
    trainer = instantiate(
        cfg.trainer,
        max_steps=stage.steps,
        max_epochs=-1,
        val_check_interval=min(stage.validate_every, stage.steps) * cfg.trainer.get("accumulate_grad_batches", 1),
        check_val_every_n_epoch=None,
        default_root_dir=str(folder),
        logger=build_loggers(cfg, folder),
        callbacks=build_callbacks(cfg, stage, folder),
        _convert_="object",
    )
    last = folder / "checkpoints" / "last.ckpt"
    data = StageData(batches, validation_rows=stage.validation_rows, workers=cfg.workers)
    trainer.fit(module, data, ckpt_path=str(last) if last.exists() else None)
    if trainer.interrupted or trainer.global_step < stage.steps:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        model.save_pretrained(backbone)
        prompts.tokenizer.save_pretrained(backbone)
        merge_curves(folder)
        report = {"steps": trainer.global_step, **prompts.report}
        (folder / "finished.json").write_text(json.dumps(report, indent=1) + "\n")
    trainer.strategy.barrier()  # no process looks for the weights before they are written
    return backbone


def build_model(cfg: DictConfig, source: RowSource, warm_start: str | Path | None) -> tuple[ToolFormerMicro, Prompts]:
    """Weights and tokenizer: those of ``warm_start`` where given, else what the configuration says."""
    from hydra.utils import instantiate

    from toolformer.data.prompts import Prompts, load_tokenizer
    from toolformer.model import load_backbone

    limits = {"schema_limit": cfg.split.schema_limit, "length_limit": cfg.split.length_limit}
    if warm_start is not None:
        model, tokenizer = load_backbone(str(warm_start)), load_tokenizer(str(warm_start))
        check_shape(cfg.model, model, str(warm_start))
    else:
        tokenizer = instantiate(cfg.tokenizer, _convert_="object")
        tokenizer = tokenizer(source) if callable(tokenizer) and not hasattr(tokenizer, "encode") else tokenizer
        ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        model = instantiate(cfg.model, _convert_="object")(vocab_size=len(tokenizer), **ids)
    if len(tokenizer) > model.config.vocab_size:
        raise ValueError(
            f"{warm_start or 'model'}: the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}; "
            "take the tokenizer that was saved with the weights"
        )
    model.set_attn_implementation(cfg.attention)
    return model, Prompts(tokenizer, **limits, drafts=model.config.drafts)


def check_shape(wanted: DictConfig, model: ToolFormerMicro, path: str) -> None:
    """Weights that are warm-started from must have the shape that the configuration asks for."""
    for key, value in dict(wanted).items():
        key = str(key)
        mine = getattr(model.config, key, value)
        if not key.startswith("_") and key not in ("source", "initializer_range", "gate_init") and mine != value:
            raise ValueError(f"{path}: its {key} is {mine!r}, model.{key} is {value!r}; set model.{key}={mine!r}")


def build_loggers(cfg: DictConfig, folder: Path) -> list[Any]:
    """CSV always; W&B where the logger group says so, under an id that a continued run finds again."""
    from hydra.utils import instantiate
    from lightning.pytorch.loggers import CSVLogger

    loggers: list[Any] = [CSVLogger(str(folder), name="logs", flush_logs_every_n_steps=20)]
    if cfg.logger.wandb is not None:
        id_ = f"{folder.parent.name}-{folder.name}"
        loggers.append(instantiate(cfg.logger.wandb, name=id_, id=id_, resume="allow", save_dir=str(folder)))
        loggers[-1].experiment.config.update(OmegaConf.to_container(cfg, resolve=True), allow_val_change=True)
    return loggers


def build_callbacks(cfg: DictConfig, stage: DictConfig, folder: Path) -> list[Any]:
    """Best and last checkpoints, a progress bar, and early stopping where ``stage.patience`` is set."""
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    from toolformer.stages.progress import StageProgress

    mode = "min" if stage.monitor.endswith("loss") else "max"
    checkpoints = str(folder / "checkpoints")
    callbacks: list[Any] = [
        ModelCheckpoint(checkpoints, "best", monitor=stage.monitor, mode=mode, enable_version_counter=False),
        ModelCheckpoint(checkpoints, "last", every_n_train_steps=stage.checkpoint_every, enable_version_counter=False),
    ]
    if cfg.progress:
        callbacks.append(StageProgress(folder.name))
    if stage.patience is not None:
        callbacks.append(EarlyStopping(stage.monitor, mode=mode, patience=stage.patience))
    return callbacks


def merge_curves(folder: Path) -> None:
    """``metrics.csv`` of the stage out of the logs of all its parts; where parts overlap the later one counts."""
    rows: dict[int, dict[str, str]] = {}
    for part in sorted((folder / "logs").glob("version_*"), key=lambda path: int(path.name.removeprefix("version_"))):
        with (part / "metrics.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                rows.setdefault(int(row["step"]), {}).update({k: v for k, v in row.items() if v})
    columns = sorted({key for row in rows.values() for key in row} - {"step", "epoch"})
    scratch = folder / "metrics.csv.part"
    with scratch.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", *columns], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[step] for step in sorted(rows))
    os.replace(scratch, folder / "metrics.csv")


if __name__ == "__main__":
    main()
