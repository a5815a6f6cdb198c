"""In: a folder. Out: a small original data set in it, in the layout of the Schema-Guided Dialogues, SGD-X included."""

import gzip
import itertools
import json
import random
from pathlib import Path
from typing import Any

CITIES = ["Arles", "Bergen", "Cadiz", "Delft", "Evora", "Fulda", "Ghent", "Hamar", "Imola", "Jena"]
NAMES = ["The Copper Kettle", "Blue Door", "Old Mill", "Nine Lanterns", "Salt and Rye", "Marble Arch", "Green Gate"]
DAYS = {"tomorrow": "2019-03-02", "March 5th": "2019-03-05", "next Friday": "2019-03-08", "the 9th": "2019-03-09"}
FACTS = ["number", "street", "owner", "age", "rating", "size", "price", "fax", "code", "colour", "door", "floor"]
FILLERS = ["please", "if you can", "thank you", "when you have a moment", "today", "for me and my family", "quickly"]


def slot(name: str, description: str, values: list[str] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "is_categorical": values is not None,
        "possible_values": values or [],
    }


def service(domain: str, number: int, place: str, town: str) -> dict[str, Any]:
    """One domain: a search (no confirmation) and a booking (confirmed first), as upstream does it."""
    return {
        "service_name": f"{domain}_{number}",
        "description": f"Find and book {domain.lower()}",
        "slots": [
            slot(town, f"Town in which the {place} lies"),
            slot(f"{place}_name", f"What the {place} is called"),
            slot("day", "Day of the visit"),
            slot("seats", "How many people come along", ["1", "2", "3"]),
            slot("garden", f"Whether the {place} has a garden", ["True", "False"]),
        ],
        "intents": [
            {
                "name": f"Find{domain}",
                "description": f"Search for a {place} in a town",
                "is_transactional": False,
                "required_slots": [town],
                "optional_slots": {"garden": "dontcare"},
            },
            {
                "name": f"Book{place.title()}",
                "description": f"Book a visit to a {place} that was found",
                "is_transactional": True,
                "required_slots": [f"{place}_name", "day"],
                "optional_slots": {"seats": "2"},
            },
        ],
    }


def reworded(schema: dict[str, Any], wording: int) -> dict[str, Any]:
    """Every name and description another, the order kept: what SGD-X does."""
    names = {one["name"]: f"{one['name']}_{wording}x" for one in schema["slots"]}
    slots = [
        one | {"name": names[one["name"]], "description": f"v{wording}: {one['description']}"}
        for one in schema["slots"]
    ]
    intents = [
        one
        | {
            "name": f"{one['name']}Alt{wording}",
            "description": f"Wording {wording} says: {one['description']}",
            "required_slots": [names[s] for s in one["required_slots"]],
            "optional_slots": {names[s]: default for s, default in one["optional_slots"].items()},
        }
        for one in schema["intents"]
    ]
    return schema | {"service_name": f"{schema['service_name']}{wording}", "slots": slots, "intents": intents}


def act(name: str, where: str = "", *values: str) -> dict[str, Any]:
    return {"act": name, "slot": where, "values": list(values), "canonical_values": list(values)}


