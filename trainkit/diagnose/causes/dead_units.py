"""Dead units: units that are 0 for every sample."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.gradients import idle_suspicion, idle_units
from trainkit.diagnose.interventions import BIASED_WEIGHTS, batch_norm, init_scale, rate_tenth, standard_init
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Change, init_patch, model_patch, rate_patch
from trainkit.diagnose.verdicts import LOW_LEARNING, Verdict


def evidence(record: Record) -> Verdict | None:
    """Dead units: at the last evaluations half of all units that can be dead are, or 0.9 of those of one layer."""
    return idle_units(record, "dead_units", "dead_units", "are 0 for every sample, so they get no gradient")


def suspicion(record: Record) -> float:
    """A quarter of all units that can be dead are, or half of those of one layer."""
    return idle_suspicion(record, "dead_units")


def observable(record: Record) -> bool:
    return len(record.get("train_dead_units")) > 0


def recommendations(record: Record) -> Iterator[Change]:
    expected = ("dead_units", "down", "below 10 %", "Maas, Hannun and Ng 2013")
    model = record.spec.model
    if getattr(model, "init", None) is not None:
        yield Change(
            init_patch(record, "he_normal"), "With this initialization every unit is active on some samples.", expected
        )
    if getattr(model, "activation", None) == "relu":
        yield Change(
            model_patch(record, activation="leaky_relu"),
            "leaky_relu has a gradient below 0 too, so dead units can recover.",
            expected,
        )
    if getattr(model, "norm", None) == "none":
        yield Change(
            model_patch(record, norm="batch"),
            "Batch norm centres the inputs of each unit: about half of the samples are above 0.",
            expected,
        )
    yield Change(
        rate_patch(record, 0.1), "Smaller steps do not push units to where they are 0 for every sample.", expected
    )


def interventions(record: Record) -> Iterator[Intervention]:
    code, scale = "dead_units", init_scale(record)
    if getattr(record.spec.model, "activation", None) != "relu":
        return
    biased = scale is not None and scale.mean < -BIASED_WEIGHTS
    if biased:
        yield standard_init(record, code, 0.9)
    patch = model_patch(record, activation="leaky_relu")
    yield Intervention("leaky_relu", code, patch, "val_loss", "leaky_relu has a gradient below 0 too.", 0.5)
    # after a usual initialisation something else has killed the units: the rate, or the inputs
    yield from batch_norm(record, code, 0.7 if biased else 0.55)
    yield rate_tenth(record, code, 0.2)


CAUSE = Cause(
    code="dead_units",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    observable=observable,
    words="Units that are 0 for every sample may be missing.",
    explains=LOW_LEARNING | {"vanishing_gradients"},
)
