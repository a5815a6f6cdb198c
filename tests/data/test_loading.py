"""In: a source of rows and a seed. Out: whether batch k is a function of (seed, k), and a resumed loader goes on."""

from __future__ import annotations

import random
from collections.abc import Iterable
from multiprocessing import active_children

import pytest
import torch
from data.tiny_rows import prompts
from torch import Tensor

from toolformer.data.batches import CallBatch
from toolformer.data.loading import Batches, ResumableLoader, in_any_order, split_rows
from toolformer.data.prompts import Prompts
from toolformer.data.tokenizer import from_rows
from toolformer.data.toolworld import ToolWorld
from toolformer.records import Example, Message, ToolCall


@pytest.fixture(scope="module")
def world() -> ToolWorld:
    return ToolWorld(seed=5)


def batches(world: ToolWorld, **changes) -> Batches:
    shape = {"seed": 7, "batch_size": 3, "pool_size": 5, "tools_per_request": 2, "mask_share": 0.5}
    return Batches(world, prompts(schema_limit=512), **{**shape, **changes})


def flat(batch: CallBatch) -> list[Tensor]:
    return [*batch.tools, *batch[1:]]


def same(a: CallBatch, b: CallBatch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))


def all_same(a: Iterable[CallBatch], b: Iterable[CallBatch]) -> bool:
    return all(same(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("batch_size", [0, 3])
def test_batch_k_is_a_function_of_seed_and_k(world: ToolWorld, batch_size: int):
    one, other = (batches(world, batch_size=batch_size) for _ in range(2))
    backwards = {k: other[k] for k in (4, 2, 0)}
    assert all(same(one[k], backwards[k]) for k in (0, 2, 4, 2))
    assert not same(one[0], one[1]) and not same(one[0], batches(world, batch_size=batch_size, seed=8)[0])


def test_what_a_batch_holds(world: ToolWorld):
    batch = batches(world)[0]
    assert len(batch.input_ids) == 3 and batch.tool_index.shape[1] == 2 and len(batch.tools.ids) <= 5
    tools = batches(world, batch_size=0)[0]
    assert len(tools.tools.ids) == 5 and len(tools.input_ids) == 0
    plain, masked = (batches(world, mask_share=share)[0] for share in (0.0, 1.0))
    assert len(plain.tools.ids) == len(masked.tools.ids) and not same(plain, masked)
    assert len(plain.prompt_ids) == len(masked.prompt_ids), "requests stay"
    words = [sorted(p[m].tolist() for p, m in zip(b.prompt_ids, b.prompt_mask, strict=True)) for b in (plain, masked)]
    assert words[0] == words[1]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"mask_share": 1.2}, "batches.mask_share is 1.2"),
        ({"unaided_share": -0.1}, "batches.unaided_share is -0.1"),
        ({"tools_per_request": 6}, "batches.tools_per_request is 6; it must lie between 1 and 5"),
        ({"tools_per_request": 0}, "batches.tools_per_request is 0"),
    ],
)
def test_wrong_shapes_are_refused(world: ToolWorld, changes: dict, line: str):
    with pytest.raises(ValueError, match=line):
        batches(world, **changes)
    if "tools_per_request" in changes:
        batches(world, batch_size=0, **changes)  # without requests the number says nothing


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_goes_on_exactly(world: ToolWorld, workers: int):
    straight = list(ResumableLoader(batches(world), 6))
    assert len(straight) == 6 and all_same(straight, (batches(world)[k] for k in range(6)))
    for stop in (0, 1, 4, 6):
        stream = iter(loader := ResumableLoader(batches(world), 6, workers=workers))
        head = [next(stream) for _ in range(stop)]
        resumed = ResumableLoader(batches(world), 6, workers=workers)
        resumed.load_state_dict(loader.state_dict())
        assert len(resumed) == 6 and all_same([*head, *resumed], straight)


def test_only_what_was_handed_out_counts(world: ToolWorld):
    """Workers fetch ahead; what they hold when a run is killed was never seen."""
    loader = ResumableLoader(batches(world), 8, workers=2)
    stream = iter(loader)
    assert loader.state_dict()["done"] == 0
    for n in range(1, 4):
        next(stream)
        assert loader.state_dict()["done"] == n
    del stream
    resumed = ResumableLoader(batches(world), 8)
    resumed.load_state_dict(loader.state_dict())
    assert all_same(resumed, (batches(world)[k] for k in range(3, 8)))
    assert list(resumed) == [], "a stage is one pass"


def test_loading_leaves_the_global_generator_alone(world: ToolWorld):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert len(list(ResumableLoader(batches(world), 2))) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_processes_end_with_the_reader(world: ToolWorld):
    """No cycle keeps a dropped stream: the collector would come late, and wait for processes it can no longer reach."""
    stream = iter(ResumableLoader(batches(world), 50, workers=2))
    next(stream)
    assert len(active_children()) == 2
    del stream
    assert not active_children()


def test_processes_share_the_stream(world: ToolWorld):
    """Rank r of w has batches r, r + w, ...: together they are the stream of one process."""
    ranks = [list(ResumableLoader(batches(world), 2, rank=rank, world=2)) for rank in (0, 1)]
    assert all_same([batch for pair in zip(*ranks, strict=True) for batch in pair], ResumableLoader(batches(world), 4))


@pytest.mark.parametrize("key", ["seed", "size", "processes"])
def test_a_state_of_another_run_is_refused(world: ToolWorld, key: str):
    changes = {"seed": {"seed": 8}, "size": {"batch_size": 2}, "processes": {}}[key]
    state = ResumableLoader(batches(world), 6).state_dict()
    assert all(isinstance(value, int) for value in state.values()), "plain values: checkpoints load with weights_only"
    other = ResumableLoader(batches(world, **changes), 6, world=2 if key == "processes" else 1)
    with pytest.raises(ValueError, match=f"made with {key} {state[key]}, this run has {other.state_dict()[key]}"):
        other.load_state_dict(state)
    assert other.done == 0


def test_rows_of_a_frozen_split(world: ToolWorld):
    found = split_rows(world, "validation", 120)
    assert len({example.id for example, _ in found}) == len(found) == 120
    assert found[:20] == split_rows(world, "validation", 20), "fewer rows are the first ones"
    assert all(example.tools == tuple(tool.id for tool in tools) for example, tools in found)


def test_a_tokenizer_of_the_source_reads_its_batches(world: ToolWorld):
    of = Prompts(from_rows(world, vocab_size=600, rows=64))
    batch = Batches(world, of, seed=0, batch_size=4, pool_size=6, tools_per_request=3, mask_share=0.3)[0]
    assert int(batch.input_ids.max()) < len(of.tokenizer) and of.report["schemas_shortened"] == 0


def test_calls_of_one_request_come_in_any_order():
    calls = tuple(ToolCall(name, {}) for name in "abc")
    example = Example("x", (Message("user", "hi"),), (), calls, "", "test")
    orders = {"".join(call.name for call in in_any_order(example, random.Random(i)).calls) for i in range(60)}
    assert orders == {"abc", "acb", "bac", "bca", "cab", "cba"}
