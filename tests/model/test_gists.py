"""In: small models, tools in all orders and numbers. Out: whether gists are independent and the memory orderless."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from model.tiny import SHAPE, Inputs, inputs, logits, remember, tiny
from torch import Tensor

from toolformer.model import ToolFormerConfig, ToolFormerMicro, fresh
from toolformer.model.losses import linear_cross_entropy, pointer_loss

CHOICES: list[dict[str, Any]] = [
    {},
    {"num_gists": 1},
    {"num_gists": 16},
    {"encoder_layers": 1, "num_hidden_layers": 3},
    {"encoder_layers": 3, "num_hidden_layers": 1, "encoder_offset": 2, "decoder_offset": 0},
    {"gate": "none"},
    {"gate_init": 1},
    {"encoder_attention": "bidirectional"},
    {"pooling_depth": 3},
    {"pooling_segments": True},
    {"focus": True},
    {"no_tool_gist": True},
    {"pointer": False},
    {"pointer_query": "decoder"},
    {"pointer_query": "encoder"},
    {"pointer_size": 5, "pointer_temperature": 1},
    {"tie_word_embeddings": False},
    {"num_key_value_heads": None},
    {
        "gate": "none",
        "encoder_attention": "bidirectional",
        "pooling_depth": 2,
        "no_tool_gist": True,
        "pointer_query": "encoder",
    },
]


def named(choice: dict[str, Any]) -> str:
    return ",".join(f"{k}={v}" for k, v in choice.items()) or "as it comes"


def loss(model: ToolFormerMicro, batch: Inputs) -> Tensor:
    """Next token and, where there is a pointer, the choice of tool at the end of each prompt: every weight is used."""
    gists = model.encode_tools(batch.tool_ids, batch.tool_mask)
    memory, memory_mask = model.memory(gists, batch.tool_index)
    states = model.decode(batch.input_ids, memory=memory, memory_mask=memory_mask)
    labels = torch.where(batch.attention_mask, batch.input_ids, -100)
    total, count = linear_cross_entropy(states[:, :-1], model.lm_head.weight, labels[:, 1:])
    if model.pointer is None:
        return total / count
    request = model.encode_request(batch.input_ids, batch.attention_mask)
    called = torch.zeros(3, 2, 3, dtype=torch.bool)
    called[[0, 2], 1, [1, 0]] = True  # by the targets' first decisions
    scores = model.point(states[:, -2:], request, gists, batch.tool_index, called)
    return total / count + sum(pointer_loss(scores, torch.tensor([[2, 0], [0, -1], [1, 2]])))


def gradients(model: ToolFormerMicro, batch: Inputs) -> dict[str, Tensor]:
    model.zero_grad()
    loss(model, batch).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("choice", CHOICES, ids=named)
def test_every_choice_learns(choice: dict[str, Any], tmp_path):
    model, batch = tiny(**choice), inputs()
    gists = model.encode_tools(batch.tool_ids, batch.tool_mask)
    assert gists.shape == (5, model.config.num_gists, SHAPE["hidden_size"])
    memory, mask = model.memory(gists, batch.tool_index)
    slots = 3 * model.config.num_gists + model.config.no_tool_gist
    assert memory.shape == (3, slots, SHAPE["hidden_size"]) and mask.shape == (3, slots)
    assert mask.sum(-1).tolist() == [n * model.config.num_gists + model.config.no_tool_gist for n in (3, 1, 2)]
    found = gradients(model, batch)
    assert all(g.isfinite().all() for g in found.values())
    unmoved = {name for name, g in found.items() if not g.abs().sum() > 0}
    still = {n for n in found if n.endswith("k_proj.bias")}  # a softmax ignores a shift
    still |= {"pointer.ask.weight"} if model.config.num_gists == 1 else set()  # and has nothing to choose among one
    assert unmoved <= still
    model.config.save_pretrained(tmp_path)
    again = ToolFormerConfig.from_pretrained(tmp_path)
    assert {key: getattr(again, key) for key in choice if choice[key] is not None} == {
        key: value for key, value in choice.items() if value is not None
    }


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("gate", "sigmoid", "use one of tanh, none"),
        ("encoder_attention", "both", "use one of causal, bidirectional"),
        ("pointer_query", "gist", "use one of decoder, encoder, both"),
        ("num_gists", 0, "at least 1"),
        ("num_gists", "8", "an integer"),
        ("num_gists", 2.5, "an integer"),
        ("pooling_depth", 0, "at least 1"),
        ("encoder_layers", -1, "at least 1"),
        ("num_hidden_layers", 0, "at least 1"),
        ("encoder_offset", -1, "at least 0"),
        ("vocab_size", 0, "at least 1"),
        ("pointer", "yes", "true or false"),
        ("no_tool_gist", 1, "true or false"),
        ("pointer_temperature", 0, "above 0"),
        ("hidden_size", 30, "num_attention_heads 4 must divide it"),
        ("num_attention_heads", 32, "num_key_value_heads 3 must divide it"),
        ("use_sliding_window", True, "only full attention"),
    ],
)
def test_wrong_values_are_refused_by_name(field: str, value: Any, remedy: str):
    heads = {"num_key_value_heads": 3} if field == "num_attention_heads" else {}
    with pytest.raises(ValueError) as caught:
        ToolFormerConfig(**{**SHAPE, **heads, field: value})
    line = str(caught.value)
    assert f"model.{field} is {value!r}" in line and remedy in line and "\n" not in line


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("choice", [{}, {"encoder_attention": "bidirectional", "no_tool_gist": True}], ids=named)
def test_ragged_and_zero_tools(choice: dict[str, Any], attention: str):
    """No NaN, and a row sees as many tools as it has, whatever its neighbours have."""
    model, batch = tiny(**choice), inputs()
    model.set_attn_implementation(attention)
    ragged = batch._replace(tool_index=torch.tensor([[0, 3, 2], [-1, -1, -1], [4, -1, -1]]))
    together = logits(model, ragged)
    narrow = (torch.tensor([[0, 3, 2]]), torch.zeros(1, 0, dtype=torch.long), torch.tensor([[4]]))
    for i, index in enumerate(narrow):
        alone = Inputs(
            batch.tool_ids, batch.tool_mask, index, batch.input_ids[i : i + 1], batch.attention_mask[i : i + 1]
        )
        torch.testing.assert_close(logits(model, alone)[0], together[i], rtol=1e-4, atol=1e-5)
    holes = logits(model, ragged._replace(tool_index=torch.tensor([[0, 3, 2], [-1, -1, -1], [-1, 4, -1]])))
    torch.testing.assert_close(holes, together, rtol=1e-4, atol=1e-5)
    for index in (ragged.tool_index, torch.full((3, 2), -1), torch.zeros(3, 0, dtype=torch.long)):
        model.zero_grad()
        logits(model, batch._replace(tool_index=index)).square().sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_no_tool_in_the_whole_batch():
    model, batch = tiny(), inputs()
    gists = model.encode_tools(torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, 0, dtype=torch.bool))
    assert gists.shape == (0, 3, SHAPE["hidden_size"])
    memory, mask = model.memory(gists, torch.full((3, 2), -1))
    assert memory.shape == (3, 6, SHAPE["hidden_size"]) and not mask.any()
    request = model.encode_request(batch.input_ids, batch.attention_mask)
    scores = model.point(torch.zeros(3, 1, SHAPE["hidden_size"]), request, gists, torch.full((3, 2), -1))
    assert scores[..., 0].isfinite().all() and (scores[..., 1:] == float("-inf")).all()
    states = model.decode(batch.input_ids, memory=memory, memory_mask=mask)
    torch.testing.assert_close(states, model.decode(batch.input_ids))


def orders(index: Tensor) -> list[Tensor]:
    return [index[:, list(order)] for order in itertools.permutations(range(index.shape[1]))]


def test_the_order_of_tools_decides_nothing():
    """Rounding follows the order of a sum: a tolerance in float32, the very tokens in float64."""
    model, batch = tiny(no_tool_gist=True), inputs()
    gists = model.encode_tools(batch.tool_ids, batch.tool_mask)
    request = model.encode_request(batch.input_ids, batch.attention_mask)
    first, scores = logits(model, batch), None
    for index in orders(batch.tool_index):
        moved = batch._replace(tool_index=index)
        torch.testing.assert_close(logits(model, moved), first, rtol=1e-4, atol=1e-5)
        states = model.decode(moved.input_ids, **remember(model, moved))[:, -1:]
        found = model.point(states, request, gists, index)[:, 0]
        by_tool = torch.full((3, 6), float("-inf")).scatter(1, index.clamp(min=-1) + 1, found[:, 1:])
        by_tool[:, 0] = found[:, 0]  # no call; holes landed there too
        scores = by_tool if scores is None else scores
        torch.testing.assert_close(by_tool, scores, rtol=1e-4, atol=1e-4)
    model.double()
    answers = [
        model.generate(
            batch.input_ids,
            attention_mask=batch.attention_mask.long(),
            **remember(model, batch._replace(tool_index=index)),
            max_new_tokens=10,
            do_sample=False,
        )
        for index in orders(batch.tool_index)
    ]
    assert all(torch.equal(answer, answers[0]) for answer in answers)


def test_editing_one_tool_changes_only_its_gists():
    """The others stay bit for bit while the batch keeps its padded shape; at another width they stay to rounding."""
    model, batch = tiny(), inputs()
    before = model.encode_tools(batch.tool_ids, batch.tool_mask)
    for tool in range(5):
        ids, mask = batch.tool_ids.clone(), batch.tool_mask.clone()
        ids[tool, 2] = (ids[tool, 2] + 1) % SHAPE["vocab_size"]
        mask[tool, -3:] = False
        after = model.encode_tools(ids, mask)
        others = [i for i in range(5) if i != tool]
        assert torch.equal(after[others], before[others]) and not torch.allclose(after[tool], before[tool], atol=1e-2)
    wider = torch.nn.functional.pad(batch.tool_ids, (0, 7), value=5)
    after = model.encode_tools(wider, torch.nn.functional.pad(batch.tool_mask, (0, 7)))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_padding_and_neighbours_leave_gists_alone(attention: str):
    model, batch = tiny(encoder_attention=attention), inputs()
    together = model.encode_tools(batch.tool_ids, batch.tool_mask)
    left_ids, left_mask = torch.zeros(5, 15, dtype=torch.long), torch.zeros(5, 15, dtype=torch.bool)
    for tool in range(5):
        own = batch.tool_ids[tool][batch.tool_mask[tool]]
        alone = model.encode_tools(own[None], torch.ones_like(own[None], dtype=torch.bool))
        torch.testing.assert_close(alone[0], together[tool], rtol=1e-4, atol=1e-5)
        left_ids[tool, 15 - len(own) :], left_mask[tool, 15 - len(own) :] = own, True
    torch.testing.assert_close(model.encode_tools(left_ids, left_mask), together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.encode_request(left_ids, left_mask), together, rtol=1e-4, atol=1e-5)


def test_who_sees_whom_in_the_encoder():
    ids = inputs().tool_ids
    changed, all_of_it = ids.clone(), torch.ones_like(ids, dtype=torch.bool)
    changed[:, -1] = (changed[:, -1] + 1) % SHAPE["vocab_size"]
    for attention, sees in (("causal", False), ("bidirectional", True)):
        model = tiny(encoder_attention=attention)
        before, after = (model.encoder.encode(model.embed_tokens(x), all_of_it)[:, 0] for x in (ids, changed))
        assert torch.allclose(before, after, atol=1e-6) != sees


def test_order_of_words_in_a_schema_matters():
    """The gists of a tool are no bag of words: positions are used, from 0 in each schema."""
    model, batch = tiny(encoder_attention="bidirectional"), inputs()
    mask = torch.ones_like(batch.tool_mask)
    assert not torch.allclose(
        model.encode_tools(batch.tool_ids, mask), model.encode_tools(batch.tool_ids.flip(1), mask), atol=1e-2
    )


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_gradient_checkpointing_gives_the_same_gradients():
    """Of torch's two kinds the one that carries keywords, as the memory is one."""
    batch = inputs()
    model = tiny(pooling_depth=2).train()
    wanted = gradients(model, batch)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for name, gradient in gradients(model, batch).items():
        torch.testing.assert_close(gradient, wanted[name], msg=name)


