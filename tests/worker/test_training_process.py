"""The attempt's log says what a person wants to know, in a line each."""

from __future__ import annotations

from typing import Any

import pytest

from worker.training_process import log_line, usable_runtime


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"type": "log", "level": "warning", "message": "careful"}, "warning careful"),
        ({"type": "phase", "phase": "preparing data"}, "info preparing data"),
        ({"type": "phase", "phase": "epoch 3/20"}, None),
        ({"type": "metrics", "rows": []}, None),
        ({"type": "decision", "action": "continue", "reason": "x"}, None),
        ({"type": "decision", "action": "stop", "reason": "no gain"}, "info stopping: no gain"),
        (
            {"type": "best", "epoch": 2, "metric": "val_loss", "value": 0.123456789},
            "info epoch 2 is the best so far: val_loss 0.123457",
        ),
        ({"type": "failed", "error": {"code": "invalid_data", "message": "row 3"}}, "error invalid_data: row 3"),
    ],
)
def test_events_as_log_lines(event: dict[str, Any], line: str | None) -> None:
    assert log_line(event) == line


def test_choices_for_a_gpu_that_is_not_here_are_made_anew_and_said() -> None:
    messages: list[dict[str, Any]] = []
    assert usable_runtime(None, messages.append) is None
    assert usable_runtime({"device": "cpu", "threads": 1}, messages.append) == {"device": "cpu", "threads": 1}
    assert not messages
    import torch

    if not torch.cuda.is_available():
        assert usable_runtime({"device": "cuda:0"}, messages.append) is None
        assert messages[0]["level"] == "warning"
