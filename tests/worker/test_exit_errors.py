"""An exit status becomes a sentence for people."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from worker import exit_errors
from worker.processes import Exit


def test_a_kill_by_the_kernel_is_called_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").write_text("last words\n")
    monkeypatch.setattr(exit_errors, "kernel_kills", lambda: 8)
    error = exit_errors.error_of_exit(Exit(None, signal.SIGKILL, 300 << 20), 7, tmp_path / "log")
    assert error["code"] == "out_of_memory"
    assert error["layer"] == "resource"
    assert "300 MiB" in error["message"]
    assert "batch_size" in error["hint"]
    assert error["evidence"]["log"] == "last words"


def test_a_kill_from_outside_is_not_called_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_errors, "kernel_kills", lambda: 7)
    error = exit_errors.error_of_exit(Exit(None, signal.SIGKILL, 1 << 20), 7, tmp_path / "none")
    assert (error["code"], error["layer"]) == ("process_killed", "platform")


@pytest.mark.parametrize(
    ("ended", "code", "word"),
    [
        (Exit(None, signal.SIGSEGV, 0), "process_crashed", "SIGSEGV (exit 139)"),
        (Exit(3, None, 0), "process_failed", "exit code 3"),
    ],
)
def test_crashes_and_bare_exits_are_named(tmp_path: Path, ended: Exit, code: str, word: str) -> None:
    error = exit_errors.error_of_exit(ended, 0, tmp_path / "none")
    assert error["code"] == code
    assert word in error["message"]
    assert error["retryable"]


def test_the_machine_s_numbers_can_be_read() -> None:
    assert exit_errors.kernel_kills() >= 0
    assert exit_errors.memory_limit() > 1 << 28
