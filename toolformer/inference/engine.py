"""In: requests with their tools. Out: what the model answers, decoded greedily in batches with all caches.

Three decodings of the same weights: *free* (the language model writes every token; with ``focus`` its pointer tells it
where to look), *constrained* (names, keys and types held to the schemas, the language model chooses, without the
pointer), *pointed* (the gists choose the tool or none, the schema spells it).
Letters as in ``model.modeling``.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from toolformer.calls import OPEN, Malformed, parse, render
from toolformer.data.batches import ALL, pad
from toolformer.data.prompts import Prompts
from toolformer.inference.grammar import Grammar
from toolformer.model.modeling import GistCache, ToolFormerMicro
from toolformer.records import Message, Tool
from toolformer.schemas import filled, gaps

Decoding = Literal["free", "constrained", "pointed"]
DECODINGS: tuple[Decoding, ...] = ("free", "constrained", "pointed")
COMPACT = 0.85  # a batch goes on without its finished rows when no more than this part of it is being written
NAMED = re.compile(r'^\s*\{"name": ("(?:[^"\\]|\\.)*")')  # a call that has told the name of its tool
REFILL = 0.6  # waiting requests join when no more than this part of a full batch is being written


class Request(NamedTuple):
    """A conversation, the tools its answer may use, and the gists ``(N, K, D)`` that stand for them."""

    messages: Sequence[Message]
    tools: Sequence[Tool]
    gists: Tensor


@dataclass
class Answer:
    """What was written. ``choices`` holds the pointer's probabilities (no call first) at each decision it took.

    ``asked`` names the required parameters that drafts had no value for; ``tokens`` still has the drafts, ``text`` not.
    ``unread`` says why a request was not even read; of one that was, it is empty.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finished: bool = False
    choices: list[list[float]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    unread: str = ""


class Engine:
    """Batched greedy decoding.

    Args:
        model: in the dtype and on the device it shall run in.
        prompts: the model's tokenizer and limits.
        batch_size: requests decoded together.
        max_new_tokens: an answer that is longer is cut there, and then usually malformed.
        most_calls: calls in one answer.
        no_call_bias: added to the pointer's score of "no call" at the first decision of an answer; calibrated on
            validation rows.
    """

    def __init__(
        self,
        model: ToolFormerMicro,
        prompts: Prompts,
        *,
        batch_size: int = 128,
        max_new_tokens: int = 256,
        most_calls: int = 4,
        no_call_bias: float = 0.0,
    ):
        self.model, self.prompts = model, prompts
        self.batch_size, self.max_new_tokens, self.most_calls = batch_size, max_new_tokens, most_calls
        self.no_call_bias = no_call_bias
        self.vocab_size = model.config.vocab_size
        self._grammar: Grammar | None = None

    @property
    def grammar(self) -> Grammar:
        """Built when first needed."""
        if self._grammar is None:
            marks = {"end": self.prompts.end, "forms": self.model.config.forms}
            self._grammar = Grammar(self.prompts.tokenizer, self.vocab_size, **marks)
        return self._grammar

    @torch.inference_mode()
    def encode(self, tools: Sequence[Tool], batch_size: int = 64) -> Tensor:
        """Gists ``(U, K, D)`` of distinct tools, each encoded once, in batches of like length."""
        config = self.model.config
        gists = torch.empty(len(tools), config.num_gists, config.hidden_size, dtype=self.model.dtype)
        gists = gists.to(self.model.device)
        schemas = [self.prompts.schema(tool) for tool in tools]
        order = sorted(range(len(tools)), key=lambda i: len(schemas[i]))
        for rows in in_batches(order, batch_size):
            ids, mask = (t.to(self.model.device) for t in pad([schemas[i] for i in rows]))
            gists[rows] = self.model.encode_tools(ids, mask)
        return gists

    def answer(
        self,
        requests: Sequence[Request],
        decoding: Decoding,
        progress: Callable[[int], None] | None = None,
        on_token: Callable[[int, int], None] | None = None,
    ) -> list[Answer]:
        """One answer a request, in their order.

        ``progress`` is told how many more are done, ``on_token`` the place of a request and the token just decided.
        """
        return _Writing(self, requests, decoding, on_token).run(progress or (lambda done: None))

    def first_scores(self, requests: Sequence[Request]) -> list[list[float]]:
        """The pointer's scores at the first decision, "no call" first, before bias and softmax; nothing is decoded."""
        return [scores for _, scores in self.first(requests, "pointed")]

    @torch.inference_mode()
    def first(self, requests: Sequence[Request], decoding: Decoding) -> list[tuple[Tensor, list[float]]]:
        """Next-token logits ``(V,)`` before anything is written, and the pointer's scores (none but when pointed)."""
        writing = _Writing(self, requests, decoding)
        out: list[tuple[Tensor, list[float]]] = [(torch.empty(0), [])] * len(requests)
        for rows in in_batches(list(writing.waiting), self.batch_size):
            batch = writing.start(rows)
            states = writing.read(batch)
            scores = writing.scores(batch, list(range(len(rows))), states[:, -1]) if writing.points else None
            last = self.model.next_token_logits(states, batch.ids, batch.mask, None, last=1, reading=batch.reading)
            logits = last[:, 0].float().cpu()
            for place, row in enumerate(rows):
                own = [] if scores is None else scores[place, : 1 + len(requests[row].tools)].tolist()
                out[row] = (logits[place], own)
        return out


@dataclass
class _Batch:
    """Rows that are written together: ``mask`` has a column for each token read or about to be read."""

    rows: list[int]  # places among the requests
    ids: Tensor  # (B, T) what is read next
    mask: Tensor  # (B, L), left-padded
    memory: Tensor  # (B, M, D)
    memory_mask: Tensor  # (B, M)
    request: Tensor | None  # (B, K, D)
    reading: Tensor | None  # (B, T, D) until the prompt's keys are in the cache
    cache: GistCache

    def select(self, keep: list[int]) -> None:
        """Goes on with some of the rows, without the columns that only the others needed."""
        index = torch.tensor(keep, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.rows = [self.rows[i] for i in keep]
        self.ids, self.mask = self.ids[index], self.mask[index]
        self.memory, self.memory_mask = self.memory[index], self.memory_mask[index]
        self.request = None if self.request is None else self.request[index]
        self.widen(self.mask.shape[1] - int(self.mask.sum(-1).max()))

    def widen(self, by: int) -> None:
        """Takes ``by`` columns of padding away on the left, or puts some there if ``by`` is negative."""
        self.mask = F.pad(self.mask, (-by, 0))
        layers: list[Any] = self.cache.self_attention_cache.layers
        for layer in layers:
            layer.keys, layer.values = F.pad(layer.keys, (0, 0, -by, 0)), F.pad(layer.values, (0, 0, -by, 0))
        if self.cache.said is not None:
            keys, ids = self.cache.said
            self.cache.said = F.pad(keys, (0, 0, -by, 0)), F.pad(ids, (-by, 0))

    def join(self, other: _Batch) -> None:
        """Takes the rows of another batch in."""
        width = max(self.mask.shape[1], other.mask.shape[1])
        for batch in (self, other):
            batch.widen(batch.mask.shape[1] - width)
        for part in ("self_attention_cache", "cross_attention_cache"):
            for mine, theirs in zip(getattr(self.cache, part).layers, getattr(other.cache, part).layers, strict=True):
                mine.keys, mine.values = torch.cat([mine.keys, theirs.keys]), torch.cat([mine.values, theirs.values])
        if self.cache.said is not None and other.cache.said is not None:
            keys, ids = zip(self.cache.said, other.cache.said, strict=True)
            self.cache.said = torch.cat(keys), torch.cat(ids)
        self.rows += other.rows
        self.ids, self.mask = torch.cat([self.ids, other.ids]), torch.cat([self.mask, other.mask])
        self.memory = torch.cat([self.memory, other.memory])
        self.memory_mask = torch.cat([self.memory_mask, other.memory_mask])
        if self.request is not None and other.request is not None:
            self.request = torch.cat([self.request, other.request])


class _Writing:
    """All requests of one call: those in the batch, and those that wait for a place in it.

    A few long answers would keep a fixed batch busy when most of its rows have ended; here others take their places.
    """

    def __init__(
        self,
        engine: Engine,
        requests: Sequence[Request],
        decoding: Decoding,
        on_token: Callable[[int, int], None] | None = None,
    ):
        self.engine, self.model, self.decoding, self.requests = engine, engine.model, decoding, requests
        self.on_token = on_token
        self.points = decoding == "pointed"
        if self.points and self.model.pointer is None:
            raise ValueError("decoding is 'pointed' but the model has no pointer; use free or constrained")
        self.prompts = [engine.prompts.prompt(request.messages, room=engine.max_new_tokens) for request in requests]
        self.answers = [Answer() for _ in requests]
        self.matchers: list = [None] * len(requests)
        self.calls = [0] * len(requests)
        self.called: list[set[int]] = [set() for _ in requests]  # places of the tools that an answer has called
        self.ended = [False] * len(requests)
        order = sorted(range(len(requests)), key=lambda i: len(self.prompts[i]))
        self.waiting = deque(order)
        self.focuses = self.model.config.focus
        self.decides = self.points or (self.focuses and decoding == "free")  # whether the pointer is asked
        self.focus = [ALL] * len(requests)  # the tool whose gists alone a row looks at
        self.tools = max([1, *(len(request.tools) for request in requests)])  # so that batches can be joined

    @torch.inference_mode()
    def run(self, progress: Callable[[int], object]) -> list[Answer]:
        """A token at a time until every row has ended."""
        full, batch = self.engine.batch_size, None
        while self.waiting or batch is not None:
            if self.waiting and (batch is None or len(batch.rows) <= REFILL * full):
                room = full - (0 if batch is None else len(batch.rows))
                more = self.start([self.waiting.popleft() for _ in range(min(room, len(self.waiting)))])
                more = self._advance(more, progress)
                if batch is not None and more is not None:
                    batch.join(more)
                batch = batch or more
            if batch is not None:
                batch = self._advance(batch, progress)
        for answer, request in zip(self.answers, self.requests, strict=True):
            self._settle(answer, request.tools)
        return self.answers

    def _settle(self, answer: Answer, tools: Sequence[Tool]) -> None:
        """The text of an answer: of forms the calls that they stand for; of drafts what was said after them."""
        tokens = answer.tokens[:-1] if answer.finished else answer.tokens
        answer.text = self._text(tokens)
        if self.model.config.forms == "none":
            return
        by_name = {tool.name: tool for tool in tools}
        made, (*closed, rest) = [], self._calls(tokens)
        for written in closed:
            calls = parse(written)
            if isinstance(calls, Malformed) or any(call.name not in by_name for call in calls):
                made.append(written.strip())
            else:
                lacking = [key for call in calls for key in gaps(call, by_name[call.name])]
                made += [] if lacking else [render([filled(call, by_name[call.name]) for call in calls])]
                answer.asked += lacking
        rest = rest.strip()
        if closed:
            answer.text = "\n".join([*made, *([] if made and (answer.asked or not rest) else [rest])])

    def _calls(self, tokens: list[int]) -> list[str]:
        """The text of each closed call, and what stands behind; an argument may hold the mark as text."""
        ends = [i + 1 for i, token in enumerate(tokens) if token == self.engine.prompts.call_close]
        return [self._text(tokens[start:end]) for start, end in zip([0, *ends], [*ends, len(tokens)], strict=True)]

    def _text(self, tokens: list[int]) -> str:
        return str(self.engine.prompts.tokenizer.decode(tokens, skip_special_tokens=False))

    def start(self, rows: list[int]) -> _Batch:
        """A batch of which nothing has been read yet."""
        model, device = self.model, self.model.device
        ids, mask = pad([self.prompts[row] for row in rows], left=True)
        ids, mask = ids.to(device), mask.to(device)
        gists, index = self._gists(rows, self.tools)
        memory, memory_mask = model.memory(gists, index)
        request = reading = None
        if model.needs_request and self.decides or model.copy_head is not None:
            reading = model.read(ids, mask)
        if model.needs_request and self.decides:
            assert reading is not None
            request = model.pool(reading, mask)
            if self.focuses:
                for row, nearest in zip(rows, model.nearest(request, gists, index).tolist(), strict=True):
                    self.focus[row] = nearest
        if self.decoding == "constrained":
            for row in rows:
                self.matchers[row] = self.engine.grammar.choice(self.requests[row].tools, self.engine.most_calls)
        return _Batch(rows, ids, mask.long(), memory, memory_mask, request, reading, GistCache(DynamicCache()))

    def _gists(self, rows: list[int], width: int = 0) -> tuple[Tensor, Tensor]:
        """The gists of some rows, and which row has which: ``(U, K, D)``, ``(B, N)`` with N at least ``width``."""
        gists = torch.cat([self.requests[row].gists.to(self.model.device) for row in rows])
        index, at = [], 0
        for row in rows:
            n = len(self.requests[row].tools)
            index.append([*range(at, at + n), *[-1] * (width - n)])
            at += n
        return gists, pad(index, -1)[0].to(self.model.device)

    def read(self, batch: _Batch) -> Tensor:
        """Decoder states ``(B, T, D)`` of what is read next."""
        positions = (batch.mask.cumsum(-1) - 1).clamp(min=0)[:, -batch.ids.shape[1] :]
        memory_mask = batch.memory_mask
        if self.focuses:
            memory_mask = self.model.focused(memory_mask, self._looks(batch))
        return self.model.decode(
            batch.ids,
            attention_mask=batch.mask,
            position_ids=positions,
            past_key_values=batch.cache,
            use_cache=True,
            memory=batch.memory,
            memory_mask=memory_mask,
        )

    def _looks(self, batch: _Batch) -> Tensor:
        """Where each token that is read next looks ``(B, T)``: as in training (``data.batches``)."""
        looks = torch.tensor([self.focus[row] for row in batch.rows], device=batch.ids.device)[:, None]
        if batch.ids.shape[1] > 1:  # a prompt
            return looks.expand_as(batch.ids)
        close = self.engine.prompts.call_close  # the next decision is made in view of all tools
        return looks.masked_fill(batch.ids == close, ALL)

    def _advance(self, batch: _Batch, progress: Callable[[int], object]) -> _Batch | None:
        """Reads, decides, and writes one token a row; None when all its rows have ended."""
        states = self.read(batch)
        if self.decides:
            self._decide(batch, states[:, -1])
        logits = self.model.next_token_logits(
            states, batch.ids, batch.mask, batch.cache, last=1, reading=batch.reading
        )[:, 0]
        batch.reading = None
        chosen = self._choose(batch, logits.float())
        before = sum(self.ended[row] for row in batch.rows)
        keep = self._append(batch, chosen)
        progress(len(batch.rows) - len(keep) - before)
        if not keep:
            return None
        batch.ids = chosen[:, None]
        batch.mask = F.pad(batch.mask, (0, 1), value=1)
        if len(keep) <= COMPACT * len(batch.rows) or self.waiting and len(keep) <= REFILL * self.engine.batch_size:
            batch.select(keep)
        return batch

    def scores(self, batch: _Batch, places: list[int], states: Tensor) -> Tensor:
        """The pointer's scores ``(P, 1 + N)`` of some rows of the batch; ``states`` are those of all."""
        index = torch.tensor(places, device=states.device)
        request = None if batch.request is None else batch.request[index]
        rows = [batch.rows[i] for i in places]
        gists, tool_index = self._gists(rows)
        called = torch.zeros(len(rows), 1, tool_index.shape[1], dtype=torch.bool)
        for place, row in enumerate(rows):
            called[place, 0, list(self.called[row])] = True
        return self.model.point(states[index, None], request, gists, tool_index, called.to(states.device))[:, 0]

    def _decide(self, batch: _Batch, states: Tensor) -> None:
        """Where a call may start, the pointer picks the tool or none, and the row gets the grammar of that choice."""
        starting = [i for i, row in enumerate(batch.rows) if self._may_start(row)]
        if not starting:
            return
        scores = self.scores(batch, starting, states)
        first = torch.tensor([self.calls[batch.rows[i]] == 0 for i in starting], device=states.device)
        scores[:, 0] += self.engine.no_call_bias * first
        shares = scores.double().softmax(-1).cpu()
        for i, share in zip(starting, shares, strict=True):
            row = batch.rows[i]
            tools = self.requests[row].tools
            self.focus[row] = int(share[1 : 1 + len(tools)].argmax()) if tools else ALL
            self.called[row] |= {self.focus[row]} - {ALL}
            if not self.points:
                self.calls[row] += 1
                continue
            grammar = self.engine.grammar
            self.answers[row].choices.append(share[: 1 + len(tools)].tolist())
            pick = int(share.argmax())
            if pick and self.calls[row] < self.engine.most_calls:
                self.matchers[row] = grammar.call(tools[pick - 1], first=self.calls[row] == 0)
                self.calls[row] += 1
            else:
                asked = self.calls[row] and self.model.config.forms != "none" and self._drafted(row)
                self.matchers[row] = grammar.reply(first=not asked) if asked or self.calls[row] == 0 else None
                self.calls[row] = self.engine.most_calls + 1  # no further decision

    def _drafted(self, row: int) -> bool:
        """Whether the call just written lacks a value."""
        calls = parse(self._calls(self.answers[row].tokens)[-2])
        by_name = {tool.name: tool for tool in self.requests[row].tools}
        return not isinstance(calls, Malformed) and any(gaps(call, by_name[call.name]) for call in calls)

    def _may_start(self, row: int) -> bool:
        if self.ended[row] or self.calls[row] > self.engine.most_calls:
            return False
        tokens = self.answers[row].tokens
        return not tokens or tokens[-1] == self.engine.prompts.call_close

    def _choose(self, batch: _Batch, logits: Tensor) -> Tensor:
        """The best allowed token of each row."""
        if self.decoding == "free":
            return logits.argmax(-1)
        matchers = [self.matchers[row] for row in batch.rows]
        allowed = torch.from_numpy(self.engine.grammar.allowed(matchers, logits.shape[1])).to(logits.device)
        if self.points:  # after the last call nothing but the end
            closed = [i for i, matcher in enumerate(matchers) if matcher is None]
            allowed[closed] = False
            allowed[closed, self.engine.prompts.end] = True
        return logits.masked_fill(~allowed, float("-inf")).argmax(-1)

    def _append(self, batch: _Batch, chosen: Tensor) -> list[int]:
        """Writes the tokens down; returns the places in the batch that go on."""
        keep = []
        for i, (row, token) in enumerate(zip(batch.rows, chosen.tolist(), strict=True)):
            if self.ended[row]:
                continue
            answer, matcher = self.answers[row], self.matchers[row]
            answer.tokens.append(token)
            if self.on_token is not None:
                self.on_token(row, token)
            answer.finished = token == self.engine.prompts.end
            self.ended[row] = answer.finished or len(answer.tokens) == self.engine.max_new_tokens
            if self.ended[row]:
                self.matchers[row] = None
                continue
            if matcher is not None:
                matcher.consume_token(token)
                if self.points and token == self.engine.prompts.call_close:
                    self.matchers[row] = None
            if self.focuses and self.decoding == "constrained":
                self._look_at_named(row, token)
            keep.append(i)
        return keep

    def _look_at_named(self, row: int, token: int) -> None:
        """Once a call has named its tool, the row looks at that tool alone until the call is closed."""
        if token == self.engine.prompts.call_close:
            self.focus[row] = ALL
        elif self.focus[row] == ALL and self.answers[row].tokens:
            written = str(self.engine.prompts.tokenizer.decode(self.answers[row].tokens))
            _, opened, call = written.rpartition(OPEN)
            name = NAMED.search(call) if opened else None  # a reply may look like a call that names any tool
            if name is not None:
                names = [tool.name for tool in self.requests[row].tools]
                self.focus[row] = names.index(json.loads(name[1]))


def in_batches(items: list[int], size: int) -> Iterator[list[int]]:
    """Consecutive slices of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
