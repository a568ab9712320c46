"""Checks before a training process is forked: storage, memory, the spec's sources, the checkpoint to resume from."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from service.datasets import repository as datasets
from service.diagnosis.service import record_of
from service.jobs import repository as jobs
from service.jobs.leases import ClaimedJob
from service.jobs.tables import Checkpoint
from service.logs.chunks import Level
from service.models import repository as models
from service.storage import Storage
from trainkit.diagnose import record_file
from trainkit.spec import DatasetFacts, SpecError, load_resolved
from trainkit.spec.failures import UNREACHABLE, failure
from trainkit.spec.investigation import variant_file
from trainkit.spec.memory import does_not_fit, needed_bytes, spec_that_fits
from worker import exit_errors
from worker.context import WorkerContext

log = logging.getLogger(__name__)


class CannotStartError(Exception):
    """The attempt ends before its training process starts; `as_error` is the job's error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.as_error = error


def unavailable(pointer: str, message: str, hint: str) -> CannotStartError:
    """The error of a spec whose field at `pointer` names something that does not exist, or not yet."""
    return CannotStartError(failure("source_unavailable", f"{pointer}: {message}", {"pointer": pointer}, hint=hint))


def locate_dataset(storage: Storage, claimed: ClaimedJob) -> Path:
    """Return the folder of the job's prepared dataset. Raises CannotStartError when this worker does not see it."""
    root = storage.root
    if not root.is_dir():
        message = "the storage folder does not exist: it was moved, or its disk is not mounted"
        raise CannotStartError(failure("storage_unreachable", message, {"folder": root.name}))
    dataset = storage.local_path(claimed.prepared_key)
    if not (dataset / "meta.json").is_file():
        message = f"the prepared form of {claimed.dataset_id} is not in this worker's storage"
        raise CannotStartError(failure("data_damaged", message, {"dataset": claimed.dataset_id}))
    return dataset


def facts_of(dataset: Path) -> DatasetFacts:
    """Read the facts of a prepared dataset. Raises OSError, ValueError, KeyError."""
    return DatasetFacts.model_validate(json.loads((dataset / "meta.json").read_bytes())["facts"])


def check_memory(spec: dict[str, Any], dataset: Path, limit: int) -> None:
    """Compare the estimated memory of a job with the limit, in bytes (0: the machine's).

    Raises:
        CannotStartError: it does not fit; the error holds a spec that does. The kernel would kill the process later.
    """
    machine = exit_errors.memory_limit()
    limit = min(limit or machine, machine)
    try:
        facts = facts_of(dataset)
        resolved = load_resolved(spec, facts)
    except (SpecError, ValueError, KeyError, TypeError):
        return  # the training process reports it
    if (problem := does_not_fit(resolved, facts, limit)) is not None:
        offer = spec_that_fits(resolved, facts, limit)
        evidence = {"needed_bytes": needed_bytes(resolved, facts), "limit_bytes": limit, "next_spec": offer}
        raise CannotStartError(failure("does_not_fit", problem.message, evidence, hint=problem.hint))


def with_device(spec: dict[str, Any], device: str) -> dict[str, Any]:
    """Return the spec with this worker's device, where it names none."""
    resources = spec.get("resources") or {}
    if resources.get("device", "auto") != "auto":
        return spec
    return {**spec, "resources": {**resources, "device": device}}


