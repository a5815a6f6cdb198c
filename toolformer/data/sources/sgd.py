"""In: a folder with the Schema-Guided Dialogue data (upstream layout, .json or .json.gz). Out: tools and examples.

A tool is one intent of one service; its five crowd-written SGD-X rewordings share its ``family``.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from toolformer.data.sources.files import read_list
from toolformer.data.sources.source import Found, Offered, SetAside, Source
from toolformer.records import Example, Message, Tool, ToolCall

NAME = "sgd"
LICENCE = "CC-BY-SA-4.0"
URL = "https://github.com/google-research-datasets/dstc8-schema-guided-dialogue"
SPLITS = ("train", "dev", "test")
WORDINGS = 6  # 0 is the original; 1..5 are SGD-X, from near to far

# Intents that do the same thing under another name: a request cannot tell them apart, so no row offers two of them.
SAME_FUNCTION = {
    "LookupMusic": "LookupSong",
    "PlayMedia": "PlaySong",
    "FindHomeByArea": "FindApartment",
    "RentMovie": "PlayMovie",
    "MakePayment": "TransferMoney",
}
# What a user's turn does when no call follows it, by the acts annotated upstream.
SMALL_TALK = {"THANK_YOU", "GOODBYE", "NEGATE", "NEGATE_INTENT"}
NEAR_MISS = {"REQUEST", "SELECT"}
UNSAID = "call: a value was said too long before"
BROKEN = "dialogue: not as upstream"
_NOT_AS_UPSTREAM = (KeyError, TypeError, StopIteration, IndexError, AttributeError, ValueError)


class _Label(NamedTuple):
    """A row to be: what it is about, the turn its conversation starts at, gold calls, stratum."""

    service: str
    intent: str
    start: int
    calls: tuple[ToolCall, ...]
    stratum: str


class SourceTool(NamedTuple):
    """A tool with its place in the source; ``function`` names what may not be offered beside it."""

    tool: Tool
    service: str
    intent: str
    wording: int
    family: str
    function: str

    @property
    def offered(self) -> Offered:
        """As all sources say it; ``Restaurants_2`` is of domain ``Restaurants``."""
        return Offered(self.tool, self.service.rsplit("_", 1)[0], self.family, self.function, self.wording)


def find_root(root: str | Path) -> Path:
    """The folder that holds train/schema.json: ``root`` itself or its subfolder ``sgd``.

    Raises:
        FileNotFoundError: neither does.
    """
    for folder in (Path(root), Path(root) / NAME):
        if (folder / "train" / "schema.json").is_file():
            return folder
    raise FileNotFoundError(
        f"{root}: holds no SGD data (train/schema.json is missing); run `make data ARGS=corpus=sgd`, "
        "or set TOOLFORMER_DATA"
    )


def read_json(path: Path) -> Any:
    """The content of a .json or .json.gz file; a broken one is named with its line."""
    try:
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}; download the file again") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}:1: cannot be read: {error}; download the file again") from error


def services(root: str | Path, wording: int = 0) -> dict[str, dict[str, Any]]:
    """Every service of the three upstream splits by its original name, in one wording."""
    folder = find_root(root)
    found: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        original = read_json(folder / split / "schema.json") if (folder / split / "schema.json").is_file() else []
        path = folder / "sgd_x" / "data" / f"v{wording}" / split / "schema.json" if wording else None
        worded = read_json(path) if path is not None else original
        if len(worded) != len(original):
            raise ValueError(f"{path}:1: has {len(worded)} services, the original {len(original)}; download it again")
        # SGD-X keeps the order of services, slots and intents, so names map by position
        found.update((service["service_name"], other) for service, other in zip(original, worded, strict=True))
    return found


def wordings(root: str | Path) -> list[int]:
    """The wordings that are there: 0 alone without the SGD-X folder."""
    data = find_root(root) / "sgd_x" / "data"
    return [0, *(v for v in range(1, WORDINGS) if (data / f"v{v}" / "train" / "schema.json").is_file())]


def snake(name: str) -> str:
    """FindRestaurants -> find_restaurants."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def qualified(name: str, service: str) -> str:
    """The name with what tells its service from others: find_restaurants_2, find_movies_media_1."""
    domain, number = service.rsplit("_", 1)
    stem = domain.lower().rstrip("s")
    return f"{name}_{number}" if stem in name.replace("_", "") else f"{name}_{snake(domain)}_{number}"


