"""In: requests that lack a value. Out: whether the call is begun, its gap found, and a question asked instead."""

from dataclasses import replace

import pytest
import torch
from tiny_caller import prompts, random_model, rows

from toolformer.calls import render
from toolformer.data.batches import collate_calls
from toolformer.data.masking import Rows, mask_rows
from toolformer.data.prompts import Prompts
from toolformer.inference.engine import Engine, Request
from toolformer.inference.grammar import Grammar
from toolformer.records import ToolCall
from toolformer.schemas import gaps
from toolformer.stages.tool_calling import ToolCalling


@pytest.fixture(scope="module")
def drafting() -> Prompts:
    return Prompts(prompts().tokenizer, drafts=True)


def lacking(count: int) -> Rows:
    return [(example, tools) for example, tools in rows() if example.stratum == "parameter_missing"][:count]


def test_the_built_in_rows_know_what_is_missing():
    found = lacking(100)
    assert len(found) > 3
    for example, tools in found:
        tool = next(tool for tool in tools if tool.name == example.draft.name)
        assert len(gaps(example.draft, tool)) == 1 and not example.calls and example.reply
    assert all(example.draft is None for example, _ in rows() if example.stratum != "parameter_missing")


def test_a_draft_is_masked_with_its_tool():
    import random

    for (example, tools), (masked, hidden) in zip(
        lacking(3), mask_rows(lacking(3), 1.0, random.Random(0)), strict=True
    ):
        place = [tool.name for tool in tools].index(example.draft.name)
        assert masked.draft.name == hidden[place].name != example.draft.name
        assert len(gaps(masked.draft, hidden[place])) == 1


def test_the_answer_is_the_draft_and_then_the_question(drafting: Prompts):
    ((example, tools),) = lacking(1)
    answer = drafting.answer(example)
    assert drafting.tokenizer.decode(answer[:-1]) == f"{render([example.draft])}\n{example.reply}"
    assert prompts().tokenizer.decode(prompts().answer(example)[:-1]) == example.reply
    (end,) = drafting.call_ends(example)
    assert answer[end] == drafting.call_close
    batch = collate_calls([(example, tools)], drafting)
    slot = 1 + [tool.name for tool in tools].index(example.draft.name)
    assert batch.call_targets.tolist() == [[slot, 0]]
    assert collate_calls([(example, tools)], prompts()).call_targets.tolist() == [[0]]


def test_only_a_required_value_may_be_lacking(drafting: Prompts):
    def allows(grammar: Grammar, matcher, text: str) -> bool:
        return matcher.validate_tokens(ids := drafting.ids(text)) == len(ids)

    size = len(drafting.tokenizer)
    strict, lenient = (Grammar(drafting.tokenizer, size, end=drafting.end, drafts=drafts) for drafts in (False, True))
    for example, tools in lacking(4):
        tool = next(tool for tool in tools if tool.name == example.draft.name)
        text = render([example.draft])
        assert allows(lenient, lenient.call(tool, first=True), text)
        assert allows(lenient, lenient.choice(tools), f"{text}\n{example.reply}")
        assert not allows(strict, strict.call(tool, first=True), text)
        assert not allows(strict, strict.choice(tools), text)
        optional = [key for key in tool.parameters["properties"] if key not in tool.parameters["required"]]
        for key in optional:
            said = {name: example.draft.arguments.get(name) for name in tool.parameters["properties"]}
            kept = {n: v for n, v in said.items() if n == key or n in tool.parameters["required"]}
            assert not allows(
                lenient, lenient.call(tool, first=True), render([ToolCall(tool.name, kept | {key: None})])
            )


@pytest.mark.parametrize("decoding", ["free", "constrained", "pointed"])
def test_a_model_that_drafts_asks_for_the_missing_value(decoding, learned):
    model, asked = learned
    engine = Engine(model, Prompts(prompts().tokenizer, drafts=True), max_new_tokens=120)
    requests = [Request(example.messages, tools, engine.encode(tools)) for example, tools in asked]
    for (example, tools), answer in zip(asked, engine.answer(requests, decoding), strict=True):
        assert answer.text == (render(example.calls) if example.calls else example.reply), answer.text
        tool = {tool.name: tool for tool in tools}
        assert answer.asked == ([] if example.draft is None else gaps(example.draft, tool[example.draft.name]))


@pytest.fixture(scope="module")
def learned():
    """A model that has learned two requests by heart, and the same two with a value left out."""
    whole = [(e, t) for e, t in rows() if len(e.calls) == 1 and len(e.messages) == 1][:2]
    asked = [
        (replace(e, tools=tuple(x.id for x in t[:3])), t[:3]) for e, t in (*whole, *lacking(2)) for t in [_near(e, t)]
    ]
    model = random_model(copy_head=True, drafts=True, pointer=True, hidden_size=64, initializer_range=0.06).train()
    drafting = Prompts(prompts().tokenizer, drafts=True)
    stage = ToolCalling(model, drafting, lr=1e-3, warmup_steps=0, contrast_weight=0.0, rebuild_weight=0.0)
    batch, optimizer = collate_calls(asked, drafting), torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss = stage.losses(batch, model.encode_tools(batch.tools.ids, batch.tools.mask))["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval(), asked


def _near(example, tools):
    """The tool that the answer is about first, then others."""
    name = (example.draft or example.calls[0]).name
    return sorted(tools, key=lambda tool: tool.name != name)
