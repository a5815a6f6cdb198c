"""In: rows and a small model. Out: whether each stage's loss is what its definition says row by row, and is learned."""

from __future__ import annotations

import io
import math
import random
from dataclasses import replace
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
import yaml
from data.tiny_rows import TOOLS, prompts, rows, tokenizer
from lightning.pytorch.plugins.precision import MixedPrecision
from model.tiny import tiny
from torch import Tensor

from toolformer.data.batches import NEAREST, CallBatch, collate_calls
from toolformer.data.masking import Rows, mask_rows
from toolformer.data.negatives import Negatives
from toolformer.data.prompts import Prompts
from toolformer.data.tokenizer import from_rows
from toolformer.data.toolworld import ToolWorld
from toolformer.model import ToolFormerMicro
from toolformer.model.losses import pointer_loss
from toolformer.stages import optimizers
from toolformer.stages.base import Encoded, Stage, encode, freeze_parameters, needed_tools, offered_tools
from toolformer.stages.gist_contrast import GistContrast, contrast_loss
from toolformer.stages.optimizers import MuonAdamW, build_optimizer, warmup_cosine
from toolformer.stages.schema_autoencoding import SchemaAutoEncoding
from toolformer.stages.tool_calling import ToolCalling, called_before

STAGES: list[Any] = [SchemaAutoEncoding, GistContrast, ToolCalling]
SHAPE = {"vocab_size": len(tokenizer()), "eos_token_id": prompts().end, "no_tool_gist": True}


def make(kind: type[Stage], model: ToolFormerMicro, **settings: Any) -> Stage:
    """A stage at step 0 of a trainer that does nothing else; all parts of its loss are due at every step."""
    due = {} if kind is SchemaAutoEncoding else {"rebuild_every": 1}
    stage = kind(model, prompts(), **{"lr": 1e-2, "warmup_steps": 0, **due, **settings})
    stage.trainer = L.Trainer(
        max_steps=100, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    return stage


def losses(stage: Stage, batch: CallBatch) -> dict[str, Tensor]:
    return stage.losses(batch, encode(stage.model, batch, stage.reads_requests))


def batch_of_rows(seed: int = 0) -> CallBatch:
    return collate_calls(mask_rows(rows(), 0.5, random.Random(seed)), prompts())


# ---- what each loss is, one row at a time


def gists_of(model: ToolFormerMicro, batch: CallBatch, tools: list[int]) -> Tensor:
    """Each tool encoded alone, without padding: ``(N, K, D)``."""
    alone = [model.encode_tools(batch.tools.ids[t][batch.tools.mask[t]][None], torch.ones(1, n).bool())
             for t in tools for n in [int(batch.tools.mask[t].sum())]]  # fmt: skip
    return torch.cat(alone) if alone else model.encode_tools(batch.tools.ids[:0], batch.tools.mask[:0])


def surprise(model: ToolFormerMicro, ids: Tensor, labels: Tensor, gists: Tensor) -> tuple[list[Tensor], Tensor]:
    """``-log p`` of each supervised token of one sequence that sees ``gists (N, K, D)``; its states as well."""
    memory, mask = model.memory(gists, torch.arange(len(gists))[None])
    states = model.decode(ids[None], memory=memory, memory_mask=mask)[0]
    shares = F.linear(states, model.lm_head.weight).log_softmax(-1)
    return [-shares[t - 1, labels[t]] for t in range(1, len(ids)) if labels[t] != -100], states


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def reference(model: ToolFormerMicro, batch: CallBatch, tau: float = 0.07) -> dict[str, Tensor]:
    call, whether, pointer, contrast, rebuild = [], [], [], [], []
    count = len(batch.tools.ids)
    everything = gists_of(model, batch, list(range(count)))
    spots = F.normalize(model.pointer.proj(everything.mean(1)), dim=-1)
    for i in range(len(batch.input_ids)):
        own, asked = batch.attention_mask[i], batch.prompt_ids[i][batch.prompt_mask[i]]
        tools = [int(t) for t in batch.tool_index[i] if t >= 0]
        gists = gists_of(model, batch, tools)
        tokens, states = surprise(model, batch.input_ids[i][own], batch.labels[i][own], gists)
        call += tokens
        request = model.encode_tools(asked[None], torch.ones_like(asked[None]).bool())[0]
        place = F.normalize(model.pointer.proj(request.mean(0)), dim=-1)
        gold = [tools[int(t) - 1] for t in batch.call_targets[i] if t > 0]
        for number, (start, target) in enumerate(zip(batch.call_starts[i], batch.call_targets[i], strict=True)):
            if target >= 0:
                wanted = torch.stack([model.pointer.ask(states[start]) @ gist for gist in request])
                part = (wanted / math.sqrt(request.shape[1])).softmax(0) @ request
                part = F.normalize(model.pointer.proj(part), dim=-1)
                query = model.pointer.state_proj(states[start]) + part * math.sqrt(len(part))
                query = F.normalize(query, dim=-1)
                before = [tools[int(t) - 1] for t in batch.call_targets[i][:number] if t > 0]
                near = [query @ spots[t] + (t in before) * model.pointer.again for t in tools]
                scores = torch.stack(near) / model.pointer.temperature
                half = 0.5 / model.pointer.temperature
                best = torch.cat([scores, scores.new_tensor([half])]).logsumexp(0)
                none = model.pointer.no_call(states[start])[0] + best - model.pointer.trust * (best - half)
                share = torch.cat([none[None], scores]).softmax(0)
                whether.append(-(share[0] if target == 0 else 1 - share[0]).log())
                if target:
                    right = {int(t) - 1 for t in batch.call_targets[i][number:] if t > 0}
                    pointer.append(-(scores.softmax(0)[sorted(right)].sum()).log())
        wrong = [place @ spots[u] / tau for u in range(count) if u not in gold]
        each = [-torch.stack([place @ spots[g] / tau, *wrong]).log_softmax(-1)[0] for g in sorted(set(gold))]
        contrast += [mean(each)] if each else []
    for t in range(count):
        own = batch.tools.rebuild_mask[t]
        rebuild += surprise(model, batch.tools.rebuild_ids[t][own], batch.tools.rebuild_labels[t][own],
                            everything[t : t + 1])[0]  # fmt: skip
    found = {"call": call, "whether": whether, "pointer": pointer, "contrast": contrast, "rebuild": rebuild}
    return {name: mean(values) for name, values in found.items()}


def close(a: Tensor, b: Tensor, name: str = "") -> None:
    torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-5, msg=lambda text: f"{name}: {text}")


