"""Whether a job will fit into memory, said before it begins; by the estimate, so only what is clearly too much is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainkit.spec.estimate import estimate
from trainkit.spec.facts import DatasetFacts
from trainkit.spec.job import JobSpec
from trainkit.spec.memory_reduction import next_spec
from trainkit.spec.problems import Problem, SpecError
from trainkit.spec.resolve import ResolvedSpec, resolve

MIB = 2**20
MOST_OFFERS = 40


def limit_of(spec: Mapping[str, Any], most: int) -> int:
    """Bytes a job's training process may hold: the spec's limit or the service's, whichever is less; 0 for neither."""
    said = int((spec.get("resources") or {}).get("max_memory_bytes") or 0)
    return min(said or most, most or said)


def needed_bytes(resolved: ResolvedSpec, facts: DatasetFacts) -> int:
    """Memory of the training process at its peak, as estimated."""
    return int(estimate(resolved, facts)["memory_bytes"])


def does_not_fit(resolved: ResolvedSpec, facts: DatasetFacts, limit: int) -> Problem | None:
    """The problem of a job whose estimate exceeds `limit` bytes; None when it fits, or the limit is 0."""
    if not limit or resolved.spec.resources.device.startswith(("cuda", "mps")):
        return None  # the estimate counts together what lies in the machine's and in the accelerator's memory
    needed = needed_bytes(resolved, facts)
    if needed <= limit:
        return None
    offer = spec_that_fits(resolved, facts, limit)
    hint = "Take a smaller model, smaller images or less data, or a higher limit."
    if offer is not None:
        changes = (
            f"{part}.{name} {value}" for part, fields in offer["patch"].items() for name, value in fields.items()
        )
        hint = f"{' with '.join(changes)} fits."
    message = f"the job needs about {needed / MIB:.0f} MiB, and may use {limit / MIB:.0f} MiB"
    return Problem("/resources/max_memory_bytes", "does_not_fit", message, hint)


def spec_that_fits(resolved: ResolvedSpec, facts: DatasetFacts, limit: int) -> dict[str, Any] | None:
    """`{patch, spec, fork, why}` as `fitting.next_spec` makes it, of the first offer within the limit; or None."""
    patch: dict[str, dict[str, Any]] = {}
    spec, fork = resolved.spec, True
    for _ in range(MOST_OFFERS):
        offer = next_spec(spec, {})
        if offer["patch"] is None:
            return None
        for part, fields in offer["patch"].items():
            patch[part] = {**patch.get(part, {}), **fields}
        fork = fork and offer["fork"]
        try:
            spec = JobSpec.model_validate(offer["spec"])
            smaller = resolve(spec, facts)
        except (SpecError, ValueError):
            return None
        if needed_bytes(smaller, facts) <= limit:
            why = f"by the estimate it needs {needed_bytes(smaller, facts) / MIB:.0f} of {limit / MIB:.0f} MiB"
            return {"patch": patch, "spec": offer["spec"], "fork": fork, "why": why}
    return None
