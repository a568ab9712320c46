"""Size of the steps of a run: relative steps, rises and falls of the loss, values that are not finite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trainkit.diagnose.record import Floats, Record, Series
from trainkit.diagnose.sanity_checks import first_batch

LARGE_STEP = 0.1
"""||update|| / ||weights||: ten such steps can replace the weights. About 1e-3 is usual (Karpathy, CS231n)."""


def relative_steps(record: Record) -> Series | None:
    """Return ||update|| / ||weights|| at each log step: eta ||g|| / ||w||; adaptive methods eta sqrt(P) / ||w||.

    An upper bound for adaptive methods; heavy-ball forms take steps 1 / (1 - b) times as long. None without logged norms.
    """
    rates, weights, gradients = record.get("train_lr"), record.get("train_weight_norm"), record.get("train_grad_norm")
    optimizer = record.spec.optimizer
    step, at = np.intersect1d(rates.step, weights.step, return_indices=True)[:2]
    if not len(step) or optimizer.step_scale == "unknown":
        return None
    lr, norm = rates.value[at], _at(weights, step)
    if optimizer.step_scale == "rate":
        if record.parameters is None:
            return None
        lengths = lr * math.sqrt(record.parameters)
    else:
        shared = np.isin(step, gradients.step)
        step, lr, norm = step[shared], lr[shared], norm[shared]
        g = _at(gradients, step)
        if record.spec.train.clip_norm is not None:
            g = np.minimum(g, record.spec.train.clip_norm)
        lengths = lr * g * optimizer.step_gain
    some = norm > 0
    return Series(step[some], _epochs(weights, step[some]), lengths[some] / norm[some]) if some.any() else None


def sharpness(record: Record) -> Series:
    """Return ||g|| ||w|| / baseline at each log step: the effect of a relative change of the weights on the loss."""
    weights, gradients, scale = record.get("train_weight_norm"), record.get("train_grad_norm"), record.scale
    step = np.intersect1d(weights.step, gradients.step)
    values = _at(weights, step) * _at(gradients, step) / (scale or math.nan)
    return Series(step, _epochs(weights, step), values).finite


def rate_evidence(record: Record) -> dict[str, Any]:
    evidence = {"lr": record.spec.optimizer.lr, "baseline_loss": record.baseline, "skill": record.final_skill}
    batch = first_batch(record)
    return evidence if batch is None else {**evidence, "first_batch": batch}


def unlearnt_batch_bonus(record: Record) -> float:
    """Return the confidence that is added where the sanity check could not memorise a single batch either."""
    batch = first_batch(record)
    return 0.1 if batch is not None and batch["learnt"] is False else 0.0


def not_finite(record: Record) -> Series | None:
    for name in ("train_batch_loss", "train_loss", "val_loss"):
        series = record.series.get(name)
        if series is not None and (bad := ~np.isfinite(series.value)).any():
            return Series(series.step[bad], series.epoch[bad], series.value[bad])
    return None


def default_rate(record: Record) -> float:
    return float(type(record.spec.optimizer)().lr)


def loss_noise(record: Record) -> float:
    """Return two standard errors of the difference of two means of n losses whose deviation is about the baseline."""
    return 2 * math.sqrt(2 / max(1, record.parts[0])) * (record.scale or 0.0)


def rises_and_falls(loss: Series, noise: float) -> tuple[float, float, int]:
    """Return (sum of rises beyond the noise, sum of falls, epoch of the first such rise) between evaluations."""
    change = np.diff(loss.value)
    up = np.flatnonzero(change > noise)
    since = int(loss.epoch[up[0] + 1]) if len(up) else 0
    return float(change[up].sum()), float(-change[change < 0].sum()), since


def _at(series: Series, steps: Any) -> Floats:
    """Return the values at these steps, all of which the series has."""
    known, first = np.unique(series.step, return_index=True)
    return series.value[first[np.searchsorted(known, steps)]] if len(known) else np.empty(0)


def _epochs(series: Series, steps: Any) -> Any:
    known, first = np.unique(series.step, return_index=True)
    return series.epoch[first[np.searchsorted(known, steps)]] if len(known) else np.empty(0, np.int64)
