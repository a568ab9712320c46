"""A job's diagnosis as clients read it: what an investigation measured in front, what the record alone shows behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from service.diagnosis.investigation import investigations_of
from service.diagnosis.service import attainable_of, record_of
from service.errors import HttpProblem
from service.jobs import repository
from service.jobs.retention_status import check_not_purged
from service.jobs.tables import Job
from service.metrics.repository import count_superseded, superseded_ranges
from service.metrics.series import SeriesQuery, read_series
from service.metrics.service import finite
from trainkit.diagnose.combined import combined
from trainkit.diagnose.diagnosis import RULESET_VERSION
from trainkit.diagnose.recommendations import RecommendedSpec
from trainkit.diagnose.record import Record, Series
from trainkit.spec.investigation import variant_file
from trainkit.spec.metrics import DIRECTIONS

Columns = Mapping[str, NDArray[Any]]
MAX_POINTS = 1000
BASE = "base"
LOWER_IS_BETTER = frozenset(name for name, direction in DIRECTIONS.items() if direction == "min")


@dataclass(frozen=True, slots=True)
class DiagnosisSource:
    """What a diagnosis is computed from, read in one snapshot."""

    job_id: str
    final: bool
    record: Record | None
    """None for an investigation itself: it has findings alone."""
    findings: Mapping[str, Any] | None
    investigation: Mapping[str, Any] | None
    """`{job, state, stop_reason, started_at, finished_at}` of the one that the findings are of."""
    active: str | None
    """The id of an investigation that has not ended."""
    files: frozenset[str] = frozenset()
    """Names of the files that the investigation left."""
    variants: Mapping[str, Columns] = field(default_factory=dict)
    """Its metric log, where it is asked for."""


def version_of(session: Session, job: Job) -> tuple[Any, ...]:
    """What a job's diagnosis depends on. It changes whenever the diagnosis does."""
    superseded = count_superseded(superseded_ranges(session, job.id))
    attainable = attainable_of(session, job)
    measured = None if attainable is None else (attainable.key, attainable.limit_seconds)
    found = investigations_of(session, job).version
    return job.id, job.next_seq, superseded, job.state, job.evaluation is not None, measured, RULESET_VERSION, *found


def read_source(session: Session, job: Job, *, with_variants: bool = False) -> DiagnosisSource:
    """Read what a job's diagnosis is computed from.

    Raises a 410 problem when its metrics are gone, and 409 while its dataset is being checked, or for an investigation
    that has found nothing.
    """
    found = investigations_of(session, job)
    newest, itself = found.newest, job.investigation_of is not None
    if itself and newest is None:
        hint = f"GET /v1/jobs/{job.investigation_of}/diagnosis shows what the record of the run alone says."
        headers = {"Retry-After": "1"}
        raise HttpProblem(
            409, "not_ready", f"The investigation is {job.state} and has no findings. {hint}", headers=headers
        )
    if not itself:
        check_not_purged(job, "metrics")
    files = () if newest is None else [one.name for one in repository.artifacts(session, newest.id)]
    log = newest is not None and with_variants and "metrics" not in (newest.purged or {})
    return DiagnosisSource(
        job_id=job.id,
        final=itself or job.finished_at is not None,
        record=None if itself else record_of(session, job),
        findings=found.findings,
        investigation=None if newest is None else _shown(newest),
        active=None if found.active is None else found.active.id,
        files=frozenset(files),
        variants=read_series(session, newest.id, SeriesQuery(None, MAX_POINTS)) if newest is not None and log else {},
    )


def _shown(investigation: Job) -> dict[str, Any]:
    names = ("state", "stop_reason", "started_at", "finished_at")
    return {"job": investigation.id, **{name: getattr(investigation, name) for name in names}}


