"""Forked children: exits decoded, secrets scrubbed, and no orphan when the parent is killed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker import processes


def wait_until_gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_a_child_that_returns_exits_with_zero(tmp_path: Path) -> None:
    child = processes.fork(lambda: print("hello"), log=tmp_path / "log")
    assert child.wait().clean
    assert (tmp_path / "log").read_text() == "hello\n"
    assert child.exit is not None
    assert child.exit.peak_bytes > 1 << 20


def test_an_exception_is_printed_to_the_log_and_exits_with_one(tmp_path: Path) -> None:
    child = processes.fork(lambda: [][1], log=tmp_path / "log")
    assert child.wait().code == 1
    assert "IndexError" in (tmp_path / "log").read_text()


class Cyclic:
    """An object that only the garbage collector finalises, as a database connection in a cycle is."""

    def __init__(self, mark: Path) -> None:
        self.itself, self.mark = self, mark

    def __del__(self) -> None:
        self.mark.touch()


def test_garbage_of_the_parent_is_not_finalised_in_the_child(tmp_path: Path) -> None:
    gc.disable()
    try:
        Cyclic(tmp_path / "finalised")
        child = processes.fork(lambda: print(gc.collect()), log=tmp_path / "log")
        assert child.wait().clean
        assert not (tmp_path / "finalised").exists()
        gc.collect()
        assert (tmp_path / "finalised").exists(), "the parent itself finalises it"
    finally:
        gc.enable()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, 137), (signal.SIGSEGV, 139)])
def test_a_killed_child_reports_its_signal(tmp_path: Path, number: int, status: int) -> None:
    child = processes.fork(lambda: os.kill(os.getpid(), number), log=tmp_path / "log")
    ended = child.wait()
    assert (ended.code, ended.signal, ended.status) == (None, number, status)


def test_kill_takes_the_whole_session(tmp_path: Path) -> None:
    def run() -> None:
        grandchild = subprocess.Popen(["sleep", "60"])
        print(grandchild.pid, flush=True)
        time.sleep(60)

    child = processes.fork(run, log=tmp_path / "log")
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text().endswith("\n"):
        assert child.poll() is None
        time.sleep(0.02)
    assert child.kill().signal == signal.SIGKILL
    assert wait_until_gone(int((tmp_path / "log").read_text()))


def test_a_child_sees_no_secrets_and_no_foreign_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINKIT_DATABASE_URL", "postgresql+psycopg://user:secret@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    reading, writing = os.pipe()

    def run() -> None:
        for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208
            print("fd", descriptor)
        print(os.environ)

    child = processes.fork(run, log=tmp_path / "log", keep=[reading], threads=3)
    assert child.wait().clean
    text = (tmp_path / "log").read_text()
    os.close(reading)
    os.close(writing)
    assert "secret" not in text
    assert "'OMP_NUM_THREADS': '3'" in text
    assert "'GOMP_SPINCOUNT': '1000'" in text
    descriptors = {line.split()[1] for line in text.splitlines() if line.startswith("fd ")}
    assert {"0", "1", "2", str(reading)} <= descriptors
    assert str(writing) not in descriptors


def test_no_orphan_when_the_parent_is_killed(tmp_path: Path) -> None:
    script = """
import sys, time, pathlib
from worker import processes
child = processes.fork(lambda: time.sleep(60), log=pathlib.Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until_gone(orphan)
