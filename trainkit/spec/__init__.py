"""The job spec: frozen pydantic models, discriminated by `kind`. Nothing here imports torch."""

from trainkit.spec.facts import ColumnFacts, DatasetFacts
from trainkit.spec.job import JobSpec
from trainkit.spec.partial_validation import check_spec, further_problems
from trainkit.spec.problems import Problem, SpecError
from trainkit.spec.resolve import Resolved, parse_spec, resolve

__all__ = [
    "ColumnFacts",
    "DatasetFacts",
    "JobSpec",
    "Problem",
    "Resolved",
    "SpecError",
    "check_spec",
    "further_problems",
    "parse_spec",
    "resolve",
]
