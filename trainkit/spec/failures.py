"""Why a job can fail, and a dataset's check beyond what is wrong in its bytes: a closed list.

Every `error` of a job is made by `failure`. A dataset's may also carry the code of the first problem that its reader, or
the copying of its source, named.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Layer = Literal["spec", "data", "resource", "platform", "internal"]


@dataclass(frozen=True, slots=True)
class Failure:
    """One entry of the catalogue. Only what the platform or its resources did is worth another try."""

    code: str
    layer: Layer
    retryable: bool
    """Whether the service tries again by itself, within `resources.max_attempts`."""
    meaning: str
    hint: str
    """What to do, where the occasion has nothing more exact to say."""


_LIST = (
    # spec: what was asked for cannot be done, now or ever
    Failure("invalid_spec", "spec", False, "The spec does not fit its dataset.", "Change what the pointer names."),
    Failure("missing_column", "spec", False, "The table lacks a column that is needed.", "Name another column."),
    Failure(
        "source_unavailable",
        "spec",
        False,
        "A model, weight file or dataset that the spec names is not there.",
        "Name another, or put it there.",
    ),
    Failure(
        "weights_unusable",
        "spec",
        False,
        "The weights to start from cannot be read, or do not fit the model.",
        "Give a safetensors file of the same architecture.",
    ),
    Failure(
        "not_trainable", "spec", False, "The spec asks for something impossible.", "Change what the message names."
    ),
    Failure(
        "loss_not_finite",
        "spec",
        False,
        "The loss became infinite or not a number before there were weights worth keeping.",
        "Lower `optimizer.lr`, set `train.clip_norm` (1.0), or scale the inputs (`z_score`); `evidence` names the layer.",
    ),
    # data
    Failure("invalid_dataset", "data", False, "The dataset the job waited for is not usable.", "Read its report."),
    Failure(
        "no_trial_succeeded",
        "spec",
        False,
        "None of an experiment's jobs came to a good end.",
        "Read the error of its jobs; change the spec that they share.",
    ),
    Failure("invalid_data", "data", False, "The data cannot be trained on.", "Change what the message names."),
    Failure(
        "data_damaged",
        "data",
        False,
        "The prepared form of the dataset is damaged or gone from storage.",
        "Upload the dataset again; all hosts must share TRAINKIT_STORAGE_URL.",
    ),
    Failure("too_slow", "data", False, "Reading the upload took too much processor time.", "Make it smaller."),
    Failure(
        "intake_died",
        "data",
        False,
        "Reading the upload needed more memory than it may, or killed the reading process again and again.",
        "Look for a damaged or enormous file in it.",
    ),
    Failure("deleted", "data", False, "It was deleted while it was being checked.", "Upload it again."),
    # resource
    Failure(
        "out_of_memory",
        "resource",
        True,
        "The training process needed more memory than there was (exit 137).",
        "Fork it with `evidence.next_spec.patch` (a smaller `train.batch_size`, accumulated), or run fewer jobs beside it.",
    ),
    Failure(
        "does_not_fit",
        "resource",
        False,
        "By the estimate the job needs more memory than its limit, or than the machine has.",
        "Submit the spec in the evidence: smaller batches, their gradients accumulated to the same step.",
    ),
    Failure(
        "out_of_gpu_memory",
        "resource",
        False,
        "The GPU has too little memory for the job.",
        "Fork it with `evidence.next_spec.patch` (a smaller `train.batch_size`, accumulated), or take a smaller model.",
    ),
    Failure(
        "out_of_time",
        "resource",
        False,
        "A run of an investigation took longer than what was left of the investigation's seconds.",
        "Investigate again with more `seconds`.",
    ),
    Failure(
        "device_unavailable",
        "resource",
        False,
        "The device the spec asks for is not on the worker.",
        'Use {"resources": {"device": "auto"}}, or a worker that has the device.',
    ),
    Failure("disk_full", "platform", True, "The worker's disk or the storage is full.", "Free space there."),
    # platform
    Failure(
        "worker_lost",
        "platform",
        True,
        "Workers died or fell silent, more often than is put up with.",
        "Look at the worker's log and the machine's memory; then submit the job again.",
    ),
    Failure(
        "process_wedged",
        "platform",
        True,
        "The training process was alive and made no step for too long (TRAINKIT_WEDGED_SECONDS).",
        "The evidence holds where its threads were; a step that is really that slow needs a smaller `train.batch_size`.",
    ),
    Failure(
        "process_killed",
        "platform",
        True,
        "The training process was killed from outside (SIGKILL).",
        "Usually a person, or the kernel when memory runs out: look at the machine's memory and log.",
    ),
    Failure(
        "storage_unreachable", "platform", True, "The storage does not answer.", "Look at TRAINKIT_STORAGE_URL's disk."
    ),
    Failure("io_error", "platform", True, "Reading or writing a file failed.", "Look at the worker's disks and logs."),
    Failure(
        "checkpoint_unusable",
        "platform",
        True,
        "The checkpoint is torn, or another version or machine wrote it.",
        "The one before it, or a start from scratch, will do.",
    ),
    Failure(
        "version_mismatch",
        "platform",
        False,
        "The checkpoint was written by another version of trainkit or torch.",
        "Run the worker that began the job, or submit it again.",
    ),
    Failure(
        "spool_damaged",
        "platform",
        True,
        "What the training process wrote down cannot be read back.",
        "Look at the disk of the worker's scratch folder.",
    ),
    Failure(
        "process_crashed",
        "platform",
        True,
        "A native library, the GPU's driver or the hardware crashed (a signal such as SIGSEGV, exit 139).",
        "Tried again by itself; when it comes back, report it with the log, which says where it was.",
    ),
    Failure(
        "process_failed",
        "platform",
        True,
        "The training process ended without a reason.",
        "The log of the attempt has the details.",
    ),
    # internal: ours to mend
    Failure(
        "supervisor_failed",
        "internal",
        True,
        "The worker's supervisor failed.",
        "Tried again by itself; when it comes back, report it.",
    ),
    Failure("internal_error", "internal", True, "A mistake of the service.", "Please report it with the traceback."),
)
FAILURES: dict[str, Failure] = {failure.code: failure for failure in _LIST}


def failure(
    code: str, message: str, evidence: dict[str, Any] | None = None, *, hint: str | None = None
) -> dict[str, Any]:
    """`{code, layer, message, evidence, retryable, hint}` of something that happened. Raises KeyError for another code."""
    known = FAILURES[code]
    return {
        "code": code,
        "layer": known.layer,
        "message": message,
        "evidence": evidence or {},
        "retryable": known.retryable,
        "hint": hint or known.hint,
    }


def listing() -> list[dict[str, Any]]:
    """The catalogue as entries of `trainkit.spec.catalog`."""
    return [
        {
            "kind": entry.code,
            "description": entry.meaning,
            "default": None,
            "schema": {"type": "object"},
            "layer": entry.layer,
            "retryable": entry.retryable,
            "hint": entry.hint,
        }
        for entry in _LIST
    ]


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNREACHABLE = (errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV)
"""What a network file system says when its server is away."""
SPEC_CODES = {
    "unknown_column": "missing_column",
    "missing_target": "missing_column",
    "unreadable_weights": "weights_unusable",
    "nothing_matches": "weights_unusable",
    "head_does_not_fit": "weights_unusable",
    "does_not_fit": "does_not_fit",
}
DATA_CODES = {"not_prepared": "data_damaged", "missing_column": "missing_column"}


def code_of_os(error: OSError) -> str:
    """Return the failure code of a refused system call."""
    if error.errno in NO_ROOM:
        return "disk_full"
    if error.errno in UNREACHABLE:
        return "storage_unreachable"
    return "out_of_memory" if error.errno == errno.ENOMEM else "io_error"


def code_of_problems(problems: Sequence[Mapping[str, Any]], codes: Mapping[str, str], otherwise: str) -> str:
    """Return the failure code of the first problem; `otherwise` where it has none of its own."""
    return codes.get(str(problems[0]["code"]), otherwise) if problems else otherwise
