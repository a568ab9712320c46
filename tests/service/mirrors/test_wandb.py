"""Offline runs of Weights & Biases that grow while a job runs, read by W&B's own classes and its own uploader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.mirrors import copying
from service.mirrors.wandb_files import BLOCK, RunDescription, entries, exit_record, header_record, history_record
from tests.support.api import Served, resume_elsewhere, row
from tests.support.mirrors import copy_due, create_mirror, let_retry, mirrored
from tests.support.wandb_reader import entries_of, records_of, series
from tests.support.wandb_server import sync


@pytest.fixture
def mirror(served: Served) -> dict[str, Any]:
    return create_mirror(served, kind="wandb")


def path_of(served: Served, folder: Path, mirror: dict[str, Any], job: str) -> Path:
    return folder / str(mirrored(served, mirror, job)["external_id"])


def die_at(place: str) -> Callable[[str], None]:
    def fail(point: str) -> None:
        if point == place:
            raise OSError("the process died")

    return fail


def test_a_job_is_uploaded_by_wandb_sync_with_each_row_once(
    served: Served, folder: Path, mirror: dict[str, Any], tmp_path: Path
) -> None:
    job = served.submit(name="digits, wide", labels={"team": "vision", "keep": ""}, group="widths")
    claimed = served.claim()
    served.append(claimed, row("loss", 9.0, 1, "sanity_check"), row("loss", 8.0, 3, "sanity_check"))
    for step in range(1, 5):
        served.append(claimed, row("loss", 1.0 / step, step, "train"))
        copy_due(served)
        served.append(claimed, row("accuracy", step / 8, step))
    claimed = resume_elsewhere(served, claimed, 6)
    for step in (3, 4, 5):
        served.append(claimed, row("loss", float("nan") if step == 4 else 10.0 * step, step, "train"))
        copy_due(served)
    served.client.patch(f"/v1/jobs/{job}", json={"name": "digits, wider", "notes": "first try"}).raise_for_status()
    served.finish(claimed)
    copy_due(served)
    path = path_of(served, folder, mirror, job)
    assert mirrored(served, mirror, job)["state"] == "complete"

    uploaded = sync(path.parent, tmp_path / "home")
    rows = {line["_step"]: line for line in uploaded.history}
    assert [line["_step"] for line in uploaded.history] == [1, 2, 3, 4, 5]
    assert [rows[step]["train/loss"] for step in (1, 2, 3, 5)] == [1.0, 0.5, 30.0, 50.0]
    assert repr(rows[4]["train/loss"]) == "nan"
    assert [rows[step].get("val/accuracy") for step in (1, 2, 3, 4, 5)] == [0.125, 0.25, None, None, None]
    assert [rows[step].get("sanity_check/loss") for step in (1, 2, 3)] == [9.0, None, 8.0]
    assert [rows[step]["epoch"] for step in (1, 5)] == [1, 5]
    assert all(line["_timestamp"] > 1e9 and "_runtime" in line for line in uploaded.history)
    assert (uploaded.summary["train/loss"], uploaded.summary["_step"], uploaded.exit_code) == (50.0, 5, 0)
    run, config = uploaded.run, json.loads(uploaded.run["config"])
    assert (run["name"], run["displayName"], run["notes"]) == (job, "digits, wider", "first try")
    assert (run["groupName"], set(run["tags"])) == ("widths", {"team=vision", "keep"})
    assert config["trainkit"]["value"]["job_id"] == job
    assert config["model"]["value"]["kind"] == "mlp"


@pytest.mark.parametrize("place", ["after_mirror_begin", "after_mirror_write", "after_mirror_state"])
def test_what_was_written_and_not_noted_is_there_once(
    served: Served, folder: Path, mirror: dict[str, Any], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    job = served.submit()
    claimed = served.claim()
    served.append(claimed, *(row("loss", float(step), step) for step in (1, 2, 3)))
    with monkeypatch.context() as dying:
        dying.setattr(copying, "fp", die_at(place))
        copy_due(served)
    served.append(claimed, *(row("loss", float(step), step) for step in (4, 5)))
    served.finish(claimed)
    with monkeypatch.context() as dying:
        dying.setattr(copying, "fp", die_at("after_mirror_state"))
        let_retry(served)
        copy_due(served)
    let_retry(served)
    copy_due(served)
    path = path_of(served, folder, mirror, job)
    assert series(path, "val/loss") == [(step, float(step)) for step in (1, 2, 3, 4, 5)]
    kinds = [record.WhichOneof("record_type") for record in records_of(path)]
    assert (kinds.count("exit"), kinds[0], kinds[-1]) == (1, "header", "exit")


def test_any_torn_write_is_cut_off(served: Served, folder: Path, mirror: dict[str, Any]) -> None:
    job = served.submit()
    claimed = served.claim()
    expected = []
    for step in range(1, 6):
        served.append(claimed, row("loss", float(step), step))
        copy_due(served)
        path = path_of(served, folder, mirror, job)
        path.write_bytes(path.read_bytes() + bytes(range(17 * step)))
        expected.append((step, float(step)))
    served.finish(claimed)
    copy_due(served)
    assert series(path, "val/loss") == expected


def test_a_process_that_dies_while_it_writes_anew_leaves_each_step_once(
    served: Served, folder: Path, mirror: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = served.submit()
    claimed = served.claim()
    served.append(claimed, *(row("loss", float(step), step) for step in range(1, 6)))
    copy_due(served)
    claimed = resume_elsewhere(served, claimed, 2)
    served.append(claimed, row("loss", 30.0, 3))
    for place in ("after_mirror_write", "after_mirror_write"):
        with monkeypatch.context() as dying:
            dying.setattr(copying, "fp", die_at(place))
            let_retry(served)
            copy_due(served)
    claimed = resume_elsewhere(served, claimed, 6)
    served.append(claimed, row("loss", 40.0, 4))
    served.finish(claimed)
    let_retry(served)
    copy_due(served)
    assert series(path_of(served, folder, mirror, job), "val/loss") == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]


def test_a_file_that_was_lost_is_written_anew_on_demand(served: Served, folder: Path, mirror: dict[str, Any]) -> None:
    job = served.submit()
    claimed = served.claim()
    served.append(claimed, row("loss", 1.0, 1), row("loss", 2.0, 2))
    copy_due(served)
    path_of(served, folder, mirror, job).unlink()
    served.append(claimed, row("loss", 3.0, 3))
    served.finish(claimed)
    copy_due(served)
    shown = mirrored(served, mirror, job)
    assert (shown["state"], "shorter" in shown["error"]) == ("failed", True)
    served.client.post(f"/v1/mirrors/{mirror['id']}/jobs/{job}/retry").raise_for_status()
    copy_due(served)
    path = path_of(served, folder, mirror, job)
    assert series(path, "val/loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert records_of(path)[-1].exit.exit_code == 0


def test_entries_of_any_length_fit_into_blocks_wherever_they_begin() -> None:
    for length in (0, 1, 40, BLOCK - 20, BLOCK, 3 * BLOCK):
        for left in range(20):
            body = entries([b""], 0, 0)[0]
            first = b"\x9a\x01" + b"x" * (BLOCK - left - len(body) - 14)
            for offset_records in ([first], [b"\x9a\x01" + b"y" * length], [b"z"]):
                more, _ = entries(offset_records, 0, len(body))
                body += more
            assert [len(entry) for entry in entries_of(body)] == [2, len(first) + 2, length + 4, 3]


def test_wandb_sync_reads_entries_at_every_distance_from_the_end_of_a_block(tmp_path: Path) -> None:
    run = RunDescription("job_1", "digits", "one", None, None, [], {}, 1.7e9)
    body, number = entries([header_record(), *run.records()], 0, 0)
    steps = 0
    for left in range(12):
        end = (len(body) // BLOCK + 2) * BLOCK - left
        steps += 2
        spare = end - len(body)
        # a name that makes the entry end `left` bytes before the end of a block
        for length in range(spare - 80, spare):
            more, _ = entries([history_record(steps - 1, {"x" * length: 1.0})], number, len(body))
            if len(body) + len(more) == end:
                break
        else:
            raise AssertionError(f"no entry ends {left} bytes before the end of a block")
        body += more
        more, number = entries([history_record(steps, {"a": 2.0})], number + 1, len(body))
        body += more
    body += entries([exit_record(0, 1)], number, len(body))[0]
    folder = tmp_path / "offline-run-20260101_000000-job_1"
    folder.mkdir()
    (folder / "run-job_1.wandb").write_bytes(body)
    uploaded = sync(folder, tmp_path / "home")
    assert [line["_step"] for line in uploaded.history] == list(range(1, steps + 1))
