from __future__ import annotations

import math
import os

import pytest
import torch

from trainkit.fit import checkpoint
from trainkit.fit.checkpoint import CheckpointError, VersionError

STATE = {
    "model": {"weight": torch.randn(3, 4), "steps": torch.tensor(7), "mask": torch.tensor([True, False])},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp": torch.randn(2).bfloat16()}}, "groups": [{"lr": 0.1}]},
    "rng": torch.get_rng_state(),
    "best": {"value": None, "loss": math.nan, "limit": math.inf},
    "empty": torch.zeros(0, 3),
    "tied": torch.ones(2, 2).t(),
}


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and all(map(equal, a, b))
    return repr(a) == repr(b)


def test_round_trip_is_exact(tmp_path):
    saved = checkpoint.save(tmp_path / "deep" / "a.safetensors", STATE)
    assert saved.bytes == saved.path.stat().st_size
    assert equal(checkpoint.load(saved.path), STATE)
    assert [entry.name for entry in saved.path.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_torn_file_is_refused(tmp_path, share):
    path = checkpoint.save(tmp_path / "a.safetensors", STATE).path
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        checkpoint.load(path)


def test_one_flipped_bit_anywhere_is_refused(tmp_path):
    path = checkpoint.save(tmp_path / "a.safetensors", STATE).path
    good = path.read_bytes()
    for place in range(0, len(good), max(1, len(good) // 60)):
        bad = bytearray(good)
        bad[place] ^= 4
        path.write_bytes(bad)
        try:
            state = checkpoint.load(path)
        except CheckpointError:
            continue
        assert equal(state, STATE), f"byte {place} was altered unnoticed"


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "none.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "foreign.safetensors")


def test_load_refuses_another_format_version(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", "trainkit-checkpoint-1")
    path = checkpoint.save(tmp_path / "old.safetensors", {"x": 1}).path
    monkeypatch.undo()
    with pytest.raises(VersionError, match="its format is trainkit-checkpoint-1, needed is trainkit-checkpoint-2"):
        checkpoint.load(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path / "a.safetensors", {"x": 1}).path

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, {"x": 2})
    assert checkpoint.load(path) == {"x": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]
