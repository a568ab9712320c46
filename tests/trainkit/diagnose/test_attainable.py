"""The plain data of what is attainable: interval of R2, key, stored form."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import r2_score

from trainkit.diagnose.attainable import Attainable, attainable_key, long_run_variance, r2_interval
from trainkit.spec import JobSpec

ROW = {"name": "constant", "state": "fitted", "value": 0.5, "low": 0.4, "high": 0.6, "seconds": 0.1, "reason": None}
FOUND = Attainable("accuracy", 0.5, 0.4, 0.6, "constant", (ROW,), 96, 400, 1.0, 0.2, 2.0, False, "k")


def test_r2_and_its_interval_are_those_of_a_calculation_by_hand() -> None:
    truth, predicted = np.array([[1.0], [2], [3], [4]]), np.array([[1.5], [2], [2.5], [4]])
    found = r2_interval(truth, predicted)
    assert found is not None
    left = [np.delete(np.arange(4), row) for row in range(4)]
    logs = np.log([1 - r2_score(truth[rows], predicted[rows]) for rows in left])
    error = math.sqrt(3 / 4 * ((logs - logs.mean()) ** 2).sum())  # the jackknife's
    reach = 3.182446305284263 * error  # Student's t of 3 degrees of freedom, from a table
    assert found == pytest.approx((0.9, 1 - 0.1 * math.exp(reach), 1 - 0.1 * math.exp(-reach)), rel=1e-9)
    assert found[0] == pytest.approx(r2_score(truth, predicted))


def test_the_mean_over_targets_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=(60, 3)) * [1, 10, 100]
    predicted = truth + random.normal(size=(60, 3)) * [0.5, 1, 90]
    found = r2_interval(truth, predicted)
    assert found is not None
    assert found[0] == pytest.approx(r2_score(truth, predicted))
    assert found[1] < found[0] < found[2] < 1


@pytest.mark.parametrize("n", [20, 100])
def test_the_interval_covers_the_true_share_in_about_95_of_100_draws(n: int) -> None:
    random, covered = np.random.default_rng(n), 0
    for _ in range(400):
        signal, noise = random.normal(size=(n, 1)), random.normal(size=(n, 1))
        found = r2_interval(signal + noise, signal)
        assert found is not None
        covered += found[1] <= 0.5 <= found[2]
    assert 0.92 <= covered / 400 <= 0.98


def test_there_is_no_interval_without_spread() -> None:
    assert r2_interval(np.ones((9, 1)), np.zeros((9, 1))) is None
    assert r2_interval(np.array([[1.0], [2]]), np.array([[1.0], [2]])) is None
    assert r2_interval(np.arange(5.0)[:, None], np.full((5, 1), math.nan)) is None
    assert r2_interval(np.arange(5.0)[:, None], np.arange(5.0)[:, None]) == (1.0, 1.0, 1.0)


def test_errors_that_last_widen_the_interval() -> None:
    random = np.random.default_rng(0)
    lasting = np.repeat(random.normal(size=50), 8)
    assert long_run_variance(lasting, 0) == pytest.approx(lasting.var(ddof=1))
    # eight equal values in a row count as one: the variance of the mean is nearly eight times as large
    assert 4 < long_run_variance(lasting, 12) / long_run_variance(lasting, 0) < 9


def test_the_stored_form_is_json_and_comes_back() -> None:
    stored = json.loads(json.dumps({"type": "attainable", **FOUND.as_dict()}))
    assert Attainable.from_dict(stored) == FOUND


def test_an_incomplete_measurement_is_repeated_only_with_twice_the_time() -> None:
    assert not FOUND.worth_repeating(3.9)
    assert FOUND.worth_repeating(4.0)


BASE = {"dataset": {"id": "d", "target": "y"}, "task": "regression", "model": {"kind": "mlp"}}


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"model": {"kind": "linear"}, "train": {"epochs": 3, "seed": 5}, "optimizer": {"kind": "sgd"}}, True),
        ({"preprocess": ["z_score"], "balance": "none", "name": "other", "target_scaling": "min_max"}, True),
        ({"split": {"seed": 1}}, False),
        ({"split": {"duplicates": "drop"}}, False),
        ({"dataset": {"id": "d", "target": "z"}}, False),
        ({"dataset": {"id": "e", "target": "y"}}, False),
        ({"dataset": {"id": "d", "target": "y", "ignore": ["a"]}}, False),
        ({"task": "classification"}, False),
        ({"model": {"kind": "multimodal"}}, False),
    ],
)
def test_the_key_is_of_data_and_split_alone(changed: dict[str, object], same: bool) -> None:
    one, other = (JobSpec.model_validate(document) for document in (BASE, {**BASE, **changed}))
    assert (attainable_key(one) == attainable_key(other)) is same
