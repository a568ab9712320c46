"""New jobs out of old ones: fork, retry, and going on with a job that has ended. The old one stays as it ended."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy.orm import Session

from service.context import Context
from service.database import db_time, new_id
from service.errors import HttpProblem
from service.jobs import repository
from service.jobs.retention_status import why_no_checkpoint
from service.jobs.tables import Checkpoint, Job
from trainkit.spec import JobSpec, SpecError
from trainkit.spec import Problem as SpecProblem
from trainkit.spec.early_stop import PEER_RULE_KINDS
from trainkit.spec.models import SKLEARN_KINDS, WITHOUT_MODEL

Relation = Literal["fork", "retry", "resume", "diagnosis", "investigation"]
FREE = {
    "name",
    "labels",
    "group",
    "early_stop",
    "resources",
    "schedule",
    "optimizer",
    "regularize",
    "augment",
    "train",
    "diagnose",
}
"""Sections that a job which goes on from another's checkpoint may change."""
FIXED_IN_TRAIN = {"seed", "precision", "channels_last", "compile", "steps_per_epoch"}


@dataclass(frozen=True, slots=True)
class Branch:
    """Which job the new one comes from, and whether it begins at its checkpoint."""

    parent: Job
    relation: Relation
    checkpoint: Checkpoint | None
    remember: Callable[[Session, Job], None] | None = None
    """What else is written of the new job, in the transaction that makes it."""

    def as_json(self) -> dict[str, Any]:
        """The new job's `parent`."""
        return {
            "job": self.parent.id,
            "relation": self.relation,
            "step": self.checkpoint.step if self.checkpoint else None,
        }


def fork_of(session: Session, context: Context, parent: Job) -> Branch:
    """A branch from the newest checkpoint. Raises a 409 problem when there is none."""
    if parent.investigation_of is not None:
        hint = "To begin with the weights of one, submit a job with `start_from: {job, variant, head: keep}`."
        raise HttpProblem(409, "no_checkpoint", f"An investigation trains several models. {hint}")
    checkpoint = to_go_on_from(session, context, parent)
    if checkpoint is None:
        hint = "Wait for one (`train.checkpoint_seconds`), or submit a job with `start_from` once it has a model."
        raise HttpProblem(409, "no_checkpoint", f"The job has written no checkpoint to fork from. {hint}")
    return Branch(parent, "fork", checkpoint)


def to_go_on_from(session: Session, context: Context, job: Job) -> Checkpoint | None:
    """The job's newest checkpoint; None when it has never had one. Raises a 409 problem when it had and they are gone."""
    if (kind := job.spec["model"]["kind"]) in SKLEARN_KINDS:
        detail = f"{WITHOUT_MODEL.format(kind)}: it has no checkpoint to go on from. `retry` fits it again."
        raise HttpProblem(409, "no_checkpoint", detail)
    checkpoint = newest(session, context, job)
    if checkpoint is None:
        hint = "`retry` begins anew; `start_from` begins with the weights of its model."
        if (why := why_no_checkpoint(job)) is not None:
            raise HttpProblem(409, "checkpoint_removed", f"The job's checkpoints are gone ({why}). {hint}")
        if repository.checkpoints(session, job.id):
            raise HttpProblem(409, "no_checkpoint", f"The job's checkpoints are not in storage any more. {hint}")
    return checkpoint


def newest(session: Session, context: Context, job: Job) -> Checkpoint | None:
    """The job's newest checkpoint that is still in storage."""
    return next((c for c in repository.checkpoints(session, job.id) if context.storage.exists(c.storage_key)), None)


def spec_of(parent: Job) -> dict[str, Any]:
    """The parent's spec with ids in place of names, and with the name and labels that it has now."""
    document = copy.deepcopy(parent.spec)
    if document.get("name", "") != parent.name:
        document["name"] = parent.name
    if (document.get("labels") or {}) != parent.labels:
        document["labels"] = dict(parent.labels)
    return document


def longer(parent: Job, extra_epochs: int) -> dict[str, Any]:
    """The parent's spec with so many epochs more. A rule that may have stopped it begins anew from there."""
    document = spec_of(parent)
    resolved = parent.resolved or {}
    result = parent.result or {}
    start = document.get("start_from")
    if extra_epochs and isinstance(start, dict) and start.get("phases"):
        start["phases"][-1]["epochs"] += extra_epochs
    elif extra_epochs:
        train = document.setdefault("train", {})
        train["epochs"] = int((resolved.get("train") or {}).get("epochs", 0)) + extra_epochs
    if parent.stop_reason == "early_stop":
        for rule in document.get("early_stop") or []:
            if rule.get("kind") in ("patience", "noise_patience", *PEER_RULE_KINDS):
                rule["start_epoch"] = max(int(rule.get("start_epoch", 0)), int(result.get("stopped_epoch") or 0))
    return document


def with_epochs(job: Job, extra_epochs: int) -> dict[str, Any]:
    """A paused job's resolved spec with so many epochs more, in its last phase where it has phases."""
    resolved = copy.deepcopy(job.resolved or {})
    resolved["train"]["epochs"] += extra_epochs
    phases = (resolved.get("start_from") or {}).get("phases")
    if phases:
        phases[-1]["epochs"] += extra_epochs
    return resolved


def check_same_run(parent: Job, spec: JobSpec) -> None:
    """Raise SpecError for every section that a checkpoint cannot go on with when it changes."""
    before = JobSpec.model_validate(parent.resolved).model_dump(mode="json")
    after = spec.model_dump(mode="json")
    hint = "A checkpoint cannot go on with that; submit a new job with `start_from` to begin with its weights."
    changed = [f"/{name}" for name in after if name not in FREE and after[name] != before.get(name)]
    changed += [f"/train/{name}" for name in sorted(FIXED_IN_TRAIN) if after["train"][name] != before["train"][name]]
    sizes = [part["train"]["batch_size"] * part["train"]["gradient_accumulation_steps"] for part in (before, after)]
    if sizes[0] != sizes[1]:  # the samples of a step may be cut into other passes, but not be others
        changed.append("/train/batch_size")
    if before["optimizer"]["kind"] != after["optimizer"]["kind"]:
        changed.append("/optimizer/kind")
    if changed:
        raise SpecError([SpecProblem(pointer, "fixed", "this may not change in a fork", hint) for pointer in changed])


def begin_at(session: Session, context: Context, job: Job, checkpoint: Checkpoint) -> None:
    """Give the new job the checkpoint as its own, under a key of its own: either may be deleted without the other."""
    key = f"checkpoints/{job.id}/0/{checkpoint.step}"
    try:
        context.storage.link(checkpoint.storage_key, key)
    except OSError as error:
        raise HttpProblem(409, "no_checkpoint", f"The checkpoint is gone from storage: {error.strerror}.") from None
    repository.add_checkpoint(
        session,
        Checkpoint(
            id=new_id("ckpt"),
            job_id=job.id,
            fence=0,
            step=checkpoint.step,
            epoch=checkpoint.epoch,
            storage_key=key,
            sha256=checkpoint.sha256,
            bytes=checkpoint.bytes,
            metric_seq=0,
            created_at=db_time(session),
        ),
    )
