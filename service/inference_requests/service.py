"""Asking, and waiting for a worker's answer without holding a thread or a database session."""

from __future__ import annotations

import time
from dataclasses import dataclass

import anyio
from anyio import to_thread

from service.context import Context
from service.database import reading
from service.errors import Problem
from service.inference_requests import repository
from service.inference_requests.repository import Kind
from service.inference_requests.tables import InferenceRequest
from service.keys.service import Principal

QUEUE = "predict"
FIRST_LOOK, LONGEST_LOOK = 0.02, 0.25


@dataclass(frozen=True, slots=True)
class Answer:
    """What the worker wrote."""

    body: bytes
    media_type: str


async def ask(
    context: Context, who: Principal, kind: Kind, subject_key: str, request: bytes, media_type: str
) -> Answer:
    """Write the question down, ring, and wait. Raises the worker's problem, or 503 when nobody answers in time."""

    def write_down() -> str:
        with context.sessions.begin() as session:
            question = repository.ask(session, who.project_id, kind, subject_key, request, media_type)
        context.doorbell.ring(QUEUE)
        return question

    question = await to_thread.run_sync(write_down)
    deadline, pause = time.monotonic() + context.settings.predict_seconds, FIRST_LOOK
    while time.monotonic() < deadline:
        await anyio.sleep(pause)
        pause = min(LONGEST_LOOK, pause * 1.3)
        answer = await to_thread.run_sync(_look, context, question)
        if answer is not None:
            return answer
    detail = (
        f"No worker answered within {context.settings.predict_seconds:.0f} s. Is one running with the queue predict?"
    )
    raise Problem(503, "no_prediction_worker", detail, headers={"Retry-After": "5"})


def _look(context: Context, question_id: str) -> Answer | None:
    with reading(context.sessions) as session:
        question = session.get(InferenceRequest, question_id)
        if question is None:
            raise Problem(503, "answer_lost", "The question was swept away before its answer came. Ask again.")
        if question.state == "answered" and question.response is not None:
            return Answer(question.response, question.response_type or "application/octet-stream")
        if question.state == "failed":
            error = question.error or {}
            item = {key: str(error.get(key, "")) for key in ("pointer", "code", "message", "hint")}
            status = int(error.get("status", 422))
            raise Problem(status, item["code"] or "not_answered", item["message"], errors=[item])
        return None
