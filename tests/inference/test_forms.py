"""In: requests that say some values. Out: whether a form says which are missing, and a question stands for a draft."""

import random

import pytest
import torch
from tiny_caller import prompts, random_model, rows, switch

from toolformer.calls import render
from toolformer.data.batches import collate_calls
from toolformer.data.masking import Rows, mask_rows
from toolformer.data.prompts import Prompts
from toolformer.inference.engine import Engine, Request
from toolformer.inference.grammar import Grammar
from toolformer.records import Example, Tool, ToolCall
from toolformer.schemas import filled, form, gaps
from toolformer.stages.base import encode
from toolformer.stages.tool_calling import ToolCalling

NULLABLE = {"type": ["string", "null"]}
TOOL = Tool(
    "book",
    "",
    {"type": "object", "properties": {"to": {"type": "string"}, "seat": {"type": "integer"}, "note": NULLABLE},
     "required": ["to"]},
)  # fmt: skip


@pytest.fixture(scope="module", params=["required", "all"])
def filling(request) -> Prompts:
    return Prompts(prompts().tokenizer, forms=request.param)


def lacking(count: int) -> Rows:
    return [(example, tools) for example, tools in rows() if example.stratum == "parameter_missing"][:count]


def called(example: Example, tools: list[Tool]) -> Tool:
    """The tool that the answer is about."""
    call = example.draft or example.calls[0]
    return next(tool for tool in tools if tool.name == call.name)


def test_a_form_has_every_parameter_and_is_read_back():
    call = ToolCall("book", {"seat": 3, "to": "Bern"})
    assert form(call, TOOL).arguments == {"to": "Bern", "seat": 3}
    assert list(form(call, TOOL).arguments) == ["to", "seat"], "in the schema's order"
    assert form(ToolCall("book", {"to": "Bern"}), TOOL).arguments == {"to": "Bern", "seat": None}
    noted = ToolCall("book", {"to": "Bern", "note": None})
    assert form(noted, TOOL).arguments == {"to": "Bern", "seat": None, "note": None}
    assert filled(form(noted, TOOL), TOOL) == noted, "null is a value where the schema has it"
    assert form(ToolCall("book", {}), TOOL, "required").arguments == {"to": None}
    assert gaps(ToolCall("book", {"to": None, "seat": None, "note": None}), TOOL) == ["to"]
    for example, tools in rows():
        for gold in example.calls:
            tool = next(tool for tool in tools if tool.name == gold.name)
            assert filled(form(gold, tool), tool) == gold and not gaps(form(gold, tool), tool)


def test_the_built_in_rows_know_what_is_missing():
    found = lacking(100)
    assert len(found) >= 3
    for example, tools in found:
        assert len(gaps(example.draft, called(example, tools))) == 1 and not example.calls and example.reply
    assert all(example.draft is None for example, _ in rows() if example.stratum != "parameter_missing")


def test_a_draft_is_masked_with_its_tool():
    for (example, tools), (masked, hidden) in zip(
        lacking(3), mask_rows(lacking(3), 1.0, random.Random(0)), strict=True
    ):
        place = tools.index(called(example, tools))
        assert masked.draft.name == hidden[place].name != example.draft.name
        assert len(gaps(masked.draft, hidden[place])) == 1


def test_the_answer_is_the_draft_and_then_the_question(filling: Prompts):
    ((example, tools),) = lacking(1)
    draft = form(example.draft, called(example, tools), filling.forms)
    answer = filling.answer(example, tools)
    assert filling.tokenizer.decode(answer[:-1]) == f"{render([draft])}\n{example.reply}"
    assert prompts().tokenizer.decode(prompts().answer(example)[:-1]) == example.reply
    (end,) = filling.call_ends(example, tools)
    assert answer[end] == filling.call_close
    slot = 1 + tools.index(called(example, tools))
    assert collate_calls([(example, tools)], filling).call_targets.tolist() == [[slot, 0]]
    assert collate_calls([(example, tools)], prompts()).call_targets.tolist() == [[0]]


def test_forms_are_whole_and_any_value_may_be_lacking(filling: Prompts):
    def allows(grammar: Grammar, matcher, call: ToolCall, more: str = "") -> bool:
        ids = filling.ids(render([call]) + more)
        return matcher.validate_tokens(ids) == len(ids)

    size = len(filling.tokenizer)
    strict, forms = (Grammar(filling.tokenizer, size, end=filling.end, forms=kind) for kind in ("none", filling.forms))
    for example, tools in lacking(4):
        tool = called(example, tools)
        draft = form(example.draft, tool, filling.forms)
        assert allows(forms, forms.call(tool, first=True), draft)
        assert allows(forms, forms.choice(tools), draft, f"\n{example.reply}")
        assert not allows(strict, strict.call(tool, first=True), draft)
        assert not allows(strict, strict.choice(tools), draft)
    every = filling.forms == "all"
    assert allows(forms, forms.call(TOOL, first=True), ToolCall("book", {"to": "Bern", "seat": 3, "note": None}))
    assert allows(forms, forms.call(TOOL, first=True), ToolCall("book", {"to": None, "seat": None})) == every
    assert allows(forms, forms.call(TOOL, first=True), ToolCall("book", {"to": None})) != every
    assert not allows(forms, forms.call(TOOL, first=True), ToolCall("book", {})), "a form is whole"


@pytest.fixture(scope="module", params=["required", "all"])
def learned(request):
    """A model that has learned a request by heart, and one that lacks a value."""
    whole = [(e, t) for e, t in rows() if len(e.calls) == len(e.messages) == 1][:1]
    asked = []
    for example, tools in (*whole, *lacking(1)):
        tool = called(example, tools)
        asked.append((example, [tool, switch("radio")]))
    model = random_model(copy_head=True, forms=request.param, initializer_range=0.1).train()
    filling = Prompts(prompts().tokenizer, forms=request.param)
    stage = ToolCalling(model, filling, lr=1e-3, warmup_steps=0, contrast_weight=0.0, rebuild_weight=0.0)
    batch, optimizer = collate_calls(asked, filling), torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        loss = stage.losses(batch, encode(model, batch, stage.reads_requests))["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval(), asked


@pytest.mark.parametrize("decoding", ["free", "constrained", "pointed"])
def test_a_model_that_fills_forms_asks_for_what_is_missing(decoding, learned):
    model, asked = learned
    engine = Engine(model, Prompts(prompts().tokenizer, forms=model.config.forms), max_new_tokens=160)
    requests = [Request(example.messages, tools, engine.encode(tools)) for example, tools in asked]
    for (example, tools), answer in zip(asked, engine.answer(requests, decoding), strict=True):
        assert answer.text == (render(example.calls) if example.calls else example.reply), answer.text
        assert answer.asked == ([] if example.draft is None else gaps(example.draft, called(example, tools)))
