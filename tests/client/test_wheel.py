"""The wheel alone: what is in it, how fast it is imported, and the tutorial from an environment that has nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.stack import Stack
from trainkit.spec import JobSpec
from trainkit_client.version import __version__

ROOT = Path(__file__).parents[2]
MEGABYTE = 1 << 20


def dependencies(of: str, seen: set[str] | None = None) -> set[str]:
    """The distributions that a distribution needs, without extras, and those that they need."""
    seen = set() if seen is None else seen
    for text in distribution(of).requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            name = requirement.name.lower()
            if name not in seen:
                seen.add(name)
                dependencies(name, seen)
    return seen


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by setuptools from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    shutil.copytree(ROOT / "client", folder / "client", ignore=ignored)
    shutil.copytree(ROOT / "trainkit" / "spec", folder / "trainkit" / "spec", ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, str(folder / "client"), "-w", str(folder / "dist")], check=True)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what its metadata names, and nothing else; returns its Python."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(packages)]
    subprocess.run([*command, str(wheel)], check=True)
    for name in dependencies("trainkit-client"):
        found = distribution(name)
        for entry in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            link = packages / entry
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(entry))))
    return folder / "bin" / "python"


def run(python: Path, *arguments: str, **variables: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINKIT_", "PYTHON"))}
    command = [str(python), "-P", *arguments]
    done = subprocess.run(command, env=clean | variables, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_the_wheel_is_small_and_holds_the_client_and_the_spec_alone(wheel: Path) -> None:
    assert wheel.stat().st_size < MEGABYTE
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        texts = {name: archive.read(name).decode() for name in files if name.endswith(".py")}
    assert {name.partition("/")[0] for name in files} == {"trainkit_client", f"trainkit_client-{__version__}.dist-info"}
    assert "trainkit_client/py.typed" in files
    forbidden = re.compile(r"^\s*(?:from|import) (?:torch|service|worker|sqlalchemy|celery|fastapi)\b", re.MULTILINE)
    assert [name for name, text in texts.items() if forbidden.search(text)] == []
    copied = {name for name in files if name.startswith("trainkit_client/_spec/")}
    originals = (path.relative_to(ROOT / "trainkit/spec") for path in (ROOT / "trainkit/spec").rglob("*.py"))
    assert copied == {f"trainkit_client/_spec/{path.as_posix()}" for path in originals}


def test_specs_are_the_same_models_without_a_server(environment: Path) -> None:
    code = (
        "from trainkit_client import spec; s = spec.JobSpec.model_validate({'dataset': 'd', 'model': 'mlp'});"
        "print(spec.JobSpec.__module__); print(s.model_dump_json())"
    )
    module, document = run(environment, "-c", code).split("\n", 1)
    assert module == "trainkit_client._spec.job"
    assert document.strip() == JobSpec.model_validate({"dataset": "d", "model": "mlp"}).model_dump_json()


def test_the_import_is_fast(environment: Path) -> None:
    def seconds() -> float:
        lines = run(environment, "-X", "importtime", "-c", "import trainkit_client").splitlines()
        total = next(line for line in lines if line.split("|")[-1].strip() == "trainkit_client")
        return int(total.split("|")[1]) / 1e6

    assert min(seconds() for _ in range(3)) < 0.3
    code = (
        "import sys, trainkit_client; print(sorted({'httpx', 'pydantic', 'typer', 'rich', 'yaml'} & set(sys.modules)))"
    )
    assert run(environment, "-c", code).strip() == "[]"


def test_the_tutorial_runs_from_the_wheel_alone(environment: Path, service: Stack, data: Path, tmp_path: Path) -> None:
    for name in ("digits.zip", "held-out-7.png"):
        shutil.copy(data / name, tmp_path)
    variables = {"TRAINKIT_URL": service.url, "TRAINKIT_KEY": service.key, "XDG_STATE_HOME": str(tmp_path / "state")}
    output = run(environment, str(ROOT / "examples" / "sdk.py"), str(tmp_path), **variables)
    assert "1796 images of 10 classes" in output
    assert "/optimizer/lrr: Did you mean" in output
    assert "held-out-7.png is a 7" in output
    assert "the slow run: learning_rate_too_low" in output
    before, after = map(float, re.findall(r"accuracy (\S+) became (\S+)", output)[0])
    assert after > before
    assert (tmp_path / "digits.safetensors").stat().st_size > 1000
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
