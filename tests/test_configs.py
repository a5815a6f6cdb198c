"""In: every file under conf/. Out: whether each composes, each target exists, and each key is read by someone."""

import ast
import dataclasses
import inspect
import itertools
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.utils import get_object
from omegaconf import OmegaConf

from toolformer.cli import CONF
from toolformer.overrides import keys_of
from toolformer.settings import settings_hash

ENTRIES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "base")
FILES = sorted(CONF.rglob("*.yaml"))
SPECIAL = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")
LAUNCHERS = {"joblib": "joblib", "slurm": "submitit"}  # options that need a plugin, and the package it brings along


@pytest.fixture(autouse=True, scope="module")
def _resolvers():
    OmegaConf.register_new_resolver("settings_hash", lambda *, _root_: settings_hash(_root_), replace=True)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@cache
def compose(entry: str, *overrides: str) -> Any:
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return hydra.compose(entry, list(overrides), return_hydra_config=True)


def settings(entry: str, *overrides: str) -> dict[str, Any]:
    return {k: v for k, v in OmegaConf.to_container(compose(entry, *overrides)).items() if k != "hydra"}


def groups(entry: str) -> list[str]:
    return [key for key in compose(entry).hydra.runtime.choices if not key.startswith("hydra/")]


def choices() -> Iterator[tuple[str, str]]:
    """Every entry, every option of each group (in one entry that has it), and stage x data x experiment."""
    seen: set[str] = set()
    for entry in ENTRIES:
        yield entry, ""
        for group in groups(entry):
            for option in options(group.split("@")[0]):
                available = option not in LAUNCHERS or find_spec(LAUNCHERS[option]) is not None
                if available and f"{group}={option}" not in seen:
                    seen.add(f"{group}={option}")
                    yield entry, f"{group}={option}"
    for stage, data, experiment in itertools.product(options("stage"), options("data"), options("experiment")):
        yield "train", f"stage={stage} data={data} experiment={experiment}"
    for data, experiment in itertools.product(options("data"), options("experiment")):
        yield "curriculum", f"data={data} experiment={experiment}"
    for model, experiment in itertools.product(options("model"), options("experiment")):
        yield "curriculum", f"model={model} experiment={experiment}"


CHOICES = list(dict.fromkeys(choices()))


def targets(node: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield place, node
        for key, value in node.items():
            yield from targets(value, f"{place}.{key}" if place else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from targets(value, f"{place}[{i}]")


@cache
def accepted(target: str) -> tuple[frozenset[str], bool]:
    """The names a target takes, those behind ``**kwargs`` of its bases included, and whether it takes any name."""
    found = get_object(target)
    if not inspect.isclass(found):
        parameters = inspect.signature(found).parameters.values()
        return frozenset(p.name for p in parameters), any(p.kind is p.VAR_KEYWORD for p in parameters)
    if dataclasses.is_dataclass(found):
        return frozenset(field.name for field in dataclasses.fields(found)), False
    names: set[str] = set()
    if not found.__module__.startswith("toolformer."):
        parameters = inspect.signature(found).parameters.values()
        return frozenset(p.name for p in parameters), any(p.kind is p.VAR_KEYWORD for p in parameters)
    for base in found.__mro__:
        if "__init__" in vars(base) and base is not object:
            parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())
            names |= {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return frozenset(names), False


@pytest.mark.parametrize(("entry", "overrides"), CHOICES)
def test_composes_and_every_key_is_in_its_targets_signature(entry: str, overrides: str):
    composed = settings(entry, *overrides.split())
    assert composed["name"]
    for place, node in targets(composed):
        names, anything = accepted(node["_target_"])
        for key in node:
            assert key in SPECIAL or key in names or anything, (
                f"{place}.{key}: {node['_target_']} takes no such argument"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_is_reachable_and_says_what_it_is(path: Path):
    text = path.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("# @package")]
    assert lines and (lines[0].startswith("# ") or len(lines) <= 12), "a long file opens with a comment"
    if path.parent != CONF:
        used = {group.split("@")[0] for entry in ENTRIES for group in groups(entry)}
        assert path.parent.name in used, f"no command has the group {path.parent.name}"


def test_an_experiment_or_a_stage_adds_no_key_of_its_own():
    """A key that only an experiment has is a key nobody reads: Hydra would add it without a word."""
    for entry, overrides in CHOICES:
        if "experiment=" in overrides and entry == "curriculum":
            file = yaml.safe_load((CONF / "experiment" / f"{overrides.split('experiment=')[1]}.yaml").read_text())
            rest = [part for part in overrides.split() if not part.startswith("experiment=")]
            chosen = [
                f"{key.removeprefix('override ').removeprefix('/')}={value}"
                for item in file.get("defaults", [])
                if isinstance(item, dict)
                for key, value in item.items()
                if key.startswith("override /") and not key.startswith("override /hydra")
            ]
            chosen = [part for part in chosen if part.split("=")[0] not in {word.split("=")[0] for word in rest}]
            known = set(keys_of(settings(entry, *rest, *chosen)))
            extra = set(keys_of(settings(entry, *overrides.split()))) - known
            assert not extra, f"{overrides}: {sorted(extra)}"


@pytest.mark.parametrize("name", options("sweep"))
def test_a_sweep_varies_settings_that_exist(name: str):
    compared = 0
    for entry in ENTRIES:
        if "sweep" in groups(entry):
            params = compose(entry, f"sweep={name}").hydra.sweeper.params
            known = {*keys_of(settings(entry)), *groups(entry)}
            compared += all(key in known for key in params)
    assert compared, "no command has all the settings that this sweep varies"


def attributes(entry: str) -> set[str]:
    """Every attribute that a command's file reads, and those of the commands that it builds on."""
    tree = ast.parse((CONF.parent / "toolformer" / f"{entry}.py").read_text())
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in [f"toolformer.{other}" for other in ENTRIES]:
            read |= attributes(node.module.split(".")[1])
    return read


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_setting_is_read_by_nobody(entry: str):
    """Every top-level key is read as ``cfg.<key>``, or another value refers to it."""
    read = attributes(entry)
    text = OmegaConf.to_yaml(compose(entry)) + (CONF / "base.yaml").read_text()
    for key in settings(entry):
        referred = "${" + key + "}" in text or "${" + key + "." in text
        assert key in read or referred, f"{key} of conf/{entry}.yaml is read by nobody"
