"""In: small models and prompts. Out: whether caches, batching, padding and saving leave every answer as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model.tiny import Inputs, inputs, logits, remember, tiny
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, DynamicCache, EncoderDecoderCache

from toolformer.model import ToolFormerMicro

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 1.5, "top_k": 20},
    "beam": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
}


def generate(model: ToolFormerMicro, batch: Inputs, told: dict[str, Tensor] | None = None, **how: Any) -> Tensor:
    """New tokens ``(B, 8)``; the end mark does not end them, so that all steps are compared."""
    torch.manual_seed(3)
    told = remember(model, batch) if told is None else told
    mask, end = batch.attention_mask.long(), {"min_new_tokens": 8, "max_new_tokens": 8}
    out = model.generate(batch.input_ids, attention_mask=mask, **told, **end, **how)
    assert out.shape[1] == batch.input_ids.shape[1] + 8
    return out[:, batch.input_ids.shape[1] :]


def row(batch: Inputs, i: int) -> Inputs:
    """Request ``i`` alone: its own tools, no padding."""
    tools = [t for t in batch.tool_index[i].tolist() if t >= 0]
    width = max([int(batch.tool_mask[t].sum()) for t in tools], default=0)
    own = batch.attention_mask[i]
    return Inputs(
        batch.tool_ids[tools, :width],
        batch.tool_mask[tools, :width],
        torch.arange(len(tools))[None],
        batch.input_ids[i : i + 1, own],
        batch.attention_mask[i : i + 1, own],
    )


@pytest.mark.parametrize("way", WAYS)
def test_with_cache_as_without(way: str):
    model, batch = tiny().double(), inputs()
    cached, plain = (generate(model, batch, use_cache=use, **WAYS[way]) for use in (True, False))
    assert torch.equal(cached, plain)
    assert len({tuple(answer) for answer in cached.tolist()}) > 1
    closed = {"memory": remember(model, batch)["memory"] * 0, "memory_mask": remember(model, batch)["memory_mask"]}
    assert not torch.equal(cached, generate(model, batch, closed, **WAYS[way])), "the gists are not read"


def test_static_cache_as_dynamic():
    model, batch = tiny().double(), inputs()
    static = generate(model, batch, do_sample=False, cache_implementation="static", disable_compile=True)
    assert torch.equal(generate(model, batch, do_sample=False), static)


@pytest.mark.parametrize("way", ["greedy", "beam"])
def test_left_padded_batch_as_one_by_one(way: str):
    model, batch = tiny().double(), inputs()
    together = generate(model, batch, **WAYS[way]).view(3, -1, 8)
    for i in range(3):
        assert torch.equal(together[i], generate(model, row(batch, i), **WAYS[way])), i


def test_a_sample_depends_on_the_seed_alone():
    model, batch = tiny(), inputs()
    first, again = (generate(model, batch, **WAYS["sampled"]) for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, generate(model, batch, **WAYS["greedy"]))


def test_gists_are_projected_once_an_answer():
    model, batch = tiny(), inputs()
    seen: list[int] = []
    told = remember(model, batch)
    for layer in model.decoder.layers:
        layer.cross_attn.k_proj.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[1]))
    generate(model, batch, told, do_sample=False)
    assert seen == [told["memory"].shape[1]] * len(model.decoder.layers)


@pytest.mark.parametrize("kind", ["plain", "both"])
def test_step_by_step_as_at_once(kind: str):
    """The two caches a caller may bring: of self-attention alone, or with the projected gists."""
    model, batch = tiny(), inputs()
    told, mask = remember(model, batch), batch.attention_mask.long()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    whole = model(batch.input_ids, attention_mask=mask, position_ids=positions, **told).logits
    cache = DynamicCache() if kind == "plain" else EncoderDecoderCache(DynamicCache(), DynamicCache())
    for at in range(mask.shape[1]):
        step = slice(at, at + 1)
        out = model(
            batch.input_ids[:, step],
            attention_mask=mask[:, : at + 1],
            position_ids=positions[:, step],
            past_key_values=cache,
            use_cache=True,
            **told,
        )
        keep = batch.attention_mask[:, at]
        torch.testing.assert_close(out.logits[keep, 0], whole[keep, at], rtol=1e-4, atol=1e-5)


def test_some_or_all_rows_without_tools():
    model, batch = tiny().double(), inputs()
    ragged = batch._replace(tool_index=torch.tensor([[0, 3], [-1, -1], [-1, 2]]))
    together = generate(model, ragged, do_sample=False)
    for i in range(3):
        assert torch.equal(together[i : i + 1], generate(model, row(ragged, i), do_sample=False))
    nothing = generate(model, batch, {}, do_sample=False)
    assert torch.equal(together[1], nothing[1]), "no tools are the same as no memory"
    none = Inputs(batch.tool_ids[:0], batch.tool_mask[:0], torch.zeros(3, 0, dtype=torch.long), *batch[3:])
    assert torch.equal(generate(model, none, do_sample=False), nothing)


def test_labels_and_kept_logits():
    model, batch = tiny(), inputs()
    told = remember(model, batch)
    labels = torch.where(torch.arange(11) > 7, batch.input_ids, -100)
    out = model(batch.input_ids, labels=labels, **told)
    wanted = torch.nn.functional.cross_entropy(out.logits[:, 7:-1].flatten(0, 1), labels[:, 8:].flatten())
    torch.testing.assert_close(out.loss, wanted)
    assert model(batch.input_ids, labels=labels * 0 - 100, **told).loss.item() == 0
    torch.testing.assert_close(model(batch.input_ids, logits_to_keep=2, **told).logits, out.logits[:, -2:])
    embedded = model.get_input_embeddings()(batch.input_ids)
    assert torch.equal(model(inputs_embeds=embedded, **told).logits, out.logits)
    states = model(batch.input_ids, output_hidden_states=True, **told).hidden_states
    assert len(states) == 1 + len(model.decoder.layers)
    assert torch.equal(model.lm_head(states[-1]), out.logits)


@pytest.mark.parametrize("read", [ToolFormerMicro, AutoModel, AutoModelForCausalLM])
@pytest.mark.parametrize("size", ["100MB", "30KB"])
def test_saved_and_read_again(tmp_path: Path, read: Any, size: str):
    shape = {"gate": "none", "pooling_depth": 2, "no_tool_gist": True, "encoder_attention": "bidirectional"}
    model = tiny(**shape)
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (size == "30KB")
    again = read.from_pretrained(tmp_path).eval()
    assert type(again) is ToolFormerMicro and not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert again.lm_head.weight is again.embed_tokens.weight
    assert torch.equal(logits(again, inputs()), logits(model, inputs()))
    changed = {"transformers_version", "dtype", "architectures", "_name_or_path"}
    old, new = (m.config.to_dict() for m in (model, again))
    assert {k: v for k, v in old.items() if k not in changed} == {k: v for k, v in new.items() if k not in changed}


def test_half_precision_and_attention_are_a_choice_of_the_reader(tmp_path: Path):
    tiny().save_pretrained(tmp_path)
    model = ToolFormerMicro.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation="eager").eval()
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    for part in (model, model.encoder, model.decoder, model.gist_pool.attn):
        assert part.config._attn_implementation == "eager"
    batch = inputs()
    none = batch._replace(tool_index=torch.full((3, 2), -1))
    for case in (batch, none):
        assert logits(model, case).isfinite().all()
        gists = model.encode_tools(case.tool_ids, case.tool_mask)
        states = model.decode(case.input_ids, **remember(model, case))[:, -1:]
        request = model.encode_request(case.input_ids, case.attention_mask)
        for tools in (gists, gists[:0]) if case is none else (gists,):
            assert model.point(states, request, tools, case.tool_index)[..., 0].isfinite().all()