def test_a_focused_position_sees_one_tool_alone():
    for extra in (False, True):
        model, batch = tiny(no_tool_gist=extra, focus=True), inputs()
        gists = model.encode_tools(batch.tool_ids, batch.tool_mask)
        memory, mask = model.memory(gists, batch.tool_index)
        focus = torch.tensor([[-1, 0, 2], [0, -1, 0], [1, 1, -1]])
        seen = model.focused(mask, focus)
        assert seen.shape == (3, 3, memory.shape[1])
        assert torch.equal(seen[0, 0], mask[0]) and torch.equal(seen[2, 2], mask[2])
        wanted = [model.config.num_gists + extra] * 2
        assert seen[0, 1:].sum(-1).tolist() == wanted and not (seen & ~mask[:, None]).any()
        ids = batch.input_ids[:1]
        both = []
        for other in (gists, gists.clone().index_fill_(0, torch.tensor([0, 3]), 5.0)):  # the row has tools 0, 3 and 2
            memory, mask = model.memory(other, batch.tool_index[:1])
            both.append(model.decode(ids, memory=memory, memory_mask=model.focused(mask, torch.full_like(ids, 2))))
        assert torch.equal(*both), "what the tool in focus does not say changes nothing"


def test_nearest_is_the_tool_that_the_pointer_space_says():
    model, batch = tiny(focus=True), inputs()
    gists = model.encode_tools(batch.tool_ids, batch.tool_mask)
    request = model.encode_request(batch.input_ids, batch.attention_mask)
    scores = model.embed(request) @ model.embed(gists).T
    for row, place in enumerate(model.nearest(request, gists, batch.tool_index).tolist()):
        tools = [int(t) for t in batch.tool_index[row] if t >= 0]
        assert place == int(scores[row, tools].argmax())
    assert model.nearest(request, gists, torch.full((3, 2), -1)).tolist() == [-1] * 3
    assert model.nearest(request, gists[:0], batch.tool_index[:, :0]).tolist() == [-1] * 3


