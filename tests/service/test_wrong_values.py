"""One wrong value of every JSON type in every field of every request: place, sentence and hint, in our own words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tests.support.api import Served
from tests.support.tus_requests import create
from trainkit.spec import JobSpec
from trainkit.spec.experiments import KINDS
from trainkit.spec.problems import Problem, problems_from_validation
from trainkit.spec.read_options import ColumnOptions, ReadOptions

VALUES: tuple[Any, ...] = (None, True, 0, -1, 1.5, 2**62, "", "x", [], {}, [[]], [None], {"a": {"b": []}}, {"kind": 3})
SOME_VALUES = (None, True, 1.5, "x", [None], {"a": {"b": []}})
"""One of every JSON type, for what lies deep."""
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


def changed(document: Any, path: Sequence[str], value: Any) -> Any:
    """The document with the value at the path; `-` is the first entry of a list."""
    if not path:
        return value
    if path[0] == "-":
        return [changed({}, path[1:], value)]
    copied = dict(document) if isinstance(document, dict) else {}  # not so: a short form, such as the dataset's id
    copied[path[0]] = changed(copied.get(path[0]), path[1:], value)
    return copied


def fields(
    schema: dict[str, Any], definitions: dict[str, Any], path: tuple[str, ...] = (), depth: int = 6
) -> Iterator[tuple[Any, ...]]:
    """(path, kind of the innermost object or None) of every field of a JSON schema: unions, lists and maps followed."""
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from fields(part, definitions, path, depth)
    kind = schema.get("properties", {}).get("kind", {}).get("const")
    inside = dict(schema.get("properties", {}))
    if isinstance(schema.get("additionalProperties"), dict):
        inside["a~name"] = schema["additionalProperties"]
    if isinstance(schema.get("items"), dict):
        inside["-"] = schema["items"]
    for name, inner in inside.items():
        yield (*path, name), kind
        if len(path) < depth:
            yield from fields(inner, definitions, (*path, name), depth)


def places(schema: dict[str, Any]) -> list[tuple[tuple[str, ...], str | None]]:
    return list(dict.fromkeys(fields(schema, schema.get("$defs", {}))))


SPEC = {"dataset": "ds_1", "model": {"kind": "mlp"}}
SPEC_PLACES = places(JobSpec.model_json_schema())


def test_every_field_of_a_job_spec() -> None:
    assert len(SPEC_PLACES) > 150
    refused = 0
    for path, kind in SPEC_PLACES:
        base = changed(SPEC, (*path[:-1], "kind"), kind) if kind and len(path) > 1 else SPEC
        for value in (*VALUES, INFINITE) if len(path) < 3 else SOME_VALUES:
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
                for value in VALUES:
                    tried += 1
                    sent = changed({}, place, value)
                    text = json.dumps(sent)
                    headers = {"Content-Type": "application/json"}
                    answer = service.client.request(method, address, content=text, headers=headers)
                    assert answer.status_code < 500, (path, text, answer.text)
                    if answer.status_code != 422 or answer.json()["code"] != "invalid_request":
                        continue
                    refused += 1
                    problems = [Problem(**error) for error in answer.json()["errors"]]
                    check_wording(problems, sent, f"/{place[0]}", value)
            for text in ("null", "[]", '"x"', "3", "true"):
                answer = service.client.request(
                    method, address, content=text, headers={"Content-Type": "application/json"}
                )
                assert answer.status_code < 500, (path, text, answer.text)
                for phrase in FORBIDDEN:
                    assert phrase not in answer.text, (phrase, path, text)
    assert tried > 300
    assert refused > 200


def wrong_read_options() -> Iterator[tuple[str, Any]]:
    """Each value in each read option, and in each field of the options of a column."""
    for option in ReadOptions.model_fields:
        yield from ((option, value) for value in (*VALUES, [1], {"a": 1}, {"a": {"type": 1}}, "[", '{"a": [}'))
    for field in (*ColumnOptions.model_fields, "nonsense"):
        yield from (("columns", {"a": {field: value}}) for value in (*VALUES, [1], ["x" * 10_000]))


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_every_read_option_by_every_way(service: Served) -> None:
    """As JSON, as query, as form field and in Upload-Metadata, nested fields of a column included."""
    ways: dict[str, Callable[[str, Any, str], Any]] = {
        "json": lambda name, value, text: service.client.post("/v1/datasets", json={"uri": "file:///x", name: value}),
        "reread": lambda name, value, text: service.client.post("/v1/datasets/ds_1:reread", json={name: value}),
        "query": lambda name, value, text: service.client.put(
            "/v1/datasets", params={"name": "x", name: text}, content=b"a,b\n1,2\n"
        ),
        "form": lambda name, value, text: service.client.post(
            "/v1/datasets", data={name: text}, files={"file": ("x.csv", b"a,b\n1,2\n")}
        ),
        "tus": lambda name, value, text: create(service.client, 8, **{name: text}),
    }
    refused = dict.fromkeys(ways, 0)
    for name, value in wrong_read_options():
        text = value if isinstance(value, str) else json.dumps(value)
        for way, send in ways.items():
            answer = send(name, value, text)
            assert answer.status_code < 500, (way, name, value, answer.text)
            if answer.status_code != 422:
                continue
            refused[way] += 1
            for error in answer.json()["errors"]:
                assert len(error["message"]) > 8, (way, name, value)
                for phrase in (*FORBIDDEN, *OF_PYTHON):
                    assert phrase not in f"{error['message']} {error['hint']}", (way, name, value, error)
    assert min(refused.values()) > 60, refused
