"""Where the processes of one worker share their metrics: a folder of files that are mapped into memory.

The parent makes it before anything that counts is imported; slots, however they die, leave what they counted in their
file, and housekeeping reads all of them. A worker that starts anew starts from nothing, which Prometheus understands.
Nothing is imported here that imports prometheus_client: that package looks at the environment once.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from service.settings import Settings

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
NAME = "worker-metrics"


def make(settings: Settings) -> Path | None:
    """This worker's folder, empty, and known to all of its processes; None when nobody will ask for its metrics."""
    # a folder that the environment names is another service's, or an API's that was started beside us
    os.environ.pop(VARIABLE, None)
    if not settings.worker_metrics_port:
        return None
    above = settings.scratch / NAME
    for left in above.glob(f"{socket.gethostname()}-*"):
        pid = left.name.rpartition("-")[2]
        if pid == str(os.getpid()) or not (pid.isdigit() and _alive(int(pid))):
            shutil.rmtree(left, ignore_errors=True)
    folder = above / f"{socket.gethostname()}-{os.getpid()}"
    folder.mkdir(parents=True, mode=0o700)
    os.environ[VARIABLE] = str(folder)
    return folder


def remove() -> None:
    """The worker ends in good order."""
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
