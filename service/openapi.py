"""The OpenAPI document: FastAPI's own, made exact for clients that are generated from it and tools that test by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel, TypeAdapter

from service.auth import Needs, is_open
from service.datasets.schemas import SourceIn
from service.deprecation import EXTENSION, Deprecation, of_operation
from service.errors import MEDIA_TYPE, TITLES, ProblemDocument
from service.logs.schemas import StreamedLineOut
from service.metrics.schemas import StreamEndOut
from service.models.schemas import EvaluateIn, PredictIn
from service.openapi_examples import add_examples
from service.openapi_problems import add_problem_examples
from service.openapi_schemas import REFERENCE, for_clients
from service.operation_ids import operation_id
from service.proxy_headers import root_path_of
from service.recommendations.schemas import FromDiagnosisIn
from service.request_checks import ANY
from trainkit.spec import JobSpec
from trainkit.spec.early_stop import RuleSet
from trainkit.spec.experiments import ExperimentSpec
from trainkit.spec.facts import DatasetFacts
from trainkit.spec.json_schema import completed
from trainkit.spec.read_options import ReadOptions

REFERRED_TO: tuple[type[BaseModel], ...] = (
    *(ProblemDocument, JobSpec, RuleSet, DatasetFacts, ReadOptions),
    *(FromDiagnosisIn, EvaluateIn, PredictIn, SourceIn),
)
"""Components that routes name and FastAPI does not see."""
STREAMED: tuple[type[BaseModel], ...] = (StreamedLineOut, StreamEndOut)
"""Those that are answered with."""
METHODS = frozenset({"get", "put", "post", "delete", "patch", "head", "options"})
DESCRIPTION = """\
Submit a job spec and a dataset; workers train; metrics stream back; rules, dashboards and scripts stop jobs early.

Send the key as `Authorization: Bearer tk_...`, or a token of the sign-in provider; a browser that has signed in sends a
cookie. Whoever has a role in several projects names one in the header `Trainkit-Project`; a link or an `EventSource`, which
send no header, in the query parameter `trainkit-project` (GET and HEAD alone). Each operation lists the roles
of which one is needed (`security`); a role includes the ones before it: viewer, developer, admin.

Every error is a problem document (RFC 9457) with a stable `code`. A
request that breaks its schema is 422; so is one that breaks a rule which a schema cannot say, such as a dataset that does
not exist or two fields that exclude each other: `errors` names each place, what is wrong and what to do.

