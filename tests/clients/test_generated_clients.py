"""Linters and generators take the document without a warning, and what they write compiles."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support.client_tools import LANGUAGES, ClientTools, generate, generate_python, run

STUBS = Path(__file__).parent / "java_stubs"
KNOWN_WARNINGS = (
    # said of every document of OpenAPI 3.1
    "OpenAPI 3.1 support is still in beta",
    # said of every `additionalProperties: false` in OpenAPI 3.1, which the generator asks for a reference
    "Failed to get the schema name: null",
    # Java's comments show no example of a body that is a class
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
def clients(
    tools: ClientTools, document: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, str]]:
    """The folder of each generated client, and what the generator printed."""
    output = tmp_path_factory.mktemp("clients")
    return {name: (output / name, generate(tools, name, document, output / name)) for name in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_others_are_generated_without_a_warning(clients: dict[str, tuple[Path, str]], language: str) -> None:
    lines = [line for line in clients[language][1].splitlines() if re.search(r"\b(WARN|ERROR)\b", line)]
    # of OpenAPI 3.1, at least: otherwise the generator has kept its warnings to itself
    assert any(KNOWN_WARNINGS[0] in line for line in lines), clients[language][1]
    assert [line for line in lines if not any(known in line for known in KNOWN_WARNINGS)] == []


def test_typescript_compiles(tools: ClientTools, clients: dict[str, tuple[Path, str]]) -> None:
    folder = clients["typescript"][0]
    (folder / "node_modules").symlink_to(tools.modules)
    compiler = tools.modules / "typescript" / "lib" / "tsc.js"
    options = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--moduleResolution", "nodenext")
    run(tools.node, compiler, *options, "--skipLibCheck", "api.ts", "index.ts", cwd=folder)


def test_java_compiles(tools: ClientTools, clients: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    compiler = shutil.which("javac")
    if compiler is None:
        pytest.skip("there is no Java compiler")
    # Jackson is in the generator's own jar; what else the client needs is in the stubs, as far as it is used
    sources = [*(clients["java"][0] / "src" / "main").rglob("*.java"), *STUBS.rglob("*.java")]
    listed = tmp_path / "sources"
    listed.write_text("\n".join(map(str, sources)))
    run(compiler, "-proc:none", "-nowarn", "-d", tmp_path / "classes", "-cp", tools.generator, f"@{listed}")


def test_go_compiles(tools: ClientTools, clients: dict[str, tuple[Path, str]]) -> None:
    tools.run_go("vet", "./...", cwd=clients["go"][0])
