"""In: what was evaluated. Out: where its numbers come from: code, command, data, weights, versions."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from toolformer.data.corpus import fingerprint
from toolformer.data.masking import Rows
from toolformer.evaluation.cases import distinct_tools
from toolformer.inference.gist_store import model_fingerprint

PACKAGES = ("torch", "transformers", "lightning", "llguidance", "torchmetrics", "numpy", "scipy")


def provenance(model: torch.nn.Module, rows: Mapping[str, Rows], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything needed to get the same numbers again; ``fingerprint`` is of the very rows that were scored."""
    tools = distinct_tools([row for split in rows.values() for row in split])
    examples = {name: [example for example, _ in split] for name, split in rows.items()}
    return {
        **code(),
        "command": command(sys.argv),
        "fingerprint": fingerprint(tools, examples),
        "model": model_fingerprint(model),
        "settings": dict(settings),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def code() -> dict[str, Any]:
    """The commit of the code, and whether files differ from it; None outside of a repository."""
    folder = Path(__file__).resolve().parents[2]
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):  # no git here, or the code was installed from a package
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def command(argv: list[str]) -> str:
    """The command line as one would type it.

    >>> command(["/somewhere/toolformer/evaluate.py", "checkpoint=outputs/demo", "split.rows=500"])
    'python -m toolformer.evaluate checkpoint=outputs/demo split.rows=500'
    """
    path = Path(argv[0])
    start = f"python -m toolformer.{path.stem}" if path.parent.name == "toolformer" else path.name
    return " ".join([start, *map(shlex.quote, argv[1:])])
