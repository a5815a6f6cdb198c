"""In: rows with tokens that the decoder has yet to read. Out: the states behind them, computed with all caches.

Rows stand in slots of tensors that stay where they are: a row that ends gives its slot to the last one, one that begins
takes the next. Each row has its own length, and may read several tokens at once: linear layers compute the P tokens of
all rows without padding, attention pads the queries alone.
Letters as in ``model.modeling``; L decoder layers, G heads of keys, H their size, W tokens kept of each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from toolformer.data.batches import ALL, pad
from toolformer.inference.memory import ProjectedTools
from toolformer.inference.writing import Row
from toolformer.model.modeling import ToolFormerMicro
from toolformer.model.pointer import nearest

CHUNK = 64  # tokens of room by which the cache grows


class _Reading(NamedTuple):
    """What one pass reads: P tokens of B rows, at most T of each."""

    tokens: Tensor  # (P,)
    rows: Tensor  # (P,) slot
    positions: Tensor  # (P,)
    flat: Tensor | None  # (P,) where each stands among B x T; None = there is no padding
    last: Tensor  # (B,) the last token of each row
    shape: tuple[int, int]  # B, T
    slots: slice
    length: int  # of the longest row
    bias: Tensor | None  # (B, 1, T, W) added to the scores of self-attention
    width: int  # slots of the memory, M
    memory_bias: Tensor | None  # (B, 1, T, M) the same of cross-attention
    some: Tensor | None  # (P, 1) False where a token sees no gist at all; None = all see some


class Batch:
    """Rows that are written together.

    Args:
        model: reads.
        tools: projected for it.
        size: rows at once.
        widest: tools of the request that has most.
        shared: whether all requests have the same tools, which then stand there once.
        pointing: whether the pointer will be asked.
    """

    def __init__(
        self, model: ToolFormerMicro, tools: ProjectedTools, size: int, *, widest: int, shared: bool, pointing: bool
    ):
        self.model, self.tools, self.shared = model, tools, shared
        config, like = model.config, model.embed_tokens.weight
        self.rows: list[Row] = []
        self.lengths: list[int] = []
        self.layers: list[Any] = list(model.decoder.layers)
        heads, head_dim = config.num_key_value_heads, self.layers[0].self_attn.head_dim
        assert heads is not None
        self.groups = config.num_attention_heads // heads
        self.cache = like.new_zeros(len(self.layers), 2, size, heads, 0, head_dim)  # (L, 2, B, G, W, H)
        self.first = 0 if model.no_tool is None else 1
        slots = self.first + widest * config.num_gists
        self.memory = like.new_zeros(len(self.layers), 2, 1 if shared else size, heads, slots, head_dim)
        self.request = None
        if model.needs_request and pointing:
            self.request = like.new_zeros(size, config.num_gists, config.hidden_size)
        self.said = None if model.copy_head is None else Said(model, size)
        self._make_room(CHUNK)

    def _make_room(self, length: int) -> None:
        more = length - self.cache.shape[4]
        if more > 0:
            more = -(-more // CHUNK) * CHUNK
            self.cache = F.pad(self.cache, (0, 0, 0, more))
            if self.said is not None:
                self.said.make_room(more)
            positions = torch.arange(self.cache.shape[4], device=self.cache.device)[None]
            cos, sin = self.model.decoder.rotary_emb(self.cache, positions)
            half = sin.shape[-1] // 2  # x rolled by half is Qwen2's rotated, but for the sign of its first half
            self.cos, self.sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)

    def admit(self, rows: Sequence[Row]) -> Tensor:
        """Takes rows in and reads their prompts: states ``(B', D)`` of their last tokens."""
        model, device, start = self.model, self.cache.device, len(self.rows)
        slots = slice(start, start + len(rows))
        self.rows += rows
        self.lengths += [0] * len(rows)
        index = pad([row.places for row in rows], -1)[0].to(device)
        if not self.shared or start == 0:
            projected = self.tools.keys_and_values(index[:1] if self.shared else index)
            self.memory[:, :, slice(0, 1) if self.shared else slots, :, : projected.shape[4]] = projected
        reading, looks = None, [ALL] * len(rows)
        if self.request is not None or self.said is not None:
            ids, mask = (t.to(device) for t in pad([row.prompt for row in rows]))
            reading = model.read(ids, mask)
            if self.request is not None:
                self.request[slots] = model.pool(reading, mask)
                if model.config.focus:
                    looks = nearest(model.embed(self.request[slots]), self.tools.points, index).tolist()
        for row, near in zip(rows, looks, strict=True):
            row.begin(near)
        return self._read(slots, reading)

    def read(self) -> Tensor:
        """Reads what all rows have not read yet: states ``(B, D)`` of their last tokens."""
        return self._read(slice(0, len(self.rows)), None)

    def drop(self, ended: Sequence[int]) -> None:
        """Goes on without some slots; the last rows move into them."""
        gone, left = set(ended), len(self.rows) - len(ended)
        free = [slot for slot in ended if slot < left]
        movers = [slot for slot in range(left, len(self.rows)) if slot not in gone]
        for there, slot in zip(free, movers, strict=True):
            self.rows[there], self.lengths[there] = self.rows[slot], self.lengths[slot]
        del self.rows[left:], self.lengths[left:]
        if not movers:
            return
        source, target = torch.tensor([movers, free], device=self.cache.device)
        used = max(self.lengths)
        parts = [(self.cache[:, :, :, :, :used], 2)]
        parts += [] if self.shared else [(self.memory, 2)]
        parts += [] if self.request is None else [(self.request, 0)]
        parts += [] if self.said is None else [(part, 0) for part in self.said.parts()]
        for part, dim in parts:
            part.index_copy_(dim, target, part.index_select(dim, source))

    def scores(self, slots: Sequence[int], states: Tensor) -> Tensor:
        """The pointer's scores ``(P, 1 + N)`` of some slots by their states ``(P, D)``."""
        assert self.model.pointer is not None
        index = pad([self.rows[slot].places for slot in slots], -1)[0]
        called = torch.zeros(len(slots), 1, index.shape[1], dtype=torch.bool)
        for place, slot in enumerate(slots):
            called[place, 0, list(self.rows[slot].called)] = True
        request = None if self.request is None else self.request[list(slots)]
        index, called = index.to(states.device), called.to(states.device)
        return self.model.pointer.scores(states[:, None], request, self.tools.points, index, called)[:, 0]

    def _reading(self, slots: slice) -> _Reading:
        """What the rows of these slots have not read yet, taken from them."""
        rows, starts = self.rows[slots], self.lengths[slots]
        counts = [len(row.unread) for row in rows]
        most, device = max(counts), self.cache.device
        unread = [
            (token, look, slot, start + i, place * most + i)
            for place, (row, start, slot) in enumerate(zip(rows, starts, range(len(self.rows))[slots], strict=True))
            for i, (token, look) in enumerate(row.unread)
        ]
        for row in rows:
            row.unread = []
        self.lengths[slots] = lengths = [start + count for start, count in zip(starts, counts, strict=True)]
        length = max(lengths)
        self._make_room(length)
        tokens, looks, slot, positions, flat = torch.tensor(unread, device=device).unbind(-1)
        packed = len(unread) < most * len(rows)
        bias = None
        if most > 1 or min(lengths) < length:
            asked = torch.tensor(starts, device=device)[:, None] + torch.arange(most, device=device)
            bias = self._bias(torch.arange(length, device=device) <= asked[..., None])
        width, memory_bias, some = self._views(slots, looks, slot, flat, (len(rows), most))
        return _Reading(
            tokens,
            slot,
            positions,
            flat if packed else None,
            torch.tensor(counts, device=device).cumsum(0) - 1,
            (len(rows), most),
            slots,
            length,
            bias,
            width,
            memory_bias,
            some,
        )

    def _views(
        self, slots: slice, looks: Tensor, slot: Tensor, flat: Tensor, shape: tuple[int, int]
    ) -> tuple[int, Tensor | None, Tensor | None]:
        """Which gists each token sees: width, bias and ``some`` of a ``_Reading``."""
        per, tools = self.model.config.num_gists, [len(row.places) for row in self.rows]
        here = tools[slots]
        width = self.first + max(here) * per
        focused = self.model.config.focus and bool((looks != ALL).any())
        if not focused and min(here) == max(here):
            return width, None, None
        of = torch.arange(max(here) * per, device=looks.device) // per  # (M,)
        own = torch.tensor(tools, device=looks.device)[slot, None]
        seen = (of < own) & ((looks[:, None] == ALL) | (looks[:, None] == of))
        seen = F.pad(seen, (self.first, 0), value=True)
        some = None
        if not self.first and min(here) == 0:
            some = seen.any(-1, keepdim=True)
            seen |= ~some  # a softmax over nothing is NaN: look anywhere, then count it as 0
        padded = seen.new_ones(shape[0] * shape[1], width)
        padded[flat] = seen
        return width, self._bias(padded.unflatten(0, shape)), some

    def _bias(self, seen: Tensor) -> Tensor:
        """``(B, T, W)`` bool -> what is added to the scores of each group of heads."""
        bias = torch.zeros(seen.shape, dtype=self.cache.dtype, device=seen.device).masked_fill_(~seen, float("-inf"))
        return bias[:, None].repeat_interleave(self.groups, 2)

    def _read(self, slots: slice, prompts: Tensor | None) -> Tensor:
        """``prompts (B', T, D)``: as the encoder read them, if these are prompts and the copy head wants it."""
        now = self._reading(slots)
        x = embedded = self.model.embed_tokens(now.tokens)  # (P, D)
        cos, sin = self.cos[now.positions][:, None], self.sin[now.positions][:, None]
        for i, layer in enumerate(self.layers):
            own, across = layer.self_attn, layer.cross_attn
            h = normed(layer.input_layernorm, x)
            both = torch.cat([own.q_proj(h), own.k_proj(h)], -1).unflatten(-1, (-1, own.head_dim))
            both = torch.addcmul(both * cos, both.roll(own.head_dim // 2, -1), sin)
            query, key = both.split((both.shape[1] - self.cache.shape[3], self.cache.shape[3]), 1)
            keys, values = self.cache[i]
            keys[now.rows, :, now.positions] = key
            values[now.rows, :, now.positions] = own.v_proj(h).view_as(key)
            keys, values = self.cache[i, :, slots, :, : now.length]
            x = x + own.o_proj(self._attend(query, keys, values, now.bias, now))
            if now.width:
                query = across.q_proj(normed(layer.cross_attn_layernorm, x)).unflatten(-1, (-1, across.head_dim))
                keys, values = self.memory[i, :, slice(0, 1) if self.shared else slots, :, : now.width]
                seen = across.o_proj(self._attend(query, keys, values, now.memory_bias, now))
                seen = seen if now.some is None else seen * now.some
                x = x + (seen if layer.cross_attn_gate is None else torch.tanh(layer.cross_attn_gate) * seen)
            x = x + layer.mlp(normed(layer.post_attention_layernorm, x))
        states = normed(self.model.decoder.norm, x)
        if self.said is not None:
            self.said.add(now, states, embedded, prompts)
        return states[now.last]

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, now: _Reading) -> Tensor:
        """``query (P, heads, H)``, ``keys`` and ``values (B, G, W, H)`` -> ``(P, heads*H)``.

        The heads that share keys are asked as if they were further tokens, so that no key is copied.
        """
        (rows, most), (heads, head_dim) = now.shape, query.shape[1:]
        if now.flat is not None:
            query = query.new_zeros(rows * most, heads, head_dim).index_copy_(0, now.flat, query)
        query = query.view(rows, most, -1, self.groups, head_dim).transpose(1, 2).flatten(2, 3)
        keys, values = keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)
        mixed = F.scaled_dot_product_attention(query, keys, values, bias)  # (B, G, T*groups, H)
        mixed = mixed.unflatten(2, (most, self.groups)).transpose(1, 2).reshape(rows * most, heads * head_dim)
        return mixed if now.flat is None else mixed[now.flat]


def normed(norm: Any, x: Tensor) -> Tensor:
    """The library's norm in one call."""
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


class Copies(NamedTuple):
    """From where the next token may be copied."""

    ids: Tensor  # (B, W) what would be copied
    shares: Tensor  # (B, W) how much it is looked at
    gate: Tensor  # (B, 1) logit of copying

    def select(self, rows: Tensor) -> Copies:
        """Some of the rows."""
        return Copies(self.ids[rows], self.shares[rows], self.gate[rows])


class Said:
    """What the copy head may copy from, in the slots of a batch."""

    def __init__(self, model: ToolFormerMicro, size: int):
        assert model.copy_head is not None
        self.head, like = model.copy_head, model.embed_tokens.weight
        self.keys = like.new_zeros(size, 0, model.config.hidden_size)  # (B, W, D)
        self.ids = torch.zeros(size, 0, dtype=torch.long, device=like.device)  # (B, W)
        self.next = like.new_zeros(size, 0)  # (B, W) what each token says about being copied

    def parts(self) -> tuple[Tensor, ...]:
        """All tensors, a row a slot."""
        return self.keys, self.ids, self.next

    def make_room(self, more: int) -> None:
        """For ``more`` tokens of each row."""
        self.keys = F.pad(self.keys, (0, 0, 0, more))
        self.ids, self.next = F.pad(self.ids, (0, more)), F.pad(self.next, (0, more))

    def add(self, now: _Reading, states: Tensor, embedded: Tensor, prompts: Tensor | None) -> None:
        """What was just read: ``states`` and ``embedded (P, D)``; ``prompts`` as in ``Batch._read``."""
        keys = self.head.key(states)
        if prompts is not None:
            ahead = F.pad(prompts[:, 1:], (0, 0, 0, 1)).flatten(0, 1)
            keys = keys + self.head.read(ahead if now.flat is None else ahead[now.flat])
        at = now.rows, now.positions
        self.keys[at], self.ids[at], self.next[at] = keys, now.tokens, self.head.next(embedded)[:, 0]

    def copies(self, slots: slice, lengths: Sequence[int], states: Tensor) -> Copies:
        """Of rows whose last tokens have the ``states (B, D)``."""
        most = max(lengths) - 1
        ids, end = self.ids[slots], torch.tensor(lengths, device=states.device)[:, None]
        now, before = ids.gather(1, end - 1), ids.gather(1, end - 2)
        same = ids[:, :most] == now
        both = same & (F.pad(ids[:, : most - 1], (1, 0), value=-1) == before)
        bias = self.head.match[0] * same + self.head.match[1] * both
        scores = torch.bmm(self.keys[slots, :most], self.head.query(states)[..., None])[..., 0] * self.head.scaling
        behind = torch.arange(most, device=states.device) < end - 1
        shares = (scores + bias).masked_fill(~behind, float("-inf"))
        shares = shares.to(torch.promote_types(shares.dtype, torch.float32)).softmax(-1)
        willing = self.head.gate(states) + (shares.to(states.dtype) * self.next[slots, 1 : most + 1]).sum(-1, True)
        return Copies(ids[:, 1 : most + 1], shares, willing.to(shares.dtype))


def best(logits: Tensor, copies: Copies | None, allowed: Tensor | None) -> Tensor:
    """The likeliest token ``(B,)`` that is ``allowed (B, V)``, by ``logits (B, V)`` mixed with what may be copied.

    A token that nobody said is as likely as the logits make it, so that only those said are looked at one by one.
    """
    top, token = (logits if allowed is None else logits.masked_fill(~allowed, float("-inf"))).max(-1)
    if copies is None:
        return token
    total = logits.logsumexp(-1, keepdim=True)
    write, copy = F.logsigmoid(-copies.gate) - total, F.logsigmoid(copies.gate)
    mass = torch.zeros_like(logits).scatter_add_(1, copies.ids, copies.shares).gather(1, copies.ids)
    mixed = torch.logaddexp(write + logits.gather(1, copies.ids), copy + mass.log())
    if allowed is not None:
        mixed = mixed.masked_fill(~allowed.gather(1, copies.ids), float("-inf"))
    value, at = mixed.max(-1, keepdim=True)
    copied = copies.ids.gather(1, at)[:, 0]
    return torch.where(value[:, 0] > write[:, 0] + top, copied, token)


def log_probabilities(logits: Tensor, copies: Copies) -> Tensor:
    """All of what ``best`` looks at, ``(B, V)``."""
    write = F.logsigmoid(-copies.gate) + logits.log_softmax(-1)
    copied = torch.zeros_like(logits).scatter_add_(1, copies.ids, copies.shares)
    return torch.logaddexp(write, F.logsigmoid(copies.gate) + copied.log())
