"""Request work that needs torch, and wait for the worker's answer without holding a thread or a database session."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import anyio
from anyio import to_thread

from service.context import Context
from service.database import reading
from service.errors import HttpProblem, Quota
from service.inference_requests import repository
from service.inference_requests.repository import REQUEST_FILE, Kind
from service.inference_requests.request_file import ReceivedBody
from service.load_shedding import leave_work
from service.principal import Principal
from service.problem_types import PROBLEM_TYPES, ProblemCode, code_named
from service.projects import repository as projects

QUEUE = "predict"
FIRST_POLL_SECONDS, MAX_POLL_SECONDS = 0.02, 0.25


@dataclass(frozen=True, slots=True)
class Answer:
    """The worker's answer."""

    body: bytes
    media_type: str


async def infer(
    context: Context,
    who: Principal,
    kind: Kind,
    subject_key: str,
    request: bytes | ReceivedBody,
    media_type: str,
    options: dict[str, Any] | None = None,
) -> Answer:
    """Queue the request, ring, and wait for the answer.

    Raises the worker's problem, 429 while too many requests of the project wait, or 503 after `predict_seconds`.
    """
    most = context.settings.max_inference_requests
    options = dict(options or {})
    content = request if isinstance(request, bytes) else request.start
    if isinstance(request, ReceivedBody) and request.file is not None:
        content, options[REQUEST_FILE] = b"", request.file.name

    def enqueue() -> str:
        with context.sessions.begin() as session:
            if most:
                projects.locked(session, who.project_id)  # two that fit one by one must not both pass
            if most and (waiting := repository.count_open(session, who.project_id)) >= most:
                detail = f"{most} requests of this project wait for a worker's answer already. Wait for some of them."
                quota = Quota("inference_requests", limit=most, used=waiting)
                raise HttpProblem(429, "too_many_requests", detail, headers={"Retry-After": "2"}, quota=quota)
            request_id = repository.add(session, who.project_id, kind, subject_key, content, media_type, options)
        context.doorbell.ring(QUEUE)
        return request_id

    request_id = await to_thread.run_sync(enqueue)
    leave_work()
    answer = None
    try:
        answer = await _wait(context, request_id)
    finally:
        if answer is None:  # nobody waits any more: no worker shall begin it
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(_drop, context, request_id)
    if answer is None:
        detail = f"No worker answered within {context.settings.predict_seconds:.0f} s. Is one running with the queue predict?"
        raise HttpProblem(503, "no_prediction_worker", detail, headers={"Retry-After": "5"})
    return answer


async def _wait(context: Context, request_id: str) -> Answer | None:
    deadline, pause = time.monotonic() + context.settings.predict_seconds, FIRST_POLL_SECONDS
    while time.monotonic() < deadline:
        await anyio.sleep(pause)
        pause = min(MAX_POLL_SECONDS, pause * 1.3)
        answer = await to_thread.run_sync(_poll, context, request_id)
        if answer is not None:
            return answer
    return None


def _drop(context: Context, request_id: str) -> None:
    with context.sessions.begin() as session:
        repository.delete_request(session, request_id)


def _poll(context: Context, request_id: str) -> Answer | None:
    with reading(context.sessions) as session:
        row = repository.progress(session, request_id)
        if row is None:
            raise HttpProblem(503, "answer_lost", "The request was deleted before its answer came. Send it again.")
        if row.state == "answered" and row.response is not None:
            return Answer(row.response, row.response_type or "application/octet-stream")
        if row.state == "failed":
            error = row.error or {}
            items = [
                {key: str(item.get(key, "")) for key in ("pointer", "code", "message", "hint")}
                for item in error.get("errors") or [error]
            ]
            status = int(error.get("status", 422))
            code = _problem_code(status, str(error.get("code", "")))
            raise HttpProblem(status, code, str(error.get("message", "")), errors=items)
        return None


def _problem_code(status: int, code: str) -> ProblemCode:
    """Return the problem type of a worker's error: its own code, or the kind of it; the items keep their codes."""
    known = code_named(code)
    if known is not None and status in PROBLEM_TYPES[known].statuses:
        return known
    return "prediction_failed" if status >= 500 else "invalid_input"
