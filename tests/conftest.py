"""In: the environment. Out: one in which no test reaches a network, a hub or a screen; fixtures that many tests use."""

import os
from pathlib import Path

import pytest

os.environ.update(
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    WANDB_CONSOLE="off",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real rows; tests that need it are skipped, with the reason, where there is none."""
    folder = os.environ.get("TOOLFORMER_DATA", "")
    if not folder:
        pytest.skip("TOOLFORMER_DATA is not set: it names the folder of real rows")
    if not Path(folder).is_dir():
        pytest.skip(f"TOOLFORMER_DATA is {folder}, which is no folder")
    return Path(folder)
