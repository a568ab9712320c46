"""Headers of tus 1.0, read strictly: every refusal names the header and says what it should hold."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from service.datasets.schemas import read_as
from service.datasets.service import Wish
from service.errors import Problem
from trainkit.spec.facts import DATASET_KINDS
from trainkit.spec.read_options import Reading

ALGORITHMS: dict[str, Any] = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}
LONGEST = 8192
NUMBER = re.compile(r"[0-9]{1,18}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the body of one PATCH must hash to."""

    algorithm: str
    digest: bytes


def refuse(header: str, code: str, message: str, hint: str, status: int = 400) -> Problem:
    """A problem with one header."""
    error = {"pointer": f"header/{header}", "code": code, "message": message, "hint": hint}
    return Problem(status, code, f"{header}: {message} {hint}".strip(), errors=[error])


def number(header: str, value: str | None) -> int | None:
    """A byte count. Raises a 400 problem for anything but digits."""
    if value is None:
        return None
    if not NUMBER.fullmatch(value):
        raise refuse(header, "not_a_number", "not a whole number of bytes.", "Send digits only.")
    return int(value)


def checksum(value: str | None) -> Checksum | None:
    """`sha256 <base64>`. Raises 400 problems."""
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
    """`Upload-Metadata`: comma-separated keys with base64 values. Raises 400 problems."""
    found: dict[str, str] = {}
    if not value:
        return found
    if len(value) > LONGEST:
        raise refuse("Upload-Metadata", "metadata_too_long", f"more than {LONGEST} characters.", "Send less.")
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


def wish(value: str | None) -> Wish:
    """What the upload shall become (`name`, `kind`, `target`, `filename`) and how it is read; other keys mean nothing."""
    said = pairs(value)
    filename = CONTROL.sub("", said.get("filename", "").replace("\\", "/").rsplit("/", 1)[-1])[:300]
    name = said.get("name") or filename.split(".")[0][:200] or "dataset"
    if CONTROL.search(name) or "/" in name or "\\" in name or len(name) > 200:
        raise _unfit("name", "has a control character or a slash, or more than 200 characters.", "Choose another name.")
    kind = said.get("kind") or None
    if kind is not None and kind not in DATASET_KINDS:
        raise _unfit(
            "kind", "unknown kind.", f"Use one of {', '.join(DATASET_KINDS)}, or leave it out: it is detected."
        )
    target = said.get("target") or None
    if target is not None and ("\x00" in target or len(target) > 300):
        raise _unfit("target", "holds NUL or more than 300 characters.", "Name one column.")
    return Wish(name, kind, target, filename or None, _reading(said))


def _reading(said: dict[str, str]) -> dict[str, Any] | None:
    given = {key: said[key] for key in Reading.model_fields if said.get(key)}
    try:
        return read_as(**given)
    except ValidationError as error:
        item = error.errors()[0]
        key = str(item["loc"][0])
        raise _unfit(key, f"{item['msg']}.", str(Reading.model_fields[key].description or "Leave it out.")) from None


def _unfit(key: str, message: str, hint: str) -> Problem:
    return refuse(f"Upload-Metadata/{key}", f"{key}_invalid", message, hint, status=422)
