"""In: what was said so far, as decoder states and as the encoder read it. Out: from where the next token is copied.

Letters as in ``model.modeling``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, DynamicCache, EncoderDecoderCache

from toolformer.model.configuration import ToolFormerConfig
from toolformer.model.losses import NEVER
from toolformer.model.packing import Pack, padded

COPY_MATCH = (2.0, 2.0)  # logits that one and two equal tokens start with


class CopyHead(nn.Module):
    """Attention over what was said, to say it again: a position is copied from by the token behind it.

    Positions that hold the very token just written, or the last two, are preferred by learned weights, so that a copy
    once begun goes on by itself and only its start and end are left to learn. Whether to copy depends on the state and
    on what would be copied: a value does not end within a word.
    """

    def __init__(self, config: ToolFormerConfig):
        super().__init__()
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.key = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.read = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.gate = nn.Linear(config.hidden_size, 1)
        self.next = nn.Linear(config.hidden_size, 1, bias=False)
        self.match = nn.Parameter(torch.tensor(COPY_MATCH))
        self.scaling = config.hidden_size**-0.5

    def keys(self, states: Tensor, reading: Tensor | None) -> Tensor:
        """What each position is found by ``(B, T, D)``: its state, and the token behind it as the encoder read it.

        ``reading (B, T', D)`` is the encoded prompt, zero where it is padded: unlike a state it knows what comes after
        a value ("for 8 people").
        """
        keys = self.key(states)
        if reading is None:
            return keys
        ahead = self.read(reading[:, 1 : 1 + keys.shape[1]])
        return keys + F.pad(ahead, (0, 0, 0, keys.shape[1] - ahead.shape[1]))

    def scores(self, states: Tensor, keys: Tensor, ids: Tensor, allowed: Tensor) -> Tensor:
        """``states (B, t, D)``, ``keys (B, T, D)``, ``allowed (B, t, T)`` -> ``(B, t, T)``, -inf where not allowed.

        ``ids (B, L)`` is all that was said: its last t tokens are those of the states, its first T those of the keys.
        """
        asked, total = states.shape[1], keys.shape[1]
        before = F.pad(ids, (1, 0), value=-1)
        same = ids[:, -asked:, None] == ids[:, None, :total]
        both = same & (before[:, -asked - 1 : -1, None] == before[:, None, :total])
        bias = self.match[0] * same + self.match[1] * both
        return (self.query(states) @ keys.mT * self.scaling + bias).masked_fill(~allowed, float("-inf"))

    def packed(
        self, states: Tensor, asked: Tensor, rows: Pack, table: Tensor, reading: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same in training, of those states alone that are asked for a token: places ``asked (R,)`` of N.

        ``states (N, D)`` are of packed ``rows``, ``table (V, D)`` embeds tokens, ``reading`` is as in ``packed_loss``.
        Returns ``scores (R, T)``, -inf where not allowed, the tokens ``following (R, T)`` the positions, -1 where not
        allowed, and the logit of copying ``gate (R,)``.
        """
        keys, place = self.key(states), rows.positions
        if reading is not None:
            read, at = reading
            behind = place[at] > 0
            keys = keys.index_add(0, at[behind] - 1, self.read(read[behind]).to(keys.dtype))
        lengths = torch.tensor(rows.lengths, device=states.device)
        width = torch.arange(max(rows.lengths), device=states.device)
        mask, said = width < lengths[:, None], rows.ids.new_full((len(lengths), len(width)), -1)
        said[mask] = rows.ids
        row, place = rows.rows[asked], place[asked]
        counts = torch.bincount(row, minlength=len(lengths))
        some = torch.arange(int(counts.max()), device=states.device) < counts[:, None]
        query = padded(self.query(states[asked]), some)
        scores = (query @ padded(keys, mask).mT)[some] * self.scaling
        ids, last = said[row], rows.ids[asked]
        same = ids == last[:, None]
        both = same & (F.pad(ids, (1, 0), value=-1)[:, :-1] == F.pad(ids, (1, 0), value=-1).gather(1, place[:, None]))
        allowed = width < place[:, None]
        none = place == 0  # the first position has nothing to copy, but a softmax needs something
        scores = scores + self.match[0] * same + self.match[1] * both
        scores = scores.masked_fill(~(allowed | none[:, None]), float("-inf"))
        following = F.pad(ids, (0, 1), value=-1)[:, 1:].masked_fill(~allowed, -1)
        ahead = padded((F.embedding(rows.ids, table) @ self.next.weight.T)[:, 0], mask)
        ahead = F.pad(ahead, (0, 1))[:, 1:][row]
        gate = self.gate(states[asked])[:, 0] + (scores.softmax(-1) * ahead).sum(-1)
        return scores, following, gate.masked_fill(none, NEVER)

    def willing(self, states: Tensor, shares: Tensor, following: Tensor) -> Tensor:
        """The logit of copying ``(B, t)``: ``shares (B, t, T)`` of attention, ``following (B, T, D)`` embedded."""
        return (self.gate(states) + shares @ self.next(following))[..., 0]


class GistCache(EncoderDecoderCache):
    """The library's caches of self- and cross-attention, and what the copy head may copy from."""

    def __init__(self, attention: Cache):
        super().__init__(attention, DynamicCache())
        self.said: tuple[Tensor, Tensor] | None = None  # keys (B, T, D), token ids (B, T)

    def say(self, keys: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Adds what was just read; returns all of it."""
        if self.said is not None:
            keys, ids = torch.cat([self.said[0], keys], 1), torch.cat([self.said[1], ids], 1)
        self.said = keys, ids
        return self.said

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Rows of another order, for beams."""
        super().reorder_cache(beam_idx)
        self._rows(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Fewer rows."""
        super().batch_select_indices(indices)
        self._rows(indices)

    def _rows(self, index: Tensor) -> None:
        if self.said is not None:
            self.said = self.said[0][index], self.said[1][index]
