"""Jobs that scikit-learn fits: cheap models on the same split and inputs, for a network to be measured against.

The fit has no steps to look into. It is logged as one epoch of one step, and leaves an evaluation but no model: trees
and kernel machines have no file form here that could be loaded without running code (pickle).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit import losses, plots
from trainkit.fit.control import Control
from trainkit.fit.device import on_one_core
from trainkit.fit.encoding.prepare import Part, Prepared
from trainkit.fit.evaluation.evaluate import batch_rows, evaluation, measure
from trainkit.fit.events import Events
from trainkit.fit.loop.result import FitResult, Outcome
from trainkit.spec import JobSpec
from trainkit.spec.checks.training import TRAIN_METRICS
from trainkit.spec.models import GradientBoosting, RbfSvm, SklearnModel

Floats = NDArray[np.float64]
T = TypeVar("T")
LOOK_SECONDS = 0.1
"""Between two questions for wishes while the fit runs; each is a sign of life for the worker's watchdog."""
MANY_SAMPLES = 10_000
"""scikit-learn's own bound, above which its boosting stops early."""
ENDS: dict[str, Outcome] = {"cancel": "cancelled", "pause": "paused", "hand_back": "handed_back"}
UNSEEN = float(np.log(1e-12))
"""Log-odds of a class that the training part has no sample of, against the likeliest of the others."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Estimators that have been fitted: one that tells classes apart, or one for each number to predict."""

    estimators: list[Any]
    present: NDArray[np.int64] | None
    """The classes of the training part, ascending; None for numbers."""
    outputs: int

    def scores(self, x: Floats) -> Floats:
        """(n, K) raw outputs: log-odds or margins of the classes, or values on the scale that was fitted."""
        if self.present is None:
            return np.column_stack([one.predict(x) for one in self.estimators])
        margins = np.asarray(self.estimators[0].decision_function(x), np.float64)
        if margins.ndim == 1:  # two classes: half of the distance to either side
            margins = np.stack([-margins / 2, margins / 2], 1)
        scores = np.repeat(margins.max(1, keepdims=True) + UNSEEN, self.outputs, 1)
        scores[:, self.present] = margins
        return scores


def fit_sklearn_baseline(
    spec: JobSpec, prepared: Prepared, events: Events, control: Control | None, workdir: Path | None
) -> FitResult:
    """Fit on the training part, measure every part, say how it went. `result.model` is None.

    `cancel`, `pause` and `hand_back` are obeyed at once and leave nothing to go on from; `stop` once the fit has ended.
    Raises ValueError where scikit-learn is missing or cannot fit, and beyond `resources.max_seconds`.
    """
    assert isinstance(spec.model, SklearnModel)
    threads = 1 if spec.train.threads == "auto" else spec.train.threads
    chosen = on_one_core(threads=threads, libraries={"scikit-learn": _version()})
    events.emit("runtime", **chosen)
    events.phase("fitting")
    fitted, command = _obeying(lambda: _fit(spec, prepared, threads), control, spec.resources.max_seconds)
    if fitted is None:
        assert command is not None
        action = command["action"]
        reason = "client_stop" if action == "cancel" else "shutdown"
        return FitResult(None, [], None, reason, None, 0, chosen, ENDS[action], spec=spec)
    events.progress(epoch=1, epochs=1, step=1, steps=1, seconds=0, done=0, rate=0, force=True)
    stop_reason = "completed" if command is None else str(command.get("stop_reason", "client_stop"))
    report = _evaluate(spec, prepared, fitted, events)
    events.emit("evaluation", **report)
    events.log(f"{spec.model.kind} is a baseline: its evaluation is kept, and no model", "info")
    events.emit(
        "finished",
        stop_reason=stop_reason,
        best_epoch=1,
        stopped_epoch=1,
        artifact=None,
        test=report["parts"].get("test", {}),
        files=_plots(spec, report, workdir),
    )
    return FitResult(None, events.history, report, stop_reason, 1, 1, chosen, spec=spec)


def _version() -> str:
    try:
        import sklearn
    except ImportError:
        message = "this model is fitted by scikit-learn, which is not installed: pip install 'trainkit[train]'"
        raise ValueError(message) from None
    return str(sklearn.__version__)


def _obeying(
    work: Callable[[], T], control: Control | None, max_seconds: float | None
) -> tuple[T | None, dict[str, Any] | None]:
    """Do `work` in a thread: (its result, the command that came meanwhile); no result for a command that ends at once."""
    command: Any = control.command() if control is not None else None
    if command is not None and command["action"] in ENDS:
        return None, command
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    begun = time.monotonic()
    while not wait([done], timeout=LOOK_SECONDS).done:
        command = control.command() if control is not None else None
        if command is not None and command["action"] in ENDS:
            return None, command
        if max_seconds is not None and time.monotonic() - begun >= max_seconds:
            raise ValueError(
                f"the fit has taken more than `resources.max_seconds` ({max_seconds:g} s), and half a fit is none: "
                "give it more time, or fewer samples (`split.subsample`)"
            )
    return done.result(), command


