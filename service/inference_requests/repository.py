"""All SQL of inference requests: added by the API, claimed and answered by a worker."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, Select, delete, func, or_, select, true, update
from sqlalchemy.orm import Session

from service import process_identity
from service.database import after_commit, db_now, db_time, new_id, rows_changed
from service.fair_share import repository as fair_share
from service.fair_share.admission import Admission, WorkClass, admit_all
from service.inference_requests.tables import InferenceRequest
from service.instrumentation import INFERENCE_REQUESTS_CLOSED
from service.leases import Claim, StaleFence
from service.projects.tables import Project

Kind = Literal["predict", "evaluate", "dataset_preview", "augmentation_preview", "init_report", "onnx"]
LIGHT: tuple[Kind, ...] = ("predict",)
REQUEST_FILE = "request_file"
"""Option of a large request: the name of its file among the unfinished ones of the storage; the row's own is empty then."""
HEAVY: tuple[Kind, ...] = ("evaluate", "dataset_preview", "augmentation_preview", "init_report", "onnx")


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


def progress(session: Session, request_id: str) -> Row[Any] | None:
    """Return (state, response, response_type, error) of the request; None when it was deleted."""
    columns = (
        InferenceRequest.state,
        InferenceRequest.response,
        InferenceRequest.response_type,
        InferenceRequest.error,
    )
    return session.execute(select(*columns).where(InferenceRequest.id == request_id)).one_or_none()


def waiting(kinds: Collection[Kind] | None, wait_seconds: float) -> Select[Any]:
    """Select free requests of those kinds (None: of any); correlated with the project to be served.

    Requests older than `wait_seconds` are left out: their clients have been answered that nobody came.
    """
    return select(InferenceRequest.id).where(*_open(kinds, wait_seconds), InferenceRequest.project_id == Project.id)


def has_open(session: Session, project_id: str, kinds: Collection[Kind], wait_seconds: float) -> bool:
    """Whether a free request of those kinds waits in the project."""
    rows = select(InferenceRequest.id).where(*_open(kinds, wait_seconds), InferenceRequest.project_id == project_id)
    return session.scalar(rows.limit(1)) is not None


def claim(
    session: Session, owner: str, seconds: float, admits: Admission = admit_all
) -> ClaimedInferenceRequest | None:
    """Claim the next request of the project whose turn it is, its predictions first; None when none may be begun.

    Nobody waits longer than `seconds` for an answer, and so long does the claim hold.
    """
    in_progress = fair_share.questions_in_progress()
    for project_id in fair_share.order(session, "predict", waiting(None, seconds), in_progress):
        kinds: tuple[tuple[WorkClass, tuple[Kind, ...]], ...] = (("light", LIGHT), ("heavy", HEAVY))
        for work_class, of_class in kinds:
            if not has_open(session, project_id, of_class, seconds) or not admits(project_id, work_class):
                continue
            if (claimed := _claim_of(session, project_id, of_class, owner, seconds)) is not None:
                fair_share.record_served(session, project_id, "predict")
                return claimed
    return None


def _claim_of(
    session: Session, project_id: str, kinds: Collection[Kind] | None, owner: str, seconds: float
) -> ClaimedInferenceRequest | None:
    """Claim the project's oldest free request of those kinds, or one whose lease has expired, for `seconds`.

    Nobody waits longer than `seconds` for an answer.
    """
    oldest = select(InferenceRequest.id).where(
        InferenceRequest.project_id == project_id, *_open(kinds, wait_seconds=seconds)
    )
    oldest = oldest.order_by(InferenceRequest.created_at, InferenceRequest.id).limit(1)
    request_id = session.scalars(oldest.with_for_update(skip_locked=True)).one_or_none()
    if request_id is None:
        return None
    session.execute(
        update(InferenceRequest)
        .where(InferenceRequest.id == request_id)
        .values(
            fence=InferenceRequest.fence + 1,
            lease_owner=owner,
            lease_process=process_identity.current(),
            lease_expires_at=db_now(plus=seconds),
        )
        .execution_options(synchronize_session=False)
    )
    row = session.get_one(InferenceRequest, request_id, populate_existing=True)
    kind: Any = row.kind
    return ClaimedInferenceRequest(
        Claim(row.id, row.fence), kind, row.subject_key, row.request, row.media_type, row.options or {}
    )


def count_open(session: Session, project_id: str) -> int:
    """Count the project's requests that are not answered yet."""
    unanswered = select(func.count()).where(
        InferenceRequest.project_id == project_id, InferenceRequest.state == "queued"
    )
    return session.scalar(unanswered) or 0


def delete_request(session: Session, request_id: str) -> None:
    """Delete a request whose answer nobody waits for any more; a worker that has it drops it."""
    session.execute(delete(InferenceRequest).where(InferenceRequest.id == request_id))


def _open(kinds: Collection[Kind] | None, wait_seconds: float) -> tuple[ColumnElement[bool], ...]:
    is_free = or_(InferenceRequest.lease_expires_at.is_(None), InferenceRequest.lease_expires_at < db_now())
    is_awaited = InferenceRequest.created_at > db_now(plus=-wait_seconds)
    is_kind = true() if kinds is None else InferenceRequest.kind.in_(kinds)
    return InferenceRequest.state == "queued", is_free, is_awaited, is_kind


def answer(session: Session, claim: Claim, body: bytes, media_type: str) -> None:
    """Store the answer. Raises StaleFence."""
    _close(session, claim, state="answered", response=body, response_type=media_type)


def fail(session: Session, claim: Claim, error: dict[str, Any]) -> None:
    """Store the error `{status, code, message, pointer, hint}`. Raises StaleFence."""
    _close(session, claim, state="failed", error=error)


def delete_old(session: Session, older_than_seconds: float, limit: int) -> int:
    """Delete up to `limit` requests that nobody waits for any more; returns how many."""
    old = select(InferenceRequest.id).where(InferenceRequest.created_at < db_now(plus=-older_than_seconds)).limit(limit)
    return rows_changed(session.execute(delete(InferenceRequest).where(InferenceRequest.id.in_(old))))


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
