"""What the training process takes of its machine: memory, processor, accelerator."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import torch

AT_EVALUATIONS, BETWEEN = 1.0, 10.0
"""Least seconds between two looks, at evaluations and at log steps: a share of less time is noise."""


class Usage:
    """Looks at this process now and then; each look's shares are of the time since the one before."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._looked: float | None = None
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._asks_load = device.type == "cuda"

    def due(self, *, evaluation: bool) -> bool:
        """Whether the last look is long enough ago. An evaluation's is the first one."""
        if self._looked is None:
            return evaluation or time.monotonic() - self._wall >= BETWEEN
        return time.monotonic() - self._looked >= (AT_EVALUATIONS if evaluation else BETWEEN)

    def rows(self) -> dict[str, float]:
        """Rows of the split `system`; what this machine does not tell is left out."""
        wall, cpu = time.monotonic(), time.process_time()
        rows = {"process_memory_bytes": float(self._process.memory_info().rss)}
        if (share := percent(cpu - self._cpu, wall - self._wall)) is not None:
            rows["cpu_percent"] = share
        self._looked, self._wall, self._cpu = wall, wall, cpu
        return rows | self._accelerator()

    def _accelerator(self) -> dict[str, float]:
        if self._device.type == "mps":
            return {"gpu_memory_bytes": float(torch.mps.current_allocated_memory())}
        if self._device.type != "cuda":
            return {}
        free, total = torch.cuda.mem_get_info(self._device)
        rows = {
            "gpu_memory_bytes": float(torch.cuda.memory_allocated(self._device)),
            "gpu_memory_reserved_bytes": float(torch.cuda.memory_reserved(self._device)),
            "gpu_device_memory_bytes": float(total - free),
        }
        load = told(lambda: torch.cuda.utilization(self._device)) if self._asks_load else None
        self._asks_load = load is not None
        return rows if load is None else {**rows, "gpu_percent": load}


def percent(cpu_seconds: float, wall_seconds: float) -> float | None:
    """Of one core = 100: two cores busy all the time make 200. None where no time has passed."""
    return 100.0 * cpu_seconds / wall_seconds if wall_seconds > 0 else None


def told(ask: Callable[[], float]) -> float | None:
    """The answer of a library that may be missing (NVML's for Python) or refuse; None without one."""
    try:
        return float(ask())
    except Exception:
        return None
