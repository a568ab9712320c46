"""The housekeeping process of a worker, as its Celery parent starts and restarts it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from functools import partial

from trainkit.processes import die_with_parent
from worker import shutdown

STOP_SECONDS = 5.0
log = logging.getLogger(__name__)


class HousekeepingProcess:
    """`python -m worker.housekeeping`, a process without torch that dies with this one."""

    def __init__(self, queues: list[str], slots: int) -> None:
        self._command = [
            sys.executable,
            "-m",
            "worker.housekeeping",
            "--queues",
            ",".join(queues),
            "--slots",
            str(slots),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def ensure_running(self) -> None:
        """Start the process when it is not running, unless the worker is stopping."""
        if shutdown.requested() or (self._process is not None and self._process.poll() is None):
            return
        if self._process is not None:
            log.warning("housekeeping ended with %s: starting it again", self._process.returncode)
        # SIGTERM and not SIGKILL: it removes itself from the list of workers first.
        die_with_worker = partial(die_with_parent, os.getpid(), signal.SIGTERM)
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, preexec_fn=die_with_worker)

    def stop(self) -> None:
        """Terminate it and wait: it removes itself from the list of workers."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
