"""Splits, folds and balancing against scikit-learn and their properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit
from sklearn.utils.class_weight import compute_class_weight

from trainkit.data import DataError, class_weights, rebalance, split_indices
from trainkit.data.duplicates import row_digests
from trainkit.data.splits import Parts, cut, largest_remainder, shuffle_split, without_duplicates
from trainkit.spec.split import SplitSpec

labels_of = st.lists(st.integers(0, 5), min_size=1, max_size=200).map(np.array)
shares_of = st.lists(st.floats(0.01, 10), min_size=2, max_size=4).map(np.array)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.integers(0, 10_000), shares_of)
def test_sizes_add_up_and_are_within_one_of_their_share(n: int, shares: NDArray[np.float64]) -> None:
    sizes = largest_remainder(n, shares)
    assert sizes.sum() == n
    assert (np.abs(sizes - n * shares / shares.sum()) < 1 + 1e-6).all()


@given(labels_of, shares_of)
def test_every_class_is_within_one_sample_of_its_share_in_every_part(
    labels: NDArray[np.int64], shares: NDArray[np.float64]
) -> None:
    pieces = cut(len(labels), shares, labels, random())
    sizes = largest_remainder(len(labels), shares)
    assert [len(piece) for piece in pieces] == sizes.tolist()
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(labels)))
    counts = np.bincount(labels)
    for piece, size in zip(pieces, sizes, strict=True):
        class_counts = np.bincount(labels[piece], minlength=len(counts))
        assert (np.abs(class_counts - counts * size / len(labels)) < 1 + 1e-6).all()


@pytest.mark.parametrize(
    ("ratio", "sizes"),
    [("8:2", (80, 0, 20)), ("8:2:2.5", (64, 16, 20)), ("1:1:1", (34, 33, 33)), ("8:0:2", (80, 0, 20))],
)
def test_ratios_of_any_scale(ratio: str, sizes: tuple[int, int, int]) -> None:
    parts = split_indices(SplitSpec.model_validate(ratio), 100)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == sizes


def test_split_depends_on_the_seed_alone() -> None:
    labels = np.arange(100) % 3
    first, again, other = (split_indices(SplitSpec(seed=seed), 100, labels) for seed in (1, 1, 2))
    assert first.test.tolist() == again.test.tolist()
    assert first.test.tolist() != other.test.tolist()
    np.random.seed(5)  # the global generator has no say
    assert split_indices(SplitSpec(seed=1), 100, labels).test.tolist() == first.test.tolist()


def test_predefined_parts_are_kept() -> None:
    predefined = np.array([0] * 70 + [1] * 10 + [2] * 20)
    parts = split_indices(SplitSpec(train=1, validation=8, test=1), 100, None, predefined)
    assert parts.train.tolist() == list(range(70))
    assert parts.validation.tolist() == list(range(70, 80))
    assert parts.test.tolist() == list(range(80, 100))


def test_validation_is_carved_out_of_a_predefined_training_part_and_stratified() -> None:
    labels = np.array([0] * 60 + [1] * 30 + [0] * 10)
    predefined = np.array([0] * 90 + [2] * 10)
    parts = split_indices(SplitSpec(train=8, validation=1, test=1), 100, labels, predefined)
    assert (len(parts.train), len(parts.validation)) == (80, 10)
    assert parts.test.tolist() == list(range(90, 100))
    assert not set(parts.train) & set(parts.validation)
    assert np.bincount(labels[parts.validation]).tolist() in ([7, 3], [6, 4])
    assert len(split_indices(SplitSpec(validation=0), 100, labels, predefined).validation) == 0


def test_split_can_ignore_predefined_parts() -> None:
    predefined = np.array([0] * 90 + [2] * 10)
    parts = split_indices(SplitSpec(use_predefined=False), 100, None, predefined)
    assert parts.test.tolist() != list(range(90, 100))


def test_split_subsample_keeps_validation_and_test() -> None:
    labels = np.arange(1000) % 2
    whole, part = split_indices(SplitSpec(), 1000, labels), split_indices(SplitSpec(subsample=0.1), 1000, labels)
    assert part.validation.tolist() == whole.validation.tolist()
    assert part.test.tolist() == whole.test.tolist()
    assert set(part.train) < set(whole.train)
    assert np.bincount(labels[part.train]).tolist() == [40, 40]


@given(labels_of)
def test_class_weights_equal_scikit_learn(labels: NDArray[np.int64]) -> None:
    present = np.unique(labels)
    weights = class_weights(labels, 6)
    np.testing.assert_allclose(weights[present], compute_class_weight("balanced", classes=present, y=labels))
    assert weights.sum() == pytest.approx(weights[present].sum())


@given(labels_of, st.integers(0, 100))
def test_rebalance_oversample(labels: NDArray[np.int64], seed: int) -> None:
    indices = np.arange(len(labels), dtype=np.int64) * 3
    drawn = rebalance(indices, labels, "oversample", seed)
    counts = np.bincount(labels[drawn // 3])
    assert set(drawn) == set(indices)
    assert set(counts[counts > 0]) == {np.bincount(labels).max()}
    times = np.unique(drawn, return_counts=True)[1]
    for label in np.unique(labels):
        assert np.ptp(times[labels == label]) <= 1  # no sample is repeated much more often than another


@given(labels_of, st.integers(0, 100))
def test_rebalance_undersample(labels: NDArray[np.int64], seed: int) -> None:
    drawn = rebalance(np.arange(len(labels), dtype=np.int64), labels, "undersample", seed)
    counts = np.bincount(labels)
    assert len(set(drawn)) == len(drawn) == counts[counts > 0].min() * (counts > 0).sum()
    assert rebalance(drawn, labels[drawn], "none", seed) is drawn


class_labels = st.lists(st.integers(0, 3), min_size=20, max_size=120).map(
    lambda some: np.concatenate([some, np.repeat(np.arange(4), 5)])
)
seeds = st.integers(0, 2**32 - 1)


@given(class_labels, st.integers(2, 5), seeds, st.booleans())
def test_folds_of_all_but_the_test_part_equal_scikit_learn(
    labels: NDArray[np.int64], folds: int, seed: int, stratify: bool
) -> None:
    held = split_indices(SplitSpec(seed=3, stratify=stratify, validation=0, train=9), len(labels), labels).test
    rest = np.setdiff1d(np.arange(len(labels)), held)
    splitter = (StratifiedKFold if stratify else KFold)(folds, shuffle=True, random_state=seed)
    for fold, (train, validation) in enumerate(splitter.split(rest, labels[rest])):
        spec = SplitSpec(folds=folds, fold=fold, seed=3, resample_seed=seed, stratify=stratify)
        parts = split_indices(spec, len(labels), labels)
        assert parts.test.tolist() == held.tolist()
        assert parts.train.tolist() == rest[train].tolist()
        assert parts.validation.tolist() == rest[validation].tolist()
        assert (len(parts.train), len(parts.validation), len(parts.test)) == spec.sizes(len(labels))


@given(class_labels, seeds, st.booleans())
def test_draws_of_all_but_the_test_part_equal_scikit_learn(
    labels: NDArray[np.int64], seed: int, stratify: bool
) -> None:
    spec = SplitSpec(train=6, validation=2, test=2, seed=3, resample_seed=seed, stratify=stratify)
    parts = split_indices(spec, len(labels), labels)
    train, validation, test = spec.sizes(len(labels))
    held = split_indices(SplitSpec(seed=3, stratify=stratify, validation=0, train=8, test=2), len(labels), labels).test
    rest = np.setdiff1d(np.arange(len(labels)), held)
    splitter = (StratifiedShuffleSplit if stratify else ShuffleSplit)(
        1, train_size=train, test_size=validation, random_state=seed
    )
    (expected,) = splitter.split(rest, labels[rest])
    assert parts.test.tolist() == held.tolist()
    assert parts.train.tolist() == sorted(rest[expected[0]])
    assert parts.validation.tolist() == sorted(rest[expected[1]])
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (train, validation, test)


@given(labels_of, seeds)
def test_a_draw_takes_classes_of_any_size_and_every_sample_once(labels: NDArray[np.int64], seed: int) -> None:
    held = len(labels) // 3
    train, validation = shuffle_split(len(labels), labels, held, seed)
    assert len(validation) == held
    assert sorted([*train, *validation]) == list(range(len(labels)))


@pytest.mark.parametrize("resampled", [{"folds": 4, "fold": 1}, {"resample_seed": 7}])
def test_a_shipped_test_part_is_held_out_and_the_other_shipped_parts_are_drawn_anew(resampled: dict[str, int]) -> None:
    shipped = np.array([2] * 20 + [0] * 50 + [1] * 30)
    sizes = {"train": 50, "validation": 30, "test": 20}
    spec = SplitSpec.model_validate(resampled)
    parts = split_indices(spec, 100, None, shipped)
    assert parts.test.tolist() == list(range(20))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == spec.sizes(100, sizes)
    assert sorted([*parts.train, *parts.validation]) == list(range(20, 100))
    assert (parts.validation >= 70).sum() not in (0, 30)
    anew = split_indices(spec.model_copy(update={"use_predefined": False}), 100, None, shipped)
    assert anew.test.tolist() != list(range(20))
    assert len(anew.test) == 10
    without = split_indices(spec, 100, None, np.array([0] * 70 + [1] * 30))
    assert without.test.tolist() == anew.test.tolist(), "no shipped test part: one is drawn"


def test_folds_without_a_test_share_validate_every_sample_once() -> None:
    spec = SplitSpec(test=0, folds=4, fold=3)
    assert split_indices(spec, 10).test.tolist() == []
    found = [split_indices(spec.model_copy(update={"fold": fold}), 10).validation for fold in range(4)]
    assert sorted(np.concatenate(found)) == list(range(10))


@pytest.mark.parametrize("bad", [{"folds": 5}, {"fold": 1}, {"folds": 5, "fold": 5}, {"folds": 1, "fold": 0}])
def test_a_fold_is_one_of_the_folds(bad: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=r"belong together|`fold` is 0 to 4|greater than or equal to 2"):
        SplitSpec.model_validate(bad)


def test_without_duplicates_keeps_each_sample_in_one_part() -> None:
    # samples 0 to 9 with values 0 1 2 0 1 3 2 4 4 5: parts 0-4, 5-7, 8-9
    marks = row_digests(np.array([0.0, 1, 2, 0, 1, 3, 2, 4, 4, 5])[:, None])
    parts = Parts(np.arange(5), np.arange(5, 8), np.arange(8, 10))
    left = without_duplicates(parts, marks)
    assert left.train.tolist() == [0, 1, 3, 4], "copies within a part stay; 2 is also sample 6"
    assert left.validation.tolist() == [5, 6], "sample 7 is also sample 8"
    assert left.test.tolist() == [8, 9]
    with pytest.raises(DataError) as refused:
        without_duplicates(Parts(np.array([0]), np.array([3]), np.array([9])), marks)
    assert refused.value.problems[0].code == "no_training_samples"
