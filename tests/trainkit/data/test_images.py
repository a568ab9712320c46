"""Images in class folders: formats, modes, parts, sizes, and files that are not images."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainkit.data import DataError, ImageInputs, decoding, load_dataset
from trainkit.data.decoding import decode, to_pixels
from trainkit.data.images import read_images
from trainkit.spec.read_options import ReadOptions

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # which `decode` leaves to its caller


def picture(
    mode: str = "L", size: tuple[int, int] = (6, 4), colour: Any = None, kind: str = "PNG", **save: Any
) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 0 if colour is None else colour).save(buffer, kind, **save)
    return buffer.getvalue()


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def pixels_of(path: Path) -> np.ndarray[Any, Any]:
    inputs = read_images(path)[0].inputs
    assert isinstance(inputs, ImageInputs)
    return inputs.pixels


@pytest.mark.parametrize("prefix", ["", "root/", "outer/inner/"])
def test_read_images_folders_are_classes(prefix: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "d", {f"{prefix}{c}/{i}.png": picture() for c in ("cat", "dog") for i in range(3)})
    dataset, _ = read_images(path)
    assert dataset.facts.classes == {"cat": 3, "dog": 3}
    assert dataset.facts.splits is None
    assert dataset.targets is not None
    assert dataset.targets.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_part_folders_become_the_predefined_split(validation: str, tmp_path: Path) -> None:
    parts = ("train", validation, "TEST")
    path = folder(tmp_path / "d", {f"root/{part}/{c}/0.png": picture() for part in parts for c in ("cat", "dog")})
    dataset, _ = read_images(path)
    assert dataset.facts.splits == {"train": 2, "validation": 2, "test": 2}
    assert dataset.facts.classes == {"cat": 3, "dog": 3}


def test_read_images_refuses_images_without_a_class(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", {"train/cat/0.png": picture(), "train/dog/0.png": picture(), "test/x.png": picture()})
    with pytest.raises(DataError, match=r"test/x\.png: 1 images are not in a class folder"):
        read_images(path)
    loose = folder(tmp_path / "e", {"cat/0.png": picture(), "x.png": picture()})
    with pytest.raises(DataError, match=r"x\.png"):
        read_images(loose)


def test_read_images_uses_the_most_common_size(tmp_path: Path) -> None:
    files = {f"a/{i}.png": picture(size=(6, 4), colour=200) for i in range(3)}
    path = folder(tmp_path / "d", {**files, "b/0.png": picture(size=(12, 8), colour=200)})
    dataset, details = read_images(path)
    assert dataset.facts.input_shape == (1, 4, 6)
    assert details["shapes"] == {"6x4": 3, "12x8": 1}
    assert details["resized"] == 1
    assert (pixels_of(path) == 200).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats(kind: str, tmp_path: Path) -> None:
    data = picture("RGB", colour=(255, 0, 0), kind=kind)
    pixels = pixels_of(folder(tmp_path / "d", {f"a/0.{kind.lower()}": data, f"b/0.{kind.lower()}": data}))
    assert pixels.shape == (2, 4, 6, 3)
    np.testing.assert_allclose(pixels[0, 0, 0].astype(int), [255, 0, 0], atol=3)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, [255]),
        ("L", 77, [77]),
        ("LA", (0, 0), [255]),
        ("LA", (10, 255), [10]),
        ("P", 0, [0, 0, 0]),
        ("RGB", (1, 2, 3), [1, 2, 3]),
        ("RGBA", (0, 0, 0, 0), [255, 255, 255]),
        ("RGBA", (0, 100, 200, 51), [204, 224, 244]),
        ("CMYK", (0, 0, 0, 255), [0, 0, 0]),
        ("YCbCr", (128, 128, 128), [128, 128, 128]),
        ("HSV", (0, 0, 50), [50, 50, 50]),
        ("I;16", 65535, [255]),
        ("I", 32768, [128]),
        ("F", 0.5, [128]),
        ("F", 51.0, [51]),
    ],
)
def test_modes(mode: str, colour: Any, expected: list[int]) -> None:
    assert to_pixels(Image.new(mode, (2, 2), colour))[0, 0].tolist() == expected


def test_a_transparent_colour_of_a_grey_image_is_white_and_stays_grey() -> None:
    pixels, mode = decode(picture("L", colour=9, transparency=9))
    assert mode == "L"
    assert pixels.shape == (4, 6, 1)
    assert (pixels == 255).all()


def test_to_pixels_applies_the_exif_orientation() -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    assert decode(picture("RGB", size=(6, 4), kind="JPEG", exif=tags))[0].shape == (6, 4, 3)


def test_grey_images_become_colour_when_one_has_colour(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", {"a/0.png": picture("L", colour=9), "b/0.png": picture("RGB", colour=(1, 2, 3))})
    assert pixels_of(path)[:, 0, 0].tolist() == [[9, 9, 9], [1, 2, 3]]


def test_read_images_reports_a_few_unreadable_files(tmp_path: Path) -> None:
    good = {f"{c}/{i}.png": picture() for c in "ab" for i in range(15)}
    path = folder(tmp_path / "d", {**good, "a/bad.png": b"no image", "a/notes.txt": b"hello"})
    dataset, details = read_images(path)
    assert dataset.facts.samples == 30
    assert [item["where"] for item in details["unreadable"]] == ["a/bad.png"]
    assert "BytesIO" not in details["unreadable"][0]["reason"]
    assert details["other_files"] == ["a/notes.txt"]


def test_read_images_refuses_many_unreadable_files(tmp_path: Path) -> None:
    good = {f"{c}/{i}.png": picture() for c in "ab" for i in range(5)}
    with pytest.raises(DataError) as caught:
        read_images(folder(tmp_path / "d", {**good, "a/bad.png": picture()[:40]}))
    assert [problem.where for problem in caught.value.problems] == ["a/bad.png"]


def test_read_images_with_a_given_size(tmp_path: Path) -> None:
    small, large = picture(size=(6, 4)), picture(size=(8, 8))
    path = folder(tmp_path / "d", {"a/1.png": small, "a/2.png": large, "b/1.png": large})
    dataset, details = read_images(path, size=(2, 3))
    assert dataset.facts.input_shape is not None
    assert dataset.facts.input_shape[1:] == (2, 3)
    assert (details["shapes"], details["size"], details["resized"]) == ({"8x8": 2, "6x4": 1}, "3x2", 3)
    with pytest.raises(DataError, match="9000 x 8 pixels"):
        load_dataset(path, reading=ReadOptions(image_size="9000x8"))


def test_read_images_refuses_an_archive_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"only a\.txt"):
        read_images(folder(tmp_path / "d", {"a.txt": b""}))


def test_an_image_that_unpacks_to_too_much_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MOST_PIXELS", 20)
    monkeypatch.setattr(decoding, "to_pixels", lambda _: pytest.fail("it was unpacked"))
    with pytest.raises(ValueError, match="6 x 4 pixels, more than the limit of 20"):
        decode(picture())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_decode_damaged_images_raises_value_errors(kind: str) -> None:
    random = np.random.default_rng(0)
    raw = picture("RGB", (16, 16), (9, 9, 9), kind)
    for trial in range(200):
        broken = bytearray(raw)
        for place in random.integers(0, len(raw), 1 + trial % 5):
            broken[place] = random.integers(256)
        with suppress(ValueError):
            decode(bytes(broken[: random.integers(len(raw))] if trial % 4 == 0 else broken))


def test_progress_counts_the_images(tmp_path: Path) -> None:
    counts: list[int] = []
    path = folder(tmp_path / "d", {f"{c}/{i:03d}.png": picture() for c in "ab" for i in range(100)})
    read_images(path, progress=counts.append)
    assert counts == sorted(counts)
    assert counts[-1] == 200
    assert len(counts) > 2
