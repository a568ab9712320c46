"""How much memory a worker's GPUs have, without CUDA: this process has no torch, and a context would take memory."""

from __future__ import annotations

import shutil
import subprocess

ASK_SECONDS = 10.0
QUERY = ("--query-gpu=memory.total", "--format=csv,noheader,nounits")


def accelerator_bytes(device: str) -> int | None:
    """Return the memory of all NVIDIA GPUs that a worker of this device may use; None without one, or unknown."""
    command = shutil.which("nvidia-smi")
    if command is None or not device.startswith(("auto", "cuda")):
        return None
    try:
        done = subprocess.run([command, *QUERY], capture_output=True, text=True, timeout=ASK_SECONDS, check=True)
        sizes = [int(line) for line in done.stdout.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return sum(sizes) * 2**20 or None
