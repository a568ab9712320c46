"""The API keeps what clients of its last release rely on, and the check of that finds each kind of break."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.api_changes import RELEASED, breaking_changes, present_document

DOCUMENT = present_document()
Change = Callable[[dict[str, Any]], Any]


def test_nothing_that_is_released_is_broken() -> None:
    found = breaking_changes(json.loads(RELEASED.read_text()), DOCUMENT)
    hint = (
        "Keep it beside the new form and mark it deprecated. A break on purpose: `make api-release`, and CHANGELOG.md."
    )
    assert not found, "\n".join(["clients of the released API would break:", *found, hint])


def test_a_document_breaks_nothing_of_itself() -> None:
    assert breaking_changes(DOCUMENT, copy.deepcopy(DOCUMENT)) == []


def schema(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda document: document["components"]["schemas"][name]


def operation(document: dict[str, Any], path: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"][path][method]
    return found


BREAKS: dict[str, tuple[Change, str]] = {
    "operation": (
        lambda d: d["paths"]["/v1/jobs/{job_id}/stop"].pop("post"),
        "POST /v1/jobs/{job_id}/stop: the operation",
    ),
    "operation id": (
        lambda d: operation(d, "/v1/jobs", "post").update(operationId="submitJob"),
        "operationId createJob is submitJob now",
    ),
    "component": (
        lambda d: d["components"]["schemas"].pop("LogLine") and d["components"]["schemas"]["LogLines"].clear(),
        "schema LogLine: it is gone",
    ),
    "field of a response": (lambda d: schema("Job")(d)["properties"].pop("phase"), "Job: the field phase is gone"),
    "promise of a field": (lambda d: schema("Job")(d)["required"].remove("id"), "Job: the field id may be left out"),
    "null in a response": (
        lambda d: schema("Job")(d)["properties"].update(id={"anyOf": [{"type": "string"}, {"type": "null"}]}),
        "Job.id also gives null",
    ),
    "type in a response": (
        lambda d: schema("Job")(d)["properties"].update(attempts={"type": "string"}),
        "Job.attempts also gives string",
    ),
    "value of a response": (
        lambda d: schema("Job")(d)["properties"]["state"]["enum"].remove("paused"),
        "Job.state: the value 'paused' is gone",
    ),
    "unknown value in a response": (
        lambda d: schema("Job")(d)["properties"]["state"]["enum"].append("melted"),
        "Job.state gives 'melted' too",
    ),
    "field of a request": (
        lambda d: schema("ResumeRequest")(d)["properties"].pop("extra_epochs"),
        "extra_epochs is gone",
    ),
    "required field of a request": (
        lambda d: schema("StopRequest")(d).update(required=["keep"]),
        "StopRequest: the field keep is required",
    ),
    "value of a request": (
        lambda d: schema("StopRequest")(d)["properties"]["keep"]["enum"].remove("last"),
        "StopRequest.keep: the value 'last' is gone",
    ),
    "type of a request": (
        lambda d: schema("Sgd")(d)["properties"].update(lr={"type": "integer"}),
        "Sgd.lr does not take number",
    ),
    "bound of a request": (
        lambda d: schema("ResumeRequest")(d)["properties"]["extra_epochs"].update(maximum=10),
        "ResumeRequest.extra_epochs: maximum is 10",
    ),
    "form of a request": (
        lambda d: schema("OptimizerChoice")(d)["anyOf"].pop(),
        "OptimizerChoice",
    ),
    "parameter": (
        lambda d: operation(d, "/v1/jobs", "get")["parameters"].pop(),
        "is gone, and unknown ones are refused",
    ),
    "required parameter": (
        lambda d: operation(d, "/v1/jobs", "get")["parameters"][0].update(required=True),
        "is required",
    ),
    "media type of a request": (
        lambda d: operation(d, "/v1/jobs", "post")["requestBody"]["content"].pop("application/yaml"),
        "a request of application/yaml is not taken",
    ),
    "status": (lambda d: operation(d, "/v1/jobs", "post")["responses"].pop("201"), "the response 201 is gone"),
    "media type of a response": (
        lambda d: operation(d, "/v1/jobs/{job_id}/logs", "get")["responses"]["200"]["content"].pop("text/plain"),
        "the response 200 of text/plain is gone",
    ),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_each_kind_of_break_is_found(kind: str) -> None:
    change, expected = BREAKS[kind]
    changed = copy.deepcopy(DOCUMENT)
    change(changed)
    found = breaking_changes(DOCUMENT, changed)
    assert any(expected in text for text in found), found


def test_what_only_adds_breaks_nobody() -> None:
    changed = copy.deepcopy(DOCUMENT)
    changed["components"]["schemas"]["New"] = {"type": "object"}
    schema("Job")(changed)["properties"]["colour"] = {"type": "string"}
    schema("Job")(changed)["required"].append("colour")
    schema("StopRequest")(changed)["properties"]["colour"] = {"type": "string"}
    schema("StopRequest")(changed)["properties"]["keep"]["enum"].append("both")
    schema("ResumeRequest")(changed)["properties"]["extra_epochs"].pop("maximum")
    operation(changed, "/v1/jobs", "get")["parameters"].append(
        {"in": "query", "name": "colour", "schema": {"type": "string"}}
    )
    changed["paths"]["/v1/new"] = {"get": {"operationId": "getNew", "responses": {}}}
    assert breaking_changes(DOCUMENT, changed) == []
