"""Full size, as `python -m benchmarks fairness` measures it. Only where the machine does little else: times are absolute."""

from __future__ import annotations

import pytest

from benchmarks import fairness

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def test_the_first_job_of_another_project_begins_when_a_slot_is_free() -> None:
    waits = fairness.first_jobs()
    assert len(waits) == fairness.FIRST_JOBS
    assert max(waits) < 1.0


def test_hostile_uploads_leave_the_predictions_of_another_project_a_slot() -> None:
    found = fairness.predictions()
    assert found.uploaded > fairness.UPLOADERS
    assert len(found.beside) > 3
    assert max(found.beside) < 5.0
