"""The models of specs: those of the server where it is installed, else the copy that this distribution carries.

from trainkit_client.spec import JobSpec

spec = JobSpec.model_validate({"dataset": "digits", "model": "mlp"})
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainkit.spec import *  # noqa: F403

COPY = "trainkit_client._spec"


def module_name() -> str:
    """Return where the models come from. The server's own are of the version that checks the spec."""
    return "trainkit.spec" if find_spec("trainkit") is not None else COPY


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(import_module(module_name()), name)


def __dir__() -> list[str]:
    return dir(import_module(module_name()))
