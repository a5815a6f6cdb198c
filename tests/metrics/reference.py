"""In: rows. Out: every metric from its definition, by brute force over all alignments; shares no code with toolformer.

Slow and plain on purpose: values become hashable canonical forms, calls are matched by trying every permutation.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter, defaultdict
from fractions import Fraction
from typing import Any

import jsonschema

BFCL = " ,./-_*^"


def form(value: Any, schema: dict[str, Any], lenient: bool = False) -> Any:
    """A hashable form; two values are equal under ``schema`` if their forms are."""
    kinds = schema.get("type", [])
    if value is None or isinstance(value, bool):
        return ("atom", value is None, bool(value))
    if isinstance(value, str):
        text = unicodedata.normalize("NFC", value)
        if lenient:
            text = unicodedata.normalize("NFC", "".join(c for c in text.lower() if c not in BFCL).replace("'", '"'))
        return ("text", text)
    if isinstance(value, int | float):
        kind = "number" if "number" in ([kinds] if isinstance(kinds, str) else kinds) else type(value).__name__
        return (kind, Fraction(value))
    if isinstance(value, list):
        return ("list", *(form(item, schema.get("items", {}), lenient) for item in value))
    kept = strip(value, schema).items()
    return ("map", frozenset((k, form(v, schema.get("properties", {}).get(k, {}), lenient)) for k, v in kept))


def strip(arguments: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Without optional keys that state their default."""
    out = {}
    for key, value in arguments.items():
        spec = schema.get("properties", {}).get(key, {})
        optional = "default" in spec and key not in schema.get("required", [])
        if not (optional and form(value, spec) == form(spec["default"], spec)):
            out[key] = value
    return out


