"""In: calls written like Python's, ``[Name(key='value'), Other(n=2)]``. Out: the calls.

Names of tools and arguments may be what Python's may not (``Market Trends API``, ``from``, ``user-id``); a tool that
the caller knows may have brackets in its name (``Tide (metric)``). Values are literals of Python or JSON; a bare word
(``city=Bern``) is none.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable
from typing import Any

from toolformer.data.sources.call_rows import UnusableError
from toolformer.records import ToolCall

UNREADABLE = "gold: a call that cannot be read"
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[()\[\]{},]|[^()\[\]{},'"]+""", re.DOTALL)
_ARGUMENT = re.compile(r"\s*([^()\[\]{},='\"\s*]+)\s*=(.*)", re.DOTALL)
_WORDS = {"true": True, "false": False, "null": None}


def read_calls(text: str, names: Iterable[str] = ()) -> tuple[ToolCall, ...]:
    """The calls of ``text``.

    Raises:
        UnusableError: it is not a list of at least one call.
    """
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        raise UnusableError(UNREADABLE)
    known = sorted(names, key=len, reverse=True)
    calls = []
    for part in map(str.strip, _parts(text[1:-1])):
        name = next((name for name in known if part.startswith(f"{name}(")), part.partition("(")[0])
        inside = part[len(name) :]
        if not name.strip() or set(name) & set("[]{}'\"") or not (inside.startswith("(") and inside.endswith(")")):
            raise UnusableError(UNREADABLE)
        calls.append(ToolCall(name.strip(), _arguments(inside[1:-1])))
    if not calls:
        raise UnusableError(UNREADABLE)
    return tuple(calls)


def _parts(text: str) -> list[str]:
    """The text, split at the commas outside brackets and quotes; white space behind the last one is no part."""
    parts, start, at, depth = [], 0, 0, 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:  # a quote that does not close
            raise UnusableError(UNREADABLE)
        at, mark = token.end(), token.group()
        depth += (mark in "([{") - (mark in ")]}")
        if depth < 0:
            raise UnusableError(UNREADABLE)
        if mark == "," and depth == 0:
            parts.append(text[start : at - 1])
            start = at
    if depth:
        raise UnusableError(UNREADABLE)
    return [*parts, text[start:]] if text[start:].strip() else parts


def _arguments(text: str) -> dict[str, Any]:
    """The arguments of ``key=value, ...``."""
    found: dict[str, Any] = {}
    for part in _parts(text):
        argument = _ARGUMENT.fullmatch(part)
        if argument is None or argument[1] in found:
            raise UnusableError(UNREADABLE)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # a backslash in a text
                found[argument[1]] = _value(ast.parse(argument[2].strip(), mode="eval").body)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
            raise UnusableError(UNREADABLE) from error
    return found


def _value(node: ast.expr) -> Any:
    """A literal; JSON's words for truth and nothing too."""
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict) and None not in node.keys:  # {**more} has no key
        return {ast.literal_eval(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    return ast.literal_eval(node)
