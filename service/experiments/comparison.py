"""Two experiments compared in pairs, where both have trained and validated on the same samples."""

from __future__ import annotations

from typing import Any

from service.errors import HttpProblem
from service.experiments.results import BASE, by_cut, paired, validated, validation_share
from service.experiments.service import ExperimentView
from service.experiments.strategies import resampled_split
from trainkit.spec.experiments import KFold, MonteCarlo
from trainkit.spec.split import SplitSpec


def between(a: ExperimentView, b: ExperimentView) -> dict[str, Any]:
    """Whether B's spec is better than A's, by A's metric on the validation parts of the same draws.

    Raises a 409 problem where they cannot be paired.
    """
    if (why := _apart(a, b)) is not None:
        raise HttpProblem(409, "not_comparable", why)
    assert isinstance(a.plan, KFold | MonteCarlo)
    assert a.metric is not None
    metric = validated(a.metric)
    first, second = by_cut(a.lines, BASE, metric), by_cut(b.lines, BASE, metric)
    cuts = [cut for cut in first if cut in second]
    if not cuts:
        raise HttpProblem(409, "nothing_to_compare", f"There is no cut of which both have a {metric} yet.")
    values = [first[cut] for cut in cuts], [second[cut] for cut in cuts]
    names = a.row.name or a.row.id, b.row.name or b.row.id
    return paired(*values, metric, names, validation_share(a.plan, a.facts))


def _apart(a: ExperimentView, b: ExperimentView) -> str | None:
    """Why their trials are no pairs."""
    if not all(isinstance(one.plan, KFold | MonteCarlo) for one in (a, b)):
        return "Only experiments of kind kfold and monte_carlo are compared: others have one cut of the data."
    if a.row.dataset_id != b.row.dataset_id:
        return "They are about different datasets."
    if a.metric != b.metric:
        return f"One is about {a.metric}, the other about {b.metric}: name one with ?metric=."
    if _cut(a) != _cut(b):
        return "They cut the data differently: kind, folds, seed and split must be the same."
    return None


def _cut(view: ExperimentView) -> tuple[Any, ...]:
    assert isinstance(view.plan, KFold | MonteCarlo)
    split = SplitSpec.model_validate(resampled_split(view.plan, view.plan.spec))
    return view.plan.kind, getattr(view.plan, "folds", None), split