def with_time_limit(spec: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the spec with the service's limit of training seconds (0: none), where its own is not less."""
    resources = spec.get("resources") or {}
    limit = resources.get("max_seconds")
    if not seconds or (limit is not None and limit <= seconds):
        return spec
    return {**spec, "resources": {**resources, "max_seconds": seconds}}


def choose_checkpoint(
    newest_first: Sequence[Checkpoint],
    parent: dict[str, Any],
    is_intact: Callable[[Checkpoint], bool],
    report: Callable[[Level, str], None],
) -> Checkpoint | None:
    """Return the newest intact checkpoint, or None to start from the beginning.

    Args:
        newest_first: the job's checkpoints.
        parent: the job's `parent`: a `step` in it means that the job must resume from another job's checkpoint.
        is_intact: whether the checkpoint's file has the recorded hash.
        report: adds a line to the job's log.

    Raises:
        CannotStartError: the job must resume, and no checkpoint is intact.
    """
    for checkpoint in newest_first:
        if is_intact(checkpoint):
            log.info("job=%s resumes from its checkpoint of step %s", checkpoint.job_id, checkpoint.step)
            report("info", f"resuming from the checkpoint of step {checkpoint.step}")
            return checkpoint
        log.warning("job=%s the checkpoint of step %s is damaged", checkpoint.job_id, checkpoint.step)
        report("warning", f"the checkpoint of step {checkpoint.step} is damaged: trying the one before")
    if parent.get("step") is not None:
        message = f"this {parent['relation']} of {parent['job']} has no intact checkpoint to resume from"
        steps = [checkpoint.step for checkpoint in newest_first]
        raise CannotStartError(failure("checkpoint_unusable", message, {"steps": steps, "parent": parent}))
    if newest_first:
        report("warning", "no checkpoint is intact: starting from the beginning")
    return None


def sha256_of(path: Path) -> str | None:
    """Hex digest of a file; None when it cannot be read. Raises OSError while its server is away: it may be intact."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        if error.errno in UNREACHABLE:
            raise
        return None
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class InvestigatedJob:
    """What an investigation begins with: a job's document and record as plain data, and its runtime."""

    document: dict[str, Any]
    runtime: dict[str, Any] | None

    def runtime_on(self, device: str) -> dict[str, Any] | None:
        """The runtime with this worker's GPU, where the job was trained on another one of the same kind."""
        if self.runtime is None or ":" not in device or not self.runtime["device"].startswith(device.partition(":")[0]):
            return self.runtime
        return {**self.runtime, "device": device}


def find_investigated(session: Session, project_id: str, job_id: str, spec: dict[str, Any]) -> InvestigatedJob | None:
    """Read the job that the spec of `job_id` investigates; None for one that trains. Raises CannotStartError.

    `lost` of the document: the error of the attempt before, where it ran out of memory. The variant that was being
    trained needs too much, and is not tried again; several that were trained as one are trained one by one.
    """
    section = spec.get("investigation")
    if section is None:
        return None
    pointer, hint = "/investigation/job", "Investigate another job."
    job = jobs.get(session, project_id, section["job"])
    if job is None:
        raise unavailable(pointer, f"there is no job {section['job']!r}: it was deleted", hint)
    if "metrics" in (job.purged or {}):
        raise unavailable(pointer, f"the metrics of {job.id} were removed", hint)
    before = next((one for one in reversed(jobs.attempts(session, job_id)) if one.outcome is not None), None)
    error = None if before is None else before.error
    lost = error if error is not None and error.get("code") == "out_of_memory" else None
    document = {"document": job.spec, "record": record_file.as_json(record_of(session, job)), "lost": lost}
    return InvestigatedJob(document, job.runtime)


@dataclass(frozen=True, slots=True)
class Sources:
    """The inputs of `fit` beside spec and dataset."""

    source: Any = None
    """A model folder or weight file of `start_from` or `init: pretrained`, or the folders of an ensemble's members."""
    target_dataset: Path | None = None


def find_sources(session: Session, context: WorkerContext, project_id: str, spec: dict[str, Any]) -> Sources:
    """Look up what the resolved spec names, within the project. Raises CannotStartError."""
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
    """Resolves references to models, datasets and weight files; all methods raise CannotStartError."""

    def __init__(self, session: Session, context: WorkerContext, project_id: str) -> None:
        self.session = session
        self.context = context
        self.project_id = project_id

    def named(self, pointer: str, section: dict[str, Any]) -> Path:
        """Path of the job, model, dataset or file that the section names."""
        if section.get("variant"):
            return self.variant(f"{pointer}/variant", section["job"], section["variant"])
        for field in ("job", "model"):
            if section.get(field):
                return self.model(f"{pointer}/{field}", section[field])
        if section.get("dataset"):
            return self.weights(f"{pointer}/dataset", section["dataset"])
        return self.file(f"{pointer}/file", section["file"])

    def model(self, pointer: str, identifier: str) -> Path:
        """Folder of a model, or of the newest model of a job."""
        if identifier.startswith("job_"):
            job = jobs.get(self.session, self.project_id, identifier)
            if job is None:
                raise unavailable(pointer, f"there is no job {identifier!r}", "GET /v1/jobs lists them.")
            model = jobs.model_of(self.session, identifier)
            if model is None:
                hint = "Wait until it has succeeded, then submit this job again."
                raise unavailable(pointer, f"job {identifier!r} is {job.state} and has no model", hint)
        else:
            model = models.get(self.session, self.project_id, identifier)
            if model is None:
                hint = "GET /v1/models lists them."
                raise unavailable(pointer, f"there is no model {identifier!r}", hint)
        return self.context.storage.local_path(model.storage_key)

    def variant(self, pointer: str, job_id: str, variant: str) -> Path:
        """File with the weights of a variant of an investigation."""
        job = jobs.get(self.session, self.project_id, job_id)
        artifact = None if job is None else jobs.artifact(self.session, job_id, variant_file(variant))
        if artifact is None:
            hint = "GET /v1/jobs/{id}/diagnosis names the variants whose weights were kept."
            raise unavailable(pointer, f"job {job_id!r} has no weights of a variant {variant!r}", hint)
        return self.context.storage.local_path(artifact.storage_key)

    def weights(self, pointer: str, identifier: str) -> Path:
        """The uploaded bytes of a dataset, read as safetensors."""
        dataset = datasets.get(self.session, self.project_id, identifier)
        digest = dataset.blob_sha256 if dataset is not None else None
        blob = datasets.owned_blob(self.session, self.project_id, digest) if digest is not None else None
        if blob is None:
            hint = "GET /v1/datasets lists them."
            raise unavailable(pointer, f"there is no dataset {identifier!r}", hint)
        return self.context.storage.local_path(blob.storage_key)

    def prepared(self, pointer: str, identifier: str) -> Path:
        """The prepared form of another dataset."""
        dataset = datasets.get(self.session, self.project_id, identifier)
        if dataset is None:
            hint = "GET /v1/datasets lists them."
            raise unavailable(pointer, f"there is no dataset {identifier!r}", hint)
        if dataset.prepared_key is None:
            hint = "Wait until it is ready, then submit this job again."
            raise unavailable(pointer, f"dataset {identifier!r} is {dataset.state}", hint)
        return self.context.storage.local_path(dataset.prepared_key)

    def file(self, pointer: str, name: str) -> Path:
        """A file in the worker's weights folder; the spec allows no path separators in its name."""
        path = self.context.settings.home / "weights" / name
        if not path.is_file():
            hint = f"Put it into {path.parent} on every worker."
            raise unavailable(pointer, f"there is no weight file {name!r} on this worker", hint)
        return path
