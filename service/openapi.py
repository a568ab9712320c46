"""The OpenAPI document: FastAPI's own, with the problem responses, the job spec's schema and SSE filled in."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from service.auth import is_open
from service.errors import MEDIA_TYPE, TITLES, ProblemDocument
from service.models.schemas import EvaluateIn
from service.recommendations.schemas import FromDiagnosisIn
from trainkit.spec import JobSpec
from trainkit.spec.early_stop import RuleSet
from trainkit.spec.experiments import ExperimentSpec

REFERENCE = "#/components/schemas/{model}"
METHODS = frozenset({"get", "put", "post", "delete", "patch", "head", "options"})


def install(app: FastAPI) -> None:
    """Make `app.openapi()` answer with the whole document, built once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def describe(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, completed."""
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (ProblemDocument, JobSpec, RuleSet, FromDiagnosisIn, EvaluateIn):
        _add(schemas, model.__name__, model.model_json_schema(ref_template=REFERENCE))
    _add(schemas, "ExperimentSpec", TypeAdapter(ExperimentSpec).json_schema(ref_template=REFERENCE))
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in METHODS:
                _problems(path, method, operation)
    # FastAPI's form of a validation error, which this service never answers with
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document


def _add(schemas: dict[str, Any], name: str, schema: dict[str, Any]) -> None:
    schemas.update(schema.pop("$defs", {}))
    schemas[name] = schema


def _problems(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    for status in _statuses(path, method):
        responses[str(status)] = {
            "description": TITLES[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model=ProblemDocument.__name__)}}},
        }


KEPT_FOR_A_TIME = (
    *("/metrics", "/series", "/metrics.csv", ".parquet", ".tfevents", "/logs"),
    *("/plots/{plot}.png", "/decisions:simulate", "/diagnosis", "/diagnosis/{index}.png"),
)
"""Ends of addresses that tell what retention may have removed."""


def _statuses(path: str, method: str) -> list[int]:
    """What can go wrong at any route of that form."""
    if is_open(path):
        return [422]
    statuses = [400, 401, 403, 422, 500, 503]
    if "{" in path or path.endswith("/metrics/series"):
        statuses.append(404)
    if path.startswith("/v1/uploads") and method != "get":
        statuses += [408, 410, 412, 415, 423, 460]
    if method != "get":
        statuses += [409, 413]
    if path.startswith("/v1") and path.endswith(KEPT_FOR_A_TIME):
        statuses.append(410)
    if path.endswith(("/report", "preview.png", "/diagnosis", "/diagnosis/{index}.png", "/comparison")):
        statuses.append(409)
    if (path, method) == ("/v1/jobs", "post"):
        statuses += [404, 410, 429]  # a job to be diagnosed; a full queue
    if path.endswith(("/predict", "/evaluate")):
        statuses.append(415)
    if (path, method) == ("/v1/uploads", "post"):
        statuses.append(429)
    if path.endswith("/test"):
        statuses.append(429)
    return sorted(set(statuses))
