"""Run slow file work in a thread while the loop keeps the lease."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
TICK_SECONDS = 0.1


def run_in_background(work: Callable[[], T], meanwhile: Callable[[], object]) -> T:
    """Run `work` in a thread and call `meanwhile` every tick until it is done; its exception is raised here.

    The thread has always ended when this returns or raises: no thread may be alive when the next child is forked.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=target, name="background-io")
    thread.start()
    try:
        thread.join(TICK_SECONDS)
        while thread.is_alive():
            meanwhile()
            thread.join(TICK_SECONDS)
    finally:
        thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
