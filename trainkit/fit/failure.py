"""Exceptions as the `error` of a failed run: code, layer, message, evidence, whether to retry, and a hint."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError

from trainkit.data import DataError
from trainkit.fit.checkpoint import CheckpointError, VersionError
from trainkit.fit.loop.nonfinite import LossNotFiniteError
from trainkit.fit.models.trained_model import ArtifactError
from trainkit.spec import JobSpec, SpecError
from trainkit.spec.failures import DATA_CODES, SPEC_CODES, code_of_os, code_of_problems, failure
from trainkit.spec.memory import with_next_spec
from trainkit.tracebacks import traceback_of, without_paths

NO_GPU_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""How CUDA and its libraries say it where torch's own allocator was not asked."""


def error_of(error: BaseException, spec: JobSpec | Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`{code, layer, message, evidence, retryable, hint}` with a code of the catalogue (`trainkit.spec.failures`).

    With the job's `spec`, running out of memory comes with a spec that needs less (`evidence.next_spec`).
    """
    failed = _failure_of(error)
    return failed if spec is None else with_next_spec(failed, spec)


def _failure_of(error: BaseException) -> dict[str, Any]:
    if isinstance(error, SpecError | DataError):
        problems = [problem.as_dict() for problem in error.problems]
        codes = SPEC_CODES if isinstance(error, SpecError) else DATA_CODES
        otherwise = "invalid_spec" if isinstance(error, SpecError) else "invalid_data"
        code = code_of_problems(problems, codes, otherwise)
        hint = next((str(p["hint"]) for p in problems if p.get("hint")), None)
        return failure(code, str(error), {"problems": problems}, hint=None if code == "data_damaged" else hint)
    if isinstance(error, VersionError):
        return failure("version_mismatch", str(error))
    if isinstance(error, CheckpointError):
        return failure("checkpoint_unusable", str(error))
    if isinstance(error, LossNotFiniteError):
        return failure("loss_not_finite", str(error), error.evidence)
    if isinstance(error, ArtifactError):
        return failure("weights_unusable", str(error))
    if isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "CU" in str(error) and any(word in str(error) for word in NO_GPU_MEMORY)
    ):
        return failure("out_of_gpu_memory", str(error).split("\n")[0], _gpu_memory())
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return failure("out_of_memory", str(error) or "no memory left")
    if isinstance(error, SafetensorError):
        # its writer gives the operating system's number in words only
        number = re.search(r"\(os error (\d+)\)", str(error))
        os_error = OSError(int(number[1]) if number else errno.EIO, str(error))
        return failure(
            code_of_os(os_error), without_paths(str(error)), {"errno": os_error.errno, "traceback": traceback_of(error)}
        )
    if isinstance(error, OSError):
        return failure(
            code_of_os(error), without_paths(str(error)), {"errno": error.errno, "traceback": traceback_of(error)}
        )
    if isinstance(error, RuntimeError) and str(error).startswith("device "):
        return failure("device_unavailable", str(error))
    evidence = {"type": type(error).__name__, "traceback": traceback_of(error)}
    if isinstance(error, torch.AcceleratorError):
        return failure("process_crashed", str(error).split("\n")[0], evidence)
    if isinstance(error, ValueError):
        return failure("not_trainable", str(error), evidence)
    if not isinstance(error, Exception):  # SystemExit: some library thought that it may end us
        message = f"the training process was os_error to end from within: {type(error).__name__}: {error}"
        return failure("process_failed", message, evidence)
    return failure("internal_error", f"{type(error).__name__}: {error}", evidence)


def _gpu_memory() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"free_bytes": free, "total_bytes": total, "peak_bytes": torch.cuda.max_memory_allocated()}
