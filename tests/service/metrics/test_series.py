"""Down-sampling keeps what people look for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.metrics.series import downsample

VALUES = st.lists(st.floats(width=32), min_size=1, max_size=400).map(lambda values: np.asarray(values, np.float64))


@given(VALUES, st.integers(5, 100))
def test_bounded_ordered_and_with_both_ends_and_extremes(values: np.ndarray, most: int) -> None:
    kept = downsample(values, most)
    assert len(kept) <= most
    assert (np.diff(kept) > 0).all()
    assert (kept[0], kept[-1]) == (0, len(values) - 1)
    finite = values[np.isfinite(values)]
    chosen = values[kept][np.isfinite(values[kept])]
    if len(finite):
        assert (chosen.min(), chosen.max()) == (finite.min(), finite.max())
    assert np.isfinite(values).all() == np.isfinite(values[kept]).all(), "a run that diverged still shows it"


def test_short_series_come_whole() -> None:
    assert downsample(np.arange(10.0), 10).tolist() == list(range(10))


def test_by_hand() -> None:
    # first, last, and of two buckets of four the smallest and the largest
    values = np.array([5.0, 1, 4, 2, 3, 9, 7, 8, 6, 0])
    assert downsample(values, 8).tolist() == [0, 1, 2, 5, 8, 9]
