"""In: requests with their tools. Out: what the model answers, decoded greedily in batches with all caches.

Three decodings of the same weights: *free* (the language model writes every token; with ``focus`` its pointer tells it
where to look), *constrained* (names, keys and types held to the schemas, the language model chooses, without the
pointer), *pointed* (the gists choose the tool or none, the schema spells it).
Letters as in ``model.modeling``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from toolformer.data.batches import pad
from toolformer.data.prompts import Prompts, TooLongError
from toolformer.inference.batch import Batch, best, log_probabilities
from toolformer.inference.grammar import Grammar
from toolformer.inference.memory import ProjectedTools
from toolformer.inference.writing import DECODINGS, Answer, Decoding, OnToken, Request, Row
from toolformer.model.modeling import ToolFormerMicro
from toolformer.records import Message, Tool

__all__ = ["DECODINGS", "Answer", "Decoding", "Engine", "Request", "answered"]
REFILL = 0.6  # waiting requests join when no more than this part of a full batch is being written
TOKENS = 2**16  # kept of all rows together: of longer prompts fewer are written at a time
PAIRS = 2**22  # of tokens that look at each other while prompts are read: one of 2,048, or 128 of 181
LAUNCH = {"cpu": 16, "cuda": 2048}  # tokens that could be encoded in the time that one more batch costs


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
        self._projected: ProjectedTools | None = None

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
        config, device = self.model.config, self.model.device
        gists = torch.empty(len(tools), config.num_gists, config.hidden_size, dtype=self.model.dtype, device=device)
        schemas = [self.prompts.schema(tool) for tool in tools]
        order = sorted(range(len(tools)), key=lambda i: len(schemas[i]))
        lengths = [len(schemas[i]) for i in order]
        for start, end in buckets(lengths, batch_size, LAUNCH.get(device.type, LAUNCH["cuda"])):
            rows = order[start:end]
            ids, mask = (t.to(device) for t in pad([schemas[i] for i in rows]))
            gists[rows] = self.model.encode_tools(ids, mask)
        return gists

    @torch.inference_mode()
    def answer(
        self,
        requests: Sequence[Request],
        decoding: Decoding,
        progress: Callable[[int], object] | None = None,
        on_token: OnToken | None = None,
    ) -> list[Answer]:
        """One answer a request, in their order.

        ``progress`` is told how many more are done; ``on_token(row, token)`` each token of the answer to the request
        of that place, as soon as it is decided (of what a grammar forces, several at once).
        """
        rows = self._rows(requests, decoding, on_token)
        self._write(rows, progress or (lambda done: None))
        return [row.settle() for row in rows]

    def _write(self, rows: Sequence[Row], progress: Callable[[int], object]) -> None:
        """Until all have ended."""
        for size, some in sittings(sorted(rows, key=_length), self.batch_size):
            self._sit(self._batch(some, size), deque(some), size, progress)

    def _sit(self, batch: Batch, waiting: deque[Row], size: int, progress: Callable[[int], object]) -> None:
        """Until all have ended: where rows of the batch have, others take their places."""
        room = 0
        while waiting or batch.rows:
            if len(batch.rows) <= REFILL * size:
                room = size - len(batch.rows)
            if room and waiting:
                some = [waiting.popleft() for _ in range(readable(waiting, room))]
                room -= len(some)
                start, states = len(batch.rows), batch.admit(some)
            else:
                start, states = 0, batch.read()
            before = len(batch.rows)
            self._advance(batch, start, states)
            progress(before - len(batch.rows))

    def first_scores(self, requests: Sequence[Request]) -> list[list[float]]:
        """The pointer's scores at the first decision, "no call" first, before bias and softmax; nothing is decoded."""
        return [scores for _, scores in self.first(requests, "pointed")]

    @torch.inference_mode()
    def first(self, requests: Sequence[Request], decoding: Decoding) -> list[tuple[Tensor, list[float]]]:
        """Next-token logits ``(V,)`` before anything is written, and the pointer's scores (none but when pointed)."""
        waiting = deque(sorted(self._rows(requests, decoding), key=_length))
        out: list[tuple[Tensor, list[float]]] = [(torch.empty(0), [])] * len(waiting)
        while waiting:
            some = [waiting.popleft() for _ in range(readable(waiting, self.batch_size))]
            batch = self._batch(some, len(some))
            states, slots = batch.admit(some), list(range(len(some)))
            logits = self._logits(states)
            if batch.said is not None:
                logits = log_probabilities(logits, batch.said.copies(slice(0, len(some)), batch.lengths, states))
            scores = batch.scores(slots, states).tolist() if decoding == "pointed" else [[]] * len(some)
            for row, own, score in zip(some, logits.cpu(), scores, strict=True):
                out[row.place] = own, score[: 1 + len(row.request.tools)]
        return out

    def _rows(self, requests: Sequence[Request], decoding: Decoding, on_token: OnToken | None = None) -> list[Row]:
        if decoding not in DECODINGS:
            raise ValueError(f"decoding is {decoding!r}; use one of {', '.join(DECODINGS)}")
        if decoding == "pointed" and self.model.pointer is None:
            raise ValueError("decoding is 'pointed' but the model has no pointer; use free or constrained")
        return [Row(self, i, request, decoding, on_token) for i, request in enumerate(requests)]

    def _batch(self, rows: Sequence[Row], size: int) -> Batch:
        """An empty batch with room for ``size`` of some rows; the tools of all of them are projected."""
        if self._projected is None:
            self._projected = ProjectedTools(self.model)
        for row, places in zip(rows, self._projected.places([row.request.gists for row in rows]), strict=True):
            row.places = places
        return Batch(
            self.model,
            self._projected,
            min(size, len(rows)),
            widest=max((len(row.places) for row in rows), default=0),
            shared=len({row.places for row in rows}) == 1,
            pointing=any(row.decides for row in rows),
        )

    def _advance(self, batch: Batch, start: int, states: Tensor) -> None:
        """Decides and writes at least a token of each row from slot ``start`` on, whose last tokens have ``states``."""
        slots = range(start, len(batch.rows))
        starting = [slot for slot in slots if batch.rows[slot].starts]
        if starting:
            self._decide(batch, starting, states[[slot - start for slot in starting]])
        for row in batch.rows[start:]:
            row.push_forced()
        open_ = [slot for slot in slots if not batch.rows[slot].ended and not batch.rows[slot].unread]
        if open_:
            for slot, token in zip(open_, self._choose(batch, start, states, open_), strict=True):
                batch.rows[slot].push(token)
                batch.rows[slot].push_forced()
        batch.drop([slot for slot in slots if batch.rows[slot].ended])

    def _decide(self, batch: Batch, slots: list[int], states: Tensor) -> None:
        """Where a call may start, the pointer picks the tool or none."""
        rows = [batch.rows[slot] for slot in slots]
        scores = batch.scores(slots, states)
        scores[:, 0] += self.no_call_bias * torch.tensor([row.calls == 0 for row in rows], device=states.device)
        for row, shares in zip(rows, scores.double().softmax(-1).tolist(), strict=True):
            row.decide(shares[: 1 + len(row.request.tools)])

    def _choose(self, batch: Batch, start: int, states: Tensor, slots: list[int]) -> list[int]:
        """The best allowed token of some slots; masks are made only where the best of all is not allowed."""
        copies = None
        if batch.said is not None:
            copies = batch.said.copies(slice(start, len(batch.rows)), batch.lengths[start:], states)
        if len(slots) < len(states):
            index = torch.tensor([slot - start for slot in slots], device=states.device)
            states, copies = states[index], copies and copies.select(index)
        logits = self._logits(states)
        chosen: list[int] = best(logits, copies, None).tolist()
        matchers = [batch.rows[slot].matcher for slot in slots]
        wrong = [i for i, m in enumerate(matchers) if m is not None and not self.grammar.accepts(m, chosen[i])]
        if wrong:
            allowed = torch.from_numpy(self.grammar.allowed([matchers[i] for i in wrong], self.vocab_size))
            index = torch.tensor(wrong, device=logits.device)
            others = best(logits[index], copies and copies.select(index), allowed.to(logits.device)).tolist()
            for i, token in zip(wrong, others, strict=True):
                chosen[i] = token
        return chosen

    def _logits(self, states: Tensor) -> Tensor:
        logits = self.model.lm_head(states)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def unread(engine: Engine, messages: Sequence[Message]) -> str:
    """Why a request cannot be read within the model's limit; empty where it can."""
    try:
        engine.prompts.prompt(messages, room=engine.max_new_tokens)
    except TooLongError as error:
        return str(error)
    return ""


