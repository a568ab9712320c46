"""The audit log is kept by hand in these tests, and not every second."""

from __future__ import annotations

import pytest

from service.audit import background


@pytest.fixture(autouse=True)
def kept_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "SEAL_SECONDS", 3600.0)
