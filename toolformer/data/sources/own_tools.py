"""In: a file or objects that describe one's own tools. Out: `Tool`s, and what was left out of them.

A file is OpenAI's ``tools``, an MCP server's answer to ``tools/list``, or an OpenAPI 3 document, in JSON or YAML.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from toolformer.data.sources import openapi
from toolformer.data.sources.files import strict_json
from toolformer.records import Tool
from toolformer.schemas import read_tool, tool_from_openai, validate

WANTED = "write a list of tools as for OpenAI, MCP's answer to tools/list, or an OpenAPI 3 document"
HOLDERS = ("result", "tools", "functions")  # MCP wraps its answer; OpenAI's request has tools, once functions


class ToolFile(NamedTuple):
    """The tools of a file, and a line for everything in it that is none of them."""

    tools: list[Tool]
    left_out: list[str]


def read(path: str | Path) -> ToolFile:
    """The tools of a file, whichever of the kinds it is; each one checked.

    Raises:
        FileNotFoundError: there is none.
        ValueError: names the file, the tool's place, the field and its value.
    """
    content = _content(Path(path))
    if isinstance(content, Mapping) and ("openapi" in content or "swagger" in content):
        return ToolFile(*openapi.read(content, str(path)))
    left_out = []
    for key in HOLDERS:
        if isinstance(content, Mapping) and key in content:
            if content.get("nextCursor"):
                left_out.append(
                    f"{path}: nextCursor is {content['nextCursor']!r}: the server has more tools than these"
                )
            content = content[key]
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path}: holds {content!r:.60}; {WANTED}")
    return ToolFile([read_tool(tool, f"{path}: tools[{i}]") for i, tool in enumerate(content)], left_out)


def tool_from(tool: Tool | Mapping[str, Any] | Callable[..., Any], place: str) -> Tool:
    """A tool from a ``Tool``, from OpenAI's or MCP's form, or from a Python function.

    Raises:
        ValueError: names ``place``, the field and its value.
    """
    if isinstance(tool, Tool):
        validate(tool, place)
        return tool
    return tool_from_function(tool, place) if callable(tool) else read_tool(tool, place)


def tool_from_function(function: Callable[..., Any], place: str) -> Tool:
    """A tool from a function's name, type hints and docstring (Google style, every argument described).

    Raises:
        ValueError: the function lacks one of them, or takes what cannot be written as JSON.
    """
    from transformers.utils import DocstringParsingException, TypeHintParsingException, get_json_schema

    name = getattr(function, "__name__", type(function).__name__)
    try:
        row = get_json_schema(function)["function"]
        arguments = inspect.signature(function).parameters
    except (DocstringParsingException, TypeHintParsingException, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{place}: function {name!r}: {said}; give it type hints and describe each argument") from None
    for key, spec in row["parameters"].get("properties", {}).items():
        default = arguments[key].default
        if default is not inspect.Parameter.empty:
            spec["default"] = default
    return tool_from_openai({key: row[key] for key in ("name", "description", "parameters")}, place)


class _Yaml(yaml.SafeLoader):
    """YAML as OpenAPI means it (1.2's JSON schema): a date or a ``no`` is text."""


_TAG = "tag:yaml.org,2002:"
_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag not in (_TAG + "timestamp", _TAG + "bool")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(_TAG + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def _content(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() in (".yaml", ".yml"):
            return yaml.load(text, _Yaml)  # noqa: S506 - a SafeLoader
        return strict_json(text, f"{path}: no JSON", WANTED)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: no YAML: {' '.join(str(error).split())}; {WANTED}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no JSON: {error}; {WANTED}") from error