def answered(
    engine: Engine,
    requests: Sequence[Request],
    decoding: Decoding,
    progress: Callable[[int], object] = lambda done: None,
) -> list[Answer]:
    """One answer a request, in their order; a request over the limit gets one that says so, and counts as malformed."""
    answers = [Answer(unread=unread(engine, request.messages)) for request in requests]
    read = [i for i, answer in enumerate(answers) if not answer.unread]
    progress(len(requests) - len(read))
    for i, answer in zip(read, engine.answer([requests[i] for i in read], decoding, progress), strict=True):
        answers[i] = answer
    return answers


def _length(row: Row) -> int:
    return len(row.prompt)


def sittings(rows: list[Row], most: int) -> Iterator[tuple[int, list[Row]]]:
    """Cuts rows of ascending length into those that share a cache, and says how many of them at a time.

    ``most``, or where prompts are so long that these would hold more than ``TOKENS``, as many as do not; so that short
    ones need not wait for it, none is then less than half as long as another.
    """
    while rows:
        size = max(1, min(most, TOKENS // _length(rows[-1])))
        cut = 0 if size == most else bisect_right(rows, _length(rows[-1]) // 2, key=_length)
        yield size, rows[cut:]
        rows = rows[:cut]


def readable(rows: Sequence[Row], most: int) -> int:
    """How many of the first ``most`` rows, of ascending length, may be read together: one, or within ``PAIRS``."""
    within = (n for n, row in enumerate(islice(rows, most), start=1) if n * _length(row) ** 2 <= PAIRS)
    return max(within, default=1)


def buckets(lengths: Sequence[int], most: int, launch: int) -> list[tuple[int, int]]:
    """Cuts ascending ``lengths`` into batches of at most ``most`` rows: where each starts and ends.

    The cheapest cuts of all, where a batch costs its rows times its longest, padding included, and ``launch`` besides.
    """
    cost, cut = [0], [0]
    for end in range(1, len(lengths) + 1):
        ways = ((cost[s] + launch + (end - s) * lengths[end - 1], s) for s in range(max(0, end - most), end))
        least, start = min(ways)
        cost.append(least)
        cut.append(start)
    out, end = [], len(lengths)
    while end:
        out.append((cut[end], end))
        end = cut[end]
    return out[::-1]
