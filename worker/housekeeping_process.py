"""The Celery parent's hold on its housekeeping process: started, and started again when it dies."""

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


class Housekeeper:
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

    def tend(self) -> None:
        """Start it when it is not running, unless the worker is stopping."""
        if shutdown.asked() or (self._process is not None and self._process.poll() is None):
            return
        if self._process is not None:
            log.warning("housekeeping ended with %s: starting it again", self._process.returncode)
        # SIGTERM and not SIGKILL: it removes itself from the list of workers first.
        dies_with_us = partial(die_with_parent, os.getpid(), signal.SIGTERM)
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, preexec_fn=dies_with_us)

    def stop(self) -> None:
        """Let it say good-bye, and wait until it has gone."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
