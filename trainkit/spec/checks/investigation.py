"""Which runs can be investigated: those whose training can be repeated with one change."""

from __future__ import annotations

from collections.abc import Iterator

from trainkit.spec.job import JobSpec
from trainkit.spec.models import is_sklearn_model
from trainkit.spec.problems import Problem


def why_not_investigable(spec: JobSpec) -> str | None:
    """Say why a run of this spec cannot be investigated; None where it can."""
    kind = spec.model.kind
    if kind == "ensemble":
        return "an ensemble is not trained: investigate the jobs of its members"
    if is_sklearn_model(spec.model):
        return f"the kind {kind} is fitted by scikit-learn at once, so there is no training that an experiment could change"
    return None


def investigation_problems(spec: JobSpec) -> Iterator[Problem]:
    """Yield why `diagnose` asks for what the model does not allow."""
    if spec.diagnose.investigate == "auto" and (reason := why_not_investigable(spec)) is not None:
        yield Problem("/diagnose/investigate", "not_investigable", reason, 'Leave it out, or set it to "off".')