def test_losses_are_their_definitions():
    model, batch = tiny(**SHAPE).double(), batch_of_rows()
    wanted = {name: value.float() for name, value in reference(model, batch).items()}
    found = {name: value.float() for name, value in losses(make(SchemaAutoEncoding, model), batch).items()}
    assert found.keys() == {"loss"}
    close(found["loss"], wanted["rebuild"], "rebuild")
    stage = make(GistContrast, model, rebuild_weight=0.3)
    found = {name: value.float() for name, value in losses(stage, batch).items()}
    close(found["contrast"], wanted["contrast"], "contrast")
    close(found["loss"], wanted["contrast"] + 0.3 * wanted["rebuild"], "loss")
    weights = {"call": 1.0, "whether": 0.6, "pointer": 0.7, "contrast": 0.2, "rebuild": 0.3}
    settings = {f"{name}_weight": weight for name, weight in weights.items() if name != "call"}
    stage = make(ToolCalling, model, **settings)
    found = {name: value.float() for name, value in losses(stage, batch).items()}
    assert found.keys() == {*weights, "loss"}
    for name, value in wanted.items():
        close(found[name], value, name)
    close(found["loss"], torch.stack([weights[name] * wanted[name] for name in weights]).sum(), "loss")


# ---- packed rows against rows one at a time


