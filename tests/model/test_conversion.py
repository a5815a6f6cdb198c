"""In: Qwen2.5-layout checkpoints written here, whole and broken. Out: whether each weight lands in its place.

The places are worked out here anew, from the names alone.
"""

from __future__ import annotations

import json
import logging as python_logging
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from model.tiny import SHAPE, randomise
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, GPT2Config, LlamaConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Model

from toolformer.model import ToolFormerMicro, fresh, from_qwen, load_backbone

KEYS = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
CUT = {"encoder_layers": 2, "encoder_offset": 0, "decoder_layers": 3, "decoder_offset": 1, "num_gists": 3}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def qwen(*, tied: bool = True, head: bool = True) -> Qwen2ForCausalLM | Qwen2Model:
    torch.manual_seed(0)
    config = Qwen2Config(**{k: SHAPE[k] for k in KEYS}, num_hidden_layers=4, tie_word_embeddings=tied)
    model = Qwen2ForCausalLM(config) if head else Qwen2Model(config)
    randomise(model)
    return model


def expected(source: dict[str, Tensor]) -> dict[str, Tensor]:
    """What ``CUT`` should hold of the weights of ``qwen``: layers 0-1 encode, layers 1-3 decode."""
    out = {"embed_tokens.weight": source["model.embed_tokens.weight"]}
    out["lm_head.weight"] = source.get("lm_head.weight", source["model.embed_tokens.weight"])
    for part, first, count in (("encoder", 0, 2), ("decoder", 1, 3)):
        out[f"{part}.norm.weight"] = source["model.norm.weight"]
        for i in range(count):
            prefix = f"model.layers.{first + i}."
            layer = {k.removeprefix(prefix): v for k, v in source.items() if k.startswith(prefix)}
            assert len(layer) == 12
            out |= {f"{part}.layers.{i}.{name}": value for name, value in layer.items()}
    return out


def check(model: ToolFormerMicro, source: dict[str, Tensor]) -> None:
    own, wanted = model.state_dict(), expected(source)
    for name, value in wanted.items():
        assert torch.equal(own[name], value.to(own[name].dtype)), name
    new = own.keys() - wanted.keys()
    attention = {f"{p}.{x}" for p in ("q_proj", "k_proj", "v_proj") for x in ("weight", "bias")} | {"o_proj.weight"}
    layers = {f"decoder.layers.{i}.cross_attn" for i in range(3)}
    assert new == (
        {f"{layer}.{name}" for layer in layers for name in attention}
        | {f"{layer}_{name}" for layer in layers for name in ("gate", "layernorm.weight")}
        | {f"gist_pool.attn.{name}" for name in attention}
        | {"gist_pool.queries", "gist_pool.norm.weight"}
        | {"pointer.no_call.weight", *(name for name in own if name.startswith("pointer."))}
    )
    assert all(own[name].isfinite().all() for name in new)
    assert (model.lm_head.weight is model.embed_tokens.weight) == model.config.tie_word_embeddings


def in_hub_cache(folder: Path, cache: Path, name: str) -> None:
    """The folder as the hub's client would have left it in its cache."""
    repo = cache / f"models--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text(COMMIT)
    shutil.copytree(folder, repo / "snapshots" / COMMIT)


@pytest.mark.parametrize("shards", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_local_folder(tmp_path: Path, shards: int, dtype: torch.dtype):
    source = qwen().to(dtype)
    source.save_pretrained(tmp_path, max_shard_size="100MB" if shards == 1 else "30KB")
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shards > 1)
    model = from_qwen(str(tmp_path), **CUT)
    assert model.dtype == torch.float32 and model.config.num_hidden_layers == 3
    check(model, source.state_dict())


@pytest.mark.parametrize("size", ["100MB", "30KB"])
def test_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str):
    source = qwen()
    source.save_pretrained(tmp_path / "folder", max_shard_size=size)
    in_hub_cache(tmp_path / "folder", tmp_path / "cache", "tiny/qwen")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    check(from_qwen("tiny/qwen", **CUT), source.state_dict())
    with pytest.raises(ValueError, match="tiny/other: no readable config.json"):
        from_qwen("tiny/other", **CUT)


def test_saved_without_its_head(tmp_path: Path):
    source = qwen(head=False)
    source.save_pretrained(tmp_path)
    check(from_qwen(str(tmp_path), **CUT), {f"model.{k}": v for k, v in source.state_dict().items()})


def test_head_of_its_own(tmp_path: Path):
    """Larger Qwen2.5 models are not tied; what is wanted can still be said."""
    source = qwen(tied=False)
    source.save_pretrained(tmp_path)
    check(from_qwen(str(tmp_path), **CUT), source.state_dict())
    tied = from_qwen(str(tmp_path), **CUT, tie_word_embeddings=True)
    check(tied, {k: v for k, v in source.state_dict().items() if k != "lm_head.weight"})


