"""Measure a network on a part: loss and metrics, and the full evaluation of the HTTP contract."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.fit.encoding.prepare import Part
from trainkit.fit.encoding.targets import TargetScaler
from trainkit.fit.evaluation.metrics import (
    calibration,
    classification_metrics,
    confusion_matrix,
    misclassified,
    per_class,
    probabilities,
    regression_metrics,
    roc_auc,
)

BATCH_VALUES = 1 << 22
"""Input values in one inference batch: large enough to fill a core's vector units, small enough to stay in cache."""
LARGEST_BATCH = 1024
UNCALIBRATED = frozenset({"hinge", "mse"})
"""Losses whose outputs order the classes and are no probabilities."""

Forward = Callable[[Tensor, Tensor | None], Tensor]
"""(x, side_input) -> raw outputs (B, K), preprocessing not included."""


def batch_rows(part_shape: tuple[int, ...]) -> int:
    """Rows of an inference batch for samples of this shape."""
    return max(16, min(LARGEST_BATCH, BATCH_VALUES // max(1, math.prod(part_shape))))


@torch.inference_mode()
def outputs_of(forward: Forward, part: Part, preprocess: Callable[[Tensor], Tensor]) -> Tensor:
    """Raw float32 outputs (n, K) of a whole part, on its device. The network must be in eval mode."""
    size = batch_rows(tuple(part.x.shape[1:]))
    out = []
    for start in range(0, len(part), size):
        rows = torch.arange(start, min(start + size, len(part)), device=part.x.device)
        x, side_input = part.take(rows)
        out.append(forward(preprocess(x) if part.pending else x, side_input).float())
    return torch.cat(out)


@torch.inference_mode()
def measure(
    z: Tensor,
    part: Part,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    class_weights: Tensor | None = None,
    scaler: TargetScaler | None = None,
    area: bool = True,
    kind: str = "cross_entropy",
    errors: bool = False,
    lowest_loss: LowestLoss | None = None,
) -> dict[str, float]:
    """`loss` as in training, sum(w*l)/sum(w), and the metrics of the task; regression metrics in the user's units.

    `kind` of the loss says how outputs become the probabilities that `roc_auc` ranks samples by.
    `errors`: also the standard errors `loss_se`, and `accuracy_se`, `recall_se` or `mse_se`, `mae_se`, `r2_se`.
    `lowest_loss`: also `loss_rise_se`, of the difference between this loss and the lowest one that it has observed.
    """
    losses = loss(z, part.targets).double() if z.device.type != "mps" else loss(z, part.targets)
    weights = None
    if class_weights is not None:
        weights = class_weights[part.targets].to(losses.dtype)
        value = float((losses * weights).sum() / weights.sum())
    else:
        value = float(losses.mean())
    spread = {"loss_se": standard_error(losses, value, weights)} if errors else {}
    if lowest_loss is not None:
        spread["loss_rise_se"] = lowest_loss.observe(losses, value, weights)
    outputs = z.cpu().numpy()
    if scaler is not None:
        return {"loss": value, **spread, **regression_metrics(part.truth, scaler.invert(outputs), errors=errors)}
    metrics = {"loss": value, **spread, **classification_metrics(part.truth, outputs, area=False, errors=errors)}
    if area:
        # One class against the rest compares samples: raw outputs are only comparable within one.
        finite = bool(np.isfinite(outputs).all())
        metrics["roc_auc"] = roc_auc(part.truth, probabilities(outputs, kind)) if finite else math.nan
    return metrics


class LowestLoss:
    """The samples' losses of the evaluation with the lowest mean, to compare later ones of the same samples with.

    Hard samples are hard in both, so that their difference is known far better than either loss.
    """

    def __init__(self) -> None:
        self.losses: Tensor | None = None
        self.value = math.inf

    def observe(self, losses: Tensor, value: float, weights: Tensor | None) -> float:
        """Standard error of mean(losses) - lowest mean so far, by pairs (n,); 0 where it is itself the least."""
        if self.losses is None or value < self.value:
            if math.isfinite(value):
                self.losses, self.value = losses.clone(), value
            return 0.0 if math.isfinite(value) else math.nan
        return standard_error(losses - self.losses, value - self.value, weights)

    def state_dict(self) -> dict[str, Any]:
        """Tensor and number for the checkpoint."""
        return {"losses": self.losses, "value": self.value if self.losses is not None else None}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore `state_dict`."""
        if state["losses"] is not None:
            self.losses, self.value = state["losses"].to(device), state["value"]


def standard_error(losses: Tensor, mean: float, weights: Tensor | None) -> float:
    """s/sqrt(n) with s^2 = sum (l - mean)^2 / (n-1); weighted: of the ratio sum(w*l)/sum(w), linearised (Cochran 6.4)."""
    n = len(losses)
    deviations = losses - mean if weights is None else weights * (losses - mean)
    total = float(n) if weights is None else float(weights.sum())
    return math.sqrt(float((deviations**2).sum()) * n / max(n - 1, 1)) / total


def evaluation(
    split: str,
    metrics: dict[str, float],
    truth: NDArray[Any],
    outputs: NDArray[Any],
    classes: tuple[str, ...] | None,
    *,
    index: NDArray[np.int64] | None = None,
    shares: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Return `{split, samples, metrics, per_class, confusion_matrix, classes, misclassified, calibration}`.

    What follows `metrics` is empty for regression.

    Args:
        split: Name of the part.
        metrics: As `measure` gives them.
        truth: (n,) class indices, or (n, k) numbers.
        outputs: (n, K) raw outputs, or class probabilities.
        classes: Their names; None for numbers.
        index: (n,) the samples' positions in the dataset; without it nothing is listed in `misclassified`.
        shares: (n, K) class probabilities; without them `calibration` is None.
    """
    result: dict[str, Any] = {"split": split, "samples": len(truth), "metrics": metrics}
    if classes is None:
        nothing: dict[str, Any] = {"per_class": [], "confusion_matrix": [], "classes": []}
        return {**result, **nothing, "misclassified": [], "calibration": None}
    confusion = confusion_matrix(truth, outputs.argmax(1), len(classes))
    values = per_class(confusion)
    rows = [
        {"class": name, **{metric: float(values[metric][k]) for metric in ("precision", "recall", "f1")}}
        | {"support": int(values["support"][k])}
        for k, name in enumerate(classes)
    ]
    return {
        **result,
        "per_class": rows,
        "confusion_matrix": confusion.tolist(),
        "classes": list(classes),
        "misclassified": [] if index is None else misclassified(truth, outputs, index),
        "calibration": None if shares is None else calibration(truth, shares),
    }


def calibrated_shares(outputs: NDArray[Any], loss: str) -> NDArray[np.float64] | None:
    """Return class probabilities of raw outputs; None for a loss that trains none, such as hinge."""
    return None if loss in UNCALIBRATED else probabilities(outputs, loss)


def training_metrics(outputs: Tensor, rows: Tensor, part: Part, scaler: TargetScaler | None) -> dict[str, float]:
    """What the epoch's own forward passes tell, dropout and augmentation included: accuracy, or mse and mae.

    `outputs`: predicted classes (n,) or scaled values (n, k) of the training rows visited so far.
    """
    if scaler is None:
        return {"accuracy": int((outputs == part.targets[rows]).sum()) / len(rows)} if len(rows) else {}
    predicted = scaler.invert(outputs.cpu().numpy())
    metrics = regression_metrics(part.truth[rows.cpu().numpy()], predicted)
    return {name: metrics[name] for name in ("mse", "mae")}
