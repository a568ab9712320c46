"""The folder in which the processes of one worker share their metrics: files that are mapped into memory.

The parent creates it before any module that defines metrics is imported. Slots leave their counts in their file,
however they die, and the housekeeping process reads all files. A restarted worker counts from zero, which Prometheus
handles. This module must not import prometheus_client, which reads the environment once, at import.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from service.settings import Settings

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
NAME = "worker-metrics"


def create(settings: Settings) -> Path | None:
    """Create this worker's folder and export its path to all of its processes; None when no metrics port is set."""
    # a folder that the environment names belongs to another service, such as an API beside this worker
    os.environ.pop(VARIABLE, None)
    if not settings.worker_metrics_port:
        return None
    parent = settings.scratch / NAME
    for left in parent.glob(f"{socket.gethostname()}-*"):
        pid = left.name.rpartition("-")[2]
        if pid == str(os.getpid()) or not (pid.isdigit() and _alive(int(pid))):
            shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"{socket.gethostname()}-{os.getpid()}"
    folder.mkdir(parents=True, mode=0o700)
    os.environ[VARIABLE] = str(folder)
    return folder


def remove() -> None:
    """Remove the folder at a normal exit."""
    if folder := os.environ.get(VARIABLE):
        shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
