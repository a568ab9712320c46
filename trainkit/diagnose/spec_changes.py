"""Changes of a spec as JSON merge patches: the building blocks of recommendations and heuristics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from trainkit.diagnose.record import Record
from trainkit.spec.baselines import with_z_score
from trainkit.spec.checks.training import why_sanity_check_skipped
from trainkit.spec.facts import column_steps
from trainkit.spec.patch import replacing
from trainkit.spec.training import SanityCheck

Patch = dict[str, Any]
DECAY_PER_STEP, DECAY_PER_STEP_REGRESSION = 1e-3, 1e-2
"""Learning rate x weight decay: a weight without a gradient decays to 1/e in 1000 steps; for regression in 100."""
DEEP_HIDDEN_LAYERS = 8
"""From this number of hidden layers on, a network without skip connections is hard to train (He et al. 2016)."""


@dataclass(frozen=True, slots=True)
class Change:
    """A merge patch that has not been checked yet. `expected` is (metric, direction, size, source)."""

    patch: Patch
    why: str
    expected: tuple[str, str, str, str]


def rate_patch(record: Record, factor: float) -> Patch:
    """Return the patch for the same optimizer with `factor` times its learning rate."""
    optimizer = record.spec.optimizer
    return {"optimizer": {"kind": optimizer.kind, "lr": rounded(min(1e3, optimizer.lr * factor))}}


def model_patch(record: Record, **fields: Any) -> Patch:
    """Return the patch that changes these fields of the model."""
    return {"model": {"kind": record.spec.model.kind, **fields}}


def init_patch(record: Record, kind: str) -> Patch:
    old = getattr(record.spec.model, "init", None)
    return model_patch(record, init=replacing(old.model_dump() if old is not None else {}, {"kind": kind}))


def usual_init(record: Record) -> str:
    relu_like = getattr(record.spec.model, "activation", "") in ("relu", "leaky_relu", "elu", "gelu", "silu", "mish")
    return "he_normal" if relu_like else "xavier_uniform"


def init_fields(record: Record, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = init_patch(record, kind)["model"]
    return {"init": found["init"]} if getattr(record.spec.model, "init", None) is not None else {}


def scaled_patch(record: Record) -> Patch:
    """Return the patch that adds z_score, of a multimodal model's columns: after imputation and before pca or whiten."""
    field = "preprocess_columns" if record.spec.model.kind == "multimodal" else "preprocess"
    return {field: with_z_score(column_steps(record.spec))}


def longer_patch(record: Record, factor: int) -> Patch:
    phases = record.spec.start_from.phases if record.spec.start_from else ()
    if phases:
        documents = [phase.model_dump(mode="json", exclude_none=True) for phase in phases]
        documents[-1]["epochs"] *= factor
        return {"start_from": {"phases": documents}}
    return {"train": {"epochs": min(1_000_000, record.spec.train.epochs * factor)}}


def wider_patch(record: Record) -> Patch | None:
    """Return the patch for twice the width; None for a model without a width."""
    model = record.spec.model
    if model.kind == "mlp":
        return model_patch(record, hidden=[min(65536, 2 * width) for width in model.hidden] or [128])
    if model.kind in ("cnn", "residual_cnn"):
        return model_patch(record, channels=[min(65536, 2 * width) for width in model.channels])
    if model.kind in ("lstm", "gru"):
        return model_patch(record, hidden=min(65536, 2 * model.hidden))
    return None


def narrower_patch(record: Record) -> Patch | None:
    """Return the patch for half the width; None for a model without a width."""
    model = record.spec.model
    if model.kind == "mlp" and model.hidden:
        return model_patch(record, hidden=[max(4, width // 2) for width in model.hidden])
    if model.kind in ("cnn", "residual_cnn"):
        return model_patch(record, channels=[max(4, width // 2) for width in model.channels])
    if model.kind in ("lstm", "gru"):
        return model_patch(record, hidden=max(4, model.hidden // 2))
    return None


def early_stop_patch(record: Record) -> Patch:
    kept = [rule.model_dump(mode="json") for rule in record.spec.early_stop if rule.kind != "patience"]
    return {"early_stop": [*kept, {"kind": "patience", "monitor": "val_loss", "patience": 5}]}


def regularized_patch(record: Record) -> Patch:
    """Return the patch for dropout and weight decay.

    Regression gets less dropout (0.1, not 0.5): dropped units change the scale of the predicted number.
    """
    regularize, model = record.spec.regularize, record.spec.model
    share, forgetting = (0.5, DECAY_PER_STEP) if record.classification else (0.1, DECAY_PER_STEP_REGRESSION)
    decay = max(3 * regularize.weight_decay, forgetting / record.spec.optimizer.lr)
    patch: Patch = {"regularize": {"weight_decay": rounded(decay), "l2": 0}}
    if hasattr(model, "dropout") and model.kind != "linear" and (model.dropout or 0) < share:
        patch |= model_patch(record, dropout=share)
    return patch


def rounded(value: float) -> float:
    return float(f"{value:.3g}")


def shallower(record: Record, expected: tuple[str, str, str, str]) -> Iterator[Change]:
    """Recommend the first two hidden layers of a deep mlp."""
    hidden = hidden_widths(record)
    if len(hidden) >= DEEP_HIDDEN_LAYERS:
        why = "Many layers without skip connections train worse than few layers."
        yield Change(model_patch(record, hidden=list(hidden[:2])), why, expected)


def hidden_widths(record: Record) -> tuple[int, ...]:
    """Return the widths of the hidden layers of an mlp; empty for other models."""
    return record.spec.model.hidden if record.spec.model.kind == "mlp" else ()


def sanity_check_changes(record: Record) -> Iterator[Change]:
    """Recommend the same run with sanity checks, which separate a model that is too small from a failing optimization."""
    checks = [check for check in get_args(SanityCheck) if why_sanity_check_skipped(record.spec, check) is None]
    if "small_model" not in checks:
        return
    expected = (
        "sanity_check_small_model_loss",
        "down",
        "below the loss of this run, if its optimization fails",
        "techniques, 11.1",
    )
    yield Change(
        {"train": {"sanity_checks": checks}},
        "The sanity checks tell whether the model is too small or the optimization fails.",
        expected,
    )