HEAD is answered like GET without the body, and OPTIONS with `Allow`, by every resource."""
TAGS = {
    "datasets": "What jobs train on: uploads, versions, reports and previews.",
    "uploads": "Resumable uploads by the tus protocol 1.0; a finished one is a dataset.",
    "specs": "Job specs: check one, see what it would begin with, read their schema.",
    "jobs": "Training jobs: submit, follow, stop, pause, resume, fork; what they leave behind; their diagnosis.",
    "experiments": "Many jobs as one: folds, sweeps, baselines, ensembles, the autopilot.",
    "logs": "The lines that a job's processes wrote.",
    "metrics": "The metric log: by cursor, as series, as a stream or as a file.",
    "models": "Trained models: download, predict, evaluate.",
    "catalog": "Every kind of model, optimizer, rule and so on, with its schema.",
    "workers": "The processes that train.",
    "info": "What this installation is, and can do.",
    "monitoring": "Metrics of the service itself, for Prometheus.",
    "sign-in": "Sign-in of browsers with OpenID Connect, where the operator has set a provider.",
    "users": "Who the caller is, members of the project, and all users.",
    "keys": "API keys of the project.",
    "audit": "Who changed what, and who was refused: an append-only log, chained by hashes.",
    "projects": "Projects, their limits and how long they keep things.",
    "webhooks": "Signed messages about jobs, and their deliveries.",
    "mirrors": "Copies of jobs in other trackers: MLflow, TensorBoard, Weights & Biases.",
    "health": "For load balancers: open to everybody.",
}
MEANINGS = {
    400: "The request cannot be read: a header, a form or its length is malformed.",
    401: "No key, or one that is malformed, not valid (unknown or revoked) or expired: `code` says which.",
    403: "The role does not allow it.",
    404: "It does not exist, or belongs to another project.",
    412: "What the request is about is not as `If-Match` says, or the protocol has another version; nothing was changed.",
    409: "What the request is about is in another state; nothing was changed.",
    413: "The body is beyond its limit (`limit_bytes`), or the project beyond its quota.",
    422: "The request breaks its schema or a rule: `errors` says where and what to do.",
    429: "Too many; try again after `Retry-After` seconds.",
    500: "A defect of the service; the log has it under the request id.",
    503: "Not available now; try again after `Retry-After` seconds.",
}
HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "Names the request in the log: the client's own `X-Request-Id`, or a new one.",
        "schema": {"type": "string"},
        "required": True,
    },
    "RateLimit": {
        "description": "Requests that the key has left (`r`), and seconds until it has all of them again (`t`).",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "Requests (`q`) that a key may send in so many seconds (`w`); absent where there is no limit.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"description": "How to send the key.", "schema": {"type": "string"}, "required": True},
    "Location": {"description": "Address of what was created.", "schema": {"type": "string"}, "required": True},
    "ETag": {
        "description": "Send it as `If-None-Match` to get 304 until something changes.",
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "`true`: the same request with this `Idempotency-Key` has created it before.",
        "schema": {"type": "string", "const": "true"},
    },
    "Trainkit-Model": {
        "description": "Id of the model that answered, whatever it was named by.",
        "schema": {"type": "string", "pattern": "^mdl_"},
        "required": True,
    },
    "Repr-Digest": {
        "description": "SHA-256 of the whole file (RFC 9530), as `sha-256=:BASE64:`; absent of what is made as it is sent.",
        "schema": {"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},
    },
    "Preference-Applied": {
        "description": "`wait=SECONDS`: the answer has waited as `Prefer` asked for.",
        "schema": {"type": "string", "pattern": "^wait=[0-9]+$"},
    },
    "Tus-Resumable": {"description": "Version of the protocol.", "schema": {"type": "string", "const": "1.0.0"}},
    "Upload-Offset": {"description": "Bytes that are stored.", "schema": {"type": "integer", "minimum": 0}},
    "Upload-Length": {
        "description": "Bytes of the whole file, once known.",
        "schema": {"type": "integer", "minimum": 1},
    },
}
BASE64 = "[A-Za-z0-9+/]+={0,2}"
CHECKSUM = r"^(sha256 [A-Za-z0-9+/]{43}=|sha1 [A-Za-z0-9+/]{27}=)$"
METADATA = rf"^[!-+\--~]+( {BASE64})?(,[!-+\--~]+( {BASE64})?)*$"
PARAMETERS: dict[str, dict[str, Any]] = {
    "tus-resumable": {"required": True, "schema": {"type": "string", "enum": ["1.0.0"]}},
    "upload-offset": {"required": True, "schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}},
    "upload-length": {"schema": {"type": "integer", "minimum": 1, "maximum": 10**18 - 1}},
    "upload-defer-length": {"schema": {"type": "string", "enum": ["1"]}},
    "upload-checksum": {"schema": {"type": "string", "pattern": CHECKSUM}},
    "upload-metadata": {"schema": {"type": "string", "pattern": METADATA, "maxLength": 8192}},
    "x-http-method-override": {"required": True, "schema": {"type": "string", "enum": ["PATCH"]}},
    "content-digest": {"schema": {"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"}},
}
"""Headers that the service reads itself, to answer with the status that their protocol has: what they may hold."""


PARAMETER_TEXTS = {
    "job_id": "Id of the job.",
    "after": "`seq` of the last row that the client has: `next` of the answer before.",
    "limit": "Rows at most.",
    "wait": "Seconds to wait for something new.",
    "from_step": "First step.",
    "to_step": "Last step.",
    "plot": "Learning curves, or the confusion matrix.",
    "index": "Place of the verdict in the diagnosis, from 0.",
    "name": "Its name.",
    "filename": "Name of the file.",
    "format": "Form of the answer.",
    "accept": "`application/json` before `text/plain`: JSON; else text.",
    "force": "Cancel the jobs that use it.",
    "experiment_id": "Id of the experiment.",
    "upload_id": "Id of the upload.",
    "webhook_id": "Id of the webhook.",
    "mirror_id": "Id of the mirror.",
    "delivery_id": "Id of the delivery, which is that of the message.",
    "key_id": "Id of the key; not the key itself.",
    "project_id": "Id of the project.",
    "user_id": "Id of the person or service account.",
    "idempotency-key": "Any text of the client's: the same request with the same text is carried out once.",
    "if-none-match": "ETags of answers that the client has, with commas between: 304 when one of them still holds.",
    "last-event-id": "Id of the last event that came: the stream goes on after it.",
    "tus-resumable": "Version of the tus protocol.",
    "upload-length": "Bytes of the whole file.",
    "upload-defer-length": "`1`: the length is said with a later request.",
    "upload-offset": "Bytes that the service has, as `HEAD` says: the body goes on there.",
    "upload-checksum": "Algorithm and Base64 of the digest of this body; 460 where it is another.",
    "upload-metadata": "Pairs of a name and its value in Base64, with commas between, such as `name` and `filename`.",
    "x-http-method-override": "`PATCH`, by clients that cannot send it.",
    "content-digest": "SHA-256 of the body (RFC 9530), as `sha-256=:BASE64:`; a body with another one is refused.",
}
"""What parameters mean that many routes have; the others say it where they are declared."""


OPENAPI_PATH = "/openapi.json"


MAX_DOCUMENTS = 8
"""Copies of the document that are kept, one for each root path that proxies have named."""


def install(app: FastAPI) -> None:
    """Make `app.openapi()` answer with the whole document, built once, and serve it.

    FastAPI would write the same JSON anew for each request, 20 ms in which nobody else is served.
    """
    written: dict[str, bytes] = {}
    one_writer = CapacityLimiter(1)

    def write(root_path: str) -> None:
        if root_path not in written:
            document = {**app.openapi(), "servers": [{"url": root_path or "/"}]}
            if len(written) >= MAX_DOCUMENTS:
                written.clear()
            written[root_path] = json.dumps(document, ensure_ascii=False).encode()

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    async def serve_document(request: Request) -> Response:
        root_path = root_path_of(request.scope)
        body = written.get(root_path)
        while body is None:
            await to_thread.run_sync(write, root_path, limiter=one_writer)
            body = written.get(root_path)
        return Response(body, media_type="application/json")

    app.openapi = document  # type: ignore[method-assign]
    app.add_route(OPENAPI_PATH, serve_document, include_in_schema=False)


def describe(app: FastAPI) -> dict[str, Any]:
    """Return FastAPI's document, completed."""
    document = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=DESCRIPTION, routes=app.routes
    )
    document["info"]["contact"] = {"name": "trainkit maintainers"}
    document["servers"] = [{"url": "/"}]
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    components["headers"] = HEADERS
    for model in REFERRED_TO:
        _add(schemas, model.__name__, model.model_json_schema(ref_template=REFERENCE))
    for model in STREAMED:
        _add(schemas, model.__name__, model.model_json_schema(ref_template=REFERENCE, mode="serialization"))
    plan: Any = ExperimentSpec
    _add(schemas, "ExperimentSpec", TypeAdapter(plan).json_schema(ref_template=REFERENCE))
    routes = {(method, context.path_format): context.original_route for method, context in _routes(app)}
    for path, method, operation in operations(document):
        operation["operationId"] = operation_id(routes[method, path])
        if "security" in operation:
            # roles are for OAuth 2 in the eyes of many tools: those that are enough stand beside; without, any key is
            operation["security"] = [{"key": []}]
            if roles := list(dict.fromkeys(_required_roles(routes[method, path].dependant))):
                operation["x-required-roles"] = roles
        if (deprecation := of_operation(routes[method, path])) is not None:
            _deprecate(operation, deprecation)
        operation["description"] = _description(operation)
        _parameters(operation)
        _forms(operation, schemas)
        _problems(path, method, operation)
        _not_acceptable(method, operation)
        _conditional(method, operation)
        _response_headers(path, operation)
        add_examples(operation)
        add_problem_examples(operation, components)
    schemas["JobRequest"] = {"anyOf": [_reference("JobSpec"), _reference("FromDiagnosisIn")]}
    schemas["EvaluationRequest"] = {"anyOf": [_reference("EvaluateIn"), _reference("PredictIn")]}
    # FastAPI's form of a validation error, which this service never answers with
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return for_clients(completed(document))


