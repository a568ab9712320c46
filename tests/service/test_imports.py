"""The API process stays slim: no torch, and nothing else that is large and only workers need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOOK = """
import sys
from fastapi.testclient import TestClient
from service.app import create_app
from service.migrate import upgrade
from service.settings import Settings

settings = Settings.from_env()
upgrade(settings.database_url)
app = create_app(settings)
with TestClient(app) as client:
    assert client.get("/readyz").status_code == 200
    assert client.get("/v1/jobs").status_code == 401
    app.openapi()
large = {"torch", "torchvision", "pyarrow", "matplotlib", "scipy", "pandas", "PIL", "safetensors", "trainkit.data", "worker"}
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(",".join(sorted(large & set(sys.modules))), int(status["VmRSS"].split()[0]) // 1024)
"""


def test_no_torch_and_less_than_160_mib(tmp_path: Path) -> None:
    environment = {**os.environ, "TRAINKIT_HOME": str(tmp_path), "TRAINKIT_BROKER_URL": "memory://"}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    imported, _, resident = done.stdout.strip().rpartition(" ")
    assert imported == ""
    assert int(resident) < 160
