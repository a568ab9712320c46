"""A training process that hangs, or that takes more memory than it may, is found out, killed and explained."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import trainkit.fit.loop.fit  # noqa: F401 - before the forks, as a worker does
from tests.support.worker_context import Place
from worker.processes import ForkedProcess, fork
from worker.supervisor import claim_and_supervise
from worker.watchdog import CHECK_SECONDS, Watchdog, process_state

MIB = 2**20


@contextmanager
def child(run: object, folder: Path) -> Iterator[ForkedProcess]:
    process = fork(run, log=folder / "log.txt")  # type: ignore[arg-type]
    try:
        yield process
    finally:
        process.kill()


def verdict_of(dog: Watchdog, process: ForkedProcess, seconds: float = 30) -> dict[str, object] | None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if (verdict := dog.check(process)) is not None:
            return verdict
        time.sleep(CHECK_SECONDS / 5)
    return None


def test_a_beating_process_is_left_alone_and_a_silent_one_is_not(tmp_path: Path) -> None:
    dog = Watchdog(tmp_path / "log.txt", 0, 1.0)

    def beats_for_two_seconds() -> None:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            dog.pulse.beat()
            time.sleep(0.02)
        time.sleep(600)

    with child(beats_for_two_seconds, tmp_path) as process:
        begun = time.monotonic()
        verdict = verdict_of(dog, process)
        assert verdict is not None
        assert time.monotonic() - begun > 2.5
        assert (verdict["code"], verdict["layer"], verdict["retryable"]) == ("process_wedged", "platform", True)
        assert dog.check(process) is verdict


def test_without_patience_silence_is_no_fault(tmp_path: Path) -> None:
    with child(lambda: time.sleep(600), tmp_path) as process:
        assert verdict_of(Watchdog(tmp_path / "log.txt", 0, 0.0), process, seconds=1.5) is None


def test_too_much_memory_is_found(tmp_path: Path) -> None:
    limit_file = tmp_path / "limit"

    def grows() -> None:
        """Until it is over the limit, whatever the kernel takes back meanwhile of the pages that the fork has left it."""
        while not limit_file.exists():
            time.sleep(0.01)
        held = []
        while resident(os.getpid()) < int(limit_file.read_text()) + 50 * MIB:
            held.append(b"x" * (20 * MIB))
        time.sleep(600)

    with child(grows, tmp_path) as process:
        limit = process.memory_bytes() + 100 * MIB
        dog = Watchdog(tmp_path / "log.txt", limit, 0.0)
        (tmp_path / "new").write_text(str(limit))
        (tmp_path / "new").rename(limit_file)
        verdict = verdict_of(dog, process, seconds=120)
        assert verdict is not None, (tmp_path / "log.txt").read_text()
        evidence = verdict["evidence"]
        assert isinstance(evidence, dict)
        assert verdict["code"] == "out_of_memory"
        assert evidence["peak_memory_bytes"] > evidence["memory_limit_bytes"] == limit


def resident(pid: int) -> int:
    return psutil.Process(pid).memory_info().rss


def test_the_kernel_is_asked_what_it_does(tmp_path: Path) -> None:
    with child(lambda: time.sleep(600), tmp_path) as process:
        os.kill(process.pid, signal.SIGSTOP)
        until = time.monotonic() + 10
        while "SIGSTOP" not in process_state(process.pid):
            assert time.monotonic() < until
            time.sleep(0.01)
    assert process_state(process.pid) == "unknown"


def training(place: Place) -> psutil.Process:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for found in psutil.Process().children():
            try:
                if any(file.path.endswith("/spool") for file in found.open_files()):
                    return found
            except psutil.Error:
                continue
        time.sleep(0.01)
    raise AssertionError("no training process")


@pytest.mark.parametrize("stopped", [True, False])
def test_a_wedged_job_goes_on_from_its_checkpoint(place: Place, stopped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by the kernel, or waiting for ever in Python: then the log says where."""
    settings = replace(place.context.settings, wedged_seconds=2.0)
    context = replace(place.context, settings=settings)
    train = {"epochs": 60, "checkpoint_seconds": 0, "seed": 1}
    job = place.submit(place.table(), train=train)
    if not stopped:
        from worker.control import ControlReceiver

        command = ControlReceiver.command
        calls = 0

        def hangs(control: ControlReceiver) -> object:
            nonlocal calls
            calls += 1
            if calls == 30:
                waiting_for_nobody()
            return command(control)

        monkeypatch.setattr(ControlReceiver, "command", hangs)

    def stop_it() -> None:
        until = time.monotonic() + 60
        while (place.job(job).progress or {}).get("epoch", 0) < 3:
            assert time.monotonic() < until
            time.sleep(0.02)
        training(place).suspend()

    thread = threading.Thread(target=stop_it) if stopped else None
    if thread is not None:
        thread.start()
    assert claim_and_supervise(context, "train")
    if thread is not None:
        thread.join()
    row = place.job(job)
    assert (row.state, row.attempts) == ("queued", 1), row.error
    first = place.attempts(job)[0]
    assert first.error is not None
    assert first.error["code"] == "process_wedged"
    evidence = first.error["evidence"]
    assert evidence["silent_seconds"] >= 2
    if stopped:
        assert "SIGSTOP" in evidence["process_state"]
    else:
        assert "waiting_for_nobody" in evidence["log"], "where its threads were"
        monkeypatch.undo()
    place.make_due(job)
    assert claim_and_supervise(place.context, "train")
    row = place.job(job)
    assert row.state == "succeeded"
    assert place.attempts(job)[1].resumed_from_step


def waiting_for_nobody() -> None:
    threading.Event().wait(600)


def test_a_job_over_its_limit_is_killed_and_told_how_much(place: Place) -> None:
    limit = 30 * MIB  # less than torch alone: found at the first look
    context = replace(place.context, settings=replace(place.context.settings, max_job_memory_bytes=limit))
    job = place.submit(place.table(), train={"epochs": 100_000}, resources={"max_attempts": 1})
    import worker.preflight as beginning

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beginning, "does_not_fit", lambda *_: None)  # as if the estimate had been too low
        assert claim_and_supervise(context, "train")
    row = place.job(job)
    assert row.error is not None
    assert (row.state, row.error["code"]) == ("failed", "out_of_memory")
    assert row.error["evidence"]["peak_memory_bytes"] > limit
    assert "30 MiB" in row.error["message"]


def test_what_cannot_fit_never_begins(place: Place) -> None:
    job = place.submit(place.table(), train={"epochs": 2})
    settings = replace(place.context.settings, max_job_memory_bytes=30 * MIB)
    assert claim_and_supervise(replace(place.context, settings=settings), "train")
    row = place.job(job)
    assert row.error is not None
    assert (row.state, row.error["code"], row.error["layer"]) == ("failed", "does_not_fit", "resource")
    assert row.error["evidence"]["limit_bytes"] == 30 * MIB < row.error["evidence"]["needed_bytes"]
