"""trainkit: the practical craft of training deep networks. Cheap to import; torch comes with first use.

import trainkit as tk
result = tk.fit(tk.JobSpec.model_validate(spec), tk.load_dataset("digits.zip"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trainkit.version import __version__ as __version__

_WHERE = {
    "JobSpec": "trainkit.spec",
    "SpecError": "trainkit.spec",
    "DataError": "trainkit.data",
    "Dataset": "trainkit.data",
    "load_dataset": "trainkit.data",
    "FitResult": "trainkit.fit",
    "TrainedModel": "trainkit.fit",
    "evaluate_model": "trainkit.fit",
    "load_model": "trainkit.fit",
    "autopilot": "trainkit.fit.autopilot",
}
# `fit` is a room and its main function: the module itself is callable, so `tk.fit(...)` works whoever imported it first.
_SUBPACKAGES = ("augment", "data", "fit", "losses", "nn", "optim", "plots", "preprocess", "regularize", "spec")

__all__ = [
    "DataError",
    "Dataset",
    "FitResult",
    "JobSpec",
    "SpecError",
    "TrainedModel",
    "augment",
    "autopilot",
    "data",
    "evaluate_model",
    "fit",
    "load_dataset",
    "load_model",
    "losses",
    "nn",
    "optim",
    "plots",
    "preprocess",
    "regularize",
    "spec",
]

if TYPE_CHECKING:
    from trainkit.data import DataError, Dataset, load_dataset
    from trainkit.fit import FitResult, TrainedModel, evaluate_model, fit, load_model
    from trainkit.fit.autopilot import autopilot
    from trainkit.spec import JobSpec, SpecError


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    if name in _SUBPACKAGES:
        return importlib.import_module(f"trainkit.{name}")
    raise AttributeError(f"module 'trainkit' has no attribute {name!r}")
