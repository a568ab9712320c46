"""Faults of the training process itself: killed, crashed, out of memory, hanging, ended from within."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from service.jobs import service as jobs
from tests.support.fault_table import MIB, Scene, add, fault
from tests.support.transactions import transact
from worker import exit_errors, preflight, supervisor


def dies_by(number: int) -> Callable[[Scene], Iterator[None]]:
    def act(scene: Scene) -> Iterator[None]:
        scene.at_step(3, lambda: os.kill(os.getpid(), number))
        yield
        assert "Fatal Python error" in (scene.row().error or {})["evidence"]["log"], "where it was"

    return act


for killer in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL):
    add(killer.name, dies_by(killer), "process_crashed", f"{killer.name} (exit {128 + killer})", "log", "exit_status")


def does(work: Callable[[], Any]) -> Callable[[Scene], Iterator[None]]:
    def act(scene: Scene) -> Iterator[None]:
        scene.at_step(3, work)
        yield

    return act


def raises(error: BaseException) -> Callable[[Scene], Iterator[None]]:
    def work() -> None:
        raise error

    return does(work)


add("os._exit", does(lambda: os._exit(3)), "process_failed", "exit code 3", "exit_status", "log")
add("sys.exit", does(lambda: sys.exit("enough")), "process_failed", "SystemExit: enough", "traceback", "log")
add("a keyboard interrupt", raises(KeyboardInterrupt()), "process_failed", "KeyboardInterrupt", "traceback")
add("MemoryError", raises(MemoryError()), "out_of_memory", "no memory", "next_spec", "log", "peak_memory_bytes")
add("torch's allocator", does(lambda: torch.empty(1 << 50)), "out_of_memory", "you tried to allocate", "next_spec")
add("numpy's allocator", does(lambda: np.ones(1 << 50)), "out_of_memory", "Unable to allocate", "next_spec")
add("no memory to map", raises(OSError(12, "Cannot allocate memory")), "out_of_memory", "Cannot", "next_spec")
add(
    "torch.OutOfMemoryError",
    raises(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")),
    "out_of_gpu_memory",
    "Tried to allocate 2 GiB",
    "next_spec",
    "log",
)
for words in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"):
    add(words[:40], raises(torch.AcceleratorError(words)), "out_of_gpu_memory", words[:30], "next_spec")
add(
    "an illegal memory access",
    raises(torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")),
    "process_crashed",
    "illegal memory access",
    "traceback",
    "log",
)
add(
    "a value that nothing takes", raises(ValueError("kernel larger than image")), "not_trainable", "kernel", "traceback"
)
add("a mistake of ours in the loop", raises(ZeroDivisionError("ours")), "internal_error", "ZeroDivisionError: ours")


@fault("out_of_memory", "the kernel killed it (exit 137)", "next_spec", "memory_limit_bytes", "peak_memory_bytes")
def the_kernel_runs_out_of_memory(scene: Scene) -> Iterator[None]:
    scene.patch.setattr(exit_errors, "kernel_kills", itertools.count().__next__)
    scene.at_step(3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    yield


@fault(None, state="queued")
def SIGKILL(scene: Scene) -> Iterator[None]:  # noqa: N802 - its name
    scene.at_step(3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    yield
    error, row = scene.attempt().error or {}, scene.row()
    assert (error["code"], error["layer"], error["retryable"]) == ("process_killed", "platform", True)
    assert "killed from outside (SIGKILL, exit 137)" in error["message"]
    assert error["evidence"]["peak_memory_bytes"] > MIB
    assert (scene.attempt().outcome, row.attempts, row.interruptions) == ("lost", 0, 1)


@fault("worker_lost", "lost 1 times without progress: the process was killed from outside", "worker", "interruptions")
def SIGKILL_too_often(scene: Scene) -> Iterator[None]:  # noqa: N802
    scene.settings = {"max_interruptions": 0}
    scene.at_step(3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    yield


# no log asked for: the first look may come before its first word
@fault("out_of_memory", "the job's limit is 30 MiB", "next_spec", "peak_memory_bytes", "memory_limit_bytes")
def more_memory_than_the_job_may(scene: Scene) -> Iterator[None]:
    scene.settings = {"max_job_memory_bytes": 30 * MIB}
    scene.patch.setattr(preflight, "does_not_fit", lambda *_: None)  # as if the estimate had been too low
    scene.at_step(3, lambda: time.sleep(600))
    yield


@fault("does_not_fit", "", "needed_bytes", "limit_bytes")
def a_job_that_cannot_fit(scene: Scene) -> Iterator[None]:
    scene.settings = {"max_job_memory_bytes": 30 * MIB}
    yield
    assert scene.row().next_seq == 1, "it never began"


@fault("process_wedged", "made no step for", "silent_seconds", "process_state", "log")
def a_deadlock(scene: Scene) -> Iterator[None]:
    scene.settings = {"wedged_seconds": 1.0}
    scene.at_step(3, waiting_for_ever)
    yield
    assert "waiting_for_ever" in (scene.row().error or {})["evidence"]["log"]


def waiting_for_ever() -> None:
    threading.Event().wait(600)


@fault(None, state="cancelled")
def a_cancel_while_it_hangs(scene: Scene) -> Iterator[None]:
    hangs = scene.folder / "hangs"
    scene.settings = {"confinement": "off"}  # so that the process can leave a mark for this one

    def hang() -> None:
        hangs.touch()
        waiting_for_ever()

    def cancel() -> None:
        until = time.monotonic() + 60
        while not hangs.exists() and time.monotonic() < until:
            time.sleep(0.02)
        transact(scene.service(), jobs.cancel, scene.place.who, scene.job)

    scene.at_step(3, hang)
    scene.submit()
    client = threading.Thread(target=cancel)
    client.start()
    begun = time.monotonic()
    yield
    client.join()
    assert time.monotonic() - begun < 60
    assert (scene.row().error, scene.attempt().outcome) == (None, "cancelled")


@fault("supervisor_failed", "ZeroDivisionError: ours", "traceback")
def a_mistake_of_ours_in_the_supervisor(scene: Scene) -> Iterator[None]:
    def watch(*_: object) -> None:
        raise ZeroDivisionError("ours")

    scene.patch.setattr(supervisor.Supervisor, "_watch", watch)
    yield


@fault("spool_damaged", "a damaged line after byte", "log")
def a_spool_with_a_damaged_line(scene: Scene) -> Iterator[None]:
    scene.settings = {"confinement": "off"}  # so that it finds its spool by the job

    def damage() -> None:
        (spool,) = (scene.place.context.settings.scratch / scene.job).glob("*/spool")
        with spool.open("ab") as file:
            file.write(b"00000000 {}\n")

    scene.at_step(3, damage)
    scene.submit()
    yield
