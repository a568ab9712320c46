"""Every way of failing has its code from the closed list; nothing that has a name is called an internal error."""

from __future__ import annotations

import ast
import errno
from pathlib import Path
from typing import Any

import pytest
import torch

import trainkit as tk
from tests.support.fit_data import spec, vectors
from trainkit.data.errors import DataError, DataProblem
from trainkit.fit.checkpoint import CheckpointError, VersionError
from trainkit.fit.failure import error_of
from trainkit.fit.loop import fit as run
from trainkit.fit.loop.nonfinite import LossNotFiniteError
from trainkit.spec import Problem, SpecError
from trainkit.spec.failures import FAILURES, failure

ROOT = Path(__file__).parents[3]


def spec_error(code: str) -> SpecError:
    return SpecError([Problem("/x", code, "what is wrong", "what to do")])


def data_error(code: str) -> DataError:
    return DataError([DataProblem(code, "what is wrong", "row 3", "what to do")])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (spec_error("wrong_loss"), "invalid_spec"),
        (spec_error("unknown_column"), "missing_column"),
        (spec_error("unreadable_weights"), "weights_unusable"),
        (spec_error("nothing_matches"), "weights_unusable"),
        (spec_error("head_does_not_fit"), "weights_unusable"),
        (data_error("unequal_lengths"), "invalid_data"),
        (data_error("not_prepared"), "data_damaged"),
        (CheckpointError("torn"), "checkpoint_unusable"),
        (VersionError("of another format"), "version_mismatch"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_gpu_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full"),
        (OSError(errno.ESTALE, "Stale file handle"), "storage_unreachable"),
        (OSError(errno.EIO, "Input/output error"), "io_error"),
        (RuntimeError("device cuda was asked for, and this machine has none"), "device_unavailable"),
        (LossNotFiniteError({"where": "unknown", "step": 3, "epoch": 1}), "loss_not_finite"),
        (ValueError("kernel larger than image"), "not_trainable"),
        (ZeroDivisionError("ours"), "internal_error"),
    ],
)
def test_exceptions_have_codes(error: BaseException, code: str) -> None:
    problem = error_of(error)
    assert problem["code"] == code
    known = FAILURES[code]
    assert (problem["layer"], problem["retryable"]) == (known.layer, known.retryable)
    assert problem["message"]
    assert problem["hint"]


def test_a_want_of_memory_comes_with_a_spec_that_needs_less() -> None:
    document = {"dataset": "data", "model": {"kind": "linear"}, "train": {"batch_size": 10}}
    for error in (torch.OutOfMemoryError("CUDA out of memory"), MemoryError()):
        offer = error_of(error, document)["evidence"]["next_spec"]
        assert offer["patch"] == {"train": {"batch_size": 5, "gradient_accumulation_steps": 2}}
        assert "next_spec" not in error_of(error)["evidence"]
    assert "next_spec" not in error_of(ZeroDivisionError("ours"), document)["evidence"]


def test_a_fit_that_runs_out_of_memory_says_so_in_its_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, Any]] = []

    def train(job: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(run, "train", train)
    with pytest.raises(torch.OutOfMemoryError):
        tk.fit(spec({"kind": "linear"}), vectors(), on_event=events.append)
    assert events[-1]["error"]["evidence"]["next_spec"]["patch"]["train"] == {
        "batch_size": 8,
        "gradient_accumulation_steps": 2,
    }


def test_only_what_the_platform_or_its_resources_did_is_tried_again() -> None:
    for entry in FAILURES.values():
        assert not (entry.retryable and entry.layer in ("spec", "data")), entry.code


def test_the_list_is_closed() -> None:
    with pytest.raises(KeyError):
        failure("something_else", "x")
    used = set()
    sources = [p for name in ("trainkit", "worker", "service") for p in (ROOT / name).rglob("*.py")]
    text = "".join(p.read_text(encoding="utf-8") for p in sources)
    assert [code for code in FAILURES if text.count(f'"{code}"') < 2] == [], "listed, but never happens"
    for package in ("trainkit", "worker", "service"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "failure" and node.args:
                    assert not isinstance(node.args[0], ast.JoinedStr), path
                    if isinstance(node.args[0], ast.Constant):
                        used.add(node.args[0].value)
    assert used <= FAILURES.keys()
