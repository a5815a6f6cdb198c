"""In: requests with their tools. Out: what the model answers, decoded greedily in batches with all caches.

Three decodings of the same weights: *free* (the language model alone), *constrained* (names, keys and types held to the
schemas, the language model chooses), *pointed* (the gists choose the tool or none, the schema spells it).
Letters as in ``model.modeling``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from toolformer.data.batches import pad
from toolformer.data.prompts import Prompts
from toolformer.inference.grammar import Grammar
from toolformer.model.modeling import GistCache, ToolFormerMicro
from toolformer.records import Message, Tool

Decoding = Literal["free", "constrained", "pointed"]
DECODINGS: tuple[Decoding, ...] = ("free", "constrained", "pointed")
COMPACT = 0.85  # a batch goes on without its finished rows when no more than this part of it is live


class Request(NamedTuple):
    """A conversation, the tools its answer may use, and the gists ``(N, K, D)`` that stand for them."""

    messages: Sequence[Message]
    tools: Sequence[Tool]
    gists: Tensor


@dataclass
class Answer:
    """What was written. ``choices`` holds the pointer's probabilities (no call first) at each decision it took."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finished: bool = False
    choices: list[list[float]] = field(default_factory=list)


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
            self._grammar = Grammar(self.prompts.tokenizer, self.vocab_size, end=self.prompts.end)
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
        self, requests: Sequence[Request], decoding: Decoding, progress: Callable[[int], None] | None = None
    ) -> list[Answer]:
        """One answer a request, in their order; ``progress`` is told how many more are done."""
        prompts = [self.prompts.prompt(request.messages, room=self.max_new_tokens) for request in requests]
        order = sorted(range(len(requests)), key=lambda i: (len(prompts[i]), len(requests[i].tools)))
        answers: list[Answer] = [Answer() for _ in requests]
        for rows in in_batches(order, self.batch_size):
            batch = _Batch(self, [requests[i] for i in rows], [prompts[i] for i in rows], decoding)
            for i, answer in zip(rows, batch.run(), strict=True):
                answers[i] = answer
            if progress is not None:
                progress(len(rows))
        return answers

    def first_scores(self, requests: Sequence[Request]) -> list[list[float]]:
        """The pointer's scores at the first decision, "no call" first, before bias and softmax; nothing is decoded."""
        return [scores for _, scores in self.first(requests, "pointed")]

    def first(self, requests: Sequence[Request], decoding: Decoding) -> list[tuple[Tensor, list[float]]]:
        """Next-token logits ``(V,)`` before anything is written, and the pointer's scores (none but when pointed)."""
        prompts = [self.prompts.prompt(request.messages, room=self.max_new_tokens) for request in requests]
        order = sorted(range(len(requests)), key=lambda i: (len(prompts[i]), len(requests[i].tools)))
        out: list[tuple[Tensor, list[float]]] = [(torch.empty(0), [])] * len(requests)
        for rows in in_batches(order, self.batch_size):
            batch = _Batch(self, [requests[i] for i in rows], [prompts[i] for i in rows], decoding)
            logits, scores = batch.first()
            for place, i in enumerate(rows):
                own = [] if scores is None else scores[place, : 1 + len(requests[i].tools)].tolist()
                out[i] = (logits[place].cpu(), own)
        return out


