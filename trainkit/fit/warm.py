"""Import everything that a first training step would import, so that a forked training process starts at once."""

from __future__ import annotations

import importlib

MODULES = (
    "trainkit.fit.run",
    "trainkit.fit.artifact",
    "trainkit.fit.ensemble_fit",
    "trainkit.plots",
    "torch._dynamo",  # torch.optim's first step imports it: several seconds
    "torch._inductor.config",  # and so does torch.use_deterministic_algorithms
)


def import_everything() -> None:
    """Meant for the parent of training processes. Imports only: no CUDA context, no thread is made."""
    for name in MODULES:
        importlib.import_module(name)
