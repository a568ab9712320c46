"""Saturated activations: units whose slope is near 0 for every sample."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.gradients import idle_suspicion, idle_units
from trainkit.diagnose.interventions import LARGE_WEIGHTS, batch_norm, init_scale, standard_init
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Change, init_patch, model_patch, rate_patch, scaled_patch
from trainkit.diagnose.verdicts import LOW_LEARNING, Verdict
from trainkit.spec.facts import column_steps


def evidence(record: Record) -> Verdict | None:
    """Saturated activations: at the last evaluations half of all units that can saturate are, or 0.9 of one layer."""
    return idle_units(record, "saturated_activations", "saturated_units", "are saturated: their slope is below 4 %")


def suspicion(record: Record) -> float:
    """A quarter of all units that can saturate are, or half of those of one layer."""
    return idle_suspicion(record, "saturated_units")


def observable(record: Record) -> bool:
    return len(record.get("train_saturated_units")) > 0


def recommendations(record: Record) -> Iterator[Change]:
    expected = ("saturated_units", "down", "below 10 %", "Glorot and Bengio 2010")
    if getattr(record.spec.model, "init", None) is not None:
        yield Change(
            init_patch(record, "xavier_uniform"),
            "This initialization keeps the inputs of the activations where their slope is not near 0.",
            expected,
        )
    if not any(step.kind == "z_score" for step in column_steps(record.spec)):
        yield Change(
            scaled_patch(record),
            "Inputs of unit size keep the inputs of the activations where their slope is not near 0.",
            expected,
        )
    if getattr(record.spec.model, "norm", None) == "none":
        yield Change(
            model_patch(record, norm="batch"),
            "Batch norm keeps the inputs of the activations where their slope is not near 0.",
            expected,
        )
    yield Change(rate_patch(record, 0.1), "Smaller steps do not push units into saturation.", expected)


def interventions(record: Record) -> Iterator[Intervention]:
    code, scale = "saturated_activations", init_scale(record)
    if getattr(record.spec.model, "activation", None) not in ("sigmoid", "tanh"):
        return
    large = scale is not None and scale.ratio > LARGE_WEIGHTS
    if large:
        yield standard_init(record, code, 0.9)
    yield from batch_norm(record, code, 0.6 if large else 0.55)


CAUSE = Cause(
    code="saturated_activations",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    observable=observable,
    words="Units whose slope is near 0 may keep the layers before them from learning.",
    explains=LOW_LEARNING | {"vanishing_gradients", "exploding_gradients", "overfitting"},
)
