"""What a spec may not ask of its loss, monitors and penalties, and which sanity checks make sense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainkit.spec.checks.context import CheckContext
from trainkit.spec.job import JobSpec
from trainkit.spec.losses import CLASSIFICATION_LOSSES, REGRESSION_LOSSES
from trainkit.spec.metrics import CLASSIFICATION_METRICS, REGRESSION_METRICS, metric_problem, mode_problem
from trainkit.spec.models import (
    SklearnModel,
    smaller_model,
)
from trainkit.spec.problems import Problem
from trainkit.spec.training import SanityCheck

TRAIN_METRICS = ("loss", "accuracy", "mse", "mae")
WEAK_PENALTY_SAMPLES = 100
"""Samples from which on a penalty below 1 is far weaker than where libraries do not divide it by their number."""


def loss_problems(context: CheckContext) -> Iterator[Problem]:
    """Yield what is wrong with the loss and the scale of its targets."""
    spec = context.spec
    fitting = CLASSIFICATION_LOSSES if context.classification else REGRESSION_LOSSES
    kind = spec.loss.kind if spec.loss is not None else None
    if kind is not None and kind not in fitting:
        yield Problem(
            "/loss/kind", "wrong_loss", f"{kind} does not fit {context.task}", f"Use one of {', '.join(fitting)}."
        )
    smoothing = spec.regularize.label_smoothing
    takes_smoothing = kind in (None, "cross_entropy", "focal") and spec.model.kind != "linear_svm"
    if smoothing and not (context.classification and takes_smoothing):
        yield Problem(
            "/regularize/label_smoothing",
            "needs_cross_entropy",
            "label smoothing works on class probabilities",
            "Use cross_entropy or focal, or remove it.",
        )
    if context.classification and spec.target_scaling in ("z_score", "min_max"):
        yield Problem("/target_scaling", "needs_numbers", "classes cannot be scaled", "Remove it.")


def monitor_problems(context: CheckContext) -> Iterator[Problem]:
    """Yield what is wrong with the metrics that rules, the schedule and the best model watch."""
    spec = context.spec
    watched: list[tuple[str, Any]] = [(f"/early_stop/{i}", rule) for i, rule in enumerate(spec.early_stop)]
    watched.append(("/schedule", spec.schedule))
    for where, rule in watched:
        monitor = getattr(rule, "monitor", None)
        if monitor is not None and (problem := _monitor_problem(context, where, monitor, rule.mode)):
            yield problem
        if rule.kind in ("gap", "no_progress") and not context.has_validation:
            yield _no_validation(where, f"the {rule.kind} rule compares with validation data")
    monitor = spec.train.monitor
    if monitor is not None and (problem := _monitor_problem(context, "/train", monitor, "auto")):
        yield problem


def _monitor_problem(context: CheckContext, where: str, monitor: str, mode: str) -> Problem | None:
    fitting = CLASSIFICATION_METRICS if context.classification else REGRESSION_METRICS
    choices = [f"val_{name}" for name in fitting] + [f"train_{name}" for name in fitting if name in TRAIN_METRICS]
    problem = metric_problem(where, monitor, choices)
    if problem is not None:
        return problem
    if monitor not in choices:
        message, hint = f"{monitor} is not measured in {context.task}", f"Choices: {', '.join(choices)}."
        return Problem(f"{where}/monitor", "metric_not_measured", message, hint)
    if monitor.startswith("val_") and not context.has_validation:
        return _no_validation(f"{where}/monitor", f"{monitor} needs validation data, and the split has none")
    return mode_problem(where, monitor, mode)


def _no_validation(where: str, message: str) -> Problem:
    return Problem(
        where, "no_validation", message, "Give `split.validation` a share, as in 8:1:1, or monitor train_loss."
    )


def why_sanity_check_skipped(spec: JobSpec, check: SanityCheck) -> str | None:
    """Return why the sanity check makes no sense for such a job; None where it does."""
    if spec.model.kind == "ensemble" or isinstance(spec.model, SklearnModel):
        return f"{spec.model.kind} is not trained step by step"
    if check == "first_batch":
        return None
    if spec.start_from is not None or getattr(getattr(spec.model, "init", None), "kind", None) == "pretrained":
        return "a model that begins with trained weights has no smaller one to be compared with"
    if spec.adapt is not None:
        return "domain adaptation gives up training loss on purpose"
    if smaller_model(spec.model) is None:
        return f"there is no smaller model than this {spec.model.kind}"
    return None


def penalty_warnings(spec: JobSpec, training_samples: int) -> Iterator[Problem]:
    """Warnings of penalties that do less than their number says elsewhere.

    A spec that names its `scale` is not warned about it, nor is an l1 or l2 of 1 or more: no library uses such a number
    undivided.
    """
    regularize, n = spec.regularize, training_samples
    if regularize.scale == "mean" and "scale" not in regularize.model_fields_set and n >= WEAK_PENALTY_SAMPLES:
        if 0 < regularize.l2 < 1:
            yield Problem(
                "/regularize/l2",
                "weak_penalty",
                f"l2 is divided by the {n} training samples: the decay is {regularize.l2 / n:.3g}, {n} times weaker than "
                f"weight_decay={regularize.l2:g} in PyTorch and {2 * n} times weaker than L2({regularize.l2:g}) in Keras",
                f'Say "scale": "sum" for PyTorch\'s meaning (Keras\'s is l2: {2 * regularize.l2:g} then), or "scale": '
                '"mean" to keep it and this warning away.',
            )
        if 0 < regularize.l1 < 1:
            yield Problem(
                "/regularize/l1",
                "weak_penalty",
                f"l1 is divided by the {n} training samples: it is {n} times weaker than L1({regularize.l1:g}) in Keras",
                'Say "scale": "sum" for Keras\'s meaning, or "scale": "mean" to keep it and this warning away.',
            )
    if not regularize.l1:
        return
    adaptive, update = spec.optimizer.step_scale != "gradient", regularize.l1_update
    if update == "subgradient" or (update == "auto" and adaptive):
        yield Problem(
            "/regularize/l1",
            "l1_without_zeros",
            f"with {spec.optimizer.kind} l1 is part of the gradient: weights come near 0, and none becomes exactly 0",
            f'For exact zeros {"use sgd, or " if adaptive else ""}say "l1_update": "proximal".',
        )
    if update == "proximal" and adaptive:
        yield Problem(
            "/regularize/l1_update",
            "l1_decoupled",
            f"{spec.optimizer.kind} gives each weight a rate of its own and the soft threshold does not: the zeros are "
            "exact, and which weights they are differs from the minimum of the loss with l1",
            "Use sgd where the support matters, as in a lasso.",
        )