def plain(stage: Stage, batch: CallBatch) -> dict[str, Tensor]:
    """The stage's losses with nothing packed, shared or padded: each schema and each request goes through alone."""
    model, weights = stage.model, {"call": 1.0}
    gists = gists_of(model, batch, list(range(len(batch.tools.ids))))
    asked = [ids[mask][None] for ids, mask in zip(batch.prompt_ids, batch.prompt_mask, strict=True)]
    readings = [model.read(ids, torch.ones_like(ids).bool()) for ids in asked]
    requests = [model.pool(read, torch.ones(read.shape[:2]).bool()) for read in readings]
    encoded = Encoded(gists, torch.cat(requests) if requests else None, None)

    def told(totals: list[tuple[Tensor, Tensor]]) -> Tensor:
        return torch.stack([total for total, _ in totals]).sum() / torch.stack([count for _, count in totals]).sum()

    def rebuild() -> Tensor:
        totals = []
        for t, own in enumerate(batch.tools.rebuild_mask):
            memory, mask = model.memory(gists[t : t + 1], torch.zeros(1, 1, dtype=torch.long))
            ids, labels = (x[t][own][None] for x in (batch.tools.rebuild_ids, batch.tools.rebuild_labels))
            totals.append(model.next_token_loss(model.decode(ids, memory=memory, memory_mask=mask), ids, labels))
        return told(totals)

    if isinstance(stage, SchemaAutoEncoding):
        return {"loss": rebuild()}
    contrast = contrast_loss(model, batch, encoded, stage.temperature, True)
    if isinstance(stage, GistContrast):
        parts = {"contrast": contrast, "rebuild": rebuild()}
        return {**parts, "loss": contrast + stage.rebuild_weight * parts["rebuild"]}
    totals, scores = [], []
    for i, own in enumerate(batch.attention_mask):
        row, request = slice(i, i + 1), requests[i]
        ids, labels, focus = (x[i][own][None] for x in (batch.input_ids, batch.labels, batch.focus))
        memory, mask = model.memory(gists, batch.tool_index[row])
        if model.config.focus:
            nearest = model.nearest(request, gists, batch.tool_index[row])[:, None]
            mask = model.focused(mask, torch.where(focus == NEAREST, nearest, focus))
        states = model.decode(ids, memory=memory, memory_mask=mask)
        totals.append(model.next_token_loss(states, ids, labels, reading=readings[i]))
        if model.pointer is not None:
            called = called_before(batch.call_targets[row], batch.tool_index.shape[1])
            starts = states[:, batch.call_starts[i]]
            scores.append(model.point(starts, request, gists, batch.tool_index[row], called))
    parts = {"call": told(totals)}
    if scores:
        parts["whether"], parts["pointer"] = pointer_loss(torch.cat(scores), batch.call_targets)
        weights |= {"whether": stage.whether_weight, "pointer": stage.pointer_weight}
    parts |= {"contrast": contrast, "rebuild": rebuild()}
    weights |= {"contrast": stage.contrast_weight, "rebuild": stage.rebuild_weight}
    return {**parts, "loss": torch.stack([weights[name] * parts[name] for name in parts]).sum()}


def without_tools() -> Rows:
    """Requests that offer none."""
    return [(replace(example, tools=()), []) for example, _ in rows() if not example.calls and example.draft is None]


NANO = {
    "copy_head": True, "focus": True, "encoder_attention": "bidirectional", "pooling_segments": True,
    "pooling_depth": 2,
}  # fmt: skip


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("shape", [{}, {"pointer": False, "no_tool_gist": False}, {"pointer_query": "encoder"}, NANO])
def test_packed_rows_are_rows_one_at_a_time(monkeypatch: pytest.MonkeyPatch, kind: Any, shape: dict[str, Any]):
    """The same losses, and the same gradient of every weight; one of the requests has no tools."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # then only the library's norms round to fp32
    batch, results = collate_calls([*mask_rows(rows(), 0.5, random.Random(1)), *without_tools()], prompts()), []
    for way in (losses, plain):
        model = tiny(**{**SHAPE, **shape}).double()
        parts = way(make(kind, model), batch)
        parts["loss"].backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        results.append({**{name: value.detach() for name, value in parts.items()}, **gradients})
    assert results[0].keys() == results[1].keys()
    for name, found in results[0].items():
        torch.testing.assert_close(found, results[1][name], rtol=1e-5, atol=1e-7, msg=lambda text: f"{name}: {text}")  # noqa: B023  # used at once


@pytest.mark.parametrize("shape", [{"no_tool_gist": False}, NANO])
def test_a_batch_without_tools_teaches_the_reply(shape: dict[str, Any]):
    parts = losses(make(ToolCalling, tiny(**{**SHAPE, **shape})), collate_calls(without_tools(), prompts()))
    assert parts["call"] > 0 and parts["loss"].isfinite()


def test_a_part_that_is_due_now_and_then_is_due_where_rows_are_logged():
    stage = make(ToolCalling, tiny(**SHAPE), rebuild_every=4)
    stage.train()
    steps, loop = range(100), stage.trainer.fit_loop.epoch_loop
    due, logged = [], []
    for step in steps:
        loop.automatic_optimization.optim_progress.optimizer.step.total.completed = step
        due += [step] if stage.every(4) else []
        logged += [step] if stage.logging_step else []
    assert len(due) == 25 and set(due) & set(logged) == {99}  # a trainer logs each 50th step


def test_validation_answers_are_written_in_the_weights_own_numbers(monkeypatch):
    """Mixed precision wraps validation in autocast, which the engine's caches know nothing of."""
    stage = make(ToolCalling, tiny(**SHAPE))
    stage.eval()
    for name in ("log", "log_dict"):
        monkeypatch.setattr(stage, name, lambda *of, **kw: None)
    with MixedPrecision("bf16-mixed", "cpu").val_step_context():
        stage.validation_step(rows()[:4], 0)
    assert stage.answers.compute().keys() == {"tsa", "em"}


