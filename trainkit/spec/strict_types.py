"""A base of models whose numbers are numbers: neither `true` nor "3" is 3, as the JSON schema of the model says."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

INT64 = 2**63


def _make_strict(schema: Any) -> None:
    """Change the schemas inside of a model's core schema in place; what is referred to is left alone."""
    for name, value in schema.items():
        if name not in ("metadata", "default", "expected", "config", "cls"):
            schema[name] = _strict(value)


def _strict(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_strict(item) for item in value)
    if not isinstance(value, dict):
        return value
    match value.get("type"):
        case "function-before" if _is_strict(value["function"]["function"]):
            return value  # pydantic hands out a model's schema again wherever the model is used
        case "int" if not value.get("strict"):
            whole = {**value, "strict": True}
            return core_schema.no_info_before_validator_function(_as_integer, whole)
        case "float":
            number = {**value, "strict": True}
            return core_schema.no_info_before_validator_function(_as_python, number)
        case "literal" if any(type(item) is int for item in value["expected"]):
            return core_schema.no_info_before_validator_function(partial(_as_choice, value["expected"]), value)
        case "bool":
            return {**value, "strict": True}
    _make_strict(value)
    return value


def _is_strict(function: Any) -> bool:
    return getattr(function, "func", function) in (_as_integer, _as_python, _as_choice)


def _as_python(value: Any) -> Any:
    """An integer of another library, such as numpy's, as Python's; anything else as it is."""
    if isinstance(value, int | float | str) or not hasattr(value, "__index__"):
        return value
    return operator.index(value)


def _as_choice(expected: list[Any], value: Any) -> Any:
    """The integer among the choices; true is not 1."""
    if isinstance(value, bool) and not any(item is value for item in expected):
        raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, expected))})
    return _as_integer(value)


def _as_integer(value: Any) -> Any:
    """The same, and `5.0` as 5."""
    if isinstance(value, float) and value.is_integer() and abs(value) < INT64:
        return int(value)
    return _as_python(value)


class StrictTypes(BaseModel):
    """Refuses booleans and text where a number is expected, and numbers and text where a boolean is.

    pydantic's own `strict` would also refuse `5.0` for a whole number, which JSON Schema takes for one, lists for tuples
    and numpy's integers. Nested models keep their own rule.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _make_strict(handler.resolve_ref_schema(schema))
        return schema
