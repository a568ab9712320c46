"""The version has one source: trainkit/version.py."""

from __future__ import annotations

import platform
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import trainkit
from trainkit.fit import device
from trainkit.version import __version__, installed_versions
from trainkit_client.cli import app

ROOT = Path(__file__).parents[2]


def test_package_metadata_reads_the_version_from_the_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "trainkit.version.__version__"}
    assert trainkit.__version__ == __version__


def test_installed_versions_names_the_packages_without_importing_them() -> None:
    found = installed_versions()
    assert found == {
        "trainkit": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__.partition("+")[0],
    }
    code = "import sys, trainkit.version as v; v.installed_versions(); print({'torch', 'numpy'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT) == "set()\n"


def test_versions_of_a_job_hold_the_build_of_torch() -> None:
    versions = device.versions()
    assert {**installed_versions(), "torch": str(torch.__version__), "machine": platform.machine()} == versions


@pytest.mark.parametrize("arguments", [["--version"], ["--version", "up"]])
def test_command_line_prints_the_version_and_exits(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.output) == (0, f"trainkit {__version__}\n")
