"""Where a registered URI points: `file://` below the folders that TRAINKIT_FILE_ROOTS names, or `s3://` in a bucket
that TRAINKIT_S3_BUCKETS names."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from service.errors import HttpProblem
from service.problem_types import ProblemCode


def locate(uri: str, roots: Sequence[Path]) -> Path:
    """The real path of a readable file. Raises 422 problems that name the reason.

    Outside the roots nothing is looked at, so that nobody learns what is there; links are followed, and their end
    must lie below a root too.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise refuse("uri_invalid", "not a URI.", "Send file:///folder/name.") from None
    if parts.scheme != "file":
        scheme = parts.scheme[:20] or "no scheme"
        raise refuse("uri_scheme", f"{scheme} is not supported.", "Send file:///..., s3://..., or the bytes.")
    path = unquote(parts.path, errors="surrogateescape")
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not path.startswith("/"):
        raise refuse(
            "uri_invalid", "not the address of a local file.", "Send file:///folder/name, with ? and # encoded."
        )
    if "\x00" in path or not path.isprintable() or ".." in path.split("/"):
        raise refuse(
            "uri_invalid", "the path climbs with '..', or holds characters that no name has.", "Name it plainly."
        )
    if not roots:
        raise refuse(
            "files_off", "files of the server are not taken.", "Its operator can name folders: TRAINKIT_FILE_ROOTS."
        )
    allowed = [*roots, *(Path(os.path.realpath(root)) for root in roots)]
    real = Path(os.path.realpath(path)) if any(Path(path).is_relative_to(root) for root in allowed) else None
    if real is None or not any(real.is_relative_to(root) for root in allowed):
        raise refuse(
            "file_not_allowed", "the file lies outside the folders that are allowed.", "Move it, or send its bytes."
        )
    try:
        found = real.stat()
    except OSError as error:
        raise refuse(
            "file_unreadable", f"{error.strerror}.", "Look at the path; API and data workers must see it."
        ) from None
    if not stat.S_ISREG(found.st_mode):
        raise refuse("not_a_file", "not a regular file.", "Pack a folder into a zip or tar.")
    if found.st_size == 0:
        raise refuse("empty", "the file is empty.", "No dataset is empty.")
    return real


def is_object(uri: str) -> bool:
    """Whether the URI names an object of S3."""
    return uri[:5].lower() == "s3://"


def locate_object(uri: str, buckets: Sequence[str]) -> tuple[str, str]:
    """Bucket and key, without asking S3. The key is taken as it is written, not percent-decoded. Raises 422 problems."""
    bucket, _, key = uri[5:].partition("/")
    plain = key.isprintable() and not {"", ".", ".."} & set(key.split("/")) and len(key.encode()) <= 1024
    if not bucket or not plain:
        raise refuse("uri_invalid", "not the address of an object.", "Send s3://bucket/key, with the key as it is.")
    if not buckets:
        raise refuse("s3_off", "s3:// is not taken.", "Its operator can name buckets: TRAINKIT_S3_BUCKETS.")
    if bucket not in buckets:
        raise refuse("bucket_not_allowed", "the bucket is not among those allowed.", "Copy it, or send its bytes.")
    return bucket, key


def source_of(uri: str, roots: Sequence[Path], buckets: Sequence[str]) -> tuple[str, int]:
    """Name and size of what the URI names; the size of an object is 0 until a worker asks. Raises 422 problems."""
    if is_object(uri):
        return locate_object(uri, buckets)[1].rsplit("/", 1)[-1], 0
    path = locate(uri, roots)
    return path.name, path.stat().st_size


def open_source(uri: str, roots: Sequence[Path]) -> BinaryIO:
    """The file's bytes, checked again: what a path means may have changed since. Raises as `locate`, and OSError."""
    path = locate(uri, roots)
    # not through a link that has taken the file's place, and without waiting for a pipe's writer
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise refuse("not_a_file", "not a regular file.", "Pack a folder into a zip or tar.")
    return file


def refuse(code: ProblemCode, message: str, hint: str) -> HttpProblem:
    """422 with the place and the way out."""
    error = {"pointer": "/uri", "code": code, "message": message, "hint": hint}
    return HttpProblem(422, code, f"/uri: {message} {hint}", errors=[error])
