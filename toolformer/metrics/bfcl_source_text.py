"""In: a value written as Java or JavaScript source text, and its type. Out: the value, or the text where it is none.

BFCL lets models write such values in their language. Ours read JSON Schemas and may as well answer in JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?[lLfFdDn]?")
_ARRAY = re.compile(r"new\s+\w+(?:<\w*>)?\s*\[\s*\]\s*\{(.*)\}", re.DOTALL)
_LIST = re.compile(r"(?:new\s+ArrayList<\w*>\s*\(\s*)?(?:Arrays\.asList|List\.of)\s*\(([^()]*)\)\s*\)?", re.DOTALL)
_ADDS = re.compile(r"new\s+ArrayList<\w*>\s*\(\s*\)\s*(?:\{\{(.*)\}\})?", re.DOTALL)
_PUTS = re.compile(r"new\s+HashMap<[^>]*>\s*\(\s*\)\s*(?:\{\{(.*)\}\})?", re.DOTALL)
_PIECE = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^,"']+)\s*(?:,|$)""")
_ADD = re.compile(r"""add\(("(?:[^"\\]|\\.)*"|'.'|[^)]*)\)""")
_PUT = re.compile(r"""put\("((?:[^"\\]|\\.)*)"\s*,\s*("(?:[^"\\]|\\.)*"|'.'|[^)]*)\)""")
_JS_PIECE = re.compile(r"""("(?:[^"\\]|\\.)*")|'((?:[^'\\]|\\.)*)'|([A-Za-z_$][\w$]*)(\s*:)?""")


def read_java(text: str, kind: type) -> Any:
    """``text`` as a value of ``kind`` where it is one; a variable's name stays a text.

    >>> read_java("5L", int), read_java("new int[]{1, 2}", list), read_java('Arrays.asList("a", "b,c")', list)
    (5, [1, 2], ['a', 'b,c'])
    >>> read_java('new HashMap<String, Object>() {{ put("limit", 50); put("all", true); }}', dict)
    {'limit': 50, 'all': True}
    >>> read_java("mapController", dict)
    'mapController'
    """
    text = text.strip()
    if kind is list:
        if found := _ARRAY.fullmatch(text) or _LIST.fullmatch(text):
            return [_java_literal(piece) for piece in _PIECE.findall(found[1])]
        if found := _ADDS.fullmatch(text):
            return [_java_literal(piece) for piece in _ADD.findall(found[1] or "")]
        return text
    if kind is dict:
        found = _PUTS.fullmatch(text)
        return {key: _java_literal(value) for key, value in _PUT.findall(found[1] or "")} if found else text
    return _scalar(text, kind)


def read_javascript(text: str, kind: type) -> Any:
    """``text`` as a value of ``kind`` where it is one; a variable's name stays a text.

    >>> read_javascript("true", bool), read_javascript("['a', 2]", list), read_javascript("{method: 'GET'}", dict)
    (True, ['a', 2], {'method': 'GET'})
    >>> read_javascript("dataPoints", list)
    'dataPoints'
    """
    text = text.strip()
    if kind not in (list, dict):
        return _scalar(text, kind)
    try:
        read = json.loads(_JS_PIECE.sub(_as_json, text))
    except (ValueError, RecursionError):
        return text
    return read if type(read) is kind else text


def _as_json(found: re.Match[str]) -> str:
    double, single, word, colon = found.groups()
    if double is not None:
        return double
    if single is not None:
        return json.dumps(single.replace("\\'", "'"))
    return f"{json.dumps(word)}{colon}" if colon else word


def _scalar(text: str, kind: type) -> Any:
    value = _java_literal(text)
    if kind is float and type(value) is int:
        return float(value)
    return value if type(value) is kind else text


def _java_literal(text: str) -> Any:
    """A text in quotes, a number with or without its suffix, true or false; anything else stays as it is."""
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if not _NUMBER.fullmatch(text):
        return text
    bare = text.rstrip("lLfFdDn")
    is_float = "." in bare or "e" in bare.lower() or text[-1] in "fFdD"
    return float(bare) if is_float else int(bare)
