"""Which specs can train as one batched model: the same network and arithmetic, other data, seeds, rates and penalties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trainkit.spec.estimate import PROCESS_BYTES
from trainkit.spec.facts import DatasetFacts
from trainkit.spec.job import JobSpec
from trainkit.spec.memory import needed_bytes
from trainkit.spec.problems import pointer
from trainkit.spec.resolve import ResolvedSpec

MODELS = ("linear", "linear_svm", "mlp", "cnn")
"""Layer upon layer: these are computed for many trials at once."""
MOST_BYTES = 8 * 2**30
"""What the trials, with their data, may hold together by the estimate."""
FREE = {"name", "labels", "group", "split", "early_stop", "schedule", "diagnose"}
FREE_WITHIN = {
    "model": {"init"},
    "optimizer": {"lr"},
    "regularize": {"l1", "l1_update", "l2", "scale", "weight_decay", "max_norm"},
    "resources": {"max_seconds", "max_attempts", "priority", "max_memory_bytes"},
    "train": {
        "checkpoint_seconds",
        "epochs",
        "evaluate_every_epochs",
        "evaluate_every_steps",
        "log_every_steps",
        "monitor",
        "log_stats",
        "restore_best",
        "seed",
        "steps_per_epoch",
    },
}
"""Fields that may differ between trials that train as one."""
SUPPORTED = {
    "regularize": FREE_WITHIN["regularize"] | {"label_smoothing"},
    "train": FREE_WITHIN["train"]
    | {"batch_size", "channels_last", "clip_norm", "clip_value", "compile", "deterministic", "precision", "threads"},
}
"""Fields that batched training reads: a trial that sets another one, such as a new one, trains alone."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why trials do not train as one: what is in the way, in which of them (from 0) and where in its spec."""

    trial: int
    pointer: str
    message: str

    def __str__(self) -> str:
        return f"trial {self.trial}, {self.pointer or '/'}: {self.message}"


def eligible(specs: Sequence[ResolvedSpec], facts: DatasetFacts) -> Reason | None:
    """Return None when these specs, all of one dataset, can train as one, else the first obstacle."""
    if not specs:
        return None
    first, needed = _rest(specs[0].spec), 0
    for trial, resolved in enumerate(specs):
        for obstacle in _obstacles(resolved.spec):
            return Reason(trial, *obstacle)
        where = _difference(first, _rest(resolved.spec))
        if where is not None:
            return Reason(trial, where, "it differs from trial 0")
        needed += needed_bytes(resolved, facts) - PROCESS_BYTES
    if needed > MOST_BYTES:
        return Reason(0, "", f"together they need about {needed / 2**30:.1f} GiB, more than {MOST_BYTES / 2**30:.0f}")
    return None


def _obstacles(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """(pointer, message) of what trains alone only."""
    if spec.model.kind not in MODELS:
        yield "/model/kind", f"{spec.model.kind} trains alone; {', '.join(MODELS)} can be batched"
    if getattr(getattr(spec.model, "init", None), "kind", None) == "pretrained":
        yield "/model/init", "weights are taken over from elsewhere"
    if not spec.optimizer.elementwise:
        yield "/optimizer/kind", f"{spec.optimizer.kind} does not work number by number"
    for field in ("start_from", "adapt"):
        if getattr(spec, field) is not None:
            yield f"/{field}", "it trains alone"
    train = spec.train
    if train.sanity_checks:
        yield "/train/sanity_checks", "sanity checks run before a run that trains alone"
    for field, allowed in (
        ("precision", ("auto", "float32")),
        ("compile", ("auto", False)),
        ("channels_last", ("auto", False)),
    ):
        if getattr(train, field) not in allowed:
            yield f"/train/{field}", f"{field} {getattr(train, field)} trains alone"
    for section, supported in SUPPORTED.items():
        model = getattr(spec, section)
        for field, info in type(model).model_fields.items():
            if field not in supported and getattr(model, field) != info.default:
                yield f"/{section}/{field}", f"{field} {getattr(model, field)} trains alone"


def _rest(spec: JobSpec) -> dict[str, Any]:
    """What must be alike."""
    return spec.model_dump(mode="json", exclude={**dict.fromkeys(FREE, True), **FREE_WITHIN})


def _difference(one: Any, other: Any, path: tuple[str, ...] = ()) -> str | None:
    """Pointer to the first place where two documents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in (*one, *(name for name in other if name not in one)):
            if (found := _difference(one.get(name), other.get(name), (*path, name))) is not None:
                return found
        return None
    return None if one == other else pointer(path)
