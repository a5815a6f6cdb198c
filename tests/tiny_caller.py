"""In: nothing. Out: small real models with a real tokenizer: random ones, and hand-made ones that read or ignore.

Nothing is trained. ``Reader`` finds the tool whose words are those of the request; ``Deaf`` is the same with constant
gists, so that all it could go by is gone. Both write the shortest call their grammar allows.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import torch
from torch import nn

from toolformer.calls import render
from toolformer.data.masking import Rows
from toolformer.data.prompts import Prompts
from toolformer.data.tokenizer import train_tokenizer
from toolformer.data.toolworld import ToolWorld
from toolformer.model import ToolFormerConfig, ToolFormerMicro
from toolformer.model.pointer import HALFWAY
from toolformer.records import Tool


@cache
def world() -> ToolWorld:
    return ToolWorld()


@cache
def rows() -> Rows:
    """Training rows, to make a tokenizer of and to ask."""
    return world().batch(0, batch_size=60, pool_size=40, tools_per_request=6)


@cache
def prompts() -> Prompts:
    texts = [tool.text for _, tools in rows() for tool in tools]
    texts += [m.content for example, _ in rows() for m in example.messages]
    texts += [render(example.calls) if example.calls else example.reply for example, _ in rows()]
    return Prompts(train_tokenizer(texts, vocab_size=700))


def config(**changes) -> ToolFormerConfig:
    shape = {
        "vocab_size": len(prompts().tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "encoder_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_gists": 3,
        "pointer_size": 16,
        "gate_init": 1.0,
        "initializer_range": 0.3,
        "eos_token_id": prompts().end,
        "pad_token_id": prompts().tokenizer.pad_token_id,
    }
    return ToolFormerConfig(**{**shape, **changes})


def random_model(seed: int = 0, ends: float = 1.0, **changes) -> ToolFormerMicro:
    """Random weights; with ``ends`` above 1 answers end early, each at its own time."""
    torch.manual_seed(seed)
    model = ToolFormerMicro(config(**changes)).eval()
    with torch.no_grad():
        model.embed_tokens.weight[prompts().end] *= ends
    return model


class Reader(ToolFormerMicro):
    """Gist of a schema, and view of a request, is a bag of the words that descriptions use; rare ones count more."""

    def read(self, input_ids, mask):
        return self.embed_tokens(input_ids) * mask[..., None]

    def pool(self, reading, mask):
        return reading.sum(1)[:, None].expand(-1, self.config.num_gists, -1).contiguous()


class Deaf(Reader):
    """Whatever the schema says, its gists are the same."""

    def encode_tools(self, tool_ids, tool_mask):
        return torch.ones(len(tool_ids), self.config.num_gists, self.config.hidden_size)


def hand_made(kind: type[Reader] = Reader) -> ToolFormerMicro:
    """A ``Reader`` or a ``Deaf``: pointer by cosine over words, a language model that closes whatever is open."""
    torch.manual_seed(0)
    size = 192
    model = kind(config(hidden_size=size, pointer_size=size, pointer_query="encoder")).eval()
    tokenizer = prompts().tokenizer
    words = [prompts().ids(tool.description) for _, tools in rows() for tool in tools]
    count = Counter(token for text in words for token in set(text))
    known = [math.log((1 + len(words)) / (1 + count[i])) if count[i] else 0.0 for i in range(len(tokenizer))]
    with torch.no_grad():
        directions = nn.functional.normalize(torch.randn(len(tokenizer), size), dim=-1)
        model.embed_tokens.weight.copy_(directions * torch.tensor(known)[:, None])
        model.pointer.proj.weight.copy_(torch.eye(size))
        model.pointer.no_call.weight.zero_()
        model.pointer.no_call.bias.fill_(-HALFWAY / model.pointer.temperature)
        model.pointer.trust.fill_(1.0)  # "no call" has the score 0
        model.lm_head = nn.Linear(size, len(tokenizer))
        model.lm_head.weight.zero_()
        model.lm_head.bias.copy_(torch.tensor([_closing(tokenizer, i) for i in range(len(tokenizer))]))
    return model


def _closing(tokenizer, token: int) -> float:
    """The fewer characters, and the more of them close something, the better."""
    text = tokenizer.decode([token])
    if token in (prompts().end, prompts().call_open, prompts().call_close):
        return 12.0
    return 6.0 * text.startswith(('"', "]")) + 3.0 * ("}" in text) - 0.1 * len(text)


def switch(name: str, *, description: str = "", options: int = 2) -> Tool:
    """A tool whose calls are short whatever writes them: its one parameter has a few values."""
    values = ["on", "off", "dim", "auto"][:options]
    state = {"type": "string", "enum": values}
    return Tool(name, description or f"Switch the {name}.", {"type": "object", "properties": {"state": state},
                                                             "required": ["state"]})  # fmt: skip
