"""Whether what a spec names beside its dataset is there: earlier jobs and models, weights, a second dataset."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.orm import Session

from service.jobs import repository
from service.jobs.states import ENDED
from service.principal import Principal
from trainkit.spec import DatasetFacts, JobSpec
from trainkit.spec import Problem as SpecProblem
from trainkit.spec.checks.transfer import classes_of, kept_head_problem
from trainkit.spec.investigation import variant_file
from trainkit.spec.models import SKLEARN_KINDS, WITHOUT_MODEL


def problems(session: Session, who: Principal, spec: JobSpec) -> Iterator[SpecProblem]:
    """What is missing, each with its pointer. Weight files lie on the workers: only they can tell."""
    if spec.start_from is not None:
        start = spec.start_from
        if start.variant is not None:
            yield from _variant(session, who, start.job or "", start.variant)
        else:
            yield from _named(session, who, "/start_from", start.job, start.model, start.dataset)
    init = getattr(spec.model, "init", None)
    if init is not None and init.kind == "pretrained":
        yield from _named(session, who, "/model/init", init.job, init.model, init.dataset)
    for index, member in enumerate(getattr(spec.model, "members", ())):
        yield from _trained(session, who, f"/model/members/{index}", member)
    if spec.adapt is not None:
        yield from _uploaded(session, who, "/adapt/target_dataset", spec.adapt.target_dataset, weights=False)


def head_problems(session: Session, spec: JobSpec, facts: DatasetFacts) -> Iterator[SpecProblem]:
    """Why the source's head cannot be kept for the classes of the dataset; `spec` is resolved and its source is there.

    Weight files lie on the workers: only they can tell.
    """
    start = spec.start_from
    if start is None or start.head != "keep" or start.file is not None:
        return
    if start.variant is not None:
        classes = _classes_of_job(session, start.job or "")
    elif start.dataset is not None:
        weights = repository.dataset(session, start.dataset)
        classes = None if weights is None else (weights.facts or {}).get("classes")
    else:
        named = start.model or start.job or ""
        model = (repository.model_of if named.startswith("job_") else repository.model)(session, named)
        classes = None if model is None else model.manifest.get("classes")
    found = kept_head_problem(None if classes is None else list(classes), classes_of(spec, facts))
    if found is not None:
        yield found


def _classes_of_job(session: Session, job_id: str) -> list[str] | None:
    """The classes that a job's model tells apart, by output."""
    job = repository.by_id(session, job_id)
    dataset = repository.dataset(session, job.dataset_id)
    if job.resolved is None or dataset is None or dataset.facts is None:
        return None
    classes = classes_of(JobSpec.model_validate(job.resolved), DatasetFacts.model_validate(dataset.facts))
    return None if classes is None else list(classes)


def _named(
    session: Session, who: Principal, pointer: str, job: str | None, model: str | None, dataset: str | None
) -> Iterator[SpecProblem]:
    if job is not None:
        yield from _trained(session, who, f"{pointer}/job", job)
    if model is not None:
        yield from _trained(session, who, f"{pointer}/model", model)
    if dataset is not None:
        yield from _uploaded(session, who, f"{pointer}/dataset", dataset, weights=True)


def _trained(session: Session, who: Principal, pointer: str, identifier: str) -> Iterator[SpecProblem]:
    """A model, or a job that has made one."""
    if not identifier.startswith("job_"):
        model = repository.model(session, identifier)
        if model is None or model.project_id != who.project_id:
            hint = "GET /v1/models lists the models of this project."
            yield SpecProblem(pointer, "unknown_model", f"there is no model {identifier!r}", hint)
        return
    job = repository.get(session, who.project_id, identifier)
    if job is None:
        hint = "GET /v1/jobs lists the jobs of this project."
        yield SpecProblem(pointer, "unknown_job", f"there is no job {identifier!r}", hint)
    elif repository.model_of(session, identifier) is None:
        hint = "Name another job." if job.state in ENDED else "Wait until it has ended."
        message = f"job {identifier!r} is {job.state} and has no model"
        if (kind := job.spec["model"]["kind"]) in SKLEARN_KINDS:
            message, hint = f"job {identifier!r} has no model: {WITHOUT_MODEL.format(kind)}", "Name another job."
        yield SpecProblem(pointer, "no_model", message, hint)


def _variant(session: Session, who: Principal, job_id: str, variant: str) -> Iterator[SpecProblem]:
    """The weights of an investigation's variant."""
    investigation = repository.get(session, who.project_id, job_id)
    if investigation is None or investigation.investigation_of is None:
        hint = "GET /v1/jobs/{id}/diagnosis of the job that was investigated names the investigation."
        yield SpecProblem("/start_from/job", "unknown_job", f"there is no investigation {job_id!r}", hint)
    elif repository.artifact(session, job_id, variant_file(variant)) is None:
        hint = f"GET /v1/jobs/{job_id}/artifacts lists the weights that were kept: those of variants that helped."
        message = f"no weights of a variant {variant!r} were kept"
        yield SpecProblem("/start_from/variant", "unknown_variant", message, hint)


def _uploaded(
    session: Session, who: Principal, pointer: str, identifier: str, *, weights: bool
) -> Iterator[SpecProblem]:
    dataset = repository.dataset(session, identifier)
    if dataset is None or dataset.project_id != who.project_id:
        hint = "GET /v1/datasets lists the datasets of this project."
        yield SpecProblem(pointer, "unknown_dataset", f"there is no dataset {identifier!r}", hint)
    elif dataset.state != "ready":
        hint = f"GET /v1/datasets/{dataset.id} shows how far it is."
        yield SpecProblem(pointer, "not_ready", f"dataset {identifier!r} is {dataset.state}", hint)
    elif weights and dataset.kind != "weights":
        hint = "Upload a safetensors file."
        yield SpecProblem(pointer, "not_weights", f"dataset {identifier!r} is of kind {dataset.kind}", hint)
    elif not weights and dataset.kind == "weights":
        hint = "Name a dataset of samples."
        yield SpecProblem(pointer, "no_samples", f"dataset {identifier!r} holds weights", hint)
