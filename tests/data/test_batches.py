"""In: rows. Out: whether every number of a batch stands where the decoder will look for it, whatever lies around it."""

from __future__ import annotations

import random

import torch
from data.tiny_rows import ALARMS, PIZZA, TOOLS, TRAIN, WEATHER, prompts, row, rows

from toolformer.calls import render
from toolformer.data.batches import ALL, NEAREST, CallBatch, collate_calls, collate_tools, pad
from toolformer.data.masking import Rows
from toolformer.records import Example, Tool, ToolCall


def told(ids: torch.Tensor, mask: torch.Tensor) -> str:
    return prompts().tokenizer.decode(ids[mask].tolist(), skip_special_tokens=False)


def by_length(these: Rows) -> list[tuple[Example, list[Tool]]]:
    of = prompts()
    return sorted(these, key=lambda r: len(of.prompt(r[0].messages)) + len(of.answer(r[0])))


def test_padding_comes_from_lengths():
    ids, mask = pad([[5, 0], [], [7, 8, 9]], 4)
    assert ids.tolist() == [[5, 0, 4], [4, 4, 4], [7, 8, 9]] and mask.sum(-1).tolist() == [2, 0, 3]
    left, left_mask = pad([[5, 0], [], [7, 8, 9]], 4, left=True)
    assert left.tolist() == [[4, 5, 0], [4, 4, 4], [7, 8, 9]] and left_mask[0].tolist() == [False, True, True]
    assert pad([])[0].shape == (0, 0) and pad([[], []])[1].shape == (2, 0)
    assert ids.dtype == torch.long and mask.dtype == torch.bool


def test_prompts_answers_and_labels():
    of, batch = prompts(), collate_calls(rows(), prompts())
    for i, (example, _) in enumerate(by_length(rows())):
        prompt, answer = of.prompt(example.messages), of.answer(example)
        assert batch.input_ids[i][batch.attention_mask[i]].tolist() == prompt + answer
        assert batch.prompt_ids[i][batch.prompt_mask[i]].tolist() == prompt
        supervised = batch.labels[i] != -100
        assert batch.labels[i][supervised].tolist() == answer
        assert supervised.nonzero().flatten().tolist() == list(range(len(prompt), len(prompt) + len(answer)))
        assert torch.equal(batch.input_ids[i][supervised], batch.labels[i][supervised])


def test_states_that_decide_and_what_they_should_decide():
    batch, of = collate_calls(rows(), prompts()), prompts()
    for i, (example, tools) in enumerate(by_length(rows())):
        decided = batch.call_targets[i] >= 0
        targets, starts = batch.call_targets[i][decided].tolist(), batch.call_starts[i][decided].tolist()
        assert len(targets) == len(example.calls) + 1 and targets[-1] == 0
        assert [tools[t - 1].name for t in targets[:-1]] == [call.name for call in example.calls]
        for n, start in enumerate(starts):
            seen = of.tokenizer.decode(batch.input_ids[i, : start + 1].tolist(), skip_special_tokens=False)
            assert seen == of.tokenizer.decode(of.prompt(example.messages)) + render(example.calls[:n])
        assert (batch.call_targets[i][~decided] == -1).all()


def test_each_distinct_tool_once_by_id():
    twin = Tool(WEATHER.name, "Another tool of the same name.", WEATHER.parameters)
    these = [*rows(), row("twin", ["hi"], [ToolCall("get_weather", {"city": "Bern"})], "", twin, ALARMS)]
    batch = collate_calls(these, prompts(), more_tools=[TRAIN, Tool("extra", "More.", {"type": "object"})])
    texts = [told(ids, mask) for ids, mask in zip(batch.tools.ids, batch.tools.mask, strict=True)]
    assert sorted(texts) == sorted({t.text for _, tools in these for t in tools} | {texts[0], texts[0]})
    assert len(texts) == len(TOOLS) + 2 and texts[0].startswith('{"name": "extra"')
    for i, (_, tools) in enumerate(by_length(these)):
        index = batch.tool_index[i]
        assert [texts[j] for j in index[index >= 0]] == [tool.text for tool in tools]
        assert (index[len(tools) :] == -1).all()


