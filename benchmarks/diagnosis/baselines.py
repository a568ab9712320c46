"""Three published rule sets on our records: AutoTrainer, DeepLocalize and UMLAUT, to compare with.

Each is written anew from its paper and its authors' public code, with the thresholds given there. What a rule reads of
every batch is read here from what a run logs (batch losses a few times an epoch, layers and metrics each epoch). Their
names of problems are mapped to our codes generously: a finding counts as naming every code of its set.

- X. Zhang, J. Zhai, S. Ma, C. Shen: AUTOTRAINER: An Automatic DNN Training Problem Detection and Repair System. ICSE
  2021. Code: shiningrain/AUTOTRAINER, utils/monitor.py.
- M. Wardat, W. Le, H. Rajan: DeepLocalize: Fault Localization for Deep Neural Networks. ICSE 2021. Code:
  Wardat-ISU/DeepLocalize, callbacks.py.
- E. Schoop, F. Huang, B. Hartmann: UMLAUT: Debugging Deep Learning Programs using Program Structure and Model Behavior.
  CHI 2021. Code: BerkeleyHCI/umlaut, heuristics.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import Code

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem by the name that its authors give it, and the codes that it counts for."""

    problem: str
    codes: frozenset[Code]


def _finding(problem: str, *codes: Code) -> Finding:
    return Finding(problem, frozenset(codes))


EXPLODING = _finding(
    "exploding gradient", "exploding_gradients", "learning_rate_too_high", "unscaled_inputs", "saturated_activations"
)
VANISHING = _finding(
    "vanishing gradient",
    "vanishing_gradients",
    "saturated_activations",
    "symmetric_initialization",
    "optimization_failure",
)
DYING = _finding("dying ReLU", "dead_units", "symmetric_initialization")
UNSTABLE = _finding("oscillating loss", "learning_rate_too_high", "unscaled_inputs")
SLOW = _finding(
    "slow convergence",
    "learning_rate_too_low",
    "stopped_too_early",
    "underfitting_model_bias",
    "optimization_failure",
    "symmetric_initialization",
)
BETA_1, BETA_2, BETA_3, GAMMA, ZETA, ETA, DELTA, THETA = 1e-3, 1e-4, 70.0, 0.7, 0.03, 0.2, 0.01, 0.7
"""AutoTrainer's defaults: ratio and norm of a vanished gradient, ratio of an exploded one, share of dead gradients,
swing of an accuracy, share of epochs that swing, least gain of a learning epoch, accuracy of a trained model."""
LARGE_LOSS = 1e5
JUDGED_FROM = 0.3
"""Share of the epochs before which AutoTrainer does not judge a loss."""


def autotrainer(record: Record) -> list[Finding]:
    """Return AutoTrainer's problems, in the order in which it looks for them."""
    losses = [
        record.series[name].value for name in ("train_loss", "val_loss", "train_batch_loss") if name in record.series
    ]
    bad = any(not np.isfinite(one).all() for one in losses) or record.state == "failed"
    if bad or any(len(one) and one[-1] >= LARGE_LOSS for one in losses[:2]):
        return [EXPLODING]
    train, held = _accuracy(record, "train"), _accuracy(record, "val")
    if len(train) < 2 or len(train) < JUDGED_FROM * record.spec.train.epochs:
        return []
    slow = _largest_gain(held) < DELTA and _largest_gain(train) < DELTA
    if slow or max(held, default=0.0) < THETA or max(train) < THETA:
        return list(_gradient_problems(record)) or ([SLOW] if slow else [])
    return [UNSTABLE] if _oscillates(train) else []


def _gradient_problems(record: Record) -> Iterator[Finding]:
    """The first that applies of: dying ReLU, exploding, vanishing."""
    dead = record.get("train_dead_units").value
    norms = list(record.layers("grad_norm").values())
    if len(dead) and dead.max() >= GAMMA:
        yield DYING
    elif len(norms) > 1 and len(norms[0]) and len(norms[0]) == len(norms[-1]):
        first, last = norms[0].value, norms[-1].value
        ratio = first / np.maximum(last, 1e-300)
        if (ratio > BETA_3).any():
            yield EXPLODING
        elif ((ratio < BETA_1) & (first < BETA_2)).any():
            yield VANISHING


def _accuracy(record: Record, split: str) -> Floats:
    """The accuracy; for numbers R^2, of which the paper says nothing."""
    return record.get(f"{split}_accuracy").value if record.classification else np.clip(record.skill(split), -1, 1)


def _largest_gain(values: Floats) -> float:
    return float(np.diff(values).max(initial=0.0))


def _oscillates(accuracy: Floats) -> bool:
    """Whether in a fifth of the epochs a local maximum lies 0.03 above the local minimum of the same rank."""
    middle, before, after = accuracy[1:-1], accuracy[:-2], accuracy[2:]
    tops, bottoms = (
        middle[(middle >= before) & (middle >= after)],
        middle[(middle <= before) & (middle <= after)],
    )
    shared = min(len(tops), len(bottoms))
    return int((tops[:shared] - bottoms[:shared] >= ZETA).sum()) >= ETA * len(accuracy)


NUMERICAL = _finding("numerical error", "exploding_gradients", "learning_rate_too_high", "unscaled_inputs")
FORWARD = _finding(
    "error in forward", "dead_units", "saturated_activations", "symmetric_initialization", "vanishing_gradients"
)
WEIGHTS = _finding(
    "error in weights", "symmetric_initialization", "vanishing_gradients", "learning_rate_too_low", "dead_units"
)
DELTA_WEIGHTS = _finding(
    "error in delta weights", "vanishing_gradients", "dead_units", "symmetric_initialization", "saturated_activations"
)
NOT_LEARNING = _finding(
    "model does not learn",
    "learning_rate_too_low",
    "learning_rate_too_high",
    "optimization_failure",
    "underfitting_model_bias",
    "wrong_loss",
)
CHECKED_EVERY = 5
"""N of DeepLocalize: so many values in a row that are all the same are an error."""


