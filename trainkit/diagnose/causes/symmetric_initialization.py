"""Symmetric initialization: the units of a layer start equal and stay equal."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.interventions import EQUAL_WEIGHTS, init_scale, standard_init
from trainkit.diagnose.record import LOW_SKILL, Record
from trainkit.diagnose.spec_changes import Change, init_patch, usual_init
from trainkit.diagnose.verdicts import IDLE, LOW_LEARNING, Verdict

SYMMETRIC_STD = 1e-6
"""Spread of initial weights below which they count as equal; usual ones are 0.01 to 1."""
KINDS_WITH_HIDDEN_LAYERS = ("mlp", "cnn", "residual_cnn", "lstm", "gru", "torchvision")


def evidence(record: Record) -> Verdict | None:
    """Symmetric initialization: the weights of hidden layers start equal (zeros, or a spread below 1e-6).

    All units of a layer then get the same gradient and stay equal. A linear model may start so: its problem is convex.
    """
    model = record.spec.model
    init = getattr(model, "init", None)
    if model.kind not in KINDS_WITH_HIDDEN_LAYERS or (model.kind == "mlp" and not model.hidden) or init is None:
        return None
    zeros = init.kind == "zeros"
    alike = (init.kind == "normal" and init.std < SYMMETRIC_STD) or (
        init.kind == "uniform" and init.high - init.low < SYMMETRIC_STD
    )
    if not zeros and not alike:
        return None
    norms = {path: float(series.value[0]) for path, series in record.layers("grad_norm").items() if len(series)}
    learnt = record.final_skill
    wrong = learnt is not None and learnt > 1 - LOW_SKILL  # something else breaks the symmetry
    return Verdict(
        "symmetric_initialization",
        0.3 if wrong else 0.95,
        1,
        f"All weights of a layer start {'at 0' if zeros else 'equal'}, so its units get equal gradients and stay equal.",
        {
            "init": init.model_dump(mode="json"),
            "skill": learnt,
            "first_grad_norm_by_layer": norms,
            "layers_without_gradient": [path for path, norm in norms.items() if norm == 0],
            "series": ["train_loss", *(f"layers_grad_norm.{path}" for path in norms)],
        },
    )


def suspicion(record: Record) -> float:
    """Weights that start almost equal."""
    init = getattr(record.spec.model, "init", None)
    narrow = init is not None and init.kind == "normal" and init.std < 1e-4
    return 0.5 if narrow else 0.0


def recommendations(record: Record) -> Iterator[Change]:
    expected = (
        "train_loss",
        "down",
        "below the loss of a constant prediction within two epochs",
        "Glorot and Bengio 2010; He et al. 2015",
    )
    for kind in dict.fromkeys((usual_init(record), "xavier_uniform", "orthogonal")):
        yield Change(
            init_patch(record, kind),
            "With random weights the units of a layer can learn different features.",
            expected,
        )


def interventions(record: Record) -> Iterator[Intervention]:
    scale = init_scale(record)
    if scale is not None and scale.spread < EQUAL_WEIGHTS:
        yield standard_init(record, "symmetric_initialization", 0.95)


CAUSE = Cause(
    code="symmetric_initialization",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    words="The units of a layer may stay nearly equal.",
    explains=LOW_LEARNING | IDLE | {"learning_rate_too_high"},
)
