"""Write a job as an offline run of Weights & Biases below the operator's folder, while it runs."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.mirrors.growing_file import append
from service.mirrors.job_view import JobView, MetricPoint
from service.mirrors.wandb_files import (
    RunDescription,
    entries,
    exit_record,
    header_record,
    history_record,
    summary_record,
)

MAX_PROJECT, MAX_NAME, MAX_TAG = 128, 128, 64
NOT_IN_PROJECTS = re.compile(r"[/\\#?%:\x00-\x1f]")
SEPARATE_STEPS = frozenset({"sanity_check"})
"""Splits that count steps of their own; their rows come before those of the same steps of the run."""
EXIT_CODES = {"succeeded": 0, "stopped": 0, "cancelled": 255}
FAILED = 1


class WandbWriter:
    """Appends to `<folder>/<project>/<mirror>/offline-run-<time>-<job>/run-<job>.wandb`, which `wandb sync` uploads.

    A row of W&B has all values of a step, and steps go up. So the values of the newest step wait in the position until
    the next step begins, or the job ends; those of SEPARATE_STEPS until the run has come to their step. What was written
    and not noted is cut off before the next write. A row cannot be taken back: where a job runs steps again, its file
    is written anew.
    """

    rows_per_write = 10_000
    is_rewritten = True

    def __init__(self, folder: Path | None, project_id: str, mirror_id: str, job_url: str) -> None:
        self._folder, self._path, self._job_url = folder, f"{project_id}/{mirror_id}", job_url

    def begin(self, job: JobView, position: dict[str, Any]) -> str:
        """Return the name of the file below the folder: ids alone, never what people have named."""
        return f"{self._path}/offline-run-{job.started_at:%Y%m%d_%H%M%S}-{job.id}/run-{job.id}.wandb"

    def describe(self, external_id: str, job: JobView, position: dict[str, Any]) -> None:
        """Write name, group, tags, notes and config where they are new."""
        records = self._described(job).records()
        checksum = zlib.crc32(b"".join(records))
        if position.get("run") != checksum:
            self._append(external_id, records, position)
            position |= {"run": checksum, "started_at": job.started_at.timestamp()}

    def write(
        self, external_id: str, points: Sequence[MetricPoint], position: dict[str, Any], restart: int | None
    ) -> None:
        """Append the rows of the steps that are complete."""
        waiting, started_at = _waiting(position), position["started_at"]
        newest = position.get("step", 0)
        for point in points:
            row = waiting.setdefault(point.step, {})
            row[f"{point.split}/{point.name}"] = point.value
            row |= {"_timestamp": point.at, "_runtime": point.at - started_at}
            if point.split not in SEPARATE_STEPS:
                row["epoch"] = point.epoch
                newest = max(newest, point.step)
        complete = {step: waiting.pop(step) for step in sorted(waiting) if step < newest}
        self._append(external_id, _rows(complete), position)
        # as text: a JSON column takes no NaN
        position |= {"step": newest, "rows": json.dumps(waiting)}

    def put_file(
        self, external_id: str, name: str, parts: Iterator[bytes], size: int, position: dict[str, Any]
    ) -> None:
        """Write nothing: files are in the job's own storage."""

    def set_state(self, external_id: str, job: JobView, position: dict[str, Any]) -> None:
        """Write what waits and the end of a job that has ended."""
        if not job.has_ended:
            return
        rows = _rows(dict(sorted(_waiting(position).items())))
        ended_at = job.finished_at or job.started_at
        seconds = max(0, round((ended_at - job.started_at).total_seconds()))
        self._append(external_id, [*rows, exit_record(EXIT_CODES.get(job.state, FAILED), seconds)], position)
        position["rows"] = "{}"

    def _append(self, name: str, records: Sequence[bytes], position: dict[str, Any]) -> None:
        if not records:
            return
        size = position.get("bytes", 0)
        body, number = entries(records if size else [header_record(), *records], position.get("records", 0), size)
        position |= {"bytes": append(self._folder, name, size, body), "records": number}

    def _described(self, job: JobView) -> RunDescription:
        spec = job.spec or {}
        trainkit = {"job_id": job.id, "url": self._job_url, "project": job.project, "dataset": dict(job.dataset)}
        tags = (f"{key}={value}" if value else key for key, value in job.labels.items())
        return RunDescription(
            id=job.id,
            project=NOT_IN_PROJECTS.sub("-", job.project)[:MAX_PROJECT],
            name=job.name[:MAX_NAME],
            group=spec.get("group"),
            notes=job.notes,
            tags=list(dict.fromkeys(tag[:MAX_TAG] for tag in tags)),
            config={**spec, "trainkit": trainkit},
            started_at=job.started_at.timestamp(),
        )


def _waiting(position: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    """Return the rows that are not written yet, by step."""
    return {int(step): values for step, values in json.loads(position.get("rows", "{}")).items()}


def _rows(rows: Mapping[int, Mapping[str, float]]) -> list[bytes]:
    """Return the records of rows, and of the summary behind them: the last value of each metric."""
    last: dict[str, float] = {}
    for step, values in rows.items():
        last |= {**values, "_step": step}
    records = [history_record(step, values) for step, values in rows.items()]
    return [*records, summary_record(last)] if records else []
