"""Standard errors of metrics: against scipy, numbers worked by hand, and the spread over samples drawn again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import trainkit as tk
from tests.support.fit_data import numbers, spec, vectors
from trainkit.fit.evaluation import metrics
from trainkit.fit.evaluation.evaluate import LowestLoss

DRAWS = 4000
CLOSE = 0.06
"""Of a spread over 4000 draws the standard error is 1.1 %; the delta method and n / (n - 1) take the rest."""


def spread(n: int, of: object, seed: int = 0) -> np.ndarray:
    """Standard deviation of `of(rows)` over draws of n rows with replacement."""
    rng = np.random.default_rng(seed)
    return np.std([of(rng.integers(0, n, n)) for _ in range(DRAWS)], axis=0)


def noisy(n: int, targets: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and predictions whose errors have heavy tails and grow with them."""
    rng = np.random.default_rng(1)
    y = rng.normal(size=(n, targets)) * 5 + 2
    return y, y + rng.standard_t(5, size=(n, targets)) * (1 + 0.3 * np.abs(y))


def test_of_means_as_scipy_has_them() -> None:
    y, predicted = noisy(80)
    found, error = metrics.regression_metrics(y, predicted, errors=True), (predicted - y)[:, 0]
    assert found["mae_se"] == pytest.approx(stats.sem(np.abs(error)))
    assert found["mse_se"] == pytest.approx(stats.sem(error**2))
    assert metrics.regression_metrics(y, predicted) == {name: found[name] for name in ("mse", "mae", "r2")}


@pytest.mark.parametrize("targets", [1, 3])
def test_of_numbers_against_the_bootstrap(targets: int) -> None:
    y, predicted = noisy(400, targets)
    found, names = metrics.regression_metrics(y, predicted, errors=True), ("mse", "mae", "r2")
    drawn = spread(400, lambda rows: [metrics.regression_metrics(y[rows], predicted[rows])[name] for name in names])
    assert [found[f"{name}_se"] for name in names] == pytest.approx(drawn.tolist(), rel=CLOSE)


def test_r2_by_hand() -> None:
    """y = -1, -1, 1, 1, errors 0, 1, 0, 1: R^2 = 1/2, moves e^2 - 1/2 = -1/2, 1/2, ... of deviation sqrt(1/3)."""
    found = metrics.regression_metrics(np.array([-1.0, -1, 1, 1]), np.array([-1.0, 0, 1, 2]), errors=True)
    assert (found["r2"], found["r2_se"]) == (0.5, pytest.approx(math.sqrt(1 / 3) / 2))


def test_recall_by_hand() -> None:
    """Recalls 1/2 of 4 and 3/4 of 16: sqrt(1/16 + 3/256) / 2."""
    true, predicted = np.repeat([0, 1], [4, 16]), np.array([0, 0, 1, 1, *[1] * 12, *[0] * 4])
    found = metrics.classification_metrics(true, np.eye(2)[predicted], errors=True)
    assert found["recall_se"] == pytest.approx(math.sqrt(1 / 16 + 3 / 256) / 2)
    assert found["accuracy_se"] == pytest.approx(math.sqrt(0.7 * 0.3 / 20))


def test_recall_against_draws_within_classes() -> None:
    rng = np.random.default_rng(2)
    true = np.repeat(np.arange(3), [200, 40, 12])
    predicted = np.where(rng.random(len(true)) < 0.7, true, rng.integers(0, 3, len(true)))
    starts = {k: np.flatnonzero(true == k) for k in range(3)}

    def again(_rows: np.ndarray) -> float:
        rows = np.concatenate([rng.choice(indices, len(indices)) for indices in starts.values()])
        return metrics.classification_metrics(true[rows], np.eye(3)[predicted[rows]], area=False)["recall"]

    found = metrics.classification_metrics(true, np.eye(3)[predicted], errors=True)
    assert found["recall_se"] == pytest.approx(float(spread(1, again)), rel=CLOSE)