def deeplocalize(record: Record) -> list[Finding]:
    """Return DeepLocalize's error, the first that it meets: it ends the training then."""
    series = record.series
    logged = [series[name].value for name in ("train_batch_loss", "train_loss") if name in series]
    if record.state == "failed" or any(not np.isfinite(one).all() for one in logged):
        return [NUMERICAL]
    if any(len(one) and (one.value >= 1.0).mean() >= 0.5 for one in record.layers("dead_units").values()):
        return [FORWARD]
    for one in record.layers("weight_norm").values():
        if len(one) and ((one.value == 0).mean() >= 0.5 or _stands_still(one.value)):
            return [WEIGHTS]
    if any(_stands_still(record.get(name).value) for name in ("train_batch_loss", "train_accuracy")):
        return [NOT_LEARNING]
    if any(len(one) and (one.value == 0).mean() >= 0.5 for one in record.layers("grad_norm").values()):
        return [DELTA_WEIGHTS]
    return []


def _stands_still(values: Floats) -> bool:
    """Whether five values in a row are the same (their mean is their maximum)."""
    blocks = values[: len(values) // CHECKED_EVERY * CHECKED_EVERY].reshape(-1, CHECKED_EVERY)
    return bool((blocks.min(1, initial=np.inf) == blocks.max(1, initial=-np.inf)).any()) if len(blocks) else False


OVERFITTING = _finding("overfitting", "overfitting", "label_noise")
OVERCONFIDENT = _finding(
    "overconfident validation accuracy", "leakage", "distribution_mismatch", "validation_too_small"
)
RATE_HIGH = _finding("learning rate is high", "learning_rate_too_high")
RATE_LOW = _finding("learning rate is low", "learning_rate_too_low")
NOT_NORMALIZED = _finding("input is not normalized", "unscaled_inputs")
NO_SOFTMAX = _finding("missing softmax before the loss", "wrong_loss")
NOT_A_NUMBER = _finding("NaN in loss", "learning_rate_too_high", "exploding_gradients", "unscaled_inputs")
HIGH_DROPOUT = _finding("high dropout rate", "underfitting_model_bias")
NO_ACTIVATION = _finding("missing activation", "underfitting_model_bias")
HIGH_RATE, LOW_RATE, HIGH_ACCURACY, ACCURACY_AHEAD, MOST_DROPOUT = 0.01, 1e-7, 0.95, 0.05, 0.5
"""UMLAUT's thresholds."""
FIRST_EPOCHS = 3
"""Epochs in which UMLAUT takes a high validation accuracy for chance."""


def umlaut(record: Record) -> list[Finding]:
    """Return UMLAUT's warnings: of the program first, then of the epochs in the order of its checks."""
    return list(_warnings(record))


def _warnings(record: Record) -> Iterator[Finding]:
    spec, train, held = record.spec, record.get("train_loss").value, record.get("val_loss").value
    # The library computes the softmax where a loss needs it; squared error on classes is trained without one.
    if record.classification and spec.loss is not None and spec.loss.kind in ("mse", "mae", "hinge"):
        yield NO_SOFTMAX
    if getattr(spec.model, "activation", "") == "linear":
        yield NO_ACTIVATION
    if getattr(spec.model, "dropout", 0.0) > MOST_DROPOUT:
        yield HIGH_DROPOUT
    if _exceeds_unit_range(record):
        yield NOT_NORMALIZED
    if any(
        np.isnan(record.series[name].value).any()
        for name in ("train_loss", "train_batch_loss")
        if name in record.series
    ):
        yield NOT_A_NUMBER
    rates = record.get("train_lr").value
    if len(rates) and rates.max() > HIGH_RATE:
        yield RATE_HIGH
    if len(rates) and rates.min() < LOW_RATE:
        yield RATE_LOW
    if len(train) == len(held) and ((np.diff(held) > 0) & (np.diff(train) <= 0)).any():
        yield OVERFITTING
    accuracy, of_training = (record.get(f"{part}_accuracy").value[FIRST_EPOCHS:] for part in ("val", "train"))
    if (accuracy > HIGH_ACCURACY).any() or (
        len(accuracy) == len(of_training) and (accuracy - of_training > ACCURACY_AHEAD).any()
    ):
        yield OVERCONFIDENT


def _exceeds_unit_range(record: Record) -> bool:
    """Whether inputs exceed [-1, 1], as the network sees them. Inputs of deviation 1 do, unless they are min_max."""
    kinds = {step.kind for step in record.spec.preprocess or ()}
    if "min_max" in kinds:
        return False
    if kinds & {"z_score", "whiten"}:
        return True
    columns = record.report.get("column_statistics") or {}
    sizes = [max(abs(one.get("min", 0.0)), abs(one.get("max", 0.0))) for one in columns.values()]
    sizes += (record.report.get("feature_statistics") or {}).get("rms") or []  # of arrays only the mean square is known
    return bool(sizes) and max(sizes) > 1.0


BASELINES: dict[str, Callable[[Record], list[Finding]]] = {
    "AutoTrainer": autotrainer,
    "DeepLocalize": deeplocalize,
    "UMLAUT": umlaut,
}
