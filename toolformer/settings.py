"""In: a composed configuration. Out: the settings a run stands for, their hash, and the folder which belongs to them.

Same settings, same folder: a run started again resumes there. Different settings or data never share one, and no two
processes work in one at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

# Where and how visibly a run happens, not what it computes: these never change a run folder's name.
WHERE = ("hydra", "paths", "logger", "progress", "workers", "threads")
FILE, DATA, LOCK = "settings.yaml", "data.json", ".lock"


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
    write_whole(path, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def write_whole(path: Path, text: str) -> None:
    """A file with all of ``text``, or as it was before: a kill in between leaves no half of it."""
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def same_data(folder: Path, fingerprints: Mapping[str, str]) -> None:
    """Writes ``data.json`` into a run folder, or checks that the files it was begun with are still the same.

    Raises:
        ValueError: one of them has changed; the message names it.
    """
    path = folder / DATA
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        for name in sorted(found.keys() | fingerprints.keys()):
            before, now = found.get(name, "absent"), fingerprints.get(name, "absent")
            if before != now:
                raise ValueError(
                    f"{path}: {name} was {before} when this run began and is {now} now: its data has changed; put the "
                    "old file back, or give the run on the new data another name=..."
                )
    elif first_process():
        write_whole(path, json.dumps(dict(fingerprints), indent=1) + "\n")


def first_process() -> bool:
    """Whether this process speaks for a run on several; launchers tell each one its place by the environment."""
    told = [os.environ[key] for key in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK") if key in os.environ]
    return not told or told[0] == "0"


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """Within, no other process can work in ``folder``; the lock goes with the process, however it ends.

    Raises:
        ValueError: another one does.
    """
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        os.register_at_fork(after_in_child=file.close)  # a worker that outlives this process must not keep the lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ValueError(
                f"{folder}: {file.read() or 'another process'} works in this run folder; wait for it or stop it"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


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
    """The run folder while a job works in it: claimed and linked; taken away if the job fails and left no file.

    On several processes the first one does so for all.
    """
    if not first_process():
        if (folder / FILE).exists():
            claim(folder, cfg)
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        fresh = not any(path.name != LOCK for path in folder.iterdir())
        linked, before = folder.name.startswith(f"{cfg.name}-"), None
        for half in folder.rglob("*.part"):  # of a process that was killed
            shutil.rmtree(half) if half.is_dir() else half.unlink()
        try:
            claim(folder, cfg)
            if linked:
                before = link(folder, cfg.name)
            yield
        except Exception:
            if fresh and not any(path.is_file() and path.name not in (FILE, DATA, LOCK) for path in folder.rglob("*")):
                take_away(folder, cfg.name, before)
            raise


def take_away(folder: Path, name: str, before: str | None) -> None:
    """Removes a run folder and points the link at the run which it pointed at before."""
    shutil.rmtree(folder)
    newest = folder.parent / name
    if newest.is_symlink() and os.readlink(newest) == folder.name:
        newest.unlink()
        if before is not None and (folder.parent / before).exists():
            link(folder.parent / before, name)
