"""In: the arguments of a command line. Out: the composed configuration they override, or a ValueError that suggests.

Everything is checked before the first job starts: groups, options, keys, and the kind of every value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from toolformer.settings import flatten

CONF = Path(__file__).resolve().parents[1] / "conf"


def check(config_name: str, arguments: Sequence[str], extra: Sequence[str] = ()) -> DictConfig:
    """Composes the configuration with the chosen groups and checks every override against it.

    Returns:
        The configuration, groups chosen, values not yet overridden, with its ``hydra`` node.

    Raises:
        ValueError: an argument that cannot be read, an unknown key, group or option, or a value of another kind.
    """
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        loader = GlobalHydra.instance().config_loader()
        parser = OverridesParser.create(config_loader=loader)
        overrides = [_parse(parser, text) for text in arguments]
        of_groups = [override for override in overrides if loader.get_group_options(override.key_or_group)]
        chosen = [*extra, *(choice for override in of_groups for choice in _choice(override, loader))]
        cfg = hydra.compose(config_name, list(extra), return_hydra_config=True)
        groups = [key for key in cfg.hydra.runtime.choices if not key.startswith("hydra/")]
        for override in overrides:
            if override.package and override.get_key_element() not in groups and not override.is_add():
                refuse(override.get_key_element(), groups, "no such group")
        if len(chosen) > len(extra):
            cfg = hydra.compose(config_name, chosen, return_hydra_config=True)
        settings = OmegaConf.to_container(cfg, resolve=False)
        for override in overrides:
            if override not in of_groups and not override.is_add():
                _check_value(override, settings, groups)
        return cfg


def _parse(parser: OverridesParser, text: str) -> Override:
    try:
        return parser.parse_override(text)
    except HydraException as error:
        raise ValueError(f"{text!r} cannot be read: write key=value, quoted where the shell needs it") from error


def _values(override: Override) -> list[Any]:
    """Every value an override takes: one, or those of a sweep."""
    if override.is_sweep_override():
        return list(override.sweep_iterator()) if override.is_discrete_sweep() else []
    return [override.value()]


def _choice(override: Override, loader: ConfigLoader) -> list[str]:
    """The override that chooses a group's option (the first one of a sweep), its options checked."""
    group, options = override.key_or_group, loader.get_group_options(override.key_or_group)
    values = [str(value) for value in _values(override)]
    for value in values:
        if value not in (*options, "null", "None") and not value.startswith("["):
            message = f"{group}={value}: {group} has no option of that name; nearest: {nearest(value, options)}"
            raise ValueError(f"{message}; there are: {', '.join(options)}")
    if override.is_delete() or not values:
        return []
    return [f"{(override.input_line or group).split('=')[0]}={values[0]}"]


def _check_value(override: Override, settings: Any, groups: Iterable[str]) -> None:
    key, node = override.key_or_group, settings
    for part in key.split("."):
        if isinstance(node, list) or (isinstance(node, str) and "${" in node):
            return  # inside a list or behind an interpolation: Hydra decides
        if not isinstance(node, dict) or part not in node:
            refuse(key, [*(name for name in keys_of(settings) if not name.startswith("hydra.")), *groups])
        node = node[part]
    if override.is_delete():
        raise ValueError(f"~{key}: a setting cannot be taken away; give it a value, such as {key}=null")
    for value in _values(override):
        wanted, found = kind(node), kind(value)
        if wanted and found and found != wanted and (wanted, found) != ("text", "a number"):
            raise ValueError(f"{key} is {value!r}, which is {found}; it wants {wanted}, such as {key}={node}")


def keys_of(settings: Any) -> list[str]:
    """All dotted keys: of leaves and of the nodes above them.

    >>> keys_of({"stage": {"lr": 0.1}, "seed": 0})
    ['stage', 'stage.lr', 'seed']
    """
    keys: dict[str, None] = {}
    for leaf in flatten(settings):
        parts = leaf.split(".")
        keys |= dict.fromkeys(".".join(parts[:n]) for n in range(1, len(parts) + 1))
    return list(keys)


def kind(value: Any) -> str:
    """What a value is, in the words of an error message; empty where anything may stand there.

    >>> kind(True), kind(0.1), kind("tanh"), kind([1]), kind(None), kind("${seed}")
    ('true or false', 'a number', 'text', 'a list', '', '')
    """
    if value is None or (isinstance(value, str) and ("${" in value or value == "???")):
        return ""
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a group of settings"}
    return kinds.get(type(value), "text")


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word most like ``word``; of dotted keys the last part counts as much as the whole.

    >>> nearest("stage.lrr", ["seed", "stage.lr", "trainer.devices"]), nearest("lr", ["name", "stage.lr"])
    ('stage.lr', 'stage.lr')
    """

    def likeness(candidate: str) -> float:
        whole = SequenceMatcher(None, word, candidate).ratio()
        return whole + SequenceMatcher(None, word.split(".")[-1], candidate.split(".")[-1]).ratio()

    return max(known, key=likeness, default="--help")


def refuse(word: str, known: Iterable[str], what: str = "no such setting") -> NoReturn:
    """Says that ``word`` is unknown, and which known one may have been meant."""
    raise ValueError(f"{word}: {what}; nearest: {nearest(word, known)} (--help lists all)")
