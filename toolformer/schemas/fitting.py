"""In: a tool, the arguments of a call. Out: whether they fit its schema, in time that grows with their length only.

``re`` takes years for ``^(a+)+$`` against thirty characters, and both may be anyone's. So a ``pattern`` is matched by
RE2, whose time is linear; patterns that only a backtracking engine can match (look-around, back references) and those
of property names are not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from toolformer.records import Tool


def fits(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Whether the arguments are valid by the tool's JSON Schema.

    >>> code = {"type": "string", "pattern": "^(a+)+$"}
    >>> tool = Tool("f", "", {"type": "object", "properties": {"code": code}})
    >>> fits(tool, {"code": "a" * 40}), fits(tool, {"code": "a" * 40 + "!"}), fits(tool, {"code": 1})
    (True, False, False)
    """
    return _validator(tool).is_valid(dict(arguments))


@lru_cache(maxsize=4096)
def _validator(tool: Tool) -> Any:
    return _kind()(tool.parameters)


@cache
def _kind() -> Any:
    from jsonschema import Draft202012Validator, validators

    additional = Draft202012Validator.VALIDATORS["additionalProperties"]

    def without_patterns(validator: Any, value: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
        return iter(()) if "patternProperties" in schema else additional(validator, value, instance, schema)

    changed = {
        "pattern": _pattern,
        "patternProperties": _unjudged,
        "unevaluatedProperties": _unjudged,
        "additionalProperties": without_patterns,
    }
    return validators.extend(Draft202012Validator, changed)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if validator.is_type(instance, "string") and not _found(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _unjudged(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
    return iter(())


def _found(pattern: str, text: str) -> bool:
    import pyarrow
    import pyarrow.compute

    compute: Any = pyarrow.compute  # its functions are made when it is imported: no checker knows them
    try:
        return compute.match_substring_regex(pyarrow.scalar(text), pattern).as_py()
    except pyarrow.ArrowInvalid:
        return True
