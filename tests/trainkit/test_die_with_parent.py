"""A child process ends when its parent does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARENT = """
import functools, os, signal, subprocess, sys
from trainkit.processes import die_with_parent
child = subprocess.Popen(
    [sys.executable, "-c", {child!r}],
    stdout=subprocess.PIPE,
    preexec_fn=functools.partial(die_with_parent, os.getpid(), signal.{name}),
)
child.stdout.readline()
print(child.pid, flush=True)
signal.pause()
"""
CHILD = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (open({mark!r}, "w").close(), sys.exit(0)))
print("ready", flush=True)
signal.pause()
"""


def has_ended(pid: int) -> bool:
    """Whether no such process runs; an orphan's zombie counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_die_with_parent_sends_the_signal_when_the_parent_is_killed(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "terminated"
    code = PARENT.format(child=CHILD.format(mark=str(mark)), name=name)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert not has_ended(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while not has_ended(child):
        assert time.monotonic() < deadline, f"process {child} outlived its parent"
        time.sleep(0.02)
    assert mark.exists() == (name == "SIGTERM")


def test_die_with_parent_exits_when_the_parent_has_died_already() -> None:
    pid = os.fork()
    if pid == 0:
        from trainkit.processes import die_with_parent

        die_with_parent(os.getppid() + 1, signal.SIGTERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
