"""JSON schemas as pydantic makes them, completed where they would allow what the models refuse."""

from __future__ import annotations

from typing import Any

INT32, INT64 = 2**31, 2**63


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document, such as a schema or an OpenAPI description, with every schema in it completed.

    - A mapping whose keys have a pattern has no other keys.
    - A union of kinds needs the `kind`, which has a default in the single model.
    - An integer has at most 64 bits, and says so where it may have more than 32, for clients in other languages.
    """
    definitions = document.get("$defs") or document.get("components", {}).get("schemas", {})
    for kinds in _unions(document):
        for member in kinds:
            name = member.get("$ref", "").rpartition("/")[2]
            model = definitions.get(name, member)
            required = model.setdefault("required", [])
            if "kind" not in required:
                required.append("kind")
    result: dict[str, Any] = _completed(document)
    return result


def _unions(node: Any) -> list[list[dict[str, Any]]]:
    """The members of every union that is told apart by `kind`."""
    if isinstance(node, list):
        return [found for item in node for found in _unions(item)]
    if not isinstance(node, dict):
        return []
    found = [found for item in node.values() for found in _unions(item)]
    if isinstance(node.get("discriminator"), dict) and node["discriminator"].get("propertyName") == "kind":
        found.append(node["oneOf"])
    return found


def _completed(node: Any) -> Any:
    if isinstance(node, list):
        return [_completed(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {name: _completed(value) for name, value in node.items()}
    patterns = node.get("patternProperties")
    if isinstance(patterns, dict) and len(patterns) == 1 and "additionalProperties" not in node:
        ((pattern, value),) = node.pop("patternProperties").items()
        node["propertyNames"] = {**node.get("propertyNames", {}), "pattern": pattern}
        node["additionalProperties"] = value
    if node.get("type") == "integer" and "format" not in node:
        highest = node.get("maximum", node.get("exclusiveMaximum"))
        if not isinstance(highest, int | float) or highest > INT32:
            node["format"] = "int64"
        if "maximum" not in node and "exclusiveMaximum" not in node:
            node["maximum"] = INT64 - 1
        if "minimum" not in node and "exclusiveMinimum" not in node:
            node["minimum"] = -INT64
    return node
