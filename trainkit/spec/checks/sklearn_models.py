"""What a model that scikit-learn fits cannot do, and what of a spec it makes no use of."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trainkit.spec.job import JobSpec
from trainkit.spec.problems import Problem
from trainkit.spec.training import TrainSpec

MOST_SVM_SAMPLES = 20_000
"""A kernel machine's time grows with the square of its samples: beyond this it is no cheap model any more."""
OF_TRAINING = ("augment", "optimizer", "schedule", "regularize", "early_stop")
USED_OF_TRAIN = ("seed", "threads", "monitor")


def sklearn_problems(spec: JobSpec, training_samples: int) -> Iterator[Problem]:
    """What a model that scikit-learn fits cannot do."""
    kind = spec.model.kind
    if kind == "rbf_svm" and training_samples > MOST_SVM_SAMPLES:
        yield Problem(
            "/split/subsample",
            "too_many_samples",
            f"rbf_svm takes at most {MOST_SVM_SAMPLES} training samples, for its time grows with their square; "
            f"these are {training_samples}",
            f"Use {svm_share(spec, training_samples):g} or less, or gradient_boosting.",
        )
    hint = f"Remove it, or use an mlp: scikit-learn fits {kind} from the beginning."
    if spec.start_from is not None:
        yield Problem("/start_from", "no_weights", f"{kind} has no weights to take over", hint)
    if spec.adapt is not None:
        yield Problem("/adapt", "no_network", f"{kind} has no features to adapt", hint)


def svm_share(spec: JobSpec, training_samples: int) -> float:
    """The largest `split.subsample`, to 6 digits, that leaves an rbf_svm few enough samples."""
    return math.floor(1e6 * (spec.split.subsample or 1.0) * MOST_SVM_SAMPLES / training_samples) / 1e6


def sklearn_warnings(spec: JobSpec, loss: object) -> Iterator[Problem]:
    """Warnings of what is set, and nothing comes of it. `loss`: what it is measured by in any case."""
    defaults = JobSpec.model_fields
    pointers = [f"/{name}" for name in OF_TRAINING if getattr(spec, name) != defaults[name].default]
    usual = TrainSpec()
    pointers += [
        f"/train/{name}"
        for name in TrainSpec.model_fields
        if name not in USED_OF_TRAIN and getattr(spec.train, name) != getattr(usual, name)
    ]
    if spec.loss is not None and spec.loss != loss:
        pointers.append("/loss")
    for place in pointers:
        message = f"{spec.model.kind} makes no use of it: scikit-learn fits the model at once, by its own objective"
        yield Problem(place, "not_used", message, "Leave it out; the model's own fields are under `model`.")
