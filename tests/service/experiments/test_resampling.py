"""The rows of every trial of a resampling plan, from its document to the parts that are trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit

from service.experiments.strategies import resampled_trials
from tests.support.fit_data import vectors
from trainkit.data import Dataset
from trainkit.fit.encoding.prepare import prepare
from trainkit.spec import parse_spec, resolve
from trainkit.spec.experiments import parse_experiment

Rows = dict[str, list[int]]


def shipped() -> Dataset:
    """The same samples with a test part of their own, every fifth sample, and a small validation part."""
    data = vectors()
    parts = np.where(np.arange(120) % 5 == 0, 2, np.where(np.arange(120) % 7 == 0, 1, 0)).astype(np.int8)
    return Dataset.from_arrays(data.inputs.values, data.targets, split=parts)  # type: ignore[union-attr]


def rows_of_trials(data: Dataset, **plan: Any) -> list[Rows]:
    """Row numbers of each part, of each trial, as its training would have them."""
    spec = {"dataset": "d", "model": {"kind": "linear"}, **plan.pop("spec", {})}
    experiment = parse_experiment({"spec": spec, **plan})
    found = []
    for trial in resampled_trials(experiment):  # type: ignore[arg-type]
        resolved = resolve(parse_spec(trial.document), data.facts)
        prepared = prepare(resolved.spec, data, torch.device("cpu"), lambda _phase: None)
        parts = {"train": prepared.train, "val": prepared.val, "test": prepared.test}
        found.append({name: [] if part is None else part.index.tolist() for name, part in parts.items()})
    return found


@pytest.mark.parametrize("data", [vectors, shipped])
@pytest.mark.parametrize("plan", [{"kind": "kfold", "folds": 4, "repeats": 2}, {"kind": "monte_carlo", "draws": 6}])
def test_all_trials_share_one_test_part_that_none_of_them_trains_or_validates_on(
    data: Any, plan: dict[str, Any]
) -> None:
    trials = rows_of_trials(data(), spec={"split": {"test": 3, "seed": 4}}, **plan)
    held = trials[0]["test"]
    assert held
    if data is shipped:
        assert held == list(range(0, 120, 5))
    for one in trials:
        assert one["test"] == held
        assert sorted(one["train"] + one["val"] + held) == list(range(120))
    assert len({tuple(one["val"]) for one in trials}) == len(trials), "every trial validates on other rows"


@pytest.mark.parametrize("stratify", [True, False])
def test_trials_are_scikit_learn_s_on_the_rows_that_are_not_test(stratify: bool) -> None:
    data = vectors()
    labels = np.asarray(data.targets)
    spec = {"split": {"seed": 9, "stratify": stratify}}
    folds = rows_of_trials(data, kind="kfold", folds=5, repeats=2, spec=spec)
    rest = np.setdiff1d(np.arange(120), folds[0]["test"])
    expected = []
    for repeat in range(2):
        splitter = (StratifiedKFold if stratify else KFold)(5, shuffle=True, random_state=9 + repeat)
        expected += [(rest[train].tolist(), rest[val].tolist()) for train, val in splitter.split(rest, labels[rest])]
    assert [(one["train"], one["val"]) for one in folds] == expected

    draws = rows_of_trials(data, kind="monte_carlo", draws=4, spec=spec)
    assert draws[0]["test"] == folds[0]["test"], "the same seed holds out the same rows, whatever the kind"
    for number, one in enumerate(draws):
        # 80 % of the 108 rows that are not test
        splitter = (StratifiedShuffleSplit if stratify else ShuffleSplit)(1, train_size=86, random_state=9 + number)
        ((train, val),) = splitter.split(rest, labels[rest])
        assert (one["train"], one["val"]) == (sorted(rest[train].tolist()), sorted(rest[val].tolist()))


def test_the_last_training_on_all_other_rows_has_the_same_test_part() -> None:
    data = vectors()
    (fold, *_) = rows_of_trials(data, kind="kfold", folds=3, spec={"split": "8:1:1"})
    resolved = resolve(parse_spec({"dataset": "d", "model": {"kind": "linear"}, "split": "9:0:1"}), data.facts)
    last = prepare(resolved.spec, data, torch.device("cpu"), lambda _phase: None)
    assert last.test is not None
    assert last.test.index.tolist() == fold["test"]
