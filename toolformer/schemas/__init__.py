"""In: tool descriptions in several dialects, argument values. Out: `Tool`s with JSON-Schema parameters, typed equality.

Everything that has to know what a schema means: reading, checking, comparing by type, and shortening without silence.
"""

from toolformer.schemas.checking import Schema, parameters_of, required_of, validate
from toolformer.schemas.comparing import (
    item_schema,
    property_schema,
    values_equal,
    values_equal_lenient,
    without_defaults,
)
from toolformer.schemas.dialects import (
    canonical,
    read_tool,
    resolve,
    tool_from_flat,
    tool_from_lists,
    tool_from_mcp,
    tool_from_openai,
)
from toolformer.schemas.fitting import fits
from toolformer.schemas.forms import admits_null, blanks, filled, form, gaps
from toolformer.schemas.shortening import Shortened, shorten
from toolformer.schemas.type_text import TYPES, is_optional, type_to_schema

__all__ = [
    "TYPES",
    "Schema",
    "Shortened",
    "admits_null",
    "blanks",
    "canonical",
    "fits",
    "filled",
    "form",
    "gaps",
    "is_optional",
    "item_schema",
    "parameters_of",
    "property_schema",
    "read_tool",
    "required_of",
    "resolve",
    "shorten",
    "tool_from_flat",
    "tool_from_lists",
    "tool_from_mcp",
    "tool_from_openai",
    "type_to_schema",
    "validate",
    "values_equal",
    "values_equal_lenient",
    "without_defaults",
]
