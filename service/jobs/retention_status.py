"""What retention has taken from a job that has ended, and the answers that say so."""

from __future__ import annotations

from typing import Literal

from service.errors import Problem
from service.jobs.tables import Job

Part = Literal["checkpoints", "logs", "metrics"]


def check_there(job: Job, part: Part) -> None:
    """Raises a 410 problem with time and reason when that part of the job was removed."""
    gone = (job.purged or {}).get(part)
    if gone is not None:
        raise Problem(410, "removed", f"The {part} of this job were removed: {gone['reason']}.", removed_at=gone["at"])


def why_no_checkpoint(job: Job) -> str | None:
    """Since when and why the job's checkpoints are gone; None when they were not removed."""
    gone = (job.purged or {}).get("checkpoints")
    return None if gone is None else f"removed at {gone['at']}: {gone['reason']}"