def test_segments_lie_where_their_part_of_the_schema_is():
    pool = tiny(num_gists=4, pooling_segments=True).gist_pool
    with torch.no_grad():
        pool.sharpness.fill_(1.0)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 8:] = False
    bias = pool.segments(mask)
    assert bias[0].argmax(0).tolist() == [k for k in range(4) for _ in range(3)]
    assert bias[1, :, :8].argmax(0).tolist() == [k for k in range(4) for _ in range(2)]
    left = pool.segments(mask.flip(1))
    torch.testing.assert_close(left[1, :, 4:], bias[1, :, :8])


def test_a_bag_of_words_finds_its_words_untrained():
    shape = {
        **SHAPE,
        "hidden_size": 64,
        "pointer_size": 64,
        "num_key_value_heads": 4,
        "encoder_attention": "bidirectional",
    }
    tools = torch.randperm(94, generator=torch.Generator().manual_seed(1))[:80].view(8, 10) + 2
    request = tools[:, torch.tensor([7, 2, 5])]
    found = 0
    for seed in range(5):
        torch.manual_seed(seed)
        model = fresh(bag_of_words=True, copy_head=True, **shape).eval()
        places = model.embed(model.encode_tools(tools, torch.ones_like(tools, dtype=torch.bool)))
        asked = model.embed(model.encode_request(request, torch.ones_like(request, dtype=torch.bool)))
        found += int(((asked @ places.T).argmax(-1) == torch.arange(8)).sum())
    assert found >= 28, "of 40; a chance of one in eight each"