def test_a_validation_row_without_room_for_an_answer_counts_as_malformed(monkeypatch):
    stage = make(ToolCalling, tiny(**SHAPE))
    some = rows()[:4]
    batch = collate_calls(some, stage.prompts)
    stage.prompts = prompts(length_limit=int(batch.attention_mask.sum(-1).max()))
    for name in ("log", "log_dict"):
        monkeypatch.setattr(stage, name, lambda *of, **kw: None)
    stage.validation_step(some, 0)
    assert float(stage.answers.compute()["em"]) < 1


def test_parts_of_weight_zero_are_not_computed():
    model, batch = tiny(**SHAPE), batch_of_rows()
    off = {"pointer_weight": 0.0, "contrast_weight": 0.0, "rebuild_weight": 0.0}
    assert losses(make(ToolCalling, model, **off), batch).keys() == {"call", "loss"}
    assert losses(make(GistContrast, model, rebuild_weight=0.0), batch).keys() == {"contrast", "loss"}
    plain = make(ToolCalling, tiny(**SHAPE, pointer=False))
    assert losses(plain, batch).keys() == {"call", "contrast", "rebuild", "loss"}


def test_rows_without_a_call_teach_no_contrast():
    model = tiny(**SHAPE)
    none = collate_calls([rows()[-1]], prompts())
    assert losses(make(GistContrast, model), none)["contrast"].item() == 0
    assert losses(make(ToolCalling, model), none)["whether"].item() > 0, "but they teach the pointer to say no"


# ---- negatives


def test_hard_negatives_are_other_tools():
    """Published "hard negatives" were the same tool written differently; ours have another id and do another thing."""
    world = ToolWorld(seed=1)
    of = Prompts(from_rows(world, vocab_size=500, rows=64), schema_limit=512)
    shape = {"batch_size": 16, "pool_size": 16, "tools_per_request": 6}
    batch = collate_calls(mask_rows(world.batch(0, **shape), 0.3, random.Random(0)), of)
    needed, offered = needed_tools(batch), offered_tools(batch)
    texts = [of.tokenizer.decode(ids[mask]) for ids, mask in zip(batch.tools.ids, batch.tools.mask, strict=True)]
    assert len(set(texts)) == len(texts), "no tool twice, however it is written"
    assert not (needed & ~offered).any(), "what is needed is on offer"
    negatives = offered & ~needed
    calling = needed.any(-1)
    assert calling.any() and (negatives.sum(-1)[calling] >= 3).all()
    for i in range(len(batch.input_ids)):
        index = batch.tool_index[i][batch.tool_index[i] >= 0]
        assert offered[i].nonzero().flatten().tolist() == sorted(index.tolist())
        gold = {int(index[t - 1]) for t in batch.call_targets[i] if t > 0}
        assert needed[i].nonzero().flatten().tolist() == sorted(gold)
    tools = world.tools(0, 40)
    similar = Negatives(tools)
    for tool in tools:
        near = similar.nearest(tool.id, [t.id for t in tools], 7)
        assert len(set(near)) == 7 and tool.id not in near


