"""`Idempotency-Key`: a request that is sent again makes nothing new, and is answered with what it made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.database import db_time, savepoint
from service.errors import HttpProblem
from service.jobs import repository
from service.jobs.tables import IdempotencyKey


class Identified(Protocol):
    """Whatever a request makes."""

    id: Any


T = TypeVar("T", bound=Identified)


def idempotent(
    session: Session,
    project_id: str,
    key: str | None,
    document: Any,
    make: Callable[[Session], T],
    find: Callable[[Session, str], T | None],
) -> tuple[T, bool]:
    """(what `make` made in the session's transaction, True), or (what the same key made earlier, False).

    Raises a 422 problem where the key was used for another document, or for something of another kind.
    """
    if not key:
        return make(session), True
    fingerprint = _digest(document)

    def earlier() -> T | None:
        known = repository.idempotency_key(session, project_id, key)
        if known is None:
            return None
        found = find(session, known.resource_id) if known.fingerprint == fingerprint else None
        if found is None:
            detail = "This Idempotency-Key was used for another request. Use a new one."
            raise HttpProblem(422, "idempotency_mismatch", detail)
        return found

    if (known := earlier()) is not None:
        return known, False
    try:
        with savepoint(session):
            created = make(session)
            remembered = IdempotencyKey(
                project_id=project_id,
                key=key,
                fingerprint=fingerprint,
                resource_id=created.id,
                created_at=db_time(session),
            )
            repository.add_idempotency_key(session, remembered)
    except IntegrityError:
        # the same key was used at the same moment, and the other request won
        if (known := earlier()) is not None:
            return known, False
        raise
    return created, True


def is_known(session: Session, project_id: str, key: str) -> bool:
    """Whether the key was used before: then a request is not checked anew, but answered with what it made."""
    return repository.idempotency_key(session, project_id, key) is not None


def implied(request: dict[str, Any]) -> str:
    """An Idempotency-Key for who sends none: the same wish for the same job makes one job, however often it is sent."""
    return f"~{_digest(request)}"


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()
