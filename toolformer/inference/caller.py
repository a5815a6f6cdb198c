"""In: a trained folder, tools, a conversation. Out: the calls to make, or a reply: the library's front door.

Tools are encoded once, when they are added; their gists lie in a store and can be added, removed and kept.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toolformer.calls import Malformed, parse
from toolformer.data.prompts import Prompts
from toolformer.data.sources.own import message
from toolformer.data.sources.own_tools import tool_from
from toolformer.inference.engine import Answer, Decoding, Engine, Request
from toolformer.inference.folders import calibrated_bias, load, save, usable
from toolformer.inference.gist_precision import Precision
from toolformer.inference.gist_store import GistStore, gist_fingerprint
from toolformer.inference.routing import Near, Router
from toolformer.inference.streaming import Stream
from toolformer.model import ToolFormerMicro
from toolformer.records import Message, Tool, ToolCall

AT_ONCE = 512  # tools encoded, or conversations answered, before the memory they take is free for the next
Conversation = str | Sequence[Message | Mapping[str, Any]]


class Reply(NamedTuple):
    """``calls`` to make, or a ``text`` for the user; a malformed attempt has no calls and its raw text.

    ``confidence`` is the pointer's probability of all its decisions; None where it did not decide.
    """

    calls: list[ToolCall]
    text: str
    confidence: float | None


class ToolCaller:
    """A model with the tools it may call. Threads may share one; it answers one of them at a time.

    Args:
        model: in the dtype and on the device it shall run in.
        prompts: its tokenizer and limits.
        store: folder in which gists are kept between programs; None = in memory.
        store_precision, store_limit: of the ``GistStore``: in which numbers it keeps them, and bytes in all.
        no_call_bias: added to the pointer's score of "no call"; an evaluation calibrates it.
        max_new_tokens: a longer answer is cut there.
        route_above: with more tools than this the decoder attends only to those a request is nearest to.
        k: how many those are.
    """

    def __init__(
        self,
        model: ToolFormerMicro,
        prompts: Prompts,
        *,
        store: str | Path | None = None,
        store_precision: Precision = "given",
        store_limit: int | None = None,
        no_call_bias: float = 0.0,
        max_new_tokens: int = 256,
        route_above: int = 256,
        k: int = 64,
    ):
        for name, value, least in (("route_above", route_above, 0), ("k", k, 1), ("max_new_tokens", max_new_tokens, 1)):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        self.engine = Engine(model.eval(), prompts, no_call_bias=no_call_bias, max_new_tokens=max_new_tokens)
        kept = {"precision": store_precision, "limit": store_limit}
        self.store = GistStore(store, gist_fingerprint(model, prompts), **kept)
        self.route_above, self.k = route_above, k
        self._tools: dict[str, Tool] = {}
        self._gists: dict[str, Tensor] = {}
        self._router = Router(model)
        self._all: tuple[tuple[Tool, ...], Tensor] | None = None  # tools and gists of a request that is not routed
        self._lock = threading.RLock()

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32, **kw: Any
    ) -> ToolCaller:
        """From a run folder (its last stage), a stage folder, or any folder that ``save_pretrained`` wrote.

        ``device`` is where it runs, ``dtype`` in which numbers; further keywords as of the class. A bias that the run's
        evaluation calibrated for these weights is used.
        """
        model, prompts = load(path)
        kw.setdefault("no_call_bias", calibrated_bias(path, model))
        return cls(model.to(usable(device), dtype), prompts, **kw)

    def save_pretrained(self, folder: str | Path) -> None:
        """Exports weights, tokenizer, limits and bias: a folder for ``from_pretrained`` and for transformers' own.

        Tools and gists are not part of it. transformers knows such models after ``import toolformer.model``.
        """
        save(folder, self.engine.model, self.engine.prompts, self.engine.no_call_bias)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that may be called, in the order they were added."""
        return tuple(self._tools.values())

    def add_tools(self, tools: Sequence[Tool | Mapping[str, Any] | Callable[..., Any]]) -> None:
        """Tools as OpenAI or MCP describe them, Python functions, or ``Tool``s. All are added, or none.

        Raises:
            ValueError: a schema cannot be read, or another tool of that name is there already.
        """
        with self._lock:
            new: dict[str, Tool] = {}
            for i, row in enumerate(tools):
                tool = tool_from(row, f"tools[{i}]")
                other = new.get(tool.name) or self._tools.get(tool.name)
                if other is not None and other.id != tool.id:
                    raise ValueError(f"tools[{i}]: name is {tool.name!r}, as of another tool; remove that one first")
                if other is None:
                    new[tool.name] = tool
            there = self.store.find(new.values())
            missing = [tool for tool in new.values() if tool.id not in there]
            for start in range(0, len(missing), AT_ONCE):
                part = missing[start : start + AT_ONCE]
                try:
                    self.store.add_many(part, list(self.engine.encode(part)))
                    kept = self.store.get_many(part)  # as the next program will find them; what is gone is named
                except BaseException:
                    self.store.release(new.values())
                    raise
                there |= {tool.id: own for tool, own in zip(part, kept, strict=True)}
            device = self.engine.model.device
            added = {name: there[tool.id].to(device) for name, tool in new.items()}
            self._router.add(list(new.values()), list(added.values()))
            self._gists |= added
            self._tools |= new
            self._all = None

    def remove_tools(self, names: Sequence[str]) -> None:
        """Tools that shall no longer be called. Their gists stay in the store, where they may serve others.

        Raises:
            ValueError: there is no tool of that name; none is removed then.
        """
        with self._lock:
            for name in names:
                if name not in self._tools:
                    there = [*list(self._tools)[:20], *(["..."] if len(self._tools) > 20 else [])]
                    raise ValueError(f"tool is {name!r}; there are {', '.join(there) or 'none'}")
            gone = [self._tools[name] for name in names]
            self._router.remove(gone)
            self.store.release(gone)
            for name in dict.fromkeys(names):
                del self._tools[name], self._gists[name]
            self._all = None

    def call(self, messages: Conversation, decoding: Decoding = "pointed") -> Reply:
        """What to do about a request: a text, or a conversation that ends with the user's turn."""
        (reply,) = self.batch_call([messages], decoding)
        return reply

    def batch_call(self, conversations: Sequence[Conversation], decoding: Decoding = "pointed") -> list[Reply]:
        """As ``call`` of each, in their order, but decoded together: many are answered several times as fast."""
        turns = [_turns(messages) for messages in conversations]
        replies: list[Reply] = []
        with self._lock:
            for start in range(0, len(turns), AT_ONCE):
                requests = self._requests(turns[start : start + AT_ONCE])
                replies += map(_reply, self.engine.answer(requests, decoding))
        return replies

    def stream(self, messages: Conversation, decoding: Decoding = "pointed") -> Stream[Reply]:
        """As ``call``, but the text can be had as it is written: iterate over its pieces, then read ``reply``.

        The pieces are all that the model writes: a reply's text, or a call's, in its marks. Tools that are added or
        removed meanwhile count from the next request on.
        """
        turns = [_turns(messages)]
        with self._lock:
            requests = self._requests(turns)

        def write(told: Callable[[int], None]) -> Reply:
            end = self.engine.prompts.end
            with self._lock:
                (answer,) = self.engine.answer(
                    requests, decoding, on_token=lambda row, token: None if token == end else told(token)
                )
            return _reply(answer)

        return Stream(write, self.engine.prompts.tokenizer.backend_tokenizer)

    def nearest(self, messages: Conversation, k: int | None = None) -> list[Near]:
        """The ``k`` tools (default: as many as routing takes) that a request is nearest to, nearest first.

        Raises:
            ValueError: ``k`` is below 1, or the messages are none.
        """
        with self._lock:
            (near,) = self._nearest([_turns(messages)], self.k if k is None else k)
            return near

    def _nearest(self, conversations: Sequence[list[Message]], k: int) -> list[list[Near]]:
        room = self.engine.max_new_tokens
        return self._router.nearest([self.engine.prompts.prompt(turns, room=room) for turns in conversations], k)

    def _requests(self, conversations: Sequence[list[Message]]) -> list[Request]:
        """Each conversation with all tools, or with the k nearest to it."""
        if len(self._tools) <= self.route_above:
            if self._all is None:
                self._all = self.tools, self._stacked(self.tools)
            return [Request(turns, *self._all) for turns in conversations]
        chosen = [[tool for tool, _ in near] for near in self._nearest(conversations, self.k)]
        return [Request(turns, tools, self._stacked(tools)) for turns, tools in zip(conversations, chosen, strict=True)]

    def _stacked(self, tools: Sequence[Tool]) -> Tensor:
        """Their gists ``(N, K, D)``."""
        model = self.engine.model
        if not tools:
            return torch.zeros(0, model.config.num_gists, model.config.hidden_size, dtype=model.dtype)
        return torch.stack([self._gists[tool.name] for tool in tools])


def _reply(answer: Answer) -> Reply:
    calls = parse(answer.text)
    confidence = math.prod(max(shares) for shares in answer.choices) if answer.choices else None
    if isinstance(calls, Malformed) or not calls:
        return Reply([], answer.text, confidence)
    return Reply(calls, "", confidence)


def _turns(messages: Conversation) -> list[Message]:
    given: Any = [Message("user", messages)] if isinstance(messages, str) else messages
    turns = [row if isinstance(row, Message) else message(row, f"messages[{i}]") for i, row in enumerate(given)]
    if not turns:
        raise ValueError("messages is []; give at least the user's request")
    for i, turn in enumerate(turns):
        if not isinstance(turn.content, str) or any("\ud800" <= character <= "\udfff" for character in turn.content):
            raise ValueError(f"messages[{i}]: content is {turn.content!a:.60}; it must be text in valid Unicode")
    return turns
