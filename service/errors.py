"""Every error is a problem document (RFC 9457): what was wrong, where, what to do. Bad input never gives a 500."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.types import Scope

from service.jobs.states import Conflict
from service.path_suggestions import nearest_path
from service.problem_types import ERRORS_PATH, PROBLEM_TYPES, ProblemCode
from service.proxy_headers import root_path_of
from trainkit.spec import Problem, SpecError
from trainkit.spec.json_errors import json_meaning
from trainkit.spec.problems import MORE_ERRORS, problems_of

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "A key is needed",
    403: "The key may not do this",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "Too slow",
    409: "Conflict",
    410: "Gone",
    411: "Length required",
    412: "Another protocol version",
    413: "Too large",
    414: "Address too long",
    415: "Unsupported media type",
    421: "Another host",
    422: "Not valid",
    423: "Locked",
    429: "Too many",
    431: "Head too large",
    460: "Checksum mismatch",
    500: "Internal error",
    503: "Not available now",
}


SHOWN_OF_TEXT, SHOWN_OF_DETAIL = 1000, 4000
"""Characters of an error's pointer, message and hint, and of a problem's detail."""
DATABASE_AWAY: tuple[type[Exception], ...] = (OperationalError, InterfaceError, PoolTimeout)
"""What a database that is away, restarting or overrun looks like."""


MAX_ERRORS = 200
"""Items of `errors` in one document; what is beyond is counted in a last one."""


class ErrorItem(BaseModel):
    """One thing wrong, and where."""

    pointer: str
    code: str
    message: str
    hint: str = ""


class QuotaOut(BaseModel):
    """The limit that a refused request would have passed."""

    name: str
    """As in the project's usage: `queued_jobs`, `storage_bytes`, `gpu_hours` ..."""
    limit: float
    used: float
    resets_at: datetime | None = None
    """When `used` begins anew; null: when something ends or is deleted."""


class ProblemDocument(BaseModel):
    """The body of every error response."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    errors: list[ErrorItem] = []
    limit_bytes: int | None = None
    """With 413: the limit that was passed."""
    removed_at: str | None = None
    """With 410 of a job's parts: when they were removed."""
    quota: QuotaOut | None = None
    """With 413 and 429 of a limit: which one, and what is used of it."""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit that a request would pass: its name in the project's usage, and what is used of it."""

    name: str
    limit: float
    used: float
    resets_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """The member `quota` of a problem document."""
        shown = {"name": self.name, "limit": self.limit, "used": self.used}
        return shown if self.resets_at is None else {**shown, "resets_at": self.resets_at.isoformat()}


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]} ..."


class HttpProblem(Exception):  # noqa: N818 - the field's term
    """Raise to answer with a problem document."""

    def __init__(
        self,
        status: int,
        code: ProblemCode,
        detail: str,
        *,
        errors: Iterable[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        limit_bytes: int | None = None,
        removed_at: str | None = None,
        quota: Quota | None = None,
    ) -> None:
        self.status, self.code, self.detail = status, code, _cut(detail, SHOWN_OF_DETAIL)
        self.errors = [{name: _cut(text, SHOWN_OF_TEXT) for name, text in error.items()} for error in errors]
        self.headers = dict(headers or {})
        self.limit_bytes = limit_bytes
        self.removed_at, self.quota = removed_at, quota
        super().__init__(detail)

    def body(self, request_id: str | None = None, root_path: str = "") -> dict[str, Any]:
        """The document. Its `type` is the address of the description of its code, on this service."""
        document: dict[str, Any] = {
            "type": f"{root_path}{ERRORS_PATH}#{self.code}",
            "title": PROBLEM_TYPES[self.code].title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "errors": self.errors[:MAX_ERRORS],
        }
        if (hidden := len(self.errors) - MAX_ERRORS) > 0:
            item = {"pointer": "", "code": MORE_ERRORS, "message": f"{hidden} more problems are not listed"}
            document["errors"].append({**item, "hint": "Correct these first."})
        if self.limit_bytes is not None:
            document["limit_bytes"] = self.limit_bytes
        if self.removed_at is not None:
            document["removed_at"] = self.removed_at
        if self.quota is not None:
            document["quota"] = self.quota.as_json()
        if request_id:
            document["request_id"] = request_id
        return document


class BodyProblem(HTTPException):
    """A problem found while a body is read: parsers of bodies let this kind of exception through."""

    def __init__(self, problem: HttpProblem) -> None:
        super().__init__(problem.status, problem.detail)
        self.problem = problem


class Finished(Exception):  # noqa: N818 - not an error: the answer is 204
    """The stream has ended and the reader has seen its end: it need not come back."""


def not_found(kind: str, identifier: str) -> HttpProblem:
    """A thing that is not there, or belongs to someone else: the same answer."""
    shown = identifier[:80]
    return HttpProblem(404, "not_found", f"There is no {kind} {shown!r} in this project.")


def invalid_spec(error: SpecError) -> HttpProblem:
    """All problems of a spec at once."""
    errors = [problem.as_dict() for problem in error.problems]
    count = f"{len(errors)} problem{'s' if len(errors) != 1 else ''}"
    if errors[-1:] and errors[-1]["code"] == MORE_ERRORS:
        count = f"more than {len(errors) - 1} problems"
    detail = "; ".join(f"{e['pointer'] or '/'}: {e['message']}" for e in errors[:3])
    return HttpProblem(422, "invalid_spec", f"The spec has {count}. {detail}", errors=errors)


def install(app: FastAPI) -> None:
    """Answer every kind of failure with a problem document."""

    @app.exception_handler(HttpProblem)
    async def _problem(request: Request, error: HttpProblem) -> JSONResponse:
        return respond(request, error)

    @app.exception_handler(Finished)
    async def _finished(request: Request, error: Finished) -> Response:
        return Response(status_code=204)

    @app.exception_handler(SpecError)
    async def _spec(request: Request, error: SpecError) -> JSONResponse:
        return respond(request, invalid_spec(error))

    @app.exception_handler(Conflict)
    async def _conflict(request: Request, error: Conflict) -> JSONResponse:
        return respond(request, HttpProblem(409, "wrong_state", str(error)))

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [problem.as_dict() for problem in request_problems(request, error)]
        detail = "; ".join(f"{e['pointer'] or '/'}: {e['message']}" for e in errors[:3])
        return respond(request, HttpProblem(422, "invalid_request", detail, errors=errors))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, BodyProblem):
            return respond(request, error.problem)
        codes: dict[int, ProblemCode] = {404: "not_found", 405: "method_not_allowed", 400: "bad_request"}
        detail = str(error.detail)
        if isinstance(error.__cause__, RecursionError):
            # FastAPI reads a body before any dependency of ours
            return respond(request, HttpProblem(422, "too_deep", "The body is nested too deeply."))
        if error.status_code == 404:
            detail = _nothing_at(request)
        problem = HttpProblem(
            error.status_code,
            codes.get(error.status_code, "http_error"),
            detail,
            headers=error.headers or {},
        )
        return respond(request, problem)

    @app.exception_handler(IntegrityError)
    async def _integrity(request: Request, error: IntegrityError) -> JSONResponse:
        log.warning("conflict at %s %s: %s", request.method, request.url.path, error.orig)
        detail = "Another request has just changed what this one is about; nothing was changed. Look again."
        return respond(request, HttpProblem(409, "changed_meanwhile", detail))

    @app.exception_handler(DataError)
    async def _data(request: Request, error: DataError) -> JSONResponse:
        detail = "The request holds a value that the database cannot store or compare; nothing was changed."
        return respond(request, HttpProblem(422, "not_storable", detail))

    for kind in DATABASE_AWAY:
        app.add_exception_handler(kind, _database_away)