def test_a_copy_head_is_one_of_the_new_parts(tmp_path: Path):
    qwen().save_pretrained(tmp_path)
    head = from_qwen(str(tmp_path), **CUT, copy_head=True).copy_head
    assert head is not None and all(parameter.isfinite().all() for parameter in head.parameters())
    with pytest.raises(ValueError, match="model.copy_head is 'yes'; it must be true or false"):
        from_qwen(str(tmp_path), **CUT, copy_head="yes")


def test_tied_checkpoint_into_an_untied_model(tmp_path: Path):
    source = qwen()
    source.save_pretrained(tmp_path)
    model = from_qwen(str(tmp_path), **CUT, tie_word_embeddings=False)
    check(model, source.state_dict())
    assert torch.equal(model.lm_head.weight, model.embed_tokens.weight)


def test_numbers_that_belong_to_the_weights_come_along(tmp_path: Path):
    source = qwen()
    source.config.rms_norm_eps = 1e-5
    source.config.rope_parameters = {"rope_type": "default", "rope_theta": 1e6}
    source.config.eos_token_id = 7
    source.save_pretrained(tmp_path)
    model = from_qwen(str(tmp_path), **CUT, vocab_size=50)
    for config in (model.config, model.encoder.config, model.decoder.config):
        assert config.rms_norm_eps == 1e-5 and config.rope_parameters["rope_theta"] == 1e6
    assert model.config.eos_token_id == 7 and model.config.vocab_size == SHAPE["vocab_size"]
    assert model.encoder.config.num_hidden_layers == len(model.encoder.layers) == 2
    assert from_qwen(str(tmp_path), **CUT, eos_token_id=9).config.eos_token_id == 9


def refuse(folder: Path | str, *parts: str, **shape) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        from_qwen(str(folder), **{**CUT, **shape})
    line = str(caught.value)
    assert "\n" not in line
    for part in (str(folder), *parts):
        assert part in line, line


@pytest.mark.parametrize("config", [LlamaConfig(), GPT2Config()], ids=["llama", "gpt2"])
def test_other_architectures_are_refused(tmp_path: Path, config):
    config.save_pretrained(tmp_path)
    refuse(tmp_path, f"model_type is '{config.model_type}'", "Qwen2 and Qwen2.5")


def test_layers_outside_are_refused(tmp_path: Path):
    qwen().save_pretrained(tmp_path)
    refuse(tmp_path, "model.decoder_offset 2 + 3 layers", "its 4 layers", decoder_offset=2)
    refuse(tmp_path, "model.encoder_offset 3 + 2 layers", "its 4 layers", encoder_offset=3)
    refuse(tmp_path, "vocab_size is 96", "tokenizer has 97", vocab_size=97)


def test_wrong_fields_are_refused_by_name(tmp_path: Path):
    qwen().save_pretrained(tmp_path)
    for shape, part in (
        ({"num_gist": 4}, "model.num_gist is 4"),
        ({"gate": "sigmoid"}, "model.gate is 'sigmoid'; use one of tanh, none"),
        ({"decoder_offset": -1}, "model.decoder_offset is -1"),
        ({"decoder_layers": 0}, "model.num_hidden_layers is 0"),
    ):
        with pytest.raises(ValueError, match=part):
            from_qwen(str(tmp_path), **{**CUT, **shape})
    with pytest.raises(ValueError, match="model.num_gist is 4"):
        fresh(vocab_size=9, eos_token_id=1, pad_token_id=0, num_gist=4)


