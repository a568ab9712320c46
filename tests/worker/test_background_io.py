"""Slow work in a thread: its result, its exception, and the loop that goes on meanwhile."""

from __future__ import annotations

import threading

import pytest

from worker.background_io import run_in_background


def test_the_loop_goes_on_until_the_work_is_done() -> None:
    beats: list[int] = []
    done = threading.Event()

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:
            done.set()

    assert run_in_background(lambda: done.wait(20), beat) is True
    assert len(beats) >= 3


def test_exceptions_of_both_come_out_and_no_thread_stays() -> None:
    with pytest.raises(ZeroDivisionError):
        run_in_background(lambda: 1 // 0, lambda: None)

    def stop() -> None:
        raise KeyError

    done = threading.Event()
    timer = threading.Timer(0.5, done.set)
    timer.start()
    with pytest.raises(KeyError):
        run_in_background(lambda: done.wait(20), stop)
    assert not any(thread.name == "background-io" for thread in threading.enumerate())
