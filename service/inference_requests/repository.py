"""All SQL of inference requests: added by the API, claimed and answered by a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from service.database import after_commit, db_now, db_time, new_id
from service.inference_requests.tables import InferenceRequest
from service.instrumentation import INFERENCE_REQUESTS_CLOSED
from service.leases import Claim, StaleFence

Kind = Literal["predict", "evaluate", "dataset_preview", "augmentation_preview", "init_report", "onnx"]


@dataclass(frozen=True, slots=True)
class ClaimedInferenceRequest:
    """An inference request that a worker has claimed."""

    claim: Claim
    kind: Kind
    subject_key: str
    request: bytes
    media_type: str
    options: dict[str, Any]


def add(
    session: Session,
    project_id: str,
    kind: Kind,
    subject_key: str,
    request: bytes,
    media_type: str,
    options: dict[str, Any] | None = None,
) -> str:
    """Queue an inference request; returns its id."""
    row = InferenceRequest(
        id=new_id("inf"),
        project_id=project_id,
        kind=kind,
        subject_key=subject_key,
        request=request,
        media_type=media_type[:100],
        options=options,
        state="queued",
        created_at=db_time(session),
    )
    session.add(row)
    return row.id


def get(session: Session, request_id: str) -> InferenceRequest | None:
    """Return the request; None when it was deleted."""
    return session.get(InferenceRequest, request_id)


def claim(session: Session, owner: str, lease_seconds: float) -> ClaimedInferenceRequest | None:
    """Claim the oldest free request, or one whose lease has expired; None when there is none."""
    free = or_(InferenceRequest.lease_expires_at.is_(None), InferenceRequest.lease_expires_at < db_now())
    waiting = (
        select(InferenceRequest)
        .where(InferenceRequest.state == "queued", free)
        .order_by(InferenceRequest.created_at)
        .limit(8)
    )
    for row in session.scalars(waiting).all():
        fence = session.execute(
            update(InferenceRequest)
            .where(
                InferenceRequest.id == row.id,
                InferenceRequest.state == "queued",
                InferenceRequest.fence == row.fence,
                free,
            )
            .values(fence=InferenceRequest.fence + 1, lease_owner=owner, lease_expires_at=db_now(plus=lease_seconds))
            .returning(InferenceRequest.fence)
            .execution_options(synchronize_session=False)
        ).scalar_one_or_none()
        if fence is not None:
            kind: Any = row.kind
            return ClaimedInferenceRequest(
                Claim(row.id, fence), kind, row.subject_key, row.request, row.media_type, row.options or {}
            )
    return None


def answer(session: Session, claim: Claim, body: bytes, media_type: str) -> None:
    """Store the answer. Raises StaleFence."""
    _close(session, claim, state="answered", response=body, response_type=media_type)


def fail(session: Session, claim: Claim, error: dict[str, Any]) -> None:
    """Store the error `{status, code, message, pointer, hint}`. Raises StaleFence."""
    _close(session, claim, state="failed", error=error)


def delete_old(session: Session, older_than_seconds: float) -> None:
    """Delete requests that nobody waits for any more."""
    session.execute(delete(InferenceRequest).where(InferenceRequest.created_at < db_now(plus=-older_than_seconds)))


def _close(session: Session, claim: Claim, **changes: Any) -> None:
    closed = session.execute(
        update(InferenceRequest)
        .where(
            InferenceRequest.id == claim.id, InferenceRequest.fence == claim.fence, InferenceRequest.state == "queued"
        )
        .values(lease_owner=None, lease_expires_at=None, **changes)
        .returning(InferenceRequest.id)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if closed is None:
        raise StaleFence(claim.id)
    after_commit(session, INFERENCE_REQUESTS_CLOSED.labels(changes["state"]).inc)
