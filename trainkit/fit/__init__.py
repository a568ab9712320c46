"""Training: `trainkit.fit(spec, data)` trains, and the room behind it holds the loop and all that it stands on.

The module is callable because the room and its main function share a name. Its contents are imported on first use,
so that the pure parts (`trainkit.fit.metrics`) can be had without torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

_WHERE = {
    "ArtifactError": "artifact",
    "CheckpointError": "checkpoint",
    "Control": "control",
    "EnsembleModel": "ensemble",
    "FitResult": "run",
    "TrainedModel": "predict",
    "load_model": "artifact",
}

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "Control",
    "EnsembleModel",
    "FitResult",
    "TrainedModel",
    "fit",
    "load_model",
]

if TYPE_CHECKING:
    from trainkit.fit.artifact import ArtifactError, load_model
    from trainkit.fit.checkpoint import CheckpointError
    from trainkit.fit.control import Control
    from trainkit.fit.ensemble import EnsembleModel
    from trainkit.fit.predict import TrainedModel
    from trainkit.fit.run import FitResult, fit


def __getattr__(name: str) -> Any:
    if name == "fit":
        return importlib.import_module("trainkit.fit.run").fit
    if name in _WHERE:
        return getattr(importlib.import_module(f"trainkit.fit.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'trainkit.fit' has no attribute {name!r}")


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("trainkit.fit.run").fit(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
