"""Every example of the OpenAPI document is one of the schema beside it, and every operation that needs one has one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.openapi import operations
from service.openapi_examples import FOLDER
from tests.support.example_checks import contents, example_errors, without_example
from tests.support.openapi_document import openapi_document

DOCUMENT: dict[str, Any] = openapi_document()
OPERATIONS = {operation["operationId"]: operation for _, _, operation in operations(DOCUMENT)}
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
HINT = "run `python -m tests.support.record_examples`, or change service/openapi_examples/{name}.json"


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_examples_is_about_an_operation_and_shown_in_full(name: str) -> None:
    assert name in OPERATIONS, f"there is no operation {name}: rename or remove openapi_examples/{name}.json"
    file, shown = FILES[name], contents(OPERATIONS[name])
    written = {("request", media_type): titles for media_type, titles in file.get("requests", {}).items()}
    for status, by_type in file.get("responses", {}).items():
        written |= {(status, media_type): titles for media_type, titles in by_type.items()}
    for (place, media_type), titles in written.items():
        examples = shown[f"{place} {media_type}"]["examples"]
        assert [example["summary"] for example in examples.values()] == list(titles), (name, place, media_type)


@pytest.mark.parametrize("name", OPERATIONS)
def test_examples_keep_to_their_schema(name: str) -> None:
    errors = list(example_errors(DOCUMENT, OPERATIONS[name]))
    assert not errors, f"{HINT.format(name=name)}: {errors[:5]}"


@pytest.mark.parametrize("name", OPERATIONS)
def test_json_bodies_have_an_example(name: str) -> None:
    missing = without_example(OPERATIONS[name])
    assert not missing, f"{name} has no example of {', '.join(missing)}: {HINT.format(name=name)}"
