"""A job whose model is an ensemble: nothing is trained, the members are put together and measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data import Dataset
from trainkit.fit.device import on_one_core
from trainkit.fit.encoding.prepare import Prepared
from trainkit.fit.evaluation.evaluate import evaluation
from trainkit.fit.evaluation.metrics import classification_metrics, regression_metrics
from trainkit.fit.events import Events
from trainkit.fit.loop.result import FitResult
from trainkit.fit.models.trained_model import EnsembleModel, describe_dataset, in_order, load_model
from trainkit.spec import JobSpec
from trainkit.spec.problems import Problem, SpecError


def fit_ensemble(
    spec: JobSpec, prepared: Prepared, data: Dataset, events: Events, workdir: Path | None, source: Any
) -> FitResult:
    """Load the members, evaluate their common answer on the held-out parts, save it like any model.

    `source`: the members in the spec's order, each a TrainedModel or an artifact folder. Raises SpecError.
    """
    assert spec.model.kind == "ensemble"
    if not isinstance(source, Sequence) or isinstance(source, str) or len(source) != len(spec.model.members):
        raise SpecError(
            [Problem("/model/members", "no_source", "the members' models were not given", "Pass them as `source`.")]
        )
    members = [one if hasattr(one, "predict") else load_model(one) for one in source]
    model = EnsembleModel(members, spec.model.method, spec.model.weights)
    if set(model.classes or ()) != set(prepared.classes or ()):
        raise SpecError(
            [
                Problem(
                    "/model/members",
                    "other_classes",
                    f"the members predict {list(model.classes or ['numbers'])}, "
                    f"the dataset has {list(prepared.classes or ['numbers'])}",
                    "Take members that were trained on data with the same classes.",
                )
            ]
        )
    parameters = sum(p.numel() for m in members if not isinstance(m, EnsembleModel) for p in m.network.parameters())
    chosen = on_one_core(parameters=parameters)
    events.emit("runtime", **chosen)
    events.phase("evaluating")
    # What validated one fold or draw has trained the members of the others: the test part alone is new to all of them.
    validation = None if spec.split.resamples else prepared.val
    held_out = [part for part in (validation, prepared.test) if part is not None] or [prepared.train]
    report: dict[str, Any] = {}
    parts: dict[str, dict[str, float]] = {}
    for part in held_out:
        scores = model.answer_rows(data.inputs, part.index)
        if prepared.classes is not None:
            scores = in_order(scores, model.classes, prepared.classes)
        metrics = ensemble_metrics(part.truth, scores, prepared.classes)
        parts[part.name] = metrics
        events.rows(0, 0, {part.name: metrics})
        report = evaluation(part.name, metrics, part.truth, scores, prepared.classes, index=part.index, shares=scores)
    report["parts"] = parts
    model.description = {
        "name": spec.name,
        "task": spec.task,
        "metrics": parts,
        "dataset": describe_dataset(spec, prepared.facts),
        "spec": spec.model_dump(mode="json"),
    }
    events.emit("evaluation", **report)
    artifact = None if workdir is None else str(model.save(workdir / "model").absolute())
    events.emit(
        "finished",
        stop_reason="completed",
        best_epoch=None,
        stopped_epoch=0,
        artifact=artifact,
        test=parts.get("test", {}),
        files={},
    )
    return FitResult(model, events.history, report, "completed", None, 0, chosen, spec=spec)


def ensemble_metrics(
    truth: NDArray[Any], scores: NDArray[np.float64], classes: tuple[str, ...] | None
) -> dict[str, float]:
    """The loss is the mean of -log p for classes and the mse for numbers, whatever the members were trained with."""
    if classes is None:
        metrics = regression_metrics(truth, scores)
        return {"loss": metrics["mse"], **metrics}
    true_probability = scores[np.arange(len(scores)), truth]
    loss = float(-np.log(np.clip(true_probability, 1e-12, None)).mean())
    return {"loss": loss, **classification_metrics(truth, scores)}
