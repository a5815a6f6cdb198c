"""In: a tiny shape, and files as experiments/speed writes them. Out: whether counts and pages are right."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model.tiny import SHAPE, inputs, tiny
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.speed import counting, page, run
from experiments.speed.inputs import QWEN, our_config
from experiments.tables import filled
from toolformer.model import ToolFormerConfig, ToolFormerMicro

KILLS = {"kills": 20, "left_half_written": 9, "lost": 0, "wrong": 0, "back": 0, "torn": 0, "refused": 0}
STORE = {
    "commit": "0123456789abcdef",
    "summary": KILLS | {"failed_processes": 0},
    "tools": 100,
    "rates": {"gets_per_second": 20_000},
    "precision": {"int8": {"bytes": 7444, "rms_error": 0.0026}},
}
STEP = {"step_s": 1.0, "peak_bytes": 2e9, "rose_bytes": 1e9, "loss": 12.5}
TRAINING = {
    "commit": "0123456789abcdef",
    "published": {
        "precision": "fp32",
        "requests": 4,
        "tools": 20,
        "ours": STEP,
        "published": STEP | {"step_s": 5.0},
        "ratios": {"examples": 5.0, "peak": 0.9},
    },
}


def counted(model: ToolFormerMicro, work: Callable[[], object]) -> int:
    """Operations as torch sees them; only plain attention is counted there, and it looks at all pairs."""
    model.requires_grad_(False)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("depth", [1, 2])
def test_operations_of_encoding_are_those_that_torch_counts(depth: int):
    model = tiny(pooling_depth=depth, encoder_attention="bidirectional", pointer=False)
    mask = torch.ones_like(given := inputs().tool_ids, dtype=torch.bool)
    expected = counting.encode(model.config, [given.shape[1]] * len(given))
    assert counted(model, lambda: model.encode_tools(given, mask)) == expected


def test_operations_of_decoding_are_those_that_torch_counts():
    model = tiny(pointer=False)
    gists = torch.randn(3, SHAPE["num_gists"], SHAPE["hidden_size"])
    memory, mask = model.memory(gists, torch.arange(3)[None])
    ids, slots = torch.arange(2, 13)[None], memory.shape[1]
    n = ids.shape[1]
    expected = counting.decode(model.config, n, n * n, slots, projected=slots, positions=n)
    assert counted(model, lambda: model(ids, memory=memory, memory_mask=mask, use_cache=False)) == expected


def test_bytes_of_a_token_are_all_weights_of_the_decoder_and_what_is_remembered():
    config = ToolFormerConfig(**SHAPE | {"pointer": False})
    kept = ("cross_attn.k_proj", "cross_attn.v_proj")  # gists are projected once a tool
    decoder = sum(
        weight.numel()
        for name, weight in ToolFormerMicro(config).named_parameters()
        if weight.dim() == 2 and name.startswith(("embed_tokens", "decoder")) and not any(x in name for x in kept)
    )
    assert counting.token_numbers(config, 0, 0) == decoder
    remembered = config.num_hidden_layers * 2 * 16 * (7 + 5)  # keys and values of 7 tokens and 5 gists
    assert counting.token_numbers(config, 7, 5) == decoder + remembered


def test_the_model_that_is_measured_has_the_published_size():
    with torch.device("meta"):
        model = ToolFormerMicro(our_config(json.loads(json.dumps(QWEN))))  # as another process gets it
    assert sum(weight.numel() for weight in model.parameters()) == 428_448_268  # conf/model/qwen2.5-0.5b.yaml


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What a quick run leaves."""
    out = tmp_path_factory.mktemp("speed") / "experiments/speed"
    run.main(["quick", "seconds=0.02", f"out={out}"])
    return out


def test_a_quick_run_measures_every_path_and_all_write_the_same(folder: Path):
    result = json.loads((folder / "result.json").read_text())
    assert {(row["path"], row["dtype"]) for row in result["rows"]} == {
        (path, dtype) for path in ("ours", "published", "text") for dtype in ("float32", "bfloat16")
    }
    assert result["agreement"]["float32"] == {"equal": 17, "of": 17}
    assert len(list((folder / "figures").glob("*.png"))) == 6


def test_the_page_shows_every_table_and_says_what_is_missing(folder: Path):
    path = "experiments/speed/result.json"
    blocks = "".join(f"<!-- speed: {path} {word} -->\n<!-- end -->\n" for word in ("bars", "origin", *page.TABLES))
    blocks += "<!-- speed: experiments/speed/store.json -->\n<!-- end -->\n"
    shown = filled(blocks, folder / "README.md", folder.parents[1])
    assert "no `training.json` yet" in shown and "*not run yet: `experiments/speed/store.json` is missing*" in shown
    assert "| fp32 | 5 | published |" in shown and "tokens, the context is 1,024" in shown
    assert shown.count("not measured: minutes") == 2
    with pytest.raises(ValueError, match=r"README.md: a speed block says 'all'; name one of bars, origin, encode"):
        filled(f"<!-- speed: {path} all -->\n<!-- end -->\n", folder / "README.md", folder.parents[1])


def test_bars_of_the_other_commands_are_judged(folder: Path, tmp_path: Path):
    for name, content in (("store", STORE), ("training", TRAINING)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    rows = {row[0]: row[2:] for row in page.bars(json.loads((folder / "result.json").read_text()), tmp_path)}
    assert rows[page.KILLS[0]] == ["20 kills, 9 in the middle of a write: nothing wrong", "met"]
    assert rows[page.STAGE2[0]] == ["fp32 5.0x, memory 1.11x", "missed"]
    assert rows[page.DEMO[0]] == ["not in `training.json`", "not measured"]
    assert "| gets per second | 20,000 |" in page.markdown(tmp_path / "store.json", [])
    assert "| published manner | 0.8 |" in page.markdown(tmp_path / "training.json", [])


def test_a_word_that_says_nothing_is_refused():
    with pytest.raises(ValueError, match="'tool=5' is no setting; say quick or one of device="):
        run.main(["tool=5"])
    with pytest.raises(ValueError, match="dtypes is 'fp8'; use float32, bfloat16"):
        run.main(["dtypes=fp8"])
