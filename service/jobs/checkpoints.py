"""Checkpoints of a job: registered under the fence, the newest few kept."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.database import db_now, new_id
from service.jobs.leases import Claim, lock_claimed
from service.jobs.tables import Checkpoint


def record(
    session: Session,
    claim: Claim,
    *,
    step: int,
    epoch: int,
    storage_key: str,
    sha256: str,
    size: int,
    keep: int = 2,
) -> list[str]:
    """Register a checkpoint that lies in storage; returns the storage keys of older ones that may now be deleted."""
    job = lock_claimed(session, claim)
    session.add(
        Checkpoint(
            id=new_id("ckpt"),
            job_id=claim.job_id,
            fence=claim.fence,
            step=step,
            epoch=epoch,
            storage_key=storage_key,
            sha256=sha256,
            bytes=size,
            metric_seq=job.next_seq - 1,
            created_at=session.scalar(select(db_now())),
        )
    )
    session.flush()
    older = latest(session, claim.job_id)[keep:]
    for checkpoint in older:
        session.delete(checkpoint)
    return [checkpoint.storage_key for checkpoint in older]


def discard(session: Session, claim: Claim, checkpoint_id: str) -> None:
    """Forget a checkpoint that cannot be gone on from; its file goes with what no row names."""
    lock_claimed(session, claim)
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == claim.job_id, Checkpoint.id == checkpoint_id))


def latest(session: Session, job_id: str) -> list[Checkpoint]:
    """A job's checkpoints, newest first."""
    newest_first = select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.id.desc())
    return list(session.scalars(newest_first))
