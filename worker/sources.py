"""Where a spec's other ingredients lie: earlier models, weight files, the second dataset of domain adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.datasets.tables import Blob, Dataset
from service.jobs import repository
from service.jobs.tables import Job
from service.models.tables import Model
from trainkit.spec.failures import failure
from worker.context import Context


class SourceUnavailableError(Exception):
    """The spec names something that is not there, or not there yet."""

    def __init__(self, pointer: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.hint = hint

    def as_error(self) -> dict[str, Any]:
        """The job's error."""
        message, evidence = f"{self.pointer}: {self}", {"pointer": self.pointer}
        return failure("source_unavailable", message, evidence, hint=self.hint)


@dataclass(frozen=True, slots=True)
class Sources:
    """What `fit` takes beside spec and data."""

    source: Any = None
    """A model folder or weight file of `start_from` or `init: pretrained`, or the folders of an ensemble's members."""
    target_dataset: Path | None = None


def find_sources(session: Session, context: Context, project_id: str, spec: dict[str, Any]) -> Sources:
    """Look up what the (resolved) spec names, within the project. Raises SourceUnavailableError."""
    finder = _Finder(session, context, project_id)
    model, start, adapt = spec["model"], spec.get("start_from"), spec.get("adapt")
    source: Any = None
    if model["kind"] == "ensemble":
        source = [finder.model(f"/model/members/{n}", member) for n, member in enumerate(model["members"])]
    elif start is not None:
        source = finder.named("/start_from", start)
    elif (model.get("init") or {}).get("kind") == "pretrained":
        source = finder.named("/model/init", model["init"])
    target = None if adapt is None else finder.prepared("/adapt/target_dataset", adapt["target_dataset"])
    return Sources(source, target)


class _Finder:
    def __init__(self, session: Session, context: Context, project_id: str) -> None:
        self.session = session
        self.context = context
        self.project_id = project_id

    def named(self, pointer: str, section: dict[str, Any]) -> Path:
        """The one of job, model, dataset or file that the section names."""
        for field in ("job", "model"):
            if section.get(field):
                return self.model(f"{pointer}/{field}", section[field])
        if section.get("dataset"):
            return self.weights(f"{pointer}/dataset", section["dataset"])
        return self.file(f"{pointer}/file", section["file"])

    def model(self, pointer: str, identifier: str) -> Path:
        """The folder of a model, or of the newest model that a job made."""
        if identifier.startswith("job_"):
            job = self.session.get(Job, identifier)
            if job is None or job.project_id != self.project_id:
                raise SourceUnavailableError(pointer, f"there is no job {identifier!r}", "GET /v1/jobs lists them.")
            model = repository.model_of(self.session, identifier)
            if model is None:
                hint = "Wait until it has succeeded, then submit this job again."
                raise SourceUnavailableError(pointer, f"job {identifier!r} is {job.state} and has no model", hint)
        else:
            model = self.session.get(Model, identifier)
            if model is None or model.project_id != self.project_id:
                hint = "GET /v1/models lists them."
                raise SourceUnavailableError(pointer, f"there is no model {identifier!r}", hint)
        return self.context.storage.local_path(model.storage_key)

    def weights(self, pointer: str, identifier: str) -> Path:
        """The uploaded bytes of a dataset, read as safetensors."""
        found = self.session.execute(
            select(Blob.storage_key)
            .join(Dataset, Dataset.blob_sha256 == Blob.sha256)
            .where(Dataset.id == identifier, Dataset.project_id == self.project_id)
        ).scalar_one_or_none()
        if found is None:
            hint = "GET /v1/datasets lists them."
            raise SourceUnavailableError(pointer, f"there is no dataset {identifier!r}", hint)
        return self.context.storage.local_path(found)

    def prepared(self, pointer: str, identifier: str) -> Path:
        """The prepared form of another dataset."""
        dataset = self.session.get(Dataset, identifier)
        if dataset is None or dataset.project_id != self.project_id:
            hint = "GET /v1/datasets lists them."
            raise SourceUnavailableError(pointer, f"there is no dataset {identifier!r}", hint)
        if dataset.prepared_key is None:
            hint = "Wait until it is ready, then submit this job again."
            raise SourceUnavailableError(pointer, f"dataset {identifier!r} is {dataset.state}", hint)
        return self.context.storage.local_path(dataset.prepared_key)

    def file(self, pointer: str, name: str) -> Path:
        """A file in the worker's weights folder; the spec allows no path separators in its name."""
        path = self.context.settings.home / "weights" / name
        if not path.is_file():
            hint = f"Put it into {path.parent} on every worker."
            raise SourceUnavailableError(pointer, f"there is no weight file {name!r} on this worker", hint)
        return path
