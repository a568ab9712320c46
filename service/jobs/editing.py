"""Edits of a job's name, labels and notes: what tells people about it, and changes nothing of its training."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from service.audit.changes import record
from service.jobs import repository
from service.jobs.schemas import JobPatch
from service.jobs.service import find_locked
from service.jobs.tables import Job
from service.labels import merged_labels
from service.principal import Principal


def edit(session: Session, who: Principal, job_id: str, patch: JobPatch) -> Job:
    """Apply a merge patch to a job in any state, with an event of kind `edited`. What changes nothing leaves none.

    Raises a 404 problem, and 422 for too many labels.
    """
    job = find_locked(session, who, job_id)
    new: dict[str, Any] = {}
    if "name" in patch.model_fields_set:
        new["name"] = patch.name or ""
    if "labels" in patch.model_fields_set:
        new["labels"] = merged_labels(job.labels, patch.labels) if patch.labels is not None else {}
    if "notes" in patch.model_fields_set:
        new["notes"] = patch.notes
    before = {name: getattr(job, name) for name, value in new.items() if getattr(job, name) != value}
    after = {name: new[name] for name in before}
    if not after:
        return job
    data = {"before": before, "after": after}
    seq = repository.write_edit(session, job.id, after, data)
    if "labels" in after:
        repository.replace_labels(session, job, after["labels"])
    record(session, "job", job.id, job.project_id, before, after)
    repository.add_event(session, job_id=job.id, seq=seq, kind="edited", actor=who.actor, data=data)
    session.refresh(job)
    return job
