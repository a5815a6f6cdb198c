"""In: the tools of a request. Out: matchers that say which token may come next: names, keys and types are right.

llguidance compiles the grammars; values of strings stay free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from transformers import PreTrainedTokenizerBase

from toolformer.calls import CLOSE, OPEN
from toolformer.records import Tool
from toolformer.schemas import blanks
from toolformer.schemas.checking import BRANCHES
from toolformer.schemas.type_text import kind_of

JSON_SPACES = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}  # as json.dumps writes
TEXT_RULE = r"TEXT: /[^<\x00-\x1f]([^<\x00-\x08])*/"
NEW_LINE = r'"\n" '
KEPT = ("type", "enum", "const", "items", "properties", "required", "additionalProperties", "anyOf", "oneOf")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems")
KEPT += ("prefixItems", *BOUNDS)


class Grammar:
    """Grammars over one tokenizer; compiled texts are kept.

    Args:
        tokenizer: the model's fast tokenizer.
        vocab_size: columns of the logits (may exceed the tokenizer's length).
        end: the token that ends an answer (Qwen2.5's base tokenizer has another ``eos_token`` than its chats end with).
        forms: unless ``none``, calls have every parameter of a form (``required`` or ``all``), null where no value was
            said, and a reply may follow them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, *, end: int, forms: str = "none"):
        self.lexer: LLTokenizer = from_tokenizer(cast(Any, tokenizer), n_vocab=vocab_size, eos_token=end)
        self.words = (vocab_size + 31) // 32
        self.forms = forms
        self._one = lru_cache(maxsize=4096)(self._one_call)
        self._kept = lru_cache(maxsize=1024)(self._matcher)  # compiling takes 2 ms, a copy 4 us

    def choice(self, tools: Sequence[Tool], most_calls: int = 4) -> LLMatcher:
        """Any of ``tools``, up to ``most_calls`` calls, or a plain reply.

        Raises:
            ValueError: names the tool whose schema allows nothing, or more than can be compiled.
        """
        try:
            return self._choice(tools, most_calls)
        except ValueError:
            for tool in tools:
                self.call(tool, first=True)  # names the one that is to blame
            raise

    def _choice(self, tools: Sequence[Tool], most_calls: int) -> LLMatcher:
        rules = [f"t{i}: {self._one(tool)}" for i, tool in enumerate(tools)]
        start = "TEXT"
        if tools:
            names = " | ".join(f"t{i}" for i in range(len(tools)))
            more = f' ("\\n" call){{0,{most_calls - 1}}}' if most_calls > 1 else ""
            start = f"call{more}{f' ({NEW_LINE}TEXT)?' if self.forms != 'none' else ''} | TEXT"
            rules.insert(0, f"call: {names}")
        return self._kept("\n".join([f"start: {start}", TEXT_RULE, *rules])).deep_copy()

    def call(self, tool: Tool, *, first: bool) -> LLMatcher:
        """One call of ``tool``; a later call starts on a new line."""
        try:
            return self._kept(f"start: {'' if first else NEW_LINE}{self._one(tool)}").deep_copy()
        except ValueError as error:
            raise ValueError(f"tool {tool.name!r}: {error}; simplify its parameters") from None

    def reply(self, *, first: bool = True) -> LLMatcher:
        """A plain reply; one after a draft starts on a new line."""
        return self._kept(f"start: {'' if first else NEW_LINE}TEXT\n{TEXT_RULE}").deep_copy()

    def _matcher(self, lark: str) -> LLMatcher:
        matcher = LLMatcher(self.lexer, LLMatcher.grammar_from_lark(lark))
        if matcher.is_error():
            raise ValueError(f"no grammar can be made: {matcher.get_error().strip().splitlines()[0]}")
        return matcher

    def allowed(self, matchers: Sequence[LLMatcher], vocab_size: int) -> np.ndarray:
        """One row of booleans a matcher, ``(rows, V)``."""
        bits = np.empty((len(matchers), self.words), dtype=np.int32)
        for row, matcher in enumerate(matchers):
            matcher.unsafe_compute_mask_ptr(bits[row].ctypes.data, bits[row].nbytes)
        return np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, :vocab_size].astype(bool)

    def accepts(self, matcher: LLMatcher, token: int) -> bool:
        """Whether ``token`` may come next; ``forced`` ones must have been consumed. Costs no mask."""
        return matcher.validate_tokens([token]) == 1

    def _one_call(self, tool: Tool) -> str:
        arguments = _closed(tool.parameters)
        declared = arguments.get("properties", {})
        if self.forms != "none":
            empty = {key: {"anyOf": [declared[key], {"type": "null"}]} for key in blanks(tool, self.forms)}
            required = {*arguments.get("required", ()), *empty}
            arguments |= {"properties": declared | empty, "required": [key for key in declared if key in required]}
        shape = {
            "x-guidance": JSON_SPACES,
            "type": "object",
            "required": ["name", "arguments"],
            "additionalProperties": False,
            "properties": {"name": {"const": tool.name}, "arguments": arguments},
        }
        text = json.dumps(shape)
        for mark in (OPEN, CLOSE):
            if mark in text:
                raise ValueError(f"a name or value holds {mark}, which marks a call")
        return f'{OPEN} "\\n" %json {text} "\\n" {CLOSE}'


def _closed(schema: Any) -> Any:
    """The part of a schema that bounds what may be written, in what llguidance can compile.

    Objects admit declared keys only, unless their schema says what others hold. Where llguidance has no way to say a
    bound (one of several but not two, numbers that it would write in another way), more may be written.
    """
    if not isinstance(schema, Mapping):
        return {}
    out = {key: value for key, value in schema.items() if key in KEPT and not (key in BOUNDS and _odd(value))}
    values = [out["const"]] if "const" in out else out.get("enum", [])
    if any(map(_odd, values)):
        plain = [value for value in values if not _odd(value)]
        return {"anyOf": [{"enum": plain}] * bool(plain) + [{"type": kind_of(v)} for v in values if _odd(v)]}
    if "oneOf" in out:
        options = out.pop("oneOf")
        out.setdefault("anyOf", options)
    if isinstance(out.get("properties"), Mapping):
        out["properties"] = {key: _closed(value) for key, value in out["properties"].items()}
        if out["properties"] or not any(key in schema for key in BRANCHES):  # else they declare the keys
            out.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in out:  # true closes an object that declares keys, and opens one that declares none
            free = out[key] is True and not out.get("properties")
            out[key] = _closed(out[key]) if isinstance(out[key], Mapping) else free
    for key in ("anyOf", "prefixItems"):
        if key in out:
            out[key] = [_closed(option) for option in out[key]]
    return out


def _odd(value: Any) -> bool:
    """Whether a value holds a number that llguidance writes in another way than Python, or cannot hold."""
    if isinstance(value, Mapping | list):
        return any(map(_odd, value.values() if isinstance(value, Mapping) else value))
    if isinstance(value, float):
        return "e" in repr(value)
    return isinstance(value, int) and abs(value) > 2**53
