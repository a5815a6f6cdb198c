"""In: a composed configuration. Out: the settings a run stands for, their hash, and the folder which belongs to them.

Same settings, same folder: a run started again resumes there. Different settings never share one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

# Where and how visibly a run happens, not what it computes: these never change a run folder's name.
WHERE = ("hydra", "paths", "logger", "progress", "workers", "threads")
FILE = "settings.yaml"


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    """The settings as plain data, interpolations kept as text.

    A value that comes from the environment (``${oc.env:TOOLFORMER_DATA}``) is thus the same setting on every machine.
    """
    settings = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items() if key not in WHERE}


def settings_hash(cfg: DictConfig) -> str:
    """10 hex digits that name the settings; the order in which keys were written does not matter.

    >>> settings_hash(OmegaConf.create({"seed": 1, "lr": 0.1}))
    '2ccbe222bd'
    """
    return hashlib.sha256(json.dumps(settings_of(cfg), sort_keys=True).encode()).hexdigest()[:10]


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, for every leaf of nested dicts (an empty dict is a leaf).

    >>> flatten({"stage": {"lr": 0.1}, "seed": 0})
    {'stage.lr': 0.1, 'seed': 0}
    """
    if not isinstance(settings, dict) or (prefix and not settings):
        return {prefix: settings}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def claim(folder: Path, cfg: DictConfig) -> None:
    """Writes ``settings.yaml`` into ``folder``, or checks that the one found there says the same.

    Raises:
        ValueError: the folder belongs to other settings; the message names the first one that differs.
    """
    path, settings = folder / FILE, settings_of(cfg)
    if path.exists():
        ours, found = flatten(settings), flatten(yaml.safe_load(path.read_text()))
        for key in sorted(ours.keys() | found.keys()):
            if ours.get(key, "unset") != found.get(key, "unset"):
                raise ValueError(
                    f"{path}: {key} is {found.get(key, 'unset')!r} there and {ours.get(key, 'unset')!r} in this run; "
                    "give this run another name=... or move that folder away"
                )
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    partial.replace(path)


def link(folder: Path, name: str) -> str | None:
    """Points ``<name>`` beside ``folder`` at it: the newest run of that name has a path that stays.

    Returns:
        The name of the folder it pointed at before, None if there was no such link.

    Raises:
        ValueError: something which is not such a link already has that path.
    """
    path = folder.parent / name
    if path.exists() and not path.is_symlink():
        raise ValueError(f"{path}: is a folder or file of its own, not the link to the newest run; move it away")
    before = os.readlink(path) if path.is_symlink() else None
    partial = folder.parent / f".{name}.{os.getpid()}"
    partial.unlink(missing_ok=True)
    partial.symlink_to(folder.name)
    partial.replace(path)
    return before


@contextmanager
def claimed(folder: Path, cfg: DictConfig) -> Generator[None]:
    """The run folder while a job works in it: claimed and linked; taken away if the job fails and left no file."""
    fresh = not folder.exists() or not any(folder.iterdir())
    linked, before = folder.name.startswith(f"{cfg.name}-"), None
    try:
        claim(folder, cfg)
        if linked:
            before = link(folder, cfg.name)
        yield
    except Exception:
        if fresh and not any(path.is_file() and path != folder / FILE for path in folder.rglob("*")):
            shutil.rmtree(folder)
            newest = folder.parent / cfg.name
            if newest.is_symlink() and os.readlink(newest) == folder.name:
                newest.unlink()
                if before is not None and (folder.parent / before).exists():
                    link(folder.parent / before, cfg.name)
        raise
