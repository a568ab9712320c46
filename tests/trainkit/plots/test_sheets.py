"""Previews: every kind of dataset gets a picture, whatever its columns hold."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from trainkit.data import Column, ImageInputs, SequenceInputs, TableInputs
from trainkit.data.dataset import Dataset, categories_of, make_dataset
from trainkit.plots.sheets import dataset_preview, shortened

RANDOM = np.random.default_rng(0)


def drawn(dataset: Dataset) -> Image.Image:
    image = Image.open(io.BytesIO(dataset_preview(dataset)))
    image.load()
    return image


@pytest.mark.parametrize(
    "values",
    [
        RANDOM.normal(size=50),
        np.arange(50.0),
        np.full(50, np.nan),
        np.full(50, 3.0),
        np.append(RANDOM.normal(size=999), 1e9),
        np.array([1e300, -1e300, 0.0]),
        np.array([np.inf, 1.0, 2.0]),
    ],
)
def test_columns_of_numbers(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    assert drawn(make_dataset("table", TableInputs({"x": Column(values)}), None, None, None)).width > 100


def test_a_column_of_dates_is_drawn_over_dates() -> None:
    seconds = 86400.0 * np.arange(19000, 20000, 5)
    dates = drawn(make_dataset("table", TableInputs({"x": Column(seconds, is_date=True)}), None, None, None))
    numbers = drawn(make_dataset("table", TableInputs({"x": Column(seconds)}), None, None, None))
    assert dates.tobytes() != numbers.tobytes()


def test_the_target_is_shown_although_it_is_the_last_of_many_columns() -> None:
    columns = {f"c{i}": Column(RANDOM.normal(size=20)) for i in range(40)} | {"y": categories_of(["a", "b"] * 10)}
    first = drawn(make_dataset("table", TableInputs(columns), None, None, None))
    second = drawn(make_dataset("table", TableInputs(columns), None, None, None, target="y"))
    assert first.tobytes() != second.tobytes()


@pytest.mark.parametrize(("count", "features"), [(1, 1), (4, 3), (20, 40)])
def test_sequences(count: int, features: int) -> None:
    offsets = np.arange(count + 1) * 5
    values = RANDOM.normal(size=(offsets[-1], features)).astype(np.float32)
    assert drawn(make_dataset("sequences", SequenceInputs(values, offsets), None, None, None)).height > 100


def test_images_and_arrays() -> None:
    pixels = RANDOM.integers(0, 256, (7, 8, 8, 3), np.uint8)
    labels = np.array([0, 1, 0, 1, 0, 1, 0])
    assert drawn(make_dataset("images", ImageInputs(pixels), labels, ("a", "b"), None)).width > 100
    assert drawn(Dataset.from_arrays(RANDOM.normal(size=(9, 3)))).width > 100


def test_long_names_end_in_an_ellipsis() -> None:
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcd", 4) == "abcd"
