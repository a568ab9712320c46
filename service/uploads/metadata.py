"""Parse the headers of tus 1.0 strictly: every error names the header and says what it should hold."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from service.datasets.schemas import read_options_of
from service.datasets.service import DatasetMetadata
from service.errors import HttpProblem
from service.problem_types import ProblemCode
from service.registry.names import MAX_NAME, as_name, check_name
from trainkit.spec.facts import DATASET_KINDS
from trainkit.spec.problems import pointer_tokens, problems_from_validation
from trainkit.spec.read_options import ReadOptions

ALGORITHMS: dict[str, Any] = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}
MAX_LENGTH = 8192
NUMBER = re.compile(r"[0-9]{1,18}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Checksum:
    """The hash that the body of one PATCH must have."""

    algorithm: str
    digest: bytes


def refuse(header: str, code: ProblemCode, message: str, hint: str, status: int = 400) -> HttpProblem:
    """Return the problem of one header."""
    error = {"pointer": f"header/{header}", "code": code, "message": message, "hint": hint}
    return HttpProblem(status, code, f"{header}: {message} {hint}".strip(), errors=[error])


def number(header: str, value: str | None) -> int | None:
    """Return a byte count. Raises a 400 problem for anything but digits."""
    if value is None:
        return None
    if not NUMBER.fullmatch(value):
        raise refuse(header, "not_a_number", "not a whole number of bytes.", "Send digits only.")
    return int(value)


def checksum(value: str | None) -> Checksum | None:
    """Parse `sha256 <base64>`. Raises 400 problems."""
    if value is None:
        return None
    algorithm, _, encoded = value.partition(" ")
    if algorithm not in ALGORITHMS:
        raise refuse("Upload-Checksum", "checksum_unknown", "unknown algorithm.", "Use sha256 or sha1.")
    try:
        digest = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != ALGORITHMS[algorithm]().digest_size:
        raise refuse("Upload-Checksum", "checksum_unknown", f"not a {algorithm} in base64.", "Encode the raw digest.")
    return Checksum(algorithm, digest)


def pairs(value: str | None) -> dict[str, str]:
    """Parse `Upload-Metadata`: comma-separated keys with base64 values. Raises 400 problems."""
    found: dict[str, str] = {}
    if not value:
        return found
    if len(value) > MAX_LENGTH:
        raise refuse("Upload-Metadata", "metadata_too_long", f"more than {MAX_LENGTH} characters.", "Send less.")
    for pair in value.split(","):
        key, _, encoded = pair.strip().partition(" ")
        try:
            text = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            shown = key[:40]
            raise refuse(
                "Upload-Metadata", "metadata_invalid", f"{shown!r} is not UTF-8 in base64.", "Encode each value."
            ) from None
        if not key or key in found:
            raise refuse("Upload-Metadata", "metadata_invalid", "a key is empty or there twice.", "Name each once.")
        found[key] = text
    return found


def dataset_metadata(value: str | None) -> DatasetMetadata:
    """Return `name`, `kind`, `target`, `filename` and the read options of `Upload-Metadata`; other keys are ignored."""
    values = pairs(value)
    filename = CONTROL.sub("", values.get("filename", "").replace("\\", "/").rsplit("/", 1)[-1])[:300]
    name = values.get("name") or as_name(filename.split(".")[0]) or "dataset"
    try:
        if len(check_name(name)) > MAX_NAME:
            raise ValueError(f"it has more than {MAX_NAME} characters: choose a shorter one")
    except ValueError as error:
        raise _invalid("name", f"{error}.", "Choose another name.") from None
    kind = values.get("kind") or None
    if kind is not None and kind not in DATASET_KINDS:
        raise _invalid(
            "kind", "unknown kind.", f"Use one of {', '.join(DATASET_KINDS)}, or leave it out: it is detected."
        )
    target = values.get("target") or None
    if target is not None and ("\x00" in target or len(target) > 300):
        raise _invalid("target", "holds NUL or more than 300 characters.", "Name one column.")
    return DatasetMetadata(name, kind, target, filename or None, _read_options(values))


def _read_options(values: dict[str, str]) -> dict[str, Any] | None:
    given: dict[str, Any] = {key: values[key] for key in ReadOptions.model_fields if values.get(key)}
    if "header" in given:
        given["header"] = {"true": True, "false": False}.get(given["header"].lower(), given["header"])
    if given.get("skip_rows", "").isdecimal():
        given["skip_rows"] = int(
            given["skip_rows"][:10]
        )  # every value is text; beyond ten digits it is too many anyway
    try:
        return read_options_of(given)
    except ValidationError as error:
        first = problems_from_validation(error, given, ReadOptions)[0]
        tokens = pointer_tokens(first.pointer)
        deeper = f" (at {first.pointer})" if len(tokens) > 1 else ""
        raise _invalid(tokens[0], f"{first.message}{deeper}.", first.hint) from None


def _invalid(key: str, message: str, hint: str) -> HttpProblem:
    return refuse(f"Upload-Metadata/{key}", "metadata_invalid", message, hint, status=422)
