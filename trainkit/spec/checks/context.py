"""A spec beside its dataset, which the checks are about."""

from __future__ import annotations

from dataclasses import dataclass

from trainkit.spec.facts import (
    DatasetFacts,
    Sample,
    is_classification,
    labelled_samples,
)
from trainkit.spec.job import JobSpec, Task
from trainkit.spec.split import part_sizes


@dataclass(frozen=True, slots=True)
class CheckContext:
    """A spec beside its dataset."""

    spec: JobSpec
    facts: DatasetFacts
    task: Task
    sample: Sample
    outputs: int

    @property
    def classification(self) -> bool:
        return is_classification(self.task)

    @property
    def parts(self) -> tuple[int, int, int]:
        """Samples in (train, validation, test), as the split will cut them, before sub-sampling."""
        return self.spec.split.sizes(labelled_samples(self.spec, self.facts), self.facts.splits)

    @property
    def training_samples(self) -> int:
        share = self.spec.split.subsample or 1.0
        return max(1, part_sizes(self.parts[0], (share, 1.0 - share))[0])

    @property
    def has_validation(self) -> bool:
        return self.parts[1] > 0
