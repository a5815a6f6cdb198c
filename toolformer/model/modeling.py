"""In: schema tokens and prompt tokens. Out: gists of each tool, next-token logits, scores of the tools present.

Letters: U distinct tools, S schema tokens, K gists per tool, D hidden size, B requests, N tools per request, M = N*K
memory slots, T prompt tokens, P call starts, E pointer size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, EncoderDecoderCache, GenerationMixin
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2DecoderLayer,
    Qwen2Model,
    Qwen2PreTrainedModel,
    Qwen2RMSNorm,
)

from toolformer.model.configuration import ToolFormerConfig
from toolformer.model.copying import COPY_MATCH, CopyHead, GistCache
from toolformer.model.gists import CrossAttention, GistPooling, view
from toolformer.model.kernels import RowNorm
from toolformer.model.losses import NEVER, copy_cross_entropy, linear_cross_entropy
from toolformer.model.packing import Pack, PackedAttention
from toolformer.model.pointer import HALFWAY, ToolPointer, nearest


class GatedDecoderLayer(Qwen2DecoderLayer):
    """A Qwen2 layer with gated cross-attention to the gists between self-attention and MLP (Flamingo, section 2.2)."""

    def __init__(self, config: ToolFormerConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.self_attn.__class__ = PackedAttention  # the library builds it; it learns to read packed rows
        self.cross_attn_layernorm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.cross_attn = CrossAttention(config, layer_idx)
        # tanh(0) = 0: with gate_init 0 the decoder is exactly Qwen at step 0
        self.cross_attn_gate = nn.Parameter(torch.full((), float(config.gate_init))) if config.gate == "tanh" else None

    def forward(  # ty: ignore[incompatible-method-override]
        self, hidden_states, attention_mask=None, past_key_values=None, memory=None, memory_mask=None, **kw
    ):
        """As the library's layer; ``memory (B, M, D)``, ``memory_mask (B, M)`` or ``(B, T, M)`` are carried through."""
        both = past_key_values if isinstance(past_key_values, EncoderDecoderCache) else None
        attended, _ = self.self_attn(
            hidden_states=self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            past_key_values=both.self_attention_cache if both is not None else past_key_values,
            **kw,
        )
        h = hidden_states + attended
        if memory is not None:
            read = self.cross_attn(self.cross_attn_layernorm(h), memory, memory_mask, both)
            h = h + (read if self.cross_attn_gate is None else torch.tanh(self.cross_attn_gate).to(read.dtype) * read)
        return h + self.mlp(self.post_attention_layernorm(h))


class _Initialised(Qwen2PreTrainedModel):
    """Initial values of the parts the library does not know; on every class, as nested models initialise themselves."""

    config_class = ToolFormerConfig
    _no_split_modules = ["GatedDecoderLayer", "Qwen2DecoderLayer"]
    _supports_flash_attn = False  # memory masks are additive
    _supports_flex_attn = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GistPooling):
            nn.init.normal_(module.queries, std=1.0)
            if module.sharpness is not None:
                nn.init.ones_(module.sharpness)
        elif isinstance(module, ToolPointer):
            nn.init.constant_(module.trust, HALFWAY)
            if module.ask is not None:
                nn.init.zeros_(module.ask.weight)  # at first all of the request is asked about
            nn.init.zeros_(module.again)
        elif isinstance(module, CopyHead):
            module.match.copy_(torch.tensor(COPY_MATCH))
        elif isinstance(module, GatedDecoderLayer) and module.cross_attn_gate is not None:
            nn.init.constant_(module.cross_attn_gate, module.cross_attn.config.gate_init)
        elif isinstance(module, ToolFormerMicro) and module.no_tool is not None:
            nn.init.normal_(module.no_tool, std=1.0)


