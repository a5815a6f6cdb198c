"""In: stores on disk. Out: whether gists come back bit for bit, one by one, and only to the model that made them."""

import json
import shutil

import pytest
import torch
from tiny_caller import prompts, random_model, switch

from toolformer.inference.gist_store import GistStore, gist_fingerprint

LAMP, FAN, RADIO = switch("lamp"), switch("fan"), switch("radio")


def filled(folder, dtype=torch.float32) -> tuple[GistStore, dict]:
    store, gists = GistStore(folder, "a" * 16), {}
    for i, tool in enumerate((LAMP, FAN)):
        gists[tool.id] = torch.randn(3, 8, generator=torch.Generator().manual_seed(i)).to(dtype)
        store.add(tool, gists[tool.id])
    return store, gists


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_is_bit_for_bit_and_survives_reopening(tmp_path, dtype):
    _, gists = filled(tmp_path, dtype)
    store = GistStore(tmp_path, "a" * 16)
    assert len(store) == 2 and LAMP in store and RADIO not in store
    for tool in (LAMP, FAN):
        assert torch.equal(store.get(tool), gists[tool.id]) and store.get(tool).dtype == dtype
    assert {tool.id for tool in store.tools()} == {LAMP.id, FAN.id}
    assert {path.name for path in tmp_path.iterdir()} == {
        "store.json",
        f"{LAMP.id}.safetensors",
        f"{FAN.id}.safetensors",
    }


def test_replacing_and_removing_leave_the_others_alone(tmp_path):
    store, gists = filled(tmp_path)
    other = (tmp_path / f"{FAN.id}.safetensors").read_bytes()
    store.replace(LAMP, RADIO, torch.ones(3, 8))
    assert LAMP not in store and torch.equal(store.get(RADIO), torch.ones(3, 8))
    store.replace(RADIO, RADIO, torch.zeros(3, 8))
    assert torch.equal(store.get(RADIO), torch.zeros(3, 8))
    store.remove(RADIO)
    assert len(store) == 1 and (tmp_path / f"{FAN.id}.safetensors").read_bytes() == other
    assert torch.equal(store.get(FAN), gists[FAN.id])


def test_a_slice_of_a_larger_tensor_is_stored_alone(tmp_path):
    store, table = GistStore(tmp_path, "f"), torch.randn(100, 3, 8)
    store.add(LAMP, table[7])
    assert torch.equal(store.get(LAMP), table[7])
    assert (tmp_path / f"{LAMP.id}.safetensors").stat().st_size < 1000


def test_what_is_not_there_is_named(tmp_path):
    store, _ = filled(tmp_path)
    for ask in (store.get, store.remove, lambda tool: store.replace(tool, LAMP, torch.ones(1, 1))):
        with pytest.raises(ValueError, match=f"tool 'radio' \\(id {RADIO.id}\\) is not stored"):
            ask(RADIO)


def test_another_models_store_is_refused(tmp_path):
    filled(tmp_path / "a")
    with pytest.raises(ValueError, match="store.json:1: fingerprint is a{16}, this model's is b{16}"):
        GistStore(tmp_path / "a", "b" * 16)
    other = GistStore(tmp_path / "b", "b" * 16)
    shutil.copy(tmp_path / "a" / f"{LAMP.id}.safetensors", tmp_path / "b")
    with pytest.raises(ValueError, match="it comes from another model"):
        other.get(LAMP)


def test_broken_files_are_refused(tmp_path):
    store, _ = filled(tmp_path)
    path = tmp_path / f"{LAMP.id}.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=f"{path}: cannot be read"):
        store.get(LAMP)
    shutil.copy(tmp_path / f"{FAN.id}.safetensors", path)
    with pytest.raises(ValueError, match=f"holds the tool with id {FAN.id}"):
        store.get(LAMP)
    for text, why in (("{", "not JSON"), ("[]", "format is"), (json.dumps({"format": 99}), "format is 99")):
        (tmp_path / "store.json").write_text(text)
        with pytest.raises(ValueError, match=why):
            GistStore(tmp_path, "a" * 16)
    (tmp_path / "store.json").unlink()
    with pytest.raises(ValueError, match="is missing beside stored gists"):
        GistStore(tmp_path, "a" * 16)


def test_the_fingerprint_is_of_weights_tokenizer_and_limit():
    model, limits = random_model(), prompts()
    first = gist_fingerprint(model, limits)
    assert gist_fingerprint(random_model(), limits) == first != gist_fingerprint(random_model(1), limits)
    limits.schema_limit -= 1
    try:
        assert gist_fingerprint(model, limits) != first
    finally:
        limits.schema_limit += 1
    with torch.no_grad():
        model.gist_pool.queries[0, 0] += 1e-3
    assert gist_fingerprint(model, limits) != first
