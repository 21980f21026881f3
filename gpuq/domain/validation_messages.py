"""What pydantic has against a value, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By pydantic's error type; the braces name members of its context.
WORDS = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "string_pattern_mismatch": "has a form or characters that are not possible here",
    "literal_error": "must be one of {expected}",
    "extra_forbidden": "is not known",
}


def complaint(error: Mapping[str, Any]) -> str:
    """Of one of `ValidationError.errors()`, without the name of the field: `must be at least 0`."""
    words = WORDS.get(error["type"])
    if words is None:
        return str(error["msg"]).removeprefix("Value error, ")
    return words.format_map({name: _short(value) for name, value in error.get("ctx", {}).items()})


def _short(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)
