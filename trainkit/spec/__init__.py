"""The job spec: frozen pydantic models, discriminated by `kind`. Nothing here imports torch."""

from trainkit.spec.facts import ColumnFacts, DatasetFacts
from trainkit.spec.job import JobSpec
from trainkit.spec.problems import Problem, SpecError

__all__ = ["ColumnFacts", "DatasetFacts", "JobSpec", "Problem", "SpecError"]
