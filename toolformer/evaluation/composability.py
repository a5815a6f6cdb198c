"""In: rows of unseen tools. Out: whether gists can be reordered, added by the hundred, and replaced one by one.

Nothing here is easier than what it claims: the needed tool is also left out, distractors come from the same split, and
the swapped schema goes through a real store.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch

from toolformer.calls import Malformed, parse
from toolformer.data.masking import Rows, identifier
from toolformer.evaluation.cases import Case, Gists, distinct_tools, varied, without_gold
from toolformer.evaluation.scoring import Measured, judged, rate
from toolformer.inference.engine import Answer, Decoding, Engine, Request
from toolformer.inference.gist_store import GistStore, gist_fingerprint
from toolformer.metrics import summary
from toolformer.records import Example, Tool

KEPT = ("tsa", "em", "fpr", "chance", "mfr", "fnr")  # of a summary, per number of tools
Progress = Callable[[int], Any]


def composability(
    engine: Engine, rows: Rows, gists: Gists, *, tools: Sequence[int], seed: int, progress: Progress
) -> dict[str, Any]:
    """All three on the same rows, plain names but for the swap.

    Args:
        engine: decodes; pointed where the model has a pointer, else constrained.
        rows: with their tools.
        gists: of all tools of the split, which are the distractors.
        tools: how many to offer, e.g. 5 to 200; more than the split has is cut to what it has.
        seed: of orders, distractors and edits.
        progress: told how many more answers are done.
    """
    decoding: Decoding = "constrained" if engine.model.pointer is None else "pointed"
    return {
        "decoding": decoding,
        "order": order(engine, rows, gists, decoding, seed, progress),
        **scaling(engine, rows, gists, decoding, tools, seed, progress),
        "hot_swap": hot_swap(engine, rows, decoding, seed, progress),
    }


def order(
    engine: Engine, rows: Rows, gists: Gists, decoding: Decoding, seed: int, progress: Progress
) -> dict[str, Any]:
    """How many answers change when the tools are permuted, and by how much the first decision's scores do."""
    permuted: Rows = []
    for example, tools in rows:
        other = list(tools)
        random.Random(f"permute:{seed}:{example.id}").shuffle(other)
        permuted.append((example, other if other != tools else other[::-1]))
    requests = [[gists.request(Case(e, tools, tools)) for e, tools in each] for each in (rows, permuted)]
    before, after = (engine.answer(each, decoding, progress) for each in requests)
    deltas = []
    for (logits, scores), (other_logits, other_scores), row, other in zip(
        *(engine.first(each, decoding) for each in requests), rows, permuted, strict=True
    ):
        deltas.append(float((logits - other_logits).abs().max()))
        if scores:
            place = {tool.id: 1 + i for i, tool in enumerate(other[1])}
            back = [other_scores[0], *(other_scores[place[tool.id]] for tool in row[1])]
            deltas.append(max(abs(a - b) for a, b in zip(scores, back, strict=True)))
    changed = sum(a.text != b.text for a, b in zip(before, after, strict=True))
    return {"rows": len(rows), "changed_decisions": changed, "max_logit_delta": max(deltas, default=0.0)}


def scaling(
    engine: Engine, rows: Rows, gists: Gists, decoding: Decoding, sizes: Sequence[int], seed: int, progress: Progress
) -> dict[str, Any]:
    """Few to many tools, the needed one always among them, and never.

    Each number of tools contains the tools of the smaller ones. Distractors are any other tools of the split with names
    of their own; ``catalog`` says how many there are for every row.
    """
    asking = [(example, tools) for example, tools in rows if example.calls]
    catalog = list({tool.name: tool for tool in gists.tools}.values())
    lines = [_line_up(example.id, _needed(example, tools), catalog, seed) for example, tools in asking]
    available = min((len(distractors) for _, distractors in lines), default=0)
    points = []
    for size in sorted({min(size, available) for size in sizes}) if available else []:
        present, absent = [], []
        for (example, _), (needed, distractors) in zip(asking, lines, strict=True):
            offered = [*needed, *distractors[: max(0, size - len(needed))]]
            random.Random(f"scaling:{seed}:{size}:{example.id}").shuffle(offered)
            present.append(Case(example, offered, offered))
            absent.append(without_gold(example, [*needed, *distractors[:size]]))
        point: dict[str, Any] = {"tools": size}
        written = iter(engine.answer([gists.request(case) for case in (*present, *absent)], decoding, progress))
        for name, cases in (("present", present), ("absent", absent)):
            answers = [next(written) for _ in cases]
            found = summary([judged(case, answer) for case, answer in zip(cases, answers, strict=True)], seed)
            point[name] = {key: found[key] for key in KEPT}
        points.append(point)
    return {"scaling": points, "catalog": available}


def _needed(example: Example, tools: Sequence[Tool]) -> list[Tool]:
    names = {call.name for call in example.calls}
    return [tool for tool in tools if tool.name in names]


def _line_up(id_: str, needed: list[Tool], catalog: Sequence[Tool], seed: int) -> tuple[list[Tool], list[Tool]]:
    """The needed tools, and all that can stand beside them in an order of this row's own."""
    names, texts = {tool.name for tool in needed}, {tool.description for tool in needed}
    others = [tool for tool in catalog if tool.name not in names and tool.description not in texts]
    random.Random(f"distractors:{seed}:{id_}").shuffle(others)
    return needed, others


