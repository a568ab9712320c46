"""Event files that grow while a job runs, read by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from service.mirrors import copying
from tests.support.api import Served, resume_elsewhere, row
from tests.support.mirrors import copy_due, create_mirror, let_retry, mirrored


def scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    reader = EventAccumulator(str(path.parent), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(one.step, one.value) for one in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_tensorboard_sees_a_job_grow_and_a_step_that_is_run_again_once(served: Served, folder: Path) -> None:
    mirror = create_mirror(served, kind="tensorboard")
    assert (mirror["artifacts"], mirror["url"]) == (False, None)
    job = served.submit()
    claimed = served.claim()
    served.append(claimed, *(row("loss", 1.0 / step, step) for step in range(1, 5)))
    copy_due(served)
    path = folder / mirrored(served, mirror, job)["external_id"]
    assert scalars(path) == {"val/loss": [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]}
    claimed = resume_elsewhere(served, claimed, 2)
    served.append(claimed, row("loss", 3.0, 3), row("loss", 4.0, 4), row("loss", 5.0, 5))
    served.finish(claimed)
    copy_due(served)
    assert scalars(path) == {"val/loss": [(1, 1.0), (2, 0.5), (3, 3.0), (4, 4.0), (5, 5.0)]}
    assert mirrored(served, mirror, job)["state"] == "complete"


def test_a_second_resume_takes_back_its_own_steps_alone(served: Served, folder: Path) -> None:
    """The first resume began before step 2, the second before step 5: steps 2 to 4 of the second attempt stay."""
    mirror = create_mirror(served, kind="tensorboard")
    job = served.submit()
    claimed = served.claim()
    served.append(claimed, *(row("loss", 1.0, step) for step in range(1, 4)))
    copy_due(served)
    claimed = resume_elsewhere(served, claimed, 1)
    served.append(claimed, *(row("loss", 2.0, step) for step in range(2, 7)))
    copy_due(served)
    claimed = resume_elsewhere(served, claimed, 6)  # step 4 of the second attempt
    served.append(claimed, *(row("loss", 3.0, step) for step in range(5, 8)))
    served.finish(claimed)
    copy_due(served)
    path = folder / mirrored(served, mirror, job)["external_id"]
    second, third = ((step, 2.0) for step in (2, 3, 4)), ((step, 3.0) for step in (5, 6, 7))
    assert scalars(path) == {"val/loss": [(1, 1.0), *second, *third]}


def test_what_was_written_and_not_noted_is_there_once(
    served: Served, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = create_mirror(served, kind="tensorboard")
    job = served.submit()
    claimed = served.claim()
    served.append(claimed, row("loss", 1.0, 1))
    copy_due(served)
    served.append(claimed, row("loss", 2.0, 2))

    def die(point: str) -> None:
        if point == "after_mirror_write":
            raise OSError("the process died")

    with monkeypatch.context() as dying:
        dying.setattr(copying, "fp", die)
        copy_due(served)
    path = folder / mirrored(served, mirror, job)["external_id"]
    assert len(scalars(path)["val/loss"]) == 2, "written, and not noted"
    served.append(claimed, row("loss", 3.0, 3))
    let_retry(served)
    copy_due(served)
    assert scalars(path) == {"val/loss": [(1, 1.0), (2, 2.0), (3, 3.0)]}


def test_a_file_that_was_lost_is_written_anew_on_demand(served: Served, folder: Path) -> None:
    mirror = create_mirror(served, kind="tensorboard")
    job = served.submit()
    claimed = served.claim()
    served.append(claimed, row("loss", 1.0, 1))
    copy_due(served)
    path = folder / mirrored(served, mirror, job)["external_id"]
    path.unlink()
    served.append(claimed, row("loss", 2.0, 2))
    copy_due(served)
    shown = mirrored(served, mirror, job)
    assert (shown["state"], "shorter" in shown["error"]) == ("failed", True)
    served.client.post(f"/v1/mirrors/{mirror['id']}/jobs/{job}/retry").raise_for_status()
    copy_due(served)
    assert scalars(path) == {"val/loss": [(1, 1.0), (2, 2.0)]}
