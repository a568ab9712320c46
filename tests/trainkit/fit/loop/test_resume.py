"""Interrupted anywhere and resumed = never interrupted: the same weights, rows and decisions, bit for bit."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import trainkit as tk
from tests.support.fit_data import images, spec, vectors
from tests.support.resume import CASES, InterruptAt, decisions, digest, history, rows
from trainkit.fit import checkpoint, device
from trainkit.fit.checkpoint import CheckpointError


@pytest.mark.parametrize("case", CASES)
def test_resumed_equals_uninterrupted(case, tmp_path):
    make, document = CASES[case]
    data, whole = make(), []
    expected = tk.fit(document, data, on_event=whole.append)
    total = max(event["step"] for event in whole if event["type"] == "metrics")
    chooser = random.Random(case)
    for trial in range(3):
        events: list[dict[str, Any]] = []
        workdir, checkpoint, attempts = tmp_path / str(trial), None, 0
        while True:
            torch.rand(chooser.randrange(5))  # what happens between attempts must not matter
            control = InterruptAt(chooser.randrange(1, total))
            result = tk.fit(
                document, data, on_event=events.append, control=control, workdir=workdir, resume_from=checkpoint
            )
            attempts += 1
            if result.outcome == "finished":
                break
            assert result.stop_reason == "shutdown"
            checkpoint = result.checkpoint
        assert digest(result.model) == digest(expected.model)
        assert rows(events) == rows(whole)
        assert decisions(events) == decisions(whole)
        assert history(result) == history(expected)
        assert result.evaluation == expected.evaluation
        assert (result.stop_reason, result.best_epoch) == (expected.stop_reason, expected.best_epoch)


@pytest.mark.parametrize("train", [{"precision": "bfloat16"}, {"channels_last": True}, {"deterministic": False}])
def test_other_formats_and_layouts_resume_too(train, tmp_path):
    data = images()
    document = spec({"kind": "cnn", "channels": [4]}, train=train)
    expected = tk.fit(document, data)
    part = tk.fit(document, data, control=InterruptAt(8), workdir=tmp_path)
    resumed = tk.fit(document, data, resume_from=part.checkpoint, runtime=part.runtime)
    assert digest(resumed.model) == digest(expected.model)
    assert resumed.evaluation == expected.evaluation


def test_every_single_step_can_be_resumed_from(tmp_path):
    data = vectors(60)
    document = spec({"kind": "mlp", "hidden": [5], "dropout": 0.5}, train={"epochs": 2})
    expected = digest(tk.fit(document, data).model)
    for step in range(1, 7):
        first = tk.fit(document, data, control=InterruptAt(step), workdir=tmp_path / str(step))
        second = tk.fit(document, data, resume_from=first.checkpoint)
        assert digest(second.model) == expected, step


def test_a_checkpoint_by_time_resumes_too(tmp_path):
    data, events = vectors(), []
    document = spec({"kind": "mlp", "hidden": [5]}, train={"checkpoint_seconds": 0})
    expected = tk.fit(document, data, on_event=events.append, workdir=tmp_path)
    saved = [event for event in events if event["type"] == "checkpoint"]
    assert [event["epoch"] for event in saved] == [2, 3]  # after epochs 1 and 2: where to go on
    assert all(event["exact"] for event in saved)
    for event in saved:
        assert hashlib.sha256(Path(event["path"]).read_bytes()).hexdigest() == event["sha256"]
        assert digest(tk.fit(document, data, resume_from=event["path"]).model) == digest(expected.model)


def test_another_spec_is_refused_but_more_epochs_and_patience_are_not(tmp_path):
    data, document = vectors(), spec({"kind": "mlp", "hidden": [5]})
    path = tk.fit(document, data, control=InterruptAt(8), workdir=tmp_path).checkpoint
    with pytest.raises(CheckpointError, match="another spec"):
        tk.fit({**document, "optimizer": {"kind": "sgd", "lr": 0.3}}, data, resume_from=path)
    with pytest.raises(CheckpointError, match="another spec"):
        tk.fit(document, vectors(90), resume_from=path)
    longer = {**document, "train": {**document["train"], "epochs": 5}, "early_stop": [{"kind": "patience"}]}
    straight = tk.fit(longer, data)
    resumed = tk.fit(longer, data, resume_from=path)
    assert digest(resumed.model) == digest(straight.model)


def test_other_versions_are_said(tmp_path, monkeypatch):
    data, document, events = vectors(), spec({"kind": "mlp", "hidden": [5]}), []
    path = tk.fit(document, data, control=InterruptAt(8), workdir=tmp_path).checkpoint
    versions = device.versions()
    monkeypatch.setattr(device, "versions", lambda: {**versions, "torch": "9.9"})
    tk.fit(document, data, resume_from=path, on_event=events.append)
    assert any("changed since the checkpoint: torch" in event.get("message", "") for event in events)


def test_torn_checkpoint_is_said_and_failed_event_says_retry(tmp_path):
    data, document, events = vectors(), spec({"kind": "mlp", "hidden": [5]}), []
    path = tk.fit(document, data, control=InterruptAt(8), workdir=tmp_path).checkpoint
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError):
        tk.fit(document, data, resume_from=path, on_event=events.append)
    assert events[-1]["type"] == "failed"
    assert events[-1]["error"]["code"] == "checkpoint_unusable"
    assert events[-1]["error"]["retryable"]


def test_same_spec_same_bits_another_seed_other_bits():
    data, document = vectors(), spec({"kind": "mlp", "hidden": [5], "dropout": 0.2})
    first = digest(tk.fit(document, data).model)
    torch.manual_seed(99)
    assert digest(tk.fit(document, data).model) == first
    assert digest(tk.fit({**document, "train": {**document["train"], "seed": 1}}, data).model) != first


def test_a_branch_with_nothing_changed_is_the_same_run(tmp_path):
    document, data = spec({"kind": "mlp", "hidden": [8], "dropout": 0.2}, optimizer={"kind": "adam"}), vectors()
    expected = tk.fit(document, data)
    part = tk.fit(document, data, control=InterruptAt(9), workdir=tmp_path)
    branched = tk.fit(document, data, resume_from=part.checkpoint, branch=True)
    assert digest(branched.model) == digest(expected.model)


def test_a_branch_takes_its_own_settings_and_the_other_runs_moments(tmp_path):
    """By hand: the step after the checkpoint is SGD's with the new rate on the old momentum buffer."""
    optimizer = {"kind": "heavy_ball", "lr": 0.1, "momentum": 0.9}
    document = spec({"kind": "linear"}, optimizer=optimizer, train={"epochs": 1})
    data = vectors()
    first = tk.fit(document, data, control=InterruptAt(3), workdir=tmp_path)
    other = {**document, "optimizer": {**optimizer, "lr": 0.01, "momentum": 0.5}}
    with pytest.raises(CheckpointError):
        tk.fit(other, data, resume_from=first.checkpoint)
    after = tk.fit(
        other, data, resume_from=first.checkpoint, branch=True, control=InterruptAt(1), workdir=tmp_path / "b"
    )
    one_more = tk.fit(
        document,
        data,
        resume_from=first.checkpoint,
        control=InterruptAt(1),
        workdir=tmp_path / "c",
        runtime=first.runtime,
    )
    before, slow, fast = (checkpoint.load(Path(run.checkpoint)) for run in (first, after, one_more))
    for index, name in enumerate(before["network"]):
        buffer, start = before["optimizer"]["state"][index]["momentum_buffer"], before["network"][name]
        gradient = fast["optimizer"]["state"][index]["momentum_buffer"] - 0.9 * buffer
        torch.testing.assert_close(fast["network"][name], start - 0.1 * (0.9 * buffer + gradient))
        torch.testing.assert_close(slow["network"][name], start - 0.01 * (0.5 * buffer + gradient))
