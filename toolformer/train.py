"""In: a configuration of one stage. Out: a stage folder with checkpoints, curves and the trained ``backbone/``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from toolformer import stopping
from toolformer.cli import entry
from toolformer.settings import same_data, write_whole

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
    same_data(folder, source.fingerprints())
    backbone = run_stage(cfg, cfg.stage, folder, source, cfg.warm_start)
    print(f"trained weights: {backbone}")


def prepare_process(cfg: DictConfig) -> None:
    """Threads, seeds and signals of this process, before anything is built."""
    import warnings

    import lightning as L
    import torch
    from transformers.utils.logging import disable_progress_bar

    stopping.listen()
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    disable_progress_bar()
    warnings.filterwarnings("ignore", message="You have overridden `transfer_batch_to_device`")  # on purpose: Stage's
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*sync_dist=True")  # every process validates all rows
    L.seed_everything(cfg.seed, workers=True, verbose=False)


def run_stage(
    cfg: DictConfig, stage: DictConfig, folder: Path, source: RowSource, warm_start: str | Path | None
) -> Path:
    """Trains ``stage`` in ``folder`` and returns the folder of its weights; a finished stage is left as it is.

    A stage that was interrupted goes on from its last checkpoint; otherwise it starts from ``warm_start``, or afresh.

    Raises:
        Stopped: a signal came, or a process that prepares batches was killed; the run can go on.
    """
    import lightning as L
    from hydra.utils import instantiate

    from toolformer.data.loading import StageData
    from toolformer.stages.checkpoints import WholeFiles, newest
    from toolformer.stages.sharding import whole_weights

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
        val_check_interval=min(stage.validate_every, stage.steps) * cfg.trainer.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        default_root_dir=str(folder),
        logger=build_loggers(cfg, folder),
        callbacks=build_callbacks(cfg, stage, folder),
        plugins=WholeFiles(),
        _convert_="object",
    )
    data = StageData(batches, validation_rows=stage.validation_rows, workers=cfg.workers)
    with stopping.deferred():
        try:
            trainer.fit(module, data, ckpt_path=newest(folder / "checkpoints"))
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            reason = f"a process that prepares batches was killed ({str(error).splitlines()[0]})"
            raise stopping.Stopped(f"{reason}; {stopping.CONTINUE}; fewer workers=... need less memory") from error
        weights = whole_weights(model, module.scalars)
        if trainer.is_global_zero:
            finish(folder, model, weights, prompts, trainer.global_step)
        trainer.strategy.barrier()  # no process looks for the weights before they are written
    return backbone


def finish(folder: Path, model: ToolFormerMicro, weights: dict[str, Any], prompts: Prompts, steps: int) -> None:
    """Weights, curve and ``finished.json``, which comes last: without it all of this is done again."""
    from toolformer.stages.curve import write_metrics

    backbone, part = folder / "backbone", folder / "backbone.part"
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part, state_dict=weights)
    prompts.tokenizer.save_pretrained(part)
    shutil.rmtree(backbone, ignore_errors=True)
    part.rename(backbone)
    report = {"steps": steps, "starts": write_metrics(folder), **prompts.report}
    write_whole(folder / "finished.json", json.dumps(report, indent=1) + "\n")


def build_model(cfg: DictConfig, source: RowSource, warm_start: str | Path | None) -> tuple[ToolFormerMicro, Prompts]:
    """Weights and tokenizer: those of ``warm_start`` where given, else what the configuration says."""
    from hydra.utils import instantiate

    from toolformer.data.prompts import Prompts, load_tokenizer
    from toolformer.inference.folders import find_backbone
    from toolformer.model import load_backbone

    limits = {"schema_limit": cfg.split.schema_limit, "length_limit": cfg.split.length_limit}
    if warm_start is not None:
        if Path(warm_start).is_dir():  # else a hub id
            warm_start = find_backbone(warm_start)
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
    return model, Prompts(tokenizer, **limits, forms=model.config.forms)


def check_shape(wanted: DictConfig, model: ToolFormerMicro, path: str) -> None:
    """Weights that are warm-started from must have the shape that the configuration asks for."""
    for key, value in dict(wanted).items():
        key = str(key)
        mine = getattr(model.config, key, value)
        if not key.startswith("_") and key not in ("source", "initializer_range", "gate_init") and mine != value:
            raise ValueError(f"{path}: its {key} is {mine!r}, model.{key} is {value!r}; set model.{key}={mine!r}")


def build_loggers(cfg: DictConfig, folder: Path) -> list[Any]:
    """The curve always; W&B where the logger group says so, under an id that a continued run finds again."""
    from hydra.utils import instantiate

    from toolformer.stages.curve import Curve

    loggers: list[Any] = [Curve(folder)]
    if cfg.logger.wandb is not None:
        id_ = f"{folder.parent.name}-{folder.name}"
        loggers.append(instantiate(cfg.logger.wandb, name=id_, id=id_, resume="allow", save_dir=str(folder)))
        loggers[-1].log_hyperparams(OmegaConf.to_container(cfg, resolve=True))
    return loggers


def build_callbacks(cfg: DictConfig, stage: DictConfig, folder: Path) -> list[Any]:
    """Checkpoints, a progress bar, and early stopping where ``stage.patience`` is set."""
    from lightning.pytorch.callbacks import EarlyStopping

    from toolformer.stages.checkpoints import Checkpoints
    from toolformer.stages.progress import StageProgress

    mode = "min" if stage.monitor.endswith("loss") else "max"
    callbacks: list[Any] = [
        Checkpoints(folder / "checkpoints", every=stage.checkpoint_every, monitor=stage.monitor, mode=mode)
    ]
    if cfg.progress:
        callbacks.append(StageProgress(folder.name))
    if stage.patience is not None:
        callbacks.append(EarlyStopping(stage.monitor, mode=mode, patience=stage.patience))
    return callbacks


if __name__ == "__main__":
    main()
