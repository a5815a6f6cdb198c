"""In: run folders. Out: one HTML page with PNGs per run, and a page that compares them where there are several."""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from toolformer.cli import entry
from toolformer.settings import FILE, LOCK


@entry("report")
def main(cfg: DictConfig, folder: Path) -> None:
    """Shows what a run learned: writes <run>/report/index.html, one self-contained page, and PNGs beside it.

    Of several runs it writes each one's page and, in a folder of its own, a page that sets them side by side.

    Examples:
      python -m toolformer.report run=outputs/demo
      python -m toolformer.report run=outputs/curriculum
      python -m toolformer.report 'run=[outputs/demo,outputs/gists-4]'
    """
    from toolformer.reporting.comparison import write_comparison
    from toolformer.reporting.page import write_report

    runs = OmegaConf.to_container(cfg.run) if OmegaConf.is_list(cfg.run) else [cfg.run]
    assert isinstance(runs, list)
    if not runs:
        raise ValueError("run is []; name at least one run folder: run=outputs/demo")
    for run in runs:
        print(f"report: {write_report(str(run))}", flush=True)
    if len(runs) > 1:
        print(f"comparison: {write_comparison([str(run) for run in runs], folder)}", flush=True)
    elif {path.name for path in folder.iterdir()} <= {FILE, LOCK}:
        shutil.rmtree(folder)  # a single run's page lies in the run's own folder


if __name__ == "__main__":
    main()
