"""In: a number of kills and a seed. Out: what each one did to a gist store that several processes write and read.

Three processes write tools of their own, many or one at a time, replace, remove and reorder them; two read tools of all
of them. At a random moment, from the start of the processes on, some of them are killed, a writer always among them,
while the others go on; every other time it is all writers at once, while one of them is writing to the disk. A writer
notes in a file of its own what it is about to do, and that it is done.

Gists follow from the tool's id, so that whoever reads knows what is right.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.resilience.runs import SERVER, wait
from toolformer.inference.gist_store import FILE, GistStore
from toolformer.records import Tool

WRITERS, READERS = 3, 2
MINE = "5" * 16  # a fingerprint
SHAPE = (8, 896)  # of gists, in bf16, as of the full model
SECONDS, AFTER = 1.0, 0.2  # a kill comes within; the others go on for
WRITE = 0.02  # about as long as a write takes
MOST = 600  # tools of a writer


def tool(writer: int, number: int) -> Tool:
    """A tool with a schema of some 700 bytes, as real ones have."""
    properties = {f"value_{i}": {"type": "string", "description": f"What to take as value {i}."} for i in range(9)}
    return Tool(f"tool_{writer}_{number}", "Does something.", {"type": "object", "properties": properties})


def gists_of(tool: Tool) -> Tensor:
    """Always the same for the same tool."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(int(tool.id[:15], 16))).bfloat16()


def kills(count: int, seed: int, scratch: Path, *, seconds: float = SECONDS) -> list[dict[str, Any]]:
    """A row a kill. Every fourth one has a new folder, so that its making is hit too; the others go on with theirs."""
    rng, rows = random.Random(seed), []
    for number in range(count):
        folder = scratch / f"store-{number // 4}"
        rows.append(kill(folder, rng, seconds, writing=number % 2 == 1))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def kill(folder: Path, rng: random.Random, seconds: float, *, writing: bool) -> dict[str, Any]:
    """One kill: who was hit, what they were about to do, and what the store holds afterwards."""
    journal = folder / f"{FILE}-journal"  # SQLite's, there from the first changed page to the commit
    stop = folder.with_suffix(".stop")
    stop.unlink(missing_ok=True)
    targets = [(write, i) for i in range(WRITERS)] + [(read, i) for i in range(READERS)]
    processes = [SERVER.Process(target=run, args=(folder, i, rng.random(), stop)) for run, i in targets]
    for process in processes:
        process.start()
    victims = {rng.randrange(WRITERS), *(i for i in range(len(processes)) if rng.random() < 0.25)}
    moment = rng.random() * seconds
    time.sleep(moment)
    if writing:
        victims |= set(range(WRITERS))
        while not journal.exists():
            time.sleep(0.0005)
        time.sleep(rng.random() * WRITE)
    for i in victims:
        _kill(processes[i])
    half = journal.exists() if writing else None
    time.sleep(AFTER)
    stop.touch()
    exits = [wait(process, 120) for process in processes]
    wrong_exits = sum(code != (-signal.SIGKILL if i in victims else 0) for i, code in enumerate(exits))
    found = Counter({"failed_processes": wrong_exits})
    store = GistStore(folder, MINE)
    for i in range(WRITERS):
        found += check(store, folder, i)
    for i in range(READERS):
        found += Counter(json.loads(_notes(folder, "reader", i).read_text()) if i + WRITERS not in victims else {})
    store.close()
    keys = ("lost", "wrong", "back", "torn", "refused", "failed_processes", "stored", "served")
    return {
        "second": round(moment, 3),
        "left_half_written": half,
        "killed": {"writers": sum(i < WRITERS for i in victims), "readers": sum(i >= WRITERS for i in victims)},
        "in_a_change": found["done"] + found["undone"],
        **{key: found[key] for key in ("done", "undone", *keys)},
    }


def _kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)


def _notes(folder: Path, what: str, number: int) -> Path:
    return folder.with_name(f"{folder.name}-{what}-{number}.jsonl")


# --- what the processes do --------------------------------------------------------------------------------------------


