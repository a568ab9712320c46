"""The range of image values is found at intake: a common one for channels of one scale, else one for each channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainkit.data import ImageInputs
from trainkit.data import value_range as measuring
from trainkit.data.dataset import Dataset, make_dataset
from trainkit.spec.value_range import value_ranges, why_not_colour

RANDOM = np.random.default_rng(0)
UNIT = RANDOM.random((40, 3, 5, 4)) * 0.98 + 0.01
UNIT[0, :, 0, :2] = 0.0, 1.0


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 1, "float32"),
        (0, 255, "float64"),
        (0, 255, "int64"),
        (-1, 1, "float32"),
        (0, 16, "int32"),
        (0, 16, "float32"),
        (0, 4095, "uint16"),
        (-2.5, 2.75, "float64"),
        (0, 1, "bool"),
        (0, 1, "float16"),
    ],
)
def test_ranges_of_arrays(channels: int, low: float, high: float, dtype: str) -> None:
    x = (np.repeat(UNIT[:, :1], channels, 1) * (high - low) + low).astype(dtype)
    assert Dataset.from_arrays(x, channels="first").facts.value_ranges == ((low, high),) * channels
    if channels == 1:
        assert Dataset.from_arrays(x[:, 0]).facts.value_ranges == ((low, high),)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        ([(0.1, 0.9)], [(0, 1)]),
        ([(0, 0.4)], [(0, 0.4)]),
        ([(-0.9, 0.3)], [(-1, 1)]),
        ([(3, 250)], [(0, 255)]),
        ([(0, 100)], [(0, 100)]),
        ([(0, 0.9), (0, 0.2), (0.1, 1)], [(0, 1)] * 3),  # a reddish picture is one of light, too
        ([(0, 1), (0.2, 0.2)], [(0, 1)] * 2),
        ([(0, 1), (255, 255)], [(0, 1), (255, 255)]),
        ([(5, 5)], [(5, 5)]),
        ([(0, 4000), (250, 310)], [(0, 4000), (250, 310)]),
        ([(0, 1), (3, 250)], [(0, 1), (0, 255)]),
        ([(-2.1, 2.2), (-2.0, 2.4), (-1.8, 2.6)], [(-2.1, 2.6)] * 3),
    ],
)
def test_the_rule(observed: list[tuple[float, float]], expected: list[tuple[float, float]]) -> None:
    assert list(value_ranges(observed)) == expected


def test_bytes_are_measured_as_a_network_reads_them() -> None:
    assert Dataset.from_arrays((UNIT * 255).astype(np.uint8)).facts.value_ranges == ((0, 1),) * 3
    dark = Dataset.from_arrays((UNIT[:, :1] * 16).astype(np.uint8))
    assert dark.facts.value_ranges == ((0, 16 / 255),), "noise of 2 % is a third of a level, not five"
    pixels = (UNIT * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    assert make_dataset("images", ImageInputs(pixels), None, None, None).facts.value_ranges == ((0, 1),) * 3


def test_blocks_give_the_same_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BLOCK_VALUES", 60)
    x = (UNIT * 16).astype(np.uint8)
    x[-1, 2, 0, 0] = 33
    assert measuring.measure_value_ranges(x, 1) == ((0, 33 / 255),) * 3


def test_values_that_are_not_finite_have_no_part_in_it() -> None:
    x = UNIT.astype(np.float32).copy()
    x[3, 0, 0, 0], x[4, 1, 0, 0] = np.nan, -np.inf
    assert Dataset.from_arrays(x).facts.value_ranges == ((0, 1),) * 3


def test_vectors_have_none_and_a_dataset_of_an_earlier_version_is_measured(tmp_path: Path) -> None:
    assert Dataset.from_arrays(UNIT.reshape(40, -1)).image_value_ranges() is None
    dataset = Dataset.from_arrays(UNIT * 16)
    old: Any = Dataset(dataset.facts.model_copy(update={"value_ranges": None}), dataset.inputs)
    old.save(tmp_path / "d")
    loaded = Dataset.load(tmp_path / "d")
    assert loaded.facts.value_ranges is None
    assert loaded.image_value_ranges() == ((0, 16),) * 3


def test_what_has_no_colours() -> None:
    assert why_not_colour(3, None) is None
    assert why_not_colour(3, [(0, 16)] * 3) is None
    assert why_not_colour(3, [(-1, 1)] * 3) is None
    assert "have 4 channels" in str(why_not_colour(4, None))
    assert "have 1 channel," in str(why_not_colour(1, None))
    assert "different ranges" in str(why_not_colour(3, [(0, 1), (0, 1), (0, 9)]))
    assert "as after standardisation" in str(why_not_colour(3, [(-2, 2)] * 3))