def _description(operation: dict[str, Any]) -> str:
    """The docstring of the route, and what follows from its declaration."""
    roles = operation.get("x-required-roles", [])
    texts = [operation.get("description", "")]
    if "security" in operation:
        texts.append(f"Needs a key with the role {' or '.join(roles)}." if roles else "Needs a key, of whatever role.")
    else:
        texts.append("Needs no key.")
    if any(one["name"] == "idempotency-key" for one in operation.get("parameters", ())):
        texts.append("With an `Idempotency-Key` the same request is carried out once, however often it is sent.")
    if "304" in operation["responses"]:
        texts.append("Answers 304 without a body while nothing has changed since the `ETag` in `If-None-Match`.")
    return "\n\n".join(filter(None, texts))


def _reference(component: str) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=component)}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (path, method, operation) of a document."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in METHODS:
                yield path, method, operation


DEPRECATION_HEADERS = {
    "Deprecation": {"description": "Since when: `@` and a Unix time (RFC 9745).", "schema": {"type": "string"}},
    "Sunset": {"description": "When it ends (RFC 8594).", "schema": {"type": "string"}},
}


def _deprecate(operation: dict[str, Any], deprecation: Deprecation) -> None:
    operation["deprecated"] = True
    operation[EXTENSION] = deprecation.as_json()
    for response in operation["responses"].values():
        response.setdefault("headers", {}).update(DEPRECATION_HEADERS)
    operation["description"] = "\n\n".join(filter(None, [deprecation.sentence, operation.get("description")]))


