"""The OpenAPI document is valid, complete, and about this service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from service.auth import is_open
from service.errors import MEDIA_TYPE, HttpProblem
from service.openapi import operations as every_operation
from service.openapi_problems import OF_OPERATION
from service.problem_types import PROBLEM_TYPES, code_named
from tests.support.openapi_document import openapi_document

METHODS = ("get", "put", "post", "patch", "delete")
JSON = "application/json"
TEXTS = ("text/", "application/x-ndjson", "application/openmetrics-text", "image/svg+xml", "application/yaml")
"""Media types whose bodies are text; all others but JSON and forms are bytes."""
GENERATED = ("Needs a key", "Needs no key.", "With an `Idempotency-Key`", "Answers 304 without a body")
"""How sentences of a description begin that follow from the declaration."""
NAMED = ("datasets/{dataset}", "models/{model}")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(m, path, item[m]) for path, item in document["paths"].items() for m in METHODS if m in item]


def test_it_is_valid(document: dict[str, Any]) -> None:
    # SSE's `itemSchema` belongs to OpenAPI 3.2, which the validator does not know yet
    stream = document["paths"]["/v1/jobs/{job_id}/stream"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    stream.pop("itemSchema", None)
    validate(document)


def test_every_route_of_the_contract_is_there(document: dict[str, Any]) -> None:
    routes = {f"{method.upper()} {path}" for method, path, _ in operations(document)}
    job, webhook = "/v1/jobs/{job_id}", "/v1/webhooks/{webhook_id}"
    assert routes >= {
        "PUT /v1/datasets",
        "POST /v1/datasets",
        "GET /v1/datasets",
        "GET /v1/datasets/{dataset}",
        "DELETE /v1/datasets/{dataset}",
        "GET /v1/datasets/{dataset}/report",
        "GET /v1/datasets/{dataset}/preview.png",
        "POST /v1/specs:validate",
        "POST /v1/jobs",
        "GET /v1/jobs",
        f"GET {job}",
        f"PATCH {job}",
        *(f"POST /v1/jobs:{action}" for action in ("stop", "cancel", "delete", "label")),
        f"DELETE {job}",
        *(f"POST {job}/{action}" for action in ("stop", "cancel", "pause", "resume")),
        *(
            f"GET {job}/{part}"
            for part in ("metrics", "metrics/series", "metrics.csv", "stream", "events", "decisions")
        ),
        *(f"GET {job}/{part}" for part in ("attempts", "logs", "checkpoints", "artifacts", "evaluation")),
        f"GET {job}/plots/{{plot}}.png",
        f"GET {job}/plots/{{plot}}.svg",
        f"POST {job}/decisions:simulate",
        f"GET {job}/diagnosis",
        f"GET {job}/recommendation",
        "GET /v1/diagnosis/scorecard",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "GET /v1/models/{model}/download",
        "PATCH /v1/models/{model}",
        *(f"{method} /v1/{kind}/aliases/{{alias}}" for method in ("PUT", "DELETE") for kind in NAMED),
        *(f"GET /v1/{kind}/aliases" for kind in NAMED),
        "POST /v1/models/{model}/predict",
        "POST /v1/models/{model}/evaluate",
        "GET /v1/catalog",
        "GET /v1/workers",
        "GET /v1/keys",
        "POST /v1/keys",
        *(f"{method} /v1/keys/{{key_id}}" for method in ("GET", "DELETE")),
        "POST /v1/keys/{key_id}:rotate",
        "GET /v1/projects",
        "POST /v1/projects",
        "GET /v1/me",
        *(f"{method} /v1/members" for method in ("GET", "POST")),
        *(f"{method} /v1/members/{{user_id}}" for method in ("GET", "PATCH", "DELETE")),
        "POST /v1/service-accounts",
        "GET /v1/users",
        "PATCH /v1/users/{user_id}",
        "GET /v1/auth/login",
        "GET /v1/auth/callback",
        "POST /v1/auth/logout",
        "GET /v1/projects/{project_id}",
        "PATCH /v1/projects/{project_id}",
        "POST /v1/mirrors",
        "GET /v1/mirrors",
        *(f"{method} /v1/mirrors/{{mirror_id}}" for method in ("GET", "PATCH", "DELETE")),
        "POST /v1/mirrors/{mirror_id}/backfill",
        "GET /v1/mirrors/{mirror_id}/jobs",
        "GET /v1/mirrors/{mirror_id}/jobs/{job_id}",
        "POST /v1/mirrors/{mirror_id}/jobs/{job_id}/retry",
        "POST /v1/webhooks",
        "GET /v1/webhooks",
        *(f"{method} {webhook}" for method in ("GET", "PATCH", "DELETE")),
        *(f"POST {webhook}/{action}" for action in ("test", "rotate")),
        f"GET {webhook}/deliveries",
        f"GET {webhook}/deliveries/{{delivery_id}}",
        f"POST {webhook}/deliveries/{{delivery_id}}/redeliver",
        "GET /healthz",
        "GET /readyz",
    }


def test_every_answer_has_a_form(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        assert operation["summary"], path
        for status, response in operation["responses"].items():
            if status in ("204", "302", "303", "304"):
                continue
            assert response.get("content"), f"{method} {path} {status} says nothing of its body"
            for kind, content in response["content"].items():
                if kind == "application/json" and path != "/v1/specs:init-report":
                    assert content.get("schema"), f"{method} {path} {status}"


def test_problems_are_declared_everywhere(document: dict[str, Any]) -> None:
    problem = {"$ref": "#/components/schemas/ProblemDocument"}
    for method, path, operation in operations(document):
        statuses = {"422"} if is_open(path) else {"401", "403", "422", "500", "503"}
        if "{" in path:
            statuses.add("404")
        assert statuses <= set(operation["responses"]), f"{method} {path}"
        for status in statuses - {"503"} if is_open(path) else statuses:
            content = operation["responses"][status]["content"]
            assert {kind: one["schema"] for kind, one in content.items()} == {"application/problem+json": problem}


def test_the_log_has_two_forms_and_says_when_it_is_gone(document: dict[str, Any]) -> None:
    responses = document["paths"]["/v1/jobs/{job_id}/logs"]["get"]["responses"]
    content = responses["200"]["content"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/LogLines"}
    assert content["text/plain"]["schema"] == {"type": "string"}
    for path in ("logs", "metrics", "metrics/series", "metrics.csv", "plots/{plot}.png", "diagnosis"):
        assert "410" in document["paths"][f"/v1/jobs/{{job_id}}/{path}"]["get"]["responses"], path


def test_every_parameter_is_described(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), f"{method} {path} {parameter['name']}"


def test_every_closed_route_names_the_key(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        assert bool(operation.get("security")) != is_open(path), f"{method} {path}"
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_the_job_spec_is_described_in_full(document: dict[str, Any]) -> None:
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "application/yaml"}
    assert body["application/json"]["schema"] == {"$ref": "#/components/schemas/JobRequest"}
    offered = [{"$ref": f"#/components/schemas/{name}"} for name in ("JobSpec", "FromDiagnosisRequest")]
    assert document["components"]["schemas"]["JobRequest"] == {"anyOf": offered}
    assert set(document["components"]["schemas"]["FromDiagnosisRequest"]["properties"]) == {
        "from_diagnosis",
        "name",
        "labels",
    }
    assert {"model", "optimizer", "early_stop"} <= set(document["components"]["schemas"]["JobSpec"]["properties"])


def resolved(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference leads to."""
    while reference := value.get("$ref"):
        value = document
        for name in reference.removeprefix("#/").split("/"):
            value = value[name]
    return value


