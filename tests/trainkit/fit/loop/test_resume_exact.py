"""A resumed run says whether it goes on to the last bit, and if not, why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import trainkit as tk
from tests.support.fit_data import spec, vectors
from tests.support.resume import InterruptAt
from trainkit.fit import device


@pytest.mark.parametrize(
    ("deterministic", "changed", "exact", "reason"),
    [
        (True, {}, True, None),
        (False, {}, False, "train.deterministic is off"),
        (True, {"torch": "9.9"}, False, "changed since the checkpoint: torch {torch} -> 9.9"),
    ],
)
def test_what_the_resumed_run_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deterministic: bool,
    changed: dict[str, str],
    exact: bool,
    reason: str | None,
) -> None:
    document = spec({"kind": "mlp", "hidden": [5]}, train={"deterministic": deterministic})
    events: list[dict[str, Any]] = []
    part = tk.fit(document, vectors(60), on_event=events.append, control=InterruptAt(4), workdir=tmp_path)
    assert [event for event in events if event["type"] == "resumed"] == []
    before = device.versions()
    monkeypatch.setattr(device, "versions", lambda: {**before, **changed})
    tk.fit(document, vectors(60), on_event=events.append, resume_from=part.checkpoint)
    (resumed,) = [event for event in events if event["type"] == "resumed"]
    expected = None if reason is None else reason.format(**before)
    assert resumed == {"type": "resumed", "step": 4, "exact": exact, "reason": expected}


def test_a_gpu_makes_no_promise() -> None:
    runtime = device.Runtime("cuda:0", 1, "float32", False, False, True, {})
    assert not runtime.resume_exact
    assert "cuda:0" in str(runtime.inexact_because)