class SchemaEncoder(Qwen2Model, _Initialised):
    """The first Qwen layers over one schema (or one request) at a time; embeddings are lent by the whole model."""

    def __init__(self, config: ToolFormerConfig):
        super().__init__(config.encoder())
        self.embed_tokens = None
        self.bidirectional = config.encoder_attention == "bidirectional"
        attentions: list[Any] = [layer.self_attn for layer in self.layers]
        for attention in attentions:
            attention.__class__ = PackedAttention
            attention.is_causal = not self.bidirectional

    def encode(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """``embedded (U, S, D)``, ``mask (U, S)`` bool -> ``(U, S, D)``. Padding may be on either side."""
        attention = mask.long()
        if self.bidirectional:
            full = create_bidirectional_mask(config=self.config, inputs_embeds=embedded, attention_mask=mask)
            attention = {"full_attention": full}
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        out = self(inputs_embeds=embedded, attention_mask=attention, position_ids=positions, use_cache=False)
        return out.last_hidden_state

    def encode_packed(self, embedded: Tensor, rows: Pack) -> Tensor:
        """The same for packed rows: ``embedded (N, D)`` -> ``(N, D)``."""
        return self(inputs_embeds=embedded[None], use_cache=False, **rows.inputs()).last_hidden_state[0]


class GistDecoder(Qwen2Model, _Initialised):
    """The later Qwen layers, each able to look at the gists."""

    _can_record_outputs = {"hidden_states": GatedDecoderLayer}

    def __init__(self, config: ToolFormerConfig):
        super().__init__(config)
        self.embed_tokens = None
        self.layers = nn.ModuleList(GatedDecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.post_init()


class ToolFormerMicro(_Initialised, GenerationMixin):
    """Schema encoder, gist pooling, gated decoder, tool pointer: one set of weights for every stage."""

    _tied_weights_keys = {"lm_head.weight": "embed_tokens.weight"}
    base_model_prefix = ""

    def __init__(self, config: ToolFormerConfig):
        super().__init__(config)
        self.loss_type = "ForCausalLM"
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.encoder = SchemaEncoder(config)
        self.gist_pool = GistPooling(config)
        self.decoder = GistDecoder(config)
        self.pointer = ToolPointer(config) if config.pointer else None
        self.copy_head = CopyHead(config) if config.copy_head else None
        self.no_tool = nn.Parameter(torch.empty(config.hidden_size)) if config.no_tool_gist else None
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
        for module in self.modules():
            if type(module) is Qwen2RMSNorm:
                module.__class__ = RowNorm

    def get_input_embeddings(self) -> nn.Embedding:
        """The one table of encoder, decoder and output head."""
        return self.embed_tokens

    def set_input_embeddings(self, value: Any) -> None:
        """Replace the table."""
        self.embed_tokens = value

    def encode_tools(self, tool_ids: Tensor, tool_mask: Tensor) -> Tensor:
        """Schema tokens ``(U, S)`` with their mask -> gists ``(U, K, D)``; no tool sees another."""
        if tool_ids.shape[0] == 0:
            return self.embed_tokens.weight.new_zeros(0, self.config.num_gists, self.config.hidden_size)
        return self.pool(self.read(tool_ids, tool_mask), tool_mask)

    def read(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Tokens ``(B, T)`` of schemas or prompts as the encoder reads them ``(B, T, D)``; zero where padded."""
        return self.encoder.encode(self.embed_tokens(input_ids), mask) * mask[..., None]

    def read_packed(self, rows: Pack) -> Tensor:
        """As ``read``, of packed rows: ``(N, D)``."""
        return self.encoder.encode_packed(self.embed_tokens(rows.ids), rows)

    def pool(self, reading: Tensor, mask: Tensor) -> Tensor:
        """What was read, ``(B, T, D)`` or packed ``(N, D)``, -> gists ``(B, K, D)``; ``mask (B, T)``."""
        return self.gist_pool(reading, mask)

    def encode_request(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Prompt tokens ``(B, T)`` -> their gists ``(B, K, D)``: how the pointer sees the request.

        They are made as a schema's are: the same words then lie near each other before anything is learned.
        """
        return self.pool(self.read(input_ids, mask), mask)

    def memory(self, gists: Tensor, tool_index: Tensor) -> tuple[Tensor, Tensor]:
        """Gists ``(U, K, D)`` of the tools each request has, ``tool_index (B, N)``, -1 = none there.

        Returns ``memory (B, M, D)`` and its mask ``(B, M)``; with ``no_tool_gist`` one slot more, always open.
        """
        present = tool_index >= 0
        if gists.shape[0] == 0:
            gists = gists.new_zeros(1, self.config.num_gists, self.config.hidden_size)
        memory = gists[tool_index.clamp(min=0)].flatten(1, 2)
        mask = present.repeat_interleave(self.config.num_gists, dim=1)
        if self.no_tool is not None:
            memory = torch.cat([self.no_tool.to(memory.dtype).expand(len(memory), 1, -1), memory], dim=1)
            mask = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)
        return memory, mask

    def embed(self, gists: Tensor) -> Tensor:
        """Gists of tools or requests ``(U, K, D)`` -> unit vectors of the space in which they meet."""
        pooled = gists.mean(1)
        return F.normalize(pooled.float(), dim=-1) if self.pointer is None else self.pointer.embed(pooled)

    def point(
        self,
        states: Tensor,
        request: Tensor | None,
        gists: Tensor,
        tool_index: Tensor,
        called: Tensor | None = None,
    ) -> Tensor:
        """Decoder states at call starts ``(B, P, D)`` -> scores ``(B, P, 1 + N)``; column 0 is "no (further) call".

        ``called (B, P, N)`` bool: which tools the answer has called before each of them; None = none.
        """
        assert self.pointer is not None
        return self.pointer.scores(states, request, self.embed(gists), tool_index, called)

    @property
    def needs_request(self) -> bool:
        """Whether the pointer needs the encoded request: its query, or the focus before a call, come from it."""
        return self.pointer is not None and (self.pointer.query != "decoder" or self.config.focus)

    def nearest(self, request: Tensor, gists: Tensor, tool_index: Tensor) -> Tensor:
        """The tool that each encoded request ``(B, K, D)`` is nearest to: its place in the row ``(B,)``, -1 = no tools.

        This is where the decoder looks when it decides whether to call (``focused``).
        """
        with torch.no_grad():
            return nearest(self.embed(request), self.embed(gists), tool_index)

    def focused(self, memory_mask: Tensor, focus: Tensor) -> Tensor:
        """Which slots each position sees: ``memory_mask (B, M)``, ``focus (B, T)`` -> ``(B, T, M)``.

        ``focus`` is the place of one tool in its row, whose gists alone are seen, or -1 for all of them. The slot of
        ``no_tool`` is always open.
        """
        first = 0 if self.no_tool is None else 1
        slots = torch.arange(memory_mask.shape[1] - first, device=focus.device) // self.config.num_gists
        seen = (focus[..., None] < 0) | (focus[..., None] == slots)
        return memory_mask[:, None] & F.pad(seen, (first, 0), value=True)

    def decode(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kw: Any) -> Tensor:
        """Prompt tokens ``(B, T)`` -> decoder states ``(B, T, D)``; memory, its mask and caches go in as keywords."""
        out = self.decoder(inputs_embeds=self.embed_tokens(input_ids), attention_mask=attention_mask, **kw)
        return out.last_hidden_state

    def decode_packed(self, rows: Pack, gists: Tensor, seen: Tensor) -> Tensor:
        """Packed rows over the gists of all tools at once: ``seen (N, U)`` says whose each token sees -> ``(N, D)``."""
        slots, mask = gists.flatten(0, 1), seen.repeat_interleave(self.config.num_gists, dim=1)
        if self.no_tool is not None:
            slots, mask = torch.cat([self.no_tool.to(slots.dtype)[None], slots]), F.pad(mask, (1, 0), value=True)
        memory: dict[str, Any] = {"memory": slots[None], "memory_mask": view(mask[None])} if len(slots) else {}
        embedded = self.embed_tokens(rows.ids)[None]
        return self.decoder(inputs_embeds=embedded, use_cache=False, **memory, **rows.inputs()).last_hidden_state[0]

    def packed_loss(
        self, states: Tensor, rows: Pack, labels: Tensor, reading: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Summed loss and number of supervised tokens of packed rows: ``states (N, D)``, ``labels (N,)``.

        A state answers for the token behind it: what a row's first label says is not read. ``reading``: the prompts as
        they were ``read (P, D)``, and the places ``(P,)`` of their tokens among the N.
        """
        place = rows.positions
        asked = ((labels != -100) & (place > 0)).nonzero()[:, 0] - 1  # the states that are asked for a token
        targets = labels[asked + 1]
        if self.copy_head is None or not len(asked):
            return linear_cross_entropy(states[asked], self.lm_head.weight, targets)
        scores, following, gate = self.copy_head.packed(states, asked, rows, self.embed_tokens.weight, reading)
        return copy_cross_entropy(states[asked], self.lm_head.weight, targets, scores, following, gate)

    def next_token_loss(
        self,
        states: Tensor,
        input_ids: Tensor | None,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        reading: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Summed loss and number of supervised tokens: ``states (B, T, D)``, ``input_ids`` and ``labels (B, T)``."""
        states, labels = states[:, :-1], labels[:, 1:]
        if self.copy_head is None or input_ids is None:
            return linear_cross_entropy(states, self.lm_head.weight, labels)
        length = states.shape[1]
        before = torch.ones(len(states), length, length, dtype=torch.bool, device=states.device).tril(-1)
        if attention_mask is not None:
            before &= attention_mask[:, None, :-1].bool()
        following = input_ids[:, None, 1:].masked_fill(~before, -1)
        some = before.any(-1, keepdim=True)  # the first position has nothing to copy, but a softmax needs something
        keys = self.copy_head.keys(states, reading)
        scores = self.copy_head.scores(states, keys, input_ids[:, :-1], before | ~some)
        ahead = self.embed_tokens(input_ids[:, 1:])
        gate = self.copy_head.willing(states, scores.softmax(-1), ahead).masked_fill(~some[..., 0], NEVER)
        keep = labels != -100
        return copy_cross_entropy(
            states[keep], self.lm_head.weight, labels[keep], scores[keep], following[keep], gate[keep]
        )

    def next_token_logits(
        self,
        states: Tensor,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        cache: Cache | None,
        last: int = 0,
        reading: Tensor | None = None,
    ) -> Tensor:
        """Logits ``(B, t, V)`` of the last ``last`` of the states just computed from ``input_ids`` (0 = of all).

        ``reading (B, T', D)``: the prompt as it was ``read``, if the copy head shall know it.
        """
        kept = states[:, -last:] if last else states
        logits = self.lm_head(kept)
        if self.copy_head is None or input_ids is None:
            return logits
        begun = isinstance(cache, GistCache) and cache.said is not None  # then the prompt's keys are kept there
        keys, ids = self.copy_head.keys(states, None if begun else reading), input_ids
        if isinstance(cache, GistCache):
            keys, ids = cache.say(keys, ids)
        total, asked = ids.shape[1], kept.shape[1]
        if total < 2:
            return logits
        behind = torch.ones(asked, total - 1, dtype=torch.bool, device=ids.device).tril(total - asked - 1)
        allowed = behind.expand(len(ids), -1, -1)
        if attention_mask is not None:
            allowed = allowed & attention_mask[:, None, : total - 1].bool()
        some = allowed.any(-1, keepdim=True)
        scores = self.copy_head.scores(kept, keys[:, :-1], ids, allowed | ~some)
        precise = torch.promote_types(scores.dtype, torch.float32)
        scores = scores.to(precise)
        shares = scores.softmax(-1)
        ahead = self.embed_tokens(ids[:, 1:])
        gate = (
            self.copy_head.willing(kept, shares.to(kept.dtype), ahead).to(precise)[..., None].masked_fill(~some, NEVER)
        )
        write = F.logsigmoid(-gate) + logits.to(precise).log_softmax(-1)
        copied = torch.zeros_like(write).scatter_add_(2, ids[:, None, 1:].expand_as(scores), shares)
        return torch.logaddexp(write, F.logsigmoid(gate) + copied.log())

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        reading: Tensor | None = None,
        **kw,
    ) -> CausalLMOutputWithPast:
        """Logits ``(B, T, V)``, and the mean next-token loss where ``labels (B, T)`` is not -100.

        ``memory (B, M, D)`` and ``memory_mask (B, M)`` are what ``memory()`` returns; without them the decoder sees no
        tool. ``reading (B, T', D)`` is the prompt, the first T' tokens, as it was ``read``: a copy head finds values
        better with it. ``inputs_embeds`` may stand for ``input_ids`` where there is no copy head.
        """
        if input_ids is None and self.copy_head is not None:
            raise ValueError("inputs_embeds hides the tokens that the copy head copies; pass input_ids")
        if memory is not None and memory_mask is None:
            memory_mask = torch.ones(memory.shape[:2], dtype=torch.bool, device=memory.device)
        inputs = {"memory": memory, "memory_mask": memory_mask, "past_key_values": past_key_values}
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        out = self.decoder(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **inputs, **kw)
        states, loss = out.last_hidden_state, None
        if labels is not None:
            total, count = self.next_token_loss(states, input_ids, labels, attention_mask, reading)
            loss = total / count.clamp(min=1)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=self.next_token_logits(
                states, input_ids, attention_mask, past_key_values, logits_to_keep, reading=reading
            ),
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
        )

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict[str, Any], *args, **kw) -> Any:
        """The library's cache, wrapped so that the gists are projected once per answer and not once per token."""
        prepare: Any = super()._prepare_cache_for_generation
        out = prepare(generation_config, model_kwargs, *args, **kw)
        cache = model_kwargs.get("past_key_values")
        if cache is not None and not isinstance(cache, EncoderDecoderCache):
            model_kwargs["past_key_values"] = GistCache(cache)
        return out

    def gates(self) -> list[float]:
        """How far each decoder layer has opened to the gists: tanh of its gate, or 1."""
        values: list[Any] = [layer.cross_attn_gate for layer in self.decoder.layers]
        return [1.0 if gate is None else torch.tanh(gate.detach().float()).item() for gate in values]
