"""SHA-256 of a model's files as they are downloaded, kept in the model's row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.content_digests import sha256_of, sha256_of_file
from service.models.single_file import DamagedFileError, SingleFile, single_file

SAFETENSORS, ONNX = "model.safetensors", "model.onnx"


def digests_of(folder: Path) -> dict[str, Any]:
    """Read the files of a model's folder and return the document for its row. An ensemble has neither file.

    `model.safetensors` is downloaded with another header than it is stored with. Which one is kept beside its hash: a
    later version of this service may write another.
    """
    found: dict[str, Any] = {}
    try:
        single = single_file(folder)
        found[SAFETENSORS] = {"sha256": single.sha256(), "header_sha256": sha256_of(single.header)}
    except (OSError, DamagedFileError):
        pass
    if (folder / ONNX).exists():
        found[ONNX] = {"sha256": sha256_of_file(folder / ONNX)}
    return found


def sha256_of_single(digests: Mapping[str, Any] | None, single: SingleFile) -> str | None:
    """Return the hash of the safetensors file; None where it is not known yet, or of another header."""
    known = (digests or {}).get(SAFETENSORS)
    return known["sha256"] if known and known["header_sha256"] == sha256_of(single.header) else None


def sha256_of_onnx(digests: Mapping[str, Any] | None) -> str | None:
    """Return the hash of the ONNX file; None where it is not known yet."""
    known = (digests or {}).get(ONNX)
    return known["sha256"] if known else None
