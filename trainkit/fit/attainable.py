"""What good, quick models reach on a job's dataset and split: strong references, chosen inside the training part.

Every reference is judged by cross-validation inside the training part, and the best of them is then measured on the
validation part, which had no say: the figure is not the best of many on a small sample. The test part is not read.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.data import Dataset, TableInputs
from trainkit.data.splits import fold_of_each
from trainkit.diagnose.attainable import Attainable, attainable_key, r2_interval
from trainkit.diagnose.estimates import wilson_interval
from trainkit.fit.control import Control
from trainkit.fit.evaluation.metrics import classification_metrics
from trainkit.fit.references import models
from trainkit.fit.references.models import Answer, Clock, OutOfTimeError
from trainkit.fit.references.networks import fit_network
from trainkit.fit.references.samples import ReferenceSamples, projected, read_samples
from trainkit.spec import JobSpec, ResolvedSpec

LEAST_SECONDS, MOST_SECONDS = 2.0, 20.0
FEW, MANY = 500, 3000
"""Samples of the training part: below the first 5 folds judge a reference, below the second 3, above it one of five."""
IMPORT_SECONDS = 3.0
"""What boosting needs left where scikit-learn is yet to be imported."""
BOOSTING_SECONDS = 1.0
NETWORK_SECONDS = 4.0
PENALTIES = {"weak penalty": 0.1, "penalty": 1.0, "strong penalty": 30.0}
Fit = Callable[[Tensor, NDArray[Any], int | None, Clock], Answer]


def reference_seconds(trained: float) -> float:
    """How long references may take after a run that trained for so many seconds: half of that, between 2 and 20 s."""
    return min(MOST_SECONDS, max(LEAST_SECONDS, trained / 2))


@dataclass
class _Candidate:
    """A reference: how it is fitted, what it needs, and how it did."""

    name: str
    fit: Fit | None
    """None: a network, which `fit_network` trains."""
    least_seconds: float = 0.0
    state: str = "left_out"
    reason: str | None = None
    seconds: float = 0.0
    errors: NDArray[np.float64] | None = None
    """(n,) of the training samples out of their folds: 1 where the class is wrong, squared error / variance; else NaN."""
    row: dict[str, Any] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        judged = None if self.errors is None else float(1 - np.nanmean(self.errors))
        answer = {"name": self.name, "state": self.state, **self.row, "cross_validation": judged}
        return {**answer, "seconds": round(self.seconds, 3), "reason": self.reason}


def attainable(
    resolved: ResolvedSpec,
    data: Dataset,
    *,
    seconds: float = MOST_SECONDS,
    threads: int = 1,
    control: Control | None = None,
) -> Attainable | None:
    """Fit the references of a resolved spec's dataset and split; None where there is nothing to measure them on.

    That is: no validation part, fewer than 3 samples of numbers in it, numbers that are all the same, or data that take
    longer to read than there is time. References that
    do not end within `seconds`, or that fail, are rows of `references` and nothing more. A new command of `control` ends
    the measurement at once. The same spec, data and threads give the same figures where all of them ended in time.
    """
    begun = time.monotonic()
    first = control.command() if control is not None else None

    def interrupted() -> bool:
        return control is not None and control.command() != first

    clock = Clock(begun + seconds, interrupted)
    spec, before = resolved.spec, torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with torch.random.fork_rng(devices=[]):
            samples = read_samples(spec, data, clock.check)
            if samples is None or _unmeasurable(samples):
                return None
            candidates = _candidates(samples, threads)
            folds = _folds(samples)
            views = _views(samples, folds, clock)
            for number, candidate in enumerate(candidates):
                _judge(candidate, spec, samples, folds, views, clock, threads, last=number == len(candidates) - 1)
    except OutOfTimeError:  # while the data were read
        return None
    finally:
        torch.set_num_threads(before)
    best = _best(candidates)
    if best is None:
        return None
    rows = [candidate.as_row() for candidate in candidates]
    return Attainable(
        metric="r2" if samples.classes is None else "accuracy",
        value=best.row["value"],
        low=best.row["low"],
        high=best.row["high"],
        reference=best.name,
        references=tuple(rows),
        samples=len(samples.held_y),
        train_samples=len(samples.y),
        train_share=samples.train_share,
        seconds=round(time.monotonic() - begun, 3),
        limit_seconds=seconds,
        complete=all(candidate.state in ("fitted", "failed") for candidate in candidates),
        key=attainable_key(spec),
    )


def attainable_event(
    resolved: ResolvedSpec, data: Dataset, *, trained: float, threads: int = 1, control: Control | None = None
) -> dict[str, Any] | None:
    """`attainable` as an event of a run that trained for so many seconds; None for an ensemble, which trains nothing.

    Whatever goes wrong in it is no error of the run: None.
    """
    if resolved.spec.model.kind == "ensemble":
        return None
    try:
        found = attainable(resolved, data, seconds=reference_seconds(trained), threads=threads, control=control)
    except Exception:
        return None
    return None if found is None else {"type": "attainable", **found.as_dict()}


def _unmeasurable(samples: ReferenceSamples) -> bool:
    if samples.classes is not None:
        return False
    return len(samples.held_y) < 3 or not (np.ptp(samples.held_y, axis=0) > 0).all() or len(samples.y) < 3


def _candidates(samples: ReferenceSamples, threads: int) -> list[_Candidate]:
    """From the simplest to the slowest: of two that are judged alike the simpler one counts."""
    found = [_Candidate("constant", models.fit_constant)]
    if samples.lags is not None:
        found.append(_Candidate("last value", models.last_value(samples.lags)))
        found.append(_Candidate("seasonal naive", models.seasonal_naive(samples.lags)))
    if samples.classes is not None:
        for name, penalty in PENALTIES.items():
            found.append(_Candidate(f"logistic regression, {name}", models.logistic(penalty)))
    else:
        found.append(_Candidate("ridge regression", models.fit_ridge))
    for name, width in (("kernel", 1.0), ("wide kernel", 5.0)):
        found.append(_Candidate(f"kernel ridge regression, {name}", models.kernel(width, samples.seed)))
    if samples.form != "image" and (samples.classes is not None or samples.y.shape[1] <= models.MOST_BOOSTED_TARGETS):
        needed = BOOSTING_SECONDS if "sklearn.ensemble" in sys.modules else IMPORT_SECONDS
        found.append(_Candidate("gradient boosting", models.boosting(samples.seed, threads), needed))
    if samples.form != "vector" and not isinstance(samples.data.inputs, TableInputs):
        found.append(_Candidate("GRU" if samples.form == "sequence" else "small CNN", None, NETWORK_SECONDS))
    return found


def _folds(samples: ReferenceSamples) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(fitted rows, judged rows) of the training part. Windows are judged by their last fifth: the past tells the future."""
    n = len(samples.y)
    rows = np.arange(n)
    if n < 5:
        return []
    if samples.lags is not None:
        return [(rows[: -(n // 5)], rows[-(n // 5) :])]
    count = 3 if FEW <= n < MANY else 5
    fold = fold_of_each(n, None if samples.classes is None else samples.y, count, samples.seed % 2**32)
    return [(rows[fold != k], rows[fold == k]) for k in range(count if n < MANY else 1)]


def _views(
    samples: ReferenceSamples, folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], clock: Clock
) -> list[tuple[Tensor, Tensor]]:
    """(x to fit, x to judge) of each fold, and of the training and validation part; wide ones projected by the former."""
    found = []
    for fitted, judged in folds:
        clock.check()
        x, judged_x = samples.x[torch.from_numpy(fitted)], samples.x[torch.from_numpy(judged)]
        found.append((x, judged_x) if samples.lags is not None else projected(x, judged_x, samples.seed))
    clock.check()
    whole = (samples.x, samples.held_x)
    return [*found, whole if samples.lags is not None else projected(*whole, samples.seed)]


def _judge(
    candidate: _Candidate,
    spec: JobSpec,
    samples: ReferenceSamples,
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    views: Sequence[tuple[Tensor, Tensor]],
    clock: Clock,
    threads: int,
    *,
    last: bool,
) -> None:
    """Cross-validate and measure one reference; its state says how that ended."""
    begun = time.monotonic()
    if clock.left < candidate.least_seconds:
        return
    share = Clock(clock.deadline if last else begun + clock.left / 2, clock.interrupted)
    try:
        if candidate.fit is None:
            _judge_network(candidate, spec, samples, folds, share, threads)
        else:
            _judge_model(candidate, candidate.fit, samples, folds, views, share)
    except OutOfTimeError:
        candidate.state = "stopped"
    except Exception as error:
        candidate.state, candidate.reason = "failed", f"{type(error).__name__}: {error}"[:300]
    candidate.seconds = time.monotonic() - begun


def _judge_model(
    candidate: _Candidate,
    fit: Fit,
    samples: ReferenceSamples,
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    views: Sequence[tuple[Tensor, Tensor]],
    clock: Clock,
) -> None:
    errors = np.full(len(samples.y), np.nan)
    begun = time.monotonic()
    for number, (fitted, judged) in enumerate(folds):
        clock.check()
        x, judged_x = views[number]
        answer = fit(x, samples.y[fitted], samples.classes, clock)
        errors[judged] = _errors(samples, answer(judged_x), judged)
        a_fold = (time.monotonic() - begun) / (number + 1)
        if a_fold * 1.2 * (len(folds) - number) > clock.left and number + 1 < len(
            folds
        ):  # the folds to come, and the fit to all
            break
    x, held_x = views[-1]
    answer = fit(x, samples.y, samples.classes, clock)
    candidate.row = _measured(samples, answer(held_x))
    candidate.errors = errors if folds else None
    candidate.state = "fitted"


def _judge_network(
    candidate: _Candidate,
    spec: JobSpec,
    samples: ReferenceSamples,
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    clock: Clock,
    threads: int,
) -> None:
    """One fold: what judges the network is also what stops its training."""
    if not folds:
        candidate.reason = "too few samples"
        return
    fitted, judged = folds[0]
    inner, held, ended = fit_network(spec, samples, fitted, judged, clock, threads)
    candidate.errors = np.full(len(samples.y), np.nan)
    candidate.errors[judged] = _errors(samples, inner, judged)
    candidate.row = _measured(samples, held)
    candidate.state = "fitted" if ended else "stopped"


def _errors(samples: ReferenceSamples, answers: Tensor, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(m,) 1 for a wrong class; squared errors in variances of the training part, the mean over targets."""
    if samples.classes is not None:
        wrong: NDArray[np.float64] = (answers.numpy().argmax(1) != samples.y[rows]).astype(np.float64)
        return wrong
    variance = np.maximum(samples.y.var(0), 1e-300)
    squares: NDArray[np.float64] = ((answers.numpy() - samples.y[rows]) ** 2 / variance).mean(1)
    return squares


def _measured(samples: ReferenceSamples, answers: Tensor) -> dict[str, Any]:
    """{value, low, high} of the validation part, and the mean recall of classes. Raises ValueError for NaN."""
    found = answers.numpy()
    if not np.isfinite(found).all():
        raise ValueError("its answers are not finite")
    if samples.classes is not None:
        metrics = classification_metrics(samples.held_y, found, area=False)
        low, high = wilson_interval(metrics["accuracy"], len(found))
        return {"value": metrics["accuracy"], "low": low, "high": high, "recall": metrics["recall"]}
    lag = 0
    if samples.lags is not None:  # windows overlap, and forecasts some steps ahead err together
        lag = max(samples.lags.horizon, math.ceil(len(found) ** (1 / 3)))
    interval = r2_interval(samples.held_y.astype(np.float64), found, lag)
    assert interval is not None  # `_unmeasurable` has seen to it
    return dict(zip(("value", "low", "high"), interval, strict=True))


def _best(candidates: Sequence[_Candidate]) -> _Candidate | None:
    """The least error in cross-validation, each against the best before it on the samples that both were judged on."""
    measured = [candidate for candidate in candidates if candidate.row]
    if not measured:
        return None
    best = measured[0]
    for candidate in measured[1:]:
        if best.errors is None or candidate.errors is None:
            continue
        both = ~(np.isnan(best.errors) | np.isnan(candidate.errors))
        if both.any() and candidate.errors[both].mean() < best.errors[both].mean():
            best = candidate
    return best
