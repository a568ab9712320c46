"""The OpenAPI document: FastAPI's own, with the problem responses, the job spec's schema and SSE filled in."""

from __future__ import annotations

import json
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from service.auth import is_open
from service.errors import MEDIA_TYPE, TITLES, ProblemDocument
from service.models.schemas import EvaluateIn
from service.recommendations.schemas import FromDiagnosisIn
from service.security_headers import DOCS_PATH
from trainkit.spec import JobSpec
from trainkit.spec.early_stop import RuleSet
from trainkit.spec.experiments import ExperimentSpec

REFERENCE = "#/components/schemas/{model}"
METHODS = frozenset({"get", "put", "post", "delete", "patch", "head", "options"})


OPENAPI_PATH = "/openapi.json"
DOCS_PAGE = bytes(get_swagger_ui_html(openapi_url=OPENAPI_PATH, title="trainkit").body)
"""The interactive documentation. Its policy allows the script in it by its hash (`security_headers.py`)."""


def install(app: FastAPI) -> None:
    """Make `app.openapi()` answer with the whole document, built once, and serve it.

    FastAPI would write the same JSON anew for each request, 20 ms in which nobody else is served.
    """
    written: list[bytes] = []
    one_writer = CapacityLimiter(1)

    def write() -> None:
        if not written:
            written.append(json.dumps(app.openapi(), ensure_ascii=False).encode())

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    async def serve_document(request: Request) -> Response:
        if not written:
            await to_thread.run_sync(write, limiter=one_writer)
        return Response(written[0], media_type="application/json")

    async def serve_page(request: Request) -> Response:
        return Response(DOCS_PAGE, media_type="text/html; charset=utf-8")

    app.openapi = document  # type: ignore[method-assign]
    app.add_route(OPENAPI_PATH, serve_document, include_in_schema=False)
    app.add_route(DOCS_PATH, serve_page, include_in_schema=False)


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


ANY_REQUEST = (400, 408, 413, 414, 415, 421, 422, 431)
"""How a request is refused by its head and the bytes of its body, whatever its route: see `request_headers.py`,
`body_limits.py` and `http_server/`."""


def _statuses(path: str, method: str) -> list[int]:
    """What can go wrong at any route of that form."""
    if is_open(path):
        return list(ANY_REQUEST)
    statuses = [*ANY_REQUEST, 401, 403, 429, 500, 503]
    if "{" in path or path.endswith("/metrics/series"):
        statuses.append(404)
    if path.startswith("/v1/uploads") and method != "get":
        statuses += [410, 412, 423, 460]
    if method != "get":
        statuses.append(409)
    if path.startswith("/v1") and path.endswith(KEPT_FOR_A_TIME):
        statuses.append(410)
    if path.endswith(("/report", "preview.png", "/diagnosis", "/diagnosis/{index}.png", "/comparison")):
        statuses.append(409)
    if (path, method) == ("/v1/jobs", "post"):
        statuses += [404, 410]  # a job to be diagnosed
    return sorted(set(statuses))
