"""Find what a new OpenAPI document breaks for clients of a released one.

    python -m tests.support.api_changes            # list what is broken
    python -m tests.support.api_changes --release  # make the present document the released one

The released document is kept without texts and examples. A request may only be allowed more, a response may only be
promised more: what clients send today must be taken tomorrow, and what they read must still be there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from service.openapi import operations
from tests.support.openapi_document import openapi_document

RELEASED = Path(__file__).parents[1] / "clients" / "released-openapi.json"
TEXTS = frozenset({"description", "summary", "example", "examples", "title", "x-enum-varnames", "headers"})
Schema = dict[str, Any]
Direction = Literal["request", "response"]
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
ANY = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})


def without_texts(node: Any, *, names: bool = False) -> Any:
    """Return a document without what only people read; `names`: the keys are names of fields and not keywords."""
    if isinstance(node, list):
        return [without_texts(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: without_texts(value, names=key in ("properties", "schemas", "paths"))
        for key, value in node.items()
        if names or key not in TEXTS
    }


def breaking_changes(released: Schema, present: Schema) -> list[str]:
    """Return a sentence for each change that breaks a client."""
    before, after = (
        {f"{method.upper()} {path}": operation for path, method, operation in operations(document)}
        for document in (released, present)
    )
    found = [f"{name}: the operation is gone" for name in before.keys() - after.keys()]
    comparison = _Comparison(released["components"]["schemas"], present["components"]["schemas"])
    for name in before.keys() & after.keys():
        found += [f"{name}: {text}" for text in comparison.operation(before[name], after[name])]
    gone = released["components"]["schemas"].keys() - present["components"]["schemas"].keys()
    found += [f"schema {name}: it is gone or renamed, and so is the class of generated clients" for name in gone]
    return sorted(set(found))


class _Comparison:
    def __init__(self, old: dict[str, Schema], new: dict[str, Schema]) -> None:
        self.old, self.new = old, new
        self.seen: set[tuple[str, str, Direction]] = set()

    def operation(self, old: Schema, new: Schema) -> Iterator[str]:
        if old["operationId"] != new["operationId"]:
            yield f"operationId {old['operationId']} is {new['operationId']} now: the method of generated clients"
        yield from self.parameters(old.get("parameters", []), new.get("parameters", []))
        before, after = old.get("requestBody", {}), new.get("requestBody", {})
        if after.get("required") and not before.get("required"):
            yield "a request body is required that was not"
        for media_type, content in before.get("content", {}).items():
            if media_type not in after.get("content", {}):
                yield f"a request of {media_type} is not taken any more"
            else:
                other = after["content"][media_type]
                yield from self.schema(content.get("schema", {}), other.get("schema", {}), "request", "request")
        for status, response in old["responses"].items():
            if status[0] != "2":
                continue
            if status not in new["responses"]:
                yield f"the response {status} is gone"
                continue
            for media_type, content in response.get("content", {}).items():
                offered = new["responses"][status].get("content", {})
                if media_type not in offered:
                    yield f"the response {status} of {media_type} is gone"
                else:
                    schemas = (content.get("schema", {}), offered[media_type].get("schema", {}))
                    yield from self.schema(*schemas, "response", f"response {status}")

    def parameters(self, old: list[Schema], new: list[Schema]) -> Iterator[str]:
        before, after = ({(one["in"], one["name"]): one for one in parameters} for parameters in (old, new))
        for place, name in before.keys() - after.keys():
            yield f"the {place} parameter {name} is gone, and unknown ones are refused"
        for key, parameter in after.items():
            known = before.get(key, {})
            if parameter.get("required") and not known.get("required"):
                yield f"the {key[0]} parameter {key[1]} is required"
            if known:
                yield from self.schema(known["schema"], parameter["schema"], "request", f"{key[0]} parameter {key[1]}")

    def schema(self, old: Schema, new: Schema, way: Direction, place: str) -> Iterator[str]:
        """Yield what the new schema takes away in that direction."""
        names = (old.get("$ref", ""), new.get("$ref", ""))
        if any(names):
            if (*names, way) in self.seen:
                return
            self.seen.add((*names, way))
            place = names[0].rpartition("/")[2] or place
        old, new = _resolved(old, self.old), _resolved(new, self.new)
        olds, news = _forms(old), _forms(new)
        if len(olds) == len(news) == 1:
            yield from self.form(old, new, way, place)
            return
        # each form that was taken is still taken; each form that is given was given before
        firsts, seconds = (olds, news) if way == "request" else (news, olds)
        for first in firsts:
            match = next((second for second in seconds if self.key(first) == self.key(second)), None)
            if match is None:
                verb = "does not take" if way == "request" else "also gives"
                yield f"{place} {verb} {self.shown(first)}"
            else:
                yield from self.schema(*((first, match) if way == "request" else (match, first)), way, place)

    def key(self, schema: Schema) -> str:
        if "$ref" in schema and (whole := _resolved(schema, {**self.old, **self.new})).get("type") not in (
            None,
            "object",
        ):
            schema = whole  # a list that was given a name is still a list
        return str(schema.get("$ref") or schema.get("format") or schema.get("type") or sorted(schema))

    def shown(self, schema: Schema) -> str:
        return self.key(schema).rpartition("/")[2]

    def form(self, old: Schema, new: Schema, way: Direction, place: str) -> Iterator[str]:
        narrow, wide = (new, old) if way == "request" else (old, new)
        lost = _types(wide) - _types(narrow)
        if lost:
            verb = "does not take" if way == "request" else "also gives"
            yield f"{place} {verb} {', '.join(sorted(lost))}"
            return
        yield from self.values(old, new, way, place)
        if way == "request":
            yield from self.bounds(old, new, place)
        yield from self.fields(old, new, way, place)
        for inside in ("items", "additionalProperties"):
            if isinstance(old.get(inside), dict) and isinstance(new.get(inside), dict):
                yield from self.schema(old[inside], new[inside], way, f"{place}[]")

    def values(self, old: Schema, new: Schema, way: Direction, place: str) -> Iterator[str]:
        before, after = _values(old), _values(new)
        if before is not None and after is not None:
            for value in sorted(map(str, before - after)):
                yield f"{place}: the value {value!r} is gone"
        if way == "request" and before is None and after is not None:
            yield f"{place} takes only {', '.join(sorted(map(str, after)))} now"
        if way == "response" and before is not None:
            more = sorted(map(str, after - before)) if after is not None else ["any value"]
            for value in more:
                yield f"{place} gives {value!r} too, which generated clients do not know"

    def bounds(self, old: Schema, new: Schema, place: str) -> Iterator[str]:
        for name in UPPER:
            if name in new and new[name] < old.get(name, float("inf")):
                yield f"{place}: {name} is {new[name]}, narrower than before"
        for name in LOWER:
            if name in new and new[name] > old.get(name, float("-inf")) and not (name[:3] == "min" and new[name] == 0):
                yield f"{place}: {name} is {new[name]}, narrower than before"
        if "pattern" in new and new["pattern"] != old.get("pattern"):
            yield f"{place}: the pattern is another"

    def fields(self, old: Schema, new: Schema, way: Direction, place: str) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        required = (set(old.get("required", ())), set(new.get("required", ())))
        if way == "response" or new.get("additionalProperties") is False:
            for name in before.keys() - after.keys():
                yield f"{place}: the field {name} is gone"
        if way == "request":
            for name in sorted(required[1] - required[0]):
                yield f"{place}: the field {name} is required"
        else:
            for name in sorted((required[0] - required[1]) & after.keys()):
                yield f"{place}: the field {name} may be left out now"
        for name in before.keys() & after.keys():
            yield from self.schema(before[name], after[name], way, f"{place}.{name}")


def _resolved(schema: Schema, schemas: dict[str, Schema]) -> Schema:
    while "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    return schema


def _forms(schema: Schema) -> list[Schema]:
    forms: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return forms


def _types(schema: Schema) -> frozenset[str]:
    types = schema.get("type")
    if types is None:
        return ANY
    found = frozenset([types] if isinstance(types, str) else types)
    return found | {"integer"} if "number" in found else found


def _values(schema: Schema) -> frozenset[Any] | None:
    if "const" in schema:
        return frozenset([schema["const"]])
    return frozenset(schema["enum"]) if "enum" in schema else None


def present_document() -> Schema:
    """Return the document of this code, without texts and problem responses."""
    document: Schema = without_texts(openapi_document())
    for _, _, operation in operations(document):
        operation["responses"] = {code: one for code, one in operation["responses"].items() if code[0] == "2"}
    return {"openapi": document["openapi"], "paths": document["paths"], "components": document["components"]}


def main() -> int:
    document = present_document()
    found = breaking_changes(json.loads(RELEASED.read_text()), document) if RELEASED.exists() else []
    print("\n".join(found) or "nothing that is released is broken")
    if "--release" in sys.argv[1:]:
        RELEASED.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        print(f"released: {RELEASED}")
        return 0
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
