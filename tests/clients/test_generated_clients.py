"""Linters and generators take the document without a warning, and what they write compiles."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support.client_tools import ClientTools, generate_others, generate_python, run

STUBS = Path(__file__).parent / "java_stubs"
KNOWN_WARNINGS = (
    # said of every document of OpenAPI 3.1
    "OpenAPI 3.1 support is still in beta",
    # of a body that is not JSON, or has several examples: the generator's tests then have none
    "Failed to get the schema name: null",
    "Ignoring complex example on request body",
)


def test_spectral_finds_nothing(tools: ClientTools, document: Path, tmp_path: Path) -> None:
    rules = tmp_path / "spectral.yaml"
    rules.write_text('extends: ["spectral:oas"]\n')
    spectral = tools.modules / "@stoplight" / "spectral-cli" / "dist" / "index.js"
    printed = run(tools.node, spectral, "lint", document, "--ruleset", rules, "--fail-severity", "hint")
    assert "No results" in printed, printed


def test_python_is_generated_without_a_warning(tools: ClientTools, document: Path, tmp_path: Path) -> None:
    printed = generate_python(tools, document, tmp_path / "trainkit_api")
    assert "arning" not in printed, printed
    assert (tmp_path / "trainkit_api" / "models" / "job_spec.py").exists()


@pytest.fixture(scope="module")
def clients(tools: ClientTools, document: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the generated clients, and what the generator printed."""
    java = shutil.which("java")
    if java is None:
        pytest.skip("openapi-generator needs Java, and there is none")
    output = tmp_path_factory.mktemp("clients")
    return output, generate_others(tools, java, document, output)


def test_the_others_are_generated_without_a_warning(clients: tuple[Path, str]) -> None:
    lines = [line for line in clients[1].splitlines() if re.search(r"\b(WARN|ERROR)\b", line)]
    assert [line for line in lines if not any(known in line for known in KNOWN_WARNINGS)] == []


def test_typescript_compiles(tools: ClientTools, clients: tuple[Path, str]) -> None:
    folder = clients[0] / "typescript"
    (folder / "node_modules").symlink_to(tools.modules)
    compiler = tools.modules / "typescript" / "lib" / "tsc.js"
    options = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--moduleResolution", "nodenext")
    run(tools.node, compiler, *options, "--skipLibCheck", "api.ts", "index.ts", cwd=folder)


def test_java_compiles(tools: ClientTools, clients: tuple[Path, str], tmp_path: Path) -> None:
    compiler = shutil.which("javac")
    if compiler is None:
        pytest.skip("there is no Java compiler")
    # Jackson is in the generator's own jar; what else the client needs is in the stubs, as far as it is used
    sources = [*(clients[0] / "java" / "src" / "main").rglob("*.java"), *STUBS.rglob("*.java")]
    listed = tmp_path / "sources"
    listed.write_text("\n".join(map(str, sources)))
    run(compiler, "-proc:none", "-nowarn", "-d", tmp_path / "classes", "-cp", tools.generator, f"@{listed}")


def test_go_compiles(clients: tuple[Path, str]) -> None:
    compiler = shutil.which("go")
    if compiler is None:
        pytest.skip("there is no Go compiler")
    run(compiler, "vet", "./...", cwd=clients[0] / "go")
