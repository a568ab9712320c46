"""The API process stays slim: no torch, and nothing else that is large and only workers need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOOK = """
import asyncio, sys
import httpx
from service.app import create_app
from service.migrate import upgrade
from service.settings import Settings

settings = Settings.from_env()
upgrade(settings.database_url)
app = create_app(settings)

async def ask():
    # Starlette's own test client would bring a second HTTP library into the process that is measured
    transport = httpx.ASGITransport(app)
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
    async with app.router.lifespan_context(app), client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/v1/jobs")).status_code == 401
        app.openapi()

asyncio.run(ask())
large = {"torch", "torchvision", "pyarrow", "matplotlib", "scipy", "pandas", "PIL", "safetensors", "trainkit.data", "worker"}
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(",".join(sorted(large & set(sys.modules))), int(status["VmRSS"].split()[0]) // 1024)
"""


def test_no_torch_and_less_than_170_mib(tmp_path: Path) -> None:
    environment = {**os.environ, "TRAINKIT_HOME": str(tmp_path), "TRAINKIT_BROKER_URL": "memory://"}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    imported, _, resident = done.stdout.strip().rpartition(" ")
    assert imported == ""
    assert int(resident) < 170
