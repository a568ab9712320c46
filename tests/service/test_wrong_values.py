"""One wrong value of every JSON type in every field of every request: place, sentence and hint, in our own words."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tests.support.api import Served
from trainkit.spec import JobSpec
from trainkit.spec.experiments import KINDS
from trainkit.spec.problems import Problem, problems_from_validation

VALUES: tuple[Any, ...] = (None, True, 0, -1, 1.5, 2**62, "", "x", [], {}, [[]], [None], {"a": {"b": []}}, {"kind": 3})
INFINITE = 1e999
FORBIDDEN = (
    *("valid dictionary", "extract fields", "Input should", "input should", "instance of", "valid tuple", "valid list"),
    *("union", "discriminator", "tagged", "pydantic", "BytesIO", "object at 0x", "Traceback", "NoneType"),
    *("should be a valid", "Extra inputs", "Field required", "<class", "literal_error", "validation error", "'str'"),
    *("<function", "dict_type", "Value error", "of another form", "something else"),
)
OF_PYTHON = ("None", "True", "False", "torch.")
"""Words of Python and of the libraries below, which tell a user of HTTP nothing."""


def check_wording(problems: list[Problem], document: Any, where: str, value: Any) -> None:
    """Check what is said of the document with the value at `where`."""
    assert problems, (where, value)
    for problem in problems:
        shown = (where, value, problem)
        assert problem.pointer == "" or problem.pointer.startswith("/"), shown
        assert problem.code.isidentifier(), shown
        assert len(problem.message) > 8, shown
        assert problem.hint.endswith((".", "?", ")")), shown
        for phrase in FORBIDDEN:
            text = f"{problem.message} {problem.hint}"
            assert phrase not in text, (phrase, *shown)
        assert not any(word in problem.message for word in OF_PYTHON), shown
    top = where.split("/")[1]
    elsewhere = [one for one in problems if one.pointer.split("/")[1:2] not in ([], [top])]
    assert all(one.code == "missing_field" for one in elsewhere), (where, value, elsewhere)


def changed(document: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The document with the value at the path."""
    copied = copy.deepcopy(document)
    place = copied
    for step in path[:-1]:
        if not isinstance(place.get(step), dict):  # a short form, such as the dataset's id
            place[step] = {}
        place = place[step]
    place[path[-1]] = value
    return copied


def fields(
    schema: dict[str, Any], definitions: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[Any, ...]]:
    """(path, kind of the objects on the way or None) of every field of a JSON schema, unions followed, lists not."""
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from fields(part, definitions, path)
    kind = schema.get("properties", {}).get("kind", {}).get("const")
    for name, inner in schema.get("properties", {}).items():
        yield (*path, name), kind
        if len(path) < 2:
            yield from fields(inner, definitions, (*path, name))


def places(schema: dict[str, Any]) -> list[tuple[tuple[str, ...], str | None]]:
    return list(dict.fromkeys(fields(schema, schema.get("$defs", {}))))


SPEC = {"dataset": "ds_1", "model": {"kind": "mlp"}}
SPEC_PLACES = places(JobSpec.model_json_schema())


def test_every_field_of_a_job_spec() -> None:
    assert len(SPEC_PLACES) > 150
    refused = 0
    for path, kind in SPEC_PLACES:
        base = changed(SPEC, (*path[:-1], "kind"), kind) if kind and len(path) > 1 else SPEC
        for value in (*VALUES, INFINITE):
            document = changed(base, path, value)
            try:
                JobSpec.model_validate(document)
            except ValidationError as error:
                refused += 1
                check_wording(problems_from_validation(error, document, JobSpec), document, "/" + "/".join(path), value)
    assert refused > 1500


def test_every_field_of_an_experiment() -> None:
    refused = 0
    for kind, model in KINDS.items():
        base: dict[str, Any] = {"kind": kind, "spec": SPEC}
        for path, _ in places(model.model_json_schema()):
            for value in VALUES:
                document = changed(base, path, value)
                try:
                    TypeAdapter(model).validate_python(document)
                except ValidationError as error:
                    refused += 1
                    check_wording(
                        problems_from_validation(error, document, model), document, "/" + "/".join(path), value
                    )
    assert refused > 300


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_every_field_of_every_other_request(service: Served) -> None:
    document = service.app.openapi()
    definitions = document["components"]["schemas"]
    tried = refused = 0
    for path, item in document["paths"].items():
        for method, operation in item.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is None or "application/yaml" in operation["requestBody"]["content"]:
                continue
            address = path.replace("{", "").replace("}", "")
            for place, _ in dict.fromkeys(fields(body["schema"], definitions)):
                if len(place) > 1:
                    continue
                for value in VALUES:
                    tried += 1
                    text = json.dumps({place[0]: value})
                    headers = {"Content-Type": "application/json"}
                    answer = service.client.request(method, address, content=text, headers=headers)
                    assert answer.status_code < 500, (path, text, answer.text)
                    if answer.status_code != 422 or answer.json()["code"] != "invalid_request":
                        continue
                    refused += 1
                    problems = [Problem(**error) for error in answer.json()["errors"]]
                    check_wording(problems, {place[0]: value}, f"/{place[0]}", value)
            for text in ("null", "[]", '"x"', "3", "true"):
                answer = service.client.request(
                    method, address, content=text, headers={"Content-Type": "application/json"}
                )
                assert answer.status_code < 500, (path, text, answer.text)
                for phrase in FORBIDDEN:
                    assert phrase not in answer.text, (phrase, path, text)
    assert tried > 300
    assert refused > 200
