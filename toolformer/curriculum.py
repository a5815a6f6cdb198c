"""In: a configuration of all stages. Out: a run folder with every stage, the final weights and their evaluation."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from toolformer.cli import entry
from toolformer.settings import same_data, write_whole


@entry("curriculum")
def main(cfg: DictConfig, folder: Path) -> None:
    """Trains the stages in order, each from the weights of the one before, then evaluates.

    Examples:
      python -m toolformer.curriculum experiment=demo
      python -m toolformer.curriculum experiment=demo model.num_gists=2,4,8 --multirun
      python -m toolformer.curriculum experiment=demo order=[tool_calling] name=no-curriculum
    """
    import torch
    from hydra.utils import instantiate
    from lightning.pytorch.utilities import rank_zero_only

    from toolformer.evaluation import evaluate
    from toolformer.train import build_model, prepare_process, run_stage

    prepare_process(cfg)
    unknown = [name for name in cfg.order if name not in cfg.stages]
    if unknown or not cfg.order:
        raise ValueError(f"order names {unknown or 'no stage'}; the stages are {', '.join(cfg.stages)}")
    source = instantiate(cfg.data, _convert_="object")
    same_data(folder, source.fingerprints())
    weights = cfg.warm_start
    for number, name in enumerate(cfg.order, start=1):
        weights = run_stage(cfg, cfg.stages[name], folder / f"{number}-{name}", source, weights)
    if (folder / "metrics.json").exists():
        print("evaluation: finished before, taken as it is")
        return
    if getattr(rank_zero_only, "rank", 0):  # the other processes of a distributed run have done their part
        return
    model, prompts = build_model(cfg, source, weights)
    device = "cuda" if torch.cuda.is_available() and cfg.trainer.accelerator != "cpu" else "cpu"
    evaluate(model.eval().to(device), prompts, source, folder / "evaluation", **cfg.evaluation)
    write_whole(folder / "metrics.json", (folder / "evaluation" / "metrics.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
