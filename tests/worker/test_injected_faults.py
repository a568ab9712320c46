"""Every fault that can be injected ends as the catalogue says: its code, a message that names the thing, evidence."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import trainkit.fit.loop.fit  # noqa: F401 - before the forks, as a worker does
from tests.support import (
    faults_attempts,  # noqa: F401 - each enters its faults in the table
    faults_disks,  # noqa: F401
    faults_processes,  # noqa: F401
    faults_specs,  # noqa: F401
)
from tests.support.fault_table import FAULTS, Scene
from tests.support.worker_context import Place, copied_place
from trainkit.spec.failures import FAILURES

OURS = {
    "supervisor_failed": "only a mistake of ours brings it about",
    "internal_error": "only a mistake of ours brings it about",
}
NOT_OF_JOBS = {
    "process_killed": "an attempt's: the job is queued again, or ends as worker_lost (the fault SIGKILL asserts it)",
    "checkpoint_unusable": "an attempt's too: the next one takes the checkpoint before",
    "too_slow": "of a dataset's check (test_injected_data_faults)",
    "intake_died": "of a dataset's check (test_injected_data_faults)",
    "deleted": "of a dataset (test_injected_data_faults)",
    "out_of_time": "of a variant of an investigation (tests/trainkit/fit/test_investigate)",
    "no_trial_succeeded": "of an experiment (tests/service/experiments)",
}


@pytest.fixture(scope="module")
def stage(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    folder = tmp_path_factory.mktemp("stage")
    place = copied_place(migrated_sqlite, folder)
    return place, place.table()


@pytest.fixture
def scene(stage: tuple[Place, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    instance = Scene(*stage, monkeypatch, tmp_path)
    yield instance
    instance.close()
    shutil.rmtree(instance.place.context.settings.scratch, ignore_errors=True)


@pytest.mark.parametrize("name", FAULTS)
def test_it_ends_as_the_catalogue_says(name: str, scene: Scene) -> None:
    fault = FAULTS[name]
    acting = fault.act(scene)
    next(acting)
    if not scene.job:
        scene.submit()
    if scene.row().state == "queued":
        scene.run()
    assert next(acting, "over") == "over"
    row = scene.row()
    error = row.error
    assert (row.state, (error or {}).get("code")) == (fault.state, fault.code), error
    if error is None:
        return
    assert fault.code is not None
    known = FAILURES[fault.code]
    assert (error["code"], error["layer"], error["retryable"]) == (fault.code, known.layer, known.retryable)
    assert (known.layer == "internal") == (fault.code in OURS)
    assert fault.named in error["message"]
    assert error["hint"]
    assert [key for key in fault.evidence if not error["evidence"].get(key)] == []


def test_every_code_that_a_job_can_end_with_is_reached() -> None:
    reached = {fault.code for fault in FAULTS.values() if fault.code is not None}
    assert FAILURES.keys() - NOT_OF_JOBS.keys() <= reached
    assert reached <= FAILURES.keys()
    assert len(FAULTS) >= 40
    assert {code for code in reached if FAILURES[code].layer == "internal"} == OURS.keys()