def write(folder: Path, number: int, seed: float, stop: Path) -> None:
    """Changes its own tools until it is stopped, and notes each change before and after."""
    torch.set_num_threads(1)
    rng, path = random.Random(seed), _notes(folder, "writer", number)
    there, pending, last = replayed(path)
    store = GistStore(folder, MINE)
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # written at once: a kill loses nothing
    if pending:  # a kill came then; check() has seen that it is done or undone
        there = {i for i in there | set(pending["add"]) if tool(number, i) in store}
        _note(notes, {"there": sorted(there)})
    while not stop.exists():
        kind = rng.choice(("add", "replace", "remove", "reorder")) if there else "add"
        kind = "remove" if len(there) >= MOST else kind
        gone = [rng.choice(sorted(there))] if kind in ("replace", "remove") else []
        add = {"add": rng.choice((1, 1, 20, 200)), "replace": 1}.get(kind, 0)
        add = list(range(last, last + add))
        last += len(add)
        _note(notes, {"add": add, "gone": gone})
        if kind == "add":
            store.add_many([tool(number, i) for i in add], [gists_of(tool(number, i)) for i in add])
        elif kind == "replace":
            store.replace(tool(number, gone[0]), tool(number, add[0]), gists_of(tool(number, add[0])))
        elif kind == "reorder":
            store.reorder([tool(number, min(there))])
        else:
            store.remove(tool(number, gone[0]))
        _note(notes, {"done": True})
        there = there - set(gone) | set(add)


def _note(file: int, row: dict[str, Any]) -> None:
    os.write(file, (json.dumps(row) + "\n").encode())


def read(folder: Path, number: int, seed: float, stop: Path) -> None:
    """Asks for tools of all writers, some of them there, until it is stopped; counts what it is served."""
    torch.set_num_threads(1)
    rng, found = random.Random(seed), Counter()
    store = GistStore(folder, MINE)
    while not stop.exists():
        asked = [tool(rng.randrange(WRITERS), rng.randrange(rng.choice((50, 300, 2000)))) for _ in range(20)]
        try:
            served = store.find(asked)
        except ValueError:
            found["refused"] += 1
            continue
        found["served"] += len(served)
        found["wrong"] += sum(not torch.equal(served[t.id], gists_of(t)) for t in asked if t.id in served)
    _notes(folder, "reader", number).write_text(json.dumps(found))


# --- what is right ----------------------------------------------------------------------------------------------------


def replayed(path: Path) -> tuple[set[int], dict[str, list[int]] | None, int]:
    """Of a writer's notes: the tools that are stored for sure, the change that it may have made, the next number."""
    there: set[int] = set()
    pending, last = None, 0
    for row in _rows(path):
        if "there" in row:
            there, pending = set(row["there"]), None
        elif "done" in row:
            assert pending is not None
            there, pending = there - set(pending["gone"]) | set(pending["add"]), None
        else:
            pending, last = row, max([last, *(i + 1 for i in row["add"])])
    return there, pending, last


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    yield from map(json.loads, path.read_text().splitlines() if path.exists() else [])


def check(store: GistStore, folder: Path, writer: int) -> Counter[str]:
    """Every tool that a writer ever named: lost, back after its removal, half of a change, or wrong."""
    there, pending, last = replayed(_notes(folder, "writer", writer))
    tools = [tool(writer, i) for i in range(last)]
    found: Counter[str] = Counter()
    stored = {i for i, each in enumerate(tools) if each in store}
    for i in stored:
        try:
            found["wrong"] += not torch.equal(store.get(tools[i]), gists_of(tools[i]))
        except ValueError:
            found["refused"] += 1
    add, gone = (set(pending["add"]), set(pending["gone"])) if pending else (set(), set())
    found["lost"] = len(there - gone - stored)
    found["back"] = len(stored - there - add)
    if add | gone:
        done, undone = add <= stored and not gone & stored, not add & stored and gone <= stored
        found["done" if done else "undone" if undone else "torn"] += 1
    found["stored"] = len(stored)
    return found
