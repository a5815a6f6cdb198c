"""In: every schema in the folder of real data, as upstream wrote it. Out: whether reading it loses anything.

What JSON Schema says in another way is counted, and the table in ``toolformer/schemas/README.md`` must list all of it.
"""

import ast
import gzip
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from toolformer.data.sources import sgd
from toolformer.records import Tool
from toolformer.schemas import tool_from_flat, tool_from_lists, tool_from_openai

STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
BOOLEAN, ARRAY, OBJECT = {"type": "boolean"}, {"type": "array"}, {"type": "object"}


def array(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


PAIR = {"minItems": 2, "maxItems": 2}
# Every type text there is, and what it means. Written by hand: a text that is not here fails the test.
MEANING: dict[Any, dict[str, Any]] = {
    **dict.fromkeys(("string", "str", "String", "STRING"), STRING),
    **dict.fromkeys(("integer", "int"), INTEGER),
    **dict.fromkeys(("number", "float", "double", "NUMBER"), NUMBER),
    **dict.fromkeys(("boolean", "bool", "Boolean", "BOOLEAN"), BOOLEAN),
    **dict.fromkeys(("array", "list", "List", "tuple", "Array", "ArrayList", "ARRAY"), ARRAY),
    **dict.fromkeys(("object", "dict", "Dict", "HashMap", "OBJECT"), OBJECT),
    "any": {},
    "set": {"type": "array", "uniqueItems": True},
    "char": {"type": "string", "minLength": 1, "maxLength": 1},
    "List[int]": array(INTEGER),
    "List[float]": array(NUMBER),
    "List[str]": array(STRING),
    "List[Union[int, float]]": array(NUMBER),
    "List[List[int]]": array(array(INTEGER)),
    "List[List[float]]": array(array(NUMBER)),
    "List[List[str]]": array(array(STRING)),
    "Tuple[float, float]": array(NUMBER, **PAIR),
    "List[Tuple[float, float]]": array(array(NUMBER, **PAIR)),
    "List[Tuple[int, int]]": array(array(INTEGER, **PAIR)),
    "DATE (YYYY-MM-DD)": {"type": "string", "format": "date"},
    "TIME (24-hour HH:MM)": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
}
# Texts that JSON Schema cannot say exactly.
NEAREST: dict[Any, dict[str, Any]] = {
    "": {},
    "long": INTEGER,
    "Callable[[float], float]": STRING,
    "ENUM": STRING,
    "BINARY": {"type": "string", "format": "binary"},
    **dict.fromkeys(("date", "datetime", "time"), STRING),
}


class Comparison:
    """One source's schemas as written against the same as read; ``other`` counts what is said in another way."""

    def __init__(self) -> None:
        self.other: Counter[str] = Counter()
        self.parameters = 0

    def tool(self, written: dict[str, Any], tool: Tool) -> None:
        """``written`` is what upstream says of all parameters, in upstream's words.

        That it became JSON Schema was checked as it was read: see ``validate``.
        """
        self.schema({"type": "object", "properties": {}, **written}, tool.parameters)

    def object(self, written: dict[str, Any], read: dict[str, Any]) -> None:
        assert list(read.get("required", [])) == list(written.get("required", []))
        properties = written.get("properties", {})
        if written.get("required") and not properties:
            self.other["required names, none of them declared -> each declared, of any type"] += 1
            properties = dict.fromkeys(written["required"], {})
        assert list(read.get("properties", {})) == list(properties)
        for name, spec in properties.items():
            self.parameters += 1
            self.schema(spec, read["properties"][name])

    def schema(self, written: dict[str, Any], read: dict[str, Any]) -> None:
        left = dict(read)
        if "properties" in written or "required" in written:
            self.object(written, read)
            left.pop("required", None), left.pop("properties", None)
        values = self.enum(written, left)
        if "type" in written:
            self.type(written["type"], values, left, "items" in written)
        if "items" in written and values is None:
            self.schema(written["items"], left.pop("items"))
        elif "items" in written:
            left.pop("items", None)
        if "default" in written:
            self.default(written["default"], left.pop("default"))
        if not isinstance(written.get("examples", []), list):
            self.other["`examples` that are no list -> a list"] += 1
            written = {**written, "examples": [written["examples"]]}
        for key in written.keys() - {"type", "properties", "required", "items", "enum", "choices", "default"}:
            assert left.pop(key) == written[key], key
        assert not left, f"{written} has no {left}"

    def enum(self, written: dict[str, Any], left: dict[str, Any]) -> list[Any] | None:
        """Takes the enum from ``left``; returns it where it is the enum of an array's items."""
        values = written.get("enum", written.get("choices"))
        if values is None:
            return None
        if "choices" in written:
            self.other["`choices` -> `enum`"] += 1
        if left["type"] == "array":
            self.other["`enum` of an array -> `enum` of its items"] += 1
            assert left["items"] == {**({"type": "string"} if "items" in written else {}), "enum": values}
            return values
        found = left.pop("enum")
        if found != values:
            self.other['`enum` as text ("1", "True") -> values of the type'] += 1
            spelled = [json.loads(v.lower()) if v.lower() in ("true", "false") or v.isdigit() else v for v in values]
            assert found == list(dict.fromkeys(spelled))
        return None

    def type(self, text: Any, values: list[Any] | None, left: dict[str, Any], items: bool) -> None:
        plain = text.split(", optional")[0]
        wanted = MEANING.get(plain)
        if wanted is None:
            wanted = NEAREST[plain]
            self.other[f"`{plain}` -> " + (f"`{json.dumps(wanted)}`" if wanted else "any type")] += 1
        for key, value in wanted.items():
            if key == "type" and isinstance(left.get("type"), list):
                self.other["`enum` with values of another type -> the type widened to them"] += 1
                assert left.pop("type") == [value, "string"]
            else:
                assert left.pop(key) == value
        if values is not None and not items:
            left.pop("items")

    def default(self, written: Any, read: Any) -> None:
        if type(written) is not type(read) or written != read:
            self.other['`default` as text ("5", "false", "[]") -> a value of the type'] += 1
            assert json.loads(written.lower() if written.lower() in ("true", "false") else written) == read
            assert not isinstance(read, str)


def text_of(path: Path) -> str:
    return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()


def lines(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in text_of(path).splitlines() if line.strip())


Pair = tuple[dict[str, Any], Tool]


def flat(row: dict[str, Any], required: list[str] | None) -> Pair:
    if required is None:
        required = [k for k, v in row["parameters"].items() if "optional" not in v["type"] and "default" not in v]
    return {"properties": row["parameters"], "required": required}, tool_from_flat(row, "x")


def xlam(folder: Path) -> Iterator[Pair]:
    rows = lines(next(folder.glob("xlam-1000/*.jsonl.gz")))
    return (flat(tool, None) for tool in once(tool for row in rows for tool in json.loads(row["tools"])))


def seal(folder: Path) -> Iterator[Pair]:
    for row in lines(folder / "seal-tools/tool.jsonl.gz"):
        yield flat({**row, "name": row["api_name"], "description": row["api_description"]}, row["required"])


def api_bank(folder: Path) -> Iterator[Pair]:
    found = []
    for path in sorted(folder.glob("api-bank/*.json*")):
        for row in json.loads(text_of(path)):
            for text in re.findall(r"(?:^|->\s*)(\{.*\})\s*$", row["input"], re.MULTILINE):
                try:
                    found.append(ast.literal_eval(text))
                except (SyntaxError, ValueError):
                    continue  # cut or misquoted upstream: its rows are set aside
    for row in once(row for row in found if isinstance(row, dict) and "description" in row):
        name, parameters = row.get("name", row.get("apiCode")), row.get("input_parameters", row.get("parameters"))
        if not isinstance(parameters, dict) or not all(isinstance(spec, dict) for spec in parameters.values()):
            continue  # a list of names or an answer: no schema, its rows are set aside
        yield flat({"name": name, "description": row["description"], "parameters": parameters}, None)


def glaive(folder: Path) -> Iterator[Pair]:
    rows = json.loads(text_of(folder / "glaive-demo/glaive_toolcall_en_demo.json"))
    for tool in once(tool for row in rows for tool in json.loads(row["tools"] or "[]")):
        yield tool["parameters"], tool_from_openai(tool, "x")


def bfcl(folder: Path) -> Iterator[Pair]:
    rows = (row for path in sorted(folder.glob("bfcl-v4/BFCL*.json*")) for row in lines(path))
    for tool in once(tool for row in rows for tool in row["function"]):
        yield tool["parameters"], tool_from_openai(tool, "x")


def stabletoolbench(folder: Path) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]], Tool]]:
    rows = (row for path in sorted(folder.glob("stabletoolbench/*.json*")) for row in json.loads(text_of(path)))
    keys = ("api_name", "api_description", "required_parameters", "optional_parameters")
    for api in once({key: api[key] for key in keys} for row in rows for api in row["api_list"]):
        row = {**api, "name": api["api_name"], "description": api["api_description"]}
        yield api["required_parameters"], api["optional_parameters"], tool_from_lists(row, "x")


