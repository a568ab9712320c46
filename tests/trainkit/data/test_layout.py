"""Arrays of images: channels first or last, by the shape or as given at upload; stored channels first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainkit.data import ArrayInputs, DataError, Dataset, load_dataset, prepare
from trainkit.data.layout import detect_layout
from trainkit.spec.read_options import ReadOptions

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "layout", "certain"),
    [
        ((28, 28, 3), "last", True),
        ((3, 28, 28), "first", True),
        ((28, 28, 1), "last", True),
        ((1, 28, 28), "first", True),
        ((30, 20, 4), "last", True),
        ((2, 100, 60), "first", True),
        ((64, 64, 13), "last", True),
        ((13, 64, 64), "first", True),
        ((16, 8, 8), "first", True),
        ((8, 8, 16), "last", True),
        ((4, 4, 3), "last", True),
        ((3, 4, 4), "first", True),
        ((3, 3, 3), "first", False),
        ((3, 32, 3), "first", False),
        ((7, 8, 9), "first", False),
        ((2, 50, 3), "first", False),
    ],
)
def test_detect_layout(shape: tuple[int, int, int], layout: str, certain: bool) -> None:
    assert detect_layout(shape) == (layout, certain)


def saved(tmp_path: Path, **arrays: Any) -> Path:
    np.savez(tmp_path / "d.npz", **arrays)
    return tmp_path / "d.npz"


def finding_of(report: dict[str, Any], code: str) -> dict[str, str]:
    (found,) = [finding for finding in report["findings"] if finding["code"] == code]
    return found


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_channels_last_are_detected_said_and_stored_first(dtype: str, tmp_path: Path) -> None:
    x = RANDOM.integers(0, 256, (6, 28, 20, 3)).astype(dtype)
    facts, report = prepare(saved(tmp_path, X=x, y=np.arange(6) % 2), tmp_path / "p")
    assert (facts.input_shape, facts.channels) == ((3, 28, 20), "last")
    inputs = Dataset.load(tmp_path / "p").inputs
    assert isinstance(inputs, ArrayInputs)
    np.testing.assert_array_equal(inputs.values, x.transpose(0, 3, 1, 2))
    found = finding_of(report, "channel_layout")
    assert found["severity"] == "info"
    assert found["message"] == (
        "samples of shape (28, 20, 3) are read as images of 20 x 28 pixels with 3 channels, channels last (detected); "
        "upload with `channels: first` if that is wrong"
    )


def test_parts_are_read_alike(tmp_path: Path) -> None:
    arrays = {f"X_{part}": RANDOM.random((4, 9, 9, 3)) for part in ("train", "val", "test")}
    arrays |= {f"y_{part}": np.arange(4) % 2 for part in ("train", "val", "test")}
    assert load_dataset(saved(tmp_path, **arrays)).facts.input_shape == (3, 9, 9)


@pytest.mark.parametrize(("channels", "shape"), [("first", (28, 20, 3)), ("last", (3, 28, 20))])
def test_the_option_decides(channels: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    path = saved(tmp_path, X=RANDOM.random((6, 28, 20, 3)))
    facts, report = prepare(path, tmp_path / "p", reading=ReadOptions(channels=channels))
    assert (facts.input_shape, facts.channels) == (shape, channels)
    assert finding_of(report, "channel_layout")["message"].endswith("(given at upload)")
    assert Dataset.from_arrays(RANDOM.random((6, 28, 20, 3)), channels=channels).facts.input_shape == shape


def test_a_shape_that_leaves_it_open_is_a_warning(tmp_path: Path) -> None:
    _, report = prepare(saved(tmp_path, X=RANDOM.random((6, 7, 8, 9))), tmp_path / "p")
    found = finding_of(report, "channel_layout")
    assert found["severity"] == "warning"
    assert "channels first (the shape leaves it open); upload with `channels: last`" in found["message"]


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4)])
def test_arrays_without_channels_have_no_layout(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = saved(tmp_path, X=RANDOM.random(shape))
    facts, report = prepare(path, tmp_path / "p")
    assert facts.channels is None
    assert "layout" not in report
    with pytest.raises(DataError, match=r"channels: X has shape .* which has no axis of channels"):
        load_dataset(path, reading=ReadOptions(channels="last"))


def test_other_kinds_refuse_the_options_of_arrays(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(DataError, match="channels: `channels` is for arrays; this is a dataset of kind table"):
        load_dataset(tmp_path / "t.csv", reading=ReadOptions(channels="last"))
    with pytest.raises(DataError, match="task: `task` is for arrays and sequences"):
        load_dataset(tmp_path / "t.csv", reading=ReadOptions(task="regression"))
    path = saved(tmp_path, values=RANDOM.random((5, 2)), offsets=np.array([0, 2, 5]))
    with pytest.raises(DataError, match="channels: sequences have no axis of channels"):
        load_dataset(path, reading=ReadOptions(channels="last"))
