"""Recommended changes for each verdict, the most promising first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np

from trainkit.diagnose.held_out_data import target_leaking_features
from trainkit.diagnose.rates import LOW_SKILL, relative_steps
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import (
    Change,
    Patch,
    default_rate,
    early_stop_patch,
    init_fields,
    init_patch,
    longer_patch,
    model_patch,
    narrower_patch,
    rate_patch,
    regularized_patch,
    scaled_patch,
    usual_init,
    wider_patch,
)
from trainkit.diagnose.verdicts import Code
from trainkit.spec.checks.training import why_sanity_check_skipped
from trainkit.spec.facts import column_steps
from trainkit.spec.patch import replacing
from trainkit.spec.training import SanityCheck

TARGET_RELATIVE_STEP = 0.005
"""||update|| / ||weights||: the upper end of what is usual in networks that train well."""
DEEP_HIDDEN_LAYERS = 8
"""From this number of hidden layers on, a network without skip connections is hard to train (He et al. 2016)."""


def _shallower(record: Record, expected: tuple[str, str, str, str]) -> Iterator[Change]:
    hidden = _hidden_widths(record)
    if len(hidden) >= DEEP_HIDDEN_LAYERS:
        why = "Many layers without skip connections train worse than few layers."
        yield Change(model_patch(record, hidden=list(hidden[:2])), why, expected)


def _hidden_widths(record: Record) -> tuple[int, ...]:
    """Return the widths of the hidden layers of an mlp; empty for other models."""
    return record.spec.model.hidden if record.spec.model.kind == "mlp" else ()


def _overfitting(record: Record) -> Iterator[Change]:
    model = record.spec.model
    form = record.resolved.sample.form if record.resolved else ""
    if form == "image" and not record.spec.augment:
        moves = [{"kind": "translate", "fraction": 0.1}, {"kind": "rotate", "degrees": 10}]
        expected = (
            "val_loss",
            "down",
            "more than penalties give, where such changes keep the class",
            "Simard et al. 2003",
        )
        yield Change({"augment": moves}, "Shifted and rotated images are new samples of the same classes.", expected)
    yield Change(
        regularized_patch(record),
        "Dropout and weight decay make it harder to memorise single samples.",
        ("val_loss", "down", "some of the gap to training", "Srivastava et al. 2014; Loshchilov and Hutter 2019"),
    )
    if hasattr(model, "dropout") and model.kind != "linear" and (model.dropout or 0) < 0.2:
        yield Change(
            model_patch(record, dropout=0.2),
            "Dropout makes it harder to memorise single samples.",
            ("val_loss", "down", "a little", "Srivastava et al. 2014"),
        )
    if (smaller := narrower_patch(record)) is not None:
        yield Change(
            smaller,
            "A network of half the width can memorise less.",
            ("val_loss", "down", "a little", "rule of thumb"),
        )
    yield Change(
        early_stop_patch(record),
        "Later epochs only increase the gap between validation and training.",
        ("seconds", "down", "the epochs behind the best one; the model stays the same", "this record"),
    )


def _underfitting_model_bias(record: Record) -> Iterator[Change]:
    regularize = record.spec.regularize
    if regularize.l2 or regularize.l1 or regularize.weight_decay or getattr(record.spec.model, "dropout", 0):
        patch: Patch = {"regularize": {"l1": 0, "l2": 0, "weight_decay": 0}}
        if getattr(record.spec.model, "dropout", 0):
            patch |= model_patch(record, dropout=0)
        expected = ("train_loss", "down", "clearly, if the penalties kept the loss high", "this record")
        yield Change(patch, "The model does not overfit, so its penalties only keep the training loss high.", expected)
    expected = (
        "train_loss",
        "down",
        "below the loss of this run, unless the noise of the data is reached",
        "bias and variance",
    )
    if record.spec.model.kind in ("linear", "linear_svm"):
        old = record.spec.model.model_dump(mode="json")
        patch = {"model": replacing(old, {"kind": "mlp", "hidden": [128, 64]})}
        if record.spec.model.kind == "linear_svm" and record.spec.loss is not None and record.spec.loss.kind == "hinge":
            patch["loss"] = replacing(record.spec.loss.model_dump(), {"kind": "cross_entropy"})
        yield Change(patch, "A linear model cannot fit a non-linear relation; hidden layers can.", expected)
    if (wider := wider_patch(record)) is not None:
        yield Change(wider, "A network of twice the width can fit more.", expected)
        yield Change(
            {**wider, **longer_patch(record, 2)}, "Twice the width and twice the epochs to train it.", expected
        )
    yield from _sanity_checks(record)


def _optimization_failure(record: Record) -> Iterator[Change]:
    expected = (
        "train_loss",
        "down",
        "below the loss of a constant prediction within a few epochs",
        "this record's baseline",
    )
    plain = getattr(record.spec.model, "norm", None) == "none"
    yield from _shallower(record, expected)
    if record.spec.optimizer.kind != "adam":
        old = record.spec.optimizer.model_dump(mode="json")
        yield Change(
            {"optimizer": replacing(old, {"kind": "adam", "lr": 1e-3})},
            "Adam scales the step of each weight by the size of its gradient.",
            expected,
        )
    if plain:
        yield Change(
            model_patch(record, norm="batch"), "Batch norm keeps activations and gradients in range.", expected
        )
    for factor in (0.1, 10.0):
        yield Change(
            rate_patch(record, factor),
            f"A learning rate {factor:g} times as large: a wrong rate is the most common cause.",
            expected,
        )
    yield from _sanity_checks(record)


def _sanity_checks(record: Record) -> Iterator[Change]:
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


def _learning_rate_too_high(record: Record) -> Iterator[Change]:
    usual, learnt, steps = default_rate(record), record.final_skill, relative_steps(record)
    expected = ("train_loss", "down", "steadily from the first epoch on", "Bengio 2012")
    if learnt is not None and learnt >= LOW_SKILL and steps is not None:
        # at the usual rate a network that does learn would need far more epochs
        factor = TARGET_RELATIVE_STEP / float(np.median(steps.value))
        if factor < 1:
            yield Change(
                rate_patch(record, factor), "Each step then changes the weights by about 0.5 % of their norm.", expected
            )
    if record.spec.optimizer.lr > 3 * usual:
        patch = {"optimizer": {"kind": record.spec.optimizer.kind, "lr": usual}}
        yield Change(patch, f"The default learning rate of {record.spec.optimizer.kind}.", expected)
    yield Change(rate_patch(record, 0.1), "A tenth of the learning rate.", expected)
    slow = {"kind": record.spec.schedule.kind, "warmup_epochs": 1}
    yield Change(
        {**rate_patch(record, 0.3), "schedule": slow},
        "A third of the learning rate, reached by a warm-up of one epoch.",
        expected,
    )


def _learning_rate_too_low(record: Record) -> Iterator[Change]:
    usual, rates = default_rate(record), record.get("train_lr").value
    expected = ("train_loss", "down", "more in one epoch than in this whole run", "CS231n: relative step near 1e-3")
    if len(rates) and float(np.median(rates)) < record.spec.optimizer.lr / 3:
        old = record.spec.schedule.model_dump(mode="json")
        yield Change(
            {"schedule": replacing(old, {"kind": "constant"})}, "The schedule keeps the learning rate small.", expected
        )
    if record.spec.optimizer.lr < usual / 3:
        patch = {"optimizer": {"kind": record.spec.optimizer.kind, "lr": usual}}
        yield Change(patch, f"The default learning rate of {record.spec.optimizer.kind}.", expected)
    for factor in (10.0, 100.0):
        yield Change(rate_patch(record, factor), f"{factor:g} times the learning rate.", expected)


def _vanishing_gradients(record: Record) -> Iterator[Change]:
    expected = ("layers_grad_norm", "up", "first and last layer within a factor of 100", "He et al. 2015")
    model = record.spec.model
    if getattr(model, "activation", "relu") in ("sigmoid", "tanh"):
        fields: dict[str, Any] = {"activation": "relu"}
        yield Change(
            model_patch(record, **fields, **init_fields(record, "he_normal")),
            "relu does not shrink the gradient of active units.",
            expected,
        )
    else:
        yield from _shallower(record, expected)
    if getattr(model, "norm", None) == "none":
        yield Change(model_patch(record, norm="batch"), "Batch norm keeps the scale of the gradient.", expected)
    if hasattr(model, "init"):
        yield Change(
            init_patch(record, usual_init(record)),
            "This initialization keeps the scale of the gradient from layer to layer.",
            expected,
        )
    if model.kind == "mlp" and len(model.hidden) > 2:
        yield Change(
            model_patch(record, hidden=list(model.hidden[:2])), "The gradient passes through fewer layers.", expected
        )


def _exploding_gradients(record: Record) -> Iterator[Change]:
    expected = ("grad_norm", "down", "to about 1, with a finite loss", "Pascanu, Mikolov and Bengio 2013")
    if getattr(record.spec.model, "init", None) is not None:
        yield Change(
            init_patch(record, usual_init(record)),
            "This initialization keeps the scale of the activations from layer to layer.",
            expected,
        )
    if record.spec.train.clip_norm is None:
        yield Change({"train": {"clip_norm": 1.0}}, "Clipping limits the norm of the gradient to 1.", expected)
    if getattr(record.spec.model, "norm", None) == "none":
        yield Change(model_patch(record, norm="batch"), "Batch norm keeps the scale of the activations.", expected)
    yield Change(
        {**rate_patch(record, 0.1), "train": {"clip_norm": 1.0}},
        "Gradient clipping and a tenth of the learning rate.",
        expected,
    )


def _dead_units(record: Record) -> Iterator[Change]:
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


def _symmetric_initialization(record: Record) -> Iterator[Change]:
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


def _saturated_activations(record: Record) -> Iterator[Change]:
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


def _unscaled_inputs(record: Record) -> Iterator[Change]:
    expected = (
        "train_loss",
        "down",
        "from near the loss of a constant prediction at the start, at the same learning rate",
        "LeCun et al. 1998",
    )
    yield Change(scaled_patch(record), "z_score gives every input mean 0 and standard deviation 1.", expected)
    squeezed = {
        field: [{"kind": "min_max", "range": [-1.0, 1.0]} if step["kind"] == "z_score" else step for step in steps]
        for field, steps in scaled_patch(record).items()
    }
    yield Change(squeezed, "min_max scales every input to the range from -1 to 1.", expected)


def _label_noise(record: Record) -> Iterator[Change]:
    yield Change(
        regularized_patch(record),
        "Correctly labelled samples are learnt first; regularization keeps the network from memorising the others.",
        ("val_loss", "down", "a little below its minimum in this run, without a later rise", "Arpit et al. 2017"),
    )
    kind = record.spec.loss.kind if record.spec.loss else ""
    if kind == "cross_entropy":
        yield Change(
            {"regularize": {"label_smoothing": 0.1}},
            "Label smoothing lowers the loss of contradicting a wrong label.",
            ("val_accuracy", "up", "a little", "Lukasik et al. 2020"),
        )
    yield Change(
        early_stop_patch(record),
        "Correctly labelled samples are learnt first: stop before the others are memorised.",
        ("seconds", "down", "the epochs behind the best one; the model stays the same", "Arpit et al. 2017"),
    )


def _class_imbalance(record: Record) -> Iterator[Change]:
    expected = ("val_recall", "up", "most for the small classes; the accuracy may fall a little", "He and Garcia 2009")
    yield Change(
        {"balance": "class_weights", "train": {"monitor": "val_recall"}},
        "Every class gets the same total weight in the loss.",
        expected,
    )
    yield Change({"balance": "oversample"}, "Samples of small classes are repeated in training.", expected)
    if record.spec.loss is not None and record.spec.loss.kind == "cross_entropy":
        patch = {"loss": replacing(record.spec.loss.model_dump(), {"kind": "focal"})}
        yield Change(
            patch, "The focal loss gives less weight to easy samples, most of which are of the large class.", expected
        )


def _distribution_mismatch(record: Record) -> Iterator[Change]:
    expected = ("test_loss", "down", "to the validation loss, within the noise", "this record")
    if record.facts.splits and record.spec.split.use_predefined:
        patch: Patch = {"split": {"use_predefined": False}}
        yield Change(
            patch, "A random split makes all parts alike and shows whether the predefined parts differ.", expected
        )
    if record.resolved and record.resolved.sample.form == "image" and not record.spec.augment:
        patch = {"augment": [{"kind": "brightness"}, {"kind": "contrast"}, {"kind": "translate"}]}
        yield Change(patch, "Augmentation gives training more of the variation that test may have.", expected)
    yield Change(
        {"split": {"seed": (record.spec.split.seed + 1) % 2**31}},
        "Another random split shows whether the difference was chance.",
        expected,
    )


def _leakage(record: Record) -> Iterator[Change]:
    metric = "val_accuracy" if record.classification else "val_r2"
    expected = (metric, "down", "to its true value, without the leaked information", "this record")
    names = target_leaking_features(record)
    if names and record.facts.kind == "table":
        dataset = record.spec.dataset.model_dump(mode="json", exclude_defaults=True)
        without = {"dataset": {**dataset, "ignore": [*record.spec.dataset.ignore, *names]}}
        yield Change(
            without, "Without the columns that reveal the target, the model must learn from the others.", expected
        )
    if not names or record.findings("leakage", "near_leakage", "duplicates"):
        why = "Duplicates are then in one part only: no validation or test sample is also in training."
        yield Change({"split": {"duplicates": "drop"}}, why, expected)


def _validation_too_small(record: Record) -> Iterator[Change]:
    expected = (
        "val_accuracy_se",
        "down",
        "with the square root of the size: four times the samples halve it",
        "binomial",
    )
    shipped: Patch = {"use_predefined": False} if (record.facts.splits or {}).get("validation") else {}
    for train, validation in ((6.0, 2.0), (5.0, 3.0)):
        share = {"train": train, "validation": validation, "test": 2.0 if record.spec.split.test else 0.0}
        yield Change(
            {"split": {**shipped, **share}},
            f"A validation part of {validation / 10:.0%} or more of the samples.",
            expected,
        )


def _stopped_too_early(record: Record) -> Iterator[Change]:
    expected = ("val_loss", "down", "by about the gain of the last quarter of this run", "this record")
    yield Change(
        longer_patch(record, 2), "Twice the epochs: the validation loss was still falling at the end.", expected
    )
    yield Change(
        {**longer_patch(record, 2), **early_stop_patch(record)},
        "Twice the epochs, stopped early when the validation loss stops falling.",
        expected,
    )
    yield Change(rate_patch(record, 3.0), "Three times the learning rate, in the same number of epochs.", expected)


def _wrong_loss(record: Record) -> Iterator[Change]:
    old = record.spec.loss.model_dump() if record.spec.loss else {}
    if record.classification:
        expected = ("val_accuracy", "up", "sooner", "Golik, Doetsch and Ney 2013")
        yield Change(
            {"loss": replacing(old, {"kind": "cross_entropy"})},
            "The gradient of cross entropy stays large where a prediction is wrong.",
            expected,
        )
        return
    expected = ("val_mae", "down", "clearly; the squared error may rise", "Huber 1964")
    if old.get("kind") == "mse":
        yield Change(
            {"loss": replacing(old, {"kind": "huber"})},
            "The Huber loss counts large residuals linearly, not squared.",
            expected,
        )
        yield Change(
            {"loss": replacing(old, {"kind": "mae"})},
            "The mean absolute error predicts the median, which outliers do not move.",
            expected,
        )
    if record.facts.kind == "table":
        patch: Patch = {
            "task": "classification",
            "target_scaling": "auto",
            "loss": {**dict.fromkeys(old), "kind": "cross_entropy"},
        }
        yield Change(
            patch, "Predicts the values as classes.", ("val_accuracy", "up", "becomes available", "this record")
        )


RECOMMENDERS: dict[Code, Callable[[Record], Iterator[Change]]] = {
    "overfitting": _overfitting,
    "underfitting_model_bias": _underfitting_model_bias,
    "optimization_failure": _optimization_failure,
    "learning_rate_too_high": _learning_rate_too_high,
    "learning_rate_too_low": _learning_rate_too_low,
    "vanishing_gradients": _vanishing_gradients,
    "exploding_gradients": _exploding_gradients,
    "dead_units": _dead_units,
    "symmetric_initialization": _symmetric_initialization,
    "saturated_activations": _saturated_activations,
    "unscaled_inputs": _unscaled_inputs,
    "label_noise": _label_noise,
    "class_imbalance": _class_imbalance,
    "distribution_mismatch": _distribution_mismatch,
    "leakage": _leakage,
    "validation_too_small": _validation_too_small,
    "stopped_too_early": _stopped_too_early,
    "wrong_loss": _wrong_loss,
}
