"""Previews of image datasets: any number of channels, any range of values, any order of the axes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainkit.data import prepare
from worker.previews import augmentation_preview, preview
from worker.request_input import BadInputError

LEVELS = np.random.default_rng(0).integers(0, 256, (9, 8, 6, 7)) / 255
LEVELS[0, 0], LEVELS[0, 1] = 0, 1
SCALES: dict[str, tuple[float, float, str]] = {
    "uint8": (255, 0, "uint8"),
    "0..1": (1, 0, "float32"),
    "0..16": (16, 0, "int64"),
    "0..255": (255, 0, "float64"),
    "-1..1": (2, -1, "float32"),
    "standardised": (4.5, -2.1, "float64"),
}
STEPS = [{"kind": "rotate"}, {"kind": "noise"}, {"kind": "brightness"}, {"kind": "rand_augment"}]


def prepared(tmp_path: Path, x: Any) -> Path:
    np.savez(tmp_path / "d.npz", X=x, y=np.arange(len(x)) % 2)
    prepare(tmp_path / "d.npz", tmp_path / "prepared")
    return tmp_path / "prepared"


def opened(answer: tuple[bytes, str]) -> Image.Image:
    assert answer[1] == "image/png"
    image = Image.open(io.BytesIO(answer[0]))
    image.load()
    return image.convert("RGB")


def preview_request(**options: Any) -> bytes:
    return json.dumps({"index": 0, "count": 4, "seed": 0, "augment": STEPS, **options}).encode()


def saturated_share(image: Image.Image) -> float:
    """Share of the pixels that are no grey: axes and labels are."""
    pixels = np.asarray(image, np.int16)
    return float((np.ptp(pixels, axis=2) > 60).mean())


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("scale", SCALES)
def test_any_channels_and_any_range(scale: str, channels: int, tmp_path: Path) -> None:
    a, b, dtype = SCALES[scale]
    folder = prepared(tmp_path, (LEVELS[..., :channels] * a + b).astype(dtype))
    sheet = opened(preview(folder, b"{}", "", {}))
    variants = opened(augmentation_preview(folder, preview_request(), "", {}))
    in_colour = channels == 3 and scale != "standardised"
    assert (saturated_share(sheet) > 0.05) == in_colour
    assert (saturated_share(variants) > 0.05) == in_colour
    assert np.asarray(sheet).std() > 20, "the whole range is used"


@pytest.mark.parametrize("scale", ["uint8", "0..16", "0..255", "-1..1"])
def test_the_same_images_on_another_scale_look_the_same(scale: str, tmp_path: Path) -> None:
    sheets = []
    for name in ("0..1", scale):
        a, b, dtype = SCALES[name]
        levels = np.rint(LEVELS[..., :3] * 16) / 16 if scale == "0..16" else LEVELS[..., :3]
        (tmp_path / name).mkdir()
        folder = prepared(tmp_path / name, (levels * a + b).round(9 if dtype.startswith("float") else 0).astype(dtype))
        sheets.append(np.asarray(opened(augmentation_preview(folder, preview_request(), "", {})), np.int16))
    assert np.abs(sheets[0] - sheets[1]).max() <= 2


def test_images_without_an_axis_of_channels(tmp_path: Path) -> None:
    folder = prepared(tmp_path, LEVELS[..., 0] * 16)
    opened(preview(folder, b"{}", "", {}))
    opened(augmentation_preview(folder, preview_request(), "", {}))


def test_many_channels_are_cut(tmp_path: Path) -> None:
    opened(preview(prepared(tmp_path, np.random.default_rng(0).normal(size=(9, 40, 6, 6))), b"{}", "", {}))


@pytest.mark.parametrize(
    ("x", "options", "code", "pointer"),
    [
        (LEVELS[..., :4], {"augment": [{"kind": "noise"}, {"kind": "hue"}]}, "needs_colour", "/augment/1"),
        (LEVELS[..., :3] * 5 - 2, {"augment": [{"kind": "saturation"}]}, "needs_colour", "/augment/0"),
        (LEVELS[..., :3], {"augment": [{"kind": "mixup"}]}, "needs_a_batch", "/augment/0"),
        (LEVELS[..., :3], {"index": 9}, "no_such_sample", "/index"),
        (LEVELS.reshape(9, -1), {}, "no_images", "/"),
    ],
)
def test_what_has_no_preview_is_refused_with_its_place(
    x: Any, options: dict[str, Any], code: str, pointer: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError) as caught:
        augmentation_preview(prepared(tmp_path, x), preview_request(**options), "", {})
    assert (caught.value.error["code"], caught.value.error["pointer"]) == (code, pointer)


def test_named_samples_of_any_kind_are_drawn(tmp_path: Path) -> None:
    images = prepared(tmp_path, (LEVELS[..., :3] * 255).astype("uint8"))
    few = opened(preview(images, b'{"samples": [2]}', "", {}))
    assert few.height < opened(preview(images, b"{}", "", {})).height
    (tmp_path / "t.csv").write_text("a,b,y\n" + "".join(f"{i},x{i % 3},{'ab'[i % 2]}\n" for i in range(40)))
    prepare(tmp_path / "t.csv", tmp_path / "table", target="y")
    rows = [opened(preview(tmp_path / "table", json.dumps({"samples": s}).encode(), "", {})) for s in ([1], [1, 5, 7])]
    assert rows[0].height < rows[1].height
    with pytest.raises(BadInputError, match="no sample 40"):
        preview(tmp_path / "table", b'{"samples": [3, 40]}', "", {})
