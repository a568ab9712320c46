"""SQL of notes."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.jobs.tables import Job
from service.notes.tables import Note


def add(session: Session, note: Note) -> None:
    """Insert a note."""
    session.add(note)
    session.flush()


def find(session: Session, project_id: str, note_id: str) -> Note | None:
    """Return the project's note of that id."""
    return session.scalars(select(Note).where(Note.id == note_id, Note.project_id == project_id)).one_or_none()


def newest(session: Session, project_id: str, group: str, limit: int) -> Sequence[Note]:
    """Return the newest notes of a group, the oldest of them first."""
    of_group = select(Note).where(Note.project_id == project_id, Note.group_name == group)
    return session.scalars(of_group.order_by(Note.id.desc()).limit(limit)).all()[::-1]


def count(session: Session, project_id: str, group: str) -> int:
    """Return how many notes a group has."""
    return session.scalar(select(func.count()).where(Note.project_id == project_id, Note.group_name == group)) or 0


def stored_bytes(session: Session, project_id: str) -> int:
    """Sum the characters of a project's notes."""
    return int(session.scalar(select(func.sum(func.length(Note.text))).where(Note.project_id == project_id)) or 0)


def delete_without_jobs(session: Session, project_id: str, group: str) -> None:
    """Delete the notes of a group that no job is in: nobody could read them any more."""
    job = select(Job.id).where(Job.project_id == project_id, Job.group_name == group)
    gone = delete(Note).where(Note.project_id == project_id, Note.group_name == group, ~job.exists())
    session.execute(gone.execution_options(synchronize_session=False))
