"""In: tools by the dozen, requests. Out: whether routing finds the needed tools, and whether their order matters."""

from __future__ import annotations

import pytest
import torch
from tiny_caller import config, hand_made, prompts, random_model, rows, switch

from toolformer.inference.caller import ToolCaller
from toolformer.inference.engine import Engine
from toolformer.inference.routing import Router
from toolformer.model import ToolFormerMicro
from toolformer.records import Tool

WORDS = ("lamp radio heater oven fan kettle blind gate door pump alarm screen printer fridge toaster boiler").split()
TOOLS = [switch(name) for name in WORDS]


def offered() -> list[Tool]:
    """Tools of training rows, no name twice."""
    return list({tool.name: tool for _, tools in rows() for tool in tools}.values())


def router(model, tools) -> Router:
    found = Router(model)
    found.add(tools, list(Engine(model, prompts()).encode(tools)))
    return found


@pytest.mark.parametrize("changes", [{}, {"pointer": False}, {"pointer_query": "decoder"}])
def test_score_is_the_best_cosine_of_request_and_its_gists(changes):
    model, tools = random_model(**changes).double(), TOOLS[:5]
    (near,) = router(model, tools).nearest([prompts().ids("switch the radio on")], 3)
    ids = torch.tensor([prompts().ids("switch the radio on")])
    with torch.no_grad():
        request = model.encode_request(ids, torch.ones_like(ids, dtype=torch.bool))[0]
        queries = torch.cat([model.embed(request[None]), *(model.embed(g[None, None]) for g in request)])
        own = {t.name: float((queries @ model.embed(Engine(model, prompts()).encode([t]))[0]).max()) for t in tools}
    best = sorted(own, key=lambda name: -own[name])[:3]
    assert [tool.name for tool, _ in near] == best
    assert [score for _, score in near] == pytest.approx([own[name] for name in best], abs=1e-6)


def test_neither_order_nor_history_changes_a_bit():
    model = random_model()
    gists = dict(zip(TOOLS, Engine(model, prompts()).encode(TOOLS), strict=True))
    asked = [prompts().ids(text) for text in ("the fan and the gate", "radio", "switch the toaster on please")]
    first = Router(model)
    first.add(TOOLS, [gists[tool] for tool in TOOLS])
    wanted = first.nearest(asked, 6)
    other = Router(model)
    for tool in [*TOOLS[9:], *TOOLS[:4]]:
        other.add([tool], [gists[tool]])
    other.remove(TOOLS[1:3])
    other.add([*TOOLS[1:3], *TOOLS[4:9]][::-1], [gists[tool] for tool in [*TOOLS[1:3], *TOOLS[4:9]][::-1]])
    assert torch.equal(first.matrix, other.matrix) and other.nearest(asked, 6) == wanted
    other.remove(TOOLS)
    assert other.nearest(asked, 6) == [[], [], []]


def test_equal_tools_stand_in_the_order_of_their_ids():
    model = random_model()
    gists = Engine(model, prompts()).encode(TOOLS[:1])[0]
    same = Router(model)
    same.add(TOOLS, [gists] * len(TOOLS))
    (near,) = same.nearest([prompts().ids("lamp")], 7)
    assert [tool.id for tool, _ in near] == sorted(tool.id for tool in TOOLS)[:7]


def test_a_request_finds_its_tool_among_many():
    ours = ToolCaller(hand_made(), prompts(), route_above=4, k=4, max_new_tokens=80)
    ours.add_tools(offered())
    assert len(ours.tools) > 30
    asking = [(e, tools) for e, tools in rows() if len(e.calls) == 1][:20]
    hits = [e.calls[0].name in [t.name for t, _ in ours.nearest(e.messages)] for e, _ in asking]
    assert sum(hits) >= 16, "a bag of words should find most"


class TwoThings(ToolFormerMicro):
    """Reads every request as one for the first thing and for the second."""

    def encode_request(self, input_ids, mask):
        return torch.eye(self.config.hidden_size)[:2].expand(len(input_ids), -1, -1)


def test_a_request_for_two_things_finds_both_where_their_mean_finds_neither():
    """A crowd of tools lies between the two, nearer to the mean than either of them."""
    model = TwoThings(config(pointer=False, num_gists=2))
    first, second, *others = torch.eye(32)
    crowd = [first + second + 0.2 * other for other in others[:10]]
    ours = Router(model)
    ours.add(TOOLS[:12], [vector.expand(2, -1) for vector in (first, second, *crowd)])
    assert int((ours.matrix @ (first + second)).topk(10).values.min() > 1), "the crowd is nearer to the mean"
    (near,) = ours.nearest([[1]], 2)
    assert {tool.name for tool, _ in near} == {"lamp", "radio"}


def test_routed_as_exact_where_k_are_all_and_only_the_nearest_otherwise():
    exact, routed, few = (
        ToolCaller(random_model(1).double(), prompts(), max_new_tokens=24, no_call_bias=-1000.0, **how)
        for how in ({}, {"route_above": 3, "k": 50}, {"route_above": 3, "k": 2})
    )
    for ours in (exact, routed, few):
        ours.engine.most_calls = 1
        ours.add_tools(TOOLS)
    for text in ("switch the radio", "fan on", "hello"):
        assert routed.call(text).calls == exact.call(text).calls
        near = [tool.name for tool, _ in few.nearest(text)]
        assert len(near) == 2 and few.call(text).calls[0].name in near
    few.remove_tools([tool.name for tool in TOOLS[3:]])
    assert {call.name for call in few.call("fan on").calls} <= {tool.name for tool in TOOLS[:3]}


def test_settings_that_cannot_be_are_refused():
    for how, why in (({"k": 0}, "k is 0; it must be at least 1"), ({"route_above": -1}, "route_above is -1")):
        with pytest.raises(ValueError, match=why):
            ToolCaller(random_model(), prompts(), **how)
    with pytest.raises(ValueError, match="k is 0"):
        ToolCaller(random_model(), prompts()).nearest("lamp", 0)
