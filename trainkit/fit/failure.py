"""Exceptions as the `error` of a failed run: what happened, whose matter it is, whether to try again, what to do."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Mapping
from typing import Any

import torch

from trainkit.data import DataError
from trainkit.fit.checkpoint import CheckpointError, VersionError
from trainkit.fit.nonfinite import LossNotFiniteError
from trainkit.spec import JobSpec, SpecError
from trainkit.spec.failures import failure
from trainkit.spec.fitting import with_next_spec

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNREACHABLE = (errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV)
"""What a network file system says when its server is away."""
SPEC_CODES = {
    "unknown_column": "missing_column",
    "missing_target": "missing_column",
    "unreadable_weights": "weights_unusable",
    "nothing_matches": "weights_unusable",
    "head_does_not_fit": "weights_unusable",
}
DATA_CODES = {"not_prepared": "data_damaged", "missing_column": "missing_column"}


def error_of(error: BaseException, spec: JobSpec | Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`{code, layer, message, evidence, retryable, hint}` with a code of the catalogue (`trainkit.spec.failures`).

    With the job's `spec` the want of memory comes with one that needs less (`evidence.next_spec`).
    """
    told = _told(error)
    return told if spec is None else with_next_spec(told, spec)


def _told(error: BaseException) -> dict[str, Any]:
    if isinstance(error, SpecError | DataError):
        problems = [problem.as_dict() for problem in error.problems]
        codes = SPEC_CODES if isinstance(error, SpecError) else DATA_CODES
        otherwise = "invalid_spec" if isinstance(error, SpecError) else "invalid_data"
        code = codes.get(str(problems[0]["code"]), otherwise) if problems else otherwise
        hint = next((str(p["hint"]) for p in problems if p.get("hint")), None)
        return failure(code, str(error), {"problems": problems}, hint=None if code == "data_damaged" else hint)
    if isinstance(error, VersionError):
        return failure("version_mismatch", str(error))
    if isinstance(error, CheckpointError):
        return failure("checkpoint_unusable", str(error))
    if isinstance(error, LossNotFiniteError):
        return failure("loss_not_finite", str(error), error.evidence)
    if isinstance(error, torch.OutOfMemoryError):
        return failure("out_of_gpu_memory", str(error).split("\n")[0], _gpu_memory())
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return failure("out_of_memory", str(error) or "no memory left")
    if isinstance(error, OSError):
        evidence = {"errno": error.errno, "traceback": _traceback(error)}
        code = "io_error"
        if error.errno in NO_ROOM:
            code = "disk_full"
        elif error.errno in UNREACHABLE:
            code = "storage_unreachable"
        return failure(code, str(error), evidence)
    if isinstance(error, RuntimeError) and str(error).startswith("device "):
        return failure("device_unavailable", str(error))
    evidence = {"type": type(error).__name__, "traceback": _traceback(error)}
    if isinstance(error, ValueError):
        return failure("not_trainable", str(error), evidence)
    return failure("internal_error", f"{type(error).__name__}: {error}", evidence)


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-4000:]


def _gpu_memory() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"free_bytes": free, "total_bytes": total, "peak_bytes": torch.cuda.max_memory_allocated()}
