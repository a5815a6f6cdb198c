"""In: rows of requests with their tools. Out: padded tensors; each distinct tool of a batch stands there once.

Letters: U distinct tools, S schema tokens, B requests, N tools per request, T tokens, P call starts. Masks and labels
come from lengths, never from token values.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from toolformer.data.masking import Rows
from toolformer.data.prompts import Prompts
from toolformer.records import Tool

ALL, NEAREST = -1, -2  # in ``CallBatch.focus``: every tool of the row; the one that the pointer finds nearest


class ToolBatch(NamedTuple):
    """Distinct tools: what the encoder reads, and what the decoder rebuilds."""

    ids: Tensor  # (U, S)
    mask: Tensor  # (U, S) bool
    rebuild_ids: Tensor  # (U, S')
    rebuild_mask: Tensor  # (U, S') bool
    rebuild_labels: Tensor  # (U, S'), -100 = not scored


class CallBatch(NamedTuple):
    """Requests over shared tools."""

    tools: ToolBatch
    tool_index: Tensor  # (B, N) into U, -1 = no tool there
    input_ids: Tensor  # (B, T) prompt and answer, right-padded
    attention_mask: Tensor  # (B, T) bool
    labels: Tensor  # (B, T), -100 outside the answer
    prompt_ids: Tensor  # (B, T') the prompts alone
    prompt_mask: Tensor  # (B, T') bool
    call_starts: Tensor  # (B, P) positions whose state decides on a call
    call_targets: Tensor  # (B, P) 0 = no (further) call, 1 + j = the row's j-th tool, -1 = padding
    focus: Tensor  # (B, T) whose gists alone are seen: j = the row's j-th tool, ALL, or NEAREST


def pad(sequences: Sequence[Sequence[int]], value: int = 0, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Ragged lists -> ``(B, T)`` long and its bool mask."""
    width = max((len(s) for s in sequences), default=0)
    out = torch.full((len(sequences), width), value, dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        span = slice(width - len(sequence), width) if left else slice(0, len(sequence))
        out[row, span] = torch.tensor(sequence, dtype=torch.long)
        mask[row, span] = True
    return out, mask


def collate_tools(tools: Sequence[Tool], prompts: Prompts) -> ToolBatch:
    """One row a tool, in their order."""
    schemas = [prompts.schema(tool) for tool in tools]
    ids, mask = pad(schemas)
    rebuilt = [[*prompts.rebuild, *schema, prompts.end] for schema in schemas]
    rebuild_ids, rebuild_mask = pad(rebuilt)
    skip = [-100] * len(prompts.rebuild)
    labels, _ = pad([[*skip, *r[len(skip) :]] for r in rebuilt], -100)
    return ToolBatch(ids, mask, rebuild_ids, rebuild_mask, labels)


def collate_calls(
    rows: Rows, prompts: Prompts, more_tools: Sequence[Tool] = (), unaided: Collection[int] = ()
) -> CallBatch:
    """One row a request; the tools of all requests, and ``more_tools``, are merged by id. Both are sorted by length.

    The rows whose places are in ``unaided`` are focused by the name that was written, not by the pointer's choice.
    """
    offered = [tool for _, row_tools in rows for tool in row_tools]
    distinct = {tool.id: tool for tool in [*offered, *more_tools]}.values()
    tools = sorted(distinct, key=lambda tool: len(prompts.schema(tool)))
    place = {tool.id: i for i, tool in enumerate(tools)}
    prompt_ids, sequences, labels, starts, targets, index, focus = [], [], [], [], [], [], []
    written = []
    for i, (example, row_tools) in enumerate(rows):
        answer = prompts.answer(example, row_tools)
        prompt = prompts.prompt(example.messages, room=len(answer))
        written.append((prompt, answer, example, row_tools, i not in unaided))
    for prompt, answer, example, row_tools, aided in sorted(written, key=lambda row: len(row[0]) + len(row[1])):
        slot = {tool.name: 1 + j for j, tool in enumerate(row_tools)}
        calls, ends = prompts.written(example, row_tools), prompts.call_ends(example, row_tools)
        prompt_ids.append(prompt)
        sequences.append([*prompt, *answer])
        labels.append([-100] * len(prompt) + answer)
        starts.append([len(prompt) - 1, *(len(prompt) + end for end in ends)])
        targets.append([*(slot[call.name] for call in calls), 0])
        begins = [start + 1 for start in starts[-1]]
        if not aided:
            begins = [len(prompt) + n for n in prompts.name_ends(example, row_tools)]
        seen = [ALL] * len(sequences[-1])
        if aided:
            read = len(prompt) if calls else len(seen)
            seen[:read] = [NEAREST] * read
        for target, begin, end in zip(targets[-1], begins, starts[-1][1:], strict=False):
            seen[begin:end] = [target - 1] * (end - begin)
        focus.append(seen)
        index.append([place[tool.id] for tool in row_tools])
    input_ids, attention_mask = pad(sequences)
    prompt_tensor, prompt_mask = pad(prompt_ids)
    return CallBatch(
        collate_tools(tools, prompts),
        pad(index, -1)[0],
        input_ids,
        attention_mask,
        pad(labels, -100)[0],
        prompt_tensor,
        prompt_mask,
        pad(starts)[0],
        pad(targets, -1)[0],
        pad(focus, ALL)[0],
    )
