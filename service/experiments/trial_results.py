"""What a trial's job came to, as its experiment keeps it."""

from __future__ import annotations

from math import isfinite
from typing import Any

from sqlalchemy.orm import Session

from service.diagnosis.service import record_of
from service.jobs import repository as jobs
from service.jobs.states import ENDED
from service.jobs.tables import Job
from service.metrics.service import finite
from trainkit.diagnose.diagnosis import diagnose
from trainkit.diagnose.estimates import kept_metrics
from trainkit.spec.metrics import METRICS_WITH_STANDARD_ERROR

DELETED = {"state": "deleted", "metrics": {}}


def outcome_of(session: Session, job: Job | None, *, with_diagnosis: bool) -> dict[str, Any] | None:
    """None while the job has not ended. Figures are those of the weights that were kept: `val_loss`, `test_accuracy` ..."""
    if job is None:
        return dict(DELETED)
    if job.state not in ENDED:
        return None
    model = jobs.model_of(session, job.id)
    result, error = job.result or {}, job.error or {}
    seconds = (job.finished_at - job.started_at).total_seconds() if job.finished_at and job.started_at else 0.0
    outcome: dict[str, Any] = {
        "state": job.state,
        "stop_reason": job.stop_reason,
        "error": {**error, "evidence": {}} if error else None,
        "metrics": figures_of(job),
        "standard_errors": standard_errors_of(job),
        "best_epoch": result.get("best_epoch"),
        "stopped_epoch": result.get("stopped_epoch"),
        "seconds": seconds,
        "model": model.id if model is not None else None,
    }
    if with_diagnosis and job.resolved is not None:
        record = record_of(session, job)
        outcome["error"] = job.error  # whole: its evidence may offer a spec that fits
        outcome["diagnosis"] = finite(diagnose(record).as_dict())
        kept = kept_metrics(record) if model is not None else {}
        outcome["kept"] = {name: [one.value, one.se, one.epoch] for name, one in kept.items()}
    return outcome


def standard_errors_of(job: Job) -> dict[str, float]:
    """Standard errors of the validation metrics by its samples, as they were logged last: `{val_loss: ...}`."""
    logged = ((name, job.metrics_last.get(f"val_{name}_se")) for name in METRICS_WITH_STANDARD_ERROR)
    return {f"val_{name}": value for name, value in logged if value is not None}


def figures_of(job: Job) -> dict[str, float]:
    """The finite ones of what was measured at the end."""
    parts = (job.evaluation or {}).get("parts") or {}
    return {
        f"{part}_{name}": float(value)
        for part, metrics in parts.items()
        for name, value in metrics.items()
        if isinstance(value, int | float) and isfinite(value)
    }
