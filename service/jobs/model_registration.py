"""Registration of a trained model: its name, its version and its lineage, in the transaction that ends the job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.orm import Session

from service.jobs import repository as jobs
from service.jobs.tables import Job
from service.models.references import MODELS
from service.models.tables import Model
from service.registry import repository as names
from service.registry.names import as_name
from trainkit.version import __version__

NOT_TRAINED_WITH = ("name", "labels", "group", "diagnose", "investigation")
"""Fields of a spec that change nothing about the model."""


def register(session: Session, job: Job, model: Model) -> None:
    """Insert the model of a job. It is called what the job is called now; without a name it has no version."""
    model.project_id, model.job_id = job.project_id, job.id
    model.name = as_name(job.name)
    model.version = names.next_version(session, job.project_id, MODELS, model.name) if model.name else None
    model.labels, model.lineage = dict(job.labels), lineage_of(session, job)
    model.updated_at = model.created_at
    jobs.add_model(session, model)


def lineage_of(session: Session, job: Job) -> dict[str, Any]:
    """Return what the model is made of, as `LineageOut` describes it."""
    dataset = jobs.datasets_of(session, [job])[job.dataset_id]
    spec = job.resolved or job.spec
    return {
        "job": job.id,
        "dataset": {
            "id": dataset.id,
            "name": dataset.name,
            "version": dataset.version,
            "sha256": dataset.blob_sha256,
        },
        "spec_sha256": spec_digest(spec),
        "parents": list(dict.fromkeys(_parents(session, spec))),
        "trainkit": __version__,
    }


def spec_digest(spec: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a resolved spec: the same for specs that train the same."""
    trained = {name: value for name, value in spec.items() if name not in NOT_TRAINED_WITH}
    text = json.dumps(trained, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _parents(session: Session, spec: Mapping[str, Any]) -> Iterator[str]:
    """The models and weights that training began with; of a job its newest model."""
    model: Mapping[str, Any] = spec.get("model") or {}
    source: Mapping[str, Any] = spec.get("start_from") or model.get("init") or {}
    for named in (*(model.get("members") or ()), *(source.get(field) for field in ("model", "job", "dataset"))):
        if not named:
            continue
        if not named.startswith("job_"):
            yield named
        elif (trained := jobs.model_of(session, named)) is not None:
            yield trained.id