def test_edges() -> None:
    one = metrics.regression_metrics(np.array([1.0]), np.array([3.0]), errors=True)
    assert [one[f"{name}_se"] for name in ("mse", "mae", "r2")] == [0.0, 0.0, 0.0]
    still = metrics.regression_metrics(np.ones(5), np.zeros(5), errors=True)
    assert (still["r2"], still["r2_se"]) == (0.0, 0.0)
    broken = metrics.regression_metrics(np.ones(3), np.array([1.0, math.nan, 1.0]), errors=True)
    assert all(math.isnan(value) for value in broken.values())
    assert len(broken) == 6
    absent = metrics.classification_metrics(np.array([0, 0]), np.eye(3)[[0, 1]], errors=True)
    # recalls 1/2 and 0 of the two classes that occur, the one without samples of its own adds no variance
    assert absent["recall_se"] == pytest.approx(math.sqrt(0.25 / 2) / 2)
    assert (
        metrics.classification_metrics(np.zeros(0, np.int64), np.zeros((0, 3)), area=False, errors=True)["recall_se"]
        == 0
    )


@pytest.mark.parametrize(
    ("data", "names"),
    [(numbers, ("loss", "mse", "mae", "r2")), (vectors, ("loss", "accuracy", "recall"))],
    ids=["numbers", "classes"],
)
def test_logged_with_every_evaluation(data: object, names: tuple[str, ...]) -> None:
    events: list[dict] = []
    tk.fit(spec({"kind": "linear"}), data(), on_event=events.append)
    logged = [
        (e["epoch"], name) for e in events if e["type"] == "metrics" for split, name, _ in e["rows"] if split == "val"
    ]
    assert [name for epoch, name in logged if epoch == 1 and name.endswith("_se")] == [
        name for epoch, name in logged if epoch == 3 and name.endswith("_se")
    ]
    assert {name for _, name in logged if name.endswith("_se")} == {f"{name}_se" for name in (*names, "loss_rise")}


def test_a_rise_by_pairs_of_samples() -> None:
    """Hard samples are hard in both evaluations: of the difference scipy's paired t test has the same standard error."""
    rng = np.random.default_rng(3)
    hardness = rng.gamma(1.0, 2.0, 60)
    first, later = (torch.from_numpy(hardness + rng.normal(shift, 0.1, 60)) for shift in (0.0, 0.2))
    least = LowestLoss()
    assert least.observe(first, float(first.mean()), None) == 0.0
    found = least.observe(later, float(later.mean()), None)
    paired = stats.ttest_rel(later.numpy(), first.numpy())
    assert found == pytest.approx(float(later.mean() - first.mean()) / paired.statistic)
    assert found < stats.sem(later.numpy()) / 10
    # the least stays the reference; a weight of 5 for each changes nothing; a new least is 0, and the reference then
    assert least.observe(later, float(later.mean()), torch.full((60,), 5.0, dtype=torch.float64)) == pytest.approx(
        found
    )
    assert least.observe(first - 1, float(first.mean()) - 1, None) == 0.0
    assert least.observe(first, float(first.mean()), None) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(least.observe(first * math.nan, math.nan, None))


def test_a_rise_against_the_bootstrap() -> None:
    rng = np.random.default_rng(4)
    first, later, weights = rng.gamma(1.0, 1.0, 300), rng.gamma(1.2, 1.0, 300), rng.choice([0.5, 2.0], 300)
    least = LowestLoss()

    def mean(losses: np.ndarray, rows: np.ndarray) -> float:
        return float((losses[rows] * weights[rows]).sum() / weights[rows].sum())

    everyone = np.arange(300)
    sample_weights = torch.from_numpy(weights)
    least.observe(torch.from_numpy(first), mean(first, everyone), sample_weights)
    found = least.observe(torch.from_numpy(later), mean(later, everyone), sample_weights)
    drawn = spread(300, lambda rows: mean(later, rows) - mean(first, rows))
    assert found == pytest.approx(float(drawn), rel=CLOSE)


def test_the_least_comes_out_of_a_checkpoint_as_it_went_in() -> None:
    least, other = LowestLoss(), LowestLoss()
    other.load_state_dict(least.state_dict(), torch.device("cpu"))
    assert other.losses is None
    least.observe(torch.tensor([1.0, 2.0]), 1.5, None)
    other.load_state_dict(least.state_dict(), torch.device("cpu"))
    later = torch.tensor([2.0, 4.0])
    assert other.observe(later, 3.0, None) == least.observe(later, 3.0, None) == pytest.approx(0.5)