def _required_roles(dependant: Dependant) -> tuple[str, ...]:
    found = dependant.call.roles if isinstance(dependant.call, Needs) else ()
    return found + tuple(role for inner in dependant.dependencies for role in _required_roles(inner))


def _routes(app: FastAPI) -> Iterator[tuple[str, Any]]:
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, APIRoute) and context.original_route.include_in_schema:
            for method in context.methods or ():
                yield method.lower(), context


def _add(schemas: dict[str, Any], name: str, schema: dict[str, Any]) -> None:
    schemas.update(schema.pop("$defs", {}))
    schemas[name] = schema


def _parameters(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
        text = parameter["schema"].pop("description", None) or PARAMETER_TEXTS.get(parameter["name"])
        if text is not None:
            parameter.setdefault("description", text)
        if parameter["in"] == "header" and (known := PARAMETERS.get(parameter["name"])):
            parameter.update(known)


def _forms(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
    if form is not None:
        name = form["schema"].get("$ref", "").rpartition("/")[2]
        properties = (schemas[name] if name else form["schema"]).get("properties", {})
        for name, schema in properties.items():
            properties[name] = _without_null(schema)


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of what is left out or text: a query, a header or a form cannot say null."""
    forms = schema.get("anyOf", [])
    kept = [form for form in forms if form != {"type": "null"}]
    if len(kept) == len(forms):
        return schema
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**kept[0], **rest} if len(kept) == 1 else {**rest, "anyOf": kept}


def _problems(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    for status in _statuses(path, method):
        response: dict[str, Any] = {
            "description": MEANINGS.get(status, TITLES[status]),
            "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model=ProblemDocument.__name__)}}},
        }
        if method == "head":
            del response["content"]
        responses[str(status)] = response


def _not_acceptable(method: str, operation: dict[str, Any]) -> None:
    """Describe how `request_checks.py` reads `Accept`."""
    responses = operation["responses"]
    answered = {kind for status in responses if status[0] == "2" for kind in responses[status].get("content", {})}
    if method == "head" or not answered or ANY in answered:
        return
    responses["406"] = {
        "description": f"`Accept` does not allow {' or '.join(sorted(answered))}.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model=ProblemDocument.__name__)}}},
    }


def _conditional(method: str, operation: dict[str, Any]) -> None:
    """Describe what `conditional_requests.py` adds to every GET of JSON."""
    success = operation["responses"].get("200", {})
    if method != "get" or "application/json" not in success.get("content", {}):
        return
    operation["responses"].setdefault("304", {"description": "The client has this answer: nothing has changed."})
    parameters = operation.setdefault("parameters", [])
    known = next((one for one in parameters if one["name"] == "if-none-match"), None)
    if known is None:
        known = {"name": "if-none-match", "in": "header", "required": False}
        parameters.append(known)
    known["description"] = (
        "ETags of answers that the client has, with commas between: 304 when one of them still holds."
    )
    known["schema"] = {"type": "string"}


def _response_headers(path: str, operation: dict[str, Any]) -> None:
    """Name the headers that clients rely on."""
    tus = path.startswith("/v1/uploads")
    cached = "304" in operation["responses"]
    for status, response in operation["responses"].items():
        names = ["X-Request-Id"]
        created = status == "201" and path != "/v1/stream-tickets"  # a ticket is nothing that could be asked for
        names += ["Location"] if created or status == "302" else []
        names += ["WWW-Authenticate"] if status == "401" else []
        if operation.get("security") and (status[0] in "23" or status == "429"):
            names += ["RateLimit", "RateLimit-Policy"]
        names += ["Retry-After"] if status in ("409", "429", "503") else []
        names += ["ETag"] if cached and status in ("200", "304") else []
        if status == "201" and any(one["name"] == "idempotency-key" for one in operation.get("parameters", ())):
            names.append("Idempotency-Replayed")
        if status == "201" and any(one["name"] == "prefer" for one in operation.get("parameters", ())):
            names.append("Preference-Applied")
        if status == "200" and path.endswith(("/predict", "/evaluate", "/download")):
            names.append("Trainkit-Model")
        if status == "200" and path.endswith(("/artifacts/{name}", "/download")):
            names.append("Repr-Digest")
        if tus:
            names.append("Tus-Resumable")
            names += ["Upload-Offset", "Upload-Length"] if status[0] == "2" else []
        described = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        response["headers"] = {**described, **response.get("headers", {})}


KEPT_FOR_A_TIME = (
    *("/metrics", "/series", "/metrics.csv", ".parquet", ".tfevents", "/logs"),
    *(
        "/plots/{plot}.png",
        "/plots/{plot}.svg",
        "/artifacts/{name}",
        "/decisions:simulate",
        "/diagnosis",
        "/diagnosis/{index}.png",
        "/diagnosis:investigate",
        "/mirrors/{mirror_id}/jobs/{job_id}/retry",
    ),
)
"""Ends of addresses that tell what retention may have removed."""


CONFLICTING = (
    *("/report", "preview.png", "/diagnosis", "/diagnosis/{index}.png", "/comparison"),
    *("/artifacts/{name}", "/models/{model}/download"),
)
"""Ends of addresses of what may not be possible in the state that a resource has."""


ANY_REQUEST = (400, 408, 413, 414, 415, 421, 422, 431)
"""How a request is refused by its head and the bytes of its body, whatever its route: see `request_headers.py`,
`body_limits.py` and `http_server/`."""


SIGN_IN = "/v1/auth/"


def _statuses(path: str, method: str) -> list[int]:
    """What can go wrong at any route of that form."""
    if is_open(path):
        return sorted([*ANY_REQUEST, *((403, 404, 503) if path.startswith(SIGN_IN) else ()), 500])
    statuses = [*ANY_REQUEST, 401, 403, 429, 500, 503]
    if "{" in path or path.endswith(("/metrics/series", "/metrics/comparison")):
        statuses.append(404)
    if path.startswith("/v1/uploads") and method != "get":
        statuses += [410, 412, 423, 460]
    if method != "get":
        statuses.append(409)
    if (path, method) in (("/v1/jobs/{job_id}", "patch"), ("/v1/models/{model}", "patch")):
        statuses.append(412)
    if path.startswith("/v1") and path.endswith(KEPT_FOR_A_TIME):
        statuses.append(410)
    if path.endswith(CONFLICTING):
        statuses.append(409)
    if (path, method) == ("/v1/jobs", "post"):
        statuses += [404, 410]  # a job to be diagnosed
    if (path, method) == ("/v1/members", "post"):
        statuses.append(404)  # nobody with that address has signed in
    return sorted(set(statuses))
