"""Questions to models: asked by the API, claimed and answered by a worker."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from service.database import db_now, new_id
from service.leases import StaleFence
from service.models.tables import Model, Prediction


@dataclass(frozen=True, slots=True)
class ClaimedPrediction:
    """What a worker needs to answer."""

    prediction_id: str
    fence: int
    model_key: str
    request: bytes
    media_type: str


def ask(session: Session, model: Model, request: bytes, media_type: str) -> str:
    """Write the question down; returns its id."""
    question = Prediction(
        id=new_id("pred"),
        project_id=model.project_id,
        model_id=model.id,
        request=request,
        media_type=media_type,
        state="queued",
        created_at=session.scalar(select(db_now())),
    )
    session.add(question)
    return question.id


def claim(session: Session, owner: str, lease_seconds: float) -> ClaimedPrediction | None:
    """Take the oldest unanswered question, or one whose answerer has died."""
    free = or_(Prediction.lease_expires_at.is_(None), Prediction.lease_expires_at < db_now())
    waiting = select(Prediction).where(Prediction.state == "queued", free).order_by(Prediction.created_at).limit(8)
    for question in session.scalars(waiting).all():
        fence = session.execute(
            update(Prediction)
            .where(Prediction.id == question.id, Prediction.state == "queued", Prediction.fence == question.fence, free)
            .values(fence=Prediction.fence + 1, lease_owner=owner, lease_expires_at=db_now(plus=lease_seconds))
            .returning(Prediction.fence)
            .execution_options(synchronize_session=False)
        ).scalar_one_or_none()
        if fence is not None:
            model = session.get_one(Model, question.model_id)
            return ClaimedPrediction(question.id, fence, model.storage_key, question.request, question.media_type)
    return None


def answer(session: Session, prediction_id: str, fence: int, response: dict[str, Any]) -> None:
    """`{predictions: [...]}`."""
    _close(session, prediction_id, fence, state="answered", response=response)


def fail(session: Session, prediction_id: str, fence: int, error: dict[str, Any]) -> None:
    """`{status, code, message, pointer, hint}`."""
    _close(session, prediction_id, fence, state="failed", error=error)


def sweep(session: Session, older_than_seconds: float) -> None:
    """Forget questions that nobody waits for any more."""
    now = session.scalar(select(db_now()))
    assert now is not None
    session.execute(delete(Prediction).where(Prediction.created_at < now - timedelta(seconds=older_than_seconds)))


def _close(session: Session, prediction_id: str, fence: int, **changes: Any) -> None:
    closed = session.execute(
        update(Prediction)
        .where(Prediction.id == prediction_id, Prediction.fence == fence, Prediction.state == "queued")
        .values(lease_owner=None, lease_expires_at=None, **changes)
        .returning(Prediction.id)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if closed is None:
        raise StaleFence(prediction_id)
