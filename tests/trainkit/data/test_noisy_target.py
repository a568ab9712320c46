"""Columns that are the target with noise: found beside real columns, which are related among themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine, make_blobs

from trainkit.data import Column, Dataset, TableInputs
from trainkit.data.dataset import make_dataset
from trainkit.data.noisy_target import MOST_COLUMNS, noisy_targets
from trainkit.data.target_leakage import find_target_leaks

REAL = [load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine]


def related(n: int = 400, d: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Columns that share two factors, and two classes that one of the factors tells."""
    random = np.random.default_rng(seed)
    factors = random.normal(size=(n, 2))
    columns = factors @ random.normal(size=(2, d)) + 0.3 * random.normal(size=(n, d))
    return columns, (factors[:, 0] + 0.3 * random.normal(size=n) > 0).astype(np.int64)


def with_noise(y: np.ndarray, noise: float, seed: int = 1) -> np.ndarray:
    return (y - y.mean()) / y.std() + noise * np.random.default_rng(seed).normal(size=len(y))


def beside(x: np.ndarray, column: np.ndarray) -> np.ndarray:
    return np.concatenate([x, column[:, None]], axis=1)


@pytest.mark.parametrize("source", REAL)
def test_no_column_of_real_data_looks_like_the_target(source: Any) -> None:
    x, y = source(return_X_y=True)
    assert noisy_targets(x, y) == []


@pytest.mark.parametrize("source", REAL)
@pytest.mark.parametrize("noise", [0.3, 0.6])
def test_the_target_with_noise_is_found_beside_real_columns(source: Any, noise: float) -> None:
    """Its share of variance is 1 / (1 + noise^2): 0.92 and 0.74. One draw in 20 is related to the others by chance."""
    x, y = source(return_X_y=True)
    last = x.shape[1]
    shares = [dict(noisy_targets(beside(x, with_noise(y, noise, seed)), y)).get(last) for seed in range(6)]
    found = [share for share in shares if share is not None]
    assert len(found) >= 4
    assert np.mean(found) == pytest.approx(1 / (1 + noise**2), abs=0.05)


def test_a_strong_column_that_others_are_related_to_is_not_blamed() -> None:
    x, y = related()
    strong = y + 0.2 * x[:, 0] + 0.2 * np.random.default_rng(2).normal(size=len(y))
    assert noisy_targets(beside(x, strong), y) == []


def test_a_relation_by_squares_counts() -> None:
    x, y = related()
    strong = with_noise(y, 0.1) + 0.1 * x[:, 0] ** 2
    assert noisy_targets(beside(x, strong), y) == []


def test_where_all_columns_are_independent_one_of_them_says_nothing() -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 500)
    assert noisy_targets(beside(random.normal(size=(500, 8)), with_noise(y, 0.3)), y) == []


def test_missing_values_and_constant_columns_do_not_matter() -> None:
    x, y = related()
    x = beside(beside(x, np.ones(len(y))), with_noise(y, 0.4))
    x[::50, 0] = np.nan
    x[::40, -1] = np.nan
    assert [place for place, _ in noisy_targets(x, y)] == [x.shape[1] - 1]
    x[::3, -1] = np.nan
    assert noisy_targets(x, y) == [], "a third of it is missing"


def test_what_is_too_small_or_too_wide_is_left_alone() -> None:
    x, y = related(90)
    assert noisy_targets(beside(x, with_noise(y, 0.1)), y) == []
    x, y = related(200, MOST_COLUMNS)
    assert noisy_targets(beside(x, with_noise(y, 0.1)), y) == []
    assert noisy_targets(with_noise(y, 0.1)[:, None], y) == []
    assert noisy_targets(beside(related(200)[0], with_noise(y, 0.1)), np.where(np.arange(200) < 3, np.nan, y)) == []


@settings(max_examples=60, deadline=None)
@given(
    st.integers(100, 300),
    st.integers(1, 12),
    st.integers(0, 10_000),
    st.sampled_from(["class", "number", "one"]),
    st.sampled_from([0.0, 1e-300, 1.0, 1e150, 1e300]),
    st.booleans(),
)
def test_any_numbers_are_answered(n: int, d: int, seed: int, target: str, size: float, strong: bool) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d)) * size * (random.random(d) < 0.8)
    x[random.random((n, d)) < 0.02] = np.nan
    x[random.random((n, d)) < 0.01] = np.inf
    y = {"class": random.integers(0, 4, n), "number": random.normal(size=n) * max(size, 1e-3), "one": np.zeros(n)}[
        target
    ]
    for place, share in noisy_targets(x, y):
        assert 0 <= place < d
        assert 0.6 <= share <= 1.01


def test_columns_that_are_all_alike_are_no_exception() -> None:
    """Four blobs' coordinates, and thirty that the class alone relates, beside four that are related otherwise."""
    x, y = make_blobs(300, n_features=4, centers=3, random_state=0)
    assert noisy_targets(x, y) == []
    x, y = related()
    many = 3 * y[:, None] + np.random.default_rng(1).normal(size=(len(y), 30))
    assert noisy_targets(np.concatenate([x, many], axis=1), y) == []


def test_a_column_that_a_category_is_related_to_is_not_blamed() -> None:
    random = np.random.default_rng(0)
    x, _ = related(600, 5)
    kind = random.integers(0, 5, 600)
    strong = np.array([-2.0, -1, 0, 1, 3])[kind] + 0.5 * random.normal(size=600)
    y = 2 * strong + 0.3 * random.normal(size=600)
    assert [place for place, _ in noisy_targets(beside(x, strong), y)] == [5]
    members = (kind[:, None] == np.arange(5)).astype(float)
    assert noisy_targets(beside(x, strong), y, members) == []
    columns = {f"c{place}": Column(values) for place, values in enumerate(beside(x, strong).T)}
    columns["kind"] = Column(kind.astype(np.int32), tuple("abcde"))
    columns["y"] = Column(y)
    assert find_target_leaks(make_dataset("table", TableInputs(columns), None, None, None, target="y")) == []


@pytest.mark.parametrize("size", [1e300, 1e308])
def test_the_largest_numbers_do_not_overflow(size: float) -> None:
    random = np.random.default_rng(0)
    y = random.uniform(-1.7, 1.7, 2000) * size
    x = random.normal(size=(2000, 5)) + random.normal(size=(2000, 1))
    assert [place for place, _ in noisy_targets(beside(x, y / size + 0.2 * random.normal(size=2000)), y)] == [5]
    noisy_targets(x * size, y)


def test_a_dataset_reports_the_column_with_what_it_shares() -> None:
    x, y = related()
    x = beside(x, with_noise(y, 0.5))
    (found,) = find_target_leaks(Dataset.from_arrays(x.astype(np.float32), y))
    assert found["where"] == "feature 6"
    assert found["code"] == "noisy_target_leak"
    assert found["message"].startswith("feature 6 shares 8")
    columns = {f"c{place}": Column(values.astype(np.float64)) for place, values in enumerate(x.T)}
    columns["y"] = Column(y.astype(np.int32), ("no", "yes"))
    columns["name"] = Column(np.arange(len(y), dtype=np.int32), tuple(f"row {place}" for place in range(len(y))))
    table = make_dataset("table", TableInputs(columns), None, None, None, target="y")
    assert [one["where"] for one in find_target_leaks(table)] == ["c6"]
    # a column that tells the target alone is listed once
    assert len(find_target_leaks(Dataset.from_arrays(beside(x[:, :-1], y.astype(float)), y))) == 1
