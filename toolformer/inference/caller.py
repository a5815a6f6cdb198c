"""In: a trained folder, tools, a conversation. Out: the calls to make, or a reply: the library's front door.

Tools are encoded once, when they are added; their gists lie in a store and can be added, removed and kept.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from toolformer.calls import Malformed, parse
from toolformer.data.prompts import Prompts, load_tokenizer
from toolformer.data.sources.own_tools import tool_from
from toolformer.inference.engine import Decoding, Engine, Request
from toolformer.inference.gist_store import GistStore, gist_fingerprint, model_fingerprint
from toolformer.model import ToolFormerMicro, load_backbone
from toolformer.records import Message, Tool, ToolCall

STAGE = re.compile(r"(\d+(?:\.\d+)?)-.+")


class Reply(NamedTuple):
    """``calls`` to make, or a ``text`` for the user; a malformed attempt has no calls and its raw text.

    ``confidence`` is the pointer's probability of all its decisions; None where it did not decide.
    """

    calls: list[ToolCall]
    text: str
    confidence: float | None


class ToolCaller:
    """A model with the tools it may call.

    Args:
        model: in the dtype and on the device it shall run in.
        prompts: its tokenizer and limits.
        store: folder in which gists are kept between programs; None = a temporary one.
        no_call_bias: added to the pointer's score of "no call"; an evaluation calibrates it.
        max_new_tokens: a longer answer is cut there.
    """

    def __init__(
        self,
        model: ToolFormerMicro,
        prompts: Prompts,
        *,
        store: str | Path | None = None,
        no_call_bias: float = 0.0,
        max_new_tokens: int = 256,
    ):
        self.engine = Engine(model.eval(), prompts, no_call_bias=no_call_bias, max_new_tokens=max_new_tokens)
        self._temporary = tempfile.TemporaryDirectory() if store is None else None  # goes when the caller goes
        folder = self._temporary.name if self._temporary is not None else str(store)
        self.store = GistStore(folder, gist_fingerprint(model, prompts))
        self._tools: dict[str, Tool] = {}
        self._gists: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str = "cpu", **kw: Any) -> ToolCaller:
        """From a run folder (its last stage), a stage folder, or any folder that ``save_pretrained`` wrote.

        ``device`` is where it runs; further keywords as of the class. A bias that the run's evaluation calibrated for
        these weights is used.
        """
        model, prompts = load(path)
        kw.setdefault("no_call_bias", calibrated_bias(path, model))
        return cls(model.to(torch.device(device)), prompts, **kw)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that may be called, in the order they were added."""
        return tuple(self._tools.values())

    def add_tools(self, tools: Sequence[Tool | Mapping[str, Any] | Callable[..., Any]]) -> None:
        """Tools as OpenAI or MCP describe them, Python functions, or ``Tool``s. All are added, or none.

        Raises:
            ValueError: a schema cannot be read, or another tool of that name is there already.
        """
        new: dict[str, Tool] = {}
        for i, row in enumerate(tools):
            tool = tool_from(row, f"tools[{i}]")
            there = new.get(tool.name) or self._tools.get(tool.name)
            if there is not None and there.id != tool.id:
                raise ValueError(f"tools[{i}]: name is {tool.name!r}, as of another tool; remove that one first")
            new[tool.name] = tool
        missing = [tool for tool in new.values() if tool not in self.store]
        for tool, gists in zip(missing, self.engine.encode(missing), strict=True):
            self.store.add(tool, gists)
        self._gists |= {name: self.store.get(tool) for name, tool in new.items()}
        self._tools |= new

    def remove_tools(self, names: Sequence[str]) -> None:
        """Tools that shall no longer be called. Their gists stay in the store, where they may serve others.

        Raises:
            ValueError: there is no tool of that name; none is removed then.
        """
        for name in names:
            if name not in self._tools:
                raise ValueError(f"tool is {name!r}; there are {', '.join(self._tools) or 'none'}")
        for name in dict.fromkeys(names):
            del self._tools[name], self._gists[name]

    def call(self, messages: str | Sequence[Message | Mapping[str, str]], decoding: Decoding = "pointed") -> Reply:
        """What to do about a request: a text, or a conversation that ends with the user's turn."""
        turns = [Message("user", messages)] if isinstance(messages, str) else [_message(m) for m in messages]
        if not turns:
            raise ValueError("messages is []; give at least the user's request")
        config = self.engine.model.config
        none = torch.zeros(0, config.num_gists, config.hidden_size, dtype=self.engine.model.dtype)
        gists = torch.stack(list(self._gists.values())) if self._gists else none
        (answer,) = self.engine.answer([Request(turns, self.tools, gists)], decoding)
        calls = parse(answer.text)
        confidence = math.prod(max(shares) for shares in answer.choices) if answer.choices else None
        if isinstance(calls, Malformed) or not calls:
            return Reply([], answer.text, confidence)
        return Reply(calls, "", confidence)


