"""In: an OpenAPI 3 document. Out: one tool an operation, and what could not become one, each with its reason.

A tool is named by its ``operationId``. Its parameters are the operation's path, query and header parameters and the
properties of its JSON request body, in one object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from toolformer.records import Tool
from toolformer.schemas import canonical, resolve, validate

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
PLACES = ("path", "query", "header")
NOT_PARAMETERS = ("accept", "content-type", "authorization")  # OpenAPI says these headers are none
_JSON = re.compile(r"application/(?:[\w.-]+\+)?json|\*/\*")
_PROSE = ("xml", "externalDocs", "discriminator", "readOnly", "writeOnly")


def read(document: Mapping[str, Any], place: str) -> tuple[list[Tool], list[str]]:
    """The tools of a document in its order, and a line for everything that is left out.

    Raises:
        ValueError: the document is of another version, or no operation can be read.
    """
    version = document.get("openapi", document.get("swagger"))
    if not str(version).startswith("3."):
        raise ValueError(f"{place}: OpenAPI is {version!r}; convert the document to version 3")
    paths = document.get("paths")
    if not isinstance(paths, Mapping):
        raise ValueError(f"{place}: paths is {paths!r:.60}; an object of path: operations is wanted")
    tools: dict[str, Tool] = {}
    left_out: list[str] = []
    for path, item in paths.items():
        try:
            operations = list(_operations(document, item, f"{place}: {path}"))
        except ValueError as error:
            left_out.append(str(error))
            continue
        for method, operation in operations:
            where = f"{place}: {method.upper()} {path}"
            try:
                tool, omitted = _Operation(document, operation, where).tool(f"{method}{path}")
                if tool.name in tools:
                    raise ValueError(f"{where}: operationId is {tool.name!r}, as of an earlier one; rename it")
            except ValueError as error:
                left_out.append(str(error))
                continue
            tools[tool.name] = tool
            left_out += omitted
    if not tools:
        raise ValueError(left_out[0] if left_out else f"{place}: paths holds no operation; add one")
    return list(tools.values()), left_out


def _operations(document: Mapping[str, Any], item: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The operations of a path; the path's own parameters come first in each, where it does not replace them."""
    item = _there(document, item, where)
    for method in METHODS:
        if method in item:
            operation = _there(document, item[method], where)
            parameters = [*_part(item, "parameters", list, where), *_part(operation, "parameters", list, where)]
            yield method, {**operation, "parameters": parameters}


def _part(node: Any, key: str, kind: type[list] | type[dict], where: str) -> Any:
    """What stands under ``key``, empty where nothing does."""
    value = node.get(key) if isinstance(node, Mapping) else node
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise ValueError(f"{where}: {key} is {value!r:.60}; {'a list' if kind is list else 'an object'} is wanted")
    return value


def _there(document: Mapping[str, Any], node: Any, where: str) -> Mapping[str, Any]:
    """The object that ``node`` is or refers to."""
    for _ in range(8):
        if not isinstance(node, Mapping):
            raise ValueError(f"{where}: is {node!r:.60}; an object is wanted")
        if "$ref" not in node:
            return node
        node = {**resolve(node["$ref"], where, "", document), **{k: v for k, v in node.items() if k != "$ref"}}
    raise ValueError(f"{where}: $ref is {node['$ref']!r}, which leads to itself; put the object there")


class _Operation:
    """One operation on its way to a tool; properties are collected first, then read as one schema."""

    def __init__(self, document: Mapping[str, Any], operation: Mapping[str, Any], where: str):
        self.document, self.operation, self.where = document, operation, where
        self.properties: dict[str, Any] = {}
        self.required: list[str] = []
        self.left_out: list[str] = []

    def tool(self, address: str) -> tuple[Tool, list[str]]:
        """The tool, and what of the operation is not in it; an operation without an id is named by ``address``."""
        name = self.operation.get("operationId", re.sub(r"\W+", "_", address).strip("_"))
        said = [str(self.operation.get(key) or "").strip() for key in ("summary", "description")]
        description = said[1] if said[1].startswith(said[0]) else f"{said[0].rstrip('.')}. {said[1]}".strip()
        self._parameters()
        self._body()
        schema = {"type": "object", "properties": self.properties, "required": self.required}
        tool = Tool(name, description, canonical(schema, self.where, "parameters", self.document))
        validate(tool, self.where)
        return tool, self.left_out

    def _add(self, name: str, place: str, schema: Mapping[str, Any], required: bool) -> None:
        """A property; where the name is taken, it is qualified by its place: ``id``, then ``body_id``."""
        name = f"{place}_{name}" if name in self.properties else name
        if name in self.properties:
            raise ValueError(f"{self.where}: parameter {name!r} is there twice; rename one")
        self.properties[name] = {key: value for key, value in schema.items() if key not in _PROSE}
        self.required += [name] if required else []

    def _parameters(self) -> None:
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for spec in self.operation["parameters"]:
            spec = _there(self.document, spec, f"{self.where}: parameters")
            found[str(spec.get("in")), str(spec.get("name"))] = spec
        for (place, name), spec in sorted(found.items(), key=lambda item: item[0][0] == "header"):
            if place not in PLACES:
                self.left_out.append(f"{self.where}: {place} parameter {name!r} is left to the client")
            elif not (place == "header" and name.lower() in NOT_PARAMETERS):
                content = next(iter(_part(spec, "content", dict, self.where).values()), None)
                schema = _part(spec if content is None else content, "schema", dict, f"{self.where}: {name}")
                said = {"description": spec["description"]} if "description" in spec else {}
                self._add(name, place, {**schema, **said}, place == "path" or spec.get("required") is True)

    def _body(self) -> None:
        if "requestBody" not in self.operation:
            return
        body = _there(self.document, self.operation["requestBody"], f"{self.where}: requestBody")
        kinds = _part(body, "content", dict, f"{self.where}: requestBody")
        kind = next((kind for kind in kinds if _JSON.match(kind)), None)
        if kind is None:
            raise ValueError(f"{self.where}: requestBody is {', '.join(kinds) or 'empty'}; only JSON can be a call")
        wanted = body.get("required") is True
        schema = _merged(self.document, _part(kinds[kind], "schema", dict, self.where), f"{self.where}: requestBody")
        if not isinstance(schema.get("properties"), Mapping):
            said = {"description": body["description"]} if "description" in body else {}
            self._add("body", "request", {**said, **schema}, wanted)
            return
        needed = _part(schema, "required", list, f"{self.where}: requestBody") if wanted else []
        for name, spec in schema["properties"].items():
            there = _there(self.document, spec, f"{self.where}: requestBody.{name}")
            if there.get("readOnly") is True:
                self.left_out.append(f"{self.where}: {name!r} of the body is read-only, so no call sends it")
                continue
            self._add(name, "body", spec, name in needed)


def _merged(document: Mapping[str, Any], schema: Any, where: str) -> Mapping[str, Any]:
    """A body's schema; one that is all of several objects is one object."""
    schema = _there(document, schema, where)
    if not isinstance(schema.get("allOf"), list):
        return schema
    parts = [_merged(document, part, where) for part in schema["allOf"]]
    parts.append({key: value for key, value in schema.items() if key != "allOf"})
    if not all(part.get("type", "object") == "object" and not {"anyOf", "oneOf"} & set(part) for part in parts):
        return schema
    properties = {name: spec for part in parts for name, spec in _part(part, "properties", dict, where).items()}
    required = [name for part in parts for name in _part(part, "required", list, where)]
    return {"type": "object", "properties": properties, "required": required}
