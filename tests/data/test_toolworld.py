"""In: the built-in data. Out: whether its rows are well-formed, reproducible, unambiguous and free of leaks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path

import jsonschema
import pytest
from data.sparse_product import alike, shingles
from jsonschema.protocols import Validator

from toolformer.data.toolworld import ToolWorld
from toolformer.data.toolworld.lexicon import HELD_OUT, MORE, NEW, SEEN, TEST, TRAIN, VALIDATION, bare, cut_noun, fill
from toolformer.data.toolworld.slots import in_words, ordinal
from toolformer.data.toolworld.wording import words_of
from toolformer.data.toolworld.world import FOLDER, SPLITS, STRATA, Rows
from toolformer.records import Example, Tool, example_to_json

SHAPE = {"batch_size": 200, "pool_size": 128, "tools_per_request": 8}


def told(example: Example) -> str:
    return "\n".join(message.content for message in example.messages)


def digest(rows: Rows) -> str:
    plain = [[example_to_json(example), [tool.text for tool in tools]] for example, tools in rows]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


@pytest.fixture(scope="module")
def world() -> ToolWorld:
    return ToolWorld()


@pytest.fixture(scope="module")
def stream(world: ToolWorld) -> Rows:
    """20,000 training rows."""
    return [row for step in range(100) for row in world.batch(step, **SHAPE)]


@pytest.fixture(scope="module")
def splits(world: ToolWorld) -> dict[str, tuple[list[Tool], list[Example]]]:
    return {name: world.split(name) for name in SPLITS}


@pytest.fixture(scope="module")
def pairs() -> Rows:
    """1,200 training rows, all of them in pairs."""
    world = ToolWorld(seed=1, pair_share=1.0)
    return [row for step in range(6) for row in world.batch(step, **SHAPE)]


@pytest.fixture(scope="module")
def everything(stream: Rows, pairs: Rows, splits: dict[str, tuple[list[Tool], list[Example]]]) -> Rows:
    """Training and frozen rows, each with its tools."""
    rows = [*stream, *pairs]
    for tools, examples in splits.values():
        catalog = {tool.id: tool for tool in tools}
        rows += [(example, [catalog[id_] for id_ in example.tools]) for example in examples]
    return rows


def test_the_lexicon_is_as_wide_as_promised(world: ToolWorld) -> None:
    families = [family for part in world.lexicon.families.values() for family in part]
    assert len({family.domain for family in families}) >= 25
    assert len(families) >= 400
    assert len({family.domain for family in families if family.reserved}) >= 4
    kinds = {p.schema["type"] for family in families for p in family.parameters}
    assert kinds == {"string", "integer", "number", "boolean", "array", "object"}
    assert any("enum" in p.schema for family in families for p in family.parameters)
    assert any("default" in p.schema for family in families for p in family.parameters)


def test_rows_are_well_formed(everything: Rows) -> None:
    validators: dict[str, Validator] = {}
    for example, tools in everything[::3]:
        assert example.tools == tuple(tool.id for tool in tools)
        by_name = {tool.name: tool for tool in tools}
        assert len(by_name) == len(tools) == 8
        assert example.messages[-1].role == "user" and example.source == "toolworld" and example.pattern
        assert bool(example.calls) == (not example.reply) == (example.stratum not in STRATA)
        assert len(example.reply.split()) <= 12
        for call in example.calls:
            tool = by_name[call.name]
            keys = list(tool.parameters["properties"])
            assert list(call.arguments) == sorted(call.arguments, key=keys.index)
            if tool.id not in validators:
                if len(validators) < 200:
                    jsonschema.Draft202012Validator.check_schema(tool.parameters)
                validators[tool.id] = jsonschema.Draft202012Validator(tool.parameters)
            validators[tool.id].validate(call.arguments)


def test_ids_are_unique(everything: Rows) -> None:
    assert len({example.id for example, _ in everything}) == len(everything)


def test_names_and_numbers_are_copied_from_the_request(everything: Rows) -> None:
    free = normalised = 0
    for example, tools in everything:
        schemas = {tool.name: tool.parameters["properties"] for tool in tools}
        for call in example.calls:
            for key, value in call.arguments.items():
                schema = schemas[call.name][key]
                if "enum" in schema or any(hint in schema["description"] for hint in ("(YYYY", "(HH:MM)", "(ISO")):
                    continue
                leaves = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
                for leaf in leaves:
                    if isinstance(leaf, str) and key in ("city", "email", "person", "street", "artist", "product"):
                        assert leaf in told(example), (leaf, told(example))
                    free, normalised = free + 1, normalised + (str(leaf) not in told(example))
    assert 0.02 < normalised / free < 0.4


def test_a_batch_is_a_function_of_seed_and_step(world: ToolWorld) -> None:
    first = digest(world.batch(7, **SHAPE))
    world.batch(3, **SHAPE)
    assert digest(world.batch(7, **SHAPE)) == first == digest(ToolWorld().batch(7, **SHAPE))
    assert digest(ToolWorld(seed=1).batch(7, **SHAPE)) != first != digest(world.batch(8, **SHAPE))


def test_another_process_draws_the_same(world: ToolWorld) -> None:
    code = (
        "from tests.data.test_toolworld import SHAPE, digest; from toolformer.data.toolworld import ToolWorld\n"
        "w = ToolWorld(); t, e = w.split('test_unseen', 40)\n"
        "print(digest(w.batch(7, **SHAPE)), digest([(x, t) for x in e]), ' '.join(x.id for x in w.tools(2, 9)))"
    )
    root = Path(__file__).parents[2]
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{root}:{root / 'tests'}"},
            text=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    tools, examples = world.split("test_unseen", 40)
    ids = [tool.id for tool in world.tools(2, 9)]
    assert said[0] == said[1] == [digest(world.batch(7, **SHAPE)), digest([(e, tools) for e in examples]), *ids]


def test_splits_depend_on_no_seed_and_start_alike(splits: dict[str, tuple[list[Tool], list[Example]]]) -> None:
    other = ToolWorld(seed=5, pseudo_share=0.9, no_call_share=0.0)
    for name, (_, examples) in splits.items():
        assert other.split(name, 90)[1] == examples[:90]


def test_the_pool_is_shared_and_distinct(world: ToolWorld) -> None:
    rows = world.batch(0, batch_size=64, pool_size=32, tools_per_request=8)
    assert len({tool.id for _, tools in rows for tool in tools}) <= 32
    tools = world.tools(0, 500)
    assert len({tool.id for tool in tools}) == 500
    assert len({tool.name for tool in tools}) < 500, "the same name should occur with different schemas"


def test_shares(splits: dict[str, tuple[list[Tool], list[Example]]], stream: Rows) -> None:
    for name, (_, examples) in splits.items():
        strata = Counter(example.stratum for example in examples)
        assert len(examples) == 1000
        assert sum(strata[stratum] for stratum in STRATA) == 250
        assert max(abs(strata[stratum] - 62.5) for stratum in STRATA) <= 1
        assert sum(len(example.calls) > 1 for example in examples) > 50
        assert sum(len(example.messages) > 1 for example in examples) > 40
        if name == "test_unseen":
            assert min(strata["same_domain"], strata["new_domain"]) > 300
    strata = Counter(example.stratum for example, _ in stream)
    assert sum(strata[stratum] for stratum in STRATA) / len(stream) == pytest.approx(0.2, abs=0.02)
    assert sum(len(example.calls) > 1 for example, _ in stream) / len(stream) == pytest.approx(0.12, abs=0.02)


def test_pairs_differ_in_little(pairs: Rows) -> None:
    kinds = Counter()
    for (asked, tools), (counterpart, others) in zip(pairs[::2], pairs[1::2], strict=True):
        (call,), kind = asked.calls, counterpart.stratum
        kinds[kind] += 1
        assert not asked.stratum and not counterpart.calls
        if kind == "tool_missing":
            assert asked.messages == counterpart.messages
            assert [b for a, b in zip(others, tools, strict=True) if a is not b] == [
                t for t in tools if t.name == call.name
            ]
            continue
        assert tools == others
        words, rest = words_of(told(asked)).split(), words_of(told(counterpart)).split()
        if kind == "parameter_missing":
            draft = counterpart.draft
            (lacks,) = [key for key, value in draft.arguments.items() if value is None]
            assert {**draft.arguments, lacks: call.arguments[lacks]} == call.arguments and draft.name == call.name
        shared = SequenceMatcher(None, words, rest, autojunk=False).find_longest_match().size
        assert shared >= 2, (told(asked), told(counterpart))
    assert sum(kinds.values()) == 600 and set(kinds) == {"tool_missing", "parameter_missing", "near_miss"}
    assert min(kinds.values()) > 150


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_share_of_pairs(share: float) -> None:
    rows = [row for step in range(10) for row in ToolWorld(no_call_share=0.0, pair_share=share).batch(step, **SHAPE)]
    assert 2 * sum(not example.calls for example, _ in rows) / len(rows) == pytest.approx(share, abs=0.06)


def test_noise_touches_words_and_no_values(stream: Rows, splits: dict[str, tuple[list[Tool], list[Example]]]) -> None:
    """The split rows stay, every value that is copied is still said, and the words of training are fewer or new."""
    noisy = ToolWorld(word_noise=0.3)
    assert digest([(row, []) for row in noisy.split("test_seen", 50)[1]]) == digest(
        [(row, []) for row in splits["test_seen"][1][:50]]
    )
    rows = noisy.batch(0, **SHAPE)
    lost = [
        (value, told(example))
        for example, _ in rows
        for call in example.calls
        for key, value in call.arguments.items()
        if key.endswith("_id") and isinstance(value, str)
        if not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", told(example))
    ]
    assert lost == []
    known = {word for example, _ in stream for word in words_of(told(example)).split()}
    said = [word for example, _ in rows for word in words_of(told(example)).split()]
    plain = [word for example, _ in ToolWorld(seed=1).batch(0, **SHAPE) for word in words_of(told(example)).split()]
    assert sum(word not in known for word in said) > 2 * sum(word not in known for word in plain)


def test_no_request_is_in_two_splits(splits: dict[str, tuple[list[Tool], list[Example]]], stream: Rows) -> None:
    turns = {
        name: Counter(words_of(e.messages[-1].content) for e in examples) for name, (_, examples) in splits.items()
    }
    assert all(max(counter.values()) == 1 for counter in turns.values())
    seen = [set(counter) for counter in turns.values()]
    seen.append({words_of(m.content) for example, _ in stream for m in example.messages if m.role == "user"})
    assert sum(map(len, seen)) == len(set().union(*seen))


@pytest.mark.parametrize("name", ["validation", "test_held_out", "test_unseen"])
def test_new_patterns_have_no_near_duplicate(
    name: str, splits: dict[str, tuple[list[Tool], list[Example]]], stream: Rows
) -> None:
    texts = [told(example) for example in splits[name][1]]
    rows = shingles(texts + [told(example) for example, _ in stream])
    assert alike(rows[: len(texts)], rows[len(texts) :], 0.5) == []


def test_patterns_of_validation_and_held_out_are_not_in_training(
    splits: dict[str, tuple[list[Tool], list[Example]]], stream: Rows
) -> None:
    def patterns(examples: list[Example]) -> set[str]:
        """Tool and clause of the plain single requests."""
        plain = [e for e in examples if len(e.calls) == len(e.messages) == 1]
        return {e.pattern.rsplit("/", 1)[0] for e in plain}

    trained = patterns([example for example, _ in stream])
    checked, held_out = patterns(splits["validation"][1]), patterns(splits["test_held_out"][1])
    assert not held_out & trained and not checked & trained and not checked & held_out
    assert len(patterns(splits["test_seen"][1]) - trained) < 0.05 * len(trained)


def test_groups_of_wordings_stand_apart(world: ToolWorld, stream: Rows) -> None:
    frames = world.frames
    banks = [frames.openers, frames.verb_openers, frames.closers, frames.joins, frames.same_again, frames.carry]
    banks += [frames.talk, frames.talk_openers, frames.talk_closers, frames.near]
    for bank in banks:
        texts = {group: {bare(text) for text, _ in bank[group]} - {bare("{}"), ""} for group in bank}
        assert sum(map(len, texts.values())) == len(set().union(*texts.values()))
        assert len(texts[MORE]) > len(texts[SEEN]) and texts[NEW]
    for family in world.lexicon.families[TRAIN]:
        groups = {(bare(clause.open[0]), clause.group) for clause in family.clauses}
        assert len(groups) == len(dict(groups))
    said = {e.pattern.split("/", 1)[1]: e.stratum for e, _ in stream if e.stratum in ("small_talk", "near_miss")}
    for bank, stratum in ((frames.talk, "small_talk"), (frames.near, "near_miss")):
        heard = {text for text, kind in said.items() if kind == stratum}
        assert not heard & {text for group in (HELD_OUT, NEW) for text, _ in bank[group]}
        assert len(heard & {text for text, _ in bank[MORE]}) > 0.9 * len(bank[MORE])


def test_seen_tools_are_trained_on(splits: dict[str, tuple[list[Tool], list[Example]]], stream: Rows) -> None:
    trained = {tool.id for _, tools in stream for tool in tools}
    for name in ("test_seen", "test_held_out"):
        assert {tool.id for tool in splits[name][0]} <= trained


def test_unseen_tools_are_unseen(splits: dict[str, tuple[list[Tool], list[Example]]], stream: Rows) -> None:
    trained = {tool.id: tool for _, tools in stream for tool in tools}
    unseen = splits["test_unseen"][0]
    assert not {tool.id for tool in unseen} & set(trained)
    assert not {tool.name for tool in unseen} & {tool.name for tool in trained.values()}
    rows = shingles([tool.text for tool in unseen] + [tool.text for tool in trained.values()])
    assert alike(rows[: len(unseen)], rows[len(unseen) :], 0.5) == []


def test_nouns_and_names_are_divided(world: ToolWorld) -> None:
    nouns, families = world.lexicon.nouns, world.lexicon.families
    assert len(set().union(*nouns.values())) == sum(map(len, nouns.values()))
    used = {family.noun for family in families[TRAIN]}
    assert not used & {*nouns[TEST], *nouns[VALIDATION]}
    assert not set(nouns[TRAIN]) & {family.noun for part in (TEST, VALIDATION) for family in families[part]}
    made = {tool.name for step in range(30) for tool in world.tools(step, 200)}
    assert not made & world.lexicon.unseen_names


def test_a_missing_tool_is_missing(everything: Rows) -> None:
    for example, tools in everything:
        if example.stratum == "tool_missing":
            wanted = example.pattern.split("/")[1]
            text = told(example).lower()
            own = [tool for tool in tools if tool.name == wanted]
            assert not own or any(word not in text for word in wanted.split("_")), (text, wanted)


def test_names_come_from_the_schema_in_the_asked_share() -> None:
    def pseudo(share: float) -> float:
        world = ToolWorld(pseudo_share=share)
        words = {word for part in world.lexicon.families.values() for family in part for word in family.name.split("_")}
        words |= {word for nouns in world.lexicon.nouns.values() for noun in nouns for word in noun.split()}
        words |= {word + "s" for word in words}
        tools = [tool for step in range(5) for tool in world.tools(step, 200)]
        return sum(any(word not in words for word in tool.name.split("_")) for tool in tools) / len(tools)

    assert pseudo(0.0) < 0.05
    assert 0.7 < pseudo(0.9) < 1.0


def test_words() -> None:
    assert (in_words(0), in_words(42), in_words(240)) == ("zero", "forty two", "two hundred forty")
    assert [ordinal(day) for day in (1, 2, 3, 11, 22)] == ["1st", "2nd", "3rd", "11th", "22nd"]
    assert fill(cut_noun("cancel an order, the order or orders", "order"), "unit") == "cancel a unit, the unit or units"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("noun: bus", "noun: tram"), "name is book_bus; it must hold the noun as tram"),
        (("slot: city", "slot: town"), "slot is 'town'; use one of"),
        (('"to {}"', '"to"'), "say is 'to'; write {} once"),
        (("name: book_bus", "name: ''"), "name is ''"),
        (("Book a bus", "Book a ride"), "it must hold the noun 'bus'"),
        (("[book a bus]", "[]"), "requests is []"),
        (("slot: city,", ""), "goal has no kind"),
        (("domain: buses", "domain: [buses"), "YAML is broken"),
    ],
)
def test_a_wrong_entry_names_its_place(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    text = (
        "domain: buses\ntools:\n- name: book_bus\n  noun: bus\n  description: Book a bus to a city.\n"
        '  requests: [book a bus]\n  parameters:\n    goal: {slot: city, description: Where to, say: ["to {}"]}\n'
    )
    (tmp_path / "domains").mkdir()
    (tmp_path / "words").symlink_to(FOLDER / "words")
    file = tmp_path / "domains" / "buses.yaml"
    assert change[0] in text
    file.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(ValueError) as error:
        ToolWorld(folder=tmp_path)
    assert str(error.value).startswith(f"{file}:")
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda world: world.split("test"), "split is 'test'; use one of validation"),
        (lambda world: world.batch(0, batch_size=1, pool_size=4, tools_per_request=4), "tools_per_request is 4"),
        (lambda world: ToolWorld(no_call_share=0.9, multi_call_share=0.2), "rows <= 1 in sum"),
        (lambda world: ToolWorld(pseudo_share=1.5), "pseudo_share is 1.5"),
        (lambda world: ToolWorld(word_noise=-0.1), "word_noise -0.1"),
        (lambda world: ToolWorld(pair_share=0.5, no_call_mix=[1, 0, 0, 0]), "pairs with nothing"),
        (lambda world: world.split("test_seen", 10, tools_per_request=400), "make pool_size larger"),
    ],
)
def test_a_wrong_wish_is_refused(world: ToolWorld, ask: Callable[[ToolWorld], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ask(world)


def test_speed(world: ToolWorld, capsys: pytest.CaptureFixture[str]) -> None:
    begin = time.process_time()
    rows = sum(len(world.batch(step, batch_size=64, pool_size=64, tools_per_request=8)) for step in range(30))
    with capsys.disabled():
        print(f" {rows / (time.process_time() - begin):,.0f} examples/s", end="")