def _message(row: Message | Mapping[str, str]) -> Message:
    if isinstance(row, Message):
        return row
    if not isinstance(row, Mapping) or not all(isinstance(row.get(key), str) for key in ("role", "content")):
        raise ValueError(f"messages: one is {row!r}; give role and content as text")
    return Message(row["role"], row["content"])


# --- folders ----------------------------------------------------------------------------------------------------------


def load(path: str | Path) -> tuple[ToolFormerMicro, Prompts]:
    """The model of a folder, and its tokenizer under the limits it was trained with.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it holds no trained model, or a tokenizer that does not fit the model.
    """
    backbone = find_backbone(path)
    model, tokenizer = load_backbone(str(backbone)), load_tokenizer(str(backbone))
    if len(tokenizer) > model.config.vocab_size:
        raise ValueError(
            f"{backbone}: the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}; "
            "take the tokenizer that was saved with the weights"
        )
    split = (run_settings(path) or {}).get("split", {})
    limits = {key: split[key] for key in ("schema_limit", "length_limit") if key in split}
    return model, Prompts(tokenizer, **limits, forms=model.config.forms)


def find_backbone(path: str | Path) -> Path:
    """The ``save_pretrained`` folder that ``path`` stands for: itself, its backbone, or its last stage's."""
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder; train a model first (make demo), or name another one")
    stages = [(float(match[1]), child) for child in path.iterdir() if (match := STAGE.fullmatch(child.name))]
    for folder in (path, path / "backbone", *(child / "backbone" for _, child in sorted(stages, reverse=True))):
        if (folder / "config.json").is_file():
            return folder.absolute()
    raise ValueError(
        f"{path}: holds no trained model (no config.json, no backbone, no finished stage); finish training"
    )


def run_folder(path: str | Path) -> Path | None:
    """The run that a model's folder belongs to: the nearest folder with a settings.yaml, the stage's run at most."""
    backbone = find_backbone(path)
    return next((f for f in (backbone, *backbone.parents[:2]) if (f / "settings.yaml").is_file()), None)


def run_settings(path: str | Path) -> dict[str, Any] | None:
    """The settings of the run that a model's folder belongs to; None where it belongs to none."""
    folder = run_folder(path)
    if folder is None:
        return None
    try:
        found = yaml.safe_load((folder / "settings.yaml").read_text())
    except yaml.YAMLError as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"{folder / 'settings.yaml'}: not YAML: {why}; restore it from the run") from error
    if not isinstance(found, dict):
        raise ValueError(f"{folder / 'settings.yaml'}: holds {type(found).__name__}, not settings; restore it")
    return found


def calibrated_bias(path: str | Path, model: ToolFormerMicro) -> float:
    """The bias of "no call" which the run's evaluation found for these very weights, else 0."""
    folder = run_folder(path)
    file = None if folder is None else folder / "metrics.json"
    if file is None or not file.is_file():
        return 0.0
    try:
        metrics = json.loads(file.read_text())
        same = metrics["provenance"]["model"] == model_fingerprint(model)
        return float(metrics["calibration"]["no_call_bias"]) if same and "calibration" in metrics else 0.0
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not what an evaluation writes ({error!r}); evaluate again") from error
