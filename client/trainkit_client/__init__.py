"""Client of the training service trainkit. Cheap to import: what a name needs is loaded with its first use.

from trainkit_client import Client

client = Client()
dataset = client.datasets.upload("digits.zip").wait()
job = client.jobs.create(dataset=dataset, model="mlp").wait(check=True)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainkit_client.version import __version__ as __version__

_WHERE = {
    "AsyncClient": "trainkit_client._async.client",
    "AsyncDataset": "trainkit_client._async.datasets",
    "AsyncExperiment": "trainkit_client._async.experiments",
    "AsyncJob": "trainkit_client._async.jobs",
    "AsyncModel": "trainkit_client._async.models",
    "Client": "trainkit_client._sync.client",
    "Dataset": "trainkit_client._sync.datasets",
    "Experiment": "trainkit_client._sync.experiments",
    "Job": "trainkit_client._sync.jobs",
    "Model": "trainkit_client._sync.models",
    **dict.fromkeys(
        (
            "AmbiguousReference",
            "BadResponse",
            "ConfigError",
            "Conflict",
            "DatasetInvalid",
            "ExperimentFailed",
            "Forbidden",
            "Invalid",
            "JobFailed",
            "MissingExtra",
            "NotFound",
            "ProblemError",
            "Refused",
            "ServerError",
            "TooManyRequests",
            "TrainkitError",
            "Unauthorized",
            "Unreachable",
            "UploadMismatch",
            "WaitTimeout",
        ),
        "trainkit_client.errors",
    ),
}
_MODULES = ("config", "errors", "spec", "types")

__all__ = [*_WHERE, *_MODULES, "__version__"]

if TYPE_CHECKING:
    from trainkit_client import config as config
    from trainkit_client import errors as errors
    from trainkit_client import spec as spec
    from trainkit_client import types as types
    from trainkit_client._async.client import AsyncClient as AsyncClient
    from trainkit_client._async.datasets import AsyncDataset as AsyncDataset
    from trainkit_client._async.experiments import AsyncExperiment as AsyncExperiment
    from trainkit_client._async.jobs import AsyncJob as AsyncJob
    from trainkit_client._async.models import AsyncModel as AsyncModel
    from trainkit_client._sync.client import Client as Client
    from trainkit_client._sync.datasets import Dataset as Dataset
    from trainkit_client._sync.experiments import Experiment as Experiment
    from trainkit_client._sync.jobs import Job as Job
    from trainkit_client._sync.models import Model as Model
    from trainkit_client.errors import AmbiguousReference as AmbiguousReference
    from trainkit_client.errors import BadResponse as BadResponse
    from trainkit_client.errors import ConfigError as ConfigError
    from trainkit_client.errors import Conflict as Conflict
    from trainkit_client.errors import DatasetInvalid as DatasetInvalid
    from trainkit_client.errors import ExperimentFailed as ExperimentFailed
    from trainkit_client.errors import Forbidden as Forbidden
    from trainkit_client.errors import Invalid as Invalid
    from trainkit_client.errors import JobFailed as JobFailed
    from trainkit_client.errors import MissingExtra as MissingExtra
    from trainkit_client.errors import NotFound as NotFound
    from trainkit_client.errors import ProblemError as ProblemError
    from trainkit_client.errors import Refused as Refused
    from trainkit_client.errors import ServerError as ServerError
    from trainkit_client.errors import TooManyRequests as TooManyRequests
    from trainkit_client.errors import TrainkitError as TrainkitError
    from trainkit_client.errors import Unauthorized as Unauthorized
    from trainkit_client.errors import Unreachable as Unreachable
    from trainkit_client.errors import UploadMismatch as UploadMismatch
    from trainkit_client.errors import WaitTimeout as WaitTimeout


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name in _MODULES:
        return import_module(f"trainkit_client.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