def leaves(value: Any, schema: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    if isinstance(value, list) and value:
        return [leaf for item in value for leaf in leaves(item, schema.get("items", {}))]
    if isinstance(value, dict):
        inner = strip(value, schema)
        specs = schema.get("properties", {})
        return [leaf for k, v in inner.items() for leaf in leaves(v, specs.get(k, {}))] or [({}, schema)]
    return [(value, schema)]


def all_leaves(arguments: dict[str, Any], schema: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    return [leaf for k, v in arguments.items() for leaf in leaves(v, schema.get("properties", {}).get(k, {}))]


def wanted_of(gold: Any, schema: dict[str, Any]) -> dict[str, Any]:
    bare = strip(gold.arguments, schema)
    return {k: v for k, v in gold.arguments.items() if k in bare or gold.accepted.get(k)}


def most_matches(gold: list[tuple[Any, dict[str, Any]]], given: list[Any], lenient: bool) -> int:
    """The largest number of gold leaves with an equal given leaf of their own, by trying everything."""
    if not gold or not given:
        return 0
    (value, schema), rest = gold[0], gold[1:]
    best = most_matches(rest, given, lenient)
    for i, other in enumerate(given):
        if form(value, schema, lenient) == form(other, schema, lenient):
            best = max(best, 1 + most_matches(rest, given[:i] + given[i + 1 :], lenient))
    return best


def side_by_side(gold: Any, predicted: Any, schema: dict[str, Any], lenient: bool) -> dict[str, int]:
    specs = schema.get("properties", {})
    wanted, given = wanted_of(gold, schema), strip(predicted.arguments, schema)
    right_keys, stated = set(), set()
    for key, value in wanted.items():
        spec = specs.get(key, {})
        forms = {form(v, spec, lenient) for v in [value, *gold.accepted.get(key, [])]}
        if key in given:
            if form(given[key], spec, lenient) in forms:
                right_keys.add(key)
                stated.add(key)
        elif key in gold.omittable:
            right_keys.add(key)
        elif (
            "default" in spec
            and key not in schema.get("required", [])
            and form(spec["default"], spec, lenient) in forms
        ):
            right_keys.add(key)
    tp, fp, fn = len(right_keys), len(given) - len(stated), len(wanted) - len(right_keys)
    left = all_leaves({k: v for k, v in wanted.items() if k not in right_keys}, schema)
    spare = [value for value, _ in all_leaves({k: v for k, v in given.items() if k not in stated}, schema)]
    elsewhere = most_matches(left, spare, lenient)
    return {
        "exact": int(fp == fn == 0),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "found": len(all_leaves({k: wanted[k] for k in right_keys}, schema)) + elsewhere,
        "right": len(all_leaves({k: given[k] for k in stated}, schema)) + elsewhere,
        "stated": len(stated),
        "saved": len(wanted) + len(given) - fp - fn,
    }


def best_alignment(gold: list[Any], predicted: list[Any], schema: dict[str, Any], lenient: bool) -> Counter[str]:
    """The best of all alignments of calls of one tool: exact first, then right pairs, and so on."""
    pairs = {(i, j): side_by_side(g, p, schema, lenient) for i, g in enumerate(gold) for j, p in enumerate(predicted)}
    small, large = sorted((len(gold), len(predicted)))
    best: tuple[Any, Counter[str]] | None = None
    for chosen in itertools.permutations(range(large), small):
        total: Counter[str] = Counter()
        for i, j in enumerate(chosen):
            total.update(pairs[(i, j) if len(gold) <= len(predicted) else (j, i)])
        rank = [total[k] for k in ("exact", "tp", "saved", "found", "right")] + [-total["fp"] - total["fn"]]
        if best is None or rank > best[0]:
            best = (rank, total)
    return best[1] if best else Counter()


def judge(row: Any) -> Counter[str]:
    """The sums that all metrics are made of."""
    predicted = row.predicted if isinstance(row.predicted, list) else []
    broken = not isinstance(row.predicted, list)
    tools = {tool.name: tool for tool in row.tools}
    count: Counter[str] = Counter()
    loose = 0
    for name in {call.name for call in row.gold}:
        schema = tools[name].parameters
        ours, theirs = [c for c in row.gold if c.name == name], [c for c in predicted if c.name == name]
        count.update(best_alignment(ours, theirs, schema, False))
        loose += best_alignment(ours, theirs, schema, True)["exact"]
        count["named"] += min(len(ours), len(theirs))
        for call in ours:
            count["gold_pairs"] += len(wanted_of(call, schema))
            count["gold_leaves"] += len(all_leaves(wanted_of(call, schema), schema))
    for call in predicted:
        schema = tools[call.name].parameters if call.name in tools else {}
        count["given_pairs"] += len(strip(call.arguments, schema))
        count["given_leaves"] += len(all_leaves(strip(call.arguments, schema), schema))
        if call.name not in tools:
            count["unknown_names"] += 1
            continue
        closed = {"additionalProperties": False, **schema}
        count["valid"] += not list(jsonschema.Draft202012Validator(closed).iter_errors(call.arguments))
        count["keys"] += len(call.arguments)
        count["unknown_keys"] += len(set(call.arguments) - set(schema.get("properties", {})))
        count["required"] += len(schema.get("required", []))
        count["missing"] += len(set(schema.get("required", [])) - set(call.arguments))
    names = Counter(c.name for c in row.gold) == Counter(c.name for c in predicted) and not broken
    count["rows"], count["calls"], count["given"], count["broken"] = 1, len(row.gold), len(predicted), broken
    count["due"], count["names"] = bool(row.gold), names
    same = not broken and len(row.gold) == len(predicted)
    count["em"], count["em_lenient"] = same and count["exact"] == len(row.gold), same and loose == len(row.gold)
    return count


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def reference(rows: list[Any]) -> dict[str, float]:
    """Every metric by its key."""
    counts = [judge(row) for row in rows]
    total: Counter[str] = sum(counts, Counter())  # drops what is not positive: nothing here is negative
    due = [(row, c) for row, c in zip(rows, counts, strict=True) if c["due"]]
    idle = [(row, c) for row, c in zip(rows, counts, strict=True) if not c["due"]]
    wrong_pairs = sum(fp_of(c) for c in counts) + total["gold_pairs"] - total["tp"]
    per_tool: dict[str, Counter[str]] = defaultdict(Counter)
    for row, _ in due:
        given = Counter(c.name for c in row.predicted) if isinstance(row.predicted, list) else Counter()
        for tool in row.tools:
            want = sum(c.name == tool.name for c in row.gold)
            per_tool[tool.text].update({"want": want, "got": min(want, given[tool.name])})
    tool_means = [c["got"] / c["want"] for c in per_tool.values() if c["want"]]
    row_f1 = []
    for c in counts:
        if c["calls"] or c["given"] or c["broken"]:
            bad = fp_of(c) + c["gold_pairs"] - c["tp"]
            row_f1.append(2 * c["tp"] / (2 * c["tp"] + bad) if c["tp"] + bad else float(c["names"]))
    out = {
        "tsa": ratio(sum(c["names"] for _, c in due), len(due)),
        "tsa_micro": ratio(total["named"], total["calls"]),
        "tsa_macro": ratio(sum(tool_means), len(tool_means)),
        "chance": ratio(sum(1 / len(row.tools) for row, _ in due), len(due)),
        "wtr": ratio(sum(c["given"] > 0 and not c["names"] for _, c in due), len(due)),
        "mfr": ratio(sum(c["broken"] for _, c in due), len(due)),
        "fnr": ratio(sum(not c["given"] and not c["broken"] for _, c in due), len(due)),
        "pf1": ratio(2 * total["tp"], 2 * total["tp"] + wrong_pairs),
        "pf1_macro": ratio(sum(row_f1), len(row_f1)),
        "pf1_named": ratio(2 * total["tp"], 2 * total["tp"] + total["fp"] + total["fn"]),
        "pf1_recall": ratio(total["tp"], total["gold_pairs"]),
        "vr": ratio(total["found"], total["gold_leaves"]),
        "vp": ratio(total["right"], total["given_leaves"]),
        "em": ratio(sum(c["em"] for _, c in due), len(due)),
        "em_all": ratio(total["em"], len(rows)),
        "em_lenient": ratio(sum(c["em_lenient"] for _, c in due), len(due)),
        "fpr": ratio(sum(c["given"] > 0 or c["broken"] for _, c in idle), len(idle)),
        "schema_valid": ratio(total["valid"], total["given"]),
        "hallucinated_names": ratio(total["unknown_names"], total["given"]),
        "hallucinated_keys": ratio(total["unknown_keys"], total["keys"]),
        "missing_required": ratio(total["missing"], total["required"]),
    }
    for stratum in ("small_talk", "near_miss", "tool_missing", "parameter_missing"):
        those = [c for row, c in idle if row.stratum == stratum]
        out[f"fpr_{stratum}"] = ratio(sum(c["given"] > 0 or c["broken"] for c in those), len(those))
    return out


def fp_of(count: Counter[str]) -> int:
    """Wrong pairs of a row's predicted calls: all given ones but those that are right where they stand."""
    return count["given_pairs"] - count["stated"]
