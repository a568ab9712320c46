"""Exceptions as the `error` of a failed run: what happened, whose matter it is, whether to try again, what to do."""

from __future__ import annotations

import traceback
from typing import Any

import torch

from trainkit.data import DataError
from trainkit.fit.checkpoint import CheckpointError
from trainkit.spec import SpecError


def error_of(error: BaseException) -> dict[str, Any]:
    """`{code, layer, message, evidence, retryable, hint}`; layer is spec, data, resource, platform or internal."""
    if isinstance(error, SpecError):
        problems = [problem.as_dict() for problem in error.problems]
        hint = problems[0]["hint"] if problems else ""
        return _error("invalid_spec", "spec", str(error), {"problems": problems}, False, hint)
    if isinstance(error, DataError):
        problems = [problem.as_dict() for problem in error.problems]
        hint = next((str(p["hint"]) for p in problems if p.get("hint")), "")
        return _error("invalid_data", "data", str(error), {"problems": problems}, False, hint)
    if isinstance(error, CheckpointError):
        hint = "The checkpoint before it, or a start from scratch, will do."
        return _error("checkpoint_unusable", "platform", str(error), {}, True, hint)
    if isinstance(error, torch.OutOfMemoryError):
        hint = "Lower `train.batch_size`, or take a smaller model or image size."
        return _error("out_of_gpu_memory", "resource", str(error).split("\n")[0], _gpu_memory(), False, hint)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        hint = "Lower `train.batch_size`, take a smaller model, or sub-sample with `split.subsample`."
        return _error("out_of_memory", "resource", str(error) or "no memory left", {}, False, hint)
    if isinstance(error, OSError):
        disk_full = error.errno == 28
        code = "disk_full" if disk_full else "io_error"
        hint = "Free space in the scratch folder." if disk_full else "Look at the worker's disks and logs."
        return _error(code, "platform", str(error), {"errno": error.errno}, True, hint)
    if isinstance(error, RuntimeError) and str(error).startswith("device "):
        hint = 'Use {"resources": {"device": "auto"}}, or a worker that has the device.'
        return _error("device_unavailable", "resource", str(error), {}, False, hint)
    frames = traceback.format_exception(error)
    evidence = {"type": type(error).__name__, "traceback": "".join(frames)[-4000:]}
    if isinstance(error, ValueError):
        return _error("not_trainable", "spec", str(error), evidence, False, "Change what the message names.")
    return _error("internal_error", "internal", f"{type(error).__name__}: {error}", evidence, True, "Please report it.")


def _error(code: str, layer: str, message: str, evidence: dict[str, Any], retryable: bool, hint: str) -> dict[str, Any]:
    return {
        "code": code,
        "layer": layer,
        "message": message,
        "evidence": evidence,
        "retryable": retryable,
        "hint": hint,
    }


def _gpu_memory() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"free_bytes": free, "total_bytes": total, "peak_bytes": torch.cuda.max_memory_allocated()}
