"""Whether a job fits into memory, by the estimate before it begins, and a spec that needs less where it does not."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from trainkit.spec.estimate import estimate
from trainkit.spec.facts import DatasetFacts
from trainkit.spec.job import JobSpec
from trainkit.spec.models import ModelSpec, Multimodal, is_sklearn_model
from trainkit.spec.patch import merge_patch
from trainkit.spec.problems import Problem, SpecError
from trainkit.spec.resolve import ResolvedSpec, resolve

MIB = 2**20
MOST_OFFERS = 40
OUT_OF_MEMORY = ("out_of_memory", "out_of_gpu_memory")
WIDTHS = ("hidden", "channels", "dense")
OTHERWISE = "take a smaller model, `split.subsample`, or a machine with more memory"
LEAST_SIDE = 32
"""Images are offered no smaller than this."""


def limit_of(spec: Mapping[str, Any], most: int) -> int:
    """Bytes a job's training process may hold: the spec's limit or the service's, whichever is less; 0 for neither."""
    limit = int((spec.get("resources") or {}).get("max_memory_bytes") or 0)
    return min(limit or most, most or limit)


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
    """`{patch, spec, fork, why}` as `next_spec` makes it, of the first offer within the limit; or None."""
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


def with_next_spec(error: dict[str, Any], spec: JobSpec | Mapping[str, Any]) -> dict[str, Any]:
    """The error of a job, with `evidence.next_spec` where it ran out of memory."""
    if error["code"] not in OUT_OF_MEMORY:
        return error
    evidence = error.get("evidence") or {}
    return {**error, "evidence": {**evidence, "next_spec": next_spec(spec, evidence)}}


def next_spec(spec: JobSpec | Mapping[str, Any], evidence: Mapping[str, Any]) -> dict[str, Any]:
    """`{patch, spec, fork, why}` of a job that needs less memory; `patch` and `spec` are None where none can be made.

    `patch`: a JSON merge patch, `spec`: the whole document with it. `fork`: whether a checkpoint can go on with it,
    since a step stays of batch_size x gradient_accumulation_steps samples. Passes of about half as many samples; where
    they are as small as can be, a narrower model. Raises ValidationError for a document that is no spec.
    """
    whole = spec if isinstance(spec, JobSpec) else JobSpec.model_validate(spec)
    document = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else copy.deepcopy(dict(spec))
    measured, now = _measured(evidence), whole.train.batch_size
    if is_sklearn_model(whole.model):
        why = f"{measured}scikit-learn takes the whole training part at once; {OTHERWISE}"
        return {"patch": None, "spec": None, "fork": False, "why": why}
    smaller = _smaller_batches(whole)
    if smaller is not None:
        batch_size, accumulation_steps, same = smaller
        why = f"{measured}passes of {now} samples do not fit; of {batch_size} each, {accumulation_steps} to a step, "
        why += "they need about half as much" + (", and a step is of as many samples as before" if same else "")
        return _offer(
            document,
            "train",
            {"batch_size": batch_size, "gradient_accumulation_steps": accumulation_steps},
            same,
            why,
        )
    least = f"{measured}a pass can hardly have fewer than {now} samples; "
    narrower = _narrower(whole.model)
    if narrower:
        return _offer(document, "model", narrower, False, f"{least}a model of half the size needs less")
    why = f"{least}{OTHERWISE}"
    return {"patch": None, "spec": None, "fork": False, "why": why}


def _offer(document: dict[str, Any], section: str, change: dict[str, Any], fork: bool, why: str) -> dict[str, Any]:
    patch = {section: change}
    return {"patch": patch, "spec": merge_patch(document, patch), "fork": fork, "why": why}


def _smaller_batches(spec: JobSpec) -> tuple[int, int, bool] | None:
    """(batch_size, accumulation steps, whether their product stays): about half the batch, a divisor if one is near."""
    batch_size, accumulation_steps = spec.train.batch_size, spec.train.gradient_accumulation_steps
    parts = (spec.model.image, spec.model.columns) if isinstance(spec.model, Multimodal) else (spec.model,)
    normalises = any(part.kind == "torchvision" or getattr(part, "norm", "none") == "batch" for part in parts)
    least, half = 2 if normalises else 1, batch_size // 2  # one sample has no variance to normalise by
    if half < least:
        return None
    if spec.adapt is not None:  # adaptation takes whole batches
        return half, 1, False
    step = batch_size * accumulation_steps
    for size in range(half, max(least, batch_size // 4) - 1, -1):
        if step % size == 0:
            return size, step // size, True
    return half, 2 * accumulation_steps, False


def _narrower(model: ModelSpec) -> dict[str, Any]:
    """The model's widths halved, or its images' side; empty for one that has none."""
    change: dict[str, Any] = {}
    for name in WIDTHS:
        width = getattr(model, name, None)
        if isinstance(width, tuple) and any(one > 1 for one in width):
            change[name] = [max(1, one // 2) for one in width]
        elif isinstance(width, int) and width > 1:
            change[name] = width // 2
    if isinstance(model, Multimodal):
        encoders = {"image": model.image, "columns": model.columns}
        narrower = {name: _narrower(encoder) for name, encoder in encoders.items()}
        change |= {name: {"kind": encoders[name].kind, **fields} for name, fields in narrower.items() if fields}
        return change
    side = getattr(model, "image_size", None)
    return {"image_size": side // 2} if side is not None and side >= 2 * LEAST_SIDE else change


def _measured(evidence: Mapping[str, Any]) -> str:
    peak = evidence.get("peak_bytes") or evidence.get("peak_memory_bytes")
    limit = evidence.get("total_bytes") or evidence.get("memory_limit_bytes")
    return f"{peak / MIB:.0f} MiB of {limit / MIB:.0f} MiB were used: " if peak and limit else ""