def test_schemas_to_rebuild():
    of, tools = prompts(), collate_tools(TOOLS, prompts())
    for i, tool in enumerate(TOOLS):
        assert told(tools.ids[i], tools.mask[i]) == tool.text
        assert told(tools.rebuild_ids[i], tools.rebuild_mask[i]) == f"<|im_start|>tool\n{tool.text}<|im_end|>"
        scored = tools.rebuild_labels[i] != -100
        assert tools.rebuild_labels[i][scored].tolist() == [*of.schema(tool), of.end]
        assert scored.nonzero()[0].item() == len(of.rebuild)


def test_order_and_neighbours_change_nothing():
    """A row gives the same numbers alone and in any company, but for padding and the places of its tools."""
    for seed in range(4):
        these = rows()
        random.Random(seed).shuffle(these)
        together = collate_calls(these, prompts())
        for i, one in enumerate(by_length(these)):
            alone = collate_calls([one], prompts())
            for field in ("input_ids", "prompt_ids"):
                mask = "attention_mask" if field == "input_ids" else "prompt_mask"
                width = getattr(alone, mask).shape[1]
                assert torch.equal(getattr(together, field)[i, :width], getattr(alone, field)[0])
                assert not getattr(together, mask)[i, width:].any()
            assert torch.equal(together.labels[i][together.labels[i] != -100], alone.labels[0][alone.labels[0] != -100])
            places = alone.call_targets.shape[1]
            assert torch.equal(together.call_targets[i, :places], alone.call_targets[0])
            assert torch.equal(together.call_starts[i, :places], alone.call_starts[0])
            assert (together.call_targets[i, places:] == -1).all()


def lengths(batch: CallBatch) -> tuple[list[int], list[int]]:
    return batch.tools.mask.sum(-1).tolist(), batch.attention_mask.sum(-1).tolist()


def test_rows_and_tools_are_sorted_by_length():
    for found in lengths(collate_calls(rows(), prompts())):
        assert found == sorted(found)


def test_tools_alone():
    batch = collate_calls([], prompts(), [PIZZA, TRAIN, PIZZA])
    assert len(batch.tools.ids) == 2 and batch.input_ids.shape == batch.prompt_ids.shape == (0, 0)
    assert batch.tool_index.shape[0] == batch.call_targets.shape[0] == 0


def test_rows_without_any_tool():
    batch = collate_calls([row("bare", ["hello there"], [], "Hello!"), rows()[0]], prompts())
    assert (batch.tool_index == -1).all(-1).tolist().count(True) == 1
    only = collate_calls([row("bare", ["hello there"], [], "Hello!")], prompts())
    assert only.tool_index.shape == (1, 0) and only.tools.ids.shape[0] == 0 and only.call_targets.tolist() == [[0]]


def test_a_call_that_is_text_in_an_argument_is_no_call():
    odd = ToolCall("get_weather", {"city": "a </tool_call> b"})
    batch = collate_calls([row("odd", ["go"], [odd], "", *TOOLS), rows()[2]], prompts())
    assert batch.call_starts.shape == batch.call_targets.shape
    i = batch.call_targets.tolist().index([2, 0, -1])
    assert batch.input_ids[i, batch.call_starts[i, 1]] == prompts().call_close
    assert (batch.labels[i, batch.call_starts[i, 1] + 1 :] >= 0).sum() == 1, "only the end mark follows"


def test_where_each_position_looks():
    """The prompt at the nearest tool, each call at its own, each decision at all; unaided, a call from its name on."""
    of = prompts()
    for unaided in (False, True):
        batch = collate_calls(rows(), of, unaided=range(len(rows())) if unaided else ())
        for i, (example, tools) in enumerate(by_length(rows())):
            prompt, answer = of.prompt(example.messages), of.answer(example)
            looks = batch.focus[i][: len(prompt) + len(answer)].tolist()
            assert set(looks[: len(prompt)]) == {ALL if unaided else NEAREST}
            assert (batch.focus[i][len(looks) :] == ALL).all()
            if not example.calls:
                assert set(looks[len(prompt) :]) == {ALL if unaided else NEAREST}
                continue
            at = len(prompt)
            for call in example.calls:
                close = answer.index(of.call_close, at - len(prompt)) + len(prompt)
                views, slot = looks[at:close], [tool.name for tool in tools].index(call.name)
                begin = views.index(slot)
                before = of.tokenizer.decode(answer[at - len(prompt) : at - len(prompt) + begin])
                assert views == [ALL] * begin + [slot] * (len(views) - begin) and looks[close] == ALL
                assert before.strip() == (f'<tool_call>\n{{"name": "{call.name}' if unaided else "")
                at = close + 1
