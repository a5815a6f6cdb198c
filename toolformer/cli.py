"""In: a command line. Out: a composed configuration and a run folder, or one line on stderr that says what is wrong.

Hydra composes; this module adds what people need around it: help, suggestions for mistyped keys, run folders named by
their settings, and errors in one line. It imports no torch, so ``--help`` and mistakes are answered at once.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from toolformer.overrides import CONF, check
from toolformer.settings import claimed, flatten, settings_hash, settings_of
from toolformer.stopping import Stopped

USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException)
Task = Callable[[DictConfig, Path], None]


class Reported(Exception):
    """A job failed and has already said so on stderr."""


def entry(config_name: str) -> Callable[[Task], Callable[..., None]]:
    """Makes ``task(cfg, folder)`` a command configured by ``conf/<config_name>.yaml``.

    The task's docstring is the command's help. The command takes an optional argument list (default: ``sys.argv[1:]``),
    returns nothing, and leaves with ``SystemExit(2)`` after one line on stderr where the user can mend what is wrong:
    any ``ValueError``, ``OSError`` or configuration error. ``TOOLFORMER_DEBUG=1`` shows the traceback instead.
    """

    def wrap(task: Task) -> Callable[..., None]:
        def main(argv: Sequence[str] | None = None) -> None:
            OmegaConf.register_new_resolver("settings_hash", lambda *, _root_: settings_hash(_root_), replace=True)
            arguments = list(sys.argv[1:] if argv is None else argv)
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands exceptions over instead of printing and exiting
            try:
                run(task, config_name, arguments)
            except Reported:
                raise SystemExit(2) from None
            except USER_ERRORS as error:
                fail(error)
            except Stopped as stopped:
                print(stopped.line, file=sys.stderr, flush=True)
                raise
            except KeyboardInterrupt:
                print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
                raise SystemExit(130) from None

        main.__doc__, main.__module__ = task.__doc__, task.__module__
        return main

    return wrap


def run(task: Task, config_name: str, arguments: list[str]) -> None:
    """Checks the command line, then either shows the help or lets Hydra run the jobs."""
    if not CONF.is_dir():
        raise FileNotFoundError(f"{CONF}: no such folder; install from a clone (pip install -e .), which holds conf/")
    parser = get_args_parser()
    parser.error = lambda message: _refuse_flag(message)  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(arguments)
    flags = list(arguments)
    for override in args.overrides:
        flags.remove(override)
    arguments = [*flags, *args.overrides]  # Hydra reads them only where no flag stands between settings
    name = args.config_name or config_name
    if not args.hydra_help and not args.shell_completion:
        searchpath = [f"hydra.searchpath=[file://{Path(args.config_dir).resolve()}]"] if args.config_dir else []
        cfg = check(name, args.overrides, searchpath)
        if args.help:
            print(help_text(task, name, cfg))
            return
    failures: list[BaseException] = []
    saved = sys.argv
    sys.argv = [saved[0], *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(_job(task, failures))()
    finally:
        sys.argv = saved
    if failures:
        raise Reported from failures[0]


def _job(task: Task, failures: list[BaseException]) -> Callable[[DictConfig], None]:
    """One job of Hydra's. A failed one says so and is put into ``failures``; the other jobs of a sweep go on."""
    parent = os.getpid()

    @functools.wraps(task)
    def job(cfg: DictConfig) -> None:
        state = HydraConfig.get()
        folder = Path(state.runtime.output_dir)
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        quiet = logging.getLogger("lightning.pytorch.utilities.rank_zero")  # its tips and device lists
        quiet.setLevel(logging.WARNING)
        try:
            with claimed(folder, cfg):
                for key in [key for key, value in flatten(settings_of(cfg)).items() if value == "???"]:
                    raise ValueError(f"{key} is not set and has no default; add {key}=... (--help shows examples)")
                print(f"run folder: {shown}", flush=True)
                task(cfg, folder)
        except Exception as error:
            if debug() or not mendable(error):
                raise
            place = f"job {state.job.num} ({shown}): " if state.mode == RunMode.MULTIRUN else ""
            print(f"error: {place}{one_line(error)}", file=sys.stderr, flush=True)
            if os.getpid() != parent:  # a launcher with processes of its own: only an exception finds its way back
                raise Reported(str(shown)) from error
            failures.append(error)
        finally:
            if "wandb" in sys.modules:  # else the next job of a sweep would log into this one's run
                sys.modules["wandb"].finish()

    return job


def mendable(error: BaseException) -> bool:
    """Whether the user can mend it: our own refusals, and those of Hydra and Lightning."""
    return isinstance(error, USER_ERRORS) or type(error).__name__ == "MisconfigurationException"


def debug() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get("TOOLFORMER_DEBUG", "") not in ("", "0")


def fail(error: BaseException) -> NoReturn:
    """Ends the process as a user's mistake does: one line on stderr, exit code 2."""
    if debug():
        raise error
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
    raise SystemExit(2) from None


def one_line(error: BaseException) -> str:
    """The message that helps: of Hydra's wrappers the innermost cause, with the place in the configuration."""
    place = next((line for line in str(error).splitlines() if line.startswith("full_key: ")), "")
    while isinstance(error, HydraException) and error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif not mendable(error):
        text = f"{type(error).__name__}: {text}"
    noise = ("full_key:", "object_type=")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(noise)]
    if "hydra/launcher" in text:
        lines.append("(joblib and submitit need: pip install -e '.[launchers]')")
    prefix = f"{place.removeprefix('full_key: ')}: " if place else ""
    return prefix + (" ".join(lines) or type(error).__name__)


def _refuse_flag(message: str) -> NoReturn:
    raise ValueError(f"{message}; settings are written key=value, without dashes (--help lists them)")


def help_text(task: Task, config_name: str, cfg: DictConfig) -> str:
    """What the command does (the task's docstring), the groups with their options, and all settings."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    choices = cfg.hydra.runtime.choices
    keys = [key for key in reversed(list(choices)) if not key.startswith("hydra/")]
    width = max(map(len, keys), default=0)
    groups = [f"  {key:<{width}}  {_options(key)}   [{choices[key] or 'none'}]" for key in keys]
    settings = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(settings, dict)
    settings.pop("hydra")
    body = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).rstrip()
    return "\n".join(
        [
            inspect.cleandoc(task.__doc__ or ""),
            "",
            "Groups (group=option chooses one; in brackets: chosen now)",
            *groups,
            "",
            "Settings (key=value changes one, a.b=value a nested one, a=1,2 with --multirun tries both)",
            *(f"  {line}" for line in body.splitlines()),
            "",
            f"Defaults come from conf/{config_name}.yaml and the groups' files conf/<group>/<option>.yaml; later wins:",
            "parts < stage < experiment < sweep < command line.",
            "--cfg job shows the composed configuration, --info searchpath where it was looked for, --hydra-help",
            "Hydra's own flags. TOOLFORMER_DEBUG=1 shows tracebacks.",
        ]
    )


def _options(key: str) -> str:
    folder = CONF / key.split("@")[0]
    return " ".join(sorted(path.stem for path in folder.glob("*.yaml")))
