"""Imports go one way (docs/architecture.md). Read from the source, so that lazy imports count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TORCH = {"torch", "torchvision"}
HOUSE = {"trainkit", "service", "worker", "client"}


def imports(folder: str) -> Iterator[tuple[Path, str]]:
    """Every absolute import of a file, or of every file below a folder, functions' own imports included."""
    files = [ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).rglob("*.py"))
    assert files, folder
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield file, node.module
                yield from ((file, f"{node.module}.{alias.name}") for alias in node.names)


def room(name: str, allowed: tuple[str, ...]) -> bool:
    """Whether an import of ours stays within the allowed rooms."""
    return any(name == room or name.startswith(room + ".") for room in allowed)


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("trainkit", ("trainkit",)),
        (
            "service",
            (
                "service",
                "trainkit.spec",
                "trainkit.diagnose",
                "trainkit.plots",
                "trainkit.plots_evidence",
                "trainkit.files",
                "trainkit.version",
            ),
        ),
        ("worker", ("worker", "service", "trainkit")),
        ("client", ("client", "trainkit.spec", "trainkit.processes", "trainkit.version")),
    ],
)
def test_imports_go_one_way(folder: str, allowed: tuple[str, ...]) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}: {name}"
        for file, name in imports(folder)
        if name.split(".")[0] in HOUSE and name != "trainkit" and not room(name, allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "folder",
    [
        "service",
        "client",
        "trainkit/spec",
        "trainkit/diagnose",
        "trainkit/data",
        "trainkit/files.py",
        "trainkit/processes.py",
        "trainkit/version.py",
        "migrations",
    ],
)
def test_torch_stays_out(folder: str) -> None:
    assert [f"{file.relative_to(ROOT)}: {name}" for file, name in imports(folder) if name.split(".")[0] in TORCH] == []


@pytest.mark.parametrize("forbidden", ["service", "worker", "celery", "sqlalchemy", "fastapi"])
def test_the_library_knows_nothing_of_http_sql_or_celery(forbidden: str) -> None:
    assert [str(file) for file, name in imports("trainkit") if name.split(".")[0] == forbidden] == []


def test_files_stay_readable() -> None:
    long = {
        str(file.relative_to(ROOT)): lines
        for folder in (*HOUSE, "tests", "benchmarks", "examples", "migrations")
        for file in (ROOT / folder).rglob("*.py")
        if (lines := len(file.read_text().splitlines())) > 500
    }
    assert long == {}
