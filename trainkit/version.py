"""The version of trainkit, read by the package metadata, the API, the command line and artifacts."""

from __future__ import annotations

import contextlib
import platform
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"


def installed_versions() -> dict[str, str]:
    """Return the versions of trainkit, Python, numpy and torch (where it is installed) without importing them.

    The metadata of torch has no build suffix: `2.15.0` for what `torch.__version__` calls `2.15.0+cu132`.
    """
    found = {"trainkit": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