class Dialogue:
    """Turns as upstream writes them."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.service, self.turns, self.state = schema["service_name"], [], {}

    def user(self, text: str, intent: str, acts: list[dict[str, Any]], **said: list[str]) -> None:
        self.state = self.state | said
        state = {"active_intent": intent, "requested_slots": [], "slot_values": dict(self.state)}
        frame = {"service": self.service, "actions": acts, "slots": [], "state": state}
        self.turns.append({"speaker": "USER", "utterance": text, "frames": [frame]})

    def system(self, text: str, acts: list[dict[str, Any]], call: tuple[str, dict[str, str]] | None = None) -> None:
        frame: dict[str, Any] = {"service": self.service, "actions": acts, "slots": []}
        if call:
            frame |= {"service_call": {"method": call[0], "parameters": call[1]}, "service_results": []}
        self.turns.append({"speaker": "SYSTEM", "utterance": text, "frames": [frame]})


def dialogue(schema: dict[str, Any], number: int, rng: random.Random) -> dict[str, Any]:
    """Ask for a place (the town is asked back), hear of one, ask about it, book it, say thanks."""
    find, book = schema["intents"]
    town, place = schema["slots"][0]["name"], schema["slots"][1]["name"]
    kind = place.removesuffix("_name")
    city, name, (spoken, day) = rng.choice(CITIES), rng.choice(NAMES), rng.choice(list(DAYS.items()))
    filler = lambda: f"{rng.choice(FILLERS)} {rng.randrange(10_000)}"  # noqa: E731
    told = Dialogue(schema)
    intent = act("INFORM_INTENT", "intent", find["name"])
    if rng.random() < 0.5:
        told.user(f"I am looking for a {kind} with a garden, {filler()}.", find["name"],
                  [intent, act("INFORM", "garden", "True")], garden=["True"])  # fmt: skip
        arguments = {town: city, "garden": "True"}
    else:
        told.user(f"Is there some {kind} to visit, {filler()}?", find["name"], [intent])
        arguments = {town: city}
    told.system("Which town do you have in mind?", [act("REQUEST", town)])
    told.user(f"In {city.upper()} {filler()}.", find["name"], [act("INFORM", town, city)], **{town: [city]})
    told.system(f"There is {name} in {city}.", [act("OFFER", place, name)], (find["name"], arguments))
    fact = rng.choice(FACTS)
    told.user(f"What is its {fact}, {filler()}?", find["name"], [act("REQUEST", fact)])
    told.system("It is 555 01 23.", [act("INFORM", fact, "555 01 23")])
    acts = [act("INFORM_INTENT", "intent", book["name"]), act("SELECT", place, name), act("INFORM", "day", spoken)]
    told.user(f"Book it {spoken} {filler()}.", book["name"], acts, **{place: [name], "day": [spoken]})
    told.system(f"Shall I book {name} {spoken}?", [act("CONFIRM", place, name), act("CONFIRM", "day", spoken)])
    told.user(f"Yes, {filler()}.", book["name"], [act("AFFIRM")], seats=["2"])
    told.system("It is booked.", [act("NOTIFY_SUCCESS")], (book["name"], {place: name, "day": day, "seats": "2"}))
    told.user(f"Thanks, that was all {filler()}.", book["name"], [act("THANK_YOU"), act("GOODBYE")])
    told.system(f"Have a good day, number {number}.", [act("GOODBYE")])
    return {"dialogue_id": f"{number // 50}_{number:05d}", "services": [schema["service_name"]], "turns": told.turns}


KINDS = {"Cafes": "cafe", "Gyms": "gym", "Parks": "park", "Labs": "lab", "Ports": "port", "Inns": "inn", "Zoos": "zoo"}
TRAIN = [service(domain, 1, place, "town") for domain, place in KINDS.items()]
DEV = [service("Cafes", 1, "cafe", "town"), service("Pools", 1, "pool", "place")]
TEST = [
    *TRAIN[:2],
    service("Farms", 1, "farm", "village"),
    service("Mines", 1, "mine", "valley"),
    service("Docks", 1, "dock", "bay"),
]


def write(folder: Path, sizes: tuple[int, int, int] = (120, 60, 80)) -> Path:
    """The data set, its dialogues gzipped in training and plain elsewhere."""
    counter = itertools.count()
    for (split, schemas), size in zip({"train": TRAIN, "dev": DEV, "test": TEST}.items(), sizes, strict=True):
        place = folder / "sgd" / split
        place.mkdir(parents=True)
        (place / "schema.json").write_text(json.dumps(schemas))
        for wording in range(1, 6):
            there = folder / "sgd/sgd_x/data" / f"v{wording}" / split
            there.mkdir(parents=True)
            (there / "schema.json").write_text(json.dumps([reworded(schema, wording) for schema in schemas]))
        rng = random.Random(split)
        found = [dialogue(schemas[k % len(schemas)], next(counter), rng) for k in range(size)]
        if split == "train":
            (place / "dialogues_001.json.gz").write_bytes(gzip.compress(json.dumps(found).encode()))
        else:
            (place / "dialogues_001.json").write_text(json.dumps(found))
    return folder
