"""A job as mirrors copy it: what is read in one short session, and sent without one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from service.artifacts.service import METRICS, ArtifactFile, find_all
from service.context import Context
from service.datasets import repository as datasets
from service.jobs import repository as jobs
from service.jobs.states import ENDED
from service.metrics import repository as metric_rows
from service.models import repository as models
from service.models.single_file import SingleFile, single_file
from service.projects import repository as projects

READ_BYTES = 2**20


class MetricPoint(NamedTuple):
    """One value of a metric; `at` in Unix seconds."""

    split: str
    name: str
    step: int
    value: float
    at: float
    epoch: int

    @property
    def identity(self) -> tuple[str, str, int, str]:
        """What a step that was run again has in common with the first time, if it gave the same."""
        return self.split, self.name, self.step, "nan" if math.isnan(self.value) else self.value.hex()


@dataclass(frozen=True, slots=True)
class JobView:
    """What mirrors show of a job."""

    id: str
    name: str
    project: str
    state: str
    stop_reason: str | None
    error: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    labels: Mapping[str, str]
    notes: str | None
    spec: Mapping[str, Any] | None
    """With every default, once a worker has resolved it, or the job has ended without one."""
    dataset: Mapping[str, Any]
    model: str | None
    started_at: datetime
    finished_at: datetime | None
    metric_seq: int
    """Newest row of the metric log; 0 where retention has removed it."""
    event_seq: int
    superseded: Sequence[tuple[int, int]]

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED


def read_job(session: Session, job_id: str) -> JobView:
    """Read a job with what mirrors show of it."""
    job = jobs.by_id(session, job_id)
    dataset = datasets.find_by_id(session, job.dataset_id)
    project = projects.find(session, job.project_id)
    model = models.of_job(session, job.project_id, job.id)
    ended = job.state in ENDED
    shown: dict[str, Any] = {"id": job.dataset_id}
    if dataset is not None:
        shown |= {"name": dataset.name, "version": dataset.version, "sha256": dataset.blob_sha256}
    return JobView(
        id=job.id,
        name=job.name or job.id,
        project=project.name if project else job.project_id,
        state=job.state,
        stop_reason=job.stop_reason,
        error=job.error,
        result=job.result,
        labels=job.labels,
        notes=job.notes,
        spec=job.resolved or (job.spec if ended else None),
        dataset=shown,
        model=model.id if model else None,
        started_at=job.started_at or job.created_at,
        finished_at=job.finished_at,
        metric_seq=0 if "metrics" in (job.purged or {}) else job.next_seq - 1,
        event_seq=job.next_event_seq - 1,
        superseded=metric_rows.superseded_ranges(session, job_id),
    )


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """A file of a job, as a mirror uploads it."""

    name: str
    size: int
    source: ArtifactFile
    single: SingleFile | None

    def parts(self, context: Context) -> Iterator[bytes]:
        """Yield the bytes, a part at a time."""
        if self.source.content is not None:
            yield self.source.content
            return
        path = self.single.path if self.single else context.storage.local_path(self.source.storage_key or "")
        with path.open("rb") as file:
            if self.single:
                yield self.single.header
                file.seek(self.single.offset)
            while part := file.read(READ_BYTES):
                yield part


def files_of(session: Session, context: Context, job_id: str) -> list[CopiedFile]:
    """Return what a job has left: its spec, its evaluation, what the worker stored, and the model in one file.

    What is written only when somebody asks (curves, ONNX) is not copied: the metrics themselves are.
    """
    job, found = jobs.by_id(session, job_id), []
    for file in find_all(session, context, job):
        if file.content is not None or file.storage_key is not None:
            found.append(CopiedFile(file.name, file.bytes or len(file.content or b""), file, None))
        elif file.model is not None and file.bytes is not None and file.name.endswith(".safetensors"):
            single = single_file(context.storage.local_path(file.model.storage_key))
            found.append(CopiedFile(f"model/{file.name}", single.size, file, single))
    return [file for file in found if file.name != METRICS]
