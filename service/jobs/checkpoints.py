"""Checkpoints of a job: registered under the fence, the newest few kept."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.database import db_time, new_id
from service.jobs import repository
from service.jobs.leases import lock_claimed
from service.jobs.tables import Checkpoint
from service.leases import Claim


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
    repository.add_checkpoint(
        session,
        Checkpoint(
            id=new_id("ckpt"),
            job_id=claim.id,
            fence=claim.fence,
            step=step,
            epoch=epoch,
            storage_key=storage_key,
            sha256=sha256,
            bytes=size,
            metric_seq=job.next_seq - 1,
            created_at=db_time(session),
        ),
    )
    older = repository.checkpoints(session, claim.id)[keep:]
    repository.delete_checkpoints(session, claim.id, [checkpoint.id for checkpoint in older])
    return [checkpoint.storage_key for checkpoint in older]


def discard(session: Session, claim: Claim, checkpoint_id: str) -> None:
    """Forget a checkpoint that cannot be gone on from; its file goes with what no row names."""
    lock_claimed(session, claim)
    repository.delete_checkpoints(session, claim.id, [checkpoint_id])
