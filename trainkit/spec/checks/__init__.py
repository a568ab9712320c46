"""What a spec may not ask of its dataset or its model. Every check yields all problems, each with pointer and hint.

A module for each part of the spec; `columns.dataset_problems` comes first, for it needs no more than the dataset's facts.
"""

from __future__ import annotations

from collections.abc import Iterator

from trainkit.spec.checks.context import CheckContext
from trainkit.spec.checks.inputs import augment_problems, preprocess_problems
from trainkit.spec.checks.investigation import investigation_problems
from trainkit.spec.checks.model import model_problems, single_sample_problems
from trainkit.spec.checks.splits import split_problems
from trainkit.spec.checks.training import loss_problems, monitor_problems
from trainkit.spec.checks.transfer import transfer_problems
from trainkit.spec.problems import Problem


def all_problems(context: CheckContext) -> Iterator[Problem]:
    """Everything else, once the sample's form is known."""
    yield from split_problems(context)
    yield from preprocess_problems(context)
    yield from augment_problems(context)
    yield from model_problems(context)
    yield from single_sample_problems(context)
    yield from loss_problems(context)
    yield from monitor_problems(context)
    yield from transfer_problems(context)
    yield from investigation_problems(context.spec)
