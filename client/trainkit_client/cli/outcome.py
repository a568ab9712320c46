"""What came of a job, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit_client.cli.output import number

if TYPE_CHECKING:
    from trainkit_client import Job


def monitored(job: Job) -> str:
    """Return the metric by which the best weights are chosen."""
    train = (job.resolved or {}).get("train") or {}
    return str(train.get("monitor") or "val_loss")


def ending(job: Job) -> list[str]:
    """Return what came of a job."""
    lines = []
    if job.error is not None:
        lines.append(f"{job.error.message} ({job.error.code})")
        lines += [job.error.hint] if job.error.hint else []
    if job.stop_reason:
        lines.append(f"stop reason: {job.stop_reason}")
    if job.result is not None and job.result.model:
        best = f", best epoch {job.result.best_epoch}" if job.result.best_epoch is not None else ""
        lines.append(f"model: {job.result.model}{best}")
        values = {name: value for name, value in job.result.test.items() if value is not None}
        if values:
            lines.append("test: " + "  ".join(f"{name} {number(value)}" for name, value in values.items()))
    return lines
