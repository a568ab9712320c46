"""A worker's place on each database."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.support.worker_context import Place, make_place
from trainkit.fit import device


@pytest.fixture
def place(migrated_url: str, tmp_path: Path) -> Place:
    return make_place(migrated_url, tmp_path)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No attempt tries a second thread, however slow the machine: a process forked from one that has computed with two
    waits for the other for ever (GNU OpenMP). A worker's parent never computes; this process may have, in other tests.
    """
    monkeypatch.setattr(device, "WORTH_THREADS_SECONDS", math.inf)