def parameters(service: Mapping[str, Any], intent: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema of an intent's slots: required ones first, as upstream orders them.

    Upstream's default "dontcare" means that the slot does not narrow the search, so it is no default value here.
    """
    slots = {slot["name"]: slot for slot in service["slots"]}
    properties: dict[str, Any] = {}
    for name in [*intent["required_slots"], *intent["optional_slots"]]:
        properties[name] = {"type": "string", "description": slots[name]["description"]}
        if slots[name]["is_categorical"]:
            properties[name]["enum"] = list(slots[name]["possible_values"])
        if intent["optional_slots"].get(name, "dontcare") != "dontcare":
            properties[name]["default"] = intent["optional_slots"][name]
    return {"type": "object", "properties": properties, "required": list(intent["required_slots"])}


def load_tools(root: str | Path) -> list[SourceTool]:
    """Every intent of every service in every wording. A name two services share is qualified by the service."""
    by_wording = {wording: services(root, wording) for wording in wordings(root)}
    base = by_wording[0]
    owners: dict[str, set[str]] = {}
    for worded in by_wording.values():
        for service, schema in worded.items():
            for intent, original in zip(schema["intents"], base[service]["intents"], strict=True):
                owners.setdefault(snake(intent["name"]), set()).add(f"{service}.{original['name']}")
    found = []
    for wording, worded in by_wording.items():
        for service, schema in worded.items():
            for intent, original in zip(schema["intents"], base[service]["intents"], strict=True):
                name = snake(intent["name"])
                name = qualified(name, service) if len(owners[name]) > 1 else name
                function = SAME_FUNCTION.get(original["name"], original["name"])
                if service.startswith("Services_"):  # a hairdresser's, a dentist's, a doctor's: no two alike
                    function += "." + service
                tool = Tool(name, intent["description"], parameters(schema, intent))
                family = f"{NAME}/{service}.{original['name']}"
                found.append(SourceTool(tool, service, original["name"], wording, family, function))
    return found


def files(root: str | Path, split: str) -> list[Path]:
    """The dialogue files of an upstream split, in order; of a file that is there twice the unpacked one."""
    folder = find_root(root) / split
    found = {path.name.split(".")[0]: path for path in folder.glob("dialogues_*.json.gz")}
    found |= {path.name.split(".")[0]: path for path in folder.glob("dialogues_*.json")}
    if not found:
        raise FileNotFoundError(
            f"{folder}: holds no dialogues_*.json; run `make data ARGS=corpus=sgd`, or set data.root"
        )
    return [found[name] for name in sorted(found)]


def read(
    root: str | Path,
    split: str,
    *,
    wording: int = 0,
    carry: int = 2,
    set_aside: Counter[str] | None = None,
    progress: Callable[[list[Path]], Iterable[Path]] = iter,
) -> Iterator[Example]:
    """Calls and turns without a call of an upstream split; names as the given wording has them.

    The conversation starts where the intent of its last turn became active. Where a value was said before, in talk of
    another service, it starts up to ``carry`` exchanges earlier. An example's only tool is the one its dialogue is
    about; distractors are chosen later. ``set_aside`` counts what is left out, by reason; ``progress`` wraps the list
    of files as tqdm does.
    """
    reader, counts = _Reader(root, wording, carry), Counter() if set_aside is None else set_aside
    for path in progress(files(root, split)):
        for turn in reader.turns(path):
            if isinstance(turn.found, Exception):
                wrong = f"dialogue {turn.dialogue}: {turn.found!r}: not as upstream; download it again"
                raise ValueError(f"{path}:1: {wrong}") from turn.found
            if isinstance(turn.found, str):
                counts[turn.found] += 1
            else:
                yield turn.found


def rows(root: Path) -> Iterator[Found | SetAside]:
    """Every user's turn that the system answers, once, of all three upstream splits.

    ``place`` is file, number of the dialogue and number of the turn: ``dev/dialogues_001.json:17:3``. A dialogue that
    cannot be read at all is one row.
    """
    offered = {t.tool.id: t.offered for t in load_tools(root)}
    reader, folder = _Reader(root), find_root(root)
    for split in SPLITS:
        for path in files(root, split):
            for dialogue, at, found, text in reader.turns(path):
                place = f"{path.relative_to(folder)}:{dialogue + 1}" + (f":{at}" if at else "")
                if isinstance(found, Example):
                    yield Found(place, found, (offered[found.tools[0]],), split)
                else:
                    yield SetAside(place, BROKEN if isinstance(found, Exception) else found, text())


def offered(root: Path) -> Iterator[Offered]:
    """Every intent of every service in every wording."""
    return (tool.offered for tool in load_tools(root))


SOURCE = Source(NAME, LICENCE, URL, rows, tools=offered)


class _Turn(NamedTuple):
    """A user's turn (``at``, from 1; 0 for a dialogue that has none) and what it asks for, or why that is not known."""

    dialogue: int
    at: int
    found: Example | str | Exception
    text: Callable[[], str]


class _Reader:
    """What one pass over dialogues needs to know; ``turns`` looks at the user's turns of a file."""

    def __init__(self, root: str | Path, wording: int = 0, carry: int = 2) -> None:
        self.tools = {(t.service, t.intent, t.wording): t.tool for t in load_tools(root)}
        self.wording, self.carry = wording, carry
        if not any(number == wording for *_, number in self.tools):
            raise ValueError(f"{root}: wording is {wording}; there are {wordings(root)} (1 to 5 are in sgd_x/)")

    def turns(self, path: Path) -> Iterator[_Turn]:
        """The turns in order. One that is not as upstream comes out as the error that it causes."""
        for number, dialogue in enumerate(read_list(path)):
            try:
                turns, name = dialogue["turns"], f"{NAME}/{path.parent.name}/{dialogue['dialogue_id']}"
                ends = range(1, len(turns), 2)
            except _NOT_AS_UPSTREAM as error:
                yield _Turn(number, 0, error, partial(json.dumps, dialogue))
                continue
            for at in ends:
                found: Example | str | Exception
                try:
                    found = self.example(turns, at, f"{name}/{at - 1}")
                except _NOT_AS_UPSTREAM as error:
                    found = error
                yield _Turn(number, at, found, partial(json.dumps, turns[at - 1 : at + 1]))

    def example(self, turns: list[dict[str, Any]], at: int, name: str) -> Example | str:
        """What the user's turn before ``at`` asks for: a call or a reply; or the reason why it is set aside."""
        called = [frame for frame in turns[at]["frames"] if "service_call" in frame]
        found = self._call(turns, at, called[0]) if called else self._no_call(turns, at)
        if isinstance(found, str):
            return found
        service, intent, start, calls, stratum = found
        messages = tuple(
            Message("user" if turn["speaker"] == "USER" else "assistant", turn["utterance"].strip())
            for turn in turns[start:at]
        )
        pattern = f"{service}.{intent}: " + " > ".join(_acts(turn) for turn in turns[start:at])
        reply = "" if calls else turns[at]["utterance"].strip()
        tool = self.tools[service, intent, self.wording]
        return Example(name, messages, (tool.id,), calls, reply, NAME, stratum, pattern)

    def _call(self, turns: list[dict[str, Any]], at: int, frame: Mapping[str, Any]) -> _Label | str:
        service, call = frame["service"], frame["service_call"]
        intent = call["method"]
        start = first = _start(turns, at, service, intent)
        base, tool = self.tools[service, intent, 0], self.tools[service, intent, self.wording]
        gold = _gold(turns, start, at, service, call["parameters"], base, tool)
        while gold == UNSAID and start >= 2 and first - start < 2 * self.carry:
            start -= 2
            gold = _gold(turns, start, at, service, call["parameters"], base, tool)
        return gold if isinstance(gold, str) else _Label(service, intent, start, (gold,), "")

    def _no_call(self, turns: list[dict[str, Any]], at: int) -> _Label | str:
        service = turns[at]["frames"][0]["service"]
        state = next((f["state"] for f in turns[at - 1]["frames"] if f["service"] == service), None)
        if state is None or (service, state["active_intent"], 0) not in self.tools:
            return "no call: no active intent"
        intent = state["active_intent"]
        required = self.tools[service, intent, 0].parameters["required"]
        stratum = _stratum(turns, at, set(required) - set(state["slot_values"]))
        if stratum.startswith("no call: "):
            return stratum
        start = _start(turns, at, service, intent) if stratum == "parameter_missing" else max(0, at - 3)
        return _Label(service, intent, start, (), stratum)


def _start(turns: list[dict[str, Any]], at: int, service: str, intent: str) -> int:
    """The user's turn from which on ``intent`` was active without a break."""

    def active(turn: Mapping[str, Any]) -> bool:
        return any(f["service"] == service and f["state"]["active_intent"] == intent for f in turn["frames"])

    start = at - 1
    while start >= 2 and active(turns[start - 2]):
        start -= 2
    opening = {action["act"] for frame in turns[start]["frames"] for action in frame["actions"]}
    # a yes, or "that one", needs the offer that it answers
    return start - 2 if start >= 2 and opening & {"AFFIRM_INTENT", "SELECT"} else start


def _acts(turn: Mapping[str, Any]) -> str:
    """The acts of a turn with their slots, without values: the flow of a dialogue, whatever its words."""
    acts = {f"{a['act']} {a['slot']}".strip() for frame in turn["frames"] for a in frame["actions"]}
    return ", ".join(sorted(acts)).lower()


def _stratum(turns: list[dict[str, Any]], at: int, missing: set[str]) -> str:
    """Which no-call stratum a user's turn belongs to, or "no call: <reason>" where the label would be debatable."""
    user = {action["act"] for frame in turns[at - 1]["frames"] for action in frame["actions"]}
    system = {action["act"] for frame in turns[at]["frames"] for action in frame["actions"]}
    if "CONFIRM" in system:
        return "no call: the system confirms first"
    if "REQUEST" in system:
        asked = {a["slot"] for frame in turns[at]["frames"] for a in frame["actions"] if a["act"] == "REQUEST"}
        return "parameter_missing" if asked & missing else "no call: nothing required is missing"
    if user <= SMALL_TALK:
        return "small_talk"
    return "near_miss" if user <= NEAR_MISS | SMALL_TALK else "no call: other acts"


def _gold(
    turns: list[dict[str, Any]],
    start: int,
    at: int,
    service: str,
    values: Mapping[str, str],
    base: Tool,
    tool: Tool,
) -> ToolCall | str:
    """The call with each argument as it was said in the window; a reason where one cannot be found there.

    An unsaid argument that equals its default is left out, as omitting it means the same.
    """
    text = "\n".join(turn["utterance"] for turn in turns[start:at])
    frames = [frame for turn in turns[start:at] for frame in turn["frames"] if frame["service"] == service]
    said = {action["slot"] for frame in frames for action in frame["actions"] if action["values"]}
    state = next(f["state"]["slot_values"] for f in turns[at - 1]["frames"] if f["service"] == service)
    names = dict(zip(base.parameters["properties"], tool.parameters["properties"], strict=True))
    if missing := set(base.parameters["required"]) - set(values):
        return f"call: required {min(missing)} is absent upstream"
    arguments, accepted, omittable = {}, {}, []
    for slot, described in base.parameters["properties"].items():
        if slot not in values:
            continue
        forms = list(dict.fromkeys([values[slot], *state.get(slot, ())]))
        default = described.get("default") in forms
        spoken = values[slot] if "enum" in described and slot in said else None
        if "enum" not in described:
            spoken = spoken_form(forms, text)
        if spoken is None:
            if default:
                continue
            return UNSAID
        arguments[names[slot]] = spoken
        others = [form for form in forms if form != spoken] if "enum" not in described else []
        if others:
            accepted[names[slot]] = others
        if default:
            omittable.append(names[slot])
    return ToolCall(tool.name, arguments, accepted, tuple(omittable))


def spoken_form(forms: list[str], text: str) -> str | None:
    """The longest of the forms that stands in the text as whole words, spelled as there; the last if said twice."""
    lowered = text.lower()
    for form in sorted(forms, key=len, reverse=True):
        found = list(_whole(form).finditer(text)) if form.lower() in lowered else []
        if found:
            return found[-1].group()
    return None


@lru_cache(maxsize=1 << 16)
def _whole(form: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(form)}(?!\w)", re.IGNORECASE)
