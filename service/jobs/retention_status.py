"""What retention has taken from a job that has ended, and the answers that say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from service.errors import HttpProblem
from service.jobs.tables import Job

Part = Literal["checkpoints", "logs", "metrics"]
UNKNOWN = "not recorded"
"""By the version that removed it."""


def check_not_purged(job: Job, part: Part) -> None:
    """Raises a 410 problem with time and reason when that part of the job was removed."""
    purge = (job.purged or {}).get(part)
    if purge is not None:
        detail = f"The {part} of this job were removed: {purge.get('reason', UNKNOWN)}."
        raise HttpProblem(410, "removed", detail, removed_at=purge.get("at"))


def is_purged(purged: Mapping[str, Any] | None, part: Part) -> bool:
    """Whether a job's field `purged` says that the part is gone."""
    return (purged or {}).get(part) is not None


def why_no_checkpoint(job: Job) -> str | None:
    """Since when and why the job's checkpoints are gone; None when they were not removed."""
    purge = (job.purged or {}).get("checkpoints")
    return None if purge is None else f"removed at {purge.get('at', UNKNOWN)}: {purge.get('reason', UNKNOWN)}"
