"""Copy an S3 object to a file, in a forked child that can be killed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from service.datasets.sources import locate_object
from service.errors import HttpProblem
from worker.spool import SpoolWriter

PIECE = 4 << 20
AWAY_SECONDS = 60.0
LONGEST_WAIT = 8.0


class ObjectUnavailableError(Exception):
    """An object cannot be read: the dataset's error."""

    def __init__(self, code: str, message: str, hint: str, *, retryable: bool = False, reason: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint, self.retryable = code, message, hint, retryable
        self.evidence = {"reason": reason} if reason else {}


def cloud_settings(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the AWS_ variables of the environment, which a forked child does not inherit."""
    env = os.environ if environment is None else environment
    return {name: value for name, value in env.items() if name.startswith("AWS_")}


def download(
    uri: str, buckets: tuple[str, ...], limit: int, part: Path, spool_path: Path, cloud: dict[str, str]
) -> None:
    """Copy, and write the events `size`, then `done` or `failed`, to the spool. Runs in the child."""
    os.environ.update(cloud)
    spool = SpoolWriter(spool_path)
    try:
        sha256, size = copy(uri, buckets, limit, part, lambda size: spool.write({"type": "size", "bytes": size}))
        spool.write({"type": "done", "sha256": sha256, "bytes": size})
    except ObjectUnavailableError as error:
        error_fields = {"code": error.code, "message": error.message, "hint": error.hint}
        spool.write({"type": "failed", **error_fields, "retryable": error.retryable, "evidence": error.evidence})
    except HttpProblem as problem:
        error_fields = {"code": problem.code, "message": problem.detail, "hint": "Correct it, and register it again."}
        spool.write({"type": "failed", **error_fields, "retryable": False, "evidence": {}})
    finally:
        spool.close()


def copy(
    uri: str, buckets: tuple[str, ...], limit: int, part: Path, report_size: Callable[[int], None]
) -> tuple[str, int]:
    """Copy the object to `part`; return its SHA-256 and size. Raises ObjectUnavailableError, Problem, OSError."""
    bucket, key = locate_object(uri, buckets)
    try:
        import obstore
        from obstore.store import S3Store
    except ImportError as error:
        hint = "On the data worker: pip install 'trainkit[s3]'."
        raise ObjectUnavailableError("s3_missing", "the worker cannot read s3://", hint, reason=str(error)) from None
    http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes", "on")
    try:
        store = S3Store(
            bucket,
            client_options={
                "allow_http": http,
                "timeout": timedelta(seconds=60),
                "connect_timeout": timedelta(seconds=5),
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
        )
    except Exception as error:
        raise ObjectUnavailableError(
            "s3_unreadable", "the S3 client cannot be configured", "Look at AWS_*.", reason=first_line(error)
        ) from None
    meta = insist(lambda: obstore.head(store, key))
    size, tag = meta["size"], meta["e_tag"]
    if size == 0:
        raise ObjectUnavailableError("empty", "the object is empty", "No dataset is empty.")
    if size > limit:
        raise ObjectUnavailableError(
            "too_large", f"the object has more than {limit} bytes", "Make it smaller, or split it."
        )
    report_size(size)
    digest, came = hashlib.sha256(), 0

    def piece(start: int) -> bytes:
        options: Any = {"range": (start, min(start + PIECE, size))}
        if tag is not None:
            options["if_match"] = tag
        result = obstore.get(store, key, options=options)
        if (result.meta["size"], result.meta["e_tag"]) != (size, tag):
            raise changed()
        return bytes(result.bytes())

    with part.open("xb") as file:
        while came < size:
            start = came
            data = insist(lambda: whole(piece(start), min(PIECE, size - start)))  # noqa: B023 - called at once
            file.write(data)
            digest.update(data)
            came += len(data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), came


class Cut(Exception):  # noqa: N818 - tried again
    """Fewer bytes came than were asked for."""


def whole(data: bytes, expected: int) -> bytes:
    """The piece, if all of it came."""
    if len(data) != expected:
        raise Cut(f"{len(data)} of {expected} bytes came")
    return data


def changed() -> ObjectUnavailableError:
    """The object is another one now."""
    return ObjectUnavailableError(
        "s3_changed", "the object changed while it was read", "Register it again.", retryable=True
    )


def insist(work: Callable[[], Any]) -> Any:
    """Do `work`, again and again for a minute while the endpoint is away. Raises ObjectUnavailableError."""
    from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

    until, wait = time.monotonic() + AWAY_SECONDS, 0.25
    while True:
        try:
            return work()
        except FileNotFoundError:
            raise ObjectUnavailableError("s3_not_found", "no such bucket or object", "Look at the address.") from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            hint = "Give the data worker's AWS_ACCESS_KEY_ID the right to read it."
            raise ObjectUnavailableError(
                "s3_denied", "the object may not be read", hint, reason=first_line(error)
            ) from None
        except PreconditionError:
            raise changed() from None
        except (BaseError, Cut) as error:
            reason = first_line(error)
            if "416 Range" in reason:
                raise changed() from None
            if "builder error" in reason or "status code: 3" in reason or "status code: 400" in reason:
                hint = "Look at AWS_ENDPOINT_URL, AWS_REGION and AWS_ALLOW_HTTP of the data worker."
                raise ObjectUnavailableError(
                    "s3_unreadable", "the S3 client cannot be configured", hint, reason=reason
                ) from None
            if time.monotonic() + wait > until:
                hint = "Register it again when the endpoint answers; see AWS_ENDPOINT_URL of the data worker."
                message = "the S3 endpoint does not answer"
                raise ObjectUnavailableError("s3_unreachable", message, hint, retryable=True, reason=reason) from None
        except ValueError as error:
            raise ObjectUnavailableError(
                "uri_invalid",
                "the URI holds no valid object key",
                "Send a URI such as s3://bucket/file.csv.",
                reason=first_line(error),
            ) from None
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)


def first_line(error: BaseException) -> str:
    """What the library says, without its long tail."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
