"""In: the folder of real data, or nothing. Out: tools and a request, for every path the same, and models.

Speed does not depend on what weights have learned: they are random. The gates are open, so that gists change answers.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from toolformer.data.prompts import Prompts, load_tokenizer
from toolformer.data.sources import seal_tools, xlam
from toolformer.data.sources.source import Found
from toolformer.data.tokenizer import train_tokenizer
from toolformer.data.toolworld import ToolWorld
from toolformer.model import ToolFormerConfig, ToolFormerMicro
from toolformer.records import Message, Tool

SEED = 0
QWEN: dict[str, Any] = {  # config.json of Qwen2.5-0.5B
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "tie_word_embeddings": True,
}
SMALL = QWEN | {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
SMALL |= {"max_position_embeddings": 1024, "vocab_size": 1024}
PREFIX = (  # the layout of Qwen2.5's chat template with tools, in which schemas are read as text
    "<|im_start|>system\nYou are a helpful assistant.\n\n# Tools\n\nYou may call one or more functions. "
    "Their signatures stand between <tools></tools>:\n<tools>"
)
SUFFIX = (
    '\n</tools>\n\nFor each call, return a JSON object with its name and arguments: <tool_call>\n{"name": <name>, '
    '"arguments": <arguments>}\n</tool_call><|im_end|>\n'
)


@dataclass(frozen=True)
class Inputs:
    """Tools in a fixed order, of which each measurement takes the first so many; one request; what makes tokens."""

    tools: list[Tool]
    request: list[Message]
    prompts: Prompts
    sources: list[str]

    def schemas(self, count: int) -> list[tuple[int, ...]]:
        """Token ids of the first tools, each within the limit."""
        return [self.prompts.schema(tool) for tool in self.tools[:count]]

    def text(self, tools: list[Tool]) -> list[int]:
        """Token ids of everything before the request when the schemas are read as text."""
        before, after = self.prompts.ids('\n{"type": "function", "function": '), self.prompts.ids("}")
        listed = [token for tool in tools for token in (*before, *self.prompts.schema(tool), *after)]
        return [*self.prompts.ids(PREFIX), *listed, *self.prompts.ids(SUFFIX)]


def real(count: int) -> Inputs:
    """Tools of xLAM and Seal-Tools with different names, in an order drawn by a fixed seed; xLAM's median request.

    Raises:
        ValueError: the environment names no folder of real data.
    """
    folder = Path(os.environ.get("TOOLFORMER_DATA", ""))
    if not os.environ.get("TOOLFORMER_DATA") or not folder.is_dir():
        raise ValueError(
            f"TOOLFORMER_DATA is {str(folder)!r}, no folder: real schemas are measured; name the folder that has "
            f"{xlam.NAME}, {seal_tools.NAME} and tokenizer-qwen2.5, or say quick to try the command without it"
        )
    found = [row for row in xlam.read(folder / xlam.NAME) if isinstance(row, Found)]
    offered = [tool for row in found for tool in row.offered] + list(seal_tools.tools(folder / seal_tools.NAME))
    by_name = {tool.tool.name: tool.tool for tool in offered}
    tools = [by_name[name] for name in sorted(by_name)]
    random.Random(SEED).shuffle(tools)
    prompts = Prompts(load_tokenizer(str(folder / "tokenizer-qwen2.5")))
    requests = sorted((list(row.example.messages) for row in found), key=lambda turns: len(prompts.prompt(turns)))
    return Inputs(tools[:count], requests[len(requests) // 2], prompts, [xlam.NAME, seal_tools.NAME])


def built_in(count: int) -> Inputs:
    """Generated tools and a tokenizer of their words: no file is read."""
    rows = ToolWorld().batch(0, batch_size=20, pool_size=40, tools_per_request=6)
    tools = list({tool.name: tool for _, offered in rows for tool in offered}.values())
    assert len(tools) >= count
    texts = [tool.text for tool in tools] + [turn.content for example, _ in rows for turn in example.messages]
    prompts = Prompts(train_tokenizer(texts, vocab_size=700))
    return Inputs(tools[:count], list(rows[0][0].messages), prompts, ["toolworld"])


def our_config(shape: dict[str, Any]) -> ToolFormerConfig:
    """As conf/model/published.yaml makes it of a backbone: half of the layers decode, a quarter encodes."""
    whole: int = shape["num_hidden_layers"]
    ours: dict[str, Any] = {"num_hidden_layers": whole // 2, "encoder_layers": whole // 4, "num_gists": 8}
    return ToolFormerConfig(**(shape | ours), pointer=False, gate_init=1.0)


@torch.no_grad()
def our_model(shape: dict[str, Any], prompts: Prompts, dtype: torch.dtype, device: torch.device) -> ToolFormerMicro:
    """Random weights, the same each time; it never ends an answer of its own accord."""
    torch.manual_seed(SEED)
    model = cast(ToolFormerMicro, AutoModelForCausalLM.from_config(our_config(shape), dtype=dtype)).eval()
    model.embed_tokens.weight[prompts.end] = 0
    return model.to(device)


def plain_model(shape: dict[str, Any], dtype: torch.dtype, device: torch.device) -> Qwen2ForCausalLM:
    """The whole backbone with random weights, as one would use it without gists."""
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_config(Qwen2Config(**shape), dtype=dtype).eval()
    return cast(Qwen2ForCausalLM, model.to(device))


@torch.no_grad()
def prefer_calls(model: ToolFormerMicro, inputs: Inputs) -> None:
    """Makes "<tool_call>" by far the likeliest first token, so that a constrained answer is a call."""
    ids = torch.tensor([inputs.prompts.prompt(inputs.request)], device=model.device)
    model.embed_tokens.weight[inputs.prompts.call_open] = model.decode(ids)[0, -1]
