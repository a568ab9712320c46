"""Write a job's metrics to a TensorBoard event file below the operator's folder, while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from service.metrics.exports import first_event, restart_event, scalar_event
from service.mirrors.growing_file import append
from service.mirrors.job_view import JobView, MetricPoint


class EventFileWriter:
    """Appends to `<folder>/<project>/<job>/events.out.tfevents...`; TensorBoard shows each job as a run.

    What was written and not noted is cut off before the next write, so that nothing is there twice.
    """

    rows_per_write = 10_000
    is_rewritten = False

    def __init__(self, folder: Path | None, project_id: str) -> None:
        self._folder, self._project_id = folder, project_id

    def begin(self, job: JobView, position: dict[str, Any]) -> str:
        """Return the name of the file below the folder: ids alone, never what people have named."""
        begun = int(job.started_at.timestamp())
        return f"{self._project_id}/{job.id}/events.out.tfevents.{begun}.{job.id}"

    def describe(self, external_id: str, job: JobView, position: dict[str, Any]) -> None:
        """Write nothing: an event file holds scalars."""

    def write(
        self, external_id: str, points: Sequence[MetricPoint], position: dict[str, Any], restart: int | None
    ) -> None:
        """Append points, behind a mark that takes later steps back where an attempt begins anew."""
        if not points:
            return
        at = points[0].at
        parts = [] if position.get("bytes") else [first_event(at)]
        parts += [] if restart is None else [restart_event(at, restart)]
        parts += [scalar_event(one.at, one.step, f"{one.split}/{one.name}", one.value) for one in points]
        position["bytes"] = append(self._folder, external_id, position.get("bytes", 0), b"".join(parts))

    def put_file(
        self, external_id: str, name: str, parts: Iterator[bytes], size: int, position: dict[str, Any]
    ) -> None:
        """Write nothing: files are in the job's own storage."""

    def set_state(self, external_id: str, job: JobView, position: dict[str, Any]) -> None:
        """Write nothing: an event file has no state."""