def _fit(spec: JobSpec, prepared: Prepared, threads: int) -> Fitted:
    from threadpoolctl import threadpool_limits

    rows = prepared.draw
    x = features(prepared.train, prepared)[rows.numpy()]
    targets = prepared.train.targets[rows].numpy()
    with threadpool_limits(threads):  # of this thread
        if prepared.classes is None:
            columns = targets.astype(np.float64).T
            return Fitted([_regressor(spec, len(x)).fit(x, y) for y in columns], None, prepared.outputs)
        y = targets.astype(np.int64)
        present, counts = np.unique(y, return_counts=True)
        if len(present) < 2:
            only = prepared.classes[int(present[0])]
            raise ValueError(f'all samples of the training part are of class "{only}": take another split')
        weights = None if prepared.class_weights is None else prepared.class_weights.numpy()[y].astype(np.float64)
        return Fitted([_classifier(spec, counts).fit(x, y, **_weighted(spec, weights))], present, prepared.outputs)


def features(part: Part, prepared: Prepared) -> Floats:
    """(n, d) float64 of a part, preprocessed, each sample in one row."""
    size = batch_rows(tuple(part.x.shape[1:]))
    taken = []
    for start in range(0, len(part), size):
        x, _ = part.take(torch.arange(start, min(start + size, len(part))))
        taken.append((prepared.preprocessing(x) if part.pending else x).flatten(1).double())
    return torch.cat(taken).numpy()


def _classifier(spec: JobSpec, counts: NDArray[np.int64]) -> Any:
    if isinstance(spec.model, GradientBoosting):
        from sklearn.ensemble import HistGradientBoostingClassifier

        # What it holds back to stop early is drawn by class, and one sample cannot be in both halves.
        can_stop = int(counts.min()) > 1
        return HistGradientBoostingClassifier(**_boosting(spec, spec.model, int(counts.sum()), can_stop))
    from sklearn.svm import SVC

    assert isinstance(spec.model, RbfSvm)
    machine = SVC(C=spec.model.c, gamma=spec.model.gamma, break_ties=True)  # its answer is its largest score
    return _standardised(spec.model, machine)


def _regressor(spec: JobSpec, samples: int) -> Any:
    if isinstance(spec.model, GradientBoosting):
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(**_boosting(spec, spec.model, samples, True))
    from sklearn.svm import SVR

    assert isinstance(spec.model, RbfSvm)
    return _standardised(spec.model, SVR(C=spec.model.c, gamma=spec.model.gamma, epsilon=spec.model.epsilon))


def _boosting(spec: JobSpec, model: GradientBoosting, samples: int, can_stop: bool) -> dict[str, Any]:
    options = model.model_dump(exclude={"kind"})
    if model.early_stopping == "auto":
        options["early_stopping"] = samples > MANY_SAMPLES and can_stop
    return {**options, "random_state": spec.train.seed % 2**32}


def _standardised(model: RbfSvm, machine: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler() if model.standardise else "passthrough", machine)


def _weighted(spec: JobSpec, weights: Floats | None) -> dict[str, Floats]:
    if weights is None:
        return {}
    return {"sample_weight" if spec.model.kind == "gradient_boosting" else "svc__sample_weight": weights}


def _evaluate(spec: JobSpec, prepared: Prepared, fitted: Fitted, events: Events) -> dict[str, Any]:
    """The rows of all parts, and the evaluation of the test part (else validation, else training)."""
    events.phase("evaluating")
    held_out = [part.name for part in (prepared.val, prepared.test) if part is not None] or ["train"]
    rows: dict[str, dict[str, float]] = {}
    parts: dict[str, dict[str, float]] = {}
    report: dict[str, Any] = {}
    for part in (prepared.train, prepared.val, prepared.test):
        if part is None:
            continue
        z = torch.from_numpy(fitted.scores(features(part, prepared)))
        metrics = _measure(spec, prepared, part, z)
        plain = {name: value for name, value in metrics.items() if not name.endswith("_se")}
        if part.name in held_out:
            parts[part.name] = plain
            report = evaluation(part.name, plain, part.truth, z.numpy(), prepared.classes, index=part.index)
        if part.name == "train":
            plain = {name: value for name, value in plain.items() if name in TRAIN_METRICS}
        rows[part.name] = metrics if part.name == "val" else plain
    events.rows(1, 1, rows)
    return {**report, "parts": parts}


def _measure(spec: JobSpec, prepared: Prepared, part: Part, z: Tensor) -> dict[str, float]:
    assert spec.loss is not None  # resolve() has filled it in
    return measure(
        z,
        part,
        losses.build(spec.loss, outputs=prepared.outputs),
        class_weights=prepared.class_weights,
        scaler=prepared.scaler,
        kind=spec.loss.kind,
        errors=True,
    )


def _plots(spec: JobSpec, report: dict[str, Any], workdir: Path | None) -> dict[str, str]:
    if workdir is None or not report["confusion_matrix"]:
        return {}
    path = workdir / "plots" / "confusion.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(plots.confusion(report["confusion_matrix"], report["classes"], title=spec.name))
    return {"confusion": str(path.absolute())}
