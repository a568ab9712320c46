"""Rules of the files of a job: those that its worker stored, and those that are written from its row when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import yaml
from sqlalchemy.orm import Session

from service.content_digests import sha256_of
from service.context import Context
from service.errors import HttpProblem
from service.jobs import repository as job_rows
from service.jobs import service as jobs
from service.jobs.retention_status import check_not_purged
from service.jobs.tables import Job
from service.models import repository as model_rows
from service.models.file_digests import sha256_of_onnx, sha256_of_single
from service.models.service import StoredModel
from service.models.single_file import MEDIA_TYPE as SAFETENSORS
from service.models.single_file import DamagedFileError, single_file
from service.principal import Principal
from service.request_body import CoreSchemaLoader

MODEL, ONNX = "model.safetensors", "model.onnx"
SPEC, EVALUATION, METRICS, CURVES = "spec.yaml", "evaluation.json", "metrics.parquet", "curves.svg"
FINDINGS = "findings.json"


Content = bytes


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """A file of a job: where it is stored, or what it is written from."""

    name: str
    media_type: str
    bytes: int | None
    created_at: datetime
    storage_key: str | None = None
    """Of a file that is stored as it is."""
    model: StoredModel | None = None
    """The job's model, for its two files."""
    content: Content | None = None
    """Of a file that is written from the job's row."""
    sha256: str | None = None
    """Where it is known."""


def find_all(session: Session, context: Context, job: Job) -> list[ArtifactFile]:
    """All files of a job by name. One that the worker stored wins over one of the same name that would be written."""
    files = {file.name: file for file in (*_model_files(session, context, job), *_written(job))}
    for row in job_rows.artifacts(session, job.id):
        if context.storage.exists(row.storage_key):
            files[row.name] = ArtifactFile(
                row.name, row.media_type, row.bytes, row.created_at, row.storage_key, sha256=row.sha256 or None
            )
    return [files[name] for name in sorted(files)]


def find(session: Session, context: Context, who: Principal, job_id: str, name: str) -> tuple[Job, ArtifactFile]:
    """The job and its file of that name. Raises a 404 problem that names the files there are; 410 for a removed one."""
    job = jobs.find(session, who, job_id)
    if name in (METRICS, CURVES):
        check_not_purged(job, "metrics")
    files = find_all(session, context, job)
    for file in files:
        if file.name == name:
            return job, file
    names = ", ".join(file.name for file in files[:20])
    detail = f"The job is {job.state} and has no file {name[:80]!r}. Its files are: {names}."
    raise HttpProblem(404, "not_found", detail)


def _written(job: Job) -> Iterator[ArtifactFile]:
    spec = as_yaml(job.spec)
    yield ArtifactFile(SPEC, "application/yaml", len(spec), job.created_at, content=spec, sha256=sha256_of(spec))
    if job.evaluation is not None:
        evaluation = json.dumps(job.evaluation, indent=1, ensure_ascii=False).encode() + b"\n"
        at = job.finished_at or job.updated_at
        name = EVALUATION if job.investigation_of is None else FINDINGS
        sha256 = sha256_of(evaluation)
        yield ArtifactFile(name, "application/json", len(evaluation), at, content=evaluation, sha256=sha256)
    if job.next_seq > 1 and "metrics" not in (job.purged or {}):
        at = job.finished_at or job.updated_at
        yield ArtifactFile(METRICS, "application/vnd.apache.parquet", None, at)
        yield ArtifactFile(CURVES, "image/svg+xml", None, at)


def _model_files(session: Session, context: Context, job: Job) -> Iterator[ArtifactFile]:
    """Those of the job's model. An ensemble is several networks and has neither file."""
    model = model_rows.of_job(session, job.project_id, job.id)
    if model is None:
        return
    folder = context.storage.local_path(model.storage_key)
    try:
        single = single_file(folder)
    except (OSError, DamagedFileError):
        return
    stored = StoredModel(model.id, model.storage_key, model.digests)
    sha256 = sha256_of_single(model.digests, single)
    yield ArtifactFile(MODEL, SAFETENSORS, single.size, model.created_at, model=stored, sha256=sha256)
    onnx = folder / ONNX
    onnx_bytes, onnx_sha256 = (onnx.stat().st_size, sha256_of_onnx(model.digests)) if onnx.exists() else (None, None)
    yield ArtifactFile(ONNX, "application/octet-stream", onnx_bytes, model.created_at, model=stored, sha256=onnx_sha256)


class _SpecDumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would read as something else, such as `1e5`, which 1.1 reads as text."""


for _first, _resolvers in CoreSchemaLoader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        _SpecDumper.add_implicit_resolver(_tag, _pattern, [_first])


def as_yaml(document: dict[str, Any]) -> bytes:
    """The document as YAML that reads back as the same, in the order it has."""
    dumped = yaml.dump(document, Dumper=_SpecDumper, sort_keys=False, allow_unicode=True, encoding="utf-8", width=120)
    assert isinstance(dumped, bytes)
    return dumped