def once(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen = set()
    for row in rows:
        text = repr(row)
        if text not in seen:
            seen.add(text)
            yield row


def compare(source: Callable[[Path], Iterator[Pair]], folder: Path) -> tuple[int, Comparison]:
    comparison, tools = Comparison(), 0
    for written, tool in source(folder):
        comparison.tool(written, tool)
        tools += 1
    return tools, comparison


def compare_toolbench(folder: Path) -> tuple[int, Comparison]:
    comparison, tools = Comparison(), 0
    for required, optional, tool in stabletoolbench(folder):
        properties: dict[str, Any] = {}
        for spec in (*required, *optional):
            if spec["name"] in properties:
                comparison.other["two parameters of one name -> the first"] += 1
                continue
            spec = {**spec}
            if spec["default"] == "":
                comparison.other['`default` "" -> none'] += 1
                del spec["default"]
            properties[spec.pop("name")] = spec
        comparison.tool({"properties": properties, "required": [spec["name"] for spec in required]}, tool)
        tools += 1
    return tools, comparison


def compare_sgd(folder: Path) -> tuple[int, Comparison]:
    comparison, written = Comparison(), {}
    for wording, split in itertools.product(range(6), sgd.SPLITS):
        part = f"sgd_x/data/v{wording}/{split}" if wording else split
        plain, worded = (json.loads((folder / "sgd" / p / "schema.json").read_text()) for p in (split, part))
        for original, other in zip(plain, worded, strict=True):
            slots = {slot["name"]: slot for slot in other["slots"]}
            for intent, reworded in zip(original["intents"], other["intents"], strict=True):
                # a service that is in two splits is read from the last
                written[original["service_name"], intent["name"], wording] = (slots, reworded)
    read = {(t.service, t.intent, t.wording): t.tool for t in sgd.load_tools(folder)}
    assert read.keys() == written.keys()
    for key, (slots, intent) in written.items():
        properties = {}
        for name in [*intent["required_slots"], *intent["optional_slots"]]:
            slot, default = slots[name], intent["optional_slots"].get(name)
            properties[name] = {"type": "string", "description": slot["description"]}
            if slot["is_categorical"]:
                properties[name]["enum"] = slot["possible_values"]
            elif slot["possible_values"]:
                comparison.other["`possible_values` that are not all there are -> none"] += 1
            if default == "dontcare":
                comparison.other['`default` "dontcare" -> none'] += 1
            elif default is not None:
                properties[name]["default"] = default
        comparison.tool({"properties": properties, "required": intent["required_slots"]}, read[key])
    return len(read), comparison


COMPARED: dict[str, Callable[[Path], tuple[int, Comparison]]] = {
    "xlam": lambda folder: compare(xlam, folder),
    "seal": lambda folder: compare(seal, folder),
    "api-bank": lambda folder: compare(api_bank, folder),
    "glaive": lambda folder: compare(glaive, folder),
    "sgd": compare_sgd,
    "bfcl": lambda folder: compare(bfcl, folder),
    "stabletoolbench": compare_toolbench,
}
TABLE = Path(__file__).parents[1] / "toolformer/schemas/README.md"


def rows_of(source: str, tools: int, comparison: Comparison) -> list[str]:
    said = sorted(comparison.other.items()) or [("nothing", 0)]
    return [f"| {source} | {tools:,} | {comparison.parameters:,} | {what} | {n:,} |" for what, n in said]


@pytest.mark.parametrize("source", COMPARED)
def test_no_schema_loses_anything_that_the_table_does_not_list(real_data: Path, source: str) -> None:
    found = rows_of(source, *COMPARED[source](real_data))
    listed = [line for line in TABLE.read_text().splitlines() if line.startswith(f"| {source} |")]
    assert listed == found, "write into the table:\n" + "\n".join(found)


def test_the_table_lists_all_sources() -> None:
    listed = {line.split("|")[1].strip() for line in TABLE.read_text().splitlines() if line.count("|") == 6}
    assert listed - {"source", "---"} == set(COMPARED)
