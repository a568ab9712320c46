"""What must hold before a training process is forked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from trainkit.spec import DatasetFacts, JobSpec, SpecError, resolve
from trainkit.spec.error_mapping import UNREACHABLE
from trainkit.spec.failures import failure
from trainkit.spec.memory import does_not_fit, needed_bytes, spec_that_fits
from worker import exit_errors


class CannotBeginError(Exception):
    """The attempt is over before its training process; `as_error` is the job's error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.as_error = error


def facts_of(dataset: Path) -> DatasetFacts:
    """Those of a prepared dataset. Raises OSError, ValueError, KeyError."""
    return DatasetFacts.model_validate(json.loads((dataset / "meta.json").read_bytes())["facts"])


def refuse_what_does_not_fit(spec: dict[str, Any], dataset: Path, limit: int) -> None:
    """Raises CannotBeginError. Better before the first step than after an hour, by the kernel."""
    most = exit_errors.memory_limit()
    limit = min(limit or most, most)
    try:
        facts = facts_of(dataset)
        resolved = resolve(JobSpec.model_validate(spec), facts)
    except (SpecError, ValueError, KeyError, TypeError):
        return  # the training process has the words for it
    if (problem := does_not_fit(resolved, facts, limit)) is not None:
        offer = spec_that_fits(resolved, facts, limit)
        evidence = {"needed_bytes": needed_bytes(resolved, facts), "limit_bytes": limit, "next_spec": offer}
        raise CannotBeginError(failure("does_not_fit", problem.message, evidence, hint=problem.hint))


def sha256_of(path: Path) -> str | None:
    """Hex digest of a file; None when it cannot be read. Raises OSError while its server is away: it may be whole."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        if error.errno in UNREACHABLE:
            raise
        return None
    return digest.hexdigest()
