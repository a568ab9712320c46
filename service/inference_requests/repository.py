"""Questions in the database: asked by the API, claimed and answered by a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from service.database import db_now, new_id
from service.inference_requests.tables import InferenceRequest
from service.leases import StaleFence
from service.monitoring.after_commit import after_commit
from service.monitoring.metrics import QUESTIONS_CLOSED

Kind = Literal["predict", "dataset_preview", "augmentation_preview", "init_report", "onnx"]


@dataclass(frozen=True, slots=True)
class ClaimedQuestion:
    """What a worker needs to answer."""

    question_id: str
    fence: int
    kind: Kind
    subject_key: str
    request: bytes
    media_type: str


def ask(session: Session, project_id: str, kind: Kind, subject_key: str, request: bytes, media_type: str) -> str:
    """Write the question down; returns its id."""
    now = session.scalar(select(db_now()))
    assert now is not None
    question = InferenceRequest(
        id=new_id("ask"),
        project_id=project_id,
        kind=kind,
        subject_key=subject_key,
        request=request,
        media_type=media_type[:100],
        state="queued",
        created_at=now,
    )
    session.add(question)
    return question.id


def claim(session: Session, owner: str, lease_seconds: float) -> ClaimedQuestion | None:
    """Take the oldest unanswered question, or one whose answerer has died."""
    free = or_(InferenceRequest.lease_expires_at.is_(None), InferenceRequest.lease_expires_at < db_now())
    waiting = (
        select(InferenceRequest)
        .where(InferenceRequest.state == "queued", free)
        .order_by(InferenceRequest.created_at)
        .limit(8)
    )
    for question in session.scalars(waiting).all():
        fence = session.execute(
            update(InferenceRequest)
            .where(
                InferenceRequest.id == question.id,
                InferenceRequest.state == "queued",
                InferenceRequest.fence == question.fence,
                free,
            )
            .values(fence=InferenceRequest.fence + 1, lease_owner=owner, lease_expires_at=db_now(plus=lease_seconds))
            .returning(InferenceRequest.fence)
            .execution_options(synchronize_session=False)
        ).scalar_one_or_none()
        if fence is not None:
            kind: Any = question.kind
            return ClaimedQuestion(
                question.id, fence, kind, question.subject_key, question.request, question.media_type
            )
    return None


def answer(session: Session, question_id: str, fence: int, body: bytes, media_type: str) -> None:
    """The answer's bytes."""
    _close(session, question_id, fence, state="answered", response=body, response_type=media_type)


def fail(session: Session, question_id: str, fence: int, error: dict[str, Any]) -> None:
    """`{status, code, message, pointer, hint}`."""
    _close(session, question_id, fence, state="failed", error=error)


def sweep(session: Session, older_than_seconds: float) -> None:
    """Forget questions that nobody waits for any more."""
    session.execute(delete(InferenceRequest).where(InferenceRequest.created_at < db_now(plus=-older_than_seconds)))


def _close(session: Session, question_id: str, fence: int, **changes: Any) -> None:
    closed = session.execute(
        update(InferenceRequest)
        .where(InferenceRequest.id == question_id, InferenceRequest.fence == fence, InferenceRequest.state == "queued")
        .values(lease_owner=None, lease_expires_at=None, **changes)
        .returning(InferenceRequest.id)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if closed is None:
        raise StaleFence(question_id)
    after_commit(session, QUESTIONS_CLOSED.labels(changes["state"]).inc)
