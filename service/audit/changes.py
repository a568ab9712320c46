"""What a transaction changes, from SQLAlchemy's own record of it; one entry for each resource, in the same transaction.

Only inside a trail (`trail.py`): what workers write on their own is told by events of jobs and datasets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ClauseElement, event
from sqlalchemy import inspect as inspect_row
from sqlalchemy.orm import Session, SessionTransaction

from service.audit import repository
from service.audit.documents import shown
from service.audit.trail import TRAIL, Trail
from service.database import Base

CHANGES, MARKS, WHOLE = "audit_changes", "audit_marks", "audit_whole"
NEVER_SHOWN = frozenset({"id", "project_id", "created_at", "updated_at", "fence", "not_before"})
"""Columns of many tables that say nothing of what somebody decided."""
MACHINE_PREFIXES = ("lease_", "next_")
SECRET = "(secret)"
SUCCEEDED, DENIED = "succeeded", "denied"


@dataclass(slots=True)
class ResourceChange:
    """Fields of one resource before and after; None: it was not there."""

    project: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def record(
    session: Session,
    kind: str,
    identifier: str,
    project: str | None,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> None:
    """Tell what a statement changed that SQLAlchemy has no record of: UPDATE and DELETE without loaded rows.

    Args:
        before, after: the changed fields; None where there is no such resource before or after.
    """
    if TRAIL.get() is None:
        return
    plain = [
        None if fields is None else {name: shown(value) for name, value in fields.items()} for fields in (before, after)
    ]
    _merge(session, (kind, identifier), ResourceChange(project, *plain))


def record_request(session: Session, status: int) -> None:
    """Make the transaction leave an entry even if it changes nothing: the request as a whole, with its status."""
    session.info[WHOLE] = status


def _merge(session: Session, key: tuple[str, str], change: ResourceChange) -> None:
    changes: list[tuple[tuple[str, str], ResourceChange]] = session.info.setdefault(CHANGES, [])
    changes.append((key, change))


def _joined(changes: list[tuple[tuple[str, str], ResourceChange]]) -> dict[tuple[str, str], ResourceChange]:
    """Return one change a resource, from its state before the first to its state after the last."""
    joined: dict[tuple[str, str], ResourceChange] = {}
    for key, change in changes:
        first = joined.get(key)
        if first is None:
            joined[key] = change
            continue
        before = first.before
        if before is not None:
            before = {**(change.before or {}), **before}
        after = change.after
        if after is not None:
            after = {**(first.after or {}), **after}
        joined[key] = ResourceChange(first.project or change.project, before, after)
    return {key: one for key, one in joined.items() if one.before is not None or one.after is not None}


@event.listens_for(Session, "before_flush")
def _collect(session: Session, flush_context: Any, instances: Any) -> None:
    if TRAIL.get() is None:
        return
    for row in session.new:
        if isinstance(row, Base) and row.audited is not None:
            _add(session, row, ResourceChange(_project(row), None, _values(row)))
    for row in session.deleted:
        if isinstance(row, Base) and row.audited is not None:
            _add(session, row, ResourceChange(_project(row), _values(row), None))
    for row in session.dirty:
        if isinstance(row, Base) and row.audited is not None and row not in session.deleted:
            before, after = _differences(row)
            if before or after:
                _add(session, row, ResourceChange(_project(row), before, after))


def _add(session: Session, row: Base, change: ResourceChange) -> None:
    assert row.audited is not None
    state = inspect_row(row)
    values = [str(getattr(row, state.mapper.get_property_by_column(column).key)) for column in state.mapper.primary_key]
    _merge(session, (row.audited.kind, "/".join(values)), change)


def _project(row: Base) -> str | None:
    return getattr(row, "project_id", None) or (row.id if row.__tablename__ == "projects" else None)  # type: ignore[attr-defined]


def _column_names(row: Base) -> list[str]:
    return [attribute.key for attribute in inspect_row(row).mapper.column_attrs]


def _is_shown(row: Base, name: str) -> bool:
    assert row.audited is not None
    return name not in NEVER_SHOWN and name not in row.audited.omitted and not name.startswith(MACHINE_PREFIXES)


def _values(row: Base) -> dict[str, Any]:
    """Return the fields of a row that was added or deleted, without those that are empty and without secrets."""
    assert row.audited is not None
    names = [name for name in _column_names(row) if _is_shown(row, name)]
    found = {name: row.__dict__.get(name) for name in names if name not in row.audited.secret}
    return {
        name: shown(value)
        for name, value in found.items()
        if value not in (None, "", [], {}) and not isinstance(value, ClauseElement)
    }


def _differences(row: Base) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the changed fields of a row that was there, as they were and as they are."""
    assert row.audited is not None
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    state = inspect_row(row)
    for name in _column_names(row):
        if not _is_shown(row, name):
            continue
        history = state.attrs[name].history
        if not history.has_changes() or not history.added:
            continue
        value = history.added[0]
        secret = name in row.audited.secret
        if history.deleted:
            if history.deleted[0] == value:
                continue
            before[name] = SECRET if secret else shown(history.deleted[0])
        after[name] = SECRET if secret else shown(None if isinstance(value, ClauseElement) else value)
    return before, after


@event.listens_for(Session, "after_transaction_create")
def _mark(session: Session, transaction: SessionTransaction) -> None:
    if transaction.nested and TRAIL.get() is not None:
        session.info.setdefault(MARKS, {})[transaction] = len(session.info.get(CHANGES, ()))


@event.listens_for(Session, "after_soft_rollback")
def _forget(session: Session, previous: SessionTransaction) -> None:
    if CHANGES not in session.info:
        return
    if previous.nested:
        # a flush that failed inside has ended the savepoint too; what it collected was not written
        del session.info[CHANGES][session.info.get(MARKS, {}).pop(previous, 0) :]
    elif previous.parent is None:
        session.info.pop(CHANGES)
        session.info.pop(MARKS, None)


@event.listens_for(Session, "before_commit")
def _write(session: Session) -> None:
    trail = TRAIL.get()
    if trail is None or session.in_nested_transaction():
        return
    session.flush()
    changes = _joined(session.info.pop(CHANGES, []))
    session.info.pop(MARKS, None)
    status = session.info.pop(WHOLE, None)
    if not changes and status is None:
        return
    repository.add_pending(session, entries(trail, changes, status))
    trail.recorded += max(1, len(changes))


def entries(
    trail: Trail, changes: Mapping[tuple[str, str], ResourceChange], status: int | None, code: str | None = None
) -> list[dict[str, Any]]:
    """Return the documents of a committed write: one a resource, or one without changes."""
    facts = trail.facts()
    common = {
        **facts,
        "outcome": SUCCEEDED,
        "status": status or facts.get("status"),
        "code": code,
        "reason": None,
        "count": 1,
    }
    if not changes:
        return [{**common, "resource": trail.resource(), "before": None, "after": None}]
    return [
        {
            **common,
            "project": change.project or common["project"],
            "resource": {"kind": kind, "id": identifier},
            "before": change.before,
            "after": change.after,
        }
        for (kind, identifier), change in changes.items()
    ]
