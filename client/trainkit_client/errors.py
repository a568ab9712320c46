"""What can go wrong, as exceptions. Those of a response carry its problem document (RFC 9457)."""
# ruff: noqa: N818 - the names say what is the case, as `NotFound` does; `except NotFound` reads well

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainkit_client.types import DatasetFields, ExperimentFields, JobFields

SHOWN_ERRORS = 20
"""Items of `errors` that the text of an exception shows; the attribute has them all."""


class TrainkitError(Exception):
    """Base of all errors of this package."""


class ConfigError(TrainkitError):
    """Where the service is, or the key, is not known; or a profile cannot be read."""


class MissingExtra(TrainkitError, ImportError):
    """A library that is an extra of `trainkit-client` is not installed."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(f"{purpose} needs {library}: pip install 'trainkit-client[{extra}]'.")


class Unreachable(TrainkitError, ConnectionError):
    """No answer came: connection refused, cut or timed out, also when the request was repeated."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(f"No answer from {url}: {reason}.")


class WaitTimeout(TrainkitError, TimeoutError):
    """The given time to wait is over. What was waited for goes on."""


class AmbiguousReference(TrainkitError, LookupError):
    """A name or a prefix of an id means several things. `candidates` holds their ids, newest first."""

    def __init__(self, what: str, reference: str, candidates: list[str]) -> None:
        self.reference = reference
        self.candidates = candidates
        shown = ", ".join(candidates[:5]) + (" ..." if len(candidates) > 5 else "")
        super().__init__(f"{len(candidates)} {what} are called {reference!r}: {shown}. Use one of these ids.")


class UploadMismatch(TrainkitError):
    """The stored bytes are not those that were read: the file has changed during its upload."""


class BadResponse(TrainkitError):
    """A response that is not as the API describes it: another program may listen at this address."""


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """One thing wrong in a request, and where."""

    pointer: str
    code: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.pointer}: {self.message}" if self.pointer else self.message
        return f"{text.rstrip('.')}. {self.hint}".rstrip()


class ProblemError(TrainkitError):
    """The service answered with an error; `document` is the problem document as it came."""

    def __init__(self, status: int, document: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        self.status = status
        self.document: dict[str, Any] = dict(document)
        self.code: str = _text(document.get("code"))
        self.title: str = _text(document.get("title"))
        self.detail: str = _text(document.get("detail"))
        items = document.get("errors")
        self.errors: list[ErrorDetail] = [
            ErrorDetail(*(_text(item.get(name)) for name in ("pointer", "code", "message", "hint")))
            for item in (items if isinstance(items, list) else [])
            if isinstance(item, Mapping)
        ]
        self.request_id: str | None = document.get("request_id") or headers.get("x-request-id")
        self.headers: dict[str, str] = dict(headers)
        super().__init__(self._message())

    def _message(self) -> str:
        code = f"{self.status} {self.code}".rstrip()
        lines = [f"{self.detail or self.title or 'the service refused the request'} ({code})"]
        lines += [f"  {error}" for error in self.errors[:SHOWN_ERRORS]]
        if len(self.errors) > SHOWN_ERRORS:
            lines.append(f"  ... and {len(self.errors) - SHOWN_ERRORS} more")
        return "\n".join(lines)

    @property
    def quota(self) -> dict[str, Any] | None:
        """The limit that the request would have passed: `name`, `limit`, `used`, `resets_at`."""
        return self.document.get("quota")


class NotFound(ProblemError):
    """404 or 410: it does not exist, belongs to another project, or has been removed."""


class Refused(ProblemError):
    """Any other 4xx: the request must be another one, or come later."""


class Invalid(Refused):
    """400 or 422: what was sent is not valid. `errors` says where and why."""


class Unauthorized(Refused):
    """401: no key, or one that is unknown, revoked or expired."""


class Forbidden(Refused):
    """403: the key's role may not do this."""


class Conflict(Refused):
    """409 or 412: the state of the thing does not allow it, or has changed meanwhile."""


class TooManyRequests(Refused):
    """429: a rate or a quota is used up. `retry_after`: how many seconds to wait, where the service says it."""

    retry_after: float | None = None


class ServerError(ProblemError):
    """5xx: the service could not carry it out, also when the request was repeated."""


class JobFailed(TrainkitError):
    """The job ended without a usable result. `job` is the job as it ended."""

    def __init__(self, job: JobFields) -> None:
        self.job = job
        super().__init__(_ended(f"job {job.id}", job.name, job.state, job.error))


class ExperimentFailed(TrainkitError):
    """The experiment failed. `experiment` is as it ended."""

    def __init__(self, experiment: ExperimentFields) -> None:
        self.experiment = experiment
        super().__init__(_ended(f"experiment {experiment.id}", experiment.name, experiment.state, experiment.error))


class DatasetInvalid(TrainkitError):
    """The check of a dataset found that it cannot be used. `dataset.report()` lists what was found."""

    def __init__(self, dataset: DatasetFields) -> None:
        self.dataset = dataset
        super().__init__(_ended(f"dataset {dataset.id}", dataset.name, dataset.state, dataset.error))


def _ended(what: str, name: str | None, state: str, error: Any) -> str:
    text = f"{what} ({name})" if name else what
    if error is None:
        return f"{text} is {state}."
    hint = f" {error.hint}" if error.hint else ""
    return f"{text} is {state}: {error.message} ({error.code}).{hint}"


CLASSES: dict[int, type[ProblemError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    422: Invalid,
    429: TooManyRequests,
}


def problem_of(status: int, body: bytes, headers: Mapping[str, str]) -> ProblemError:
    """Return the exception of an error response."""
    document: Any = None
    if "json" in headers.get("content-type", ""):
        try:
            document = json.loads(body)
        except ValueError:
            document = None
    if not isinstance(document, dict):  # a proxy's own page
        text = " ".join(body[:400].decode("utf-8", "replace").split())
        document = {"status": status, "detail": text[:200]}
    return CLASSES.get(status, ServerError if status >= 500 else Refused)(status, document, headers)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
