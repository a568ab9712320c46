"""Check examples of the OpenAPI document against the schemas beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from service.errors import MEDIA_TYPE as PROBLEM
from service.event_stream import EVENTS


def contents(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return place (`request`, or a status) and media type -> content of an operation, problem documents left out."""
    bodies = {"request": operation.get("requestBody", {}), **operation["responses"]}
    return {
        f"{place} {media_type}": content
        for place, body in bodies.items()
        for media_type, content in body.get("content", {}).items()
        if media_type != PROBLEM
    }


def example_errors(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    """Yield what keeps an example of the operation from being one of its schema."""
    for place, content in contents(operation).items():
        for example in content.get("examples", {}).values():
            for error in schema_errors(document, content["schema"], example["value"]):
                yield f"{place} {example['summary']!r} {error}"


def schema_errors(document: dict[str, Any], schema: dict[str, Any], value: Any) -> Iterator[str]:
    """Yield what keeps the value from being one of a schema of the document."""
    registry: Registry[Any] = Registry().with_resource("openapi", Resource.from_contents(document, DRAFT202012))
    validator = Draft202012Validator(
        _absolute(schema), registry=registry, format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    for error in validator.iter_errors(value):
        yield f"{error.json_path}: {error.message[:300]}"


def event_schemas(document: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """Return event -> schema of its data, of the stream at that address."""
    content = document["paths"][path]["get"]["responses"]["200"]["content"]["text/event-stream"]
    return {name: event["schema"] for name, event in content[EVENTS].items()}


def without_example(operation: dict[str, Any]) -> list[str]:
    """Return the JSON bodies of the operation that have no example."""
    return [
        place
        for place, content in contents(operation).items()
        if place.endswith(" application/json") and not content.get("examples")
    ]


def _absolute(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_absolute(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: f"openapi{value}" if name == "$ref" and isinstance(value, str) else _absolute(value)
        for name, value in schema.items()
    }