class _Batch:
    """The state of one batch: caches, matchers, and which rows are still being written."""

    def __init__(self, engine: Engine, requests: Sequence[Request], prompts: list[list[int]], decoding: Decoding):
        self.engine, self.model, self.decoding = engine, engine.model, decoding
        self.requests = requests
        self.answers = [Answer() for _ in requests]
        self.matchers: list = [None] * len(requests)
        self.calls = [0] * len(requests)
        self.live = list(range(len(requests)))
        device = self.model.device
        ids, mask = pad(prompts, left=True)
        self.ids, self.mask = ids.to(device), mask.to(device)
        counts = [len(request.tools) for request in requests]
        self.gists = torch.cat([request.gists.to(device) for request in requests])
        places = iter(range(sum(counts)))
        self.tool_index = pad([[next(places) for _ in range(n)] for n in counts], -1)[0].to(device)
        if decoding == "constrained":
            self.matchers = [engine.grammar.choice(request.tools, engine.most_calls) for request in requests]
        self.points = decoding == "pointed"
        if self.points and self.model.pointer is None:
            raise ValueError("decoding is 'pointed' but the model has no pointer; use free or constrained")

    @torch.inference_mode()
    def run(self) -> list[Answer]:
        """Prefill, then a token at a time until every row has ended."""
        model = self.model
        memory, memory_mask = model.memory(self.gists, self.tool_index)
        cache = GistCache(DynamicCache())
        mask, ids, request = self.mask.long(), self.ids, self._request()
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        for _ in range(self.engine.max_new_tokens):
            states = model.decode(
                ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                memory=memory,
                memory_mask=memory_mask,
            ).last_hidden_state
            if self.points:
                self._decide(states[:, -1], request)
            chosen = self._choose(model.next_token_logits(states, ids, mask, cache, last=1)[:, 0].float())
            keep = self._append(chosen)
            if not keep:
                break
            if len(keep) <= COMPACT * len(self.live):
                rows = torch.tensor(keep, device=mask.device)
                cache.batch_select_indices(rows)
                mask, memory, memory_mask, chosen = mask[rows], memory[rows], memory_mask[rows], chosen[rows]
                self.tool_index = self.tool_index[rows]
                request = request[rows] if request is not None else None
                self.live = [self.live[i] for i in keep]
            ids = chosen[:, None]
            positions = mask.sum(-1, keepdim=True)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        for answer in self.answers:
            tokens = answer.tokens[:-1] if answer.finished else answer.tokens
            answer.text = str(self.engine.prompts.tokenizer.decode(tokens, skip_special_tokens=False))
        return self.answers

    @torch.inference_mode()
    def first(self) -> tuple[Tensor, Tensor | None]:
        """Before anything is written: next-token logits ``(B, V)``, and the pointer's scores ``(B, 1 + N)``."""
        memory, memory_mask = self.model.memory(self.gists, self.tool_index)
        mask = self.mask.long()
        states = self.model.decode(
            self.ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            memory=memory,
            memory_mask=memory_mask,
        ).last_hidden_state
        scores = None
        if self.points:
            scores = self.model.point(states[:, -1:], self._request(), self.gists, self.tool_index)[:, 0]
        return self.model.next_token_logits(states, self.ids, mask, None, last=1)[:, 0].float(), scores

    def _request(self) -> Tensor | None:
        """The encoded requests ``(B, D)``, where the pointer wants them."""
        if not self.points or self.model.pointer.query == "decoder":
            return None
        return self.model.encode_request(self.ids, self.mask)

    def _decide(self, states: Tensor, request: Tensor | None) -> None:
        """Where a call may start, the pointer picks the tool or none, and the row gets the grammar of that choice."""
        starting = [i for i, row in enumerate(self.live) if self._may_start(row)]
        if not starting:
            return
        rows = torch.tensor(starting, device=states.device)
        scores = self.model.point(
            states[rows, None], request[rows] if request is not None else None, self.gists, self.tool_index[rows]
        )[:, 0]
        first = torch.tensor([self.calls[self.live[i]] == 0 for i in starting], device=states.device)
        scores[:, 0] += self.engine.no_call_bias * first
        shares = scores.double().softmax(-1).cpu()
        grammar = self.engine.grammar
        for i, share in zip(starting, shares, strict=True):
            row = self.live[i]
            tools = self.requests[row].tools
            self.answers[row].choices.append(share[: 1 + len(tools)].tolist())
            pick = int(share.argmax())
            if pick and self.calls[row] < self.engine.most_calls:
                self.matchers[row] = grammar.call(tools[pick - 1], first=self.calls[row] == 0)
                self.calls[row] += 1
            else:
                self.matchers[row] = grammar.reply() if self.calls[row] == 0 else None
                self.calls[row] = self.engine.most_calls + 1  # no further decision

    def _may_start(self, row: int) -> bool:
        answer = self.answers[row]
        if answer.finished or self.calls[row] > self.engine.most_calls:
            return False
        return not answer.tokens or answer.tokens[-1] == self.engine.prompts.call_close

    def _choose(self, logits: Tensor) -> Tensor:
        """The best allowed token of each live row."""
        if self.decoding == "free":
            return logits.argmax(-1)
        allowed = torch.from_numpy(
            self.engine.grammar.allowed([self.matchers[row] for row in self.live], logits.shape[1])
        ).to(logits.device)
        end = self.engine.prompts.end
        for i, row in enumerate(self.live):
            if self.points and self.matchers[row] is None:  # after the last call nothing but the end
                allowed[i] = False
                allowed[i, end] = True
        return logits.masked_fill(~allowed, float("-inf")).argmax(-1)

    def _append(self, chosen: Tensor) -> list[int]:
        """Write the tokens down; returns the places in ``live`` that go on."""
        keep = []
        for i, (row, token) in enumerate(zip(self.live, chosen.tolist(), strict=True)):
            answer = self.answers[row]
            if answer.finished:
                continue
            answer.tokens.append(token)
            matcher = self.matchers[row]
            if token == self.engine.prompts.end:
                answer.finished = True
                continue
            if matcher is not None:
                matcher.consume_token(token)
                if self.points and token == self.engine.prompts.call_close:
                    self.matchers[row] = None
            keep.append(i)
        return keep


def in_batches(items: list[int], size: int) -> Iterator[list[int]]:
    """Consecutive slices of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
