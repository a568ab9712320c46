"""Children: restarted with back-off, stopped, logs rotated, and none left when the parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from service.cli.managed_process import ManagedProcess, rotate, wait_all


def make(tmp_path: Path, *command: str) -> ManagedProcess:
    return ManagedProcess("part", list(command), dict(os.environ), tmp_path / "part.log")


def tend_until(child: ManagedProcess, restarts: int) -> list[str]:
    news = []
    deadline = time.monotonic() + 20
    while child.restarts < restarts and time.monotonic() < deadline:
        if message := child.restart_if_due():
            news.append(message)
        time.sleep(0.01)
    return news


def test_a_crashed_child_is_started_again_and_said_so(tmp_path: Path) -> None:
    child = make(tmp_path, sys.executable, "-c", "import os; print('hello', flush=True); os.kill(os.getpid(), 9)")
    child.start()
    news = tend_until(child, restarts=1)
    child.kill()
    assert child.restarts == 1
    assert "killed by SIGKILL" in news[0]
    assert str(child.log) in news[0]
    assert "hello" in child.last_lines()


def test_the_back_off_doubles(tmp_path: Path) -> None:
    child = make(tmp_path, "false")
    child.start()
    news = tend_until(child, restarts=2)
    child.kill()
    assert [text.split(" again in ")[1].split()[0] for text in news[:2]] == ["0.5", "1"]


def test_a_running_child_is_left_alone_and_stops_on_sigterm(tmp_path: Path) -> None:
    child = make(tmp_path, "sleep", "60")
    child.start()
    assert child.restart_if_due() is None
    assert not wait_all([child], 0.1)
    child.signal(signal.SIGTERM)
    assert wait_all([child], 20)
    child.signal(signal.SIGTERM)
    child.kill()


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = """
import os, sys, time, pathlib
from service.cli.managed_process import ManagedProcess
child = ManagedProcess("part", ["sleep", "60"], dict(os.environ), pathlib.Path(sys.argv[1]) / "part.log")
child.start()
print(child.process.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    orphan = Path("/proc") / parent.stdout.readline().strip()
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while orphan.exists() and "(zombie)" not in (orphan / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_logs_rotate_and_the_oldest_goes(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    for number in range(6):
        rotate(log)
        log.write_text(str(number))
    assert [path.read_text() for path in sorted(tmp_path.glob("part.log*"))] == ["5", "4", "3", "2"]
