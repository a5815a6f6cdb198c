"""In: calls written like Python's, ``[Name(key='value'), Other(n=2)]``. Out: the calls.

A name may be any text without brackets, or one of the names that the caller knows (``Tide (metric)``). Values are
literals of Python or JSON; a bare word (``city=Bern``) is none.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable
from typing import Any

from toolformer.data.sources.call_rows import UnusableError
from toolformer.records import ToolCall

UNREADABLE = "gold: a call that cannot be read"
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
    calls: list[ToolCall] = []
    rest = text[1:-1].strip()
    while rest:
        name = next((name for name in known if rest.startswith(f"{name}(")), rest.partition("(")[0])
        end = _end(rest, len(name))
        calls.append(ToolCall(name.strip(), _arguments(rest[len(name) : end])))
        rest = rest[end:].lstrip()
        if rest and not rest.startswith(","):
            raise UnusableError(UNREADABLE)
        rest = rest[1:].lstrip()
    if not calls or any(not call.name or set(call.name) & set("[]{}'\"") for call in calls):
        raise UnusableError(UNREADABLE)
    return tuple(calls)


def _end(text: str, at: int) -> int:
    """Behind the bracket that closes the one at ``at``; brackets in quotes do not count."""
    depth, quote = 0, ""
    while at < len(text):
        mark = text[at]
        if quote:
            at += mark == "\\"
            quote = "" if mark == quote else quote
        elif mark in "'\"":
            quote = mark
        else:
            depth += (mark in "([{") - (mark in ")]}")
            if depth <= 0:
                break
        at += 1
    if at >= len(text) or text[at] != ")":
        raise UnusableError(UNREADABLE)
    return at + 1


def _arguments(text: str) -> dict[str, Any]:
    """The arguments of ``(key=value, ...)``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # a backslash in a text
            call = ast.parse(f"f{text}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise UnusableError(UNREADABLE)
        found = {keyword.arg: _value(keyword.value) for keyword in call.keywords if keyword.arg}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UnusableError(UNREADABLE) from error
    if len(found) < len(call.keywords):  # a key twice, or **more
        raise UnusableError(UNREADABLE)
    return found


def _value(node: ast.expr) -> Any:
    """A literal; JSON's words for truth and nothing too."""
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    return ast.literal_eval(node)