def hot_swap(engine: Engine, rows: Rows, decoding: Decoding, seed: int, progress: Progress) -> dict[str, Any]:
    """Schemas are edited while their neighbours' gists stay as they are in a store on disk.

    ``follows_edit``: under masked names the needed tool and another one exchange what they do (description and
    parameters change under the same two names), both are encoded again, and the call must name the other one.
    ``stale`` is the same question with the gists from before the edit. ``renamed``: the needed tool gets a new name.
    """
    chosen, taken = [], set[str]()
    for example, tools in varied(rows, "masked", seed):
        ids = {tool.id for tool in tools}
        if swappable(example, tools) and taken.isdisjoint(ids):  # one store holds the tools of all rows
            chosen.append((example, tools))
            taken |= ids
    swaps = [_exchange(example.id, example.calls[0].name, tools, seed) for example, tools in chosen]
    renames = [_rename(example.id, example.calls[0].name, tools, seed) for example, tools in chosen]
    untouched, requests = True, {"exchanged": [], "stale": [], "renamed": []}
    with tempfile.TemporaryDirectory() as folder:
        store = GistStore(folder, gist_fingerprint(engine.model, engine.prompts))
        _add(store, engine, distinct_tools(chosen))
        before = {tool.id: store.get(tool) for tool in distinct_tools(chosen)}
        for edit, edits in (("exchanged", swaps), ("renamed", renames)):
            edited = [(old, new) for pairs in edits for old, new in pairs if old.id != new.id]
            fresh = engine.encode([new for _, new in edited])
            for (old, new), own in zip(edited, fresh, strict=True):
                store.replace(old, new, own)
            gone = {old.id for old, _ in edited}
            kept = [tool for tool in distinct_tools(chosen) if tool.id not in gone]
            untouched &= all(torch.equal(store.get(tool), before[tool.id]) for tool in kept)
            for (example, tools), pairs in zip(chosen, edits, strict=True):
                now = [new for _, new in pairs]
                requests[edit].append(Request(example.messages, now, torch.stack([store.get(tool) for tool in now])))
                if edit == "exchanged":
                    stale = torch.stack([before[tool.id] for tool in tools])
                    requests["stale"].append(Request(example.messages, now, stale))
            for old, new in edited:  # back, for the next edit
                store.replace(new, old, before[old.id])
    wanted = {
        "exchanged": [_new_name(e.calls[0].name, pairs) for (e, _), pairs in zip(chosen, swaps, strict=True)],
        "renamed": [_new_name(e.calls[0].name, pairs) for (e, _), pairs in zip(chosen, renames, strict=True)],
    }
    out: dict[str, Any] = {"rows": len(chosen), "other_gists_identical": untouched}
    for key, edit in (("follows_edit", "exchanged"), ("stale", "stale")):
        answers = engine.answer(requests[edit], decoding, progress)
        out[key] = _follows(answers, wanted["exchanged"])
    kinds: list[Decoding] = ["free", decoding]
    out["renamed"] = {
        kind: _follows(engine.answer(requests["renamed"], kind, progress), wanted["renamed"]) for kind in kinds
    }
    return out


def swappable(example: Example, tools: Sequence[Tool]) -> bool:
    """Whether one call is needed and another tool does something else."""
    return len(example.calls) == 1 and len({tool.description for tool in tools}) > 1


Edits = list[tuple[Tool, Tool]]


def _exchange(id_: str, name: str, tools: Sequence[Tool], seed: int) -> Edits:
    """Each tool of a row with what stands under its name after two of them exchanged what they do."""
    ours = next(tool for tool in tools if tool.name == name)
    rng = random.Random(f"exchange:{seed}:{id_}")
    theirs = rng.choice([tool for tool in tools if tool.description != ours.description])
    new = {
        ours.id: Tool(ours.name, theirs.description, theirs.parameters),
        theirs.id: Tool(theirs.name, ours.description, ours.parameters),
    }
    return [(tool, new.get(tool.id, tool)) for tool in tools]


def _rename(id_: str, name: str, tools: Sequence[Tool], seed: int) -> Edits:
    """Each tool of a row with what stands in its place after the needed one got a new name."""
    fresh = identifier(random.Random(f"rename:{seed}:{id_}"), {tool.name for tool in tools})
    return [(tool, Tool(fresh, tool.description, tool.parameters) if tool.name == name else tool) for tool in tools]


def _new_name(name: str, pairs: Edits) -> str:
    """Under which name the tool that was called ``name`` is found after the edit."""
    old = next(tool for tool, _ in pairs if tool.name == name)
    job = (old.description, old.parameters)
    return next(new.name for _, new in pairs if (new.description, new.parameters) == job)


def _add(store: GistStore, engine: Engine, tools: Sequence[Tool]) -> None:
    for tool, own in zip(tools, engine.encode(tools), strict=True):
        store.add(tool, own)


def _follows(answers: Sequence[Answer], wanted: Sequence[str]) -> Measured:
    """How many answers call exactly the wanted name."""
    return rate(sum(_names(answer.text) == [name] for answer, name in zip(answers, wanted, strict=True)), len(wanted))


def _names(text: str) -> list[str] | None:
    calls = parse(text)
    return None if isinstance(calls, Malformed) else [call.name for call in calls]


def answers_needed(rows: Rows, sizes: Sequence[int]) -> int:
    """How many answers order, scaling and hot swap ask for together, at most."""
    asking = sum(bool(example.calls) for example, _ in rows)
    return 2 * len(rows) + 2 * asking * len(set(sizes)) + 4 * sum(swappable(*row) for row in rows)