def test_negatives_of_the_row_or_of_the_batch():
    model, batch = tiny(**SHAPE).double(), batch_of_rows()
    wide, narrow = (losses(make(GistContrast, model, in_batch=many), batch)["contrast"] for many in (True, False))
    assert narrow < wide, "fewer tools to be told from"
    rows_ = [i for i in range(len(batch.input_ids)) if (batch.call_targets[i] > 0).any()]
    spots = F.normalize(model.pointer.proj(gists_of(model, batch, list(range(len(batch.tools.ids)))).mean(1)), dim=-1)
    wanted = []
    for i in rows_:
        tools = [int(t) for t in batch.tool_index[i] if t >= 0]
        gold = {tools[int(t) - 1] for t in batch.call_targets[i] if t > 0}
        asked = batch.prompt_ids[i][batch.prompt_mask[i]][None]
        request = model.encode_request(asked, torch.ones_like(asked).bool())
        place = F.normalize(model.pointer.proj(request.mean(1)), dim=-1)[0]
        wrong = [place @ spots[t] / 0.07 for t in tools if t not in gold]
        wanted.append(mean([-torch.stack([place @ spots[g] / 0.07, *wrong]).log_softmax(-1)[0] for g in gold]))
    close(narrow.float(), mean(wanted).float())


# ---- learning


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_batch_is_learned(optimizer: str):
    """Each schema from its gists, each token of each call, each choice of the pointer."""
    wide = {"hidden_size": 48, "intermediate_size": 64, "num_gists": 6, "initializer_range": 0.08}
    model, learned = tiny(**SHAPE, **wide).train(), ("call", "pointer", "rebuild")
    batch = collate_calls(rows(), prompts())
    stage = make(ToolCalling, model, optimizer=optimizer, rebuild_weight=1.0)
    opt = build_optimizer(model, optimizer, lr=1e-2, weight_decay=0.0)
    for step in range(100):
        parts = losses(stage, batch)
        now = {name: parts[name].item() for name in learned}
        assert step > 0 or min(now.values()) > 1
        if max(now.values()) < 0.05:
            return
        opt.zero_grad()
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
    pytest.fail(f"after 100 steps: {now}")


@pytest.mark.parametrize("kind", STAGES)
def test_frozen_weights_stay(kind: Any):
    patterns = ["decoder.layers.*.self_attn.*", "decoder.layers.*.mlp.*", "embed_tokens.weight"]
    model = tiny(**SHAPE)
    stage = make(kind, model, freeze=patterns)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses(stage, batch_of_rows())["loss"].backward()
    opt = stage.configure_optimizers()["optimizer"]
    opt.step()
    for name, parameter in model.named_parameters():
        part = name.split(".")[3] if name.startswith("decoder.layers") else name
        if part in ("self_attn", "mlp", "embed_tokens.weight"):
            assert parameter.grad is None and torch.equal(parameter, before[name]), name
    assert not torch.equal(model.gist_pool.queries, before["gist_pool.queries"])
    freeze_parameters(model, [])
    assert all(p.requires_grad for p in model.parameters()), "the next stage thaws what it does not freeze"


def test_a_pattern_that_freezes_nothing_or_everything_is_refused():
    with pytest.raises(ValueError, match=r"stage.freeze: 'decoder.layer.\*' matches no parameter; e.g. '.*' is one"):
        make(ToolCalling, tiny(**SHAPE), freeze=["decoder.layer.*"])
    with pytest.raises(ValueError, match="leaves nothing to train"):
        make(ToolCalling, tiny(**SHAPE), freeze=["*"]).configure_optimizers()
    with pytest.raises(ValueError, match="stage.optimizer is 'sgd'; use adamw or muon"):
        make(ToolCalling, tiny(**SHAPE), optimizer="sgd").configure_optimizers()


# ---- optimisers


