"""Named places where tests make a process die, fail or wait. Off unless TRAINKIT_FAILPOINTS is set.

`TRAINKIT_FAILPOINTS="after_claim=kill,before_finish=sleep:2"`; `kill@FILE` kills once, when FILE
does not exist yet (it is created first), so that the next process gets through.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def fp(name: str) -> None:
    """Do what the environment asks for at this point; nothing otherwise."""
    wishes = os.environ.get("TRAINKIT_FAILPOINTS")
    if not wishes:
        return
    for entry in wishes.split(","):
        point, _, action = entry.partition("=")
        if point == name:
            _act(name, action)


def _act(name: str, action: str) -> None:
    action, _, once = action.partition("@")
    if once:
        marker = Path(once)
        if marker.exists():
            return
        marker.touch()
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise RuntimeError(f"failpoint {name}")
    elif action.startswith("sleep:"):
        time.sleep(float(action.removeprefix("sleep:")))
    else:
        raise ValueError(f"failpoint {name}: unknown action {action!r}")
