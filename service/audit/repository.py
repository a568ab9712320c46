"""All SQL of the audit log. Nothing here updates a sealed entry, and only `delete_through` deletes some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select
from sqlalchemy.orm import Session

from service.audit.documents import canonical, time_text
from service.audit.tables import AuditAnchor, AuditEntry, AuditPending
from service.database import Base, db_now, new_id, rows_changed


def add_pending(session: Session, documents: Sequence[Mapping[str, Any]]) -> None:
    """Insert entries in the session's transaction, to be sealed once it is committed."""
    ids = sorted(new_id("aud") for _ in documents)  # entries of one moment keep their order
    rows = [{"id": id, "document": canonical(document)} for id, document in zip(ids, documents, strict=True)]
    session.execute(insert(AuditPending).values(created_at=db_now()), rows)


def any_pending(session: Session) -> bool:
    """Whether there is something to seal; a read, which keeps no writer waiting on SQLite."""
    return session.scalar(select(AuditPending.id).limit(1)) is not None


def pending(session: Session, limit: int) -> Sequence[AuditPending]:
    """Return the oldest committed entries that wait to be sealed, locked: what another process seals now is left out."""
    oldest = select(AuditPending).order_by(AuditPending.created_at, AuditPending.id).limit(limit)
    return session.scalars(oldest.with_for_update()).all()


def pending_count(session: Session) -> tuple[int, datetime | None]:
    """Return how many entries wait to be sealed, and the time of the oldest."""
    row = session.execute(select(func.count(), func.min(AuditPending.created_at)).select_from(AuditPending)).one()
    return int(row[0]), row[1]


def delete_pending(session: Session, ids: Sequence[str]) -> None:
    """Delete entries from the queue that the session's transaction has sealed."""
    session.execute(delete(AuditPending).where(AuditPending.id.in_(ids)).execution_options(synchronize_session=False))


def head(session: Session) -> tuple[int, str] | None:
    """Return seq and hash of the newest sealed entry; None when there is none at all."""
    last = select(func.max(AuditEntry.seq)).scalar_subquery()
    newest = session.execute(select(AuditEntry.seq, AuditEntry.hash).where(AuditEntry.seq == last)).first()
    return (newest[0], newest[1]) if newest is not None else anchor(session)


def anchor(session: Session) -> tuple[int, str] | None:
    """Return seq and hash of the last entry that was cut off."""
    last = select(func.max(AuditAnchor.seq)).scalar_subquery()
    row = session.execute(select(AuditAnchor.seq, AuditAnchor.hash).where(AuditAnchor.seq == last)).first()
    return None if row is None else (row[0], row[1])


def add_sealed(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert sealed entries. Raises IntegrityError when another process has sealed at the same moment."""
    session.execute(insert(AuditEntry), list(rows))


def chain(session: Session, after: int, limit: int) -> Sequence[AuditEntry]:
    """Return sealed entries after a seq, in their order."""
    rows = select(AuditEntry).where(AuditEntry.seq > after).order_by(AuditEntry.seq).limit(limit)
    return session.scalars(rows.execution_options(populate_existing=True)).all()


def walk(session: Session, after: int, batch: int = 500) -> Iterator[AuditEntry]:
    """Yield all sealed entries after a seq, a batch at a time."""
    while rows := chain(session, after, batch):
        yield from rows
        after = rows[-1].seq
        session.expunge_all()


def following(session: Session, after: int, project: str | None, limit: int) -> Sequence[AuditEntry]:
    """Return entries after a seq, oldest first, of a project; None: of all and of the platform."""
    rows = select(AuditEntry).where(AuditEntry.seq > after)
    if project is not None:
        rows = rows.where(AuditEntry.project_id == project)
    return session.scalars(rows.order_by(AuditEntry.seq).limit(limit)).all()


def visible(project: str | None) -> list[ColumnElement[bool]]:
    """Return the conditions of the list of entries that a project sees; None: all."""
    every = AuditEntry.seq > 0  # lets both databases read by the key
    return [every] if project is None else [every, AuditEntry.project_id == project]


def last_older_than(session: Session, days: float) -> tuple[int, str] | None:
    """Return seq and hash of the newest entry that is older than that."""
    old = select(AuditEntry.seq, AuditEntry.hash).where(AuditEntry.created_at < db_now(plus=-days * 86400.0))
    row = session.execute(old.order_by(AuditEntry.created_at.desc(), AuditEntry.seq.desc()).limit(1)).first()
    return None if row is None else (row[0], row[1])


def add_anchor(session: Session, seq: int, hash: str) -> None:
    """Record where the chain begins from now on: the database lets go of entries up to here alone."""
    session.execute(insert(AuditAnchor).values(seq=seq, hash=hash, created_at=db_now()))


def delete_through(session: Session, seq: int, limit: int) -> int:
    """Delete up to `limit` of the oldest entries up to an anchor; returns how many."""
    oldest = select(AuditEntry.seq).where(AuditEntry.seq <= seq).order_by(AuditEntry.seq).limit(limit)
    cut = delete(AuditEntry).where(AuditEntry.seq.in_(oldest)).execution_options(synchronize_session=False)
    return rows_changed(session.execute(cut))


def owner_of(session: Session, kind: str, identifier: str) -> str | None:
    """Return the project of a resource, whoever asks; None when there is no such resource."""
    for mapper in Base.registry.mappers:
        table = mapper.class_
        if table.audited is not None and table.audited.kind == kind:
            row = session.get(table, identifier)
            owner = getattr(row, "project_id", None) if row is not None else None
            return owner if kind != "project" or row is None else str(row.id)
    return None


def entry_columns(seq: int, at: datetime, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a sealed entry that are copies of its fields."""
    actor, resource = document["actor"], document["resource"] or {}
    return {
        "seq": seq,
        "created_at": at,
        "project_id": document["project"],
        "actor": f"{actor['kind']}:{actor['id'] or ''}"[:200],
        "operation": document["operation"],
        "outcome": document["outcome"],
        "resource_id": resource.get("id"),
    }


def is_copied(row: AuditEntry, document: Mapping[str, Any]) -> bool:
    """Whether the columns of a sealed entry are what its document says."""
    columns = entry_columns(row.seq, row.created_at, document)
    return time_text(row.created_at) == document["created_at"] and all(
        getattr(row, name) == value for name, value in columns.items()
    )
