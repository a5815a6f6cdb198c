"""In: tools, conversations and gold calls. Out: token ids: one list a schema, a prompt and an answer.

The tokenizer's own chat template is used where it has one, ChatML otherwise; calls are written as Qwen2.5 writes them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from toolformer.calls import CLOSE, OPEN, render
from toolformer.records import Example, Message, Tool, ToolCall
from toolformer.schemas import form, shorten

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
QUOTED = {mark: chr(0xFDD0 + i) for i, mark in enumerate(MARKS)}  # characters that Unicode keeps out of texts
_QUOTED = re.compile(f"([{''.join(QUOTED.values())}])")
KEPT_SCHEMAS = 20_000  # token ids of schemas that are kept; training on generated tools meets ever new ones


class TooLongError(ValueError):
    """A request that the model cannot read within its limit."""


class Prompts:
    """The only place where text becomes tokens.

    Args:
        tokenizer: any fast tokenizer that has ChatML's marks and ``<tool_call>`` as single tokens.
        schema_limit: tokens of one schema; a longer one loses descriptions as ``schemas.shorten`` documents, and is
            counted in ``report``; names and types stay, and are counted where they alone are over the limit.
        length_limit: tokens of prompt and answer; a longer conversation loses its oldest turns, and is counted. A
            system message and the last turn always stay.
        forms: ``none``, or which parameters a call has when it is written: ``required`` ones or ``all`` (``written``).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        schema_limit: int = 256,
        length_limit: int = 2048,
        forms: str = "none",
    ):
        marks = {mark: tokenizer.encode(mark, add_special_tokens=False) for mark in MARKS}
        lost = [mark for mark, ids in marks.items() if tokenizer.convert_ids_to_tokens(ids) != [mark]]
        if lost:
            raise ValueError(
                f"tokenizer {tokenizer.name_or_path!r} does not know {', '.join(lost)} as single tokens; "
                "use a Qwen2.5 tokenizer or train one with toolformer.data.tokenizer"
            )
        if not tokenizer.chat_template:
            tokenizer.chat_template = CHATML
        self.tokenizer, self.schema_limit, self.length_limit = tokenizer, schema_limit, length_limit
        self.forms = forms
        self.end, self.call_open, self.call_close = (marks[mark][0] for mark in MARKS[1:])
        self.rebuild = self.ids("<|im_start|>tool\n")  # what stands before a schema that is to be rebuilt
        self.report: Counter[str] = Counter()
        self._schemas: dict[str, tuple[int, ...]] = {}

    def ids(self, text: str) -> list[int]:
        """Token ids of a text as it stands; what is ``quoted`` in it is spelled in letters."""
        if not _QUOTED.search(text):
            return self.tokenizer.encode(text, add_special_tokens=False)
        pieces = _QUOTED.split(text)  # every other one stands for a mark
        return [token for i, piece in enumerate(pieces) for token in (self._letters if i % 2 else self.ids)(piece)]

    def _letters(self, quoted_mark: str) -> list[int]:
        (mark,) = (mark for mark, stand_in in QUOTED.items() if stand_in == quoted_mark)
        return self.tokenizer.encode(mark, add_special_tokens=False, split_special_tokens=True)

    def schema(self, tool: Tool) -> tuple[int, ...]:
        """Token ids of a schema within ``schema_limit``."""
        if tool.id not in self._schemas:
            if len(self._schemas) >= KEPT_SCHEMAS:
                self._schemas.clear()
            self._schemas[tool.id] = self._schema(tool)
        return self._schemas[tool.id]

    def _schema(self, tool: Tool) -> tuple[int, ...]:
        ids = self.ids(quoted(tool.text))
        if len(ids) > self.schema_limit:
            short = shorten(tool, lambda text: len(self.ids(quoted(text))), self.schema_limit)
            self.report["schemas_shortened"] += 1
            self.report["schema_parts_dropped"] += len(short.dropped)
            ids = self.ids(quoted(short.text))
            self.report["schemas_over_limit"] += len(ids) > self.schema_limit
        return tuple(ids)

    def prompt(self, messages: Sequence[Message], room: int = 0) -> list[int]:
        """The conversation up to where the assistant speaks; ``room`` tokens are left for the answer.

        Raises:
            TooLongError: its last turn alone is over the limit.
        """
        turns = [{"role": m.role, "content": _content(m)} for m in messages]
        while True:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            assert isinstance(text, str)  # as ``tokenize`` is off
            ids = self.ids(text)
            if len(ids) + room <= self.length_limit:
                return ids
            oldest = 1 if turns[0]["role"] == "system" else 0
            if oldest >= len(turns) - 1:
                raise TooLongError(
                    f"a request has {len(ids)} tokens and its answer {room}, over the limit of {self.length_limit}; "
                    "raise split.length_limit"
                )
            self.report["turns_dropped"] += 1
            del turns[oldest]

    def written(self, example: Example, tools: Sequence[Tool] = ()) -> tuple[ToolCall, ...]:
        """The calls that the answer writes: the right ones; as forms, or as a draft where a value is lacking.

        A form has null where nobody has said a value. Whether one was said is then learned for each parameter where its
        value would stand, and not as a feeling about the whole request.
        """
        if self.forms == "none":
            return example.calls
        by_name = {tool.name: tool for tool in tools}
        calls = example.calls if example.draft is None else (example.draft,)
        return tuple(form(call, by_name[call.name], self.forms) for call in calls)

    def answer(self, example: Example, tools: Sequence[Tool] = ()) -> list[int]:
        """The calls, the reply, or a draft and the reply; and the end mark. ``tools`` are those on offer."""
        parts = [_rendered(self.written(example, tools)), "" if example.calls else quoted(example.reply)]
        return [*self.ids("\n".join(filter(None, parts))), self.end]

    def name_ends(self, example: Example, tools: Sequence[Tool] = ()) -> list[int]:
        """Where in ``answer`` the first token stands that is behind the name, for each call."""
        calls = self.written(example, tools)
        before = [_rendered(calls[:n]) + "\n" * (n > 0) for n in range(len(calls))]
        return [
            len(self.ids(f'{text}{OPEN}\n{{"name": {quoted(json.dumps(call.name, ensure_ascii=False)[:-1])}'))
            for text, call in zip(before, calls, strict=True)
        ]

    def call_ends(self, example: Example, tools: Sequence[Tool] = ()) -> list[int]:
        """Where in ``answer`` each call closes; not by looking for the mark, which an argument may hold as text."""
        calls = self.written(example, tools)
        return [len(self.ids(_rendered(calls[: n + 1]))) - 1 for n in range(len(calls))]


def quoted(text: str) -> str:
    """A text that somebody wrote: its marks are letters, so that they end no turn and open no call."""
    for mark, stand_in in QUOTED.items():
        text = text.replace(mark, stand_in)
    return text


def _content(message: Message) -> str:
    return message.content if message.role == "assistant" else quoted(message.content)  # its calls stand in marks


def _rendered(calls: Sequence[ToolCall]) -> str:
    return "\n".join(f"{OPEN}{quoted(text[len(OPEN) : -len(CLOSE)])}{CLOSE}" for text in (render([c]) for c in calls))


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """A tokenizer from a folder or the hub; what is no tokenizer is refused by name."""
    if (Path(path).is_absolute() or path.startswith(".")) and not Path(path).is_dir():
        raise FileNotFoundError(f"{path}: no such tokenizer folder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)  # None would ask on the terminal
    except BaseException as error:  # the library checks little; its Rust part panics with what is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: no readable tokenizer ({why}); give a folder with tokenizer files") from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer
