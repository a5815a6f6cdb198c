"""In: a source's folder and the rules of splitting. Out: a corpus folder whose splits share no request and no tool.

Rules for the Schema-Guided Dialogues; ``corpus.json`` keeps what was decided and what was set aside.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from toolformer.data.audit import leaks, refuse
from toolformer.data.corpus import Corpus, Kin, request, reword, write_corpus
from toolformer.data.corpus_rows import CorpusRows
from toolformer.data.near import grams, near
from toolformer.data.negatives import Negatives
from toolformer.data.offers import without_tool
from toolformer.data.rules import check_shares
from toolformer.data.sources import sgd
from toolformer.data.steps import alone
from toolformer.records import Example

BUILD = 2  # part of a corpus folder's name: raise it when the same data and rules give other rows
# A row too much like one of an earlier split here is dropped from the later: tests are kept whole first.
ORDER = ("test_unseen", "test_held_out", "test_seen", "validation", "train")
STRATA = ("small_talk", "near_miss", "parameter_missing")


@dataclass(frozen=True)
class Rules:
    """How rows become splits.

    ``carry`` is how many exchanges a conversation may start early so that a value said there is in it.
    ``held_back`` of the training dialogues, and all dev and test dialogues of trained services, are shared out: of dev,
    ``dev_validation`` goes to validation and ``dev_test`` to the tests, the rest to training. A test row whose flow of
    acts never occurs in training is held out, another one is seen. Services of the upstream test split that its
    training split lacks are unseen; ``validation_services`` are kept for validation alone. ``near`` is the Jaccard
    index (5-token sequences) from which two requests or two schemas count as the same. ``test_wording`` is the wording
    of the tests' tools: 0, or 1 to 5 of SGD-X.
    """

    carry: int = 2
    tools_per_request: int = 8
    hard_tools: int = 3
    held_back: float = 0.06
    dev_validation: float = 0.3
    dev_test: float = 0.3
    validation_services: tuple[str, ...] = ("Banks_2", "Media_2")
    no_call_share: float = 0.2
    test_no_call_share: float = 0.25
    tool_missing_share: float = 0.06
    test_wording: int = 0
    near: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "validation_services", tuple(self.validation_services))
        check_shares(self, ("held_back", "dev_validation", "dev_test", "no_call_share", "test_no_call_share", "near"))
        if not self.tool_missing_share <= self.no_call_share:
            raise ValueError(
                f"tool_missing_share is {self.tool_missing_share}; it is a part of no_call_share "
                f"({self.no_call_share}), so it must not exceed it"
            )
        if not 0 <= self.hard_tools < self.tools_per_request <= 20:
            raise ValueError(
                f"hard_tools is {self.hard_tools} of tools_per_request {self.tools_per_request}; "
                "it must be smaller, and there must be at most 20 tools"
            )
        if self.dev_validation + self.dev_test > 1:
            raise ValueError(f"dev_validation + dev_test is {self.dev_validation + self.dev_test}; at most 1")


@dataclass(frozen=True)
class Dialogues:
    """The corpus of the dialogues in ``root``; ``build`` prepares it on the first call and then finds it again."""

    root: str | Path
    corpora: str | Path
    rules: Rules
    progress: bool = True

    def missing(self) -> list[str]:
        """The one source, where its rows are not there."""
        try:
            sgd.find_root(self.root)
        except FileNotFoundError:
            return [sgd.NAME]
        return []

    def build(self, until: str = "write") -> Corpus:
        """The corpus; it is made in one step."""
        if until != "write":
            raise ValueError(f"until is {until}; the corpus of SGD alone is made in one step, write")
        folder = corpus_folder(self.root, self.corpora, self.rules)
        if folder.is_dir():
            return Corpus.open(folder)
        with alone(Path(self.corpora)):
            return Corpus.open(folder) if folder.is_dir() else prepare(self.root, folder, self.rules, self.progress)


def rows(
    root: str | Path, corpora: str | Path, rules: Rules | None = None, *, seed: int = 0, progress: bool = True
) -> CorpusRows:
    """The dialogues as training rows and frozen splits.

    ``seed`` orders the batches only: runs with other seeds are tested on the same rows.
    """
    rules = rules or Rules()
    corpus = Dialogues(root, corpora, rules, progress).build()
    return CorpusRows(corpus, "train", seed, tool_missing_share=rules.tool_missing_share)


def corpus_folder(root: str | Path, corpora: str | Path, rules: Rules) -> Path:
    """``corpora``/sgd-<hash of all files and rules>."""
    folder = sgd.find_root(root)
    digest = hashlib.sha256(json.dumps([BUILD, asdict(rules)], sort_keys=True).encode())
    for path in sorted([*folder.glob("*/*.json*"), *folder.glob("sgd_x/data/*/*/schema.json")]):
        digest.update(str(path.relative_to(folder)).encode() + hashlib.sha256(path.read_bytes()).digest())
    return Path(corpora) / f"{sgd.NAME}-{digest.hexdigest()[:10]}"


def prepare(root: str | Path, folder: str | Path, rules: Rules, progress: bool = True) -> Corpus:
    """Read, split, sample, audit and write; the same rules on the same data give the same corpus.

    Raises:
        ValueError: two splits share a request or a schema.
    """
    from tqdm import tqdm

    tools = sgd.load_tools(root)
    if rules.test_wording not in {t.wording for t in tools}:
        raise ValueError(f"test_wording is {rules.test_wording}; {root} has {sgd.wordings(root)}")
    trained, unseen = _services(root, rules)
    by_id = {t.tool.id: t for t in tools}
    set_aside: Counter[str] = Counter()
    examples: list[Example] = []
    gc.disable()  # a third of the time went into looking for cycles among the parsed dialogues, which have none
    try:
        for upstream in sgd.SPLITS:
            bar = partial(tqdm, desc=f"sgd {upstream}", unit="file", disable=not progress)
            examples += sgd.read(root, upstream, carry=rules.carry, set_aside=set_aside, progress=bar)
    finally:
        gc.enable()
    with tqdm(total=4, desc="sgd splits", unit="step", disable=not progress) as bar:
        splits = _assign(examples, by_id, trained, unseen, rules, set_aside)
        bar.update()
        splits = _taught(_distinct(splits, rules.near, set_aside), set_aside)
        bar.update()
        splits = {name: _sample(name, splits[name], rules, set_aside) for name in reversed(ORDER)}
        offers = _Offers(tools, trained, unseen, rules)
        for name in ORDER[:-1]:
            splits[name] = [offers.add(example, name) for example in splits[name]]
        audit = _audit(splits, tools, trained, rules.near)
        bar.update()
        meta = {
            "sources": [{"name": sgd.NAME, "licence": sgd.LICENCE, "url": sgd.URL}],
            "rules": asdict(rules),
            "services": {"trained": sorted(trained), "unseen": sorted(unseen), "validation": rules.validation_services},
            "strata": {name: dict(Counter(row.stratum or "call" for row in found)) for name, found in splits.items()},
            "set_aside": {reason: count for reason, count in sorted(set_aside.items()) if count},
            "audit": audit,
        }
        kin = {t.tool.id: Kin(t.family, t.function, t.wording) for t in tools}
        corpus = write_corpus(folder, [t.tool for t in tools], splits, meta, kin)
        bar.update()
    return corpus


def _services(root: str | Path, rules: Rules) -> tuple[set[str], set[str]]:
    """Services trained on, and services that are only in the upstream test split."""
    at = {
        split: {s["service_name"] for s in sgd.read_json(sgd.find_root(root) / split / "schema.json")}
        for split in sgd.SPLITS
    }
    unseen = at["test"] - at["train"]
    choices = at["dev"] - at["train"] - unseen
    wrong = set(rules.validation_services) - choices
    if wrong:
        raise ValueError(f"validation_services has {min(wrong)}; choose among {', '.join(sorted(choices))}")
    return (at["train"] | at["dev"]) - unseen - set(rules.validation_services), unseen


def _share(example: Example, seed: int) -> float:
    """A number in [0, 1) that depends on the dialogue alone, so that a dialogue of dev or train is in one split."""
    dialogue = example.id.rsplit("/", 1)[0]
    return int(hashlib.sha256(f"{seed}/{dialogue}".encode()).hexdigest()[:12], 16) / 16**12


def _assign(
    examples: Sequence[Example],
    by_id: Mapping[str, sgd.SourceTool],
    trained: set[str],
    unseen: set[str],
    rules: Rules,
    set_aside: Counter[str],
) -> dict[str, list[Example]]:
    """Rows by split; test rows of trained services are told apart by whether training has their flow of acts."""
    splits: dict[str, list[Example]] = {name: [] for name in ORDER}
    pool: list[Example] = []
    tested = {"train": rules.held_back, "dev": rules.dev_validation + rules.dev_test, "test": 1.0}
    for example in examples:
        service, upstream = by_id[example.tools[0]].service, example.id.split("/")[1]
        share = _share(example, rules.seed)
        if service in unseen:
            if upstream == "test":
                splits["test_unseen"].append(example)
            else:
                set_aside["unseen service outside of the test dialogues"] += 1
        elif service not in trained or (upstream == "dev" and share < rules.dev_validation):
            splits["validation"].append(example)
        elif share < tested[upstream]:
            pool.append(example)
        else:
            splits["train"].append(example)
    patterns = {example.pattern for example in splits["train"]}
    for example in pool:
        splits["test_seen" if example.pattern in patterns else "test_held_out"].append(example)
    return splits


def _distinct(
    splits: Mapping[str, Sequence[Example]], threshold: float, set_aside: Counter[str]
) -> dict[str, list[Example]]:
    """Each request once per split, and no request like one of a split that comes first in ``ORDER``."""
    kept: dict[str, list[Example]] = {}
    for name in ORDER:
        kept[name] = list({request(example).casefold(): example for example in splits[name]}.values())
        set_aside[f"{name}: request repeated"] += len(splits[name]) - len(kept[name])
    for i, name in enumerate(ORDER):
        for earlier in ORDER[:i]:
            left, right = (grams([request(example) for example in kept[split]]) for split in (earlier, name))
            drop = near(left, right, threshold)
            set_aside[f"{name}: request near one of {earlier}"] += int(drop.sum())
            kept[name] = [example for example, gone in zip(kept[name], drop, strict=True) if not gone]
    return kept


def _taught(splits: Mapping[str, list[Example]], set_aside: Counter[str]) -> dict[str, list[Example]]:
    """Tests of trained tools without the rows whose tool training never calls, as when only some files are there."""
    taught = {id_ for example in splits["train"] if example.calls for id_ in example.tools}
    kept = dict(splits)
    for name in ("test_held_out", "test_seen"):
        kept[name] = [example for example in splits[name] if set(example.tools) <= taught]
        set_aside[f"{name}: training never calls the tool"] += len(splits[name]) - len(kept[name])
    return kept


def _sample(name: str, examples: Sequence[Example], rules: Rules, set_aside: Counter[str]) -> list[Example]:
    """All calls and, in equal parts, as many rows without a call as the share asks for; shuffled.

    In training the tool-missing rows are made from call rows batch by batch; elsewhere a part of the calls is taken.
    """
    rng = np.random.default_rng([rules.seed, ORDER.index(name)])
    strata: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        strata[example.stratum].append(example)
    chosen = [strata[""][i] for i in rng.permutation(len(strata[""]))]
    if name == "train":
        each = round(len(chosen) * (rules.no_call_share - rules.tool_missing_share) / (1 - rules.no_call_share) / 3)
    else:
        each = round(len(chosen) * rules.test_no_call_share / (4 - 3 * rules.test_no_call_share))
        chosen[:each] = [replace(example, stratum="tool_missing") for example in chosen[:each]]
    for stratum in STRATA:
        order = rng.permutation(len(strata[stratum]))[:each]
        chosen += [strata[stratum][i] for i in order]
        set_aside[f"{name}: {stratum} not sampled"] += len(strata[stratum]) - len(order)
    return [chosen[i] for i in rng.permutation(len(chosen))]


class _Offers:
    """The tools on offer in evaluation rows, fixed once.

    Beside gold come the ``hard_tools`` nearest schemas of all services, then any: for unseen services from unseen ones,
    so that being unknown does not give gold away; else from known ones. No two tools of a row do the same work.
    """

    def __init__(self, tools: Sequence[sgd.SourceTool], trained: set[str], unseen: set[str], rules: Rules) -> None:
        self.tools, self.rules = tools, rules
        self.by_id = {t.tool.id: t for t in tools}
        self.at = {(t.family, t.wording): t for t in tools}
        self.negatives = Negatives([t.tool for t in tools])
        self.trained, self.unseen, self.validation = trained, unseen, trained | set(rules.validation_services)
        self.domains = {service.split("_")[0] for service in trained}

    def add(self, example: Example, split: str) -> Example:
        """The row with its tools, shuffled; a tool-missing row loses its calls, an unseen call gets its stratum."""
        seed = int(hashlib.sha256(f"{self.rules.seed}/{example.id}".encode()).hexdigest()[:12], 16)
        rng = np.random.default_rng(seed)
        base = self.by_id[example.tools[0]]
        gold = self.at[base.family, self.rules.test_wording if split.startswith("test") else 0]
        example = reword(example, (base.tool, gold.tool))
        if split == "test_unseen":
            near, far = self.trained | self.unseen, self.unseen
        else:
            near = far = self.validation if split == "validation" else self.trained
        offered, functions = [gold.tool.id], {gold.function}
        if example.stratum == "tool_missing":
            example, offered = without_tool(example, rng), []
        elif split == "test_unseen" and example.calls:
            same = gold.service.split("_")[0] in self.domains
            example = replace(example, stratum="same_domain" if same else "new_domain")
        free = [t for t in self.tools if t.wording == gold.wording and t.service in near]
        nearest = self.negatives.nearest(gold.tool.id, [t.tool.id for t in free], len(free))
        random = [free[i].tool.id for i in rng.permutation(len(free)) if free[i].service in far]
        hard = len(offered) + self.rules.hard_tools
        for wanted, ids in ((hard, nearest), (self.rules.tools_per_request, random)):
            for id_ in ids:
                if len(offered) < wanted and self.by_id[id_].function not in functions:
                    offered.append(id_)
                    functions.add(self.by_id[id_].function)
        return replace(example, tools=tuple(offered[i] for i in rng.permutation(len(offered))))


def _audit(
    splits: Mapping[str, Sequence[Example]], tools: Sequence[sgd.SourceTool], trained: set[str], threshold: float
) -> dict[str, Any]:
    """Counts of exact and near duplicates between splits; raises where there is one."""
    requests = {name: {example.id: request(example) for example in found} for name, found in splits.items()}
    found, counts = leaks("request", requests, threshold)
    refuse(found)
    catalog = {t.tool.id: t.tool for t in tools}
    names = {call.name for example in splits["test_unseen"] for call in example.calls}
    asked = {
        id_ for row in splits["test_unseen"] if row.calls for id_ in row.tools if catalog[id_].name == row.calls[0].name
    }
    taught = {t.tool.id: t.tool.text for t in tools if t.service in trained}
    schemas = {"train": taught, "test_unseen": {id_: catalog[id_].text for id_ in sorted(asked)}}
    found, schema_counts = leaks("schema", schemas, threshold)
    refuse(found)
    shared = names & {catalog[id_].name for id_ in taught}
    if shared:
        raise ValueError(f"corpus: tool name {min(shared)} is trained on and unseen; qualify it by its service")
    return {
        "near": threshold,
        "requests": counts,
        "schemas": schema_counts,
        "unseen_tools": len(asked),
        "shared_names": 0,
    }
