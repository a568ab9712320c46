"""What a worker may begin beside what its other slots do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

WorkClass = Literal["light", "heavy"]
"""Predictions are light: someone waits for each. All else may take minutes, and leaves a slot to predictions."""
Admission = Callable[[str, WorkClass], bool]
"""Whether this worker may begin such work of that project now; what is admitted is begun."""


def admit_all(_project_id: str, _work_class: WorkClass) -> bool:
    """Admit everything: a worker without limits of its own."""
    return True