def train(model: ToolFormerMicro, opt: torch.optim.Optimizer, schedule: Any, batches: list[CallBatch]) -> None:
    stage = make(ToolCalling, model)
    for batch in batches:
        opt.zero_grad()
        losses(stage, batch)["loss"].backward()
        opt.step()
        schedule.step()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resumed_optimiser_goes_on_bit_for_bit(name: str):
    batches = [batch_of_rows(seed) for seed in range(4)]

    def begin() -> tuple[ToolFormerMicro, torch.optim.Optimizer, Any]:
        model = tiny(**SHAPE)
        opt = build_optimizer(model, name, lr=1e-2, weight_decay=0.1)
        return model, opt, warmup_cosine(opt, 2, 10, 0.1)

    model, opt, schedule = begin()
    train(model, opt, schedule, batches)
    half, half_opt, half_schedule = begin()
    train(half, half_opt, half_schedule, batches[:2])
    saved = io.BytesIO()
    torch.save([half.state_dict(), half_opt.state_dict(), half_schedule.state_dict()], saved)
    saved.seek(0)
    weights, state, place = torch.load(saved, weights_only=True)
    again, again_opt, again_schedule = begin()
    again.load_state_dict(weights)
    again_opt.load_state_dict(state)
    again_schedule.load_state_dict(place)
    train(again, again_opt, again_schedule, batches[2:])
    for (key, wanted), found in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(found, wanted), key
    assert again_opt.param_groups[0]["lr"] == opt.param_groups[0]["lr"] < 1e-2


def test_muon_is_the_librarys_two_optimisers(monkeypatch):
    """Matrices of the layers go to Muon, all else to AdamW, and each moves as the library's own would move it."""
    monkeypatch.setattr(optimizers, "in_fast_numbers", Tensor.bfloat16)  # the library's are always bf16
    ours, theirs = tiny(**SHAPE), tiny(**SHAPE)
    opt = build_optimizer(ours, "muon", lr=1e-2, weight_decay=0.1)
    assert isinstance(opt, MuonAdamW)
    by_id = {id(p): name for name, p in ours.named_parameters()}
    groups = {bool(g["muon"]): {by_id[id(p)] for p in g["params"]} for g in opt.param_groups}
    assert groups[True] | groups[False] == set(by_id.values()) and not groups[True] & groups[False]
    assert all(dict(ours.named_parameters())[name].ndim == 2 for name in groups[True])
    assert {"embed_tokens.weight", "gist_pool.queries"} <= groups[False]
    named = dict(theirs.named_parameters())
    decay = {bool(g["muon"]): g["weight_decay"] for g in opt.param_groups}
    pair = [
        torch.optim.Muon(
            [named[name] for name in by_id.values() if name in groups[True]],
            lr=1e-2,
            weight_decay=decay[True],
            momentum=0.95,
            nesterov=True,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [named[name] for name in by_id.values() if name in groups[False]],
            lr=1e-2,
            betas=(0.9, 0.95),
            weight_decay=decay[False],
            fused=True,
        ),
    ]
    stage = make(ToolCalling, ours)
    for seed in range(2):
        ours.zero_grad()
        losses(stage, batch_of_rows(seed))["loss"].backward()
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.grad = mine.grad.clone()
        for optimiser in [opt, *pair]:
            optimiser.step()
    for (name, found), wanted in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4, msg=name)  # both round to bf16, in other orders


def test_vectors_and_scalars_are_not_decayed():
    for name in ("adamw", "muon"):
        model = tiny(**SHAPE)
        before = {key: p.detach().clone() for key, p in model.named_parameters()}
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        build_optimizer(model, name, lr=1e-2, weight_decay=0.5).step()
        for key, parameter in model.named_parameters():
            still = parameter.ndim != 2 or min(parameter.shape) == 1 or "embed_tokens" in key or "queries" in key
            assert torch.equal(parameter, before[key]) == still, f"{name}: {key}"


def test_schedule():
    model = torch.nn.Linear(1, 1)
    opt = torch.optim.AdamW(model.parameters(), lr=2.0)
    schedule, seen = warmup_cosine(opt, 4, 12, 0.1), []
    for _ in range(14):
        seen.append(opt.param_groups[0]["lr"])
        opt.step()
        schedule.step()
    assert seen[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0]) and seen[8] == pytest.approx(2 * 0.55)
    assert seen[12:] == pytest.approx([0.2, 0.2]) and all(a >= b for a, b in zip(seen[4:], seen[5:], strict=False))


def test_configured_stages_fit_the_models(request: pytest.FixtureRequest):
    """What a stage of ``conf/`` freezes is there in a model with a pointer."""
    for path in sorted((request.config.rootpath / "conf/stage").glob("*.yaml")):
        freeze_parameters(tiny(**SHAPE), yaml.safe_load(path.read_text())["module"]["freeze"])
    assert len(TOOLS) == 4
