"""The job spec: frozen pydantic models, discriminated by `kind`. Nothing here imports torch."""

from trainkit.spec.facts import ColumnFacts, DatasetFacts
from trainkit.spec.job import JobSpec
from trainkit.spec.problems import Problem, SpecError
from trainkit.spec.resolve import ResolvedSpec, further_problems, load_resolved, parse_spec, resolve

__all__ = [
    "ColumnFacts",
    "DatasetFacts",
    "JobSpec",
    "Problem",
    "ResolvedSpec",
    "SpecError",
    "further_problems",
    "load_resolved",
    "parse_spec",
    "resolve",
]
