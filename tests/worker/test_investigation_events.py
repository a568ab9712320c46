"""How the events of an investigation become those of a job: named series, progress of the whole, checkpoints."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from trainkit.fit.checkpoint import CheckpointError
from trainkit.spec.investigation import default_seconds, variant_file
from worker import investigation
from worker.investigation import EventLog

Event = dict[str, Any]


def variant(name: str, state: str, **result: Any) -> Event:
    return {"type": "variant", "name": name, "patch": {"a": 1}, "cause": None, "state": state, "result": result or None}


def logged(folder: Path, *events: Event, seconds: float | None = None, jobs: int | None = 4) -> list[Event]:
    sent: list[Event] = []
    log = EventLog(sent.append, folder, seconds, jobs)
    for event in events:
        log.take(event)
    return sent


def of(sent: list[Event], kind: str) -> list[Event]:
    return [event for event in sent if event["type"] == kind]


def test_variants_are_numbered_also_where_several_run_at_once(tmp_path: Path) -> None:
    names = [("a", "running"), ("b", "running"), ("b", "succeeded"), ("a", "failed"), ("c", "running")]
    sent = logged(tmp_path, *(variant(name, state) for name, state in names))
    shown = [(event["name"], event["number"], event["position"]) for event in of(sent, "variant")]
    assert shown == [("a", 1, 1), ("b", 2, 2), ("b", 2, 3), ("a", 1, 4), ("c", 3, 5)]
    assert [event["phase"] for event in of(sent, "phase")] == ["variant 1: a", "variant 2: b", "variant 3: c"]
    assert [event["percent"] for event in of(sent, "progress")] == [0, 0, 25, 50, 50]


def test_an_event_has_no_path_and_no_series(tmp_path: Path) -> None:
    result = {"metrics": {"val_loss": 1.0}, "series": {"val_loss": {}}, "artifact": "/w/variants/a/model", "skill": 0.5}
    sent = logged(tmp_path, variant("a", "succeeded", **result))
    assert of(sent, "variant")[0]["result"] == {"metrics": {"val_loss": 1.0}, "skill": 0.5}


def test_rows_are_named_after_their_variant_and_those_of_layers_are_left_out(tmp_path: Path) -> None:
    rows = [["train", "loss", 0.5], ["val", "loss", 0.6], ["layers", "grad_norm.head", 1.0], ["test", "loss", 0.7]]
    event = {"type": "metrics", "variant": "rate_tenth", "step": 3, "epoch": 1, "at": 5.0, "rows": rows}
    sent = of(logged(tmp_path, event), "metrics")
    named = [["variant", "rate_tenth.train_loss", 0.5], ["variant", "rate_tenth.val_loss", 0.6]]
    assert sent == [{"type": "metrics", "step": 3, "epoch": 1, "at": 5.0, "rows": named}]


def test_a_checkpoint_brings_back_the_state_and_the_weights(tmp_path: Path) -> None:
    model = tmp_path / "first" / "variants" / "a"
    model.mkdir(parents=True)
    (model / "model.json").write_text("{}")
    state = {"type": "investigation_state", "state": {"results": [1, 2.5, None]}}
    sent = logged(model.parents[1], variant("a", "succeeded"), state)
    checkpoint = of(sent, "checkpoint")[0]
    path = Path(checkpoint["path"])
    assert (checkpoint["step"], checkpoint["bytes"]) == (1, path.stat().st_size)
    assert checkpoint["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

    second, again = tmp_path / "second", list[Event]()
    second.mkdir()
    log = EventLog(again.append, second, None, 4)
    assert log.resume(path) == state["state"]
    assert (second / "variants" / "a" / "model.json").read_text() == "{}"
    assert again == [{"type": "resumed", "step": 1, "exact": True, "reason": None}]
    log.take(variant("b", "running"))
    assert of(again, "variant")[0]["number"] == 2


def test_weights_beyond_the_limit_are_no_part_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(investigation, "MAX_PACKED_BYTES", 3)
    (tmp_path / "variants").mkdir()
    (tmp_path / "variants" / "w").write_bytes(b"1234")
    events = [{"type": "investigation_state", "state": {}}, variant("a", "succeeded")] * 4
    sent = logged(tmp_path, *events)
    with zipfile.ZipFile(of(sent, "checkpoint")[-1]["path"]) as file:
        assert file.namelist() == ["state.json"]
    assert len(list(tmp_path.glob("investigation-*.zip"))) == 2


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"no archive"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(CheckpointError):
        EventLog(lambda _: None, tmp_path, None, 4).resume(tmp_path / "c")


def test_the_device_is_reported_once(tmp_path: Path) -> None:
    state = {"type": "investigation_state", "state": {"runtime": {"device": "cpu", "threads": 1}}}
    sent = of(logged(tmp_path, state, state), "runtime")
    assert [(event["device"], event["parameters"]) for event in sent] == [("cpu", 0)]


def test_the_default_budget_and_names_of_files() -> None:
    assert [default_seconds(t) for t in (0, 1, 5, 20, 3600)] == [10, 10, 15, 60, 60]
    assert variant_file("a+b@1-4") == "variant-a-b-1-4.safetensors"