def combine(source: DiagnosisSource, root_path: str = "") -> dict[str, Any]:
    """Return `trainkit.diagnose.combined` with the addresses of plots and weights, and the state of the investigation."""
    found: Mapping[str, Any] = source.findings or {}
    shown = finite(combined(source.record, source.findings))
    verdicts = [
        {**verdict, "plot": f"{root_path}/v1/jobs/{source.job_id}/diagnosis/{index}.png"}
        for index, verdict in enumerate(shown["verdicts"])
    ]
    recommendations = [
        one
        if one["measured"] is None
        else {
            **_measured(source, one, root_path),
            "expected": _expected(one["measured"]),
            # a change that helped beside the one that tells the cause answers the main verdict, too
            "code": one.get("code") or verdicts[0]["code"],
        }
        for one in shown["recommendations"]
    ]
    return {
        "final": source.final,
        "verdicts": verdicts,
        "recommendations": recommendations,
        "suspects": shown["suspects"],
        "harmful": [_measured(source, one, root_path) for one in _of(found, "harmful")],
        "investigation": source.investigation
        and {
            **source.investigation,
            "message": found.get("message", ""),
            "refuted": list(_of(found, "refuted")),
            "tried": list(_of(found, "tried")),
        },
        "active_investigation": source.active,
    }


def _of(findings: Mapping[str, Any], name: str) -> Sequence[Any]:
    values: Sequence[Any] = findings.get(name) or ()
    return values


def _measured(source: DiagnosisSource, change: Mapping[str, Any], root_path: str) -> dict[str, Any]:
    """A change with the address of its run's weights, if these were kept."""
    assert source.investigation is not None
    measured, job = change["measured"], source.investigation["job"]
    variant = measured.get("variant")
    name = variant_file(variant) if variant else ""
    kept = name in source.files
    return {
        **change,
        "measured": {
            **measured,
            "artifact": f"{root_path}/v1/jobs/{job}/artifacts/{name}" if kept else None,
            "start_from": {"job": job, "variant": variant, "head": "keep"} if kept else None,
        },
    }


def _expected(measured: Mapping[str, Any]) -> dict[str, str]:
    """What a measured change should do to a run of its own: what it did in the investigation."""
    metric, gain = str(measured.get("metric")), measured.get("gain")
    falls = metric.removeprefix("val_") in LOWER_IS_BETTER
    size = "unknown" if gain is None else f"{gain:.3g}"
    if measured.get("low") is not None and measured.get("high") is not None:
        size += f" (95 % interval {measured['low']:.3g} to {measured['high']:.3g})"
    source = "measured by the investigation"
    return {"metric": metric, "direction": "down" if falls else "up", "size": size, "source": source}


def recommended_specs(source: DiagnosisSource) -> tuple[list[RecommendedSpec], list[str]]:
    """Return (recommendations, codes of the verdicts) of the combined diagnosis, in its order."""
    shown = combine(source)
    names = ("patch", "spec", "why", "expected", "code")
    specs = [RecommendedSpec(**{name: one[name] for name in names}) for one in shown["recommendations"]]
    return specs, [verdict["code"] for verdict in shown["verdicts"]]


def compared_runs(source: DiagnosisSource, verdict: Mapping[str, Any]) -> dict[str, dict[str, Series]]:
    """Return run -> metric -> series of the runs that show a measured verdict, the unchanged one first."""
    evidence = verdict["evidence"]
    shown = [BASE, *(evidence.get("runs") or [evidence.get("variant") or BASE])]
    metrics = [metric for metric in (evidence.get("metric"), "val_loss", "train_loss") if metric]
    return {run: dict(_series(source, run, list(dict.fromkeys(metrics)))) for run in dict.fromkeys(shown)}


def _series(source: DiagnosisSource, run: str, metrics: Sequence[str]) -> Iterator[tuple[str, Series]]:
    for metric in metrics:
        columns = source.variants.get(f"variant_{run}.{metric}")
        if columns is not None:
            yield metric, Series(*(np.asarray(columns[name]) for name in ("step", "epoch", "value")))
        elif run == BASE and source.record is not None and metric in source.record.series:
            yield metric, source.record.series[metric]
