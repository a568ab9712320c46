"""The examples of generated clients: upload by name, submit, follow, compare, put into production, predict."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.client_tools import (
    CONFIGS,
    ClientTools,
    client_tools,
    generate,
    generate_python,
    generate_typescript_types,
    run,
    write_document,
)
from tests.support.stack import Stack


@pytest.fixture(scope="module")
def tools() -> ClientTools:
    return client_tools()


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_document(tmp_path_factory.mktemp("openapi") / "openapi.json")


def variables(stack: Stack, **others: str) -> Mapping[str, str]:
    return {"TRAINKIT_URL": stack.url, "TRAINKIT_KEY": stack.key, **others}


def check(printed: str) -> None:
    """Whether a model was trained, chosen, and asked under the name of its alias."""
    lines = printed.splitlines()
    assert any(line.startswith("cancer:") and "is ready: 568 samples" in line for line in lines), printed
    assert any("cancer-4 epoch 20: val_accuracy" in line for line in lines), printed
    assert sum(line.startswith("* cancer-") for line in lines) == 1, printed
    assert lines[-1].startswith("predicted: malignant"), printed


def test_the_python_client(stack: Stack, data: Path, tools: ClientTools, document: Path, tmp_path: Path) -> None:
    generate_python(tools, document, tmp_path / "trainkit_api")
    paths = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    script = CONFIGS / "python" / "to_production.py"
    environment = variables(stack, PYTHONPATH=paths, PYTHONWARNINGS="ignore")
    check(run(sys.executable, script, data / "cancer.csv", data / "one-sample.csv", environment=environment))


def test_the_typescript_client(stack: Stack, data: Path, tools: ClientTools, document: Path, tmp_path: Path) -> None:
    generate_typescript_types(tools, document, tmp_path / "trainkit-api.ts")
    script = shutil.copy(CONFIGS / "typescript" / "to-production.ts", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(tools.modules)
    compiler = tools.modules / "typescript" / "lib" / "tsc.js"
    options = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--moduleResolution", "nodenext")
    run(tools.node, compiler, *options, "--skipLibCheck", "--allowImportingTsExtensions", script, cwd=tmp_path)
    check(run(tools.node, script, data / "cancer.csv", data / "one-sample.csv", environment=variables(stack)))


def test_the_go_client(stack: Stack, data: Path, tools: ClientTools, document: Path, tmp_path: Path) -> None:
    program = shutil.copytree(CONFIGS / "go", tmp_path / "program")
    generate(tools, "go", document, program / "trainkit")
    files = (data / "cancer.csv", data / "one-sample.csv")
    check(tools.run_go("run", ".", *files, cwd=program, environment=variables(stack)))