def _nothing_at(request: Request) -> str:
    """Say that an address has no route, and which one is nearest."""
    path, root_path = request.scope["path"], root_path_of(request.scope)
    templates = {context.path_format for context in iter_route_contexts(request.app.routes) if context.path_format}
    nearest = nearest_path(path, sorted(templates))
    question = f" Did you mean {root_path}{nearest}?" if nearest and nearest != path else ""
    return f"There is nothing at {root_path}{path}.{question} GET {root_path}/openapi.json lists every route."


async def _database_away(request: Request, error: Exception) -> JSONResponse:
    log.error("database: %s", getattr(error, "orig", error))
    return respond(request, database_away())


def defect() -> HttpProblem:
    """500: what nobody foresaw. `monitoring/requests.py` answers with it, from outside of everything else."""
    detail = "This is a defect of the service, not of the request. The log has it under the request id."
    return HttpProblem(500, "internal", detail)


def database_away() -> HttpProblem:
    """503 while the database does not answer."""
    detail = "The database does not answer; nothing was changed. Try again."
    return HttpProblem(503, "database_unavailable", detail, headers={"Retry-After": "2"})


def request_problems(request: Request, error: RequestValidationError) -> list[Problem]:
    """What FastAPI found wrong with a request, in our words: places in the body are JSON pointers, others `query/limit`."""
    field = getattr(request.scope.get("route"), "body_field", None)
    annotation = field.field_info.annotation if field is not None else None
    model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else BaseModel
    body = dict(error.body) if isinstance(error.body, FormData) else error.body
    in_body = [{**item, "loc": item["loc"][1:]} for item in error.errors() if item["loc"][:1] == ("body",)]
    problems = [_body_problem(item) for item in in_body if item["type"] == "json_invalid" or not _is_plain(body)]
    if not problems:
        problems = problems_of(in_body, body, model)
    for item in error.errors():
        if item["loc"][:1] != ("body",):
            found = problems_of([{**item, "loc": item["loc"][1:]}], None, BaseModel)
            problems += [replace(one, pointer="/".join(map(str, item["loc"]))) for one in found]
    return problems


def _is_plain(body: Any) -> bool:
    return body is None or isinstance(body, dict | list | str | int | float | bool)


def _body_problem(item: Mapping[str, Any]) -> Problem:
    """What is wrong with a body that is no JSON at all."""
    reason = item.get("ctx", {}).get("error", "")
    message = f"the body is not JSON: {json_meaning(str(reason))}" if reason else "the body is not read as JSON"
    return Problem("", "not_json", message, "Send JSON with Content-Type: application/json.")


def answer(problem: HttpProblem, scope: Scope) -> JSONResponse:
    """The response of a problem, with the request's id; code and detail are kept for the audit log."""
    state = scope.setdefault("state", {})
    state["problem"], state["problem_detail"] = problem.code, problem.detail
    body = problem.body(state.get("request_id"), root_path_of(scope))
    return JSONResponse(body, status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def respond(request: Request, problem: HttpProblem) -> JSONResponse:
    """The same, for a request."""
    return answer(problem, request.scope)
