"""The demo is the examples' own scripts: run it as `make demo` does, and hold it to what it promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.api_steps import ROOT


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
