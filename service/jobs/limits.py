"""What the operator allows one job: epochs, seconds and memory. A spec beyond it is refused, with place and remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.settings import Settings
from service.workers import repository as workers
from trainkit.spec import DatasetFacts, JobSpec, ResolvedSpec
from trainkit.spec import Problem as SpecProblem
from trainkit.spec.estimate import estimate
from trainkit.spec.memory import does_not_fit, limit_of, needed_bytes

GIB = 2**30
UNKNOWN_MEMORY_BYTES = 1024 * GIB
"""The most that a job may need while no live worker says what it has."""
ACCELERATED = ("cuda", "mps")
SPEEDUP = 100.0
"""How much less time a job may take on an accelerator than estimated for one core: an order of magnitude."""


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Limits of one job; 0: none."""

    epochs: int = 0
    seconds: float = 0.0
    estimated_seconds: float = 0.0
    memory_bytes: int = 0
    """`TRAINKIT_MAX_JOB_MEMORY_BYTES`, of the training process."""
    host_bytes: int = 0
    """Memory of the largest live worker that trains."""
    accelerated_bytes: int = 0
    """The most that one of them has together with its accelerators; 0: none has any."""


NO_LIMITS = JobLimits()


def limits_of(session: Session, settings: Settings) -> JobLimits:
    """Return the operator's limits, and what the live workers could hold."""
    train = [worker for worker in workers.alive(session) if "train" in worker.queues]
    hosts = [worker.memory_bytes or UNKNOWN_MEMORY_BYTES for worker in train]
    accelerated = [
        (worker.memory_bytes or UNKNOWN_MEMORY_BYTES) + (worker.accelerator_bytes or UNKNOWN_MEMORY_BYTES)
        for worker in train
        if worker.accelerator_bytes or worker.device.startswith(ACCELERATED)
    ]
    return JobLimits(
        epochs=settings.max_job_epochs,
        seconds=settings.max_job_seconds,
        estimated_seconds=settings.max_estimated_seconds,
        memory_bytes=settings.max_job_memory_bytes,
        host_bytes=max(hosts, default=UNKNOWN_MEMORY_BYTES),
        accelerated_bytes=max(accelerated, default=0),
    )


def problems_of_spec(spec: JobSpec, limits: JobLimits) -> Iterator[SpecProblem]:
    """Yield what the spec asks for beyond the limits, before its dataset is known."""
    phases = spec.start_from.phases if spec.start_from is not None else ()
    epochs = max(spec.train.epochs, sum(phase.epochs for phase in phases or ()))
    if limits.epochs and epochs > limits.epochs:
        pointer = "/start_from/phases" if epochs > spec.train.epochs else "/train/epochs"
        yield too_many_epochs(pointer, epochs, limits.epochs)
    seconds = spec.resources.max_seconds
    if limits.seconds and seconds is not None and seconds > limits.seconds:
        message = f"a job may train for {limits.seconds:g} s; got {seconds:g}"
        hint = f"Set it to {limits.seconds:g} or less, or ask the operator to raise TRAINKIT_MAX_JOB_SECONDS."
        yield SpecProblem("/resources/max_seconds", "too_many_seconds", message, hint)


def too_many_epochs(pointer: str, epochs: int, most: int) -> SpecProblem:
    """The problem of a job with more epochs than the operator allows."""
    message = f"a job may have {most} epochs; got {epochs}"
    hint = f"Take {most} or fewer, or ask the operator to raise TRAINKIT_MAX_JOB_EPOCHS."
    return SpecProblem(pointer, "too_many_epochs", message, hint)


def problems_of_estimate(resolved: ResolvedSpec, facts: DatasetFacts, limits: JobLimits) -> Iterator[SpecProblem]:
    """Yield what the job would need beyond the limits, by the estimate."""
    document = resolved.spec.model_dump()
    problem = does_not_fit(resolved, facts, limit_of(document, limits.memory_bytes))
    if problem is None:
        problem = _fits_no_worker(resolved, facts, limits)
    if problem is not None:
        yield problem
    seconds = float(estimate(resolved, facts)["seconds"])
    if _may_accelerate(resolved.spec.resources.device, limits):
        seconds /= SPEEDUP
    # who sets a time limit means to be stopped by it
    if limits.estimated_seconds and resolved.spec.resources.max_seconds is None and seconds > limits.estimated_seconds:
        message = f"the job would train for about {seconds:.0f} s, and may for {limits.estimated_seconds:g} s"
        hint = (
            "Take fewer epochs, a smaller model or `split.subsample`; or set `resources.max_seconds`: the job then ends "
            "at that time and keeps its best weights. The operator can raise TRAINKIT_MAX_ESTIMATED_SECONDS."
        )
        yield SpecProblem("/train/epochs", "takes_too_long", message, hint)


def _fits_no_worker(resolved: ResolvedSpec, facts: DatasetFacts, limits: JobLimits) -> SpecProblem | None:
    if not limits.host_bytes:
        return None
    device = resolved.spec.resources.device
    most = limits.host_bytes
    if _may_accelerate(device, limits):
        most = max(most, limits.accelerated_bytes or 2 * UNKNOWN_MEMORY_BYTES)
    needed = needed_bytes(resolved, facts)
    if needed <= most:
        return None
    message = f"the job needs about {needed / GIB:.1f} GiB, and no worker has more than {most / GIB:.1f} GiB"
    hint = "Take a smaller model, a smaller batch, smaller images or less data, or start a worker with more memory."
    return SpecProblem("/resources/max_memory_bytes", "does_not_fit", message, hint)


def _may_accelerate(device: str, limits: JobLimits) -> bool:
    return device.startswith(ACCELERATED) or (device == "auto" and limits.accelerated_bytes > 0)
