"""Training: `trainkit.fit(spec, data)` trains a model; the package holds the training loop and what it stands on.

The module is callable, because the package and its main function share a name. Its contents are imported on first use:
`trainkit.fit.evaluation.metrics` can be imported without torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

_MODULES = {
    "ArtifactError": "models.trained_model",
    "CheckpointError": "checkpoint",
    "Control": "control",
    "EnsembleModel": "models.trained_model",
    "FitResult": "loop.result",
    "TrainedModel": "models.trained_model",
    "evaluate_model": "model_evaluation",
    "fit": "loop.fit",
    "load_model": "models.trained_model",
}

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "Control",
    "EnsembleModel",
    "FitResult",
    "TrainedModel",
    "evaluate_model",
    "fit",
    "load_model",
]

if TYPE_CHECKING:
    from trainkit.fit.checkpoint import CheckpointError
    from trainkit.fit.control import Control
    from trainkit.fit.loop.fit import fit
    from trainkit.fit.loop.result import FitResult
    from trainkit.fit.model_evaluation import evaluate_model
    from trainkit.fit.models.trained_model import ArtifactError, EnsembleModel, TrainedModel, load_model


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'trainkit.fit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"trainkit.fit.{_MODULES[name]}"), name)


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("trainkit.fit.loop.fit").fit(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
