"""The example of a generated client: upload by name, submit, follow, compare, put into production, predict."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.client_tools import CONFIGS, client_tools, generate_python, write_document
from tests.support.stack import Stack


def test_the_python_client_brings_a_model_into_production(stack: Stack, data: Path, tmp_path: Path) -> None:
    generate_python(client_tools(), write_document(tmp_path / "openapi.json"), tmp_path / "trainkit_api")
    environment = {
        **os.environ,
        "TRAINKIT_URL": stack.url,
        "TRAINKIT_API_KEY": stack.key,
        "PYTHONPATH": str(tmp_path),
        "PYTHONWARNINGS": "ignore",
    }
    script = [CONFIGS / "python" / "to_production.py", data / "cancer.csv", data / "one-sample.csv"]
    done = subprocess.run(
        [sys.executable, *map(str, script)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("cancer:") and "is ready: 568 samples" in line for line in lines), done.stdout
    assert any("cancer-4 epoch 20: val_accuracy" in line for line in lines), done.stdout
    assert sum(line.startswith("* cancer-") for line in lines) == 1, done.stdout
    assert lines[-1].startswith("predicted: malignant"), done.stdout
