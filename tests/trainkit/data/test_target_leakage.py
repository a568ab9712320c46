"""Target leaks: features that predict the target alone, and real features, which do not."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

from trainkit.data import Column, Dataset, TableInputs
from trainkit.data.dataset import categories_of, make_dataset
from trainkit.data.report import report
from trainkit.data.target_leakage import _rank_correlation, find_target_leaks

N = 300
LETTERS = ("a", "b", "c")


def named(dataset: Dataset) -> list[str]:
    return [one["where"] for one in find_target_leaks(dataset)]


def table(target: str, **columns: Any) -> Dataset:
    as_columns = {n: v if isinstance(v, Column) else Column(np.asarray(v, np.float64)) for n, v in columns.items()}
    return make_dataset("table", TableInputs(as_columns), None, None, None, target=target)


def rows(seed: int = 0) -> tuple[np.random.Generator, np.ndarray, Column]:
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, N)
    return random, y, categories_of([LETTERS[code] for code in y])


def test_find_target_leaks_of_classes() -> None:
    random, y, label = rows()
    order = np.array([2, 0, 1])  # not in the order of the classes
    data = table(
        "label",
        label=label,
        code=order[y] * 10.0,
        score=order[y] + random.uniform(0, 0.9, N),
        decision=categories_of([f"{LETTERS[code]}{random.integers(2)}" for code in y]),
        nearly=np.where(random.random(N) < 0.03, random.normal(size=N) * 30, order[y] * 10.0),
        noise=random.normal(size=N),
        name=categories_of([f"person {i}" for i in range(N)]),
    )
    assert named(data) == ["code", "score", "decision"]
    data_report = report(data, "text", {})
    assert sum(one["code"] == "target_leak" for one in data_report["findings"]) == 3


def test_find_target_leaks_quotes_the_column_name() -> None:
    _, y, label = rows()
    assert named(table("label", label=label, **{'"the" "answer"': y})) == ['"the" "answer"']


def test_find_target_leaks_with_many_classes_needs_little_memory() -> None:
    random = np.random.default_rng(2)
    y = random.permutation(np.repeat(np.arange(2000), 5))
    tracemalloc.start()
    assert named(Dataset.from_arrays(np.stack([random.normal(size=len(y)), y + 0.5], 1), y)) == ["feature 1"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 << 20, "values by classes are 160 MB"


def test_find_target_leaks_in_arrays() -> None:
    random, y, _ = rows()
    x = random.normal(size=(N, 4, 5)).astype(np.float32)
    assert named(Dataset.from_arrays(x, y)) == []
    x[:, 2, 3] = y
    (found,) = find_target_leaks(Dataset.from_arrays(x, y))
    assert found["where"] == "feature 13"
    assert (
        found["message"] == "feature 13 alone predicts the class (100.0%): check whether it is known before the target"
    )


def test_find_target_leaks_of_numbers() -> None:
    random = np.random.default_rng(1)
    y = random.normal(size=N)
    data = table("y", y=y, logarithm=-np.exp(y), near_duplicates=y + random.normal(0, 0.3, N), rounded=y.round(2))
    assert named(data) == ["logarithm", "rounded"]


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=40))
def test_rank_correlation_equals_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, np.float64).T
    correlation = _rank_correlation(a, b, False)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert correlation is None
    else:
        assert correlation == pytest.approx(abs(spearmanr(a, b).statistic), abs=1e-9)


@pytest.mark.parametrize("source", [load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine])
def test_find_target_leaks_not_in_real_data(source: Any) -> None:
    x, y = source(return_X_y=True)
    assert named(Dataset.from_arrays(x.astype(np.float32), y)) == []


def test_find_target_leaks_not_in_few_samples() -> None:
    y = np.arange(40) % 2
    assert named(Dataset.from_arrays(y[:, None].astype(float), y)) == []
    rare = np.array([1] * 4 + [0] * 96)  # one of a thousand features is beyond the rest there by chance
    assert named(Dataset.from_arrays(rare[:, None].astype(float), rare)) == []
    assert named(Dataset.from_arrays(np.zeros((100, 2)), np.zeros(100, np.int64))) == []
    assert named(Dataset.from_arrays(np.zeros((100, 2)), np.random.default_rng(0).normal(size=(100, 2)))) == []
    gaps = table("y", y=np.where(np.arange(N) < 5, np.nan, 1.0), a=np.ones(N))
    assert named(gaps) == []
    infinite = table("y", y=np.arange(N) + 0.5, a=np.where(np.arange(N) < 5, np.inf, np.arange(N)))
    assert named(infinite) == []
