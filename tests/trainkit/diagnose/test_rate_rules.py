"""Rules about rates and gradients: series that trigger a rule, and near misses that do not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis_records import facts, falling, record, well
from trainkit.diagnose.causes.dead_units import evidence as dead_units
from trainkit.diagnose.causes.exploding_gradients import evidence as exploding_gradients
from trainkit.diagnose.causes.learning_rate_too_high import evidence as learning_rate_too_high
from trainkit.diagnose.causes.learning_rate_too_low import evidence as learning_rate_too_low
from trainkit.diagnose.causes.saturated_activations import evidence as saturated_activations
from trainkit.diagnose.causes.symmetric_initialization import evidence as symmetric_initialization
from trainkit.diagnose.causes.vanishing_gradients import evidence as vanishing_gradients
from trainkit.diagnose.diagnosis import diagnose, examine
from trainkit.diagnose.rates import relative_steps, sharpness

FLAT = [2.31] * 12
SGD = {"optimizer": {"kind": "sgd", "lr": 0.1}}


def test_baseline_and_skill_by_hand() -> None:
    healthy = record(**well())
    assert healthy.baseline == pytest.approx(math.log(10))
    assert healthy.skill("train")[0] == pytest.approx(1 - 2.0 / math.log(10))
    uneven = facts(classes={"a": 1500, "b": 500})
    assert record(about=uneven).baseline == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert record({"balance": "class_weights"}, uneven).baseline == pytest.approx(math.log(2))
    assert record({"loss": {"kind": "mse"}}, uneven).baseline == pytest.approx(0.75 * 0.25)
    assert record({"loss": {"kind": "hinge", "margin": 2}}, uneven).baseline == 2.0
    smooth = record({"regularize": {"label_smoothing": 0.1}}, uneven)
    assert smooth.floor == pytest.approx(-0.95 * math.log(0.95) - 0.05 * math.log(0.05))
    assert smooth.parts == (1600, 200, 200)
    # 64-128-64-10 with biases
    assert smooth.parameters == 64 * 128 + 128 + 128 * 64 + 64 + 64 * 2 + 2


def test_relative_steps_by_hand() -> None:
    sgd = relative_steps(record(SGD, train_lr=[0.1], train_grad_norm=[3.0], train_weight_norm=[6.0]))
    assert sgd is not None
    assert sgd.value.tolist() == pytest.approx([0.05])
    clipped = {**SGD, "train": {"clip_norm": 1.5}}
    shorter = relative_steps(record(clipped, train_lr=[0.1], train_grad_norm=[3.0], train_weight_norm=[6.0]))
    assert shorter is not None
    assert shorter.value.tolist() == pytest.approx([0.025])
    adam = record(train_lr=[1e-3], train_weight_norm=[10.0])
    steps = relative_steps(adam)
    assert steps is not None
    assert adam.parameters is not None
    assert steps.value.tolist() == pytest.approx([1e-4 * math.sqrt(adam.parameters)])
    heavy = record({"optimizer": {"kind": "nesterov"}}, train_lr=[0.1], train_grad_norm=[3.0], train_weight_norm=[6.0])
    longer = relative_steps(heavy)
    assert longer is not None
    assert longer.value.tolist() == pytest.approx([0.5])
    assert relative_steps(record()) is None


@pytest.mark.parametrize(
    ("changes", "fires"),
    [
        ({"train_loss": [9.0, 4.0, 2.9, 2.4, 2.4, 2.3], "val_loss": FLAT[:6], "train_lr": [0.5] * 6}, True),
        ({"train_batch_loss": [2.0, math.nan]}, True),
        ({"train_loss": [2.5, 2.2, 5.0, 2.6, 2.4, 2.3], "val_loss": FLAT[:6]}, True),
        ({"train_loss": [2.0, 1.6, 1.9, 1.4, 1.8, 1.5, 1.75, 1.6], "val_loss": [1.8] * 8}, True),
        ({"train_loss": FLAT, "val_loss": FLAT, "train_lr": [0.5] * 12}, True),
        # a tenth of the weights at half of all steps, and not all is learnt
        ({"train_loss": falling(2.0, 0.8), "val_loss": falling(2.0, 0.8), "train_lr": [0.05] * 12}, True),
        # weights that begin badly and get better by usual steps, with a noisy rise far below; a first epoch that is bad
        # but forgotten; rises that are noise; a flat loss with usual steps
        ({"train_loss": [5.0, 3.0, 2.5, 2.0, 2.4, 2.2], "val_loss": FLAT[:6]}, False),
        ({"train_loss": [9.0, 7.0, 6.0, 5.0], "val_loss": [9.0, 7.0, 6.0, 5.0]}, False),
        ({"train_loss": [5.0, 1.0, 0.5, 0.3, 0.2, 0.15]}, False),
        ({"train_loss": [2.0, 1.0, 0.5, 0.51, 0.49, 0.5, 0.48]}, False),
        ({"train_loss": FLAT, "val_loss": FLAT}, False),
        ({}, False),
    ],
)
def test_learning_rate_too_high(changes: dict[str, Any], fires: bool) -> None:
    verdict = learning_rate_too_high(record(**well(**changes)))
    assert (verdict is not None) == fires, verdict
    if verdict is not None:
        assert verdict.confidence >= 0.5
        assert verdict.since_epoch


def test_learning_rate_too_high_not_for_small_weights_of_a_linear_model() -> None:
    linear = {"model": {"kind": "linear"}}
    long = well(train_loss=FLAT, val_loss=FLAT, train_lr=[0.05] * 12, train_weight_norm=[1.0] * 12)
    assert learning_rate_too_high(record(**long)) is not None
    assert learning_rate_too_high(record(linear, **long)) is None
    assert learning_rate_too_high(record(linear | {"optimizer": {"kind": "adam", "lr": 5e-3}}, **long)) is not None


def test_learning_rate_too_high_with_dead_units() -> None:
    flat = well(train_loss=FLAT, val_loss=FLAT, train_lr=[0.0] * 12, train_dead_units=[1.0] * 12)
    wild = record({"optimizer": {"kind": "sgd", "lr": 5.0}}, **flat)
    assert [v.code for v in diagnose(wild).verdicts][:2] == ["learning_rate_too_high", "dead_units"]
    assert learning_rate_too_high(record({"optimizer": {"kind": "sgd", "lr": 0.5}}, **flat)) is None


def test_learning_rate_too_high_with_negative_validation_skill() -> None:
    giant = {"optimizer": {"kind": "adam", "lr": 0.3}}
    wild = well(
        train_loss=[20.0, 6.0, 4.0, 0.5, 0.1, 0.01], val_loss=[3.0, 8.0, 13.0, 6.0, 5.0, 5.0], train_lr=[0.3] * 6
    )
    assert diagnose(record(giant, **wild)).verdicts[0].code == "learning_rate_too_high"
    tame = {**wild, "val_loss": [3.0, 2.0, 1.0, 0.2, 0.2, 0.2]}
    assert learning_rate_too_high(record(giant, **{**tame, "train_weight_norm": [400.0] * 6})) is None


def test_learning_rate_too_high_not_for_a_high_first_loss() -> None:
    """As squared error on classes does: random outputs are far beyond the shares of the classes."""
    above = {"optimizer": {"kind": "adam", "lr": 2e-3}}
    fallen = [9.0, 7.0, 6.0, 5.0]
    assert learning_rate_too_high(record(above, **well(train_loss=fallen, val_loss=fallen))) is None
    back = [9.0, 7.0, 7.1, 5.0]
    assert learning_rate_too_high(record(above, **well(train_loss=back, val_loss=back))) is not None


def test_optimization_failure_of_many_plain_layers() -> None:
    flat = well(train_loss=FLAT, val_loss=FLAT, train_dead_units=[0.6] * 12)
    plain = {"model": {"kind": "mlp", "hidden": [16] * 20}}
    assert [v.code for v in examine(record(plain, **flat)).evidence] == ["optimization_failure"]
    slow = {"optimizer": {"kind": "sgd", "lr": 0.01}}
    creeping = well(
        train_loss=np.linspace(2.3, 2.2, 12).tolist(), val_loss=FLAT, train_lr=[0.01] * 12, train_grad_norm=[4.0] * 12
    )
    assert examine(record(slow, **creeping)).evidence[0].code == "learning_rate_too_low"
    assert examine(record({**slow, **plain}, **creeping)).evidence[0].code == "optimization_failure"
    half = {"train_loss": [2.3, 1.6, *[1.0] * 10], "val_loss": [2.3, 1.6, *[1.1] * 10]}
    assert [v.code for v in examine(record(plain, **well(**half))).evidence] == ["optimization_failure"]
    assert [v.code for v in diagnose(record(plain, **well())).verdicts] == ["healthy"]
    late = [*[2.3] * 7, 1.5, 0.8, 0.6, 0.5, 0.4]
    assert examine(record(plain, **well(train_loss=late, val_loss=late))).evidence[0].code == "optimization_failure"
    broken = {"train_loss": [math.nan], "train_batch_loss": [math.nan], "state": "failed", "stop_reason": None}
    assert examine(record(plain, **broken)).evidence[0].code == "optimization_failure"
    for changes in ({"norm": "batch"}, {"activation": "tanh"}, {"init": {"kind": "normal"}}, {"hidden": [16] * 8}):
        other = {"model": {**plain["model"], **changes}}
        assert examine(record(other, **flat)).evidence[0].code == "dead_units", changes


def test_learning_rate_too_low() -> None:
    slow = {"train_loss": np.linspace(2.4, 2.3, 12).tolist(), "val_loss": np.linspace(2.4, 2.3, 12).tolist()}
    short = record({"optimizer": {"kind": "adam", "lr": 1e-6}}, **well(**slow, train_lr=[1e-6] * 12))
    verdict = learning_rate_too_low(short)
    assert verdict is not None
    # 120 steps of 1e-6 sqrt(P) / 15
    assert short.parameters is not None
    assert verdict.evidence["relative_way"] == pytest.approx(120 * 1e-6 * math.sqrt(short.parameters) / 15)
    assert verdict.confidence > 0.7
    # without norms only the even fall tells, with less confidence
    blind = {name: [] for name in ("train_lr", "train_grad_norm", "train_weight_norm")}
    low = {"optimizer": {"kind": "adam", "lr": 1e-4}}
    guessed = learning_rate_too_low(record(low, **well(**slow, **blind)))
    assert guessed is not None
    assert guessed.confidence == 0.5
    # at the usual rate the same course ended too early; a schedule that takes the rate away is told by what was logged
    assert learning_rate_too_low(record(**well(**slow, **blind))) is None
    assert learning_rate_too_low(record(**well(**slow, train_lr=[1e-5] * 12))) is not None
    # more than half is learnt, and it goes on as steadily
    gaining = {"train_loss": np.linspace(2.0, 0.9, 8).tolist(), "val_loss": np.linspace(2.0, 0.9, 8).tolist()}
    assert learning_rate_too_low(record(low, **well(**gaining, train_lr=[1e-4] * 8))) is not None
    assert learning_rate_too_low(record(**well(**gaining))) is None
    # the weights went a long way; much is learnt; transfer begins near its end
    assert learning_rate_too_low(record(**well(**slow, train_lr=[0.1] * 12))) is None
    assert learning_rate_too_low(record(**well(train_lr=[1e-6] * 12))) is None
    assert learning_rate_too_low(record(**well(train_loss=falling(2.4, 1.9), val_loss=FLAT, **blind))) is None


def test_exploding_gradients_at_the_default_rate() -> None:
    steep = well(train_grad_norm=[1e4] * 12, train_weight_norm=[100.0] * 12, train_loss=FLAT, val_loss=FLAT)
    exploding = record(SGD, **{**steep, "train_batch_loss": [50.0, math.inf]})
    assert sharpness(exploding).value[0] == pytest.approx(1e6 / math.log(10))
    verdict = exploding_gradients(exploding)
    assert verdict is not None
    assert verdict.confidence > 0.8
    assert verdict.evidence["not_finite_since_step"] == 20
    assert [v.code for v in diagnose(exploding).verdicts][:2] == ["exploding_gradients", "learning_rate_too_high"]
    # the same under ten times the usual rate: the rate explains it
    assert exploding_gradients(record({"optimizer": {"kind": "sgd", "lr": 1.0}}, **steep)) is None
    assert exploding_gradients(record(SGD, **well())) is None


def test_vanishing_gradients() -> None:
    def layers(first: float, **changes: Any) -> dict[str, Any]:
        norms = {"body__block_1__linear": first, "body__block_2__linear": 1e-3, "head__output": 1.0}
        norms_of_layers = {f"layers_grad_norm__{path}": [norm] * 12 for path, norm in norms.items()}
        norms_of_layers |= {f"layers_weight_norm__{path}": [5.0] * 12 for path in norms}
        return well(**{"train_loss": FLAT, "val_loss": FLAT, **norms_of_layers, **changes})

    verdict = vanishing_gradients(record(**layers(1e-6)))
    assert verdict is not None
    assert verdict.evidence["first_over_last"] == pytest.approx(1e-6)
    assert list(verdict.evidence["reach_by_layer"]) == ["body.block_1.linear", "body.block_2.linear", "head.output"]
    assert vanishing_gradients(record(**layers(2e-2))) is None
    assert vanishing_gradients(record(**layers(1e-6, train_loss=falling(2.0, 0.1)))) is None
    # a layer of which a few units live weakens the gradient, no more; one that is dead altogether ends it
    for share, first in ((0.96, "vanishing_gradients"), (1.0, "dead_units")):
        idle = {"train_dead_units": [0.3] * 12, "layers_dead_units__body__block_2__activation": [share] * 12}
        assert examine(record(**layers(1e-6, **idle))).evidence[0].code == first


@pytest.mark.parametrize(("name", "rule"), [("dead_units", dead_units), ("saturated_units", saturated_activations)])
def test_dead_and_saturated_units(name: str, rule: Any) -> None:
    stuck = {"train_loss": FLAT, "val_loss": FLAT}
    half = rule(record(**well(**stuck, **{f"train_{name}": [0.1] * 4 + [0.6] * 8})))
    assert (half.since_epoch, half.evidence["share"]) == (5, 0.6)
    layer = {f"train_{name}": [0.3] * 12, f"layers_{name}__body__block_2__activation": [0.95] * 12}
    by_layer = rule(record(**well(**stuck, **layer)))
    assert by_layer.confidence >= 0.8
    some = {"train_loss": falling(2.0, 0.8), "val_loss": falling(2.0, 0.9)}
    assert rule(record(**well(**some, **{f"train_{name}": [0.6] * 12}))).confidence == 0.4
    assert rule(record(**well(**{f"train_{name}": [0.6] * 12}))) is None, "all is learnt: it has units to spare"
    assert rule(record(**well(**stuck, **{f"train_{name}": [0.45] * 12}))) is None
    assert rule(record(**stuck)) is None
    dropped = record({"model": {"kind": "mlp", "dropout": 0.5}}, **well(**stuck, **{f"train_{name}": [1.0] * 12}))
    assert rule(dropped).confidence > 0.9
    decayed = record({"regularize": {"l2": 400}}, **well(**stuck, **{f"train_{name}": [1.0] * 12}))
    assert rule(decayed).confidence == 0.4
    narrow = {"model": {"kind": "mlp", "hidden": [1]}}  # whatever the one unit does, ten classes need more
    assert rule(record(narrow, **well(**stuck, **{f"train_{name}": [1.0] * 12}))).confidence == 0.4


def test_symmetric_initialization() -> None:
    stuck = well(train_loss=FLAT, val_loss=FLAT, train_dead_units=[1.0] * 12)
    symmetric = record({"model": {"kind": "mlp", "init": {"kind": "zeros"}}}, **stuck)
    verdicts = diagnose(symmetric).verdicts
    assert verdicts[0].code == "symmetric_initialization"
    dead = next(v for v in verdicts if v.code == "dead_units")
    assert dead.evidence["explained_by"] == ["symmetric_initialization"]
    tiny = {"kind": "uniform", "low": 0.3, "high": 0.3 + 1e-9}
    assert symmetric_initialization(record({"model": {"kind": "mlp", "init": tiny}}, **stuck)) is not None
    for model in (
        {"kind": "linear", "init": {"kind": "zeros"}},
        {"kind": "mlp", "hidden": [], "init": {"kind": "zeros"}},
        {"kind": "mlp", "init": {"kind": "normal", "std": 0.01}},
        {"kind": "mlp"},
    ):
        assert symmetric_initialization(record({"model": model}, **stuck)) is None
