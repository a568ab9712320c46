"""Which code of the catalogue the operating system's errors and lists of problems stand for. Pure Python."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any

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


def code_of_os(error: OSError) -> str:
    """The code of a refused system call."""
    if error.errno in NO_ROOM:
        return "disk_full"
    if error.errno in UNREACHABLE:
        return "storage_unreachable"
    return "out_of_memory" if error.errno == errno.ENOMEM else "io_error"


def code_of_problems(problems: Sequence[Mapping[str, Any]], codes: Mapping[str, str], otherwise: str) -> str:
    """The code of the first problem; `otherwise` where it has none of its own."""
    return codes.get(str(problems[0]["code"]), otherwise) if problems else otherwise