def test_sliding_windows_are_refused(tmp_path: Path):
    source = qwen()
    source.config.use_sliding_window = True
    source.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="use_sliding_window is True; only full attention"):
        from_qwen(str(tmp_path), **CUT)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_broken_files_are_refused_in_one_line(tmp_path: Path):
    source = qwen()
    source.save_pretrained(tmp_path / "one")
    source.save_pretrained(tmp_path / "many", max_shard_size="30KB")
    shards = sorted((tmp_path / "many").glob("model-*.safetensors"))
    for break_it, parts in {
        "cut": ["cannot be read", "copy the checkpoint again"],
        "weight": ["1 weights are missing", "decoder.layers.2.mlp.up_proj.weight", "whole"],
        "shape": ["embed_tokens.weight has shape (5, 32)", "(96, 32)"],
        "pickle": ["model.safetensors is missing", "safetensors format"],
        "config": ["no readable config.json"],
        "kind": ["no readable config.json"],
        "no config": ["no readable config.json"],
    }.items():
        folder = Path(shutil.copytree(tmp_path / "one", tmp_path / break_it))
        weights, config = folder / "model.safetensors", folder / "config.json"
        if break_it == "cut":
            cut_in_half(weights)
        elif break_it == "pickle":
            weights.rename(folder / "pytorch_model.bin")
        elif break_it == "config":
            cut_in_half(config)
        elif break_it == "kind":
            config.write_text("{}")
        elif break_it == "no config":
            config.unlink()
        else:
            tensors = load_file(weights)
            if break_it == "weight":
                del tensors["model.layers.3.mlp.up_proj.weight"]
            else:
                tensors["model.embed_tokens.weight"] = torch.zeros(5, 32)
            save_file(tensors, weights, {"format": "pt"})
        refuse(folder, *parts)
    kept = shards[1].read_bytes()
    cut_in_half(shards[1])
    refuse(tmp_path / "many", "cannot be read")
    shards[1].unlink()
    refuse(tmp_path / "many", "cannot be read")
    shards[1].write_bytes(kept)
    cut_in_half(tmp_path / "many/model.safetensors.index.json")
    refuse(tmp_path / "many", "cannot be read")
    refuse(tmp_path / "nowhere", "no such model folder", "hub id")


def backbone(folder: Path, **shape) -> ToolFormerMicro:
    torch.manual_seed(0)
    model = fresh(**{"vocab_size": 96, "eos_token_id": 1, "pad_token_id": 0, **{**SHAPE, **shape}})
    randomise(model)
    model.save_pretrained(folder)
    return model


def test_load_backbone(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    model = backbone(tmp_path)
    again = load_backbone(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == again.config.to_dict()
    tensors = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in tensors, "a tied table is stored once"
    said = python_logging.getLogger("transformers").level
    for change, parts in (
        ({"gist_pool.queries": None}, ["missing_keys", "gist_pool.queries"]),
        ({"gist_pool.queries": torch.zeros(4, 32)}, ["mismatched_keys", "gist_pool.queries"]),
        ({"pointer.more": torch.zeros(4)}, ["unexpected_keys", "pointer.more"]),
    ):
        new = {k: v for k, v in {**tensors, **change}.items() if v is not None}
        save_file(new, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError) as caught:
            load_backbone(str(tmp_path))
        assert all(part in str(caught.value) for part in (str(tmp_path), *parts))
        assert "\n" not in str(caught.value) and python_logging.getLogger("transformers").level == said
    cut_in_half(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="weights cannot be read"):
        load_backbone(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="model.safetensors is missing"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"vocab_size": 10**9}, "mismatched_keys.*embed_tokens.weight is .*, by the config \\(1000000000, 32\\)"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers, the weights are [0-9]+ tensors"),
        ({"rope_parameters": {"rope_type": "nothing"}}, "config.json makes no model"),
        ({"layer_types": [[]]}, "no readable config.json"),
        ({"model_type": "other", "auto_map": {"AutoConfig": "code.Config"}}, "no readable config.json"),
    ],
)
def test_a_config_that_lies_is_refused_before_memory_is_taken(tmp_path: Path, change: dict, why: str):
    backbone(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (tmp_path / "code.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nclass Config: pass\n"
    )
    with pytest.raises(ValueError, match=why) as caught:
        load_backbone(str(tmp_path))
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists(), "code of a checkpoint was run"


def test_missing_parts_get_their_own_first_values(tmp_path: Path):
    """Nested library models initialise themselves: an old checkpoint without gates once loaded gates of 1e38."""
    model = backbone(tmp_path, gate_init=0.25, no_tool_gist=True, pooling_segments=True, copy_head=True)
    tensors = load_file(tmp_path / "model.safetensors")
    new = ("cross_attn_gate", "gist_pool.queries", "gist_pool.sharpness", "copy_head.match", "pointer.trust", "no_tool")
    save_file(
        {k: v for k, v in tensors.items() if not k.endswith(new)}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    again = ToolFormerMicro.from_pretrained(tmp_path)
    own = again.state_dict()
    for name, value in model.state_dict().items():
        assert name.endswith(new) or torch.equal(own[name], value), name
    assert all(layer.cross_attn_gate.item() == 0.25 for layer in again.decoder.layers)
    assert 0.5 < float(own["gist_pool.queries"].std()) < 1.5 and 0.5 < float(own["no_tool"].std()) < 1.5
    assert float(own["pointer.trust"]) == 0.5 and own["copy_head.match"].tolist() == [2.0, 2.0]
    assert own["gist_pool.sharpness"].tolist() == [1.0] * len(own["gist_pool.sharpness"])
    assert json.loads((tmp_path / "config.json").read_text())["gate_init"] == 0.25
