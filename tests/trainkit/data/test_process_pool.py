"""The process pool completes all tasks although workers die."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from trainkit.data import process_pool


@pytest.mark.timeout(60)
def test_pool_discards_a_dead_worker_while_another_has_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are ready at one look; burying the first listens to the second, who then has nothing more to say."""

    def late(pipes: list[Any], timeout: float) -> list[Any]:
        time.sleep(0.5)
        return real(pipes, timeout)

    def work(task: str) -> str:
        time.sleep(0.1)
        if task == "die":
            os._exit(1)
        return task.upper()

    real = process_pool.wait
    monkeypatch.setattr(process_pool, "wait", late)
    with process_pool.ProcessPool(work, 2) as two:
        done = dict(two.map(["die", "a", "b", "c"]))
    assert isinstance(done.pop("die"), process_pool.LostTask)
    assert done == {"a": "A", "b": "B", "c": "C"}