def left_out(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    """Yield what the document does not tell of an operation."""
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    if not operation.get("operationId") or not operation.get("summary"):
        yield "operationId or summary"
    if not operation["tags"] or set(operation["tags"]) - described:
        yield "a tag that is described"
    if all(text.startswith(GENERATED) for text in operation["description"].split("\n\n")):
        yield "a description"
    for parameter in operation.get("parameters", ()):
        if not parameter.get("description") or not parameter.get("schema"):
            yield f"the parameter {parameter['name']}"
    bodies = {"request": operation.get("requestBody", {}), **operation["responses"]}
    for place, body in bodies.items():
        for name, header in body.get("headers", {}).items():
            if not resolved(document, header).get("description"):
                yield f"the header {name} of {place}"
        for kind, content in body.get("content", {}).items():
            schema = resolved(document, content.get("schema", {}))
            if not schema:
                yield f"the schema of {kind} in {place}"
            if kind in (JSON, MEDIA_TYPE) and not content.get("examples"):
                yield f"an example of {kind} in {place}"
            text = kind in (JSON, MEDIA_TYPE, "multipart/form-data") or kind.startswith(TEXTS)
            if not text and (schema.get("type"), schema.get("format")) != ("string", "binary"):
                yield f"that {kind} in {place} is binary"


def test_everything_is_told_of_every_operation(document: dict[str, Any]) -> None:
    missing = [
        f"{method.upper()} {path}: {what}"
        for path, method, operation in every_operation(document)
        for what in left_out(document, operation)
    ]
    assert not missing, "\n".join(["the document leaves out:", *missing])


def test_examples_of_problems_are_those_of_the_closed_list(document: dict[str, Any]) -> None:
    seen = 0
    for path, method, operation in every_operation(document):
        for status, response in operation["responses"].items():
            for name, example in response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {}).items():
                code, value = code_named(name), resolved(document, example)["value"]
                assert code is not None, f"{method} {path} {status}: {name}"
                assert int(status) in PROBLEM_TYPES[code].statuses, f"{method} {path} {status}: {name}"
                expected = HttpProblem(int(status), code, value["detail"]).body(value["request_id"])
                assert value == expected
                assert PROBLEM_TYPES[code].meaning in value["detail"]
                seen += 1
    assert seen > 1000


def test_every_code_of_an_operation_has_a_status_that_it_declares(document: dict[str, Any]) -> None:
    declared = {one["operationId"]: set(one["responses"]) for _, _, one in every_operation(document)}
    for operation, codes in OF_OPERATION.items():
        for code in codes:
            assert any(str(status) in declared[operation] for status in PROBLEM_TYPES[code].statuses), (operation, code)
