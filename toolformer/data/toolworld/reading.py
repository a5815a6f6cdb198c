"""In: a folder with ``domains/*.yaml`` and ``words/*.yaml``. Out: the checked and compiled ``Lexicon``.

A wrong entry is a ``ValueError`` that names file, line, field, value and remedy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from toolformer.data.toolworld.lexicon import (
    A_NOUN,
    NOUN,
    NOUNS,
    PARTS,
    RESERVED,
    TEST,
    TRAIN,
    VALIDATION,
    Clause,
    Family,
    Lexicon,
    Parameter,
    bare,
    both_cases,
    cut_noun,
    divide,
    fill,
    noun_part,
    plural,
    wording_group,
)
from toolformer.data.toolworld.phrases import Draw, choice_phrases, list_phrases, object_phrases, slot_phrases
from toolformer.data.toolworld.slots import Slot, built_in_slots, word_slot

KINDS = ("slot", "enum", "flag", "list", "object")
NOT_A_VERB = frozenset(
    "i i'd i'm i've we we'd we're my our the there a an is are am was do does did can could would will should may "
    "might what what's which who who's whose when when's where where's why how how's please any has it it's if in for "
    "at on to not don't no something until tell let's".split()
)
QUESTION = re.compile(
    r"((could|can|would|will) you|what|which|who|whose|when|where|why|how|is|are|am|do|does|did|has|may|should|"
    r"(have|can|could) (i|we))\b"
)


class Reader:
    """One file; every complaint names its place."""

    def __init__(self, path: Path, slots: Mapping[str, Slot], shapes: Mapping[str, list[str]]) -> None:
        self.path, self.slots, self.shapes = path, slots, shapes
        self.source = path.read_text(encoding="utf-8")
        try:
            self.data = yaml.load(self.source, Loader=yaml.CSafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ValueError(f"{path}:{line}: YAML is broken: {error.problem}; correct the line") from error
        if not isinstance(self.data, dict):
            raise self.wrong("", f"file is {type(self.data).__name__}", "start with a key and a colon")

    def wrong(self, near: str, what: str, remedy: str) -> ValueError:
        """A one-line error at the first line that holds ``near``."""
        line = next((n for n, text in enumerate(self.source.splitlines(), 1) if near in text), 1)
        return ValueError(f"{self.path}:{line}: {what}; {remedy}")

    def need(self, row: Any, key: str, kind: type, near: str) -> Any:
        """``row[key]``, checked to be a filled ``kind``."""
        value = row.get(key) if isinstance(row, dict) else None
        if not isinstance(value, kind) or not value:
            raise self.wrong(near, f"{key} is {value!r:.60}", f"give a {kind.__name__}")
        return value

    def slot(self, name: Any, near: str) -> Slot:
        """A slot by name."""
        if name not in self.slots:
            raise self.wrong(near, f"slot is {name!r}", f"use one of {', '.join(sorted(self.slots))}")
        return self.slots[name]

    def says(self, row: Mapping[str, Any], near: str, fields: Mapping[str, Slot] | None = None) -> list[str]:
        """The phrases of a parameter, with one ``{}``, or with each field of an object in braces."""
        wanted = sorted(fields) if fields else [""]
        for text in self.need(row, "say", list, near):
            if not isinstance(text, str) or sorted(re.findall(r"\{(\w*)\}", text)) != wanted:
                braces = " ".join(f"{{{name}}}" for name in wanted)
                raise self.wrong(near, f"say is {text!r:.60}", f"write {braces} once in each phrase")
        return row["say"]

    def spoken(self, key: str, row: Mapping[str, Any], near: str) -> tuple[str, dict[str, Any], Draw, Draw | None, str]:
        """Kind, schema, draw, draw without a phrase, and hint of a parameter."""
        kinds = [kind for kind in KINDS if kind in row]
        if len(kinds) != 1:
            raise self.wrong(near, f"{key} has {' and '.join(kinds) or 'no kind'}", f"give one of {', '.join(KINDS)}")
        kind, value = kinds[0], row[kinds[0]]
        if kind == "slot":
            slot = self.slot(value, near)
            return value, {"type": slot.type}, slot_phrases(slot, self.says(row, near)), slot.say, slot.hint
        if kind == "list":
            slot = self.slot(value, near)
            return (
                kind,
                {"type": "array", "items": {"type": slot.type}},
                list_phrases(slot, self.says(row, near)),
                list_phrases(slot, ["{}"]),
                slot.hint,
            )
        if not isinstance(value, dict) or len(value) < (1 if kind != "enum" else 2):
            raise self.wrong(near, f"{kind} is {value!r:.60}", "map each name or value to its entry")
        if kind == "object":
            fields = {name: self.slot(self.need(entry, "slot", str, near), near) for name, entry in value.items()}
            properties = {name: {"type": slot.type} for name, slot in fields.items()}
            schema = {"type": "object", "properties": properties, "required": list(fields)}
            return kind, schema, object_phrases(fields, self.says(row, near, fields)), None, ""
        wanted = bool if kind == "flag" else str
        for choice, texts in value.items():
            if not isinstance(choice, wanted):
                raise self.wrong(
                    near, f"{kind} value is {choice!r}", f"write a {wanted.__name__}; quote on, off, yes, no"
                )
            if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
                raise self.wrong(near, f"{kind} phrases of {choice!r} are {texts!r:.60}", "give a list of phrases")
        schema = {"type": "boolean"} if kind == "flag" else {"type": "string", "enum": list(value)}
        return kind, schema, choice_phrases(value), None, ""

    def parameter(self, key: str, row: Any, tool: Mapping[str, Any]) -> Parameter:
        """One entry of ``parameters`` of ``tool``."""
        near = f"{key}:"
        description = self.need(row, "description", str, near).rstrip(".")
        kind, schema, draw, value, hint = self.spoken(key, row, near)
        schema["description"] = (
            f"{description} ({hint})" if hint and hint.lower() not in description.lower() else description
        )
        if "default" in row:
            schema["default"] = row["default"]
            if "enum" in schema and row["default"] not in schema["enum"]:
                raise self.wrong(near, f"default is {row['default']!r}", f"use one of {', '.join(schema['enum'])}")
        opened = cut_noun(schema["description"], tool.get("noun", NOUN))
        ask = tool.get("asks", {}).get(key, f"I still need the {key.replace('_', ' ')}.")
        required = "default" not in row and not row.get("optional")
        return Parameter(
            key, schema, required, kind, draw, value, ask, opened if opened != schema["description"] else None
        )

    def clause(self, index: int, text: Any, noun: str) -> Clause:
        """One entry of ``requests``."""
        if not isinstance(text, str) or not text.strip() or "{" in text:
            raise self.wrong(str(text), f"request is {text!r:.60}", "write a clause without values")
        text = text.strip().rstrip(".!?")
        return self.cut_clause(index, text, cut_noun(text, noun))

    def cut_clause(self, index: int, text: str, cut: str, more: bool = False) -> Clause:
        """A clause with its noun and with the noun cut out."""
        imperative = text.split()[0] not in NOT_A_VERB
        ending = re.search(rf" (?:{A_NOUN}|(?:the|my|this|that) {NOUN})$", cut)
        pronoun = f"{cut[: ending.start()]} it" if ending and imperative else ""
        if set(pronoun) & {NOUN, A_NOUN, NOUNS}:
            pronoun = ""
        question = bool(QUESTION.match(text))
        group = wording_group(cut, more)
        return Clause(index, both_cases(text), both_cases(cut), cut != text, imperative, question, group, pronoun)

    def clauses(self, requests: Sequence[Any], noun: str, name_open: str) -> tuple[Clause, ...]:
        """The ``requests`` of a tool, then those of ``words/clauses.yaml`` for tools with a name of its shape."""
        own = [self.clause(i, text, noun) for i, text in enumerate(requests)]
        known = {bare(clause.open[0]) for clause in own}
        shape = name_open.replace(NOUNS, "{nouns}").replace(NOUN, "{noun}")
        cuts = [text.format(a=A_NOUN, noun=NOUN, nouns=NOUNS) for text in self.shapes.get(shape, ())]
        more = [cut for cut in cuts if bare(cut) not in known]
        return (*own, *(self.cut_clause(i, fill(cut, noun), cut, more=True) for i, cut in enumerate(more, len(own))))

    def family(self, tool: Any, domain: str, reserved: bool) -> Family:
        """One entry of ``tools``."""
        name = self.need(tool, "name", str, "- name")
        near = f"name: {name}"
        noun = self.need(tool, "noun", str, near)
        slug = noun.replace(" ", "_")
        found = next((form for form in (plural(slug), slug) if f"_{form}_" in f"_{name}_"), None)
        if found is None:
            raise self.wrong(near, f"name is {name}", f"it must hold the noun as {slug} or {plural(slug)}")
        description = self.need(tool, "description", str, near)
        if noun not in description:
            raise self.wrong(near, f"description is {description!r:.60}", f"it must hold the noun {noun!r}")
        requests = self.need(tool, "requests", list, near)
        parameters = self.need(tool, "parameters", dict, near) if tool.get("parameters") else {}
        name_open = re.sub(rf"(?<![^_]){found}(?![^_])", NOUN if found == slug else NOUNS, name, count=1)
        return Family(
            name=name,
            domain=domain,
            noun=noun,
            reserved=reserved,
            name_open=name_open,
            description=description,
            description_open=cut_noun(description, noun),
            clauses=self.clauses(requests, noun, name_open),
            parameters=tuple(self.parameter(key, row, tool) for key, row in parameters.items()),
        )

    def families(self) -> list[Family]:
        """All tools of a domain file."""
        domain = self.need(self.data, "domain", str, "domain")
        lists = self.need(self.data, "values", dict, "values") if "values" in self.data else {}
        for name, items in lists.items():
            if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
                raise self.wrong(
                    f"{name}:", f"values.{name} is {items!r:.60}", "list strings; quote yes, no and numbers"
                )
        self.slots = {**self.slots, **{name: word_slot(items) for name, items in lists.items()}}
        reserved = bool(self.data.get("reserved", domain in RESERVED))
        return [self.family(tool, domain, reserved) for tool in self.need(self.data, "tools", list, "tools")]


@lru_cache(maxsize=4)
def load(folder: Path) -> Lexicon:
    """The lexicon of a folder, made once per process."""
    paths = sorted((folder / "domains").glob("*.yaml"))
    if not paths:
        raise FileNotFoundError(f"{folder / 'domains'}: no domain file (*.yaml) is there; give a folder that has some")
    readers = {path.stem: Reader(path, {}, {}) for path in sorted((folder / "words").glob("*.yaml"))}
    words = {name: reader.data for name, reader in readers.items()}
    slots = built_in_slots(words["values"])
    families: dict[str, list[Family]] = {part: [] for part in PARTS}
    named: dict[str, str] = {}
    for path in paths:
        reader = Reader(path, slots, words["clauses"])
        found = reader.families()
        for family in found:
            if family.name in named:
                raise reader.wrong(
                    f"name: {family.name}", f"tool name is {family.name}", f"{named[family.name]} has it too"
                )
            named[family.name] = path.name
        for part, members in divide(found).items():
            families[part] += members
    own = {part: {family.noun for family in members} for part, members in families.items()}
    free = [noun for noun in words["nouns"]["nouns"] if not any(noun in nouns for nouns in own.values())]
    nouns = {part: tuple(noun for noun in free if noun_part(noun) == part) for part in PARTS}
    nouns[TRAIN] += tuple(sorted(own[TRAIN] - own[TEST] - own[VALIDATION]))
    variants = readers["variants"]
    variants.slots = slots
    extras = tuple(variants.parameter(key, row, {}) for key, row in variants.data["extras"].items())
    return Lexicon({part: tuple(members) for part, members in families.items()}, nouns, extras, words)
