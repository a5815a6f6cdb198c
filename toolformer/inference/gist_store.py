"""In: gists by tool id. Out: the same gists, bit for bit, as long as the model is the one that made them.

One safetensors file a tool, named by the tool's id; a store belongs to one model and refuses every other by name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from toolformer.data.prompts import Prompts
from toolformer.records import Tool, tool_from_json, tool_to_json

INDEX = "store.json"
FORMAT = 1


def model_fingerprint(model: torch.nn.Module) -> str:
    """16 hex digits of the SHA-256 of all weights, with their names, in whatever dtype they are."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def gist_fingerprint(model: torch.nn.Module, prompts: Prompts) -> str:
    """Of all that gists depend on beside the tool: the weights, the tokenizer, and where schemas are shortened."""
    vocabulary = sorted(prompts.tokenizer.get_vocab().items())
    text = f"{model_fingerprint(model)} {prompts.schema_limit} {json.dumps(vocabulary)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class GistStore:
    """Tools and their gists ``(K, D)`` in a folder.

    Args:
        folder: made if it is not there.
        fingerprint: of the model that makes the gists (``gist_fingerprint``).

    Raises:
        ValueError: the folder holds gists of another model, or its index cannot be read.
    """

    def __init__(self, folder: str | Path, fingerprint: str):
        self.folder, self.fingerprint = Path(folder), fingerprint
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / INDEX
        if not path.exists():
            if any(self.folder.glob("*.safetensors")):
                raise ValueError(f"{path}: is missing beside stored gists; remove the folder and store them again")
            _write_text(path, json.dumps({"format": FORMAT, "fingerprint": fingerprint}) + "\n")
        try:
            found = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}:{error.lineno}: not JSON: {error.msg}; remove the folder and store again"
            ) from error
        for key, wanted in (("format", FORMAT), ("fingerprint", fingerprint)):
            if not isinstance(found, dict) or found.get(key) != wanted:
                has = found.get(key) if isinstance(found, dict) else found
                raise ValueError(f"{path}:1: {key} is {has}, this model's is {wanted}; use a folder for each model")

    def __contains__(self, tool: Tool) -> bool:
        return self._path(tool.id).exists()

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("*.safetensors"))

    def add(self, tool: Tool, gists: Tensor) -> None:
        """Store a tool's gists ``(K, D)``, atomically; the same tool again replaces them."""
        path = self._path(tool.id)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        meta = {"fingerprint": self.fingerprint, "tool": json.dumps(tool_to_json(tool), ensure_ascii=False)}
        try:
            save_file({"gists": gists.detach().cpu().contiguous().clone()}, temporary, metadata=meta)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def get(self, tool: Tool) -> Tensor:
        """The gists ``(K, D)`` of a tool, as they were added.

        Raises:
            ValueError: the tool is not stored, or its file is broken, or was copied from another model's store.
        """
        path = self._path(tool.id)
        if not path.exists():
            raise ValueError(f"{self.folder}: tool {tool.name!r} (id {tool.id}) is not stored; add it first")
        return self._read(path)[1]

    def remove(self, tool: Tool) -> None:
        """Forget a tool; the others stay as they are.

        Raises:
            ValueError: the tool is not stored.
        """
        if tool not in self:
            raise ValueError(f"{self.folder}: tool {tool.name!r} (id {tool.id}) is not stored; nothing to remove")
        self._path(tool.id).unlink()

    def replace(self, old: Tool, new: Tool, gists: Tensor) -> None:
        """``new`` with its gists instead of ``old``; the new one is written before the old one goes."""
        if old not in self:
            raise ValueError(f"{self.folder}: tool {old.name!r} (id {old.id}) is not stored; add it first")
        self.add(new, gists)
        if old.id != new.id:
            self.remove(old)

    def tools(self) -> Iterator[Tool]:
        """The stored tools, by id."""
        for path in sorted(self.folder.glob("*.safetensors")):
            yield self._read(path)[0]

    def _path(self, id_: str) -> Path:
        return self.folder / f"{id_}.safetensors"

    def _read(self, path: Path) -> tuple[Tool, Tensor]:
        try:
            with safe_open(path, framework="pt") as file:
                meta, gists = file.metadata() or {}, file.get_tensor("gists")
                tool = tool_from_json(json.loads(meta["tool"]))
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read: {error}; remove the file and add the tool again") from error
        if meta.get("fingerprint") != self.fingerprint:
            raise ValueError(f"{path}: fingerprint is {meta.get('fingerprint')}, the store's is {self.fingerprint}; "
                             "it comes from another model: remove the file and add the tool again")  # fmt: skip
        if tool.id != path.stem:
            raise ValueError(f"{path}: holds the tool with id {tool.id}; remove the file and add the tool again")
        return tool, gists


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
